package balance

// schedule is smooth weighted round robin: earliest deadline first, a deadline
// being 1/weight after the last. At any time two endpoints have had turns in the
// proportion of their weights, to within a turn of each. A 4-ary heap: the cost grows with the
// logarithm of the number of endpoints, of base 4.
type schedule struct {
	heap  []turn
	clock float64
}

type turn struct {
	deadline float64
	index    int32
}

func (a turn) before(b turn) bool {
	return a.deadline < b.deadline || a.deadline == b.deadline && a.index < b.index
}

// next is whose turn it is; gap[i] is 1/weight of the endpoint i.
func (s *schedule) next(gap []float64) int32 {
	top := s.heap[0]
	s.clock = top.deadline
	i := top.index
	top.deadline += gap[i]
	s.sink(0, top)
	return i
}

// sink puts t at place k or below.
func (s *schedule) sink(k int, t turn) {
	h := s.heap
	for {
		child := 4*k + 1
		if child >= len(h) {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, len(h)); c++ {
			if h[c].before(h[least]) {
				least = c
			}
		}
		if !h[least].before(t) {
			break
		}
		h[k] = h[least]
		k = least
	}
	h[k] = t
}

// rebuild is for another list of endpoints. Those who stay keep their turn;
// deadlines has one by index, 0 for none. New ones get a turn within one gap,
// where rnd puts them, so that workers do not go in step.
func (s *schedule) rebuild(list []int32, gap, deadlines []float64, rnd uint64) {
	for _, t := range s.heap {
		deadlines[t.index] = t.deadline
	}
	s.heap = s.heap[:0]
	for k, i := range list {
		d := deadlines[i]
		if d < s.clock || d == 0 {
			d = s.clock + gap[i]*float64(Mix(rnd+uint64(k)*step)>>11)/(1<<53)
		}
		s.heap = append(s.heap, turn{d, i})
	}
	for k := (len(s.heap) - 2) / 4; k >= 0 && len(s.heap) > 1; k-- {
		s.sink(k, s.heap[k])
	}
	clear(deadlines)
}
