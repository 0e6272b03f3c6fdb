package balance

import (
	"math"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// A new endpoint among four old ones: its share follows age/window, from 10 %.
func TestSlowStartCurve(t *testing.T) {
	const window = 100 * time.Second
	for _, kind := range kinds[:4] {
		c := cluster(kind, 4)
		c.Balancer.SlowStart = l7.Duration(window)
		s := NewShared()
		build(t, s, c, 0)
		c.Endpoints = append(c.Endpoints, l7.Endpoint{Address: "10.9.9.9:1"})
		joined := int64(10 * window)
		p := build(t, s, c, joined)
		for _, age := range []time.Duration{0, 5 * time.Second, 10 * time.Second, 25 * time.Second, 50 * time.Second, 75 * time.Second, window, 2 * window} {
			factor := math.Min(1, math.Max(0.1, float64(age)/float64(window)))
			want := factor / (4 + factor)
			const n = 20_000
			got := float64(count(t, p, joined+int64(age), n)[4]) / n
			if math.Abs(got-want) > 0.01 {
				t.Errorf("%s at %v: share %.4f, want %.4f", kind, age, got, want)
			}
		}
	}
}

// Who becomes well again, and who comes back from an ejection, starts slowly too.
func TestSlowStartAfterReturn(t *testing.T) {
	c := cluster(l7.LeastRequest, 10)
	c.Balancer.SlowStart, c.Check, c.Outlier = l7.Duration(100*time.Second), &l7.Check{Kind: "tcp"}, &l7.Outlier{Consecutive5xx: new(uint32(1))}
	s := NewShared()
	p := build(t, s, c, 0)
	well(s, p.Plan(), 0, func(int) bool { return true })
	now := int64(1000 * time.Second)
	s.SetHealth(c.Endpoints[3].Address, false, now)
	s.SetHealth(c.Endpoints[3].Address, true, now)
	p.Begin(4)
	p.End(4, now, Outcome{ServerError, 1})
	if got := count(t, p, now, 1000)[4]; got != 0 {
		t.Errorf("the ejected one got %d", got)
	}
	now += int64(30 * time.Second)
	if e := s.Tick(now, nil); len(e) != 1 || !e[0].Returned {
		t.Fatalf("events %v", e)
	}
	got := count(t, p, now, 84_000)
	if got[3] < 2500 || got[3] > 3500 || got[4] < 750 || got[4] > 1250 || got[5] < 9500 {
		t.Errorf("at 30 %% and 10 %% of their weight they got %d and %d, the others about %d", got[3], got[4], got[5])
	}
}
