package workloadapi

import (
	"maps"
	"sync"
	"time"
)

// Bounds of connections, and of tokens, which cost the control plane something.
const (
	maxConnections = 4096
	maxEach        = 64 // from one namespace
	// A namespace gets tokenBurst tokens at once and tokenRate each second.
	tokenBurst = 50
	tokenRate  = 5
)

// limit keeps one Workload from taking what all need.
type limit struct {
	mu     sync.Mutex
	all    int
	by     map[Namespace]int
	tokens map[Namespace]spent
}

// spent is how much of tokenBurst was used.
type spent struct {
	used float64
	at   time.Time
}

func newLimit() *limit { return &limit{by: map[Namespace]int{}, tokens: map[Namespace]spent{}} }

func (l *limit) enter(ns Namespace) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConnections || l.by[ns] >= maxEach {
		return false
	}
	l.all++
	l.by[ns]++
	return true
}

func (l *limit) leave(ns Namespace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.by[ns]--; l.by[ns] == 0 {
		delete(l.by, ns)
	}
}

// left is what of it is used up at a moment.
func (s spent) left(now time.Time) float64 {
	return max(0, s.used-tokenRate*max(0, now.Sub(s.at).Seconds()))
}

// take uses n tokens up, if that many are left.
func (l *limit) take(ns Namespace, n int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := l.tokens[ns].left(now) + float64(n)
	if used > tokenBurst {
		return false
	}
	if len(l.tokens) >= maxConnections {
		maps.DeleteFunc(l.tokens, func(_ Namespace, s spent) bool { return s.left(now) == 0 })
	}
	l.tokens[ns] = spent{used, now}
	return true
}
