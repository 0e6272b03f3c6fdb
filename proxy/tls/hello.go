package tls

import (
	"errors"
	"slices"
	"strings"
)

// Hello is what a ClientHello asks for, in the clear.
type Hello struct {
	// ServerName in lower case; empty: none.
	ServerName string
	// Protocols of ALPN, in the client's order.
	Protocols []string
	// Version is the highest that the client offers, as in crypto/tls.
	Version uint16
	// Encrypted: it has encrypted_client_hello, so that ServerName may be only
	// that of the outer hello.
	Encrypted bool
}

const (
	// MaxHello is the most bytes of a ClientHello that is read; those of browsers
	// have 2 KiB, one with a large ticket perhaps 10.
	MaxHello = 32 << 10
	// MaxHelloWire is the most bytes that PeekHello looks at: a ClientHello of
	// MaxHello bytes may come in many records, but not in one for each byte.
	MaxHelloWire = MaxHello + MaxHello/2
)

// What PeekHello can say.
var (
	// ErrMore: all so far may be the start of a ClientHello; ask again with more.
	ErrMore = errors.New("tls: more bytes of the ClientHello are needed")
	// ErrNotTLS: these are no records of TLS.
	ErrNotTLS = errors.New("tls: not a TLS handshake")
	// ErrHello: a ClientHello that is malformed, too large, or says a thing twice.
	ErrHello = errors.New("tls: malformed ClientHello")
)

// PeekHello reads the ClientHello at the start of a connection from b, the first
// bytes of it, and leaves them as they are, so that they can be passed on to
// whom it is meant for.
func PeekHello(b []byte) (Hello, error) {
	message, err := gather(b)
	if err != nil {
		return Hello{}, err
	}
	h, ok := readHello(cursor{b: message, ok: true})
	if !ok {
		return Hello{}, ErrHello
	}
	return h, nil
}

const (
	typeHandshake   = 22
	typeClientHello = 1
)

// gather is the body of the handshake message that the records of b start with.
// Only one that comes in several records is copied.
func gather(b []byte) ([]byte, error) {
	var message []byte
	for at := 0; ; {
		r := b[at:]
		switch {
		case len(r) > 0 && r[0] != typeHandshake, len(r) > 1 && r[1] != 3, len(r) > 2 && r[2] > 4:
			if at == 0 {
				return nil, ErrNotTLS
			}
			return nil, ErrHello
		case len(r) < recordHeader:
			return nil, tooShort(b)
		}
		n := int(r[3])<<8 | int(r[4])
		if n == 0 || n > 16384 {
			return nil, ErrHello
		}
		whole := len(r) >= recordHeader+n
		fragment := r[recordHeader:min(len(r), recordHeader+n)]
		if at == 0 {
			message = fragment[:len(fragment):len(fragment)]
		} else {
			message = append(message, fragment...)
		}
		if len(message) > 0 && message[0] != typeClientHello {
			return nil, ErrHello
		}
		if len(message) >= 4 {
			size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			switch {
			case size > MaxHello, len(message) > 4+size:
				return nil, ErrHello
			case whole && len(message) == 4+size:
				return message[4:], nil
			case !whole && len(message) == 4+size:
				// More follows in this record, where nothing may.
				return nil, ErrHello
			}
		}
		if !whole {
			return nil, tooShort(b)
		}
		at += recordHeader + n
	}
}

func tooShort(b []byte) error {
	if len(b) >= MaxHelloWire {
		return ErrHello
	}
	return ErrMore
}

// cursor reads from the front of b; after a read beyond its end ok is false and
// all reads give nothing.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.b, c.ok = nil, false
		return nil
	}
	taken := c.b[:n]
	c.b = c.b[n:]
	return taken
}

// number reads n bytes, the highest first.
func (c *cursor) number(n int) int {
	v := 0
	for _, x := range c.take(n) {
		v = v<<8 | int(x)
	}
	return v
}

// vector reads a length of n bytes and as many bytes, at least least.
func (c *cursor) vector(n, least int) cursor {
	size := c.number(n)
	v := cursor{b: c.take(size), ok: c.ok && size >= least}
	c.ok = v.ok
	return v
}

// Extensions that are looked at.
const (
	extServerName  = 0
	extALPN        = 16
	extVersions    = 43
	extEncrypted   = 0xfe0d
	maxExtensions  = 64
	hostName       = 0
	maxServerName  = 255
	greaseMask     = 0x0f0f
	greaseVersions = 0x0a0a
)

func readHello(c cursor) (h Hello, ok bool) {
	h.Version = uint16(c.number(2))
	c.take(32)
	if session := c.vector(1, 0); len(session.b) > 32 {
		return h, false
	}
	if suites := c.vector(2, 2); len(suites.b)%2 != 0 {
		return h, false
	}
	c.vector(1, 1)
	if !c.ok {
		return h, false
	}
	if len(c.b) == 0 {
		return h, true
	}
	extensions := c.vector(2, 0)
	if !c.ok || len(c.b) > 0 {
		return h, false
	}
	var seen [maxExtensions]uint16
	for n := 0; len(extensions.b) > 0; n++ {
		id := uint16(extensions.number(2))
		data := extensions.vector(2, 0)
		if !extensions.ok || n == maxExtensions || slices.Contains(seen[:n], id) {
			return h, false
		}
		seen[n] = id
		if !h.extension(id, data) {
			return h, false
		}
	}
	return h, true
}

func (h *Hello) extension(id uint16, data cursor) bool {
	switch id {
	case extServerName:
		list := data.vector(2, 1)
		kind := list.number(1)
		name := list.vector(2, 1)
		if !list.ok || !data.ok || len(data.b)+len(list.b) > 0 || kind != hostName || !serverName(name.b) {
			return false
		}
		h.ServerName = strings.ToLower(string(name.b))
	case extALPN:
		list := data.vector(2, 2)
		for len(list.b) > 0 {
			p := list.vector(1, 1)
			if !list.ok {
				return false
			}
			h.Protocols = append(h.Protocols, string(p.b))
		}
		return data.ok && len(data.b) == 0
	case extVersions:
		list := data.vector(1, 2)
		if !data.ok || len(data.b) > 0 || len(list.b)%2 != 0 {
			return false
		}
		for h.Version = 0; len(list.b) > 0; {
			if v := uint16(list.number(2)); v&greaseMask != greaseVersions {
				h.Version = max(h.Version, v)
			}
		}
	case extEncrypted:
		h.Encrypted = true
	}
	return true
}

// serverName says whether b is a DNS name, without a dot at its end (RFC 6066 3).
func serverName(b []byte) bool {
	if len(b) > maxServerName {
		return false
	}
	label := 0
	for _, c := range b {
		switch {
		case c == '.':
			if label == 0 {
				return false
			}
			label = -1
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
		label++
	}
	return label > 0
}
