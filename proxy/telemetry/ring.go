package telemetry

import "sync/atomic"

// ring is a queue of events with one writer, a worker, and one reader, the
// collector. It never blocks: an event that finds it full is lost and counted.
type ring struct {
	slots []event
	mask  uint64

	_    [64]byte // writer and reader do not share cache lines
	head atomic.Uint64
	free uint64 // how far the writer may go without looking at tail
	lost counter

	_    [64]byte
	tail atomic.Uint64
	_    [64]byte
}

// newRing has room for size events, a power of two.
func newRing(size int) *ring {
	return &ring{slots: make([]event, size), mask: uint64(size - 1), free: uint64(size)}
}

// next is the slot to fill, or nil when the ring is full. It is handed over by
// publish.
func (q *ring) next() *event {
	head := q.head.Load()
	if head == q.free {
		if q.free = q.tail.Load() + uint64(len(q.slots)); head == q.free {
			q.lost.add(1)
			return nil
		}
	}
	return &q.slots[head&q.mask]
}

// publish hands over the slot of next, and says whether the ring has just
// become half full.
func (q *ring) publish() (half bool) {
	head := q.head.Load() + 1
	q.head.Store(head)
	return head&(q.mask>>1) == 0
}

// drain gives all that is there to do, oldest first, with its number; what do
// has seen is free when it returns.
func (q *ring) drain(do func(e *event, number uint64)) (n int) {
	tail, head := q.tail.Load(), q.head.Load()
	for ; tail != head; tail++ {
		do(&q.slots[tail&q.mask], tail)
		q.tail.Store(tail + 1)
		n++
	}
	return n
}
