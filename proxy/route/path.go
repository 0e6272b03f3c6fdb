package route

import "bytes"

// Why a request target is refused (400).
const (
	badTarget  = "the path does not begin with /"
	badByte    = "the path has a byte that no path may have"
	badPercent = "the path has a % that is not followed by two hexadecimal digits, or an encoded NUL"
	badSlash   = "the path has an encoded slash or backslash"
	badDots    = "the path has dot segments that lead out of it or are disguised"
)

// Classes of bytes in a request target.
const (
	plain   = iota
	slash   // ends an element
	query   // ends the path
	percent // may need decoding
	foul    // control, space, DEL, # and backslash
)

var classes = func() (c [256]uint8) {
	for i := range 0x21 {
		c[i] = foul
	}
	c[0x7f], c['#'], c['\\'] = foul, foul, foul
	c['/'], c['?'], c['%'] = slash, query, percent
	return c
}()

// target checks, normalises and hashes the path of a request target. It returns
// the target that is sent on (in most cases the same memory) and, when it is
// refused, why. It fills s.hashes, s.ends, s.elements, s.full and s.end.
func (s *Scratch) target(raw []byte, keepSlashes bool, a *Arena) ([]byte, string) {
	clean, why := s.walk(raw, keepSlashes)
	if clean || why != "" {
		return raw, why
	}
	raw, why = normalise(raw, keepSlashes, a)
	if why != "" {
		return raw, why
	}
	if clean, why = s.walk(raw, keepSlashes); !clean && why == "" {
		why = badDots
	}
	return raw, why
}

// walk passes over a target that is in its normal form already, which almost
// all are; clean is false when it is not.
func (s *Scratch) walk(raw []byte, keepSlashes bool) (clean bool, why string) {
	s.elements, s.full = 0, seed
	if len(raw) == 0 || raw[0] != '/' {
		return false, badTarget
	}
	start, encoded := 1, false
	for i := 1; ; i++ {
		class := uint8(query)
		if i < len(raw) {
			class = classes[raw[i]]
		}
		switch class {
		case plain:
		case percent:
			if !tidy(raw[i:], keepSlashes) {
				return false, ""
			}
			encoded = true
			i += 2
		case foul:
			return false, badByte
		default:
			piece := raw[start:i]
			if class == slash && len(piece) == 0 || (encoded || len(piece) > 0 && piece[0] == '.') && dotted(piece) {
				return false, ""
			}
			s.full = element(s.full, piece)
			if s.elements < len(s.hashes) {
				s.hashes[s.elements], s.ends[s.elements] = s.full, uint32(i)
			}
			s.elements++
			if class == query {
				s.end = i
				return true, queryFouls(raw[i:])
			}
			start, encoded = i+1, false
		}
	}
}

func queryFouls(q []byte) string {
	for _, c := range q {
		if classes[c] == foul && c != '\\' {
			return badByte
		}
	}
	return ""
}

// tidy says whether the triplet in front of b may stay as it is: two upper-case
// hexadecimal digits that stand for a byte which has to be encoded.
func tidy(b []byte, keepSlashes bool) bool {
	if len(b) < 3 || !upperHex(b[1]) || !upperHex(b[2]) {
		return false
	}
	v := unhex(b[1])<<4 | unhex(b[2])
	return v != 0 && !unreserved(v) && (keepSlashes || v != '/' && v != '\\')
}

// dotted says whether one of the pieces of an element, split at encoded slashes
// and freed of parameters (;...), is . or .. . Some servers see a dot segment
// there.
func dotted(b []byte) bool {
	for {
		piece, rest := b, []byte(nil)
		for i := range b {
			if encodedSlash(b[i:]) {
				piece, rest = b[:i], b[i+3:]
				break
			}
		}
		if i := bytes.IndexByte(piece, ';'); i >= 0 {
			piece = piece[:i]
		}
		if string(piece) == "." || string(piece) == ".." {
			return true
		}
		if rest == nil {
			return false
		}
		b = rest
	}
}

func encodedSlash(b []byte) bool {
	return len(b) >= 3 && b[0] == '%' && (b[1] == '2' && b[2]|0x20 == 'f' || b[1] == '5' && b[2]|0x20 == 'c')
}

// normalise writes the normal form of a target into a: unreserved bytes
// decoded, hexadecimal digits in upper case (RFC 3986 section 6.2.2), dot
// segments and empty elements removed. The query stays as it is.
func normalise(raw []byte, keepSlashes bool, a *Arena) ([]byte, string) {
	base := len(a.buf)
	out := append(a.buf, '/')
	start, i := len(out), 1
	for ; i < len(raw) && raw[i] != '?'; i++ {
		switch c := raw[i]; classes[c] {
		case foul:
			return raw, badByte
		case slash:
			var ok bool
			if out, ok = closeElement(out, base, start); !ok {
				return raw, badDots
			}
			if out[len(out)-1] != '/' {
				out = append(out, '/')
			}
			start = len(out)
		case percent:
			if len(raw) < i+3 || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return raw, badPercent
			}
			v := unhex(raw[i+1])<<4 | unhex(raw[i+2])
			switch {
			case v == 0:
				return raw, badPercent
			case unreserved(v):
				out = append(out, v)
			case !keepSlashes && (v == '/' || v == '\\'):
				return raw, badSlash
			default:
				out = append(out, '%', hexDigits[v>>4], hexDigits[v&15])
			}
			i += 2
		default:
			out = append(out, c)
		}
	}
	out, ok := closeElement(out, base, start)
	if !ok {
		return raw, badDots
	}
	out = append(out, raw[i:]...)
	a.buf = out
	return out[base:len(out):len(out)], ""
}

// closeElement ends the element that begins at start: . and .. disappear.
func closeElement(out []byte, base, start int) ([]byte, bool) {
	switch e := out[start:]; {
	case string(e) == ".":
		return out[:start], true
	case string(e) == "..":
		if start == base+1 {
			return out, false
		}
		i := start - 2
		for out[i] != '/' {
			i--
		}
		return out[:i+1], true
	default:
		return out, !dotted(e)
	}
}

const hexDigits = "0123456789ABCDEF"

func upperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

func isHex(c byte) bool { return upperHex(c) || 'a' <= c && c <= 'f' }

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
