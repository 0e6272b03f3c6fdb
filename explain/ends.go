package explain

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
)

// endpoints lists what any node knows that matches, each address once, in
// order of network and address. The row of the node that hosts it counts.
func (w *walk) endpoints(match func(snapshot.Endpoint) bool) []snapshot.Endpoint {
	found := map[snapshot.Addr]snapshot.Endpoint{}
	for _, name := range slices.Sorted(maps.Keys(w.snaps)) {
		for k, e := range w.snaps[name].Endpoints {
			if old, known := found[k]; w.sees(e.Project) && match(e) && (!known || old.Node != e.Node && e.Node == name) {
				found[k] = e
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
}

// sees reports whether who asks may know of the project.
func (w *walk) sees(project string) bool { return w.q.Sees == nil || w.q.Sees(project) }

// network finds the row of a Network in any snapshot.
func (w *walk) network(v snapshot.VNI) (snapshot.Network, bool) {
	for _, name := range slices.Sorted(maps.Keys(w.snaps)) {
		if n, ok := w.snaps[name].Networks[v]; ok {
			return n, true
		}
	}
	return snapshot.Network{}, false
}

// of lists the interfaces that an end may mean.
func (w *walk) of(e end) []snapshot.Endpoint {
	return w.endpoints(func(x snapshot.Endpoint) bool {
		if e.addr.IsValid() {
			return x.Addr.IP == e.addr
		}
		return x.Project == e.project && x.Workload == e.workload
	})
}

// findEnds chooses the interfaces of the packet. False: the Answer is ready.
func (w *walk) findEnds(from, to end) bool {
	w.dstWho = to
	sources := w.of(from)
	if len(sources) == 0 {
		w.fail("%s", w.missing(from))
		return false
	}
	if to.workload != "" && len(w.of(to)) == 0 {
		w.fail("%s", w.missing(to))
		return false
	}
	project := cmp.Or(from.project, to.project, w.q.Project)
	if p, n := w.q.network(project); n != "" {
		sources = slices.DeleteFunc(sources, func(e snapshot.Endpoint) bool {
			row, _ := w.network(e.Addr.VNI)
			return row.Name != n || p != "" && row.Project != p
		})
		if len(sources) == 0 {
			w.fail("%s has no interface in Network %s", from, w.q.Network)
			return false
		}
	}
	sources = w.sameNetwork(sources, to)
	sources = w.sameFamily(sources, to)
	if from.addr.IsValid() && len(sources) > 1 {
		w.fail("%s exists in several Networks (%s); say which with the network", from, w.names(sources))
		return false
	}
	w.src = sources[0]
	w.Source = w.end(w.src)
	w.chooseDestination(to)
	return true
}

// sameNetwork keeps the sources that share a Network with the destination,
// or all when none does.
func (w *walk) sameNetwork(sources []snapshot.Endpoint, to end) []snapshot.Endpoint {
	dests := w.of(to)
	shared := slices.DeleteFunc(slices.Clone(sources), func(s snapshot.Endpoint) bool {
		return !slices.ContainsFunc(dests, func(d snapshot.Endpoint) bool { return d.Addr.VNI == s.Addr.VNI })
	})
	if len(shared) == 0 && to.addr.IsValid() {
		// Nobody has the address: ask in the Network that would route it.
		shared = slices.DeleteFunc(slices.Clone(sources), func(s snapshot.Endpoint) bool {
			n, _ := w.network(s.Addr.VNI)
			return !slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(to.addr) })
		})
	}
	if len(shared) > 0 {
		return shared
	}
	return sources
}

// sameFamily keeps the sources of the family of the packet.
func (w *walk) sameFamily(sources []snapshot.Endpoint, to end) []snapshot.Endpoint {
	want := w.q.IPv6
	if to.addr.IsValid() {
		want = to.addr.Is6()
	}
	fits := func(v6 bool) []snapshot.Endpoint {
		return slices.DeleteFunc(slices.Clone(sources), func(s snapshot.Endpoint) bool {
			if s.Addr.IP.Is6() != v6 {
				return true
			}
			return to.workload != "" && w.peer(s, to) == nil
		})
	}
	if out := fits(want); len(out) > 0 {
		return out
	}
	if !to.addr.IsValid() && !w.q.IPv6 {
		if out := fits(true); len(out) > 0 {
			return out
		}
	}
	// No family fits: the route step says so.
	if out := slices.DeleteFunc(slices.Clone(sources), func(s snapshot.Endpoint) bool { return s.Addr.IP.Is6() != want }); len(out) > 0 {
		return out
	}
	return sources
}

// peer finds the destination's interface in the source's Network and family.
func (w *walk) peer(s snapshot.Endpoint, to end) *snapshot.Endpoint {
	for _, d := range w.of(to) {
		if d.Addr.VNI == s.Addr.VNI && d.Addr.IP.Is6() == s.Addr.IP.Is6() {
			return &d
		}
	}
	return nil
}

func (w *walk) chooseDestination(to end) {
	if to.addr.IsValid() {
		w.dstAddr = to.addr
		return
	}
	if d := w.peer(w.src, to); d != nil {
		w.dstAddr = d.Addr.IP
	}
}

// missing says why an end has no interface.
func (w *walk) missing(e end) string {
	if e.addr.IsValid() {
		return fmt.Sprintf("no Workload has the address %s", e.addr)
	}
	var why []string
	if !w.sees(e.project) {
		return fmt.Sprintf("no node has a Workload %s attached", e)
	}
	for _, name := range slices.Sorted(maps.Keys(w.snaps)) {
		for k, g := range w.snaps[name].Grants {
			if k.Project == e.project && k.Workload == e.workload && g.Error != "" {
				why = append(why, fmt.Sprintf("node %s may not attach it to Network %s: %s", name, k.Network, g.Error))
			}
		}
	}
	if len(why) > 0 {
		slices.Sort(why)
		return fmt.Sprintf("Workload %s is not connected: %s", e, strings.Join(why, "; "))
	}
	return fmt.Sprintf("no node has a Workload %s attached", e)
}

// names lists the Networks of interfaces.
func (w *walk) names(es []snapshot.Endpoint) string {
	var out []string
	for _, e := range es {
		n, _ := w.network(e.Addr.VNI)
		out = append(out, n.Project+"/"+n.Name)
	}
	return strings.Join(slices.Compact(out), ", ")
}

// end describes an interface.
func (w *walk) end(e snapshot.Endpoint) *End {
	out := &End{Project: e.Project, Workload: e.Workload, VNI: uint32(e.Addr.VNI), Address: e.Addr.IP, MAC: e.MAC.String(), Node: e.Node, Number: uint32(e.Identity)}
	if n, ok := w.network(e.Addr.VNI); ok {
		out.Network, out.Domain = n.Project+"/"+n.Name, n.Domain
	}
	for _, name := range slices.Sorted(maps.Keys(w.snaps)) {
		id, ok := w.snaps[name].Identities[e.Identity]
		if !ok {
			continue
		}
		out.Identity = id.SPIFFE
		if len(id.Labels) > 0 {
			out.Labels = make(map[string]string, len(id.Labels))
			for _, l := range id.Labels {
				out.Labels[l.Key] = l.Value
			}
		}
		break
	}
	return out
}
