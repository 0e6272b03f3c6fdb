package compile

import (
	"fmt"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// exit makes the way out of the Network. The gateway is the first that is
// alive; when none is, the first stays, because nothing may leave under
// another address.
func (d *jointDraft) exit() {
	base := d.facts.base
	if !base.live || base.facts.network.Spec.Outside == nil {
		return
	}
	o := base.facts.network.Spec.Outside
	e := &snapshot.Exit{VNI: base.row.VNI}
	for _, p := range o.Hosts {
		r := portRange(p)
		e.Hosts = append(e.Hosts, snapshot.HostPort{Protocol: r.Protocol, First: r.First, Last: r.Last})
	}
	if o.Mode != v1alpha1.OutsideGateway {
		d.joint.exit = e
		return
	}
	name := networkName(base.facts.key)
	gateways, refused := o.Gateways, false
	for i, addr := range egressOf(base.facts.network) {
		own := d.facts.egress[i]
		switch {
		case own.refused != "":
			refused = true
			d.problem(about(codeEgressTaken, name, "spec.outside.addresses", fmt.Sprintf("%s %s", addr, own.refused), "choose another address"))
			continue
		case own.owner == base.facts.key:
		case own.owner.Project != base.facts.key.Project:
			d.problem(about(codeEgressTaken, name, "spec.outside.addresses", fmt.Sprintf("%s is the egress address of another project", addr), "choose another address"))
			continue
		default:
			gateways = own.gateways // one address is on one node
		}
		e.Addresses = append(e.Addresses, addr)
		d.externals = append(d.externals, snapshot.External{Address: addr, Owner: networkName(own.owner)})
	}
	for i, g := range o.Gateways {
		if !slices.Contains(d.facts.nodes, g) {
			d.problem(about(codeNoNode, name, fmt.Sprintf("spec.outside.gateways[%d]", i), "Node "+g+" does not exist or has no agent", "let it join or correct the name"))
		}
	}
	for _, g := range gateways {
		if slices.Contains(d.facts.nodes, g) && (e.Gateway == "" || slices.Contains(d.facts.away, e.Gateway) && !slices.Contains(d.facts.away, g)) {
			e.Gateway = g
		}
	}
	if e.Gateway == "" || len(e.Addresses) == 0 {
		d.externals = nil
		if refused && len(e.Addresses) == 0 {
			return // that is told
		}
		d.problem(about(codeGateway, name, "spec.outside", "no gateway can hold an egress address, so nothing leaves the Network", "name a Node that exists and an address that is free"))
		return
	}
	if slices.Contains(d.facts.away, e.Gateway) {
		d.problem(warn(about(codeGateway, name, "spec.outside.gateways", "all gateways are away, so nothing leaves the Network", "wait for one, or add another")))
	}
	for i := range d.externals {
		d.externals[i].Node = e.Gateway
	}
	d.joint.exit = e
}

// floatingRows are the masquerades and external addresses of the FloatingIPs
// that lead into the Network. The first by name of a family counts.
func (d *jointDraft) floatingRows() {
	seen := map[snapshot.Addr]bool{}
	for _, f := range d.facts.home {
		if !f.external() {
			continue
		}
		if f.holder != "" {
			d.externals = append(d.externals, snapshot.External{Address: f.addr.IP, Node: f.holder, Owner: f.name()})
		}
		for _, m := range f.masquerades {
			if m.Addr.VNI == d.facts.base.row.VNI && !seen[m.Addr] {
				seen[m.Addr] = true
				d.masquerades = append(d.masquerades, m)
			}
		}
	}
}
