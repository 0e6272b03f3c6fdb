package explain

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Ids of what the node itself serves, whatever Policies say.
const (
	platformNames    policy.RuleID = "platform/names"
	platformMetadata policy.RuleID = "platform/metadata"
	platformHealth   policy.RuleID = "platform/health"
)

// platform: the node itself is asked. true: the Answer is ready.
func (p *path) platform(n snapshot.Network) bool {
	var what string
	switch p.dst {
	case snapshot.NameServer4, snapshot.NameServer6:
		p.Rule, what = platformNames, fmt.Sprintf("%s is the name server of the Network, on the node itself", p.dst)
	case snapshot.Metadata4:
		p.Rule, what = platformMetadata, fmt.Sprintf("%s is where the node answers for metadata", p.dst)
		if s := p.snaps[p.src.Node]; s != nil && s.Names[n.VNI].Metadata == "" {
			what += "; the Network has no spec.metadata, so nothing listens there"
		}
	default:
		return false
	}
	p.Allow, p.Reason = true, what+": allowed by "+string(p.Rule)
	p.Destination = &End{VNI: uint32(n.VNI), Network: p.Source.Network, Domain: p.Source.Domain, Address: p.dst, Node: p.src.Node}
	p.step(Step{Name: StepPlatform, Result: ResultAllow, Node: p.src.Node, Rule: p.Rule, Text: what})
	return true
}

// health: the node looks after a Workload's health.
func (p *path) health() {
	p.Source = &End{VNI: uint32(p.src.Addr.VNI), Address: p.src.Addr.IP, Node: p.src.Node}
	if d := p.of(p.ends.to); len(d) > 0 {
		p.Destination = p.end(d[0])
	}
	p.Allow, p.Rule = true, platformHealth
	p.Reason = fmt.Sprintf("node %s looks after the health of its Workload: allowed by %s", p.src.Node, p.Rule)
	p.step(Step{Name: StepPlatform, Result: ResultAllow, Node: p.src.Node, Rule: p.Rule, Text: p.Reason})
}

// nameOutside chooses an address for a name outside, out of each region of
// addresses that the egress Policies of the source treat alike. false: it ends
// here.
func (p *path) nameOutside(n snapshot.Network) bool {
	s := p.snaps[p.src.Node]
	exits := false
	if s != nil {
		_, exits = s.Exits[n.VNI]
	}
	switch {
	case !exits:
		p.lost(NoExit, fmt.Sprintf("%s is no name of the Network, which has no way out", p.ends.dns))
		return false
	case s.Names[n.VNI].NoForward:
		p.step(Step{Name: StepNames, Result: ResultNone, Node: p.src.Node, Rule: NoRoute, Text: "the name service of the Network forwards no name (spec.dns.noForward), so nobody learns an address"})
		p.deny(NoRoute, "nobody learns an address for "+p.ends.dns)
		return false
	}
	regions := p.regions(s, n)
	r := regions[p.pick(len(regions))]
	p.dst, p.region = r.addr, r.text
	p.step(Step{Name: StepNames, Result: ResultOK, Node: p.src.Node, Text: fmt.Sprintf("%s is a name outside; packets to the addresses that the name service told for it carry the name", p.ends.dns)})
	return true
}

// region is a part of the addresses outside, and one of them.
type region struct {
	addr netip.Addr
	text string
}

