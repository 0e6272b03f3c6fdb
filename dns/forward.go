package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
)

// Bounds of asking others.
const (
	askTime    = 4 * time.Second // all together: a resolver asks again after 5
	tryTime    = 1200 * time.Millisecond
	streamTime = 2 * time.Second
	badTime    = 10 * time.Second // a server that was silent is asked last
	maxTTL     = 24 * 60 * 60
	maxAbsent  = 15 * 60 // of what is not there
	failureTTL = 1       // RFC 9520
	maxChain   = 16      // records of a chain of names
)

// asked is one question to others.
type asked struct {
	vni    snapshot.VNI
	client netip.Addr
	key    string
	kind   uint16
	do, cd bool
}

// flight is a question that is being asked; others who ask it wait for it.
type flight struct {
	done   chan struct{}
	answer *answer
}

// resolve asks others, or remembers what they said. It never returns nil.
func (s *Server) resolve(ctx context.Context, t *tenant, v *view, q asked) *answer {
	key := string(cacheKey(nil, []byte(q.key), q.kind, q.do, q.cd))
	if a := t.cache.get([]byte(key), s.now().Unix()); a != nil {
		return a
	}
	t.mu.Lock()
	f := t.flights[key]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		t.flights[key] = f
		t.mu.Unlock()
		f.answer = s.ask(ctx, t, v, q)
		if f.answer.expires > f.answer.since {
			t.cache.put(key, f.answer)
		}
		t.mu.Lock()
		delete(t.flights, key)
		t.mu.Unlock()
		close(f.done)
		return f.answer
	}
	t.mu.Unlock()
	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
		return failure(s.now().Unix(), dns.ExtendedErrorCodeNetworkError, "the question is asked already, and the answer takes long")
	}
}

func failure(now int64, code uint16, format string, args ...any) *answer {
	return &answer{rcode: dns.RcodeServerFailure, since: now, expires: now + failureTTL, note: note{code, fmt.Sprintf(format, args...)}}
}

// ask asks one server after the other.
func (s *Server) ask(ctx context.Context, t *tenant, v *view, q asked) *answer {
	s.stats.forwarded.Add(1)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	zone, servers := v.route(q.key)
	byHost := false
	if len(servers) == 0 {
		var err error
		byHost = true
		if servers, err = s.host.get(s.now()); err != nil {
			return failure(s.now().Unix(), dns.ExtendedErrorCodeNotReady, "the node has no servers to ask: %v", err)
		}
	}
	why := errors.New("the node has no servers to ask; see its resolv.conf, or give the Network spec.dns.forward")
	for range 2 {
		for _, server := range t.inOrder(servers, s.now()) {
			if ctx.Err() != nil {
				break
			}
			inside := !byHost && v.inside(server.Addr())
			if inside && server.Addr() == q.client || server.Addr() == snapshot.NameServer4 || server.Addr() == snapshot.NameServer6 {
				why = fmt.Errorf("%s would be asked what it asks itself", server)
				continue
			}
			m, err := s.exchange(ctx, q, server, inside)
			if err != nil {
				t.mark(server, s.now())
				why = err
				continue
			}
			return s.accept(v, q, zone, m)
		}
	}
	s.stats.failed.Add(1)
	return failure(s.now().Unix(), dns.ExtendedErrorCodeNoReachableAuthority, "%v", why)
}

// exchange asks one server, by TCP when the answer is cut off.
func (s *Server) exchange(ctx context.Context, q asked, server netip.AddrPort, inside bool) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(textName(q.key), q.kind)
	m.CheckingDisabled = q.cd
	m.SetEdns0(ednsSize, q.do)
	ask := func() (*dns.Msg, error) {
		got, err := s.once(ctx, q.vni, m, "udp", server, inside, tryTime)
		if err == nil && got.Truncated {
			return s.once(ctx, q.vni, m, "tcp", server, inside, streamTime)
		}
		return got, err
	}
	got, err := ask()
	if err == nil && (got.Rcode == dns.RcodeFormatError || got.Rcode == dns.RcodeNotImplemented) {
		m.Extra = nil // an old server that knows no EDNS
		got, err = ask()
	}
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", server, err)
	}
	if got.Rcode != dns.RcodeSuccess && got.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("%s says %s", server, dns.RcodeToString[got.Rcode])
	}
	return got, nil
}

