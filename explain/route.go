package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// route takes the packet from its interface to the node of its destination.
// False: it ends here, and the Answer says why.
func (w *walk) route() bool {
	src := w.src
	w.steps(Step{Name: StepInterface, Result: ResultOK, Node: src.Node, Text: fmt.Sprintf("%s/%s sends from %s (%s) on node %s, identity %d %s",
		src.Project, src.Workload, src.Addr.IP, src.MAC, src.Node, src.Identity, w.Source.Identity)})
	w.steps(Step{Name: StepSpoofing, Result: ResultOK, Node: src.Node, Text: fmt.Sprintf("the interface may send only from %s and %s", src.MAC, src.Addr.IP)})
	n, _ := w.network(src.Addr.VNI)
	w.steps(Step{Name: StepNetwork, Result: ResultOK, Node: src.Node, Text: fmt.Sprintf("Network %s/%s, VNI %d, Domain %s, default %s", n.Project, n.Name, n.VNI, n.Domain, word(n.Deny))})
	if !w.dstAddr.IsValid() {
		return w.lost(w.apart(n))
	}
	if w.dstAddr.Is6() != src.Addr.IP.Is6() {
		return w.lost(fmt.Sprintf("%s/%s has no address of the family of %s", src.Project, src.Workload, w.dstAddr))
	}
	known := w.endpoints(func(e snapshot.Endpoint) bool { return e.Addr == snapshot.Addr{VNI: src.Addr.VNI, IP: w.dstAddr} })
	// The source's own node decides where the packet goes.
	if s := w.snaps[src.Node]; s != nil {
		e, ok := s.Endpoints[snapshot.Addr{VNI: src.Addr.VNI, IP: w.dstAddr}]
		if known = nil; ok {
			known = []snapshot.Endpoint{e}
		}
	}
	if len(known) == 0 {
		if w.protocol == policy.ICMP && slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(w.dstAddr) && isGateway(p, w.dstAddr) }) {
			return w.gateway(n)
		}
		return w.lost(w.unknown(n))
	}
	w.dst = known[0]
	w.Destination = w.end(w.dst)
	text := fmt.Sprintf("%s is %s/%s on the same node", w.dstAddr, w.dst.Project, w.dst.Workload)
	if w.dst.Node != src.Node {
		to := w.node(w.dst.Node)
		text = fmt.Sprintf("%s is %s/%s on node %s: VXLAN to %s with VNI %d", w.dstAddr, w.dst.Project, w.dst.Workload, to.Name, to.Address, n.VNI)
	}
	w.steps(Step{Name: StepRoute, Result: ResultOK, Node: src.Node, Text: text})
	return true
}

// gateway: the node itself answers a ping to the gateway, whatever Policies say.
func (w *walk) gateway(n snapshot.Network) bool {
	w.Allow, w.Rule = true, policy.RuleID("gateway/"+n.Project+"/"+n.Name)
	w.Reason = fmt.Sprintf("%s is the gateway of the Network; the node answers a ping itself", w.dstAddr)
	w.steps(Step{Name: StepRoute, Result: ResultOK, Node: w.src.Node, Rule: w.Rule, Text: w.Reason})
	return false
}

func word(deny bool) string {
	if deny {
		return "deny"
	}
	return "open"
}

func (w *walk) lost(why string) bool {
	w.steps(Step{Name: StepRoute, Result: ResultNone, Node: w.src.Node, Rule: NoRoute, Text: why})
	return w.deny(NoRoute, "denied by "+string(NoRoute)+": "+why)
}

// apart says why no route leads to a Workload that is attached elsewhere.
func (w *walk) apart(n snapshot.Network) string {
	dests := w.of(w.dstWho)
	if slices.ContainsFunc(dests, func(d snapshot.Endpoint) bool { return d.Addr.VNI == n.VNI }) {
		return fmt.Sprintf("%s and %s/%s share Network %s/%s but no address family", w.dstWho, w.src.Project, w.src.Workload, n.Project, n.Name)
	}
	w.Destination = w.end(dests[0])
	o, _ := w.network(dests[0].Addr.VNI)
	if o.Domain != n.Domain {
		return fmt.Sprintf("%s is in Network %s, Domain %s: another tenant, and Domains are isolated from each other", w.dstWho, w.names(dests), o.Domain)
	}
	return fmt.Sprintf("%s is in Network %s, and Networks are isolated from each other", w.dstWho, w.names(dests))
}

// unknown says why no route leads to an address.
func (w *walk) unknown(n snapshot.Network) string {
	a := w.dstAddr
	i := slices.IndexFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	others := w.endpoints(func(e snapshot.Endpoint) bool { return e.Addr.IP == a })
	switch {
	case i >= 0 && isGateway(n.Prefixes[i], a):
		return fmt.Sprintf("%s is the gateway of Network %s/%s: the fabric itself, where nothing listens", a, n.Project, n.Name)
	case i >= 0:
		return fmt.Sprintf("nobody has the address %s in Network %s/%s", a, n.Project, n.Name)
	case len(others) > 0:
		return fmt.Sprintf("%s is in no prefix of Network %s/%s; Network %s has it, and Networks are isolated from each other", a, n.Project, n.Name, w.names(others))
	}
	return fmt.Sprintf("%s is in no prefix of Network %s/%s, which has no way out", a, n.Project, n.Name)
}

// isGateway: the first host address of the prefix is the fabric's.
func isGateway(p netip.Prefix, a netip.Addr) bool {
	if a.BitLen()-p.Bits() <= 1 {
		return a == p.Masked().Addr()
	}
	return a == p.Masked().Addr().Next()
}
