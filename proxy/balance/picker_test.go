package balance

import (
	"fmt"
	"testing"

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
			const n = 100_000
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