// regions are the parts of the addresses outside that the egress set of the
// source may treat differently.
func (p *path) regions(s *snapshot.Snapshot, n snapshot.Network) []region {
	set := s.Policies[snapshot.PolicyKey{VNI: n.VNI, Identity: p.src.Identity, Direction: policy.Egress}]
	cuts := map[netip.Prefix]bool{}
	for _, r := range set.Rules {
		for _, peer := range r.Peers {
			for _, c := range append(slices.Clone(peer.Except), peer.CIDR) {
				if c.IsValid() && c.Addr().Is6() == p.src.Addr.IP.Is6() && c.Bits() > 0 {
					cuts[c.Masked()] = true
				}
			}
		}
	}
	sorted := slices.SortedFunc(maps.Keys(cuts), func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return b.Bits() - a.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	inside := func(a netip.Addr) bool {
		return slices.ContainsFunc(n.Prefixes, func(x netip.Prefix) bool { return x.Contains(a) })
	}
	var out []region
	for i, c := range sorted {
		// The first address that no smaller cut holds.
		for a, tries := c.Addr(), 0; c.Contains(a) && tries < 4096; a, tries = a.Next(), tries+1 {
			j := slices.IndexFunc(sorted[:i], func(x netip.Prefix) bool { return x.Contains(a) })
			if j < 0 && !inside(a) && nodeAt(s, a) == "" {
				out = append(out, region{a, "an address in " + c.String()})
				break
			}
			if j >= 0 {
				a = netipx.PrefixLastIP(sorted[j])
			}
		}
	}
	if free := elsewhere(p.src.Addr.IP.Is6(), func(a netip.Addr) bool {
		return inside(a) || nodeAt(s, a) != "" || slices.ContainsFunc(sorted, func(x netip.Prefix) bool { return x.Contains(a) })
	}); free.IsValid() {
		out = append([]region{{free, "any other address"}}, out...)
	}
	if len(out) == 1 {
		out[0].text = ""
	}
	return out
}

// nodeAt is the node whose own address it is, the first by name; "": none's.
func nodeAt(s *snapshot.Snapshot, a netip.Addr) (out string) {
	for name, n := range s.Nodes {
		if n.Address == a && (out == "" || name < out) {
			out = name
		}
	}
	return out
}

// elsewhere finds a public address that taken does not hold.
func elsewhere(v6 bool, taken func(netip.Addr) bool) netip.Addr {
	a, step := netip.MustParseAddr("192.0.2.1"), 0
	if v6 {
		a, step = netip.MustParseAddr("2001:db8::1"), 1
	}
	for range 1 << 12 {
		if !taken(a) {
			return a
		}
		b := a.AsSlice()
		b[step]++ // the next /8 or /16
		if b[step] == 0 {
			b[step+1] += 7
		}
		a, _ = netip.AddrFromSlice(b)
	}
	return netip.Addr{}
}

// leave routes to what is outside of all Networks.
func (p *path) leave(n snapshot.Network, x snapshot.Exit) *route {
	s := p.snaps[p.src.Node]
	p.Destination = &End{VNI: uint32(snapshot.Outside), Address: p.dst}
	as, node, ok := p.leavesAs(s, x)
	if !ok {
		return p.lost(NoExit, fmt.Sprintf("Network %s/%s has no address outside of the family of %s", n.Project, n.Name, p.dst))
	}
	if name := nodeAt(s, p.dst); name != "" && !p.opens(x) {
		return p.lost(HostClosed, fmt.Sprintf("%s is node %s itself, and spec.outside.hosts of Network %s/%s does not open %s", p.dst, name, n.Project, n.Name, p.portText()))
	}
	text := fmt.Sprintf("%s is outside; node %s translates", p.dst, node)
	if node != p.src.Node {
		text = fmt.Sprintf("%s is outside; %s, which translates", p.dst, p.tunnel(node, n.VNI))
	}
	p.step(Step{Name: StepRoute, Result: ResultOK, Node: p.src.Node, Text: text})
	return &route{row: snapshot.Endpoint{Addr: snapshot.Addr{VNI: n.VNI, IP: p.dst}}, port: p.port, deliver: func(p *path) *arrival {
		return p.translate(n, node, as)
	}}
}

func (p *path) portText() string {
	if p.port == 0 {
		return p.Protocol
	}
	return fmt.Sprintf("%s/%d", p.Protocol, p.port)
}

// opens: the port of a node may be reached.
func (p *path) opens(x snapshot.Exit) bool {
	return slices.ContainsFunc(x.Hosts, func(h snapshot.HostPort) bool {
		return h.Protocol == p.protocol && h.First <= p.port && p.port <= h.Last
	})
}

// leavesAs is the source outside, not valid where only the node knows its own,
// and the node that puts it there; false: there is none of the family.
func (p *path) leavesAs(s *snapshot.Snapshot, x snapshot.Exit) (netip.Addr, string, bool) {
	node := p.src.Node
	if x.Gateway != "" {
		node = x.Gateway
	}
	if m, ok := s.Masquerades[p.src.Addr]; ok {
		if m.Node != "" {
			node = m.Node
		}
		return m.As, node, true
	}
	for _, a := range x.Addresses {
		if a.Is6() == p.dst.Is6() {
			return a, node, true
		}
	}
	if len(x.Addresses) > 0 {
		return netip.Addr{}, node, false
	}
	if own := p.node(node).Address; own.IsValid() && own.Is6() == p.dst.Is6() {
		return own, node, true
	}
	return netip.Addr{}, node, true
}

// translate is what the node at the border does.
func (p *path) translate(n snapshot.Network, node string, as netip.Addr) *arrival {
	text := fmt.Sprintf("node %s puts its own address for %s and sends it by the host's routes", node, p.src.Addr.IP)
	if as.IsValid() {
		p.TranslatedSource = as.String()
		text = fmt.Sprintf("node %s puts %s for %s and sends it by the host's routes", node, as, p.src.Addr.IP)
		if owner := p.owner(as); owner != "" {
			text += "; that is the address of " + owner
		}
	}
	p.step(Step{Name: StepOutside, Result: ResultOK, Node: node, Text: text})
	holder, s := p.holder(p.dst)
	if s == nil || len(portsOf(s, snapshot.Addr{VNI: snapshot.Outside, IP: p.dst})) == 0 {
		return &arrival{}
	}
	// A FloatingIP of an external pool: it comes in again.
	p.step(Step{Name: StepOutside, Result: ResultOK, Node: holder, Text: fmt.Sprintf("node %s answers for %s on the underlay", holder, p.dst)})
	p.src.Addr = snapshot.Addr{VNI: snapshot.Outside, IP: as}
	return p.comeIn(s)
}

// owner is what an address of the underlay belongs to.
func (p *path) owner(a netip.Addr) string {
	for _, name := range p.nodes {
		if x, ok := p.snaps[name].Externals[a]; ok {
			return x.Owner
		}
	}
	return ""
}
