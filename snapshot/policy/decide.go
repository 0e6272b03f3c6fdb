package policy

import (
	"net/netip"
	"slices"
)

// NoPolicy is the id of the verdict of an empty Set.
const NoPolicy RuleID = "closed/no-policy"

// Step is one stop of the walk through a Set.
type Step struct {
	Tier Tier
	// Rule that matched; empty: no rule of the tier matched.
	Rule   RuleID
	Action Action
	// Audit: the rule matched but only counts for the shadow verdict.
	Audit bool
}

// Decide says what happens to the packet.
func (s *Set) Decide(p Packet) Verdict {
	v, _ := s.decide(peerRegion(p.PeerAddr), p, nil)
	return v
}

// Walk is Decide with every stop on the way.
func (s *Set) Walk(p Packet) (Verdict, []Step) {
	return s.decide(peerRegion(p.PeerAddr), p, []Step{})
}

// peerRegion is the smallest region that holds the address: itself.
func peerRegion(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

// decide judges a packet whose peer lies in region, a prefix inside which no
// CIDR of the Set begins or ends. steps is nil when nobody asks for them.
func (s *Set) decide(region netip.Prefix, p Packet, steps []Step) (Verdict, []Step) {
	if p.Protocol == 58 {
		p.Protocol = ICMP
	}
	v, steps := s.walk(region, p, false, steps)
	if s.AuditIsolated != "" || s.hasAudit() {
		if w, _ := s.walk(region, p, true, nil); w.Allow != v.Allow || w.Rule != v.Rule {
			v.Shadow = DefaultRule{ID: w.Rule, Allow: w.Allow}
		}
	}
	return v, steps
}

func (s *Set) hasAudit() bool {
	return slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Audit })
}

// walk asks the tiers in order; shadow counts audit rules as enforced.
func (s *Set) walk(region netip.Prefix, p Packet, shadow bool, steps []Step) (Verdict, []Step) {
	rest := s.Rules
	for _, tier := range Tiers[:Default] {
		n := 0
		for n < len(rest) && rest[n].Tier == tier {
			n++
		}
		rules := rest[:n]
		rest = rest[n:]
		hit := -1
		for i := range rules {
			r := &rules[i]
			if !r.matches(region, p) {
				continue
			}
			if r.Audit && !shadow {
				if steps != nil {
					steps = append(steps, Step{Tier: tier, Rule: r.ID, Action: r.Action, Audit: true})
				}
				continue
			}
			hit = i
			break
		}
		if hit >= 0 {
			r := &rules[hit]
			if steps != nil {
				steps = append(steps, Step{Tier: tier, Rule: r.ID, Action: r.Action})
			}
			if r.Action != Pass {
				return Verdict{Allow: r.Action == Allow, Rule: r.ID, Tier: tier}, steps
			}
			continue
		}
		isolated := s.Isolated
		if isolated == "" && shadow {
			isolated = s.AuditIsolated
		}
		if tier == Project && isolated != "" {
			if steps != nil {
				steps = append(steps, Step{Tier: tier, Rule: isolated, Action: Deny})
			}
			return Verdict{Rule: isolated, Tier: tier}, steps
		}
		if steps != nil {
			steps = append(steps, Step{Tier: tier, Action: Pass})
		}
	}
	last := s.Default
	if last.ID == "" {
		last = DefaultRule{ID: NoPolicy}
	}
	if steps != nil {
		a := Deny
		if last.Allow {
			a = Allow
		}
		steps = append(steps, Step{Tier: Default, Rule: last.ID, Action: a})
	}
	return Verdict{Allow: last.Allow, Rule: last.ID, Tier: Default}, steps
}

func (r *Rule) matches(region netip.Prefix, p Packet) bool {
	return r.matchesPort(p) && r.matchesPeer(region, p)
}

func (r *Rule) matchesPort(p Packet) bool {
	if len(r.Ports) == 0 {
		return true
	}
	for _, pr := range r.Ports {
		if pr.Protocol == p.Protocol && pr.First <= p.Port && p.Port <= pr.Last {
			return true
		}
	}
	return false
}

func (r *Rule) matchesPeer(region netip.Prefix, p Packet) bool {
	if len(r.Peers) == 0 {
		return true
	}
	for i := range r.Peers {
		if r.Peers[i].matches(region, p) {
			return true
		}
	}
	return false
}

func (p *Peer) matches(region netip.Prefix, packet Packet) bool {
	if p.Name != "" {
		return MatchName(p.Name, packet.Name)
	}
	if !p.Anyone {
		if _, ok := slices.BinarySearch(p.Identities, packet.Peer); !ok {
			return false
		}
	}
	if !p.CIDR.IsValid() {
		return true
	}
	if !covers(p.CIDR, region) {
		return false
	}
	for _, e := range p.Except {
		if covers(e, region) {
			return false
		}
	}
	return true
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
