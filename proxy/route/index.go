package route

// index finds numbers by hash: open addressing, at most half full. It does not
// know the keys: whoever looks up compares them.
type index struct {
	slots  []slot
	mask   uint32
	filled []entry // until it is built
}

type slot struct {
	tag   uint32 // upper half of the hash
	value int32  // -1: empty
}

type entry struct {
	hash  uint64
	value int32
}

func (x *index) put(hash uint64, value int32) { x.filled = append(x.filled, entry{hash, value}) }

// build makes x ready for look-ups.
func (x *index) build() {
	size := 4
	for size < 2*len(x.filled) {
		size *= 2
	}
	x.slots, x.mask = make([]slot, size), uint32(size-1)
	for i := range x.slots {
		x.slots[i].value = -1
	}
	for _, e := range x.filled {
		i := uint32(e.hash) & x.mask
		for x.slots[i].value >= 0 {
			i = (i + 1) & x.mask
		}
		x.slots[i] = slot{uint32(e.hash >> 32), e.value}
	}
	x.filled = nil
}

// next is a number whose hash may be this one, at or after slot i, and the slot
// after it; -1: there is no more. The first i is the lower half of the hash.
func (x *index) next(i uint32, hash uint64) (int32, uint32) {
	for tag := uint32(hash >> 32); ; i++ {
		if s := &x.slots[i&x.mask]; s.value < 0 || s.tag == tag {
			return s.value, i + 1
		}
	}
}
