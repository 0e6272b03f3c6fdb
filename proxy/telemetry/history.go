package telemetry

import (
	"context"
	"sync"

	"moire.dev/moire/flow/record"
)

// history keeps the last events, as they are: few of them are ever asked for.
type history struct {
	mu        sync.Mutex
	size      int
	kept      []told // grows up to size, then wraps
	next      uint64 // of the next event
	followers int
	changed   chan struct{} // closed when something came, for followers
}

func newHistory(size int) *history {
	return &history{size: size, changed: make(chan struct{})}
}

// add keeps what came. Caller holds mu.
func (h *history) add(k *told) {
	if len(h.kept) < h.size {
		h.kept = append(h.kept, *k)
	} else {
		h.kept[h.next%uint64(h.size)] = *k
	}
	h.next++
}

// tell wakes followers. Caller holds mu.
func (h *history) tell() {
	if h.followers > 0 {
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// since copies what came from number from on, at most the last n, and says
// which number comes next and how many were overwritten before.
func (h *history) since(from uint64, n int) (out []told, next, missed uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := max(h.next-uint64(len(h.kept)), from)
	missed = first - from
	if n >= 0 && h.next-first > uint64(n) {
		first = h.next - uint64(n)
	}
	for i := first; i < h.next; i++ {
		out = append(out, h.kept[i%uint64(h.size)])
	}
	return out, h.next, missed
}

// Last are the last n requests that are known, oldest first; all of them when n
// is negative.
func (t *Telemetry) Last(n int) []record.Record {
	kept, _, _ := t.history.since(0, n)
	return t.say(kept)
}

func (t *Telemetry) say(kept []told) []record.Record {
	s := t.sayer()
	out := make([]record.Record, len(kept))
	for i := range kept {
		out[i] = s.record(&kept[i])
	}
	return out
}

// Follow calls do with the last n requests and then with those that come,
// oldest first, until ctx is done or do returns an error, which it returns.
// missed is how many came too fast to be told. do may take its time.
func (t *Telemetry) Follow(ctx context.Context, n int, do func(records []record.Record, missed uint64) error) error {
	h := t.history
	h.mu.Lock()
	h.followers++
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.followers--
		h.mu.Unlock()
	}()
	for from, first := uint64(0), true; ; first = false {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		most := -1
		if first {
			most = n
		}
		kept, next, missed := h.since(from, most)
		if first {
			missed = 0
		}
		from = next
		if len(kept) > 0 {
			if err := do(t.say(kept), missed); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
