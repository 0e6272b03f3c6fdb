package node

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot"
)

const (
	// backAfter is how long a backend must have been well again before the kernel
	// chooses it: what comes and goes does not move sessions to and fro.
	backAfter = 3 * time.Second
	// panicPercent of the backends of a Service must be left. When there would be
	// fewer, what the proxies saw says more about the Service than about its
	// backends, and all are chosen again. The default of the proxies, too.
	panicPercent = 50
)

// ejections keep backends that proxies have put aside from new sessions of the
// kernel: of every port and protocol of the Service. Each node leaves out what its
// own proxies saw.
type ejections struct {
	ejected func() []door.Ejection
	now     func() time.Time

	mu   sync.Mutex
	seen map[aside]time.Time // when it was put aside last
	last filtered
}

// aside is a backend of a Service, whoever's address it is.
type aside struct {
	vni              snapshot.VNI
	project, service string
	backend          string
}

// behind is who is at the address of a backend: a cluster has one address of each,
// a Service those of both families.
func behind(s *snapshot.Snapshot, a snapshot.Addr) string {
	if e, ok := s.Endpoints[a]; ok && e.Workload != "" {
		return e.Project + "/" + e.Workload
	}
	return a.IP.String()
}

// filtered remembers the last result: an equal State must be the same State.
type filtered struct {
	from, to *snapshot.Snapshot
	out      []aside
}

func newEjections(ejected func() []door.Ejection) *ejections {
	return &ejections{ejected: ejected, now: time.Now, seen: map[aside]time.Time{}}
}

// current lists what is put aside, or was until a moment ago, sorted; changed
// says that it is another list than the one that was used last.
func (e *ejections) current(s *snapshot.Snapshot) (out []aside, changed bool) {
	now := e.now()
	if all := e.ejected(); len(all) > 0 {
		e.note(s, all, now)
	}
	for a, at := range e.seen {
		if now.Sub(at) >= backAfter {
			delete(e.seen, a)
		}
	}
	out = slices.SortedFunc(maps.Keys(e.seen), func(a, b aside) int {
		return cmp.Or(cmp.Compare(a.vni, b.vni), cmp.Compare(a.project, b.project), cmp.Compare(a.service, b.service), cmp.Compare(a.backend, b.backend))
	})
	return out, !slices.Equal(out, e.last.out)
}

// note finds the Services whose clusters have an endpoint that is put aside.
func (e *ejections) note(s *snapshot.Snapshot, all []door.Ejection, now time.Time) {
	byCluster := map[string][]netip.Addr{}
	for _, x := range all {
		if at, err := netip.ParseAddrPort(x.Address); err == nil {
			byCluster[x.Cluster] = append(byCluster[x.Cluster], at.Addr())
		}
	}
	for _, v := range s.Services {
		for _, a := range byCluster[snapshot.ClusterName(&v)] {
			e.seen[aside{v.Addr.VNI, v.Project, v.Name, behind(s, snapshot.Addr{VNI: v.Addr.VNI, IP: a})}] = now
		}
	}
}

// without is the Snapshot with what is put aside among the Leaving; the same one
// when that is nobody.
func (e *ejections) without(s *snapshot.Snapshot) *snapshot.Snapshot {
	e.mu.Lock()
	defer e.mu.Unlock()
	out, changed := e.current(s)
	if e.last.from == s && !changed {
		return e.last.to
	}
	e.last = filtered{from: s, to: s, out: out}
	if len(out) == 0 {
		return s
	}
	gone := make(map[aside]bool, len(out))
	for _, a := range out {
		gone[a] = true
	}
	services := maps.Clone(s.Services)
	for k, v := range services {
		var stay, leave []snapshot.Backend
		for _, b := range v.Backends {
			if gone[aside{k.Addr.VNI, v.Project, v.Name, behind(s, snapshot.Addr{VNI: k.Addr.VNI, IP: b.Addr.IP})}] {
				leave = append(leave, b)
			} else {
				stay = append(stay, b)
			}
		}
		if len(leave) > 0 && 100*len(stay) >= panicPercent*len(v.Backends) {
			v.Backends, v.Leaving = stay, append(slices.Clone(v.Leaving), leave...)
			services[k] = v
		}
	}
	next := *s
	next.Services = services
	e.last.to = &next
	return e.last.to
}

// due says that the kernel should have another choice than it has.
func (e *ejections) due() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last.from == nil {
		return false
	}
	_, changed := e.current(e.last.from)
	return changed
}
