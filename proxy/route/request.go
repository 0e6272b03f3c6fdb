package route

import (
	"bytes"

	"moire.dev/moire/proxy/message"
)

// request is a head as candidates look at it.
type request struct {
	head    *message.Head
	method  []byte
	path    []byte // normal, without query
	query   []byte
	service []byte // of a gRPC call
	call    []byte
	strict  bool // only a match that names the method counts
	scratch *Scratch
}

// met says whether a request meets a candidate whose bucket was found.
func (c *candidate) met(r *request) bool {
	if c.method != "" {
		if string(r.method) != c.method {
			return false
		}
	} else if r.strict {
		return false
	}
	return (c.patterns == nil || c.patterns.met(r)) && c.conditions.met(r)
}

func (p *patterns) met(r *request) bool {
	return (p.path == nil || p.path.match(r.path)) && (p.service == nil || p.service.match(r.service)) && (p.call == nil || p.call.match(r.call))
}

func (c *conditions) met(r *request) bool {
	for i := range c.headers {
		h := &c.headers[i]
		if v, ok := r.header(h.id, h.name); !ok || !h.met(v) {
			return false
		}
	}
	for i := range c.query {
		q := &c.query[i]
		if v, ok := r.parameter(q.name); !ok || !q.met(v) {
			return false
		}
	}
	return true
}

func (c *condition) met(v []byte) bool {
	if c.pattern != nil {
		return c.pattern.match(v)
	}
	return string(v) == c.value
}

// header is the value of a header: of repeated lines the values joined with a
// comma (RFC 9110 section 5.2), of cookies with "; " (RFC 9113 section 8.2.3),
// so that a split value means what it means to the back end. It is good until
// the next call.
func (r *request) header(id message.ID, name string) ([]byte, bool) {
	if id == message.Upgrade {
		return r.head.Upgrade, r.head.Upgrade != nil
	}
	fields := r.head.Fields
	first := next(fields, 0, id, name)
	if first < 0 {
		return nil, false
	}
	second := next(fields, first+1, id, name)
	if second < 0 {
		return fields[first].Value, true
	}
	separator := ","
	if id == message.Cookie {
		separator = "; "
	}
	v := append(r.scratch.value[:0], fields[first].Value...)
	for i := second; i >= 0; i = next(fields, i+1, id, name) {
		v = append(append(v, separator...), fields[i].Value...)
	}
	r.scratch.value = v
	return v, true
}

// next is the index of the first field called name at or after i; -1: none.
func next(fields []message.Field, i int, id message.ID, name string) int {
	for ; i < len(fields); i++ {
		if f := &fields[i]; f.ID == id && (id != message.Other || string(f.Name) == name) {
			return i
		}
	}
	return -1
}

// parameter is the first value of a query parameter, decoded as a form is (%XX
// and +), so that no way of writing it escapes a match. It is good until the
// next call.
func (r *request) parameter(name string) ([]byte, bool) {
	for rest := r.query; len(rest) > 0; {
		pair := rest
		if i := bytes.IndexByte(rest, '&'); i >= 0 {
			pair, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		key, value, _ := bytes.Cut(pair, equals)
		if len(pair) == 0 || !sameDecoded(key, name) {
			continue
		}
		if bytes.IndexByte(value, '%') < 0 && bytes.IndexByte(value, '+') < 0 {
			return value, true
		}
		v := r.scratch.value[:0]
		for len(value) > 0 {
			c, n := decodeByte(value)
			v, value = append(v, c), value[n:]
		}
		r.scratch.value = v
		return v, true
	}
	return nil, false
}

var equals = []byte{'='}

func sameDecoded(raw []byte, name string) bool {
	for i := 0; ; i++ {
		if len(raw) == 0 || i == len(name) {
			return len(raw) == 0 && i == len(name)
		}
		c, n := decodeByte(raw)
		if c != name[i] {
			return false
		}
		raw = raw[n:]
	}
}

// decodeByte is the first byte of form-encoded text and how long it is there. A
// % without two digits stands for itself.
func decodeByte(b []byte) (byte, int) {
	switch {
	case b[0] == '+':
		return ' ', 1
	case b[0] == '%' && len(b) >= 3 && isHex(b[1]) && isHex(b[2]):
		return unhex(b[1])<<4 | unhex(b[2]), 3
	}
	return b[0], 1
}
