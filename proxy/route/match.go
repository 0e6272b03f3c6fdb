package route

import (
	"bytes"
	"math/bits"

	"moire.dev/moire/proxy/message"
)

// Found is what Match says.
type Found struct {
	// Rule of the request; nil: Status says why there is none.
	Rule *Rule
	// Status is 0, 400 (the host or the path is refused) or 404 (no rule, or the
	// listener does not serve the host).
	Status int
	// Why it is 400, for the record.
	Why string
	// Listener that serves the host; listeners of one address share their
	// connections. When a TLS connection was accepted for another (see Listener),
	// the request is misdirected: 421.
	Listener int
	// Prefix is how many bytes of the path the PathPrefix of the rule took.
	Prefix int
}

// Match finds the rule of a request that came in at a listener, numbered as in
// Config.Listeners. It first puts h.Path into its normal form, in memory of a,
// so that what is matched is what is sent on. See DESIGN.md for what is refused.
//
// A CONNECT without a path is matched by rules that name the method only, OPTIONS
// * by rules that any path meets. An extended CONNECT (RFC 8441) is matched as
// the GET that it is to an HTTP/1.1 back end.
func (t *Table) Match(listener int, h *message.Head, s *Scratch, a *Arena) Found {
	f := Found{Listener: listener, Status: 400}
	if !s.authority(h.Authority) {
		f.Why = badHost
		return f
	}
	d := t.door(listener, s)
	if d < 0 {
		f.Status = 404
		return f
	}
	f.Listener = d
	l := &t.listeners[d]
	if f.Why = s.path(h, l.keepSlashes, a); f.Why != "" {
		return f
	}
	r := request{head: h, method: h.Method, scratch: s, strict: len(h.Path) == 0}
	if s.end > 0 {
		r.path = h.Path[:s.end]
		if len(h.Path) > s.end {
			r.query = h.Path[s.end+1:]
		}
		if h.Upgrade != nil && h.IsMethod("CONNECT") {
			r.method = get
		}
	}
	f.Rule, f.Prefix = t.search(int32(d), l, &r)
	f.Status = 0
	if f.Rule == nil {
		f.Status = 404
	}
	return f
}

// Normal puts h.Path into the same normal form where there is no Table to match,
// in memory of a, and reads the host; why says why the request is refused (400).
func (s *Scratch) Normal(h *message.Head, keepSlashes bool, a *Arena) (why string) {
	if !s.authority(h.Authority) {
		return badHost
	}
	return s.path(h, keepSlashes, a)
}

// Host of the request that was matched or made normal last, in lower case,
// without port and without a full stop at the end. It is good until the next one.
func (s *Scratch) Host() []byte { return s.host[:s.hostLen] }

// HostOf is the host of an authority in the same form; false: it is none. It is
// good until the next one.
func (s *Scratch) HostOf(authority []byte) ([]byte, bool) {
	ok := s.authority(authority)
	return s.host[:s.hostLen], ok
}

// path puts h.Path into its normal form, and says why it has none.
func (s *Scratch) path(h *message.Head, keepSlashes bool, a *Arena) (why string) {
	switch {
	case len(h.Path) == 0 && h.IsMethod("CONNECT"), len(h.Path) == 1 && h.Path[0] == '*' && h.IsMethod("OPTIONS"):
		s.elements, s.full, s.end = 0, seed, 0
		return ""
	}
	path, why := s.target(h.Path, keepSlashes, a)
	if why == "" {
		h.Path = path
	}
	return why
}

var get = []byte("GET")

// search goes through the levels of a listener that the host belongs to, the
// most specific hostname first.
func (t *Table) search(n int32, l *listener, r *request) (*Rule, int) {
	s := r.scratch
	host := s.host[:s.hostLen]
	if v := t.level(n, byHost, false, s.hostHash, host); v >= 0 {
		if rule, prefix := t.in(v, r); rule != nil {
			return rule, prefix
		}
	}
	for k := min(s.labels-1, len(s.hosts)); k > 0; k-- {
		if l.wild&(1<<(k-1)) == 0 {
			continue
		}
		if v := t.level(n, byHost, true, s.hosts[k-1], host[s.starts[k-1]:]); v >= 0 {
			if rule, prefix := t.in(v, r); rule != nil {
				return rule, prefix
			}
		}
	}
	if v := l.any[byHost]; v >= 0 {
		return t.in(v, r)
	}
	return nil, 0
}

