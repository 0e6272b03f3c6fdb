package compile

import (
	"net/netip"
	"reflect"
	"slices"

	"moire.dev/moire/snapshot/policy"
)

// maxShadowed bounds the search for rules that others hide: it is quadratic.
const maxShadowed = 256

// shadows finds rules of the Set that can never decide, because an earlier
// rule matches everything that they match.
func shadows(dir policy.Direction, all []resolvedPolicy, mask []byte, fates []fate, s *policy.Set) {
	if len(s.Rules) > maxShadowed {
		return
	}
	hidden := map[policy.RuleID]policy.RuleID{}
	shown := map[policy.RuleID]bool{} // a part of the rule has an effect
	for i := range s.Rules {
		r := &s.Rules[i]
		j := -1
		if !nobody(r) {
			j = slices.IndexFunc(s.Rules[:i], func(a policy.Rule) bool { return hides(&a, r) })
		}
		if j < 0 {
			shown[r.ID] = true
		} else if hidden[r.ID] == "" {
			hidden[r.ID] = s.Rules[j].ID
		}
	}
	for i := range all {
		if mask[i] == 0 {
			continue
		}
		for r := range all[i].rules[dir] {
			v := &fates[i].rules[dir][r]
			id := all[i].parsedPolicy.rules[dir][r].id
			by, is := hidden[id]
			switch {
			case !is, shown[id]:
				v.shadowed = shadowNever
			case v.shadowed == "":
				v.shadowed = by
			}
		}
	}
}

// shadowNever marks a rule that has an effect in some Set.
const shadowNever policy.RuleID = "-"

// hides reports whether a, asked before b, leaves b nothing to decide. The
// same outcome in different Policies is left alone: that is how people write.
func hides(a, b *policy.Rule) bool {
	if a.ID == b.ID || a.Audit || a.Action == policy.Pass && a.Tier != b.Tier {
		return false
	}
	ports := b.Ports
	switch about := len(b.Requests) > 0; {
	case len(a.Requests) > 0 && !reflect.DeepEqual(a.Requests, b.Requests):
		return false
	case about && len(a.Requests) == 0:
		// Whoever writes paths must know that all of them are decided elsewhere.
		if ports = slices.DeleteFunc(slices.Clone(ports), func(p policy.PortRange) bool { return !isTCP(p) }); len(ports) == 0 {
			ports = []policy.PortRange{{Protocol: policy.TCP, Last: 65535}}
		}
	case a.Action == b.Action && policyOf(a.ID) != policyOf(b.ID):
		return false
	}
	return coversPeers(a.Peers, b.Peers) && coversPorts(a.Ports, ports)
}

// policyOf is the part of a rule id that names the Policy.
func policyOf(id policy.RuleID) policy.RuleID {
	slashes := 0
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] == '/' {
			if slashes++; slashes == 2 {
				return id[:i]
			}
		}
	}
	return id
}

func coversPorts(a, b []policy.PortRange) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	for _, r := range b {
		if !slices.ContainsFunc(a, func(q policy.PortRange) bool {
			return q.Protocol == r.Protocol && q.First <= r.First && r.Last <= q.Last
		}) {
			return false
		}
	}
	return true
}

func coversPeers(a, b []policy.Peer) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	for i := range b {
		if !slices.ContainsFunc(a, func(q policy.Peer) bool { return coversPeer(&q, &b[i]) }) {
			return false
		}
	}
	return true
}

// nobody: the rule has peers that are all nobody.
func nobody(r *policy.Rule) bool {
	return len(r.Peers) > 0 && !slices.ContainsFunc(r.Peers, func(p policy.Peer) bool { return p.Anyone || len(p.Identities) > 0 || p.Name != "" })
}

func coversPeer(a, b *policy.Peer) bool {
	if a.Name != "" || b.Name != "" {
		return a.Name == b.Name || a.Name == "" && a.Anyone && !a.CIDR.IsValid()
	}
	if !a.Anyone {
		if b.Anyone {
			return false
		}
		for _, n := range b.Identities {
			if _, ok := slices.BinarySearch(a.Identities, n); !ok {
				return false
			}
		}
	}
	if !a.CIDR.IsValid() {
		return true
	}
	if !b.CIDR.IsValid() || !within(b.CIDR, a.CIDR) {
		return false
	}
	return !slices.ContainsFunc(a.Except, func(e netip.Prefix) bool {
		return e.Overlaps(b.CIDR) && !slices.ContainsFunc(b.Except, func(x netip.Prefix) bool { return within(e, x) })
	})
}

func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
