package balance

import (
	"container/heap"
	"math"
	"slices"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// server answers up to width requests at a time, the others wait their turn.
type server struct {
	mean        float64 // nanoseconds of work
	width, busy int
	queue       []*request
}

type request struct {
	picker         *Picker
	server         int
	arrived, ready int64
}

type event struct {
	at   int64
	done *request // nil: a request arrives
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// simulation is a day of three servers in virtual time: requests arrive by
// chance, work takes a time by chance, and nothing depends on the machine.
type simulation struct {
	now     int64
	queue   events
	servers []server
	rnd     uint64
	shared  *Shared
	ejected []Event
	took    []int64 // by the requests after warm-up
	slow    int     // of them, at the server 0
}

func (s *simulation) random() float64 {
	s.rnd += step
	return (float64(Mix(s.rnd)>>11) + 0.5) / (1 << 53)
}

func (s *simulation) exponential(mean float64) int64 { return int64(-mean * math.Log(s.random())) }

func (s *simulation) start(r *request) {
	sv := &s.servers[r.server]
	if sv.busy == sv.width {
		sv.queue = append(sv.queue, r)
		return
	}
	sv.busy++
	// Half of the work is always the same.
	heap.Push(&s.queue, event{s.now + int64(sv.mean/2) + s.exponential(sv.mean/2), r})
}

// run requests at a rate through pickers of two workers; what arrives in the
// first second counts for nothing.
func (s *simulation) run(pickers []*Picker, n int, rate float64) {
	warm := int(rate)
	heap.Push(&s.queue, event{at: 1})
	for arrived := 0; len(s.queue) > 0; {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		if e.done == nil {
			s.rnd += step
			r := &request{picker: pickers[arrived%len(pickers)], arrived: s.now}
			r.server, _ = r.picker.Pick(s.now, All, Mix(s.rnd), Mix(s.rnd+1), nil)
			r.picker.Begin(r.server)
			if arrived++; arrived > warm && r.server == 0 {
				s.slow++
			}
			if arrived > warm {
				r.ready = 1
			}
			s.start(r)
			if arrived < n+warm {
				heap.Push(&s.queue, event{at: s.now + s.exponential(1e9/rate)})
			}
			s.ejected = s.shared.Tick(s.now, s.ejected)
			continue
		}
		r := e.done
		if r.ready != 0 {
			s.took = append(s.took, s.now-r.arrived)
		}
		r.picker.End(r.server, s.now, Outcome{Success, s.now - r.arrived})
		sv := &s.servers[r.server]
		sv.busy--
		if len(sv.queue) > 0 {
			next := sv.queue[0]
			sv.queue = sv.queue[1:]
			s.start(next)
		}
	}
	slices.Sort(s.took)
}

func (s *simulation) quantile(q float64) time.Duration {
	return time.Duration(s.took[int(q*float64(len(s.took)-1))])
}

func simulate(t testing.TB, c *l7.Cluster, slow float64) *simulation {
	t.Helper()
	const usual = 2e6
	s := &simulation{shared: NewShared(), servers: []server{{mean: usual * slow, width: 16}, {mean: usual, width: 16}, {mean: usual, width: 16}}}
	plan, err := s.shared.Build(c, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	// 1,500 requests a second: each server could do 8,000, one ten times slower
	// 800, so that round robin does not overload it.
	s.run([]*Picker{plan.Picker(0), plan.Picker(1)}, 30_000, 1500)
	return s
}

// The claim "faster by adding steps": with one slow server of three, whoever
// looks at latency serves the caller faster than whoever does not.
func TestPeakEWMABeatsTheOthersWithOneSlowServer(t *testing.T) {
	p99 := map[l7.BalancerKind]time.Duration{}
	for _, kind := range kinds[:4] {
		s := simulate(t, cluster(kind, 3), 10)
		p99[kind] = s.quantile(0.99)
		t.Logf("%-12s p50 %-10v p99 %-12v p99.9 %-12v at the slow server %5.2f %%", kind, s.quantile(0.5).Round(10*time.Microsecond),
			s.quantile(0.99).Round(10*time.Microsecond), s.quantile(0.999).Round(10*time.Microsecond), 100*float64(s.slow)/float64(len(s.took)))
	}
	if 3*p99[l7.PeakEWMA] > p99[l7.RoundRobin] || p99[l7.PeakEWMA] >= p99[l7.LeastRequest] {
		t.Errorf("p99 of PeakEWMA %v, LeastRequest %v, RoundRobin %v", p99[l7.PeakEWMA], p99[l7.LeastRequest], p99[l7.RoundRobin])
	}
}

// With servers that are all alike, looking at latency costs nothing.
func TestPeakEWMAIsNoWorseAmongEquals(t *testing.T) {
	ewma, least := simulate(t, cluster(l7.PeakEWMA, 3), 1), simulate(t, cluster(l7.LeastRequest, 3), 1)
	t.Logf("p99 of PeakEWMA %v, of LeastRequest %v", ewma.quantile(0.99), least.quantile(0.99))
	if a, b := ewma.quantile(0.99), least.quantile(0.99); a > b*13/10 {
		t.Errorf("p99 of PeakEWMA %v, of LeastRequest %v", a, b)
	}
}

// A latency factor ejects the slow server for any balancer.
func TestLatencyEjectionInTheSimulation(t *testing.T) {
	c := cluster(l7.RoundRobin, 3)
	c.Outlier = &l7.Outlier{LatencyFactor: 3, Interval: l7.Duration(time.Second)}
	s := simulate(t, c, 3)
	if len(s.ejected) == 0 || s.ejected[0].Reason != Latency || s.ejected[0].Address != c.Endpoints[0].Address {
		t.Errorf("events %v", s.ejected)
	}
}
