package balance

// Start is the hash of nothing. Hashes are the same in every proxy and every
// process, so that all send one key to one endpoint.
const Start uint64 = 0xcbf29ce484222325

// Hash adds b to the hash h (FNV-1a). The parts of a key are hashed one after
// another, beginning with Start.
func Hash[T string | []byte](h uint64, b T) uint64 {
	for i := 0; i < len(b); i++ {
		h = (h ^ uint64(b[i])) * 0x100000001b3
	}
	// Where a part ends counts: ("a","bc") is not ("ab","c").
	return (h ^ 0xff) * 0x100000001b3
}

// Mix spreads the bits of h (the finalizer of splitmix64).
func Mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// step is the increment of splitmix64: Mix(x + k*step) are independent numbers.
const step uint64 = 0x9e3779b97f4a7c15

// below is a number in [0, n) from 32 random bits.
func below(r uint32, n int) int { return int(uint64(r) * uint64(n) >> 32) }
