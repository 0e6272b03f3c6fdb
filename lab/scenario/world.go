package scenario

import (
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
)

// World is what a scenario says of the world, for those who compile.
type World struct {
	down     map[string]bool // Workloads that fail their checks
	away     map[string]bool // nodes
	resolved map[string][]netip.Addr
}

// NewWorld returns a World in which all is well.
func NewWorld() World {
	return World{down: map[string]bool{}, away: map[string]bool{}, resolved: map[string][]netip.Addr{}}
}

// Set puts the world into the facts.
func (w *World) Set(in *compile.Input) {
	in.Away, in.Resolved = maps.Clone(w.away), maps.Clone(w.resolved)
	if len(w.down) == 0 {
		return
	}
	// What is checked follows from the intent.
	snaps, _ := compile.Compile(in)
	for name, s := range snaps {
		r := in.Reports[name]
		if r == nil {
			continue
		}
		var health []snapshot.Health
		for k := range s.Checks {
			e := s.Endpoints[k.Addr]
			health = append(health, snapshot.Health{CheckKey: k, Healthy: !w.down[e.Project+"/"+e.Workload]})
		}
		slices.SortFunc(health, func(a, b snapshot.Health) int { return a.CheckKey.Compare(b.CheckKey) })
		told := *r
		told.Health = health
		in.Reports[name] = &told
	}
}

// Ill makes a Workload fail its checks, or pass them again.
func (w *World) Ill(workload string, ill bool) { set(w.down, workload, ill) }

// Gone makes a node be away, or back.
func (w *World) Gone(node string, gone bool) { set(w.away, node, gone) }

// Resolves gives a DNS name outside its addresses.
func (w *World) Resolves(name string, addrs []netip.Addr) { w.resolved[name] = addrs }

func set(m map[string]bool, k string, is bool) {
	if is {
		m[k] = true
	} else {
		delete(m, k)
	}
}