// once sends a question from a port of its own with an id of its own, and
// takes only an answer to just that.
func (s *Server) once(ctx context.Context, vni snapshot.VNI, m *dns.Msg, network string, server netip.AddrPort, inside bool, limit time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := s.cfg.Dial(ctx, vni, inside, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	m.Id = dns.Id()
	conn := &dns.Conn{Conn: c, UDPSize: maxQuery}
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	for range 64 { // strangers' datagrams
		got, err := conn.ReadMsg()
		switch {
		case ctx.Err() != nil:
			return nil, errors.New("no answer in time")
		case err != nil && got == nil:
			return nil, err
		case got != nil && got.Id == m.Id && got.Response && err == nil && echoes(got, m):
			return got, nil
		case network == "tcp":
			return nil, errors.New("the answer is not one to the question")
		}
	}
	return nil, errors.New("too many answers that are none")
}

func echoes(got, m *dns.Msg) bool {
	return len(got.Question) == 1 && strings.EqualFold(got.Question[0].Name, m.Question[0].Name) &&
		got.Question[0].Qtype == m.Question[0].Qtype && got.Question[0].Qclass == m.Question[0].Qclass
}

// accept takes of an answer what whoever was asked may speak of: the chain of
// names from the question on, as long as it stays in the zone that the server
// was asked for.
func (s *Server) accept(v *view, q asked, zone string, m *dns.Msg) *answer {
	now := s.now().Unix()
	chain, next := follow(v, q, zone, m.Answer)
	out := &dns.Msg{Question: []dns.Question{{Name: textName(q.key), Qtype: q.kind, Qclass: dns.ClassINET}}, Answer: chain, Compress: true}
	ttl := uint32(maxTTL)
	for _, rr := range chain {
		ttl = min(ttl, rr.Header().Ttl)
	}
	if next == "" && !slices.ContainsFunc(chain, func(rr dns.RR) bool { return rr.Header().Rrtype == q.kind }) {
		var absent uint32
		out.Ns, absent = denial(q, m.Ns)
		ttl = min(ttl, absent, maxAbsent)
		out.Rcode = m.Rcode
	}
	a, err := pack(out, q.key)
	if err != nil {
		return failure(now, dns.ExtendedErrorCodeOther, "the answer cannot be passed on: %v", err)
	}
	a.next, a.since, a.expires = next, now, now+int64(ttl)
	return a
}

// follow collects the chain. next is where it leaves the zone; "": nowhere.
func follow(v *view, q asked, zone string, rrs []dns.RR) (chain []dns.RR, next string) {
	at, seen := q.key, map[string]bool{}
	for !seen[at] && len(seen) < maxChain {
		seen[at] = true
		alias := ""
		for _, rr := range rrs {
			h := rr.Header()
			owner, ok := wireName(h.Name)
			if !ok || h.Class != dns.ClassINET {
				continue
			}
			dname := h.Rrtype == dns.TypeDNAME && owner != at && within(at, owner) && within(owner, zone)
			if owner != at && !dname {
				continue
			}
			h.Name = textName(owner)
			chain = append(chain, rr)
			if c, is := rr.(*dns.CNAME); is && q.kind != dns.TypeCNAME && owner == at {
				alias, _ = wireName(c.Target)
			}
		}
		if alias == "" {
			return chain, ""
		}
		// Somebody else speaks for the rest: another zone, or we ourselves.
		if other, _ := v.route(alias); other != zone || v.speaksFor(alias) {
			return chain, alias
		}
		at = alias
	}
	return chain, ""
}

// speaksFor reports whether we ourselves know about the name.
func (v *view) speaksFor(key string) bool {
	_, k := v.find([]byte(key))
	return k != elsewhere
}

// denial takes what says that something is not there, and for how long to
// believe it; without a SOA record, not at all (RFC 2308, 5).
func denial(q asked, rrs []dns.RR) (out []dns.RR, ttl uint32) {
	for _, rr := range rrs {
		owner, ok := wireName(rr.Header().Name)
		if !ok {
			continue
		}
		switch x := rr.(type) {
		case *dns.SOA:
			if within(q.key, owner) || len(out) == 0 {
				ttl = min(x.Hdr.Ttl, x.Minttl)
				x.Hdr.Ttl = min(ttl, maxAbsent)
				out = append(out, x)
			}
		case *dns.NSEC, *dns.NSEC3, *dns.RRSIG:
			if q.do {
				out = append(out, rr)
			}
		}
	}
	return out, ttl
}

// pack makes an answer of a message about the name of key.
func pack(m *dns.Msg, key string) (*answer, error) {
	b, err := m.Pack()
	if err != nil {
		return nil, err
	}
	start := headerSize + len(key) + 4
	if len(b) < start || len(b) > maxMessage-64 {
		return nil, errors.New("it is too long")
	}
	a := &answer{rcode: uint8(m.Rcode), an: uint16(len(m.Answer)), ns: uint16(len(m.Ns)), ar: uint16(len(m.Extra)), body: b[start:]}
	off, alike := start, true
	for i := range len(m.Answer) + len(m.Ns) + len(m.Extra) {
		first := off
		next, ok := skipName(b, off)
		if !ok || next+10 > len(b) {
			return nil, errors.New("it cannot be read again")
		}
		a.ttls = append(a.ttls, uint16(next+4-start))
		off = next + 10 + int(binary.BigEndian.Uint16(b[next+8:]))
		if i < len(m.Answer) {
			kind := binary.BigEndian.Uint16(b[next:])
			address := kind == dns.TypeA || kind == dns.TypeAAAA
			alike = alike && address && next == first+2 && binary.BigEndian.Uint16(b[first:]) == ownerPointer && (i == 0 || off-first == a.size)
			a.size = off - first
		}
	}
	if !alike {
		a.size = 0
	}
	return a, nil
}
