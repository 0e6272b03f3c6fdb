package resilience

import (
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Hedge is l7.Hedge worked out: a request that is slow is sent to a second
// endpoint too, and the first answer wins. The zero Hedge never does.
type Hedge struct {
	Delay int64 // nanoseconds from the last try; 0: off
	Most  int   // tries in all, the first one, too
}

// NewHedge works a rule's Hedge out; nil gives the zero Hedge.
func NewHedge(c *l7.Hedge) Hedge {
	if c == nil || c.Delay <= 0 {
		return Hedge{}
	}
	h := Hedge{Delay: int64(time.Duration(c.Delay)), Most: 2}
	if c.Most > 0 {
		h.Most = c.Most
	}
	return h
}

// At is when the next try is due, tries having begun and the last one at last. False: never. Only an idempotent request whose body is at hand
// is sent twice, and not when its deadline (0: none) comes first. Who sends a
// hedge takes it from the budget of retries (Circuit.AcquireRetry).
func (h Hedge) At(last, deadline int64, tries int, idempotent, bodyKept bool) (int64, bool) {
	if h.Delay == 0 || tries >= h.Most || !idempotent || !bodyKept {
		return 0, false
	}
	at := last + h.Delay
	return at, deadline == 0 || at < deadline
}
