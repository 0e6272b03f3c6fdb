package balance

import (
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

const sec = int64(time.Second)

func outlierCluster(t testing.TB, n int, o l7.Outlier) (*Shared, *Picker) {
	c := cluster(l7.RoundRobin, n)
	c.Outlier = &o
	s := NewShared()
	return s, build(t, s, c, 0)
}

func send(p *Picker, i int, now int64, results ...Result) (last Event) {
	for _, r := range results {
		p.Begin(i)
		if e := p.End(i, now, Outcome{r, 1e6}); e.Reason != NoReason {
			last = e
		}
	}
	return last
}

func repeat(r Result, n int) []Result {
	all := make([]Result, n)
	for i := range all {
		all[i] = r
	}
	return all
}

func TestConsecutive5xx(t *testing.T) {
	for _, r := range []Result{ServerError, Gateway, ConnectFailed, Reset, TimedOut} {
		_, p := outlierCluster(t, 10, l7.Outlier{})
		if e := send(p, 0, 0, repeat(r, 4)...); e.Reason != NoReason {
			t.Errorf("result %d: %+v after four", r, e)
		}
		send(p, 0, 0, Success)
		if e := send(p, 0, 0, append(repeat(r, 4), Canceled, Canceled)...); e.Reason != NoReason {
			t.Errorf("result %d: %+v after four, a success, four, and two that were canceled", r, e)
		}
		e := send(p, 0, 7, r)
		want := Event{Address: p.Plan().Address(0), Reason: Consecutive5xx, Until: 7 + 30*sec, Times: 1, Value: 5, Threshold: 5}
		if e != want || p.Usable(0) {
			t.Errorf("result %d: %+v, want %+v", r, e, want)
		}
	}
}

func TestConsecutiveGateway(t *testing.T) {
	// Off unless asked for.
	_, p := outlierCluster(t, 10, l7.Outlier{Consecutive5xx: new(uint32(0))})
	if e := send(p, 0, 0, repeat(Gateway, 50)...); e.Reason != NoReason {
		t.Errorf("%+v", e)
	}
	for _, r := range []Result{Gateway, ConnectFailed, Reset, TimedOut} {
		_, p := outlierCluster(t, 10, l7.Outlier{ConsecutiveGateway: new(uint32(3))})
		if e := send(p, 0, 0, r, r, ServerError, r, Success, r, r); e.Reason != NoReason {
			t.Errorf("result %d: %+v", r, e)
		}
		if e := send(p, 0, 0, r); e.Reason != ConsecutiveGateway {
			t.Errorf("result %d: %+v after three in a row", r, e)
		}
	}
}

func TestStatusesAreResults(t *testing.T) {
	for status, want := range map[int]Result{200: Success, 404: Success, 499: Success, 500: ServerError, 501: ServerError, 502: Gateway, 503: Gateway, 504: Gateway, 505: ServerError, 599: ServerError} {
		if got := OfStatus(status); got != want {
			t.Errorf("%d is %d, want %d", status, got, want)
		}
	}
	for code, want := range map[int]Result{0: Success, 1: Success, 2: ServerError, 3: Success, 4: Gateway, 5: Success, 8: Success, 12: ServerError, 13: ServerError, 14: Gateway, 15: ServerError, 16: Success} {
		if got := OfGRPC(code); got != want {
			t.Errorf("grpc-status %d is %d, want %d", code, got, want)
		}
	}
}

// Each ejection of a run lasts one base longer, up to the most; an interval
// without one takes a base off again.
func TestEjectionGrowsAndDecays(t *testing.T) {
	s, p := outlierCluster(t, 10, l7.Outlier{Consecutive5xx: new(uint32(1)), MaxEjection: l7.Duration(100 * time.Second)})
	now := int64(0)
	for n, lasts := range []int64{30, 60, 90, 100, 100} {
		e := send(p, 0, now, ServerError)
		if e.Until != now+lasts*sec || e.Times != uint32(n+1) {
			t.Fatalf("ejection %d until %d s, times %d, want %d s", n+1, (e.Until-now)/sec, e.Times, lasts)
		}
		if events := s.Tick(e.Until-1, nil); len(events) != 0 || p.Usable(0) {
			t.Fatalf("%+v before the end", events)
		}
		events := s.Tick(e.Until, nil)
		if len(events) != 1 || !events[0].Returned || events[0].Reason != Consecutive5xx || !p.Usable(0) {
			t.Fatalf("%+v at the end", events)
		}
		now = e.Until
	}
	// Three intervals without take three of the five off: the next is the third.
	for range 3 {
		now += 10 * sec
		s.Tick(now, nil)
	}
	if e := send(p, 0, now, ServerError); e.Until != now+90*sec {
		t.Errorf("after three good intervals %d s", (e.Until-now)/sec)
	}
}

func TestSuccessRate(t *testing.T) {
	s, p := outlierCluster(t, 10, l7.Outlier{Consecutive5xx: new(uint32(0))})
	for i := range 10 {
		for k := range 100 {
			if i == 3 && k%2 == 0 || k%50 == i%50 {
				send(p, i, 0, ServerError)
			} else {
				send(p, i, 0, Success)
			}
		}
	}
	if e := s.Tick(9*sec, nil); len(e) != 0 {
		t.Errorf("%+v before the interval", e)
	}
	e := s.Tick(10*sec, nil)
	// Mean 93, standard deviation 15.
	if len(e) != 1 || e[0].Reason != SuccessRate || e[0].Address != p.Plan().Address(3) || e[0].Value != 48 || math.Abs(e[0].Threshold-64.5) > 1e-9 {
		t.Fatalf("events %+v", e)
	}
	// What was judged is not judged again.
	if e := s.Tick(20*sec, nil); len(e) != 0 {
		t.Errorf("%+v", e)
	}
}

// Envoy's own example: rates 50, 100, 100, 100, 100 have the threshold 52.
func TestSuccessRateThresholdOfEnvoysExample(t *testing.T) {
	s, p := outlierCluster(t, 5, l7.Outlier{Consecutive5xx: new(uint32(0))})
	for i := range 5 {
		n := 0
		if i == 0 {
			n = 50
		}
		send(p, i, 0, repeat(ServerError, n)...)
		send(p, i, 0, repeat(Success, 100-n)...)
	}
	e := s.Tick(10*sec, nil)
	if len(e) != 1 || e[0].Value != 50 || e[0].Threshold != 52 {
		t.Errorf("events %+v", e)
	}
	// Fewer endpoints or requests than it takes: nothing.
	for _, v := range []struct{ hosts, requests int }{{4, 100}, {5, 99}} {
		s, p := outlierCluster(t, v.hosts, l7.Outlier{Consecutive5xx: new(uint32(0))})
		for i := range v.hosts {
			send(p, i, 0, repeat([]Result{ServerError, Success}[min(i, 1)], v.requests)...)
		}
		if e := s.Tick(10*sec, nil); len(e) != 0 {
			t.Errorf("%+v: %+v", v, e)
		}
	}
}

func TestFailurePercent(t *testing.T) {
	s, p := outlierCluster(t, 5, l7.Outlier{Consecutive5xx: new(uint32(0)), FailurePercent: new(uint32(85)), SuccessRateFactor: new(uint32(0)), MaxEjectionPercent: new(uint32(40))})
	for i := range 5 {
		bad := []int{43, 42, 45, 50, 0}[i] // of 50: 86, 84, 90 and 100 percent
		send(p, i, 0, repeat(Gateway, bad)...)
		send(p, i, 0, repeat(Success, 50-bad)...)
	}
	e := s.Tick(10*sec, nil)
	// Two of three may be: the worst ones.
	if len(e) != 2 || e[0].Address != p.Plan().Address(3) || e[1].Address != p.Plan().Address(2) || e[0].Reason != FailurePercent || e[0].Value != 100 {
		t.Errorf("events %+v", e)
	}
}

func TestLatencyFactor(t *testing.T) {
	s, p := outlierCluster(t, 4, l7.Outlier{LatencyFactor: 3, MaxEjectionPercent: new(uint32(100))})
	for i := range 4 {
		for range 100 {
			p.Begin(i)
			p.End(i, 0, Outcome{Success, []int64{2e6, 1e6, 8e6, 2e6}[i]})
			// Failures that are no answers say nothing of it.
			p.Begin(i)
			p.End(i, 0, Outcome{Reset, 60e9})
			p.Begin(i)
			p.End(i, 0, Outcome{Success, []int64{2e6, 1e6, 8e6, 2e6}[i]})
		}
	}
	e := s.Tick(10*sec, nil)
	if len(e) != 1 || e[0].Reason != Latency || e[0].Address != p.Plan().Address(2) || e[0].Value != 8e6 || e[0].Threshold != 6e6 {
		t.Errorf("events %+v", e)
	}
}

// Whatever happens, no more are ejected than the percentage says, but for one;
// the count is that of those who are; and all come back.
func TestEjectionPercentProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "endpoints")
		percent := rapid.Uint32Range(0, 100).Draw(t, "percent")
		s := NewShared()
		c := cluster(l7.LeastRequest, n)
		c.Outlier = &l7.Outlier{Consecutive5xx: new(uint32(2)), MaxEjectionPercent: &percent}
		plan, err := s.Build(c, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		pickers := []*Picker{plan.Picker(0), plan.Picker(1)}
		now := int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += rapid.Int64Range(0, 3*sec).Draw(t, "elapsed")
			p := pickers[rapid.IntRange(0, 1).Draw(t, "worker")]
			i := rapid.IntRange(0, n-1).Draw(t, "endpoint")
			send(p, i, now, rapid.SampledFrom([]Result{Success, ServerError, ServerError, Gateway, Reset}).Draw(t, "result"))
			if rapid.Bool().Draw(t, "tick") {
				s.Tick(now, nil)
			}
			out := 0
			for _, st := range s.Status() {
				if st.Ejected {
					out++
				}
			}
			if out > 1 && out*100 > int(percent)*n || out != int(s.ejected.Load()) {
				t.Fatalf("%d of %d are ejected (counted %d), %d %% may be", out, n, s.ejected.Load(), percent)
			}
		}
		s.Tick(now+301*sec, nil)
		for _, st := range s.Status() {
			if st.Ejected {
				t.Fatalf("%s never comes back", st.Address)
			}
		}
	})
}

