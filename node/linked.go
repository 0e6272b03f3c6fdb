package node

import (
	"fmt"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
)

// linked are the prefixes that each Network reaches by Links, of one snapshot.
type linked struct {
	snapshot *snapshot.Snapshot
	prefixes map[snapshot.VNI]map[netip.Prefix]map[snapshot.ChainKey]bool
	hops     map[snapshot.Addr][]snapshot.ChainKey
}

// maxLinked bounds the routes of one interface.
const maxLinked = 256

// read finds the prefixes as the Workloads of each Network see them (a
// translated one is as long as the one that it stands for), with the Chains
// that stand in front, the zero one for none; and who is a Hop of which.
func (l *linked) read(s *snapshot.Snapshot) {
	if l.snapshot == s {
		return
	}
	*l = linked{s, map[snapshot.VNI]map[netip.Prefix]map[snapshot.ChainKey]bool{}, map[snapshot.Addr][]snapshot.ChainKey{}}
	for a, e := range s.Endpoints {
		real := e.Real()
		if real.VNI == a.VNI {
			continue
		}
		for _, p := range s.Networks[real.VNI].Prefixes {
			if !p.Contains(real.IP) {
				continue
			}
			if l.prefixes[a.VNI] == nil {
				l.prefixes[a.VNI] = map[netip.Prefix]map[snapshot.ChainKey]bool{}
			}
			seen := netip.PrefixFrom(a.IP, p.Bits()).Masked()
			if l.prefixes[a.VNI][seen] == nil {
				l.prefixes[a.VNI][seen] = map[snapshot.ChainKey]bool{}
			}
			l.prefixes[a.VNI][seen][e.Chain] = true
		}
	}
	for k, c := range s.Chains {
		for _, h := range c.Hops {
			l.hops[h.Addr] = append(l.hops[h.Addr], k)
		}
	}
}

// of is what the interface reaches by Links, sorted, and the Chains that it is
// a Hop of. What is behind a function is on another side of it: back out of
// this interface, packets would come to it again. One that is ill now stays a
// Hop for this, as sessions from before may still pass.
func (l *linked) of(s *snapshot.Snapshot, a *attachment) ([]netip.Prefix, []snapshot.ChainKey) {
	l.read(s)
	var hop []snapshot.ChainKey
	for _, k := range a.HopOf {
		if _, still := s.Chains[k]; still {
			hop = append(hop, k)
		}
	}
	for _, ip := range a.Addrs {
		hop = append(hop, l.hops[snapshot.Addr{VNI: a.VNI, IP: ip}]...)
	}
	slices.SortFunc(hop, snapshot.ChainKey.Compare)
	hop = slices.Compact(hop)
	var out []netip.Prefix
	for p, chains := range l.prefixes[a.VNI] {
		for k := range chains {
			if !slices.Contains(hop, k) {
				out = append(out, p)
				break
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out[:min(len(out), maxLinked)], hop
}

// reroute gives an interface that is there the routes that it needs now. It
// stays in use meanwhile.
func (l *loop) reroute(a *attachment, s *snapshot.Snapshot) error {
	n, ok := s.Networks[a.VNI]
	if !ok || a.Tap || a.DHCP {
		return nil
	}
	now, hop := l.linked.of(s, a)
	if slices.Equal(a.Linked, now) {
		return l.reached(a, now, hop)
	}
	if err := l.wiring.Plug(a.plug(n, now)); err != nil {
		return fmt.Errorf("give %s in %s its routes: %w", a.IfName, a.Netns, err)
	}
	l.dirty = true // what had to be made anew has no program yet
	return l.reached(a, now, hop)
}

// reached remembers the routes, also over a restart, so that they can go.
func (l *loop) reached(a *attachment, linked []netip.Prefix, hop []snapshot.ChainKey) error {
	if slices.Equal(a.Linked, linked) && slices.Equal(a.HopOf, hop) {
		return nil
	}
	a.Linked, a.HopOf = linked, hop
	if err := l.disk.save(a); err != nil {
		return fmt.Errorf("remember the routes: %w", err)
	}
	return nil
}
