package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// plain routes to dst inside the Network of the source, as its node knows it.
// nil: it ends here, and the Answer says why.
func (p *path) plain(n snapshot.Network) *route {
	e, ok := p.lookup(snapshot.Addr{VNI: n.VNI, IP: p.dst})
	if !ok {
		return p.nowhere(n)
	}
	if p.Destination == nil {
		p.Destination = p.end(e)
	}
	switch {
	case e.Chain != snapshot.ChainKey{}:
		return p.intoChain(n, e)
	case e.Home.IP.IsValid():
		return p.overLink(n, e)
	}
	text := fmt.Sprintf("%s is %s on the same node", p.dst, p.who(e))
	if e.Node != p.src.Node {
		text = fmt.Sprintf("%s is %s on %s", p.dst, p.who(e), p.tunnel(e.Node, n.VNI))
	}
	p.step(Step{Name: StepRoute, Result: ResultOK, Node: p.src.Node, Text: text})
	return &route{row: e, port: p.port, deliver: func(p *path) *arrival {
		peer := p.src.Addr
		if p.src.Addr == e.Addr && !p.fronted { // a Service brought the packet back to its sender
			peer.IP = p.ends.addr
			p.TranslatedSource = peer.IP.String()
		}
		return &arrival{own: e, peer: peer.IP, peerRow: p.src.Addr, port: p.port}
	}}
}

// lookup is what the source's node knows of an address; where that is external
// and knows nothing, what any node knows.
func (p *path) lookup(a snapshot.Addr) (snapshot.Endpoint, bool) {
	if s := p.snaps[p.src.Node]; s != nil {
		e, ok := s.Endpoints[a]
		return e, ok
	}
	known := p.endpoints(func(e snapshot.Endpoint) bool { return e.Addr == a })
	if len(known) == 0 {
		return snapshot.Endpoint{}, false
	}
	return known[0], true
}

// tunnel says how a packet gets to another node.
func (p *path) tunnel(node string, v snapshot.VNI) string {
	to := p.node(node)
	return fmt.Sprintf("node %s: VXLAN to %s with VNI %d", to.Name, to.Address, v)
}

// nowhere: the Network does not know the address.
func (p *path) nowhere(n snapshot.Network) *route {
	a := p.dst
	i := slices.IndexFunc(n.Prefixes, func(x netip.Prefix) bool { return x.Contains(a) })
	others := p.endpoints(func(e snapshot.Endpoint) bool { return e.Addr.IP == a && !e.Home.IP.IsValid() })
	switch {
	case i >= 0 && p.protocol == policy.ICMP && isGateway(n.Prefixes[i], a):
		p.answered(n, fmt.Sprintf("%s is the gateway of the Network; the node answers a ping itself", a))
		return nil
	case i >= 0 && isGateway(n.Prefixes[i], a):
		return p.lost(NoRoute, fmt.Sprintf("%s is the gateway of Network %s/%s: the fabric itself, where nothing listens", a, n.Project, n.Name))
	case i >= 0:
		return p.lost(NoRoute, fmt.Sprintf("nobody has the address %s in Network %s/%s", a, n.Project, n.Name))
	}
	if snapshot.StaysInside(a) {
		return p.lost(NoRoute, fmt.Sprintf("%s is an address that never leaves its link or host", a))
	}
	if s := p.snaps[p.src.Node]; s != nil {
		if x, ok := s.Exits[n.VNI]; ok {
			return p.leave(n, x)
		}
	}
	if len(others) > 0 {
		return p.lost(NoExit, fmt.Sprintf("%s is in no prefix of Network %s/%s; Network %s has it, and Networks are isolated from each other", a, n.Project, n.Name, p.names(others)))
	}
	return p.lost(NoExit, fmt.Sprintf("%s is in no prefix of Network %s/%s, which has no way out", a, n.Project, n.Name))
}

// answered: the node itself answers a ping, whatever Policies say.
func (p *path) answered(n snapshot.Network, why string) {
	p.Allow, p.Rule, p.Reason = true, policy.RuleID("gateway/"+n.Project+"/"+n.Name), why
	p.step(Step{Name: StepRoute, Result: ResultOK, Node: p.src.Node, Rule: p.Rule, Text: p.Reason})
}

// apart says why the source's Network has no address for what was asked.
func (p *path) apart(n snapshot.Network) string {
	to := p.ends.to
	if to.dns != "" {
		return fmt.Sprintf("Network %s/%s has no address of the family for the name %s, and no way out", n.Project, n.Name, to.dns)
	}
	dests := p.of(to)
	if len(dests) == 0 {
		return p.serviceApart(n)
	}
	if slices.ContainsFunc(dests, func(d snapshot.Endpoint) bool { return d.Addr.VNI == n.VNI }) {
		return fmt.Sprintf("%s and %s share Network %s/%s but no address family", to, p.who(p.src), n.Project, n.Name)
	}
	p.Destination = p.end(dests[0])
	o, _ := p.network(dests[0].Addr.VNI)
	if o.Domain != n.Domain {
		return fmt.Sprintf("%s is in Network %s, Domain %s: another tenant, and Domains are isolated from each other", to, p.names(dests), o.Domain)
	}
	return fmt.Sprintf("%s is in Network %s, and Networks are isolated from each other", to, p.names(dests))
}

// isGateway: the first host address of the prefix is the fabric's.
func isGateway(p netip.Prefix, a netip.Addr) bool {
	if a.BitLen()-p.Bits() <= 1 {
		return a == p.Masked().Addr()
	}
	return a == p.Masked().Addr().Next()
}
