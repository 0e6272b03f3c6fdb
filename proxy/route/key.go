package route

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"strings"

	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// source is where a part of a key comes from.
type source struct {
	from from
	id   message.ID
	name string
}

type from uint8

const (
	everybody from = iota
	fromAddress
	fromIdentity
	fromHeader
	fromCookie
	fromQuery
)

func hashSource(c *l7.HashOn) source {
	switch {
	case c.Header != "":
		return headerSource(c.Header)
	case c.Cookie != "":
		return source{from: fromCookie, name: c.Cookie}
	case c.Query != "":
		return source{from: fromQuery, name: c.Query}
	}
	return source{from: fromAddress}
}

func limitSource(by string) source {
	if name, ok := strings.CutPrefix(by, "header:"); ok {
		return headerSource(name)
	}
	switch by {
	case "address":
		return source{from: fromAddress}
	case "identity":
		return source{from: fromIdentity}
	}
	return source{from: everybody}
}

func headerSource(name string) source {
	name = strings.ToLower(name)
	return source{from: fromHeader, id: message.Known(name), name: name}
}

// HashOf is what ring hash and Maglev hash a request by: the parts that the
// rule names, of those that the request has; the caller's address when it names
// none or the request has none. The same request has the same hash on every
// proxy and in every release.
func (r *Rule) HashOf(h *message.Head, caller netip.Addr, s *Scratch) uint64 {
	key, some := seed, false
	for i := range r.hash {
		if v, ok := r.hash[i].value(h, caller, nil, s); ok {
			key, some = element(mix(key+uint64(i)), v), true
		}
	}
	if !some {
		return hashAddress(caller)
	}
	return key
}

// LimitKey is the bucket of RateLimits[i] that a request takes its token from.
// All callers that lack what the limit goes by share one bucket, so that
// nobody escapes by leaving it out. Identity is the caller's URI SAN, or empty.
// Nobody outside knows the seed: buckets do not verify whose they are.
func (r *Rule) LimitKey(i int, seed maphash.Seed, h *message.Head, caller netip.Addr, identity []byte, s *Scratch) uint64 {
	v, ok := r.limiters[i].value(h, caller, identity, s)
	if !ok {
		return 0
	}
	return maphash.Bytes(seed, v)
}

func hashAddress(a netip.Addr) uint64 {
	b := a.As16()
	return element(mix(seed), b[:])
}

func (c *source) value(h *message.Head, caller netip.Addr, identity []byte, s *Scratch) ([]byte, bool) {
	switch c.from {
	case fromAddress:
		b := caller.As16()
		s.value = append(s.value[:0], b[:]...)
		return s.value, true
	case fromIdentity:
		return identity, len(identity) > 0
	case fromCookie:
		return cookie(h, c.name)
	}
	r := request{head: h, scratch: s}
	switch c.from {
	case fromHeader:
		return r.header(c.id, c.name)
	case fromQuery:
		if i := bytes.IndexByte(h.Path, '?'); i >= 0 {
			r.query = h.Path[i+1:]
		}
		return r.parameter(c.name)
	}
	return nil, false
}

// cookie is the value of the first cookie called name (RFC 6265 section 5.4).
func cookie(h *message.Head, name string) ([]byte, bool) {
	for i := range h.Fields {
		if h.Fields[i].ID != message.Cookie {
			continue
		}
		for rest := h.Fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			key, value, ok := bytes.Cut(bytes.TrimSpace(pair), equals)
			if ok && string(key) == name {
				return value, true
			}
		}
	}
	return nil, false
}

var semicolon = []byte{';'}
