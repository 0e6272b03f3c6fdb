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
	// hostBytes are those of a reg-name (RFC 3986, 3.2.2).
	hostBytes = setOf(true, "-._~%!$&'()*+,;=")
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

// validAuthority says whether a is host or host:port (RFC 3986, 3.2, without
// user information); the port may have to be there.
func validAuthority(a []byte, port bool) bool {
	host, rest := a, []byte(nil)
	if len(a) > 0 && a[0] == '[' {
		i := 1
		for i < len(a) && ipv6Bytes[a[i]] {
			i++
		}
		if i < 3 || i == len(a) || a[i] != ']' {
			return false
		}
		rest = a[i+1:]
	} else {
		for i, c := range a {
			if c == ':' {
				host, rest = a[:i], a[i:]
				break
			}
		}
		if len(host) == 0 || !hostBytes.all(host) {
			return false
		}
	}
	if len(rest) == 0 {
		return !port
	}
	if rest[0] != ':' || len(rest) < 2 || len(rest) > 6 {
		return false
	}
	n := 0
	for _, c := range rest[1:] {
		if !digit(c) {
			return false
		}
		n = 10*n + int(c-'0')
	}
	return n > 0 && n < 1<<16
}

// parseLength reads a Content-Length: digits only, below 2^63.
func parseLength(s []byte) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range s {
		if !digit(c) {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
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
