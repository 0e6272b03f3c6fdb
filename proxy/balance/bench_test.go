package balance

import (
	"fmt"
	"testing"

	"moire.dev/moire/snapshot/l7"
)

// BenchmarkPick is one whole choice, Pick, Begin and End, with outlier
// judgement on: what a request pays. It must not grow with the endpoints.
func BenchmarkPick(b *testing.B) {
	for _, kind := range kinds {
		for _, n := range []int{3, 100, 10_000} {
			for _, weighted := range []bool{false, true} {
				if weighted && n != 100 {
					continue
				}
				b.Run(fmt.Sprintf("%s/%d/weighted=%t", kind, n, weighted), func(b *testing.B) {
					c := cluster(kind, n)
					c.Outlier = &l7.Outlier{}
					if weighted {
						c.Endpoints[0].Weight = new(uint32(5))
					}
					run(b, build(b, NewShared(), c, 0))
				})
			}
		}
	}
}

// run keeps 64 requests under way.
func run(b *testing.B, p *Picker) {
	var ring [64]int
	for k := range ring {
		ring[k], _ = p.Pick(0, All, Mix(uint64(k)), uint64(k), nil)
		p.Begin(ring[k])
	}
	b.ReportAllocs()
	rnd, now := uint64(1), int64(0)
	for k := 0; b.Loop(); k++ {
		now += 1000
		rnd += step
		r := Mix(rnd)
		p.End(ring[k%64], now, Outcome{Success, 500_000 + int64(r%100_000)})
		i, _ := p.Pick(now, All, r, r, nil)
		p.Begin(i)
		ring[k%64] = i
	}
}

// BenchmarkPickAlone is the choice without Begin and End, among three.
func BenchmarkPickAlone(b *testing.B) {
	for _, kind := range kinds {
		b.Run(string(kind), func(b *testing.B) {
			p := build(b, NewShared(), cluster(kind, 3), 0)
			for i := range 3 {
				p.Begin(i)
				p.Begin(i)
				p.End(i, 0, Outcome{Success, 1e6 + int64(i)})
			}
			b.ReportAllocs()
			rnd, now := uint64(1), int64(0)
			for b.Loop() {
				now += 1000
				rnd += step
				p.Pick(now, All, Mix(rnd), rnd, nil)
			}
		})
	}
}

// BenchmarkRefresh is what a worker pays when somebody's health changed, for
// each view that it uses.
func BenchmarkRefresh(b *testing.B) {
	for _, kind := range []l7.BalancerKind{l7.RoundRobin, l7.LeastRequest} {
		for _, n := range []int{3, 1000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				c := cluster(kind, n)
				c.Endpoints[0].Weight = new(uint32(5))
				p := build(b, NewShared(), c, 0)
				b.ReportAllocs()
				for b.Loop() {
					p.refresh(&p.views[All], 0, 1)
				}
			})
		}
	}
}

// BenchmarkBuild is off the hot path: what one configuration costs.
func BenchmarkBuild(b *testing.B) {
	for _, kind := range []l7.BalancerKind{l7.LeastRequest, l7.RingHash, l7.Maglev} {
		b.Run(fmt.Sprintf("%s/1000", kind), func(b *testing.B) {
			c := cluster(kind, 1000)
			for b.Loop() {
				build(b, NewShared(), c, 0)
			}
		})
	}
}
