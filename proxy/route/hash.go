package route

import (
	"encoding/binary"
	"math/bits"
)

// The hash is stable: the same on every machine, in every process and release,
// because sessions are pinned by it. Tables verify the key behind each hash, so
// nobody gains by making collisions.
const (
	seed uint64 = 0x9E3779B97F4A7C15
	odd  uint64 = 0xD6E8FEB86659FD93
)

// mix spreads 64 bits over 64 bits.
func mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x^seed, odd)
	return hi ^ lo
}

// element adds one piece of text, with its length, to a hash.
func element(h uint64, b []byte) uint64 {
	n := uint64(len(b))
	for len(b) >= 8 {
		h = mix(h ^ binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var tail uint64
	switch {
	case len(b) >= 4:
		tail = uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))<<32
	case len(b) > 0:
		tail = uint64(b[0]) | uint64(b[len(b)/2])<<8 | uint64(b[len(b)-1])<<16
	}
	return mix(h ^ tail ^ n*seed)
}
