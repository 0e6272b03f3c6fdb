package dns

import (
	"context"
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/miekg/dns"

	"moire.dev/moire/snapshot"
)

// sameSources: whom to ask is the same.
func sameSources(a, b *view) bool {
	return reflect.DeepEqual(a.config.Forward, b.config.Forward) && reflect.DeepEqual(a.config.Delegations, b.config.Delegations) &&
		a.config.NoForward == b.config.NoForward
}

// job is one query on its way.
type job struct {
	s      *Server
	t      *tenant
	v      *view
	client snapshot.Addr
	limit  int // bytes of the answer
	stream bool
	q      query
}

// start reads a query. It returns the answer when that needs nobody else, nil
// when none is due, and more when finish has to be called.
func (j *job) start(m, buf []byte) (out []byte, more bool) {
	j.s.stats.queries.Add(1)
	now := j.s.now()
	verdict := j.q.parse(m)
	if verdict == dropIt || !j.t.limit.take(j.client.IP, costAnswer, now.UnixNano()) {
		j.s.stats.dropped.Add(1)
		return nil, false
	}
	j.limit = maxMessage
	if !j.stream {
		j.limit = j.q.size
	}
	if verdict != proceed {
		return j.short(buf, verdict, note{}), false
	}
	if j.watched() {
		return nil, true
	}
	return j.quick(buf, now.Unix())
}

// watched: a Policy hangs on the answer.
func (j *job) watched() bool {
	if j.s.cfg.Teller == nil || j.q.kind != dns.TypeA && j.q.kind != dns.TypeAAAA {
		return false
	}
	return j.s.cfg.Teller.Watched(j.client) && j.s.cfg.Teller.Wants(j.client, j.name())
}

// name of the question, lower case, without a full stop at the end.
func (j *job) name() string { return strings.TrimSuffix(textName(string(j.q.key)), ".") }

// short is an answer without records.
func (j *job) short(buf []byte, rcode int, why note) []byte {
	var r reply
	r.begin(buf, &j.q, j.limit)
	return r.end(&j.q, rcode, false, why)
}

// say is an answer that is ready.
func (j *job) say(buf []byte, a *answer, turn uint32, now int64) []byte {
	var r reply
	r.begin(buf, &j.q, j.limit)
	r.add(a, j.v.order, turn, now)
	if j.q.kind == dns.TypeSRV && a.ours {
		j.extras(&r, a)
	}
	return r.end(&j.q, int(a.rcode), a.ours, a.note)
}

// extras adds the addresses of the targets of SRV records.
func (j *job) extras(r *reply, a *answer) {
	rest := a.body
	for range a.an {
		n := 12 + int(binary.BigEndian.Uint16(rest[10:]))
		key := strings.ToLower(string(rest[12+6 : n]))
		if e := j.v.names[key]; e != nil {
			for _, more := range []*answer{e.a, e.aaaa} {
				if more != nil {
					r.addAs(key, more, true)
				}
			}
		}
		rest = rest[n:]
	}
}

// quick answers from what is known: a hot name allocates nothing.
func (j *job) quick(buf []byte, now int64) (out []byte, more bool) {
	q, v := &j.q, j.v
	e, k := v.find(q.key)
	if q.kind == dns.TypeANY && k != nobody {
		return j.say(buf, minimal, 0, now), false
	}
	switch k {
	case here:
		if e.cname != nil && q.kind != dns.TypeCNAME {
			return nil, true
		}
		if a := e.answer(q.kind); a != nil {
			var turn uint32
			if v.order == roundRobin {
				turn = e.turn.Add(1)
			}
			return j.say(buf, a, turn, now), false
		}
		return j.say(buf, v.absent(q.key), 0, now), false
	case nothing:
		return j.say(buf, v.nodata, 0, now), false
	case nobody:
		return j.say(buf, v.missing, 0, now), false
	}
	if a := v.pointers(q.key, q.kind); a != nil {
		return j.say(buf, a, 0, now), false
	}
	if why := v.closed(q); why.text != "" {
		return j.short(buf, dns.RcodeRefused, why), false
	}
	var b [maxName + 3]byte
	if a := j.t.cache.get(cacheKey(b[:0], q.key, q.kind, q.do, q.flags&flagCD != 0), now); a != nil && a.next == "" {
		return j.say(buf, a, uint32(now), now), false
	}
	return nil, true
}

