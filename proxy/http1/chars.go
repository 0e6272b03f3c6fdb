package http1

import (
	"encoding/binary"
	"math/bits"
)

// Classes of bytes. A table is made once, from the grammar.
const (
	isToken  uint8 = 1 << iota // tchar, RFC 9110 5.6.2
	isTarget                   // what a request target may have
	isHost                     // what a name in an authority may have
	isHex
)

var class = func() (t [256]uint8) {
	for c := range t {
		c := byte(c)
		alnum := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if alnum || in(c, "!#$%&'*+-.^_`|~") {
			t[c] |= isToken
		}
		// Browsers send { | } ^ ` " \ < > as they are, so they pass; a fragment does not.
		if c > ' ' && c < 0x7f && c != '#' {
			t[c] |= isTarget
		}
		// Only unreserved characters: escapes and lists have two readings, and no name has the others.
		if alnum || in(c, "-._~") {
			t[c] |= isHost
		}
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' {
			t[c] |= isHex
		}
	}
	return t
}()

// lower is the byte of a token in lower case; 0 for what no token has.
var lower = func() (t [256]byte) {
	for c := range t {
		if class[c]&isToken != 0 {
			t[c] = byte(c)
			if c >= 'A' && c <= 'Z' {
				t[c] |= 0x20
			}
		}
	}
	return t
}()

func in(c byte, set string) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}

// span is the index of the first byte of b, from i, that is not of class k.
func span(b []byte, i int, k uint8) int {
	for i < len(b) && class[b[i]]&k != 0 {
		i++
	}
	return i
}

// text is the index of the first byte of b, from i, that must not be in a field
// value: a control character other than tab. Eight bytes at a time.
func text(b []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		del := w ^ 0x7f*ones
		m := ((w-0x20*ones)&^w | (del-ones)&^del) & highs
		if m == 0 {
			i += 8
			continue
		}
		// The lowest mark is exact; those above it may come from a borrow.
		i += bits.TrailingZeros64(m) >> 3
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for i < len(b) && (b[i] >= ' ' && b[i] != 0x7f || b[i] == '\t') {
		i++
	}
	return i
}

// fold says whether b is s, which is in lower case, in any case.
func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// foldEqual compares two names without case.
func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// trim is b without spaces and tabs around it.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// element cuts the first element off a comma-separated list.
func element(list []byte) (first, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// token says whether b is one.
func token(b []byte) bool { return len(b) > 0 && span(b, 0, isToken) == len(b) }
