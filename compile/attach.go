package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// judge gives every attachment its verdict and every address its one owner.
// What is live comes before what is wished, the earlier before the later.
func (d *draft) judge() {
	d.judged = make([]judged, len(d.f.attachments))
	seen := map[snapshot.AttachmentKey]string{}
	for i, a := range d.f.attachments {
		j := &d.judged[i]
		j.located = a
		j.refused = d.forbidden(j)
		if j.refused != "" {
			if told := a.declared != nil && (d.f.network == nil || d.f.project.missing != "" || d.barred(a.Project) != ""); told {
				continue
			}
			d.problem(about(codeRefused, workloadName(Key{a.Project, a.Workload}), "", "the attachment on node "+a.node+" is refused: "+j.refused, ""))
			continue
		}
		if first := seen[a.AttachmentKey]; first != "" && first != a.node {
			d.problem(warn(about(codeTwoNodes, workloadName(Key{a.Project, a.Workload}), "",
				fmt.Sprintf("it is attached to Network %s on node %s and on node %s", a.Network, first, a.node), "detach one or give one another name")))
		} else {
			seen[a.AttachmentKey] = a.node
		}
		d.claimLive(j)
	}
	for i := range d.judged {
		if j := &d.judged[i]; j.refused == "" {
			d.claimStatic(j)
		}
		d.answer(&d.judged[i])
	}
}

// forbidden says why the attachment may not be, whatever its addresses.
func (d *draft) forbidden(j *judged) string {
	f := d.f
	switch {
	case f.project.missing != "":
		return f.project.missing
	case f.network == nil:
		return "Network " + f.key.String() + " does not exist; create it or correct the name"
	case d.barred(j.Project) != "":
		return d.barred(j.Project)
	case f.twin != "":
		return fmt.Sprintf("Network %s has the VNI of Network %s", f.key, f.twin)
	case f.host(j.node).external:
		return "Node " + j.node + " is declared external and cannot attach anything"
	case d.vni != 0 && j.VNI != 0 && j.VNI != d.vni:
		return fmt.Sprintf("Network %s was deleted and made anew (VNI %d, now %d); detach and attach again", f.key, j.VNI, d.vni)
	}
	w := j.declared
	if w == nil {
		return ""
	}
	if w.Spec.Node != "" && w.Spec.Node != j.node {
		return fmt.Sprintf("Workload %s/%s is bound to node %s", j.Project, j.Workload, w.Spec.Node)
	}
	i := interfaceOf(w, f.key)
	if i < 0 {
		return fmt.Sprintf("the declared Workload %s/%s has no interface in Network %s", j.Project, j.Workload, j.Network)
	}
	j.iface = &w.Spec.Interfaces[i]
	j.static = addresses(j.iface.Addresses)
	slices.SortFunc(j.static, netip.Addr.Compare)
	return ""
}

// claimLive takes the addresses that the attachment has. One that an earlier
// attachment has refuses the later one as a whole.
func (d *draft) claimLive(j *judged) {
	for _, a := range j.Addresses {
		owner := d.owner(a)
		switch v, is := d.given[a]; {
		case is: // who was given it has lost it already
			j.refused = fmt.Sprintf("%s is the address of %s", a, v)
		case j.foreign && owner != (Key{}) && owner != (Key{j.Project, j.Workload}):
			j.refused = fmt.Sprintf("%s is declared by Workload %s, and is in no address block of node %s", a, owner, j.node)
		}
		if j.refused != "" {
			d.problem(about(codeInUse, workloadName(Key{j.Project, j.Workload}), "", "the attachment on node "+j.node+" is refused: "+j.refused, "detach it, or choose another address for that Workload"))
			return
		}
		c, taken := d.claims[a]
		if !taken {
			continue
		}
		j.refused = fmt.Sprintf("%s is in use by %s on node %s", a, c.workload, c.node)
		d.problem(about(codeInUse, workloadName(Key{j.Project, j.Workload}), "", "the attachment on node "+j.node+" is refused: "+j.refused, "detach one of them"))
		return
	}
	for _, a := range j.Addresses {
		d.claims[a] = claim{j.Project + "/" + j.Workload, j.node}
		if !d.space.inside.contains(a) {
			d.problem(about(codePrefixInUse, networkName(d.f.key), "spec.prefixes",
				fmt.Sprintf("no prefix contains %s, which %s/%s on node %s uses", a, j.Project, j.Workload, j.node), "put the prefix back until the Workload is gone"))
		}
	}
}

