package hpack

import "encoding/binary"

// nameBytes are the octets of a token without capitals (RFC 9110, 5.6.2; RFC
// 9113, 8.2.1).
var nameBytes = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

func validName(s []byte) bool {
	for _, c := range s {
		if !nameBytes[c] {
			return false
		}
	}
	return len(s) > 0
}

// validValue says whether s has no control character but tab, and no white
// space at its ends.
func validValue(s []byte) bool {
	if len(s) == 0 {
		return true
	}
	if a, b := s[0], s[len(s)-1]; a == ' ' || a == '\t' || b == ' ' || b == '\t' {
		return false
	}
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for len(s) >= 8 {
		w := binary.LittleEndian.Uint64(s)
		// A top bit for each octet below 0x20 and each that is 0x7f.
		low := (w - ones*0x20) & ^w & tops
		del := w ^ ones*0x7f
		if low | (del-ones) & ^del & tops != 0 && !validBytes(s[:8]) {
			return false
		}
		s = s[8:]
	}
	return validBytes(s)
}

func validBytes(s []byte) bool {
	for _, c := range s {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
