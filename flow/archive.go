package flow

import (
	"context"
	"slices"
	"sync"

	"moire.dev/moire/flow/record"
)

// Defaults of an Archive.
const (
	DefaultRecords = 200_000
	DefaultBytes   = 64 << 20
)

// Archive keeps the newest records of many nodes and answers questions.
type Archive struct {
	mu      sync.Mutex
	ring    *ring
	lost    map[string]losses
	changed chan struct{} // closed and replaced when records come
}

// losses of one node: its counter starts at zero whenever its agent starts.
type losses struct{ before, now uint64 }

// NewArchive keeps at most maxRecords and roughly maxBytes; values of zero or
// less mean the defaults.
func NewArchive(maxRecords int, maxBytes int64) *Archive {
	if maxRecords <= 0 {
		maxRecords = DefaultRecords
	}
	if maxBytes <= 0 {
		maxBytes = DefaultBytes
	}
	return &Archive{ring: newRing(maxRecords, maxBytes), lost: map[string]losses{}, changed: make(chan struct{})}
}

// Add keeps the records that a node shipped. lost is how many the node dropped
// since its agent started.
func (a *Archive) Add(node string, rs []record.Record, lost uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lost[node]
	if lost < l.now {
		l.before += l.now
	}
	if l.now = lost; l != (losses{}) {
		a.lost[node] = l
	}
	for _, r := range rs {
		a.ring.push(r)
	}
	if len(rs) > 0 {
		close(a.changed)
		a.changed = make(chan struct{})
	}
}

// Lost tells how many records each node dropped, since the Archive began;
// nodes that lost none are not in it.
func (a *Archive) Lost() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]uint64, len(a.lost))
	for node, l := range a.lost {
		out[node] = l.before + l.now
	}
	return out
}

// Len counts the records that are kept.
func (a *Archive) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ring.len()
}

// Query returns the newest records that match, at most f.Limit if that is set,
// in the order in which they came: newest last.
func (a *Archive) Query(f Filter) []record.Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.query(f.matcher())
}

func (a *Archive) query(f *matcher) []record.Record {
	out := []record.Record{}
	for seq := a.ring.next; seq > a.ring.first; {
		seq--
		if r := a.ring.at(seq); f.match(r) {
			if out = append(out, *r); len(out) == f.Limit {
				break
			}
		}
	}
	slices.Reverse(out)
	return out
}

// followChunk bounds how long a follower holds the lock.
const followChunk = 1024

// Follow calls emit for records that match, as they come, until ctx is done.
// If f has a Limit or Since, what Query would return comes first. It returns
// how many records were overwritten before this follower looked at them: a
// slow emit never slows down Add.
func (a *Archive) Follow(ctx context.Context, f Filter, emit func(record.Record)) (missed uint64) {
	m := f.matcher()
	a.mu.Lock()
	var batch []record.Record
	if f.Limit > 0 || !f.Since.IsZero() {
		batch = a.query(m)
	}
	cursor := a.ring.next
	a.mu.Unlock()
	for ctx.Err() == nil {
		for _, r := range batch {
			if ctx.Err() != nil {
				return missed
			}
			emit(r)
		}
		a.mu.Lock()
		changed := a.changed
		if cursor < a.ring.first {
			missed += a.ring.first - cursor
			cursor = a.ring.first
		}
		batch = batch[:0]
		end := min(a.ring.next, cursor+followChunk)
		for ; cursor < end; cursor++ {
			if r := a.ring.at(cursor); m.match(r) {
				batch = append(batch, *r)
			}
		}
		more := cursor < a.ring.next
		a.mu.Unlock()
		if len(batch) > 0 || more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return missed
}
