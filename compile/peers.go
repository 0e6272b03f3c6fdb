package compile

import (
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/snapshot/policy"
)

// miss says why a peer or rule can match nobody; "" when it can.
type miss string

// resolve turns the peers of a rule into identities and addresses as the
// Network sees them.
func (d *jointDraft) resolve(p *parsedPolicy, subject *project, dir policy.Direction, r *parsedRule) ([]policy.Rule, miss) {
	out := policy.Rule{ID: r.id, Tier: p.tier, Action: r.action, Audit: p.audit, Ports: r.ports}
	var parts []policy.Rule
	var why miss
	if out.Requests, why = d.requests(subject, r); why != "" {
		out.Peers = []policy.Peer{{}} // nobody
		return []policy.Rule{out}, why
	}
	note := func(missed miss) {
		if why == "" {
			why = missed
		}
	}
	for i := range r.peers {
		peer := &r.peers[i]
		if peer.service != "" {
			part := out
			var missed miss
			if part.Peers, part.Ports, missed = d.resolveService(p, subject, dir, peer, r.ports); missed != "" {
				note(missed)
				continue
			}
			if len(part.Requests) > 0 && !slices.ContainsFunc(part.Ports, isTCP) {
				note(miss("requests travel in TCP, and Service " + peer.service + " has no such port"))
				continue
			}
			parts = append(parts, part)
			continue
		}
		peers, missed := d.resolvePeer(p, subject, dir, r, peer)
		if missed != "" {
			note(missed)
			continue
		}
		out.Peers = append(out.Peers, peers...)
	}
	switch {
	case len(r.peers) == 0 && len(r.equal) > 0:
		out.Peers = []policy.Peer{{Identities: d.numbers(nil, func(x *project) bool { return x.domain == subject.domain })}}
	case len(r.peers) > 0 && len(out.Peers) == 0 && len(parts) == 0:
		// No peers would mean everybody; this one is nobody.
		out.Peers = []policy.Peer{{}}
		return []policy.Rule{out}, why
	case len(r.peers) > 0 && len(out.Peers) == 0:
		return parts, ""
	}
	return append([]policy.Rule{out}, parts...), ""
}

// scopeOf says which projects a peer may be of. Without a name, and for "*",
// those of the Domain; another Domain's project has to be named.
func scopeOf(p *parsedPolicy, subject *project, named string) (name string, in func(*project) bool) {
	if named == "" && p.tier == policy.Project {
		named = p.key.Project
	}
	if named == "" || named == "*" {
		return "*", func(x *project) bool { return x.domain == subject.domain }
	}
	return named, func(x *project) bool { return x.name == named }
}

// numbers are the identities of the projects that meet here, sorted. sel may
// be nil: all.
func (d *jointDraft) numbers(sel *parsedSelector, in func(*project) bool) []policy.Identity {
	var out []policy.Identity
	for _, x := range d.facts.projects {
		if in(x) {
			out = append(out, x.selected(sel)...)
		}
	}
	slices.Sort(out)
	return out
}

// selected are the identities of the project that the selector selects.
func (p *project) selected(sel *parsedSelector) []policy.Identity {
	var out []policy.Identity
	if sel != nil && sel.selector != nil {
		for n := range p.matching(sel.selector) {
			out = append(out, n)
		}
		slices.Sort(out)
		return out
	}
	for _, w := range p.who {
		out = append(out, w.row.Number)
	}
	return out
}

