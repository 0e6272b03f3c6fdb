package balance

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/l7"
)

// finagle is the published algorithm, written down as it is described:
// observing a round trip jumps to peaks and else mixes by exp(-elapsed/tau);
// asking for the load observes 0 first.
type finagle struct {
	stamp   int64
	pending int
	cost    float64
}

func (f *finagle) observe(now int64, rtt, tau float64) {
	w := math.Exp(-math.Max(float64(now-f.stamp), 0) / tau)
	if rtt > f.cost {
		f.cost = rtt
	} else {
		f.cost = f.cost*w + rtt*(1-w)
	}
	f.stamp = now
}

func (f *finagle) load(now int64, tau float64) float64 {
	f.observe(now, 0, tau)
	if f.cost == 0 && f.pending != 0 {
		return float64(math.MaxInt64>>16) + float64(f.pending)
	}
	return f.cost * float64(f.pending+1)
}

func TestPeakEWMAIsFinagles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const tau = 10e9
		var f finagle
		var l local
		now := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Int64Range(0, 1<<rapid.IntRange(1, 36).Draw(t, "scale")).Draw(t, "elapsed")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				f.pending++
				l.pending++
			case 1:
				if f.pending > 0 {
					rtt := rapid.Float64Range(1, 5e9).Draw(t, "rtt")
					f.pending--
					l.pending--
					f.observe(now, math.Trunc(rtt), tau)
					l.learn(now, Outcome{Success, int64(rtt)}, tau)
				}
			}
			a, b := f.load(now, tau), l.load(now, tau)
			if math.Abs(a-b) > 1e-6*math.Max(a, 1) {
				t.Fatalf("load %g, Finagle's is %g", b, a)
			}
		}
	})
}

// An endpoint that refuses at once must not look fast, with history or without.
func TestPeakEWMALeavesWhoFails(t *testing.T) {
	for _, result := range []Result{ConnectFailed, Reset, Gateway, ServerError} {
		for _, history := range []bool{true, false} {
			p := build(t, NewShared(), cluster(l7.PeakEWMA, 3), 0)
			now, got := int64(0), 0
			send := func(k int) {
				now += 1e6
				i, _ := p.Pick(now, All, Mix(uint64(k)*step), 0, nil)
				p.Begin(i)
				o := Outcome{Success, 2e6 + int64(Mix(uint64(k))%1e6)}
				if i == 0 && (k >= 300 || !history) {
					o = Outcome{result, 50_000}
					got++
				}
				now += o.Latency
				p.End(i, now, o)
			}
			for k := range 3300 {
				send(k)
			}
			// Errors of an application that has answered well neither attract nor repel.
			most := 100
			if result == ServerError && history {
				most = 1300
			}
			if got > most {
				t.Errorf("result %d, history %t: %d of 3,000 went to the failing one", result, history, got)
			}
		}
	}
}

// What the caller gave up on says only that it took that long at least.
func TestPeakEWMAOfCanceled(t *testing.T) {
	l := local{cost: 1e6}
	l.learn(0, Outcome{Canceled, 5e6}, 1e10)
	if l.cost != 5e6 {
		t.Errorf("cost %g", l.cost)
	}
	l.learn(0, Outcome{Canceled, 10}, 1e10)
	if l.cost != 5e6 {
		t.Errorf("cost %g after a short one", l.cost)
	}
}
