package policy

import (
	"iter"
	"math/bits"
)

// PortBlocks splits the ports first to last into the fewest blocks that a
// longest-match table can hold: the first port of each block, and how many of its
// 16 bits all ports of the block share.
func PortBlocks(first, last uint16) iter.Seq2[uint16, int] {
	return func(yield func(uint16, int) bool) {
		for at, end := uint32(first), uint32(last); at <= end; {
			size := uint32(1) << 16
			if at != 0 {
				size = at & -at
			}
			for at+size-1 > end {
				size >>= 1
			}
			if !yield(uint16(at), 16-bits.TrailingZeros32(size)) {
				return
			}
			at += size
		}
	}
}