// resolvePeer resolves one peer. Where a Network sees nobody but the Workloads
// of its own project, a peer without labels is Anyone instead of a list that
// would grow with the project.
func (d *jointDraft) resolvePeer(p *parsedPolicy, subject *project, dir policy.Direction, r *parsedRule, peer *parsedPeer) ([]policy.Peer, miss) {
	if peer.selector.broken {
		if r.action == policy.Deny {
			return []policy.Peer{{Anyone: len(r.equal) == 0, Identities: d.everybody(r)}}, ""
		}
		return nil, "its selector is not valid"
	}
	if peer.name != "" {
		if dir == policy.Ingress {
			return nil, "names are resolved for egress only"
		}
		return []policy.Peer{{Name: peer.name}}, ""
	}
	if peer.cidr.IsValid() {
		if missed := d.missedCIDR(peer); missed != "" {
			return nil, missed
		}
	}
	one := policy.Peer{CIDR: peer.cidr, Except: peer.except}
	if !peer.labelled && peer.project == "" && peer.network == "" {
		if one.Anyone = len(r.equal) == 0; !one.Anyone {
			one.Identities = d.numbers(nil, func(x *project) bool { return x.domain == subject.domain })
		}
		return []policy.Peer{one}, ""
	}
	here := d.facts.base.facts.key
	scope, in := scopeOf(p, subject, peer.project)
	if !slices.ContainsFunc(d.facts.projects, in) {
		return nil, miss("project " + scope + " has no interface in Network " + here.String() + " or in one that it reaches")
	}
	if d.alone {
		if peer.network != "" && networkOf(d.facts.base.facts.project.name, peer.network) != here {
			return nil, miss("Network " + networkOf(here.Project, peer.network).String() + " is not connected to Network " + here.String())
		}
		if peer.selector.selector == nil && len(r.equal) == 0 {
			one.Anyone = true
			return []policy.Peer{one}, ""
		}
	}
	if peer.network == "" || d.alone {
		if one.Identities = d.numbers(&peer.selector, in); len(one.Identities) == 0 {
			return nil, d.nobodyHas(peer)
		}
		return []policy.Peer{one}, ""
	}
	return d.resolveNetwork(peer, scope, in)
}

// everybody are the identities that a broken selector of a rule with
// matchEqual denies.
func (d *jointDraft) everybody(r *parsedRule) []policy.Identity {
	if len(r.equal) == 0 {
		return nil
	}
	return d.numbers(nil, func(*project) bool { return true })
}

func (d *jointDraft) nobodyHas(peer *parsedPeer) miss {
	if peer.selector.selector == nil {
		return "no Workload is there"
	}
	return miss("no Workload has the labels " + peer.selector.selector.String())
}

// resolveNetwork resolves a peer that names a Network: those who are there, at
// the addresses under which they are seen here.
func (d *jointDraft) resolveNetwork(peer *parsedPeer, scope string, in func(*project) bool) ([]policy.Peer, miss) {
	var out []policy.Peer
	found := false
	for _, n := range d.peers {
		var who []policy.Identity
		for _, x := range append([]*project{n.facts.project}, n.facts.guests...) {
			if in(x) && networkOf(x.name, peer.network) == n.facts.key {
				who = append(who, x.selected(&peer.selector)...)
				found = true
			}
		}
		if n.floats {
			who = slices.DeleteFunc(who, func(i policy.Identity) bool { _, is := slices.BinarySearch(n.used, i); return !is })
		}
		slices.Sort(who)
		if len(who) == 0 {
			continue
		}
		if n.prefixes == nil {
			out = append(out, policy.Peer{Identities: who, CIDR: peer.cidr, Except: peer.except})
			continue
		}
		for _, p := range n.prefixes {
			if peer.cidr.IsValid() {
				if !p.Overlaps(peer.cidr) {
					continue
				}
				if p.Bits() < peer.cidr.Bits() {
					p = peer.cidr
				}
			}
			var except []netip.Prefix
			for _, e := range peer.except {
				if e.Overlaps(p) {
					except = append(except, e)
				}
			}
			out = append(out, policy.Peer{Identities: who, CIDR: p, Except: except})
		}
	}
	switch {
	case !found:
		if scope == "*" {
			scope = "any project"
		}
		return nil, miss("Network " + peer.network + " of " + scope + " is not connected to Network " + d.facts.base.facts.key.String())
	case len(out) == 0:
		return nil, d.nobodyHas(peer)
	}
	return out, ""
}

