package explain

import (
	"fmt"
	"net/netip"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// service exchanges the address of a Service for a backend, and routes. nil:
// it ends here, and the Answer says why.
func (p *path) service(n snapshot.Network) *route {
	s := p.snaps[p.src.Node]
	here := snapshot.Addr{VNI: n.VNI, IP: p.dst}
	if s == nil {
		return p.plain(n)
	}
	x, found := p.answers(s, here)
	if !found {
		if ports := portsOf(s, here); len(ports) > 0 {
			return p.otherPort(n, ports)
		}
		return p.plain(n)
	}
	p.Service = p.titled(x)
	if x.Floating {
		return p.floating(s, x)
	}
	if f, why, ok := p.frontend(s, x); ok {
		return p.front(n, s, x, f, why)
	}
	if len(x.Backends) == 0 {
		return p.noBackend(StepService, p.src.Node, x)
	}
	b, text := p.choose(s, x, "backend")
	if x.Affinity > 0 {
		text += fmt.Sprintf("; a client stays with its own for %s", x.Affinity)
	}
	p.step(Step{Name: StepService, Result: ResultOK, Node: p.src.Node, Text: text})
	p.dst = b.Addr.IP
	if b.Port != 0 {
		p.port = b.Port
	}
	p.Backend = at(p.dst, p.port)
	return p.plain(n)
}

// choose picks one of the backends, and tells of all.
func (p *path) choose(s *snapshot.Snapshot, x snapshot.Service, what string) (snapshot.Backend, string) {
	b := x.Backends[p.pick(len(x.Backends))]
	text := fmt.Sprintf("%s is %s: ", at(p.dst, p.port), p.title(x))
	if len(x.Backends) == 1 {
		return b, text + "its only " + what + " is " + p.backend(s, b)
	}
	return b, text + fmt.Sprintf("a hash of addresses and ports chooses one of %d %ss: %s", len(x.Backends), what, p.backends(s, x.Backends))
}

// answers finds what of a Service answers to the packet: its port, or all of
// the address.
func (p *path) answers(s *snapshot.Snapshot, a snapshot.Addr) (snapshot.Service, bool) {
	x, ok := s.Services[snapshot.ServiceKey{Addr: a, Protocol: p.protocol, Port: p.port}]
	if !ok || p.protocol == policy.ICMP {
		x, ok = s.Services[snapshot.ServiceKey{Addr: a}]
	}
	return x, ok
}

// otherPort: the address is a Service's, the port is not.
func (p *path) otherPort(n snapshot.Network, ports []snapshot.Service) *route {
	x := ports[0]
	if p.protocol == policy.ICMP {
		p.answered(n, fmt.Sprintf("%s is the address of %s; the node answers a ping itself", p.dst, p.title(x)))
		return nil
	}
	var has []string
	for _, o := range ports {
		has = append(has, fmt.Sprintf("%s/%d", protocolName(o.Protocol), o.Port))
	}
	why := fmt.Sprintf("%s has no port %s/%d; it has %s", p.title(x), p.Protocol, p.port, few(has))
	p.step(Step{Name: StepService, Result: ResultNone, Node: p.src.Node, Rule: NoService, Text: why})
	p.deny(NoService, why)
	return nil
}

func protocolName(n uint8) string {
	for name, number := range protocols {
		if number == n {
			return name
		}
	}
	return fmt.Sprint(n)
}

func (p *path) noBackend(step, node string, x snapshot.Service) *route {
	why := p.title(x) + " has no backend that is well"
	if len(x.Leaving) > 0 {
		why += fmt.Sprintf("; %d are being drained and get no new sessions", len(x.Leaving))
	}
	p.step(Step{Name: step, Result: ResultNone, Node: node, Rule: NoBackend, Text: why})
	p.deny(NoBackend, why)
	return nil
}

// titled is project/name of a Service or FloatingIP, as far as it may be seen.
func (p *path) titled(x snapshot.Service) string {
	if !p.sees(x.Project) {
		return ""
	}
	return x.Project + "/" + x.Name
}

func (p *path) title(x snapshot.Service) string {
	kind := "Service"
	if x.Floating {
		kind = "FloatingIP"
	}
	if name := p.titled(x); name != "" {
		return kind + " " + name
	}
	return "a " + kind + " of a project that you may not see"
}

// backend describes one backend.
func (p *path) backend(s *snapshot.Snapshot, b snapshot.Backend) string {
	text := at(b.Addr.IP, b.Port)
	if e, ok := s.Endpoints[b.Addr]; ok {
		text = fmt.Sprintf("%s at %s on node %s", p.who(e), text, e.Node)
		if !p.sees(e.Project) {
			text = p.who(e)
		}
	}
	return text
}

func (p *path) backends(s *snapshot.Snapshot, bs []snapshot.Backend) string {
	var out []string
	weighted := false
	for _, b := range bs {
		weighted = weighted || b.Weight != bs[0].Weight
	}
	for _, b := range bs {
		text := p.backend(s, b)
		if weighted {
			text += fmt.Sprintf(" (weight %d)", b.Weight)
		}
		out = append(out, text)
	}
	return few(out)
}

// serviceApart says why the Network has no address of a Service.
func (p *path) serviceApart(n snapshot.Network) string {
	all := p.servicesOf(p.ends.to)
	if len(all) == 0 {
		return p.missing(p.ends.to)
	}
	x := all[0]
	if x.Addr.VNI == n.VNI {
		return fmt.Sprintf("%s has no address of the family in Network %s/%s", p.title(x), n.Project, n.Name)
	}
	if x.Addr.VNI == snapshot.Outside {
		return fmt.Sprintf("%s has the address %s outside, and Network %s/%s has no way out", p.title(x), x.Addr.IP, n.Project, n.Name)
	}
	return fmt.Sprintf("%s has its address in %s, not in Network %s/%s", p.title(x), p.called(x.Addr.VNI), n.Project, n.Name)
}

// floating routes to an address of this Network that stands for Workloads of
// another. The packet travels as it was sent; the node of the target makes the
// exchange, choosing among its own targets.
func (p *path) floating(s *snapshot.Snapshot, x snapshot.Service) *route {
	node := p.src.Node
	if p.src.Addr.VNI == snapshot.Outside {
		node = s.Node
	}
	if len(x.Backends) == 0 {
		return p.noBackend(StepFloating, node, x)
	}
	b, text := p.choose(s, x, "target")
	p.step(Step{Name: StepFloating, Result: ResultOK, Node: node, Text: text})
	if b.Node != node && p.sees(x.Project) {
		p.step(Step{Name: StepRoute, Result: ResultOK, Node: node, Text: "as it is, to " + p.tunnel(b.Node, x.Addr.VNI)})
	}
	row := s.Endpoints[b.Addr]
	row.Addr = b.Addr
	p.Destination = p.end(row)
	return &route{row: row, seen: p.dst, port: p.port, deliver: func(p *path) *arrival { return p.target(x, b) }}
}

// target is what the node of a FloatingIP's target does.
func (p *path) target(x snapshot.Service, b snapshot.Backend) *arrival {
	s := p.snaps[b.Node]
	if s == nil {
		why := "node " + b.Node + " has no snapshot"
		p.step(Step{Name: StepFloating, Result: ResultDeny, Node: b.Node, Rule: NoSnapshot, Text: why})
		p.ended(NoSnapshot, why)
		return nil
	}
	y, ok := s.Services[x.ServiceKey]
	var own []snapshot.Backend
	for _, c := range y.Backends {
		if c.Node == b.Node {
			own = append(own, c)
		}
	}
	if !ok || len(own) == 0 {
		why := fmt.Sprintf("node %s does not know %s, or no target of it that it has", b.Node, p.title(x))
		p.step(Step{Name: StepFloating, Result: ResultNone, Node: b.Node, Rule: NoBackend, Text: why})
		p.ended(NoBackend, why)
		return nil
	}
	c := own[0]
	if len(own) > 1 {
		c = own[p.pick(len(own))]
	}
	port := p.port
	if c.Port != 0 {
		port = c.Port
	}
	row := s.Endpoints[c.Addr]
	row.Addr, row.Node = c.Addr, b.Node
	p.Destination = p.end(row)
	text := "the other side takes it to its target"
	if p.sees(row.Project) {
		p.Backend = at(c.Addr.IP, port)
		p.TranslatedDestination = p.Backend
		text = fmt.Sprintf("node %s takes it to %s, with %s for %s; the source stays %s", b.Node, p.called(c.Addr.VNI), p.Backend, at(x.Addr.IP, x.Port), p.src.Addr.IP)
	}
	p.step(Step{Name: StepFloating, Result: ResultOK, Node: p.hide(row), Text: text})
	return &arrival{own: row, peer: p.src.Addr.IP, peerRow: p.src.Addr, port: port, stranger: true}
}

// ended ends the walk on the node of the destination.
func (p *path) ended(id policy.RuleID, why string) {
	p.EgressRule, p.IngressRule, p.Direction = p.out.Rule, id, policy.Ingress.String()
	p.deny(id, why)
}

// fromOutside is a packet that comes from the underlay to a FloatingIP of an
// external pool.
func (p *path) fromOutside() {
	if p.Source == nil {
		p.Source = &End{VNI: uint32(snapshot.Outside), Address: p.src.Addr.IP}
	}
	holder, s := p.holder(p.dst)
	if s == nil {
		why := fmt.Sprintf("no node answers for %s on the underlay", p.dst)
		p.step(Step{Name: StepOutside, Result: ResultNone, Rule: NoRoute, Text: why})
		p.deny(NoRoute, why)
		return
	}
	p.step(Step{Name: StepOutside, Result: ResultOK, Node: holder, Text: fmt.Sprintf("%s comes from outside to %s, for which node %s answers on the underlay", p.src.Addr.IP, p.dst, holder)})
	a := p.comeIn(s)
	if a == nil {
		return
	}
	i, ok := p.side(policy.Ingress, a.own, a.peerRow, a.peer, a.port)
	if (i.Allow || i.Proxy) && !p.meet(a, allowed, i) {
		return
	}
	p.finish(allowed, i, false, ok)
}

// holder is the node that answers for an address on the underlay.
func (p *path) holder(a netip.Addr) (string, *snapshot.Snapshot) {
	for _, name := range p.nodes {
		if x, ok := p.snaps[name].Externals[a]; ok && p.snaps[x.Node] != nil {
			return x.Node, p.snaps[x.Node]
		}
	}
	return "", nil
}

// comeIn takes a packet from outside to the target of a FloatingIP.
func (p *path) comeIn(s *snapshot.Snapshot) *arrival {
	here := snapshot.Addr{VNI: snapshot.Outside, IP: p.dst}
	x, found := p.answers(s, here)
	if !found {
		ports := portsOf(s, here)
		if len(ports) > 0 {
			why := fmt.Sprintf("%s has no port %s/%d", p.title(ports[0]), p.Protocol, p.port)
			p.step(Step{Name: StepFloating, Result: ResultNone, Node: s.Node, Rule: NoService, Text: why})
			p.deny(NoService, why)
			return nil
		}
		why := fmt.Sprintf("no FloatingIP has the address %s", p.dst)
		p.step(Step{Name: StepFloating, Result: ResultNone, Node: s.Node, Rule: NoRoute, Text: why})
		p.deny(NoRoute, why)
		return nil
	}
	p.Service = p.titled(x)
	r := p.floating(s, x)
	if r == nil {
		return nil
	}
	return r.deliver(p)
}
