package explain

import (
	"fmt"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// maxFunctions bounds the walk along a chain.
const maxFunctions = 16

// overLink routes to an address of a linked Network. The node of its real
// place translates, where there is something to translate.
func (p *path) overLink(n snapshot.Network, e snapshot.Endpoint) *route {
	text := fmt.Sprintf("%s is %s of %s, which is linked", p.dst, p.who(e), p.called(e.Home.VNI))
	switch {
	case !p.sees(e.Project):
		text = fmt.Sprintf("%s is an address of a linked Network, of a project that you may not see", p.dst)
	case e.Node == p.src.Node:
		text += ", on the same node"
	default:
		text += ", on " + p.tunnel(e.Node, n.VNI)
	}
	p.step(Step{Name: StepRoute, Result: ResultOK, Node: p.src.Node, Text: text})
	return &route{row: e, port: p.port, deliver: func(p *path) *arrival { return p.across(e, p.src.Addr) }}
}

// across takes the packet from the Network of from to the real place of row.
func (p *path) across(row snapshot.Endpoint, from snapshot.Addr) *arrival {
	home := row
	home.Addr, home.Home, home.Chain = row.Real(), snapshot.Addr{}, snapshot.ChainKey{}
	s := p.snaps[row.Node]
	if s == nil {
		return &arrival{own: home} // side says what that means
	}
	if _, ok := s.Endpoints[row.Addr]; !ok {
		return p.notLinked(row, "does not know "+row.Addr.IP.String()+" as an address of "+p.called(row.Addr.VNI))
	}
	peer, ok := seenAs(s, home.Addr.VNI, from)
	if !ok {
		return p.notLinked(row, "has no address for "+from.IP.String()+" in "+p.called(home.Addr.VNI))
	}
	if peer != from.IP {
		p.TranslatedSource = peer.String()
	}
	text := fmt.Sprintf("node %s takes it to %s", row.Node, p.called(home.Addr.VNI))
	if !p.sees(row.Project) {
		text = "the other side takes it to its Network"
		p.TranslatedSource = ""
	} else if home.Addr.IP != row.Addr.IP || peer != from.IP {
		if home.Addr.IP != row.Addr.IP {
			p.TranslatedDestination = home.Addr.IP.String()
		}
		text += fmt.Sprintf(" and translates: from %s, there %s, to %s, there %s", from.IP, peer, row.Addr.IP, home.Addr.IP)
	} else {
		text += "; addresses stay as they are"
	}
	p.step(Step{Name: StepLink, Result: ResultOK, Node: p.hide(row), Text: text})
	return &arrival{own: home, peer: peer, peerRow: snapshot.Addr{VNI: home.Addr.VNI, IP: peer}, port: p.port}
}

// hide is the node of a row, as far as it may be told.
func (p *path) hide(row snapshot.Endpoint) string {
	if p.sees(row.Project) {
		return row.Node
	}
	return ""
}

func (p *path) notLinked(row snapshot.Endpoint, why string) *arrival {
	why = "the node of the destination " + why
	p.step(Step{Name: StepLink, Result: ResultNone, Node: p.hide(row), Rule: NoRoute, Text: why})
	p.ended(NoRoute, why)
	return nil
}

// intoChain routes to an address that has network functions in front.
func (p *path) intoChain(n snapshot.Network, e snapshot.Endpoint) *route {
	c := p.snaps[p.src.Node].Chains[e.Chain]
	text := fmt.Sprintf("%s is %s", p.dst, p.who(e))
	if e.Home.IP.IsValid() {
		text += " of " + p.called(e.Home.VNI)
	}
	text += fmt.Sprintf(", behind the chain of %s", p.linkName(e.Chain))
	if len(c.Hops) == 0 {
		why := fmt.Sprintf("function %s of %s has no healthy instance, and the Link is closed then", c.Function, p.linkName(e.Chain))
		if c.Function == "" {
			why = "the chain of " + p.linkName(e.Chain) + " is not known to the node"
		}
		p.step(Step{Name: StepChain, Result: ResultNone, Node: p.src.Node, Rule: ChainDown, Text: why})
		p.deny(ChainDown, why)
		return nil
	}
	p.step(Step{Name: StepRoute, Result: ResultOK, Node: p.src.Node, Text: text})
	return &route{row: e, port: p.port, deliver: func(p *path) *arrival { return p.through(e) }}
}

// linkName names a Link, as far as who asks may know it.
func (p *path) linkName(k snapshot.ChainKey) string {
	if project, _, _ := strings.Cut(k.Link, "/"); !p.sees(project) {
		return "a Link"
	}
	return "Link " + k.Link
}

// through takes the packet along a chain, function by function, to the real
// place of its destination.
func (p *path) through(row snapshot.Endpoint) *arrival {
	node, from := p.src.Node, p.src.Addr
	for range maxFunctions {
		s := p.snaps[node]
		if s == nil {
			return p.broken(node, row, "node "+node+" has no snapshot")
		}
		if row.Chain == (snapshot.ChainKey{}) {
			return p.emerge(row, from)
		}
		c := s.Chains[row.Chain]
		if len(c.Hops) == 0 {
			return p.broken(node, row, fmt.Sprintf("function %s has no healthy instance", c.Function))
		}
		h := c.Hops[p.pick(len(c.Hops))]
		next, ok := p.onward(h, row)
		if !ok {
			return p.broken(h.Node, row, fmt.Sprintf("function %s has no interface on the way to %s", c.Function, row.Addr.IP))
		}
		p.Via = append(slices.Clip(p.Via), h.Project+"/"+h.Workload)
		from, node = p.past(c, h, from, next), h.Node
		if from == next.self.Addr {
			// A function with its own address is a Workload like any other there.
			if v, _ := p.side(policy.Egress, next.self, next.row.Addr, next.row.Addr.IP, p.port); !v.open() {
				p.finish(v, leg{}, true, false)
				return nil
			}
		}
		row = next.row
	}
	return p.broken(node, row, "the chain has no end")
}

// onwards is the far side of a function.
type onwards struct {
	row  snapshot.Endpoint // the destination, as known there
	self snapshot.Endpoint // the function's own interface there
}

// onward finds the Network on the far side of a function, by what the node of
// the function knows of the destination.
func (p *path) onward(h snapshot.Hop, row snapshot.Endpoint) (onwards, bool) {
	s := p.snaps[h.Node]
	if s == nil {
		return onwards{}, false
	}
	home := row.Real()
	var own []snapshot.Endpoint
	for _, e := range s.Endpoints {
		if e.Project == h.Project && e.Workload == h.Workload && !e.Home.IP.IsValid() && e.Addr.VNI != h.Addr.VNI && e.Addr.IP.Is6() == row.Addr.IP.Is6() {
			own = append(own, e)
		}
	}
	slices.SortFunc(own, func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
	for _, e := range own {
		there, ok := s.Endpoints[snapshot.Addr{VNI: e.Addr.VNI, IP: row.Addr.IP}]
		if !ok || there.Real() != home {
			continue
		}
		if there.Chain == (snapshot.ChainKey{}) || there.Chain.Link == row.Chain.Link && there.Chain.Reverse == row.Chain.Reverse {
			return onwards{row: there, self: e}, true
		}
	}
	return onwards{}, false
}

// past tells of one function, and says who the sender is behind it.
func (p *path) past(c snapshot.Chain, h snapshot.Hop, from snapshot.Addr, next onwards) snapshot.Addr {
	mode := "routed"
	if c.Transparent {
		mode = "transparent"
	}
	behind := snapshot.Addr{VNI: next.row.Addr.VNI, IP: from.IP}
	if _, ok := p.snaps[h.Node].Endpoints[behind]; !ok {
		mode = "nat"
		behind.IP = next.self.Addr.IP
	}
	text := fmt.Sprintf("function %s (%s) of %s: %s/%s at %s on node %s", c.Function, mode, p.linkName(c.ChainKey), h.Project, h.Workload, h.Addr.IP, h.Node)
	if !p.sees(h.Project) {
		text = "a function of a project that you may not see"
		p.Via = p.Via[:len(p.Via)-1]
	} else if len(c.Hops) > 1 {
		var all []string
		for _, o := range c.Hops {
			all = append(all, o.Project+"/"+o.Workload)
		}
		text += fmt.Sprintf(", one of %d that a hash of addresses and ports chooses among, the same in both directions: %s", len(all), few(all))
	}
	if mode == "nat" && p.sees(h.Project) {
		text += fmt.Sprintf("; from there on the source is %s", behind.IP)
		p.TranslatedSource = behind.IP.String()
	}
	p.step(Step{Name: StepChain, Result: ResultOK, Node: p.hide(next.self), Text: text})
	return behind
}

// emerge: the last function sent the packet on, in the Network of the
// destination or in one that is linked with it.
func (p *path) emerge(row snapshot.Endpoint, from snapshot.Addr) *arrival {
	if row.Home.IP.IsValid() {
		return p.across(row, from)
	}
	text := fmt.Sprintf("%s is %s in %s", row.Addr.IP, p.who(row), p.called(row.Addr.VNI))
	if p.sees(row.Project) {
		text += ", on node " + row.Node
	}
	p.step(Step{Name: StepLink, Result: ResultOK, Node: p.hide(row), Text: text})
	return &arrival{own: row, peer: from.IP, peerRow: from, port: p.port}
}

// broken: the chain is not whole.
func (p *path) broken(node string, row snapshot.Endpoint, why string) *arrival {
	if !p.sees(row.Project) {
		node = ""
	}
	p.step(Step{Name: StepChain, Result: ResultNone, Node: node, Rule: ChainDown, Text: why})
	p.EgressRule = p.out.Rule
	p.deny(ChainDown, why)
	return nil
}
