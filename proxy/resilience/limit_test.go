package resilience

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

func TestLimiter(t *testing.T) {
	l := NewLimiter(l7.RateLimit{Requests: 10, Per: l7.Duration(time.Second), Burst: 5})
	now := int64(1e15)
	for n := range int64(5) {
		if a := l.Take(now, 0); !a.OK || a.Limit != 5 || a.Remaining != 4-n || a.Reset != (n+1)*1e8 || a.After != 0 {
			t.Errorf("request %d: %+v", n, a)
		}
	}
	a := l.Take(now, 0)
	if a.OK || a.Remaining != 0 || a.After != 1e8 || a.Reset != 5e8 {
		t.Errorf("the sixth of five: %+v", a)
	}
	if string(AppendSeconds(nil, a.After)) != "1" || string(AppendSeconds(nil, 0)) != "0" || string(AppendSeconds(nil, 1e9+1)) != "2" {
		t.Error("seconds are not rounded up")
	}
	if l.Take(now+a.After-1, 0).OK || !l.Take(now+a.After, 0).OK || l.Take(now+a.After, 0).OK {
		t.Error("not one more after the time it said")
	}
	// Long after it is full again, and no fuller.
	now += 3600 * 1e9
	n := 0
	for l.Take(now, 0).OK {
		n++
	}
	if n != 5 {
		t.Errorf("%d at once after an hour", n)
	}
	l.GiveBack(now, 0)
	if !l.Take(now, 0).OK || l.Take(now, 0).OK {
		t.Error("what was given back is not there, or twice")
	}
	if NewLimiter(l7.RateLimit{Requests: 0, Per: l7.Duration(1)}).Take(5, 0).OK {
		t.Error("one of none")
	}
}

// In any stretch of time no more pass than the bucket holds and the rate gives,
// and who keeps to the rate always passes.
func TestLimiterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := l7.RateLimit{Requests: rapid.IntRange(1, 1000).Draw(t, "requests"), Per: l7.Duration(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per")), Burst: rapid.IntRange(1, 50).Draw(t, "burst")}
		l := NewLimiter(c)
		gap := float64(c.Per) / float64(c.Requests)
		now := int64(0)
		var passed []int64
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			now += int64(gap * rapid.Float64Range(0, 2).Draw(t, "elapsed"))
			if a := l.Take(now, 0); a.OK {
				passed = append(passed, now)
			} else if a.After <= 0 {
				t.Fatalf("refused until %d", a.After)
			}
		}
		for i := range passed {
			for j := i; j < len(passed); j++ {
				if n, most := float64(j-i+1), float64(c.Burst)+float64(passed[j]-passed[i])/gap; n > most+1e-6 {
					t.Fatalf("%v passed in %d ns; %.3f may", n, passed[j]-passed[i], most)
				}
			}
		}
		for range 100 {
			if now += int64(gap) + 2; !l.Take(now+int64(gap)*int64(c.Burst), 0).OK {
				t.Fatal("refused at the rate")
			}
		}
	})
}

func TestLimiterByCaller(t *testing.T) {
	l := NewLimiter(l7.RateLimit{Requests: 2, Per: l7.Duration(time.Second), By: "address"})
	for caller := range uint64(1000) {
		key := (caller + 1) * 0x9e3779b97f4a7c15
		for n := range 3 {
			if got := l.Take(0, key).OK; got != (n < 2) {
				t.Fatalf("caller %d, request %d: %t", caller, n, got)
			}
		}
	}
	if l.Lost() != 0 {
		t.Errorf("%d were lost of 1,000", l.Lost())
	}
	// Many callers more, each once, over 60 s: old buckets are full and go, one that
	// is being used stays limited.
	passed := 0
	for k := range uint64(60_000) {
		now := int64(k) * 1e6
		l.Take(now, (k+5000)*0x9e3779b97f4a7c15)
		if k%100 == 0 && l.Take(now, 42<<40).OK {
			passed++
		}
	}
	if l.Lost() != 0 || passed < 120 || passed > 124 {
		t.Errorf("%d buckets were lost, and who asked for 10 a second got %d in 60 s", l.Lost(), passed)
	}
	// More active ones than there is room for: they pass, and it is counted.
	for k := range uint64(3 * sets * ways) {
		if !l.Take(2e12, Key(k)).OK {
			t.Fatal("a caller's first request was refused")
		}
	}
	if l.Lost() == 0 {
		t.Error("nothing was lost")
	}
}

// Key spreads a number.
func Key(k uint64) uint64 { return (k + 1) * 0xbf58476d1ce4e5b9 }

func TestLimiterIsSharedByWorkers(t *testing.T) {
	for _, by := range []string{"", "address"} {
		l := NewLimiter(l7.RateLimit{Requests: 100, Per: l7.Duration(time.Hour), By: by})
		var passed atomic.Int64
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 1000 {
					if l.Take(1, 7<<32).OK {
						passed.Add(1)
					}
				}
			})
		}
		group.Wait()
		if passed.Load() != 100 {
			t.Errorf("by %q: %d passed, want 100", by, passed.Load())
		}
	}
}

func BenchmarkLimiter(b *testing.B) {
	for _, by := range []string{"", "address"} {
		b.Run("by="+by, func(b *testing.B) {
			l := NewLimiter(l7.RateLimit{Requests: 1000, Per: l7.Duration(time.Second), By: by})
			now := int64(0)
			b.ReportAllocs()
			for k := uint64(0); b.Loop(); k++ {
				now += 1e6
				l.Take(now, Key(k%5000))
			}
		})
	}
}