// Workers, the owner and configurations at once, for the race detector: the
// count of the ejected stays that of those who are.
func TestManyAtOnce(t *testing.T) {
	s := NewShared()
	c := cluster(l7.LeastRequest, 20)
	c.Outlier, c.Check = &l7.Outlier{Consecutive5xx: new(uint32(2)), BaseEjection: l7.Duration(time.Microsecond)}, &l7.Check{Kind: "tcp"}
	plan, err := s.Build(c, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for w := range 4 {
		p := plan.Picker(w)
		group.Go(func() {
			for k := range 5000 {
				r := Mix(uint64(k*4 + w))
				i, _ := p.Pick(int64(k), All, r, r, nil)
				p.Begin(i)
				p.End(i, int64(k), Outcome{Result(r % 3), 1000})
			}
		})
	}
	group.Go(func() {
		for k := range 500 {
			s.Tick(int64(k)*10, nil)
			s.SetHealth(c.Endpoints[k%20].Address, k%3 > 0, int64(k))
		}
	})
	group.Go(func() {
		for k := range 100 {
			short := *c
			short.Endpoints = c.Endpoints[:10+k%10]
			if _, err := s.Build(&short, nil, int64(k)); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.Build(c, nil, 0); err != nil {
			t.Error(err)
		}
	})
	group.Wait()
	out := 0
	for _, st := range s.Status() {
		if st.Ejected {
			out++
		}
	}
	if n := int(s.ejected.Load()); n != out {
		t.Errorf("%d are ejected, %d are counted", out, n)
	}
}
