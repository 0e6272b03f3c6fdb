package http1

import (
	"bytes"

	"moire.dev/moire/proxy/message"
)

// ParseRequest reads b, exactly one request head with its empty line, into h,
// which is reset. One CR LF in front of it is skipped (RFC 9112 2.2). The error
// is an *Error; h is then of no use.
func ParseRequest(b []byte, h *message.Head, l *Limits) error {
	h.Reset()
	if l.Head > 0 && len(b) > l.Head {
		return ErrHeadTooLarge
	}
	if len(b) > 2 && b[0] == '\r' && b[1] == '\n' {
		b = b[2:]
	}
	if len(b) < 4 || b[len(b)-1] != '\n' {
		return ErrEnd
	}
	target, i, err := requestLine(b, h)
	if err != nil {
		return err
	}
	f := facts{length: -1}
	if err := fields(b, i, h, l, &f, request); err != nil {
		return err
	}
	if err := readTarget(target, b, h, &f); err != nil {
		return err
	}
	if f.named {
		unnamed(h)
	}
	return f.frameRequest(h)
}

// requestLine reads method and version; i is where the first field line begins.
func requestLine(b []byte, h *message.Head) (target []byte, i int, err error) {
	i = span(b, 0, isToken)
	if i == 0 || b[i] != ' ' {
		return nil, 0, ErrMethod
	}
	h.Method = b[:i:i]
	i++
	start := i
	i = span(b, i, isTarget)
	target = b[start:i:i]
	if len(target) == 0 {
		return nil, 0, ErrRequestLine
	}
	switch b[i] {
	case ' ':
	case '\r', '\n':
		return nil, 0, ErrSimpleRequest
	default:
		return nil, 0, ErrTarget
	}
	h.Minor, err = version(b[i+1:])
	i += 1 + len("HTTP/1.1")
	if err == nil && (len(b) < i+2 || b[i] != '\r' || b[i+1] != '\n') {
		err = ErrRequestLine
	}
	return target, i + 2, err
}

// version reads HTTP/1.0 or HTTP/1.1 at the start of b.
func version(b []byte) (minor uint8, err error) {
	if len(b) < 8 || string(b[:5]) != "HTTP/" || b[6] != '.' {
		return 0, ErrRequestLine
	}
	if b[5] == '1' && (b[7] == '1' || b[7] == '0') {
		return b[7] - '0', nil
	}
	if b[5] < '0' || b[5] > '9' || b[7] < '0' || b[7] > '9' {
		return 0, ErrRequestLine
	}
	return 0, ErrVersion
}

// frameRequest decides how the body ends and what becomes of the connection.
func (f *facts) frameRequest(h *message.Head) error {
	switch {
	case f.chunked && f.length >= 0:
		return ErrCodingAndLength
	case f.chunked && h.Minor == 0:
		return ErrCodingVersion
	case f.chunked:
		h.Framing = message.Chunked
	case f.length >= 0:
		h.Framing, h.Length = message.Sized, f.length
	}
	h.Close = f.close || h.Minor == 0 && !f.keep
	h.Trailers = f.trailers
	// HTTP/1.0 knows neither.
	if h.Minor > 0 {
		h.Expect = f.expect
		if f.upgrade {
			h.Upgrade = f.protocol
		}
	}
	if h.IsMethod("CONNECT") {
		// What follows is the tunnel's.
		if f.chunked || f.length > 0 {
			return ErrConnectBody
		}
		h.Framing, h.Length = message.None, -1
	}
	return nil
}

// readTarget takes the request target apart (RFC 9112 3.2) and settles the
// authority. Whole is the head that target is a part of.
func readTarget(target, whole []byte, h *message.Head, f *facts) error {
	if f.hosted && !authority(f.host) {
		return ErrAuthority
	}
	if !f.hosted && h.Minor > 0 {
		return ErrHostMissing
	}
	switch {
	case h.IsMethod("CONNECT"):
		if !authority(target) || len(port(target)) == 0 {
			return ErrAuthority
		}
		h.Authority = target
	case target[0] == '/':
		h.Authority, h.Path = f.host, target
		return nil
	case string(target) == "*":
		if !h.IsMethod("OPTIONS") {
			return ErrTarget
		}
		h.Authority, h.Path = f.host, target
		return nil
	default:
		if err := absolute(target, h); err != nil {
			return err
		}
	}
	if f.hosted && !agree(f.host, h.Authority) {
		return ErrHostDiffers
	}
	return nil
}

// absolute reads a target in absolute form.
func absolute(target []byte, h *message.Head) error {
	i := bytes.IndexByte(target, ':')
	if i < 1 || len(target) < i+4 || target[i+1] != '/' || target[i+2] != '/' {
		return ErrTarget
	}
	h.Scheme = target[:i:i]
	switch {
	case fold(h.Scheme, "http"), fold(h.Scheme, "https"):
		for j := range h.Scheme {
			h.Scheme[j] |= 0x20
		}
	default:
		return ErrScheme
	}
	start := i + 3
	end := start
	for end < len(target) && target[end] != '/' && target[end] != '?' {
		end++
	}
	h.Authority = target[start:end:end]
	if !authority(h.Authority) {
		return ErrAuthority
	}
	switch {
	case end < len(target) && target[end] == '/':
		h.Path = target[end:]
	case end == len(target) && h.IsMethod("OPTIONS"):
		h.Path = slot(target, start, end, '*')
	default:
		h.Path = slot(target, start, end, '/')
	}
	if len(h.Path) != len(target)-end {
		h.Authority = target[start-1 : end-1 : end-1]
	}
	return nil
}

// slot makes room for c in front of target[end:], where an empty path is, by
// moving the authority over one of the two slashes before it.
func slot(target []byte, start, end int, c byte) []byte {
	copy(target[start-1:], target[start:end])
	target[end-1] = c
	return target[end-1:]
}

// authority says whether b is host or host:port: a name of unreserved
// characters, an IPv4 address or an IPv6 address in brackets, and a port of
// digits up to 65535. No user, no escapes, no empty host or port.
func authority(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		i = bytes.IndexByte(b, ']')
		if i < 0 || !bracketed(b[1:i]) {
			return false
		}
		i++
	} else if i = span(b, 0, isHost); i == 0 {
		return false
	}
	if i == len(b) {
		return true
	}
	p := b[i+1:]
	if b[i] != ':' || len(p) == 0 || len(p) > 5 {
		return false
	}
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

// bracketed says whether b may be an IPv6 address: not each that passes is one,
// but none has a second reading.
func bracketed(b []byte) bool {
	colons := 0
	for _, c := range b {
		if c == ':' {
			colons++
		} else if c != '.' && class[c]&isHex == 0 {
			return false
		}
	}
	return colons >= 2 && len(b) <= len("0000:0000:0000:0000:0000:ffff:255.255.255.255")
}

// port is what follows the host of a valid authority, without its colon.
func port(authority []byte) []byte {
	i := bytes.LastIndexByte(authority, ':')
	if i < 0 || authority[len(authority)-1] == ']' {
		return nil
	}
	return authority[i+1:]
}

// agree says whether two valid authorities name the same host, and the same
// port where both have one.
func agree(a, b []byte) bool {
	p, q := port(a), port(b)
	if len(p) > 0 {
		a = a[:len(a)-len(p)-1]
	}
	if len(q) > 0 {
		b = b[:len(b)-len(q)-1]
	}
	return foldEqual(a, b) && (len(p) == 0 || len(q) == 0 || bytes.Equal(p, q))
}
