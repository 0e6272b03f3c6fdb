package resilience

import (
	"math"
	"sync/atomic"

	"moire.dev/moire/snapshot/l7"
)

// Circuit counts what is under way to one cluster, for the whole proxy, and
// says no above its limits (503, flag UO). It lives as long as the cluster's
// name does; Configure changes the limits while it counts.
//
// Each Acquire that said yes has one Release. Counts never exceed their limit,
// also when all workers ask at once; at the limit, two that ask at the same
// instant may both be refused.
type Circuit struct {
	connections, pending, requests, retries gauge

	// percent of what is active, in 1/65536, and the least that is allowed; a
	// budget replaces the limit of retries when percent is positive.
	percent, minimum atomic.Int64
}

// gauge is a count and its limit, on a line of its own.
type gauge struct {
	count    atomic.Int64
	limit    atomic.Int64
	overflow atomic.Uint64
	_        [40]byte
}

func (g *gauge) acquire() bool {
	if g.count.Add(1) <= g.limit.Load() {
		return true
	}
	g.count.Add(-1)
	g.overflow.Add(1)
	return false
}

func (g *gauge) set(configured, otherwise int) {
	switch {
	case configured == 0:
		g.limit.Store(int64(otherwise))
	case configured < 0:
		g.limit.Store(math.MaxInt64)
	default:
		g.limit.Store(int64(configured))
	}
}

// NewCircuit has the limits of a configuration.
func NewCircuit(c l7.Circuit, b l7.RetryBudget) *Circuit {
	k := &Circuit{}
	k.Configure(c, b)
	return k
}

// defaultMost is the default limit of connections, pending and requests.
const defaultMost = 16384

// Configure sets limits; by default 16384 connections, as many pending and
// as many requests (Envoy's 1024 are filled by a thousand slow callers), 3 retries; a budget without a minimum allows 3 at a time.
func (k *Circuit) Configure(c l7.Circuit, b l7.RetryBudget) {
	k.connections.set(c.Connections, defaultMost)
	k.pending.set(c.Pending, defaultMost)
	k.requests.set(c.Requests, defaultMost)
	k.retries.set(c.Retries, 3)
	least := int64(b.Minimum)
	if least == 0 {
		least = 3
	}
	k.minimum.Store(max(0, least))
	k.percent.Store(int64(max(0, min(b.Percent, 1e6)) * 65536 / 100))
}

// AcquireConnection is for one connection more.
func (k *Circuit) AcquireConnection() bool { return k.connections.acquire() }

// ReleaseConnection is for one that was closed.
func (k *Circuit) ReleaseConnection() { k.connections.count.Add(-1) }

// AcquirePending is for a request that has to wait for a connection.
func (k *Circuit) AcquirePending() bool { return k.pending.acquire() }

// ReleasePending is for one that waits no longer.
func (k *Circuit) ReleasePending() { k.pending.count.Add(-1) }

// AcquireRequest is for a request under way; a retry or a hedge is one too.
func (k *Circuit) AcquireRequest() bool { return k.requests.acquire() }

// ReleaseRequest is for one that is over.
func (k *Circuit) ReleaseRequest() { k.requests.count.Add(-1) }

// AcquireRetry is for a retry or a hedge, from before its backoff to its end:
// at most the configured number at a time, or with a budget at most
// percent of the requests that are active or pending, and the minimum always.
func (k *Circuit) AcquireRetry() bool {
	limit := k.retries.limit.Load()
	if percent := k.percent.Load(); percent > 0 {
		active := k.requests.count.Load() + k.pending.count.Load()
		limit = max(k.minimum.Load(), active*percent>>16)
	}
	for {
		n := k.retries.count.Load()
		if n >= limit {
			k.retries.overflow.Add(1)
			return false
		}
		if k.retries.count.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// ReleaseRetry is for one that is over.
func (k *Circuit) ReleaseRetry() { k.retries.count.Add(-1) }

// Level is one limit as an administrator sees it.
type Level struct {
	Now, Limit int64 // Limit is math.MaxInt64 for none
	Overflows  uint64
}

// Levels of connections, pending, requests and retries.
func (k *Circuit) Levels() (connections, pending, requests, retries Level) {
	return k.connections.level(), k.pending.level(), k.requests.level(), k.retries.level()
}

func (g *gauge) level() Level {
	return Level{g.count.Load(), g.limit.Load(), g.overflow.Load()}
}
