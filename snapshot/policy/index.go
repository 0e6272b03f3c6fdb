package policy

import (
	"net/netip"
	"slices"
)

// ruleIndex finds the rules of a Set by whom they name, so that nobody has to
// ask all of them about everybody.
type ruleIndex struct {
	set *Set
	// any are rules without Peers.
	any []int
	of  map[peerKey][]peerAt
	// bits are the lengths of all CIDRs.
	bits []int
}

// peerKey is what a Peer asks for; the zero Prefix is every address.
type peerKey struct {
	anyone bool
	id     Identity
	cidr   netip.Prefix
}

type peerAt struct{ rule, peer int }

func (s *Set) index() *ruleIndex {
	x := &ruleIndex{set: s, of: map[peerKey][]peerAt{}}
	for i := range s.Rules {
		r := &s.Rules[i]
		if len(r.Peers) == 0 {
			x.any = append(x.any, i)
		}
		for j := range r.Peers {
			x.add(&r.Peers[j], peerAt{i, j})
		}
	}
	slices.Sort(x.bits)
	x.bits = slices.Compact(x.bits)
	return x
}

func (x *ruleIndex) add(p *Peer, at peerAt) {
	if p.Name != "" {
		return // a table knows no names
	}
	k := peerKey{anyone: p.Anyone}
	if p.CIDR.IsValid() {
		k.cidr = p.CIDR.Masked()
		x.bits = append(x.bits, k.cidr.Bits())
	}
	if p.Anyone {
		x.of[k] = append(x.of[k], at)
		return
	}
	for _, k.id = range p.Identities {
		x.of[k] = append(x.of[k], at)
	}
}

// rules lists those that match peers with that identity in that region, in order.
func (x *ruleIndex) rules(region netip.Prefix, id Identity) []int {
	out := slices.Clone(x.any)
	find := func(cidr netip.Prefix) {
		for _, k := range [...]peerKey{{anyone: true, cidr: cidr}, {id: id, cidr: cidr}} {
			for _, at := range x.of[k] {
				if x.set.Rules[at.rule].Peers[at.peer].matches(region, Packet{Peer: id}) {
					out = append(out, at.rule)
				}
			}
		}
	}
	find(netip.Prefix{})
	if region.IsValid() {
		for _, n := range x.bits {
			if n > region.Bits() {
				break
			}
			p, _ := region.Addr().Prefix(n) // n is no more than the region has
			find(p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
