package compile

import (
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot/policy"
)

// maxShadowed bounds the search for rules that others hide: it is quadratic.
const maxShadowed = 256

// shadows finds rules of the Set that can never decide, because an earlier
// rule matches everything that they match.
func (d *draft) shadows(dir policy.Direction, all []resolvedPolicy, mask []byte, s *policy.Set) {
	if len(s.Rules) > maxShadowed {
		return
	}
	hidden := map[policy.RuleID]policy.RuleID{}
	for i := range s.Rules {
		for j := range s.Rules[:i] {
			if hides(&s.Rules[j], &s.Rules[i]) {
				hidden[s.Rules[i].ID] = s.Rules[j].ID
				break
			}
		}
	}
	for i := range all {
		if mask[i] == 0 {
			continue
		}
		for r := range all[i].rules[dir] {
			v := &d.fates[i].rules[dir][r]
			by, is := hidden[all[i].rules[dir][r].ID]
			switch {
			case !is:
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
	if a.Audit || a.Action == policy.Pass && a.Tier != b.Tier {
		return false
	}
	if a.Action == b.Action && policyOf(a.ID) != policyOf(b.ID) {
		return false
	}
	return coversPeers(a.Peers, b.Peers) && coversPorts(a.Ports, b.Ports)
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

func coversPeer(a, b *policy.Peer) bool {
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