// claimStatic takes the addresses that the declared Workload names.
func (d *draft) claimStatic(j *judged) {
	me := Key{j.Project, j.Workload}
	for _, a := range j.static {
		if slices.Contains(j.Addresses, a) {
			continue
		}
		if code, why, fix := d.misplaced(a); code != "" {
			j.refused = fmt.Sprintf("%s %s; %s", a, why, fix)
			return // declared has told it
		}
		if owner := d.owner(a); owner != (Key{}) && owner != me {
			j.refused = fmt.Sprintf("%s is declared by Workload %s too", a, owner)
			d.release(j)
			return // declared has told it
		}
		if v, is := d.given[a]; is {
			j.refused = fmt.Sprintf("%s is the address of %s", a, v)
			d.release(j)
			return // givenVIPs has told it
		}
		if c, taken := d.claims[a]; taken && (c.workload != me.String() || c.node != j.node) {
			j.refused = fmt.Sprintf("%s is in use by %s on node %s", a, c.workload, c.node)
			d.problem(about(codeInUse, workloadName(me), d.staticField(j, a), "the attachment on node "+j.node+" is refused: "+j.refused, "detach that Workload or choose another address"))
			d.release(j)
			return
		}
		if holder, waits := d.heldBy(a, j.node); waits {
			j.waits = true
			d.problem(held(me, d.staticField(j, a), a, holder))
		}
		d.claims[a] = claim{me.String(), j.node}
	}
}

// release gives back what a refused attachment had taken.
func (d *draft) release(j *judged) {
	for a, c := range d.claims {
		if c.node == j.node && c.workload == j.Project+"/"+j.Workload {
			delete(d.claims, a)
		}
	}
}

func (d *draft) staticField(j *judged, a netip.Addr) string {
	i := interfaceOf(j.declared, d.f.key)
	return fmt.Sprintf("spec.interfaces[%d].addresses[%d]", i, slices.Index(j.iface.Addresses, a.String()))
}

// answer makes the Grant of a judged attachment, if it can be given already.
func (d *draft) answer(j *judged) {
	h := d.hosting(j.node)
	g := snapshot.Grant{AttachmentKey: j.AttachmentKey, Error: j.refused}
	if j.refused == "" {
		j.number = d.number(attachedIdentity(j.Attachment, j.declared, d.f.domainOf(j.Project)))
		if j.waits || d.vni == 0 || j.number == 0 || !d.f.host(j.node).numbered {
			return
		}
		g.VNI, g.Identity, g.Addresses = d.vni, j.number, j.static
		if j.iface != nil {
			g.Limit = limitOf(j.iface.Limit)
			if j.iface.MAC != "" {
				g.MAC, _ = snapshot.ParseMAC(j.iface.MAC)
			}
		}
	}
	h.grants = append(h.grants, g)
}

