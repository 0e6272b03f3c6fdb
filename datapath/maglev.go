package datapath

import (
	"encoding/binary"
	"hash/fnv"

	"moire.dev/moire/snapshot"
)

// slotsPerRow is how many slots one row of the slots table has, as in service.h.
const slotsPerRow = 512

// tableSizes are the sizes of choice tables: primes that fill whole rows. Two
// backends of the same weight differ by one slot, so a table has at least ten
// slots for each.
var tableSizes = [...]int{509, 4093, 16381}

// tableSize is how many slots the table of so many backends has; 0: none is
// needed.
func tableSize(backends int) int {
	if backends < 2 {
		return 0
	}
	for _, size := range tableSizes {
		if backends*10 <= size {
			return size
		}
	}
	return tableSizes[len(tableSizes)-1]
}

// maglev fills a table of size slots (a prime) with the indexes of backends:
// each backend walks its own permutation of the slots, and they take turns by
// weight (Eisenbud and others, Maglev, NSDI 2016, section 3.4). What a backend
// walks depends on its address and port alone, so one that comes or goes takes
// or leaves its own slots and few others.
func maglev(backends []snapshot.Backend, size int) []uint16 {
	type walk struct {
		next, skip uint64
		weight     uint64
		credit     uint64
	}
	walks := make([]walk, len(backends))
	heaviest := uint64(1)
	for i, b := range backends {
		offset, skip := backendHash(b)
		w := &walks[i]
		w.next, w.skip = offset%uint64(size), skip%uint64(size-1)+1
		w.weight = max(uint64(b.Weight), 1)
		heaviest = max(heaviest, w.weight)
	}
	const free = ^uint16(0)
	slots := make([]uint16, size)
	for i := range slots {
		slots[i] = free
	}
	for filled := 0; ; {
		for i := range walks {
			w := &walks[i]
			// The heaviest takes one slot a round, the others their share of one.
			if w.credit += w.weight; w.credit < heaviest {
				continue
			}
			w.credit -= heaviest
			for slots[w.next] != free {
				w.next = (w.next + w.skip) % uint64(size)
			}
			slots[w.next] = uint16(i)
			if filled++; filled == size {
				return slots
			}
		}
	}
}

// backendHash makes two numbers of the place of a backend.
func backendHash(b snapshot.Backend) (offset, skip uint64) {
	h := fnv.New64a()
	a := b.Addr.IP.As16()
	h.Write(a[:])
	h.Write(binary.LittleEndian.AppendUint32(nil, uint32(b.Addr.VNI)))
	h.Write(binary.LittleEndian.AppendUint16(nil, b.Port))
	offset = mix(h.Sum64())
	return offset, mix(offset + 0x9e3779b97f4a7c15)
}

// mix spreads every bit of x over all bits (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
