package balance

// alias draws from a list by weight in constant time (Walker's method, Vose's
// construction). One 32-bit number times n gives column and coin at once.
type alias struct {
	keep  []uint32 // the column's own part, of 2^32
	other []int32  // who has the rest of the column
}

func (a *alias) room(n int) { a.keep, a.other = make([]uint32, 0, n), make([]int32, 0, n) }

// build makes the table for weights of which none is zero. Work is memory for
// the columns that are still too low or too high; at least len(weights) each.
func (a *alias) build(weights []float64, low, high []int32) {
	n := len(weights)
	a.keep, a.other = a.keep[:n], a.other[:n]
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	low, high = low[:0], high[:0]
	for i := range weights {
		weights[i] *= float64(n) / sum
		a.keep[i], a.other[i] = ^uint32(0), int32(i)
		if weights[i] < 1 {
			low = append(low, int32(i))
		} else {
			high = append(high, int32(i))
		}
	}
	for len(low) > 0 && len(high) > 0 {
		l, h := low[len(low)-1], high[len(high)-1]
		low = low[:len(low)-1]
		a.keep[l], a.other[l] = uint32(weights[l]*(1<<32-1)), h
		if weights[h] -= 1 - weights[l]; weights[h] < 1 {
			high = high[:len(high)-1]
			low = append(low, h)
		}
	}
}

// draw is a place in the list.
func (a *alias) draw(r uint32) int32 {
	x := uint64(r) * uint64(len(a.keep))
	i := x >> 32
	if uint32(x) <= a.keep[i] {
		return int32(i)
	}
	return a.other[i]
}
