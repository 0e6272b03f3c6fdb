package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
)

// linked are the prefixes that each Network reaches by Links, of one snapshot.
type linked struct {
	snapshot *snapshot.Snapshot
	prefixes map[snapshot.VNI][]netip.Prefix
}

// maxLinked bounds the routes of one interface.
const maxLinked = 256

// of is what a Network reaches by Links, as its Workloads see it, sorted. A
// translated prefix is as long as the one that it stands for.
func (l *linked) of(s *snapshot.Snapshot, vni snapshot.VNI) []netip.Prefix {
	if l.snapshot != s {
		found := map[snapshot.VNI]map[netip.Prefix]bool{}
		for a, e := range s.Endpoints {
			real := e.Real()
			if real.VNI == a.VNI {
				continue
			}
			for _, p := range s.Networks[real.VNI].Prefixes {
				if !p.Contains(real.IP) {
					continue
				}
				if found[a.VNI] == nil {
					found[a.VNI] = map[netip.Prefix]bool{}
				}
				found[a.VNI][netip.PrefixFrom(a.IP, p.Bits()).Masked()] = true
			}
		}
		*l = linked{s, map[snapshot.VNI][]netip.Prefix{}}
		for v, ps := range found {
			all := slices.SortedFunc(maps.Keys(ps), func(a, b netip.Prefix) int { return a.Compare(b) })
			l.prefixes[v] = all[:min(len(all), maxLinked)]
		}
	}
	return l.prefixes[vni]
}

// reroute gives an interface that is there the routes that it needs now. It
// stays in use meanwhile.
func (l *loop) reroute(a *attachment, s *snapshot.Snapshot) error {
	n, ok := s.Networks[a.VNI]
	now := l.linked.of(s, a.VNI)
	if !ok || a.Tap || a.DHCP || slices.Equal(a.Linked, now) {
		return nil
	}
	if err := l.wiring.Plug(a.plug(n, now)); err != nil {
		return fmt.Errorf("give %s in %s its routes: %w", a.IfName, a.Netns, err)
	}
	l.dirty = true // what had to be made anew has no program yet
	return l.reached(a, now)
}

// reached remembers the routes, also over a restart, so that they can go.
func (l *loop) reached(a *attachment, linked []netip.Prefix) error {
	if slices.Equal(a.Linked, linked) {
		return nil
	}
	a.Linked = linked
	if err := l.disk.save(a); err != nil {
		return fmt.Errorf("remember the routes: %w", err)
	}
	return nil
}
