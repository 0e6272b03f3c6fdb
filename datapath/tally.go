package datapath

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// tally counts what was written, and what was found to be other than it was
// written: rows that somebody else changed, added or removed.
type tally struct {
	atomic.Uint64 // rows written and removed

	mu    sync.Mutex
	wrong uint64
	last  string
}

// maxWrong bounds what is said of one row, in bytes.
const maxWrong = 200

// found notes one row, or one program, that was not as it should be.
func (t *tally) found(table, what string, key any) {
	text := fmt.Sprintf("%s: %s %+v", table, what, key)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong++
	t.last = text[:min(len(text), maxWrong)]
}

// Repairs counts what was found in the kernel that was not as it should be
// since Open, all of which the Grow and Shrink that found it have repaired, or
// will; last says what was found last, "" when nothing was.
func (d *Datapath) Repairs() (n uint64, last string) {
	d.writes.mu.Lock()
	defer d.writes.mu.Unlock()
	return d.writes.wrong, d.writes.last
}
