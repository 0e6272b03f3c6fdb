package flow

import (
	"context"
	"sync"
	"time"

	"moire.dev/moire/flow/record"
)

// Bounds of one batch: whichever comes first.
const (
	BatchRecords = 256
	BatchDelay   = 100 * time.Millisecond
)

// Pauses between attempts to ship, doubling from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// Ship sends records on; lost is how many the node had to drop since it
// started. After an error the same records are offered again.
type Ship func(rs []record.Record, lost uint64) error

// Collector keeps the records of a node until they are shipped.
type Collector struct {
	ship Ship

	mu   sync.Mutex
	ring *ring
	lost uint64
	wake chan struct{} // has room for one
}

// NewCollector keeps at most maxRecords and roughly maxBytes while ship
// refuses them. It starts nothing.
func NewCollector(maxRecords int, maxBytes int64, ship Ship) *Collector {
	return &Collector{ship: ship, ring: newRing(maxRecords, maxBytes), wake: make(chan struct{}, 1)}
}

// Add takes one record. It never blocks on shipping; when the Collector is
// full the oldest record goes and is counted as lost.
func (c *Collector) Add(r record.Record) {
	c.mu.Lock()
	c.lost += c.ring.push(r)
	n := c.ring.len()
	c.mu.Unlock()
	if n == 1 || n >= BatchRecords {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// Lost counts the records that were dropped.
func (c *Collector) Lost() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// Waiting counts the records that are not shipped yet.
func (c *Collector) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ring.len()
}

// Run ships until ctx is done, and then makes one last attempt.
func (c *Collector) Run(ctx context.Context) error {
	pause := firstPause
	for {
		if !c.gather(ctx) {
			c.drain()
			return nil
		}
		if c.shipOne() == nil {
			pause = firstPause
			continue
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// gather waits until there is a full batch, or something that waited for
// BatchDelay. It returns false when ctx is done.
func (c *Collector) gather(ctx context.Context) bool {
	for c.Waiting() == 0 {
		select {
		case <-ctx.Done():
			return false
		case <-c.wake:
		}
	}
	late := time.NewTimer(BatchDelay)
	defer late.Stop()
	for c.Waiting() < BatchRecords {
		select {
		case <-ctx.Done():
			return false
		case <-late.C:
			return true
		case <-c.wake:
		}
	}
	return ctx.Err() == nil
}

// shipOne offers the oldest batch and forgets it when it was taken. Records
// that had to go meanwhile were counted as lost although they may have been
// shipped: the count is never too small.
func (c *Collector) shipOne() error {
	c.mu.Lock()
	n := min(c.ring.len(), BatchRecords)
	first, lost := c.ring.first, c.lost
	batch := make([]record.Record, n)
	for i := range batch {
		batch[i] = *c.ring.at(first + uint64(i))
	}
	c.mu.Unlock()
	if n == 0 {
		return nil
	}
	if err := c.ship(batch, lost); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.ring.len() > 0 && c.ring.first < first+uint64(n) {
		c.ring.pop()
	}
	return nil
}

// drain ships what is left, once, until the first error.
func (c *Collector) drain() {
	for rounds := c.Waiting()/BatchRecords + 1; rounds > 0; rounds-- {
		if c.shipOne() != nil {
			return
		}
	}
}

// sleep returns false when ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