// missedCIDR says why no peer can have an address in the CIDR.
func (d *jointDraft) missedCIDR(peer *parsedPeer) miss {
	here := d.facts.base
	seen := here.facts.network.Spec.Outside != nil || slices.ContainsFunc(d.facts.home, func(f *floating) bool { return f.external() })
	for _, feet := range []string{"169.254.0.0/16", "fd00:4d4f:4952:45::/64"} { // nodes that ask in the name of a linked Network
		seen = seen || len(d.facts.links) > 0 && peer.cidr.Overlaps(netip.MustParsePrefix(feet))
	}
	for _, n := range d.peers {
		seen = seen || n.prefixes == nil || slices.ContainsFunc(n.prefixes, peer.cidr.Overlaps)
	}
	if !seen {
		return miss(peer.cidr.String() + " is outside every prefix of Network " + here.facts.key.String())
	}
	for _, e := range peer.except {
		if e.Bits() <= peer.cidr.Bits() && e.Contains(peer.cidr.Addr()) {
			return miss("except " + e.String() + " takes away all of " + peer.cidr.String())
		}
	}
	return ""
}

// resolveService finds who is behind a Service, and at which of the ports.
func (d *jointDraft) resolveService(p *parsedPolicy, subject *project, dir policy.Direction, peer *parsedPeer, ports []policy.PortRange) ([]policy.Peer, []policy.PortRange, miss) {
	if dir == policy.Ingress {
		return nil, nil, "who is behind a Service is asked for egress only"
	}
	scope, in := scopeOf(p, subject, peer.project)
	var peers []policy.Peer
	var targets []policy.PortRange
	found := false
	for _, b := range d.facts.behind {
		if b.key.Name != peer.service || !in(b.project) {
			continue
		}
		found = true
		peers = append(peers, d.behind(b)...)
		for _, port := range b.service.Spec.Ports {
			targets = append(targets, policy.PortRange{Protocol: protocol(port.Protocol), First: targetPort(port), Last: targetPort(port)})
		}
	}
	if !found {
		return nil, nil, miss("Service " + peer.service + " does not exist in project " + scope)
	}
	var both []policy.PortRange
	for _, t := range targets {
		if len(ports) == 0 || slices.ContainsFunc(ports, func(r policy.PortRange) bool {
			return r.Protocol == t.Protocol && r.First <= t.First && t.First <= r.Last
		}) {
			both = append(both, t)
		}
	}
	slices.SortFunc(both, comparePorts)
	both = slices.Compact(both)
	switch {
	case len(both) == 0:
		return nil, nil, miss("no target port of Service " + peer.service + " is among the ports of the rule")
	case len(peers) == 0:
		return nil, nil, miss("nobody is behind Service " + peer.service)
	}
	return peers, both, ""
}

func comparePorts(a, b policy.PortRange) int {
	return int(a.Protocol)<<16 + int(a.First) - int(b.Protocol)<<16 - int(b.First)
}

// behind are the peers behind one Service: by identity, and at its addresses
// where those are declared.
func (d *jointDraft) behind(b behind) []policy.Peer {
	s := &b.service.Spec
	single := func(a netip.Addr) policy.Peer {
		return policy.Peer{Anyone: true, CIDR: netip.PrefixFrom(a, a.BitLen())}
	}
	switch {
	case s.Selector != nil:
		sel, err := metav1.LabelSelectorAsSelector(s.Selector)
		if err != nil || !slices.Contains(d.facts.projects, b.project) {
			return nil
		}
		if who := b.project.selected(&parsedSelector{selector: sel}); len(who) > 0 {
			return []policy.Peer{{Identities: who}}
		}
		return nil
	case s.ExternalName != "":
		var out []policy.Peer
		for _, a := range b.resolved {
			if !d.inside(a) {
				out = append(out, single(a))
			}
		}
		return out
	}
	var out []policy.Peer
	for _, e := range s.Endpoints {
		if a, err := netip.ParseAddr(e.Address); err == nil {
			out = append(out, single(d.serviceAddress(b, a)))
		}
	}
	return out
}

// serviceAddress is how this Network sees an address that a Service names: the
// Network of the Service may be a linked one.
func (d *jointDraft) serviceAddress(b behind, a netip.Addr) netip.Addr {
	for _, n := range b.service.Spec.Networks {
		k := Key{b.key.Project, n.Network}
		if k == d.facts.base.facts.key {
			return a
		}
		for _, l := range d.facts.links {
			for _, o := range l.at(d.facts.base) {
				if o.facts.key == k && o.space.inside.contains(a) {
					return d.addressIn(o, a)
				}
			}
		}
	}
	return a
}
