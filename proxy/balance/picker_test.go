package balance

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

// cluster of n endpoints with these weights; fewer: the rest has 1.
func cluster(kind l7.BalancerKind, n int, weights ...uint32) *l7.Cluster {
	c := &l7.Cluster{Name: "shop/web", Balancer: l7.Balancer{Kind: kind}}
	for i := range n {
		e := l7.Endpoint{Address: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)}
		if i < len(weights) {
			e.Weight = &weights[i]
		}
		c.Endpoints = append(c.Endpoints, e)
	}
	return c
}

func build(t testing.TB, s *Shared, c *l7.Cluster, now int64, subsets ...map[string]string) *Picker {
	t.Helper()
	p, err := s.Build(c, subsets, now)
	if err != nil {
		t.Fatal(err)
	}
	return p.Picker(0)
}

// count picks n times with nothing under way, and says how often each endpoint
// was chosen.
func count(t testing.TB, p *Picker, now int64, n int) []int {
	t.Helper()
	got := make([]int, p.Plan().Len())
	for k := range n {
		r := Mix(uint64(k)*step + 7)
		i, ok := p.Pick(now, All, r, Mix(r), nil)
		if !ok {
			t.Fatalf("nobody was chosen")
		}
		got[i]++
	}
	return got
}

var kinds = []l7.BalancerKind{l7.RoundRobin, l7.LeastRequest, l7.PeakEWMA, l7.Random, l7.RingHash, l7.Maglev}

// Nothing under way: every kind gives shares by weight.
func TestWeights(t *testing.T) {
	for _, kind := range kinds {
		for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 2, 3, 4}, {100, 1, 50, 49}, {7, 0, 0, 3}} {
			p := build(t, NewShared(), cluster(kind, 4, weights...), 0)
			const n = 40_000
			sum := 0.0
			for _, w := range weights {
				sum += float64(w)
			}
			tolerance := 0.01
			if kind == l7.RingHash {
				tolerance = 0.06
			}
			if kind == l7.RoundRobin {
				tolerance = 4.0 / n
			}
			for i, got := range count(t, p, 0, n) {
				want := float64(weights[i]) / sum
				if d := float64(got)/n - want; d > tolerance || d < -tolerance || want == 0 && got > 0 {
					t.Errorf("%s %v: endpoint %d got %.4f, want %.4f", kind, weights, i, float64(got)/n, want)
				}
			}
		}
	}
}

// Two equal endpoints and one of weight 2: A B C C is spread, not in a block.
func TestRoundRobinIsSmooth(t *testing.T) {
	p := build(t, NewShared(), cluster(l7.RoundRobin, 3, 4, 1, 1), 0)
	last, run, longest := -1, 0, 0
	for k := range 600 {
		i, _ := p.Pick(0, All, Mix(uint64(k)), 0, nil)
		if i != last {
			last, run = i, 0
		}
		run++
		if i != 0 && run > 1 {
			t.Fatalf("endpoint %d has two turns in a row", i)
		}
		longest = max(longest, run)
	}
	if longest > 3 {
		t.Errorf("%d turns in a row", longest)
	}
}

// At any time two endpoints have had turns in the proportion of their weights,
// to within a turn of each.
func TestRoundRobinIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 50), 2, 20).Draw(rt, "weights")
		p := build(t, NewShared(), cluster(l7.RoundRobin, len(weights), weights...), 0)
		got := make([]float64, len(weights))
		for k := range 500 {
			i, _ := p.Pick(0, All, Mix(uint64(k)), 0, nil)
			got[i]++
			for j := range weights {
				wi, wj := float64(weights[i]), float64(weights[j])
				if d := math.Abs(got[i]/wi - got[j]/wj); d > 1/wi+1/wj+1e-9 {
					rt.Fatalf("after %d turns: %v of %v", k+1, got, weights)
				}
			}
		}
	})
}

// Many requests under way and none ending: loads become even by weight.
func TestLeastRequestEvensOutByWeight(t *testing.T) {
	p := build(t, NewShared(), cluster(l7.LeastRequest, 3, 1, 2, 5), 0)
	for k := range 8000 {
		i, _ := p.Pick(0, All, Mix(uint64(k)), 0, nil)
		p.Begin(i)
	}
	for i, want := range []int{1000, 2000, 5000} {
		if got := p.Pending(i); got < want*98/100 || got > want*102/100 {
			t.Errorf("endpoint %d has %d, want about %d", i, got, want)
		}
	}
}

func TestTriedAreAvoidedWhileThereIsAnother(t *testing.T) {
	for _, kind := range kinds {
		c := cluster(kind, 6, 1, 1, 1, 1, 100, 1)
		c.Endpoints[5].Priority = 1
		p := build(t, NewShared(), c, 0)
		for k := range uint64(500) {
			var tried Tried
			for n := range 6 {
				i, ok := p.Pick(0, All, Mix(k*step), k, &tried)
				if !ok || tried.Has(i) {
					t.Fatalf("%s: %d after %v", kind, i, tried)
				}
				// The second priority gets a retry only when the first has nobody left.
				if n < 5 && i == 5 {
					t.Fatalf("%s: try %d went to the second priority", kind, n)
				}
				tried.Add(i)
			}
			if i, ok := p.Pick(0, All, Mix(k), k, &tried); !ok || !tried.Has(i) {
				t.Fatalf("%s: all were tried, and %d %t came", kind, i, ok)
			}
		}
	}
}

