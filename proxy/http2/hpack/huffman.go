package hpack

import "encoding/binary"

// bitLength is the length in bits of each octet's code (RFC 7541, Appendix B).
// The code is canonical: codes of one length follow each other in the order of
// their octets, and longer codes come after shorter ones. So the lengths are
// all there is to know.
var bitLength = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	shortBits = 10 // codes up to this length are decoded by one look
	longBits  = 30
)

// huffman holds the tables made from bitLength.
type huffman struct {
	code [256]uint32 // right-aligned
	// short, by the next shortBits bits: length<<8 | octet; 0: a longer code.
	short [1 << shortBits]uint16
	// For each length, the first code of it as the top of 32 bits, where the
	// codes of it end, and where its octets start in order.
	first, end [longBits + 1]uint32
	base       [longBits + 1]uint32
	order      [256]uint8
}

var codebook = makeHuffman()

func makeHuffman() *huffman {
	h := new(huffman)
	next, at := uint32(0), uint32(0)
	for n := 1; n <= longBits; n++ {
		next <<= 1
		h.first[n], h.base[n] = next<<(32-n), at
		for c, l := range bitLength {
			if int(l) != n {
				continue
			}
			h.code[c] = next
			h.order[at] = uint8(c)
			at++
			if n <= shortBits {
				for i := next << (shortBits - n); i < (next+1)<<(shortBits-n); i++ {
					h.short[i] = uint16(n)<<8 | uint16(c)
				}
			}
			next++
		}
		h.end[n] = next << (32 - n)
	}
	return h
}

// huffmanLength is how many bytes s takes when encoded.
func huffmanLength(s []byte) int {
	n := 0
	for _, c := range s {
		n += int(bitLength[c])
	}
	return (n + 7) / 8
}

// appendHuffman appends the code of s, padded with ones.
func appendHuffman(dst, s []byte) []byte {
	codes := &codebook.code
	var bits uint64
	var n uint
	for _, c := range s {
		l := uint(bitLength[c])
		bits = bits<<(l&63) | uint64(codes[c])
		n += l
		if n >= 32 {
			n -= 32
			dst = binary.BigEndian.AppendUint32(dst, uint32(bits>>(n&63)))
		}
	}
	if pad := -n & 7; pad != 0 {
		bits = bits<<pad | (1<<pad - 1)
		n += pad
	}
	for n > 0 {
		n -= 8
		dst = append(dst, byte(bits>>(n&63)))
	}
	return dst
}

// decodeHuffman appends what src encodes. It is false when src holds EOS, ends
// inside a code, or is padded by more than 7 bits or by other than ones.
func decodeHuffman(dst, src []byte) ([]byte, bool) {
	need := len(dst) + len(src)*8/5 + 1
	if cap(dst) < need {
		grown := make([]byte, len(dst), need+need/4)
		copy(grown, dst)
		dst = grown
	}
	out, at := dst[:need], len(dst)
	short := &codebook.short
	var bits uint64 // left-aligned
	var n uint      // how many of them count; those behind come once more
	for len(src) >= 8 {
		bits |= binary.BigEndian.Uint64(src) >> (n & 63)
		whole := (63 - n) / 8
		src = src[whole:]
		n += 8 * whole
		for n >= longBits {
			e := short[bits>>(64-shortBits)]
			l, c := uint(e>>8), byte(e)
			if l == 0 {
				if c, l = long(uint32(bits >> 32)); l == 0 {
					return dst, false
				}
			}
			out[at] = c
			at++
			bits <<= l & 63
			n -= l
		}
	}
	bits &= ^uint64(0) << (64 - n)
	for {
		for n <= 56 && len(src) > 0 {
			bits |= uint64(src[0]) << (56 - n)
			n += 8
			src = src[1:]
		}
		e := short[bits>>(64-shortBits)]
		l, c := uint(e>>8), byte(e)
		if l == 0 {
			c, l = long(uint32(bits >> 32))
		}
		switch {
		case l > n:
			return out[:at], n < 8 && bits == ^uint64(0)<<(64-n)
		case l == 0:
			return dst, false
		}
		out[at] = c
		at++
		bits <<= l & 63
		n -= l
	}
}

// long decodes a code of more than shortBits from the top of bits; length 0: EOS.
func long(bits uint32) (c byte, length uint) {
	for n := uint(shortBits + 1); n <= longBits; n++ {
		if bits < codebook.end[n] && bits >= codebook.first[n] {
			return codebook.order[codebook.base[n]+(bits-codebook.first[n])>>(32-n)], n
		}
	}
	return 0, 0
}
