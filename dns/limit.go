package dns

import (
	"net/netip"
	"sync"
)

// What a query costs of an asker's allowance.
const (
	costAnswer  = 1
	costForward = 20 // in addition, when others have to be asked
	// maxAskers is how many askers of a Network are told apart.
	maxAskers = 4096
)

// limiter holds each asker of a Network to a rate, with one second's worth of
// it at once. It is pure but for its lock: time is an argument.
type limiter struct {
	rate   int64 // per second; 0: no limit
	mu     sync.Mutex
	askers map[netip.Addr]*allowance
}

type allowance struct {
	left int64 // in billionths
	last int64 // ns
}

const billion = 1_000_000_000

// take reports whether the asker may, at now in nanoseconds.
func (l *limiter) take(a netip.Addr, cost, now int64) bool {
	if l.rate <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.askers[a]
	if w == nil {
		if len(l.askers) >= maxAskers {
			l.forget(now)
		}
		if len(l.askers) >= maxAskers {
			a = netip.Addr{} // the rest share one
			w = l.askers[a]
		}
		if w == nil {
			w = &allowance{left: l.rate * billion, last: now}
			l.askers[a] = w
		}
	}
	if passed := now - w.last; passed > 0 {
		w.left = min(w.left+min(passed, billion)*l.rate, l.rate*billion)
	}
	w.last = now
	if w.left < cost*billion {
		return false
	}
	w.left -= cost * billion
	return true
}

// forget removes askers that have been quiet for a second: they have their
// whole allowance again.
func (l *limiter) forget(now int64) {
	for a, w := range l.askers {
		if now-w.last >= billion {
			delete(l.askers, a)
		}
	}
}