func TestSubsets(t *testing.T) {
	for _, kind := range kinds {
		c := cluster(kind, 6)
		for i := range c.Endpoints {
			c.Endpoints[i].Labels = map[string]string{"version": fmt.Sprint(i % 2), "place": "here"}
		}
		odd, none := map[string]string{"version": "1", "place": "here"}, map[string]string{"version": "7"}
		p := build(t, NewShared(), c, 0, odd, none, odd)
		n, ok := p.Plan().Subset(odd)
		if !ok || n == All {
			t.Fatalf("%s: subset %d %t", kind, n, ok)
		}
		for k := range uint64(200) {
			if i, ok := p.Pick(0, n, Mix(k), k, nil); !ok || i%2 != 1 {
				t.Fatalf("%s: %d %t was chosen", kind, i, ok)
			}
		}
		if n, ok = p.Plan().Subset(none); !ok {
			t.Fatal("the subset of nobody has no number")
		}
		if i, ok := p.Pick(0, n, 1, 1, nil); ok {
			t.Errorf("%s: of nobody %d was chosen", kind, i)
		}
		if _, ok := p.Plan().Subset(map[string]string{"version": "9"}); ok {
			t.Error("a selector that Build was not given has a number")
		}
		if n, ok := p.Plan().Subset(nil); !ok || n != All {
			t.Errorf("no selector is subset %d %t", n, ok)
		}
	}
}

func TestNobody(t *testing.T) {
	for _, kind := range kinds {
		for _, c := range []*l7.Cluster{cluster(kind, 0), cluster(kind, 2, 0, 0)} {
			p := build(t, NewShared(), c, 0)
			if i, ok := p.Pick(0, All, 1, 1, nil); ok {
				t.Errorf("%s: %d was chosen", kind, i)
			}
		}
	}
}

// A new configuration: who stays keeps what is known, by address; requests end
// with the Picker they began with.
func TestUpdateKeepsWhatStays(t *testing.T) {
	s := NewShared()
	c := cluster(l7.PeakEWMA, 3)
	c.Outlier = &l7.Outlier{Consecutive5xx: new(uint32(2))}
	old := build(t, s, c, 0)
	old.Begin(1)
	old.Begin(1)
	old.Begin(2)
	old.End(1, 50, Outcome{Success, 1000})
	old.Begin(0)
	old.End(0, 60, Outcome{ServerError, 10})
	old.Begin(0)
	if e := old.End(0, 70, Outcome{ServerError, 10}); e.Reason != Consecutive5xx {
		t.Fatalf("event %+v", e)
	}

	c.Endpoints = []l7.Endpoint{{Address: "10.9.9.9:1"}, c.Endpoints[1], c.Endpoints[0]}
	p := build(t, s, c, 100)
	if p.Pending(0) != 0 || p.Pending(1) != 1 || p.locals[1].cost != 1000 {
		t.Errorf("pending %d %d, cost %g", p.Pending(0), p.Pending(1), p.locals[1].cost)
	}
	if p.Usable(2) || !p.Usable(0) {
		t.Error("the ejection was lost, or a new endpoint has it")
	}
	old.End(1, 200, Outcome{Success, 5000})
	old.End(2, 200, Outcome{Success, 5000}) // of an endpoint that is gone
	if p.Pending(1) != 0 || p.locals[1].cost != 5000 {
		t.Errorf("pending %d, cost %g", p.Pending(1), p.locals[1].cost)
	}

	// One that was ejected and is gone leaves its place to others.
	c.Endpoints = c.Endpoints[:2]
	build(t, s, c, 300)
	if n := s.ejected.Load(); n != 0 {
		t.Errorf("%d are ejected", n)
	}
	// The new configuration ejects nobody, so the old one must not either.
	c.Outlier = nil
	build(t, s, c, 350)
	for range 2 {
		old.Begin(1)
		old.End(1, 360, Outcome{ServerError, 10})
	}
	if n := s.ejected.Load(); n != 0 || !old.Usable(1) {
		t.Errorf("%d are ejected", n)
	}
	c.Outlier = &l7.Outlier{}
	build(t, s, c, 370)
	// The old Plan ejects somebody who is gone: that takes nobody's place.
	for range 2 {
		old.Begin(2)
		old.End(2, 400, Outcome{ServerError, 10})
	}
	if n := s.ejected.Load(); n != 0 {
		t.Errorf("%d are ejected", n)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, kind := range kinds {
		c := cluster(kind, 20, 1, 2, 3)
		c.Outlier, c.Balancer.SlowStart = &l7.Outlier{LatencyFactor: 3}, l7.Duration(1e9)
		c.Check = &l7.Check{Kind: "tcp"}
		s := NewShared()
		p := build(t, s, c, 0)
		now := int64(0)
		if n := testing.AllocsPerRun(2000, func() {
			now += 1e6
			var tried Tried
			for range 3 {
				i, _ := p.Pick(now, All, Mix(uint64(now)), Mix(uint64(now)), &tried)
				p.Begin(i)
				p.End(i, now, Outcome{ServerError, 1000})
				tried.Add(i)
			}
			s.version.Add(1)
		}); n != 0 {
			t.Errorf("%s: %v allocations", kind, n)
		}
	}
}