// minimal is all that ANY gets (RFC 8482).
var minimal = set([][]byte{block(dns.TypeHINFO, 3600, []byte("\x07RFC8482\x00"))})

// absent says that a name that is there has no such record.
func (v *view) absent(key []byte) *answer {
	if within(key, v.zone) {
		return v.nodata
	}
	return v.outside
}

// pointers answers for the name of an address; nil: somebody else does.
func (v *view) pointers(key []byte, kind uint16) *answer {
	targets, k := v.reverse(key)
	switch {
	case k == elsewhere:
		return nil
	case k == nobody:
		return v.missing
	case k == nothing || kind != dns.TypePTR:
		return v.nodata
	}
	var blocks [][]byte
	for _, t := range targets {
		blocks = append(blocks, block(dns.TypePTR, v.ttl, []byte(t)))
	}
	return set(blocks)
}

// closed says why nobody else is asked.
func (v *view) closed(q *query) note {
	zone, _ := v.route(string(q.key))
	switch {
	case v.config.NoForward && zone == "\x00":
		return note{dns.ExtendedErrorCodeProhibited, "Network " + v.network.Project + "/" + v.network.Name + " asks nobody else (spec.dns.noForward)"}
	case q.flags&flagRD == 0:
		return note{dns.ExtendedErrorCodeNotAuthoritative, "recursion was not desired"}
	}
	return note{}
}

// finish answers what takes others: names elsewhere, chains of names, and what
// a Policy hangs on.
func (j *job) finish(ctx context.Context, buf []byte) []byte {
	if !j.t.limit.take(j.client.IP, costForward, j.s.now().UnixNano()) {
		j.s.stats.dropped.Add(1)
		return j.short(buf, dns.RcodeRefused, note{dns.ExtendedErrorCodeProhibited, "too many queries that others have to be asked for"})
	}
	ctx, cancel := context.WithTimeout(ctx, askTime+tellTime)
	defer cancel()
	out := j.chase(ctx, buf)
	if !j.watched() {
		return out
	}
	addrs, ttl := told(out, len(j.q.question))
	if len(addrs) == 0 {
		return out
	}
	tell, stop := context.WithTimeout(ctx, tellTime)
	defer stop()
	if err := j.s.cfg.Teller.Told(tell, j.client, j.name(), addrs, time.Duration(ttl)*time.Second); err != nil {
		j.s.cfg.Log.Warn("an answer is kept back, as the addresses are not allowed yet", "network", j.client.VNI, "client", j.client.IP, "name", j.name(), "error", err)
		return j.short(buf, dns.RcodeServerFailure, note{dns.ExtendedErrorCodeNotReady, "the Policy by name is not in force yet"})
	}
	return out
}

// tellTime bounds how long an answer waits for the kernel.
const tellTime = 2 * time.Second

// maxAliases is how often a name may be another one.
const maxAliases = 8

// chase follows names that are others, here and elsewhere.
func (j *job) chase(ctx context.Context, buf []byte) []byte {
	var r reply
	q, v, now := &j.q, j.v, j.s.now().Unix()
	r.begin(buf, q, j.limit)
	name, ours, rcode, why := string(q.key), false, dns.RcodeSuccess, note{}
	for depth := 0; ; depth++ {
		if depth > maxAliases {
			return j.short(buf, dns.RcodeServerFailure, note{dns.ExtendedErrorCodeOther, "the name leads to others without an end"})
		}
		a, alias := j.step(ctx, name)
		if depth == 0 {
			ours = a.ours
			r.add(a, v.order, uint32(now), now)
		} else if a.ours {
			r.addAs(name, a, false)
			r.authority(a)
		} else if !r.addForeign(a, name, q.kind, now) {
			return j.short(buf, dns.RcodeServerFailure, note{dns.ExtendedErrorCodeOther, "an answer cannot be passed on"})
		}
		if rcode, why = int(a.rcode), a.note; alias == "" {
			return r.end(q, rcode, ours, why)
		}
		name = alias
	}
}

