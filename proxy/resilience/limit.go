package resilience

import (
	"hash/maphash"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Limiter is one rate limit of the proxy: one token bucket, or one for each
// caller. All workers share it, by atomics: buckets split between workers would
// give a caller on one connection, which one worker has, a part of its rate
// only. It is the generic cell rate algorithm: a bucket is one number, the
// theoretical arrival time (TAT), when it will be full again.
type Limiter struct {
	config l7.RateLimit
	seed   maphash.Seed
	gap    int64 // nanoseconds that one request takes, rounded up
	depth  int64 // how far TAT may be ahead: gap * burst
	one    bucket
	sets   []set // by caller; nil: one for all
	lost   atomic.Uint64
}

// ways are the buckets that one caller may be in.
const ways = 8

// sets are how many times ways callers are remembered; 256 KiB.
const sets = 2048

type bucket struct {
	key atomic.Uint64 // 0: free
	tat atomic.Int64
}

type set [ways]bucket

// NewLimiter has full buckets.
func NewLimiter(c l7.RateLimit) *Limiter {
	l := &Limiter{config: c, seed: maphash.MakeSeed(), gap: 1}
	burst := int64(c.Burst)
	if burst <= 0 {
		burst = int64(c.Requests)
	}
	if requests := int64(c.Requests); requests > 0 {
		l.gap = max(1, (int64(c.Per.Or(time.Second))+requests-1)/requests)
	} else {
		burst = 0 // nothing at all
	}
	l.depth = math.MaxInt64 / 4
	if burst < l.depth/l.gap {
		l.depth = burst * l.gap
	}
	if c.By != "" {
		l.sets = make([]set, sets)
	}
	return l
}

// Config that l is made from: an equal one of a new configuration keeps l.
func (l *Limiter) Config() l7.RateLimit { return l.config }

// Seed of the hashes of callers: who knows it could take the buckets of others.
func (l *Limiter) Seed() maphash.Seed { return l.seed }

// By each caller.
func (l *Limiter) By() string { return l.config.By }

// Lost is how many buckets were given to another caller before they were full:
// more callers are active than are remembered.
func (l *Limiter) Lost() uint64 { return l.lost.Load() }

// Allowance is the answer of a Limiter: facts for the fields of an answer.
type Allowance struct {
	OK bool
	// Limit is the size of the bucket, Remaining what is in it now.
	Limit, Remaining int64
	// Reset is when it will be full, After when there will be one request in it;
	// nanoseconds from now.
	Reset, After int64
}

// Take one request from the bucket of a caller, which key is the hash of, with
// Seed; it is ignored when there is one bucket for all.
func (l *Limiter) Take(now int64, key uint64) Allowance {
	b := &l.one
	if l.sets != nil {
		b = l.find(now, key|1)
	}
	for {
		tat := b.tat.Load()
		next := max(tat, now) + l.gap
		if next-now > l.depth {
			return l.allowance(false, now, max(tat, now))
		}
		if b.tat.CompareAndSwap(tat, next) {
			return l.allowance(true, now, next)
		}
	}
}

// GiveBack a request that was taken, when another limit refused it.
func (l *Limiter) GiveBack(now int64, key uint64) {
	b := &l.one
	if l.sets != nil {
		b = l.find(now, key|1)
	}
	b.tat.Add(-l.gap)
}

func (l *Limiter) allowance(ok bool, now, tat int64) Allowance {
	a := Allowance{OK: ok, Limit: l.depth / l.gap, Remaining: (l.depth - (tat - now)) / l.gap, Reset: tat - now}
	if !ok {
		a.After = tat + l.gap - l.depth - now
	}
	return a
}

// find the bucket of a caller, or give it that of its set that is the closest to
// full. A full one says nothing about its caller, so nothing is lost by that.
func (l *Limiter) find(now int64, key uint64) *bucket {
	s := &l.sets[key>>32%sets]
	for {
		fullest := &s[0]
		least := int64(math.MaxInt64)
		for i := range s {
			b := &s[i]
			k := b.key.Load()
			if k == key {
				return b
			}
			if tat := b.tat.Load(); k == 0 || tat < least {
				fullest, least = b, tat
				if k == 0 {
					break
				}
			}
		}
		old := fullest.key.Load()
		if old == key {
			return fullest
		}
		if fullest.key.CompareAndSwap(old, key) {
			if least > now {
				l.lost.Add(1)
				fullest.tat.CompareAndSwap(least, now)
			}
			return fullest
		}
	}
}

// AppendSeconds writes nanoseconds as whole seconds, rounded up: for
// Retry-After and x-ratelimit-reset.
func AppendSeconds(dst []byte, d int64) []byte {
	return strconv.AppendInt(dst, (max(d, 0)+int64(time.Second)-1)/int64(time.Second), 10)
}