// in looks for a rule in one level.
func (t *Table) in(n int32, r *request) (*Rule, int) {
	if t.levels[n].grpc {
		return t.grpc(n, r), 0
	}
	return t.http(n, r)
}

// http: exact paths, then regular expressions, then prefixes from the longest.
func (t *Table) http(n int32, r *request) (*Rule, int) {
	v, s := &t.levels[n], r.scratch
	if len(r.path) > 0 {
		if v.exact {
			if b := t.bucket(exactPath, n, s.full, r.path); b != nil {
				if c := t.find(b, r); c != nil {
					return c.rule, 0
				}
			}
		}
		if v.patterns >= 0 {
			if c := t.find(&t.buckets[v.patterns], r); c != nil {
				return c.rule, 0
			}
		}
	}
	for depths := v.depths & (1<<(min(s.elements, 63)+1) - 1); depths != 0; {
		d := 63 - bits.LeadingZeros64(depths)
		depths &^= 1 << d
		hash, end := seed, 0
		if d > 0 {
			hash, end = s.hashes[d-1], int(s.ends[d-1])
		}
		if b := t.bucket(pathPrefix, n, hash, r.path[:end]); b != nil {
			if c := t.find(b, r); c != nil {
				return c.rule, end
			}
		}
	}
	return nil, 0
}

// grpc: service and method, from what is exact to what is open.
func (t *Table) grpc(n int32, r *request) *Rule {
	v, s := &t.levels[n], r.scratch
	if s.elements != 2 || !IsGRPC(r.head) {
		return nil
	}
	first := int(s.ends[0])
	r.service, r.call = r.path[1:first], r.path[first+1:]
	if len(r.service) == 0 || len(r.call) == 0 {
		return nil
	}
	var tries [5]*bucket
	tries[0] = t.bucket(grpcBoth, n, s.full, r.path)
	tries[1] = t.bucket(grpcService, n, s.hashes[0], r.service)
	if v.services >= 0 {
		tries[2] = &t.buckets[v.services]
	}
	if v.calls {
		tries[3] = t.bucket(grpcCall, n, element(seed, r.call), r.call)
	}
	if v.every >= 0 {
		tries[4] = &t.buckets[v.every]
	}
	for _, b := range tries {
		if b == nil {
			continue
		}
		if c := t.find(b, r); c != nil {
			return c.rule
		}
	}
	return nil
}

// IsGRPC says whether a request is a gRPC call: POST with a content type of
// application/grpc, perhaps with +suffix or parameters.
func IsGRPC(h *message.Head) bool {
	v, ok := h.Get(message.ContentType)
	const want = "application/grpc"
	return ok && h.IsMethod("POST") && len(v) >= len(want) && bytes.EqualFold(v[:len(want)], grpcType) &&
		(len(v) == len(want) || v[len(want)] == '+' || v[len(want)] == ';' || v[len(want)] == ' ')
}

var grpcType = []byte("application/grpc")

// MatchTLS finds the rule of a TLS connection by the name that its ClientHello
// asks for; empty: none. Nil: close the connection.
func (t *Table) MatchTLS(listener int, sni []byte, s *Scratch) *Rule {
	d := t.Listener(listener, sni, s)
	if d < 0 {
		return nil
	}
	l, host := &t.listeners[d], s.host[:s.hostLen]
	if v := t.level(int32(d), bySNI, false, s.hostHash, host); v >= 0 {
		return t.levels[v].tls
	}
	for k := min(s.labels-1, len(s.hosts)); k > 0; k-- {
		if v := t.level(int32(d), bySNI, true, s.hosts[k-1], host[s.starts[k-1]:]); v >= 0 {
			return t.levels[v].tls
		}
	}
	if v := l.any[bySNI]; v >= 0 {
		return t.levels[v].tls
	}
	return nil
}

// Listener is the listener that a host or SNI chooses among those that share
// the address of the one given; -1: none.
func (t *Table) Listener(listener int, host []byte, s *Scratch) int {
	if !s.authority(host) {
		return -1
	}
	return t.door(listener, s)
}

// MatchTCP finds the rule of the connections of a listener; nil: close them.
func (t *Table) MatchTCP(listener int) *Rule { return t.listeners[listener].tcp }
