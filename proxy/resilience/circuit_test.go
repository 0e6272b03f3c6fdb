package resilience

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

func TestCircuitDefaultsAreEnvoys(t *testing.T) {
	k := NewCircuit(l7.Circuit{}, l7.RetryBudget{})
	connections, pending, requests, retries := k.Levels()
	if connections.Limit != 16384 || pending.Limit != 16384 || requests.Limit != 16384 || retries.Limit != 3 {
		t.Errorf("limits %d %d %d %d", connections.Limit, pending.Limit, requests.Limit, retries.Limit)
	}
	k.Configure(l7.Circuit{Connections: -1, Pending: 1, Requests: 2, Retries: -1}, l7.RetryBudget{})
	for n := range 5 {
		if !k.AcquireConnection() || !k.AcquireRetry() {
			t.Error("no limit, and refused")
		}
		if got, want := k.AcquirePending(), n < 1; got != want {
			t.Errorf("pending %d: %t", n, got)
		}
		if got, want := k.AcquireRequest(), n < 2; got != want {
			t.Errorf("request %d: %t", n, got)
		}
	}
	if _, pending, requests, _ := k.Levels(); pending.Overflows != 4 || requests.Overflows != 3 || requests.Now != 2 {
		t.Errorf("pending %+v, requests %+v", pending, requests)
	}
	// A lower limit ends nothing; there is just nothing new.
	k.Configure(l7.Circuit{Requests: 1}, l7.RetryBudget{})
	k.ReleaseRequest()
	if k.AcquireRequest() {
		t.Error("a second request over a limit of one")
	}
	k.ReleaseRequest()
	if !k.AcquireRequest() {
		t.Error("none under way, and refused")
	}
}

// The budget is a share of what is active or pending, and the minimum always.
func TestRetryBudget(t *testing.T) {
	k := NewCircuit(l7.Circuit{Requests: -1, Pending: -1, Retries: 1}, l7.RetryBudget{Percent: 20})
	allowed := func() (n int) {
		for n < 1000 && k.AcquireRetry() {
			n++
		}
		for range n {
			k.ReleaseRetry()
		}
		return n
	}
	if n := allowed(); n != 3 {
		t.Errorf("nothing under way: %d retries, want the minimum of 3", n)
	}
	for range 30 {
		k.AcquireRequest()
	}
	for range 10 {
		k.AcquirePending()
	}
	if n := allowed(); n != 8 && n != 7 {
		t.Errorf("40 under way: %d retries, want 8", n)
	}
	k.Configure(l7.Circuit{}, l7.RetryBudget{Percent: 0.5, Minimum: 1})
	if n := allowed(); n != 1 {
		t.Errorf("half a percent: %d", n)
	}
}

func TestBudgetIsNeverExceeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percent := rapid.Float64Range(0.1, 100).Draw(t, "percent")
		minimum := rapid.IntRange(1, 10).Draw(t, "minimum")
		k := NewCircuit(l7.Circuit{Requests: 200}, l7.RetryBudget{Percent: percent, Minimum: minimum})
		requests, retries := 0, 0
		for range rapid.IntRange(1, 500).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				if k.AcquireRequest() {
					requests++
				}
			case 1:
				if requests > 0 {
					k.ReleaseRequest()
					requests--
				}
			case 2:
				if k.AcquireRetry() {
					retries++
					if most := max(float64(minimum), percent/100*float64(requests)); float64(retries) > most+1e-9 {
						t.Fatalf("%d retries with %d requests; %g may be", retries, requests, most)
					}
				}
			case 3:
				if retries > 0 {
					k.ReleaseRetry()
					retries--
				}
			}
			if requests > 200 {
				t.Fatalf("%d requests", requests)
			}
		}
	})
}

// Workers at once never hold more than the limit.
func TestCircuitUnderContention(t *testing.T) {
	const limit = 7
	k := NewCircuit(l7.Circuit{Requests: limit, Retries: limit}, l7.RetryBudget{})
	var held, most atomic.Int64
	var group sync.WaitGroup
	for _, pair := range []struct {
		acquire func() bool
		release func()
	}{{k.AcquireRequest, k.ReleaseRequest}, {k.AcquireRetry, k.ReleaseRetry}} {
		held.Store(0)
		for range 8 {
			group.Go(func() {
				for range 5000 {
					if pair.acquire() {
						n := held.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						held.Add(-1)
						pair.release()
					}
				}
			})
		}
		group.Wait()
	}
	if most.Load() > limit {
		t.Errorf("%d at once, the limit is %d", most.Load(), limit)
	}
	if _, _, requests, retries := k.Levels(); requests.Now != 0 || retries.Now != 0 {
		t.Errorf("%d and %d are left", requests.Now, retries.Now)
	}
	if _, _, requests, _ := NewCircuit(l7.Circuit{Requests: -1}, l7.RetryBudget{}).Levels(); requests.Limit != math.MaxInt64 {
		t.Errorf("limit %d", requests.Limit)
	}
}

func BenchmarkCircuit(b *testing.B) {
	k := NewCircuit(l7.Circuit{}, l7.RetryBudget{})
	b.ReportAllocs()
	for b.Loop() {
		if k.AcquireRequest() {
			k.ReleaseRequest()
		}
	}
}
