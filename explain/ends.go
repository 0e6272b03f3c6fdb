package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
)

// ends are where the packet starts and what it is sent to.
type ends struct {
	source snapshot.Endpoint
	// outside is the sender when it is no Workload, but somebody outside;
	// health when it is the node that looks after src's health.
	outside, health bool
	to              end
	// addr that the source sends to; invalid: there is none in its Network.
	addr netip.Addr
	// dns is the name outside for which the source has been told an address.
	dns string
}

// findEnds chooses the interfaces of the packet. nil: the Answer says why not.
func (w *world) findEnds(from, to end) (*ends, string) {
	sources := w.of(from)
	if len(sources) == 0 {
		return w.strangers(from, to)
	}
	if to.dns == "" && !to.addr.IsValid() && len(w.of(to)) == 0 && len(w.servicesOf(to)) == 0 {
		return nil, w.missing(to)
	}
	project := cmp.Or(from.project, to.project, w.q.Project)
	if p, n := w.q.network(project); n != "" {
		sources = slices.DeleteFunc(sources, func(e snapshot.Endpoint) bool {
			row, _ := w.network(e.Addr.VNI)
			return row.Name != n || p != "" && row.Project != p
		})
		if len(sources) == 0 {
			return nil, fmt.Sprintf("%s has no interface in Network %s", from, w.q.Network)
		}
	}
	sources = w.nearest(sources, to)
	sources = w.sameFamily(sources, to)
	if from.addr.IsValid() && len(sources) > 1 {
		return nil, fmt.Sprintf("%s exists in several Networks (%s); say which with the network", from, w.names(sources))
	}
	e := &ends{source: sources[0], to: to}
	e.addr, e.dns = w.sentTo(e.source, to)
	return e, ""
}

// strangers: the sender is no Workload.
func (w *world) strangers(from, to end) (*ends, string) {
	if !from.addr.IsValid() {
		return nil, w.missing(from)
	}
	if from.addr == snapshot.NameServer4 || from.addr == snapshot.NameServer6 {
		for _, d := range w.of(to) {
			if d.Addr.IP.Is6() == from.addr.Is6() {
				return &ends{health: true, source: snapshot.Endpoint{Addr: snapshot.Addr{VNI: d.Addr.VNI, IP: from.addr}, Node: d.Node}, to: to, addr: d.Addr.IP}, ""
			}
		}
		return nil, w.missing(to)
	}
	for _, s := range w.servicesOf(to) {
		if w.sees(s.Project) && s.Addr.VNI == snapshot.Outside && s.Addr.IP.Is6() == from.addr.Is6() {
			return &ends{outside: true, source: snapshot.Endpoint{Addr: snapshot.Addr{VNI: snapshot.Outside, IP: from.addr}}, to: to, addr: s.Addr.IP}, ""
		}
	}
	return nil, w.missing(from)
}

// of lists the interfaces that an end may mean, where they really are.
func (w *world) of(e end) []snapshot.Endpoint {
	if e.kind == serviceKind || e.kind == floatingKind {
		return nil
	}
	return w.endpoints(func(x snapshot.Endpoint) bool {
		if x.Home.IP.IsValid() {
			return false
		}
		if e.addr.IsValid() {
			return x.Addr.IP == e.addr
		}
		return e.name != "" && x.Project == e.project && x.Workload == e.name
	})
}

// Ranks of how an interface gets to an end; the highest counts.
const (
	rankNone    = iota
	rankOutside // its Network has a way out
	rankPrefix  // its Network would have the address, but nobody has it
	rankKnown   // its Network knows the address or the name
)