// declared looks at what the declared Workloads of the Network name.
func (d *draft) declared() {
	macs := map[string]string{}
	for _, w := range d.f.workloads {
		if d.f.network != nil && d.barred(w.Namespace) != "" {
			continue
		}
		d.workloads = append(d.workloads, w)
		for _, a := range addresses(w.Spec.Interfaces[interfaceOf(w, d.f.key)].Addresses) {
			if d.owners[a] == (Key{}) {
				d.owners[a] = Key{w.Namespace, w.Name}
			}
		}
	}
	for _, w := range d.f.workloads {
		key := Key{w.Namespace, w.Name}
		i := interfaceOf(w, d.f.key)
		iface := &w.Spec.Interfaces[i]
		field := fmt.Sprintf("spec.interfaces[%d]", i)
		if d.f.network == nil {
			d.problem(about(codeNoNetwork, workloadName(key), field+".network", "Network "+d.f.key.String()+" does not exist", "create it or correct the name"))
			continue
		}
		if p := d.f.projectOf(key.Project); p == nil || p.domain == "" {
			d.problem(noDomain(workloadName(key), key.Project, "the Workload is connected to nothing"))
		} else if why := d.barred(key.Project); why != "" {
			d.problem(about(codeNoConsent, workloadName(key), field+".network", why, "choose another Network, or ask its owner"))
			continue
		}
		if n := w.Spec.Node; n != "" && !d.f.host(n).exists {
			d.problem(about(codeNoNode, workloadName(key), "spec.node", "Node "+n+" does not exist", "let it join or correct the name"))
		}
		if iface.MAC != "" {
			if first := macs[iface.MAC]; first != "" {
				d.problem(about(codeDuplicateMAC, workloadName(key), field+".mac", "Workload "+first+" has the MAC address "+iface.MAC+" in the same Network", "choose another"))
			} else {
				macs[iface.MAC] = key.String()
			}
		}
		d.declaredAddresses(key, field, iface)
	}
}

func (d *draft) declaredAddresses(key Key, field string, iface *v1alpha1.Interface) {
	for j, text := range iface.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue // validation has refused it
		}
		d.named = append(d.named, a)
		field := fmt.Sprintf("%s.addresses[%d]", field, j)
		if code, why, fix := d.misplaced(a); code != "" {
			d.problem(about(code, workloadName(key), field, fmt.Sprintf("%s %s", a, why), fix))
		} else if owner := d.owner(a); owner != key {
			d.problem(about(codeDuplicate, workloadName(key), field, fmt.Sprintf("%s is declared by Workload %s too, which comes first", a, owner), "choose another address"))
		}
	}
}

// owner is the first declared Workload, by name, that names the address.
func (d *draft) owner(a netip.Addr) Key { return d.owners[a] }

// misplaced says why no Workload may have the address.
func (d *draft) misplaced(a netip.Addr) (code, why, fix string) {
	s := &d.space
	switch {
	case !s.inside.contains(a):
		return codeOutside, fmt.Sprintf("is in no prefix of Network %s (%s)", d.f.key, join(s.prefixes)), "choose an address inside"
	case s.reserved.contains(a):
		return codeReserved, "is in spec.reserved of Network " + d.f.key.String(), "choose another address or take it out of reserved"
	case slices.Contains(s.gateways, a):
		return codeSpecial, "is the gateway of Network " + d.f.key.String(), "the first address of a prefix belongs to the fabric; choose another address"
	case s.nobody.contains(a):
		return codeSpecial, "is an address of the nodes themselves, loopback, link-local or multicast, which nobody has in a Network", "choose another address"
	case s.special.contains(a):
		return codeSpecial, "is the network or broadcast address of a prefix of Network " + d.f.key.String(), "choose another address"
	}
	return "", "", ""
}

func join(prefixes []netip.Prefix) string {
	out := ""
	for i, p := range prefixes {
		if i > 0 {
			out += ", "
		}
		out += p.String()
	}
	return out
}

// heldBy finds a node other than the given one that holds the block of the
// address and has not confirmed that it leaves the address alone.
func (d *draft) heldBy(a netip.Addr, node string) (holder string, waits bool) {
	for _, b := range d.f.network.Status.Blocks {
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil || b.Node == node || !p.Contains(a) {
			continue
		}
		for _, e := range d.f.host(b.Node).echo {
			for _, r := range e.Excluded {
				if e.CIDR == p && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0 {
					return "", false
				}
			}
		}
		return b.Node, true
	}
	return "", false
}

func held(key Key, field string, a netip.Addr, holder string) v1alpha1.Problem {
	return about(codeHeld, workloadName(key), field, fmt.Sprintf("%s is in an address block of node %s, which has not confirmed yet that it leaves the address alone", a, holder),
		"wait for the node, or list the address in spec.static of the Network before it is needed")
}
