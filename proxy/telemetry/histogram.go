package telemetry

import (
	"math/bits"
	"sync/atomic"
)

// counter has one writer, its worker, and any number of readers.
type counter struct{ v atomic.Uint64 }

func (c *counter) add(n uint64) { c.v.Store(c.v.Load() + n) }
func (c *counter) get() uint64  { return c.v.Load() }

// Buckets of a histogram are log-linear in decimal: from 10 µs on, each power
// of ten has nine of equal width, so that every bound has one digit and
// Prometheus' bounds, some of these, are exact. An error is at most half of the
// way from 1 to 2.
const (
	decades = 7 // 10 µs to 100 s
	buckets = 1 + 9*decades + 1
)

// bounds are the upper ends of the buckets, nanoseconds, inclusive; the last
// bucket has none.
var bounds = func() (b [buckets - 1]int64) {
	i, unit := 0, int64(10_000)
	for range decades {
		for digit := int64(1); digit <= 9; digit++ {
			b[i] = digit * unit
			i++
		}
		unit *= 10
	}
	b[i] = unit
	return b
}()

// cells cut each power of two in 16: no cell has more than one bound in it, so
// that the bucket of a value is that of the lowest value of its cell, or the
// next.
var cells = func() (t [64 * 16]uint8) {
	for c := range t {
		low := cellStart(c)
		i := 0
		for i < len(bounds) && bounds[i] < low {
			i++
		}
		t[c] = uint8(i)
	}
	return t
}()

func cellOf(v uint64) int {
	if v < 16 {
		return 0
	}
	e := bits.Len64(v) - 1
	return e<<4 | int(v>>(e-4)&15)
}

func cellStart(c int) int64 {
	e := c >> 4
	if e < 4 {
		return 0
	}
	if e >= 63 {
		return 1<<63 - 1
	}
	return int64(16|c&15) << (e - 4)
}

// bucketOf is the first bucket whose bound is not below v.
func bucketOf(v int64) int {
	if v < 0 {
		v = 0
	}
	i := int(cells[cellOf(uint64(v))])
	if i < len(bounds) && v > bounds[i] {
		i++
	}
	return i
}

// histogram of durations, with one writer.
type histogram struct {
	bucket [buckets]counter
	sum    counter // nanoseconds
}

func (h *histogram) observe(nanos int64) {
	h.bucket[bucketOf(nanos)].add(1)
	if nanos > 0 {
		h.sum.add(uint64(nanos))
	}
}

// reading is what a reader took from histograms.
type reading struct {
	bucket [buckets]uint64
	count  uint64
	sum    uint64
}

func (r *reading) add(h *histogram) {
	r.sum += h.sum.get()
	for i := range h.bucket {
		n := h.bucket[i].get()
		r.bucket[i] += n
		r.count += n
	}
}

// quantile is the upper end, nanoseconds, of the bucket that q of all values
// do not exceed; 0 when there are none.
func (r *reading) quantile(q float64) int64 {
	if r.count == 0 {
		return 0
	}
	want, seen := uint64(q*float64(r.count)), uint64(0)
	for i, n := range r.bucket {
		if seen += n; seen > want || seen == r.count {
			return bounds[min(i, len(bounds)-1)]
		}
	}
	return bounds[len(bounds)-1]
}
