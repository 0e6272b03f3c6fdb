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
	// Proxy: the rule is about requests, and the walk is about a packet.
	Proxy bool
	// Unknown: it cannot be known whether the rule matches, so it denies.
	Unknown bool
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
	return s.judge(s.shadows(), steps, func(i int) match { return s.Rules[i].packet(region, p) })
}

// shadows says whether the shadow verdict can be another one.
func (s *Set) shadows() bool {
	return s.AuditIsolated != "" || slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Audit })
}

// match is what a rule says about a packet or request.
type match uint8

const (
	unmet   match = iota
	met           // its action counts
	unknown       // it cannot be known, so that it denies
	proxied       // its requests have to be seen
)

// judge walks for the verdict, and for the shadow verdict when that can be
// another one.
func (s *Set) judge(shadows bool, steps []Step, asked func(rule int) match) (Verdict, []Step) {
	v, steps := s.walk(false, steps, asked)
	if shadows {
		if w, _ := s.walk(true, nil, asked); w.Allow != v.Allow || w.Proxy != v.Proxy || w.Rule != v.Rule {
			// As far as packets go, what goes to a proxy is let through.
			v.Shadow = DefaultRule{ID: w.Rule, Allow: w.Allow || w.Proxy}
		}
	}
	return v, steps
}

// walk asks the tiers in order; shadow counts audit rules as enforced.
func (s *Set) walk(shadow bool, steps []Step, asked func(rule int) match) (Verdict, []Step) {
	next := 0
	for _, tier := range Tiers[:Default] {
		hit, how := -1, unmet
		for ; next < len(s.Rules) && s.Rules[next].Tier == tier; next++ {
			if hit >= 0 {
				continue
			}
			r := &s.Rules[next]
			if how = asked(next); how == unmet {
				continue
			}
			if r.Audit && !shadow {
				if steps != nil {
					steps = append(steps, Step{Tier: tier, Rule: r.ID, Action: r.Action, Audit: true, Proxy: how == proxied, Unknown: how == unknown})
				}
				continue
			}
			hit = next
		}
		if hit >= 0 {
			r := &s.Rules[hit]
			if steps != nil {
				steps = append(steps, Step{Tier: tier, Rule: r.ID, Action: r.Action, Proxy: how == proxied, Unknown: how == unknown})
			}
			if how == proxied {
				return Verdict{Proxy: true, Rule: r.ID, Tier: tier}, steps
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

// packet says what the rule says about a packet: one about requests matches TCP
// alone, and nobody knows yet which requests will come.
func (r *Rule) packet(region netip.Prefix, p Packet) match {
	switch {
	case !r.matches(region, p):
		return unmet
	case len(r.Requests) == 0:
		return met
	case p.Protocol != TCP:
		return unmet
	}
	return proxied
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
