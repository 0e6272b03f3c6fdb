package http2

import "moire.dev/moire/proxy/message"

func digit(c byte) bool { return '0' <= c && c <= '9' }

// byteSet is a set of octets.
type byteSet [256]bool

func setOf(letters bool, others string) (t byteSet) {
	if letters {
		for c := 'a'; c <= 'z'; c++ {
			t[c], t[c-'a'+'A'] = true, true
		}
		for c := '0'; c <= '9'; c++ {
			t[c] = true
		}
	}
	for _, c := range others {
		t[c] = true
	}
	return t
}

var (
	tokenBytes = setOf(true, "!#$%&'*+-.^_`|~")
	// hostBytes are the unreserved characters (RFC 3986, 2.3): escapes and lists in
	// a name have a second reading.
	hostBytes = setOf(true, "-._~")
	ipv6Bytes = setOf(false, "0123456789abcdefABCDEF:.")
	// pathBytes are the visible ones of ASCII but '#': more than RFC 3986 has, as
	// browsers send more, and nothing that ends a request target.
	pathBytes = func() (t byteSet) {
		for c := 0x21; c < 0x7f; c++ {
			t[c] = c != '#'
		}
		return t
	}()
)

func (t *byteSet) all(s []byte) bool {
	for _, c := range s {
		if !t[c] {
			return false
		}
	}
	return true
}

func isToken(s []byte) bool { return len(s) > 0 && tokenBytes.all(s) }

// validPath says whether a request has a path in origin form, or * for OPTIONS.
func validPath(h *message.Head) bool {
	p := h.Path
	if len(p) == 0 {
		return false
	}
	if p[0] == '*' {
		return len(p) == 1 && string(h.Method) == "OPTIONS"
	}
	return p[0] == '/' && pathBytes.all(p)
}

// validAuthority says whether a is host or host:port: a name of unreserved
// characters, an IPv4 address, or an IPv6 address in brackets. The port may have
// to be there.
func validAuthority(a []byte, port bool) bool {
	i := 0
	if len(a) > 0 && a[0] == '[' {
		colons := 0
		for i = 1; i < len(a) && ipv6Bytes[a[i]]; i++ {
			if a[i] == ':' {
				colons++
			}
		}
		if i == len(a) || a[i] != ']' || colons < 2 || i > maxIPv6 {
			return false
		}
		i++
	} else {
		for i < len(a) && hostBytes[a[i]] {
			i++
		}
		if i == 0 {
			return false
		}
	}
	if i == len(a) {
		return !port
	}
	digits := a[i+1:]
	if a[i] != ':' || len(digits) == 0 || len(digits) > 5 {
		return false
	}
	n := 0
	for _, c := range digits {
		if !digit(c) {
			return false
		}
		n = 10*n + int(c-'0')
	}
	return n < 1<<16
}

const maxIPv6 = len("[0000:0000:0000:0000:0000:ffff:255.255.255.255")

// lookalike: servers that hand fields on as CGI variables take content_length
// for Content-Length.
func lookalike(name []byte) bool {
	return string(name) == "content_length" || string(name) == "transfer_encoding"
}

// fitTrailer says whether a trailer is passed on: not if it means something
// only in a head, as whoever merged it there would be told another caller,
// another content or another answer (RFC 9110, 6.5.1).
func fitTrailer(name []byte, id message.ID) bool {
	switch id {
	case message.Other:
	case message.GRPCStatus, message.GRPCMessage, message.GRPCEncoding, message.Date, message.Via, message.Server,
		message.XRequestID, message.Traceparent, message.Tracestate:
		return true
	default:
		return false
	}
	for _, p := range headOnly {
		if len(name) >= len(p) && string(name[:len(p)]) == p {
			return false
		}
	}
	return true
}

// headOnly are starts of names that are no trailers.
var headOnly = [...]string{"x-forwarded-", "x-moire-", "l5d-", "x-real-ip", "proxy-auth", "content-", "cache-control", "sec-"}

// parseLength reads a Content-Length: digits only, below 2^63.
func parseLength(s []byte) (int64, bool) {
	if len(s) == 0 || len(s) > 19 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range s {
		if !digit(c) {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return int64(n), n < 1<<63
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func equalFold(s []byte, t string) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range s {
		if lower(s[i]) != t[i] {
			return false
		}
	}
	return true
}

func equalFoldBytes(s, t []byte) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range s {
		if lower(s[i]) != lower(t[i]) {
			return false
		}
	}
	return true
}
