package resilience

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

func TestRetriable(t *testing.T) {
	usual := NewRetry(&l7.Retry{})
	grpc := NewRetry(&l7.Retry{GRPC: []int{14, 8}})
	post := NewRetry(&l7.Retry{Methods: []string{"POST"}, Codes: []int{500, 429}})
	for _, c := range []struct {
		rule   *Retry
		method string
		try    Try
		want   bool
	}{
		// Nobody began with it: any method.
		{usual, "POST", Try{Failure: NotConnected, BodyKept: true}, true},
		{usual, "POST", Try{Failure: Refused, Sent: true, BodyKept: true}, true},
		{usual, "POST", Try{Failure: Reset, BodyKept: true}, true},
		// But not without its body, and not after some of an answer.
		{usual, "POST", Try{Failure: NotConnected}, false},
		{usual, "GET", Try{Failure: Refused, BodyKept: true, Begun: true}, false},
		{usual, "GET", Try{Status: 503, BodyKept: true, Begun: true}, false},
		// Somebody may have begun: only what may be done twice.
		{usual, "GET", Try{Failure: Reset, Sent: true, BodyKept: true}, true},
		{usual, "POST", Try{Failure: Reset, Sent: true, BodyKept: true}, false},
		{usual, "PUT", Try{Failure: TimedOut, Sent: true, BodyKept: true}, true},
		{usual, "PATCH", Try{Failure: TimedOut, Sent: true, BodyKept: true}, false},
		{usual, "get", Try{Failure: TimedOut, Sent: true, BodyKept: true}, false},
		{usual, "GET", Try{Status: 503, BodyKept: true}, true},
		{usual, "GET", Try{Status: 502, BodyKept: true}, true},
		{usual, "GET", Try{Status: 504, BodyKept: true}, true},
		{usual, "GET", Try{Status: 500, BodyKept: true}, false},
		{usual, "GET", Try{Status: 200, BodyKept: true}, false},
		{usual, "GET", Try{Status: 999, BodyKept: true}, false},
		{usual, "POST", Try{Status: 503, BodyKept: true}, false},
		{usual, "DELETE", Try{Status: 503, BodyKept: false}, false},
		{post, "POST", Try{Status: 429, BodyKept: true}, true},
		{post, "POST", Try{Status: 503, BodyKept: true}, false},
		// A gRPC status: what the rule lists, or an idempotent method.
		{usual, "POST", Try{Status: 200, GRPC: 14, BodyKept: true}, false},
		{grpc, "POST", Try{Status: 200, GRPC: 14, BodyKept: true}, true},
		{grpc, "POST", Try{Status: 200, GRPC: 8, BodyKept: true}, true},
		{grpc, "POST", Try{Status: 200, GRPC: 13, BodyKept: true}, false},
		{grpc, "POST", Try{Status: 200, GRPC: 0, BodyKept: true}, false},
		{grpc, "POST", Try{Status: 200, GRPC: -1, BodyKept: true}, false},
		{grpc, "POST", Try{Failure: Reset, Sent: true, BodyKept: true}, false},
		{post, "POST", Try{Status: 200, GRPC: 14, BodyKept: true}, true},
		{nil, "GET", Try{Failure: NotConnected, BodyKept: true}, false},
	} {
		if got := c.rule.Retriable([]byte(c.method), c.try); got != c.want {
			t.Errorf("%s %+v: %t", c.method, c.try, got)
		}
	}
}

// Whatever the rule and the try: without the body, or after an answer began,
// never; a method that is not idempotent only when it was not begun with, or
// the rule says so.
func TestRetriableIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRetry(&l7.Retry{Codes: rapid.SliceOf(rapid.IntRange(0, 700)).Draw(t, "codes")})
		try := Try{
			Failure: Failure(rapid.IntRange(0, int(TimedOut)).Draw(t, "failure")),
			Status:  rapid.IntRange(-5, 700).Draw(t, "status"), GRPC: rapid.IntRange(-1, 40).Draw(t, "grpc"),
			Sent: rapid.Bool().Draw(t, "sent"), BodyKept: rapid.Bool().Draw(t, "kept"), Begun: rapid.Bool().Draw(t, "begun"),
		}
		if !r.Retriable([]byte("POST"), try) {
			return
		}
		if !try.BodyKept || try.Begun || try.Failure == Answered || try.Failure == TimedOut || try.Failure == Reset && try.Sent {
			t.Fatalf("%+v is tried again", try)
		}
	})
}

