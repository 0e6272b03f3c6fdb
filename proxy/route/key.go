package route

import (
	"bytes"
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

// Caller is who sent a request, as far as it is known.
type Caller struct {
	Address  []byte // the bytes of its IP address, without the port
	Identity []byte // URI SAN
}

// HashKey is what ring hash and Maglev hash a request by: the parts that the
// rule names, of those that the request has; the address when it names none.
// The same request has the same key on every proxy. False: it has none of the
// parts, choose at random.
func (r *Rule) HashKey(h *message.Head, caller Caller, s *Scratch) (uint64, bool) {
	if len(r.hash) == 0 {
		return element(seed, caller.Address), len(caller.Address) > 0
	}
	key, some := seed, false
	for i := range r.hash {
		if v, ok := r.hash[i].value(h, caller, s); ok {
			key, some = element(mix(key+uint64(i)), v), true
		}
	}
	return key, some
}

// LimitKey is the bucket of RateLimits[i] that a request takes its token from.
// Callers that lack what the limit goes by share one bucket.
func (r *Rule) LimitKey(i int, h *message.Head, caller Caller, s *Scratch) uint64 {
	v, ok := r.limiters[i].value(h, caller, s)
	if !ok {
		return 0
	}
	return element(seed, v)
}

// HasFault says whether a request is one that the rule's Fault is meant for.
func (r *Rule) HasFault(h *message.Head, s *Scratch) bool {
	return r.Fault != nil && r.fault.met(&request{head: h, scratch: s})
}

func (c *source) value(h *message.Head, caller Caller, s *Scratch) ([]byte, bool) {
	switch c.from {
	case fromAddress:
		return caller.Address, len(caller.Address) > 0
	case fromIdentity:
		return caller.Identity, len(caller.Identity) > 0
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
