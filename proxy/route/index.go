package route

// index finds numbers by hash: open addressing, at most half full. It does not
// know the keys; whoever looks up compares them.
type index struct {
	slots  []slot
	mask   uint64
	filled []slot // until it is built
	known  map[uint64]int32
}

type slot struct {
	hash  uint64
	value int32 // -1: empty
}

// put adds a number. Two may have one hash.
func (x *index) put(hash uint64, value int32) {
	if x.known == nil {
		x.known = map[uint64]int32{}
	}
	if _, twice := x.known[hash]; !twice {
		x.known[hash] = value
	}
	x.filled = append(x.filled, slot{hash, value})
}

// build makes x ready for look-ups.
func (x *index) build() {
	size := 4
	for size < 2*len(x.filled) {
		size *= 2
	}
	x.slots, x.mask = make([]slot, size), uint64(size-1)
	for i := range x.slots {
		x.slots[i].value = -1
	}
	for _, s := range x.filled {
		i := s.hash & x.mask
		for x.slots[i].value >= 0 {
			i = (i + 1) & x.mask
		}
		x.slots[i] = s
	}
	x.filled, x.known = nil, nil
}

// next is the number with a hash at or after slot i, and the slot after it; -1:
// there is no more. The first i is the hash itself.
func (x *index) next(i, hash uint64) (int32, uint64) {
	for ; ; i++ {
		if s := &x.slots[i&x.mask]; s.value < 0 || s.hash == hash {
			return s.value, i + 1
		}
	}
}

// only is the first number with a hash, or -1.
func (x *index) only(hash uint64) int32 {
	if x.slots == nil {
		if v, ok := x.known[hash]; ok {
			return v
		}
		return -1
	}
	for i := hash & x.mask; ; i = (i + 1) & x.mask {
		if s := &x.slots[i]; s.value < 0 || s.hash == hash {
			return s.value
		}
	}
}