func TestWait(t *testing.T) {
	r := NewRetry(&l7.Retry{Attempts: 6})
	ms := int64(time.Millisecond)
	for n, most := range []int64{25, 50, 100, 200, 250, 250} {
		var longest, sum int64
		for k := range uint64(10_000) {
			wait, ok := r.Wait(n+1, k*0x9e3779b97f4a7c15, 0, 0, 0)
			if !ok || wait < 0 || wait > most*ms {
				t.Fatalf("retry %d waits %d ms, %t", n+1, wait/ms, ok)
			}
			longest, sum = max(longest, wait), sum+wait
		}
		// Full jitter: anything from nothing to the most, evenly.
		if mean := sum / 10_000; longest < most*ms*95/100 || mean < most*ms*45/100 || mean > most*ms*55/100 {
			t.Errorf("retry %d waits up to %d ms, %d ms in the mean, want %d", n+1, longest/ms, mean/ms, most)
		}
	}
	if _, ok := r.Wait(7, 0, 0, 0, 0); ok {
		t.Error("a seventh retry of six")
	}
	if wait, ok := r.Wait(1, 0, 0, 0, int64(2*time.Second)); !ok || wait != int64(2*time.Second) {
		t.Errorf("Retry-After of 2 s gives %d, %t", wait, ok)
	}
	if _, ok := r.Wait(1, 0, 0, 0, int64(6*time.Second)); ok {
		t.Error("Retry-After of 6 s was waited for")
	}
	if _, ok := r.Wait(1, 0, 100, 101+int64(time.Second), int64(2*time.Second)); ok {
		t.Error("waited beyond the deadline")
	}
	if r := (*Retry)(nil); func() bool { _, ok := r.Wait(1, 0, 0, 0, 0); return ok }() {
		t.Error("a retry without a rule")
	}
}

func TestRetryAfter(t *testing.T) {
	wall := time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "120": 2 * time.Minute, "Fri, 27 Nov 2026 10:00:30 GMT": 30 * time.Second,
		"Friday, 27-Nov-26 10:00:30 GMT": 30 * time.Second, "Fri Nov 27 10:00:30 2026": 30 * time.Second,
		"Fri, 27 Nov 2026 09:00:30 GMT": 0,
	} {
		if got, ok := RetryAfter([]byte(value), wall); !ok || got != int64(want) {
			t.Errorf("%q is %v, %t", value, time.Duration(got), ok)
		}
	}
	for _, value := range []string{"", "-1", "1.5", "soon", "99999999999999999999", "Fri, 27 Nov 2026 10:00:30 CET"} {
		if _, ok := RetryAfter([]byte(value), wall); ok {
			t.Errorf("%q was taken", value)
		}
	}
}

func TestHedge(t *testing.T) {
	h := NewHedge(&l7.Hedge{Delay: l7.Duration(100)})
	if at, ok := h.At(1000, 0, 1, true, true); !ok || at != 1100 {
		t.Errorf("at %d, %t", at, ok)
	}
	for name, ok := range map[string]bool{
		"not idempotent": func() bool { _, ok := h.At(0, 0, 1, false, true); return ok }(),
		"body gone":      func() bool { _, ok := h.At(0, 0, 1, true, false); return ok }(),
		"two under way":  func() bool { _, ok := h.At(0, 0, 2, true, true); return ok }(),
		"deadline":       func() bool { _, ok := h.At(0, 100, 1, true, true); return ok }(),
		"no rule":        func() bool { _, ok := NewHedge(nil).At(0, 0, 1, true, true); return ok }(),
	} {
		if ok {
			t.Errorf("hedged though: %s", name)
		}
	}
}

func TestDecisionsAllocateNothing(t *testing.T) {
	r := NewRetry(&l7.Retry{Methods: []string{"POST"}})
	k := NewCircuit(l7.Circuit{}, l7.RetryBudget{Percent: 20})
	one, each := NewLimiter(l7.RateLimit{Requests: 10}), NewLimiter(l7.RateLimit{Requests: 10, By: "address"})
	method, timeout := []byte("POST"), []byte("1500m")
	buffer := make([]byte, 0, 64)
	fault, _ := NewFault(&l7.Fault{Abort: 503, AbortPercent: 50, Headers: []l7.ValueMatch{{Name: "x-a", Value: "b"}, {Name: "via", Kind: l7.Regex, Value: "a+"}}})
	meant := head("x-a", "b", "via", "aaa")
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 1e6
		k.AcquireRequest()
		r.Retriable(method, Try{Status: 503, BodyKept: true})
		r.Wait(1, uint64(now), now, 0, 0)
		k.AcquireRetry()
		left, _ := ParseGRPCTimeout(timeout)
		buffer = AppendGRPCTimeout(buffer[:0], left-now)
		one.Take(now, 0)
		buffer = AppendSeconds(buffer[:0], each.Take(now, uint64(now)*0x9e3779b97f4a7c15).After)
		fault.Inject(meant, uint64(now))
		RetryAfter([]byte("120"), time.Time{})
		k.ReleaseRetry()
		k.ReleaseRequest()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRetriable(b *testing.B) {
	r := NewRetry(&l7.Retry{})
	method := []byte("DELETE")
	b.ReportAllocs()
	for b.Loop() {
		r.Retriable(method, Try{Status: 503, BodyKept: true})
	}
}
