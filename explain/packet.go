package explain

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	routes "moire.dev/moire/proxy/route"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Ids of verdicts that no Policy made: something needed is missing. Records
// tell them as drop reasons of the same names.
const (
	NoRoute    policy.RuleID = "closed/no-route"
	NoSnapshot policy.RuleID = "closed/no-snapshot"
	NoExit     policy.RuleID = "closed/no-exit"
	NoBackend  policy.RuleID = "closed/no-backend"
	NoService  policy.RuleID = "closed/no-service"
	ChainDown  policy.RuleID = "closed/chain-down"
	HostClosed policy.RuleID = "closed/host-closed"
)

// Packet says what happens to the packet, from the snapshots alone.
func Packet(q Query, snaps map[string]*snapshot.Snapshot) Answer {
	w := &world{q: &q, snaps: snaps, nodes: slices.Sorted(maps.Keys(snaps))}
	from, to, protocol, err := q.parse()
	if err != nil {
		return Answer{Error: err.Error(), Steps: []Step{}}
	}
	head := Answer{Protocol: strings.ToLower(cmp.Or(q.Protocol, "tcp")), Port: q.Port, Steps: []Step{}}
	e, missing := w.findEnds(from, to)
	if e == nil {
		head.Error = missing
		return head
	}
	a := every(func(c *choices) Answer {
		p := &path{world: w, Answer: head, choices: c, ends: e, protocol: protocol, src: e.source, dst: e.addr, port: q.Port, name: cmp.Or(q.Name, e.dns)}
		p.Source = w.end(e.source)
		p.Steps = []Step{}
		if e.addr.IsValid() {
			p.Sent = at(e.addr, q.Port)
		}
		p.run()
		return p.Answer
	})
	verdict := &path{world: w, Answer: a}
	verdict.step(Step{Name: StepVerdict, Result: a.result(), Rule: a.Rule, Tier: a.Tier, Text: a.Reason})
	return verdict.Answer
}

// path is one packet on one of its ways.
type path struct {
	*world
	Answer
	*choices
	ends     *ends
	protocol uint8
	src      snapshot.Endpoint
	// dst and port, as the source's node sends them on.
	dst  netip.Addr
	port uint16
	// name by which dst was asked for.
	name string
	// out is what the source's end said.
	out leg
	// exchange is the request that is asked about; nil: none. rule is what routed it.
	exchange *exchange
	rule     *routes.Rule
	// fronted: the proxy of the source takes it, because of the address that it is sent to.
	fronted bool
	// opaque: it does not look into the bytes there, because they were said to be none of
	// its business.
	opaque bool
	// private: what routes it is of a project that who asks may not see.
	private bool
}

// route is where the source's node sends the packet.
type route struct {
	// row of the destination as the Policies of the source see it; without a
	// Workload it is outside.
	row snapshot.Endpoint
	// seen is the address under which the source sees it, where that is not
	// row's.
	seen netip.Addr
	port uint16
	// deliver takes it there. nil: it ended on the way, and the Answer says why.
	deliver func(*path) *arrival
}

// arrival is the packet as the node of the destination judges it.
type arrival struct {
	// own is who gets it; without a Node nobody judges.
	own snapshot.Endpoint
	// peer is who it comes from, as own sees it; peerRow is the row that tells
	// its identity.
	peer    netip.Addr
	peerRow snapshot.Addr
	port    uint16
	// stranger: it comes as from outside, whoever sent it.
	stranger bool
}

func (p *path) step(s Step) {
	s.Object = ObjectOf(s.Rule)
	if p.q.Origin != nil && s.Rule != "" {
		s.File, s.Line = p.q.Origin(s.Rule)
	}
	p.Answer.Steps = append(p.Answer.Steps, s)
}

// deny ends the walk for want of something.
func (p *path) deny(id policy.RuleID, why string) {
	p.Allow, p.Rule, p.Decides = false, id, cmp.Or(p.Decides, ByKernel)
	p.Reason = "denied by " + string(id) + ": " + why
}

func result(allow bool) string {
	if allow {
		return ResultAllow
	}
	return ResultDeny
}

// result of the whole.
func (a *Answer) result() string {
	if a.Proxy {
		return ResultProxy
	}
	return result(a.Allow)
}