// reach says by which addresses of the family an interface gets to an end.
func (w *world) reach(s snapshot.Endpoint, to end, v6 bool) (addrs []netip.Addr, rank int) {
	snap := w.snaps[s.Node]
	if snap == nil {
		snap = &snapshot.Snapshot{}
	}
	vni := s.Addr.VNI
	if to.dns != "" {
		return w.reachName(s, to, v6)
	}
	if a := to.addr; a.IsValid() {
		if a.Is6() != v6 {
			return nil, rankNone
		}
		n, _ := w.network(vni)
		here := snapshot.Addr{VNI: vni, IP: a}
		known := w.endpoints(func(e snapshot.Endpoint) bool { return e.Addr == here })
		_, exits := snap.Exits[vni]
		switch {
		case len(known) > 0 || len(portsOf(snap, here)) > 0:
			return []netip.Addr{a}, rankKnown
		case slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }):
			return []netip.Addr{a}, rankPrefix
		case exits:
			return []netip.Addr{a}, rankOutside
		}
		return nil, rankNone
	}
	if to.kind == anyKind || to.kind == workloadKind {
		for _, e := range w.endpoints(func(e snapshot.Endpoint) bool {
			return e.Addr.VNI == vni && e.Project == to.project && e.Workload == to.name && e.Addr.IP.Is6() == v6
		}) {
			addrs = append(addrs, e.Addr.IP)
		}
		if len(addrs) > 0 {
			return addrs, rankKnown
		}
	}
	rank = rankNone
	for _, x := range w.servicesOf(to) {
		_, exits := snap.Exits[vni]
		if x.Addr.IP.Is6() != v6 || x.Addr.VNI != vni && !(exits && x.Addr.VNI == snapshot.Outside) {
			continue
		}
		r := rankKnown
		if x.Addr.VNI == snapshot.Outside {
			r = rankOutside
		}
		if r > rank {
			addrs, rank = nil, r
		}
		if r == rank {
			addrs = append(addrs, x.Addr.IP)
		}
	}
	return addrs, rank
}

// nearest keeps the sources that get to the destination best, or all when
// none does.
func (w *world) nearest(sources []snapshot.Endpoint, to end) []snapshot.Endpoint {
	best, out := rankNone, sources
	for _, s := range sources {
		_, r4 := w.reach(s, to, false)
		_, r6 := w.reach(s, to, true)
		switch r := max(r4, r6); {
		case r > best:
			best, out = r, []snapshot.Endpoint{s}
		case r == best && r > rankNone:
			out = append(slices.Clone(out), s)
		}
	}
	return out
}

// sameFamily keeps the sources of the family of the packet.
func (w *world) sameFamily(sources []snapshot.Endpoint, to end) []snapshot.Endpoint {
	want := w.q.IPv6
	if to.addr.IsValid() {
		want = to.addr.Is6()
	}
	fits := func(v6 bool) []snapshot.Endpoint {
		return slices.DeleteFunc(slices.Clone(sources), func(s snapshot.Endpoint) bool {
			if s.Addr.IP.Is6() != v6 {
				return true
			}
			_, rank := w.reach(s, to, v6)
			return !to.addr.IsValid() && rank == rankNone
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

// sentTo is the address to which the source sends, or the name outside.
func (w *world) sentTo(s snapshot.Endpoint, to end) (netip.Addr, string) {
	if to.addr.IsValid() {
		return to.addr, ""
	}
	addrs, rank := w.reach(s, to, s.Addr.IP.Is6())
	switch {
	case len(addrs) > 0:
		return addrs[0], ""
	case to.dns != "" && rank <= rankOutside:
		return netip.Addr{}, to.dns
	}
	return netip.Addr{}, ""
}

// missing says why an end is nowhere.
func (w *world) missing(e end) string {
	switch {
	case e.addr.IsValid():
		return fmt.Sprintf("no Workload has the address %s", e.addr)
	case e.kind == serviceKind:
		return fmt.Sprintf("no node knows a Service %s", e)
	case e.kind == floatingKind:
		return fmt.Sprintf("no node knows a FloatingIP %s", e)
	}
	var why []string
	if !w.sees(e.project) {
		return fmt.Sprintf("no node has a Workload %s attached", e)
	}
	for _, name := range w.nodes {
		for k, g := range w.snaps[name].Grants {
			if k.Project == e.project && k.Workload == e.name && g.Error != "" {
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