// step says what is known of one name of a chain, and where it goes on.
func (j *job) step(ctx context.Context, name string) (a *answer, next string) {
	q, v := &j.q, j.v
	e, k := v.find([]byte(name))
	switch k {
	case here:
		if e.cname != nil && q.kind != dns.TypeCNAME {
			return e.cname, e.alias
		}
		if a := e.answer(q.kind); a != nil {
			return a, ""
		}
		return v.absent([]byte(name)), ""
	case nothing:
		return v.nodata, ""
	case nobody:
		return v.missing, ""
	}
	if a := v.pointers([]byte(name), q.kind); a != nil {
		return a, ""
	}
	ask := query{key: []byte(name), flags: q.flags}
	if why := v.closed(&ask); why.text != "" {
		return &answer{rcode: dns.RcodeRefused, note: why}, ""
	}
	a = j.s.resolve(ctx, j.t, v, asked{
		vni: v.vni, client: j.client.IP, key: name, kind: q.kind, do: q.do, cd: q.flags&flagCD != 0,
	})
	return a, a.next
}

// authority adds the authority section of an answer of ours, which has owners
// in full.
func (r *reply) authority(a *answer) {
	if a.ns > 0 && a.an == 0 && binary.BigEndian.Uint16(a.body) != ownerPointer && r.fits(len(a.body)) {
		r.b, r.ns = append(r.b, a.body...), r.ns+a.ns
	}
}

// addForeign adds an answer about another name than that of the question.
func (r *reply) addForeign(a *answer, name string, kind uint16, now int64) bool {
	whole := make([]byte, headerSize, headerSize+len(name)+4+len(a.body))
	whole[5] = 1
	for i, n := range []uint16{a.an, a.ns, a.ar} {
		binary.BigEndian.PutUint16(whole[6+2*i:], n)
	}
	whole = append(whole, name...)
	whole = append(whole, byte(kind>>8), byte(kind), 0, dns.ClassINET)
	whole = append(whole, a.body...)
	var m dns.Msg
	if err := m.Unpack(whole); err != nil {
		return false
	}
	room := make([]byte, maxMessage)
	write := func(rrs []dns.RR, count *uint16) bool {
		for _, rr := range rrs {
			h := rr.Header()
			h.Ttl = uint32(max(int64(h.Ttl)-max(now-a.since, 0), 0))
			n, err := dns.PackRR(rr, room, 0, nil, false)
			if err != nil {
				return false
			}
			if !r.fits(n) {
				return true
			}
			r.b = append(r.b, room[:n]...)
			*count++
		}
		return true
	}
	return write(m.Answer, &r.an) && write(m.Ns, &r.ns)
}

// told lists the addresses of an answer, and how long they are valid.
func told(m []byte, question int) (addrs []netip.Addr, ttl uint32) {
	off := headerSize + question
	ttl = maxTTL
	for range binary.BigEndian.Uint16(m[6:]) {
		next, ok := skipName(m, off)
		if !ok || next+10 > len(m) {
			return nil, 0
		}
		end := next + 10 + int(binary.BigEndian.Uint16(m[next+8:]))
		if end > len(m) {
			return nil, 0
		}
		kind := binary.BigEndian.Uint16(m[next:])
		if a, ok := netip.AddrFromSlice(m[next+10 : end]); ok && (kind == dns.TypeA && a.Is4() || kind == dns.TypeAAAA && a.Is6()) {
			addrs, ttl = append(addrs, a), min(ttl, binary.BigEndian.Uint32(m[next+4:]))
		}
		off = end
	}
	return addrs, ttl
}