// run takes the packet from its source to its verdict.
func (p *path) run() {
	switch {
	case p.ends.health:
		p.health()
		return
	case p.ends.outside:
		p.fromOutside()
		return
	}
	n := p.begin()
	if p.dst.IsValid() && p.dst.Is6() != p.src.Addr.IP.Is6() {
		p.lost(NoRoute, fmt.Sprintf("%s has no address of the family of %s", p.who(p.src), p.dst))
		return
	}
	if p.ends.dns != "" {
		if !p.nameOutside(n) {
			return
		}
	} else if !p.dst.IsValid() {
		p.lost(NoRoute, p.apart(n))
		return
	}
	if p.platform(n) {
		return
	}
	if q := p.q.Request; q != nil {
		p.exchange = q.begin(p.authority())
		p.step(Step{Name: StepRequest, Result: ResultOK, Node: p.src.Node, Text: p.who(p.src) + " asks for " + p.exchange.String()})
	}
	r := p.service(n)
	if r == nil {
		return
	}
	p.judge(r)
}

// begin is what the source's node looks at first.
func (p *path) begin() snapshot.Network {
	src := p.src
	p.step(Step{Name: StepInterface, Result: ResultOK, Node: src.Node, Text: fmt.Sprintf("%s/%s sends from %s (%s) on node %s, identity %d %s",
		src.Project, src.Workload, src.Addr.IP, src.MAC, src.Node, src.Identity, p.Source.Identity)})
	p.step(Step{Name: StepSpoofing, Result: ResultOK, Node: src.Node, Text: fmt.Sprintf("the interface may send only from %s and %s", src.MAC, src.Addr.IP)})
	n, _ := p.network(src.Addr.VNI)
	p.step(Step{Name: StepNetwork, Result: ResultOK, Node: src.Node, Text: fmt.Sprintf("Network %s/%s, VNI %d, Domain %s, default %s", n.Project, n.Name, n.VNI, n.Domain, word(n.Deny))})
	return n
}

func word(deny bool) string {
	if deny {
		return "deny"
	}
	return "open"
}

// judge asks the Policies of both ends, each as its own node knows them.
func (p *path) judge(r *route) {
	if p.src.Addr == r.row.Addr && p.Service == "" {
		p.Allow, p.Reason = true, "source and destination are the same interface: the packet never leaves the Workload and no Policy is asked"
		return
	}
	seen := r.seen
	if !seen.IsValid() {
		seen = r.row.Addr.IP
	}
	egress, eOK := p.side(policy.Egress, p.src, r.row.Addr, seen, r.port)
	p.out = egress
	if !egress.open() {
		led := p.refusedAtSource(r, egress)
		p.finish(egress, leg{}, eOK, false)
		if led {
			p.Decides = ByProxy
		}
		if egress.Shadow.Allow {
			p.trial(r, egress)
		}
		return
	}
	a := r.deliver(p)
	if a == nil {
		return
	}
	if a.own.Node == "" {
		if egress.Proxy {
			p.needs(AtSource, p.src, string(egress.asks))
		}
		p.finish(egress, allowed, eOK, false)
		return
	}
	ingress, iOK := p.side(policy.Ingress, a.own, a.peerRow, a.peer, a.port)
	if (ingress.Allow || ingress.Proxy) && !p.meet(a, egress, ingress) {
		return
	}
	p.finish(egress, ingress, eOK, iOK)
}

// lost ends the walk on the source's node.
func (p *path) lost(id policy.RuleID, why string) *route {
	p.step(Step{Name: StepRoute, Result: ResultNone, Node: p.src.Node, Rule: id, Text: why})
	p.deny(id, why)
	return nil
}

// trial: only Policies in mode audit would let it out; ask the other end what
// then.
func (p *path) trial(r *route, egress leg) {
	t := *p
	t.Answer.Steps = nil
	a := r.deliver(&t)
	if a == nil {
		return
	}
	ingress := allowed
	if a.own.Node != "" {
		ingress, _ = t.side(policy.Ingress, a.own, a.peerRow, a.peer, a.port)
	}
	p.shadow(egress, ingress)
}
