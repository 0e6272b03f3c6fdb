package balance

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// Plan is one configuration of a cluster, worked out: immutable, read by all
// workers.
type Plan struct {
	shared    *Shared
	addresses []string
	hosts     []*host
	weights   []float64
	zones     []string

	method    method
	choices   int
	tau       float64 // of Peak EWMA, nanoseconds
	slow      int64   // window of slow start, nanoseconds
	panicAt   int     // percent
	over      int     // percent
	outlier   *outlier
	unchecked bool // the cluster has no active check

	selectors map[string]int
	subsets   []subset
}

// subset is the endpoints that one selector chose.
type subset struct{ levels []level }

// level is endpoints of one priority, and of one side: those of our zone come
// before the others of the same priority.
type level struct {
	members []int32 // indexes, ascending
	ring    *ring
	maglev  *maglev
}

// All is the number of the subset that has every endpoint.
const All = 0

// method is l7.BalancerKind, as a number.
type method uint8

const (
	leastRequest method = iota
	roundRobin
	peakEWMA
	random
	ringHash
	maglevHash
)

func (m method) hashes() bool { return m >= ringHash }

var methods = map[l7.BalancerKind]method{
	"": leastRequest, l7.LeastRequest: leastRequest, l7.RoundRobin: roundRobin, l7.PeakEWMA: peakEWMA,
	l7.Random: random, l7.RingHash: ringHash, l7.Maglev: maglevHash,
}

var errChoices = errors.New("balancer.choices must be at least 1")

func newPlan(c *l7.Cluster, subsets []map[string]string) (*Plan, error) {
	n := len(c.Endpoints)
	p := &Plan{
		addresses: make([]string, n), hosts: make([]*host, n), weights: make([]float64, n), zones: make([]string, n),
		choices: cmp.Or(c.Balancer.Choices, 2),
		tau:     float64(c.Balancer.Decay.Or(10 * time.Second)), slow: max(0, int64(c.Balancer.SlowStart)),
		panicAt: 50, over: 140, unchecked: c.Check == nil, selectors: map[string]int{},
	}
	var known bool
	if p.method, known = methods[c.Balancer.Kind]; !known {
		return nil, fmt.Errorf("balancer.kind %q is none of RoundRobin, LeastRequest, PeakEWMA, Random, RingHash, Maglev", c.Balancer.Kind)
	}
	if p.choices < 1 {
		return nil, errChoices
	}
	if p.tau <= 0 {
		p.tau = float64(10 * time.Second)
	}
	if c.Balancer.Panic != nil {
		p.panicAt = int(min(100, *c.Balancer.Panic))
	}
	zone := ""
	if c.Locality != nil {
		zone = c.Locality.Zone
		p.over = int(min(10000, cmp.Or(c.Locality.Overprovision, 140)))
	}
	if c.Outlier != nil {
		p.outlier = newOutlier(c.Outlier)
	}
	for i, e := range c.Endpoints {
		p.addresses[i], p.zones[i], p.weights[i] = e.Address, e.Zone, 1
		if e.Weight != nil {
			p.weights[i] = float64(*e.Weight)
		}
	}
	p.add(c, nil, zone)
	for _, selector := range subsets {
		p.add(c, selector, zone)
	}
	return p, nil
}

// add works out a subset, unless it is there already.
func (p *Plan) add(c *l7.Cluster, selector map[string]string, zone string) {
	key := selectorKey(selector)
	if _, ok := p.selectors[key]; ok {
		return
	}
	p.selectors[key] = len(p.subsets)
	type rank struct {
		priority int
		away     bool
	}
	byRank := map[rank][]int32{}
	for i, e := range c.Endpoints {
		if p.weights[i] > 0 && selects(selector, e.Labels) {
			r := rank{e.Priority, zone != "" && e.Zone != zone}
			byRank[r] = append(byRank[r], int32(i))
		}
	}
	ranks := slices.SortedFunc(maps.Keys(byRank), func(a, b rank) int {
		if d := cmp.Compare(a.priority, b.priority); d != 0 || a.away == b.away {
			return d
		}
		if a.away {
			return 1
		}
		return -1
	})
	var s subset
	for _, r := range ranks {
		l := level{members: byRank[r]}
		switch p.method {
		case ringHash:
			l.ring = newRing(p, l.members, cmp.Or(c.Balancer.RingSize, 1024))
		case maglevHash:
			l.maglev = newMaglev(p, l.members)
		}
		s.levels = append(s.levels, l)
	}
	p.subsets = append(p.subsets, s)
}

// selects says whether labels have all that the selector asks for.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func selectorKey(selector map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		fmt.Fprintf(&b, "%q=%q,", k, selector[k])
	}
	return b.String()
}

// Subset is the number of a selector that Build was given; false: it was not.
// An empty selector is All.
func (p *Plan) Subset(selector map[string]string) (int, bool) {
	n, ok := p.selectors[selectorKey(selector)]
	return n, ok
}

// Len is the number of endpoints.
func (p *Plan) Len() int { return len(p.addresses) }

// Address of the endpoint with index i, its place in the configuration.
func (p *Plan) Address(i int) string { return p.addresses[i] }

// Zone of the endpoint with index i.
func (p *Plan) Zone(i int) string { return p.zones[i] }

// never is a time that does not come.
const never = math.MaxInt64
