package authz

import (
	"context"
	"sync"
)

// maxWaiting is how much work of one kind waits at a time.
const maxWaiting = 64

// Notary does what takes a processor long apart from the loops of workers. Each
// kind of work, by its key, has its turn, so that who has much of it keeps no
// other waiting: forged tokens of one issuer do not delay those of another.
// Make it with NewNotary; Run does the work.
type Notary struct {
	mu     sync.Mutex
	bell   *sync.Cond
	kinds  map[any][]func() // what waits, by key
	turns  []any            // keys with something that waits, the next one first
	closed bool
}

// NewNotary makes a Notary. What it is given before it runs waits for that.
func NewNotary() *Notary {
	n := &Notary{kinds: map[any][]func(){}}
	n.bell = sync.NewCond(&n.mu)
	return n
}

// Do has work done soon, by another goroutine. False: it will not be, because
// too much of its kind waits or the Notary runs no more.
func (n *Notary) Do(kind any, work func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := n.kinds[kind]
	if n.closed || len(waiting) >= maxWaiting {
		return false
	}
	if len(waiting) == 0 {
		n.turns = append(n.turns, kind)
	}
	n.kinds[kind] = append(waiting, work)
	n.bell.Signal()
	return true
}

// Run works, with so many goroutines, until ctx ends. What was taken is done.
func (n *Notary) Run(ctx context.Context, goroutines int) {
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		n.closed = true
		n.mu.Unlock()
		n.bell.Broadcast()
	})
	defer stop()
	var all sync.WaitGroup
	for range goroutines {
		all.Go(n.work)
	}
	all.Wait()
}

func (n *Notary) work() {
	for {
		work := n.next()
		if work == nil {
			return
		}
		work()
	}
}

// next waits for something to do; nil: there will be nothing any more.
func (n *Notary) next() func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.turns) == 0 {
		if n.closed {
			return nil
		}
		n.bell.Wait()
	}
	kind := n.turns[0]
	waiting := n.kinds[kind]
	work := waiting[0]
	n.turns = append(n.turns[:0], n.turns[1:]...)
	if len(waiting) == 1 {
		delete(n.kinds, kind)
	} else {
		n.kinds[kind] = append(waiting[:0], waiting[1:]...)
		n.turns = append(n.turns, kind)
	}
	return work
}
