package telemetry

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestBuckets(t *testing.T) {
	check := func(v int64) {
		want, _ := slices.BinarySearch(bounds[:], max(v, 0))
		if got := bucketOf(v); got != want {
			t.Fatalf("%d ns: bucket %d, want %d", v, got, want)
		}
	}
	for _, b := range bounds {
		for d := int64(-2); d <= 2; d++ {
			check(b + d)
		}
	}
	for e := range 63 {
		for d := int64(-1); d <= 1; d++ {
			check(1<<e + d)
		}
	}
	for _, v := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
		check(v)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		check(r.Int64() >> r.IntN(63))
	}
	if bounds[0] != 10_000 || bounds[len(bounds)-1] != 100e9 || !slices.IsSorted(bounds[:]) {
		t.Error(bounds)
	}
}

func TestQuantile(t *testing.T) {
	var h histogram
	for i := range int64(1000) {
		h.observe((i + 1) * 1e6) // 1 ms to 1 s
	}
	var r reading
	r.add(&h)
	for q, want := range map[float64]int64{0.5: 600e6, 0.99: 1000e6, 0.0: 1e6, 1: 1000e6, 0.0995: 100e6} {
		if got := r.quantile(q); got != want {
			t.Errorf("quantile %v: %d, want %d", q, got, want)
		}
	}
	if r.count != 1000 || r.sum != 500_500e6 {
		t.Error(r.count, r.sum)
	}
	if (&reading{}).quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
}
