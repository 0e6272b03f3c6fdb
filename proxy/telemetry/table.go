package telemetry

import (
	"maps"
	"math"
	"sync/atomic"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Table is one configuration as telemetry sees it: which names its ids stand
// for, and what is switched on. It is immutable, and free to be forgotten when
// nothing uses it. What was counted stays with the names: a Table made later
// counts on, whatever ids it gives them.
type Table struct {
	routes    []*entry[routeSeries] // at id+1; the first is for None
	clusters  []*entry[clusterSeries]
	listeners []*entry[listenerSeries]
	first     []int32 // id of the first rule of each Route
	// Of a mesh: the first ids of what is for its Workloads, and all that can decide.
	sockets, endings, ways int32
	rules                  map[policy.RuleID]*entry[ruleSeries]

	records   bool
	metrics   bool
	propagate propagation
	threshold uint64 // a new trace is kept when its randomness is not below
	traced    bool
}

// Rule is the id of rule number rule of route number route of the Config that t
// was made from; rules are numbered through in the order of the Config. None
// when there is no such rule.
func (t *Table) Rule(route, rule int) int32 {
	if uint(route) >= uint(len(t.first)-1) || rule < 0 || rule >= int(t.first[route+1]-t.first[route]) {
		return None
	}
	return t.first[route] + int32(rule)
}

// name of what is counted; rule only of a route.
type name struct{ name, rule string }

// entry is one name and what each worker counted for it.
type entry[T any] struct {
	name
	number  uint32 // in events
	workers []atomic.Pointer[T]
	gone    int64 // since when no Table has it; 0: it is there. Guarded by Telemetry.mu
}

// of is what worker i counts into.
func (e *entry[T]) of(i int) *T {
	if s := e.workers[i].Load(); s != nil {
		return s
	}
	return e.first(i)
}

// first makes room when a worker counts for a name for the first time.
//
//go:noinline
func (e *entry[T]) first(i int) *T {
	s := new(T)
	e.workers[i].Store(s)
	return s
}

// at is the entry for an id.
func at[T any](all []*entry[T], id int32) *entry[T] {
	if i := uint(int(id) + 1); i < uint(len(all)) {
		return all[i]
	}
	return all[0]
}

// directory is all entries of one sort, by name. Guarded by Telemetry.mu, but
// for numbered.
type directory[T any] struct {
	byName map[name]*entry[T]
	// numbered is for who reads events.
	numbered atomic.Pointer[map[uint32]*entry[T]]
}

// retention is how long, nanoseconds, a name is shown and remembered after the
// last configuration that had it.
const retention = int64(10 * 60 * 1e9)

// noName is shown for what no route, cluster or listener is known of.
const noName = "none"

// open finds or makes the entries for names; those that have none of these
// names are gone from now on, and forgotten in the end.
func (d *directory[T]) open(names []name, workers int, next *uint32, now int64) []*entry[T] {
	if d.byName == nil {
		d.byName = map[name]*entry[T]{}
	}
	for _, e := range d.byName {
		if e.gone == 0 {
			e.gone = max(now, 1)
		}
	}
	out := make([]*entry[T], 0, len(names)+1)
	for _, n := range append([]name{{name: noName}}, names...) {
		e := d.byName[n]
		if e == nil {
			*next++
			e = &entry[T]{name: n, number: *next, workers: make([]atomic.Pointer[T], workers)}
			d.byName[n] = e
		}
		e.gone = 0
		out = append(out, e)
	}
	maps.DeleteFunc(d.byName, func(_ name, e *entry[T]) bool { return e.gone != 0 && now-e.gone > retention })
	numbered := make(map[uint32]*entry[T], len(d.byName))
	for _, e := range d.byName {
		numbered[e.number] = e
	}
	d.numbered.Store(&numbered)
	return out
}

// nameOf is the name that has a number in events; noName is left empty.
func (d *directory[T]) nameOf(number uint32) name {
	if e := (*d.numbered.Load())[number]; e != nil && e.name.name != noName {
		return e.name
	}
	return name{}
}

// threshold of the 56 bits of randomness in a trace id (W3C Trace Context
// level 2) for a share that is kept: a trace is kept when they are not below.
func threshold(share float64) uint64 {
	if !(share > 0) {
		return math.MaxUint64
	}
	if share >= 1 {
		return 0
	}
	return uint64((1 - share) * (1 << 56))
}

func ruleNames(cfg *l7.Config) (names []name, first []int32) {
	for i := range cfg.Routes {
		first = append(first, int32(len(names)))
		for j := range cfg.Routes[i].Rules {
			rule := cfg.Routes[i].Rules[j].Name
			if rule == "" {
				rule = digits(j)
			}
			names = append(names, name{cfg.Routes[i].Name, rule})
		}
	}
	return names, append(first, int32(len(names)))
}
