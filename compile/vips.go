package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/api/v1alpha1"
)

// Kinds that have addresses of their own.
const (
	KindService    = "Service"
	KindFloatingIP = "FloatingIP"
)

// vipOwner is a Service or FloatingIP, which may have an address of each
// family.
type vipOwner struct {
	kind string
	key  Key
}

func (v vipOwner) String() string { return v.kind + " " + v.key.String() }

// wish is what one Service or FloatingIP wants of the Network.
type wish struct {
	vipOwner
	field   string
	named   []netip.Addr // in spec; none: one is chosen
	has     []netip.Addr // in status
	v6      []bool       // the families that are chosen, when none is named
	refused string
}

// findWishes lists what the Services and FloatingIPs of the Network want, in
// the order in which they get it.
func (d *draft) findWishes() []wish {
	var out []wish
	families := []bool{}
	for _, v6 := range []bool{false, true} {
		if slices.ContainsFunc(d.space.prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }) {
			families = append(families, v6)
		}
	}
	for _, s := range d.f.services {
		if d.f.network.Spec.External {
			break // networkProblems has told it
		}
		i := slices.IndexFunc(s.Spec.Networks, func(n v1alpha1.ServiceNetwork) bool { return n.Network == d.f.key.Name })
		w := wish{vipOwner: vipOwner{KindService, Key{s.Namespace, s.Name}}, field: fmt.Sprintf("spec.networks[%d]", i), named: addresses(s.Spec.Networks[i].Addresses), v6: families}
		for _, a := range s.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Network == d.f.key.Name {
				w.has = append(w.has, ip)
			}
		}
		out = append(out, w)
	}
	for _, f := range d.f.floats {
		out = append(out, wish{vipOwner: vipOwner{KindFloatingIP, Key{f.Namespace, f.Name}}, field: "spec.pool", refused: f.refused,
			named: addresses([]string{f.Spec.Address}), has: addresses([]string{f.Status.Address}),
			v6: []bool{d.space.floating.size(false) == 0 && d.space.floating.size(true) > 0}})
	}
	return out
}

// readTaken reads which addresses the Network says that somebody took who still
// wants them. They may not stand in the status of their owners yet.
func (d *draft) readTaken() {
	if len(d.f.network.Status.Taken) == 0 {
		return
	}
	wanted := map[string]wish{}
	for _, w := range d.wishes {
		if w.refused == "" {
			wanted[w.String()] = w
		}
	}
	for _, t := range d.f.network.Status.Taken {
		a, err := netip.ParseAddr(t.Address)
		w, wants := wanted[t.By]
		if err != nil || !wants || len(w.named) > 0 && !slices.Contains(w.named, a) {
			continue
		}
		d.taken[a] = t.By
		d.kept = append(d.kept, a)
	}
}

// takenFor is an address that the owner took and that is not in its status.
func (d *draft) takenFor(w wish, v6 bool) netip.Addr {
	var out netip.Addr
	for a, by := range d.taken {
		_, given := d.given[a]
		_, claimed := d.claims[a]
		if code, _, _ := d.misplacedVIP(w.kind, a); code != "" || by != w.String() || a.Is6() != v6 || given || claimed || d.owner(a) != (Key{}) {
			continue
		}
		if _, waits := d.heldBy(a, ""); !waits && (!out.IsValid() || a.Less(out)) {
			out = a
		}
	}
	return out
}

// givenVIPs finds the addresses that Services and FloatingIPs have. What a
// Workload that was given it uses already, is not theirs.
func (d *draft) givenVIPs() {
	if d.f.network == nil {
		return
	}
	d.readTaken()
	live := map[netip.Addr]bool{}
	for _, a := range d.f.attachments {
		for _, ip := range a.Addresses {
			live[ip] = live[ip] || !a.foreign
		}
	}
	for _, w := range d.wishes {
		if w.refused != "" {
			continue
		}
		for _, a := range w.has {
			_, taken := d.given[a]
			if by := d.taken[a]; by != "" && by != w.String() {
				continue // its status is out of date: the Network is the truth
			}
			if code, _, _ := d.misplacedVIP(w.kind, a); code != "" || taken || live[a] || len(w.named) > 0 && !slices.Contains(w.named, a) || d.familyOf(w, a.Is6()).IsValid() {
				continue
			}
			d.given[a] = w.vipOwner
			d.vipsOf[w.vipOwner] = append(d.vipsOf[w.vipOwner], a)
			d.kept = append(d.kept, a)
			if owner := d.owner(a); owner != (Key{}) {
				d.problem(about(codeInUse, workloadName(owner), "", fmt.Sprintf("%s is the address of %s", a, d.given[a]), "choose another address"))
			}
		}
	}
}

// familyOf is the address of the family that the wish has; invalid: none.
func (d *draft) familyOf(w wish, v6 bool) netip.Addr {
	for _, a := range d.vipsOf[w.vipOwner] {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// wishedVIPs says which addresses are still to be given, and what stands in
// the way of the others.
func (d *draft) wishedVIPs() {
	if d.f.twin != "" || d.f.project.missing != "" {
		return
	}
	var free [2]ranges
	for _, w := range d.wishes {
		if w.refused != "" {
			d.problem(about(codeNoConsent, w.String(), w.field, w.refused, ""))
			continue
		}
		for i, a := range w.named {
			if d.familyOf(w, a.Is6()) != a {
				d.wishNamed(w, a, i)
			}
		}
		if len(w.named) > 0 {
			continue
		}
		if w.kind == KindFloatingIP && len(d.space.floating) == 0 {
			d.problem(about(codeNotInPool, w.String(), w.field, "Network "+d.f.key.String()+" sets no addresses apart for FloatingIPs", "its owner would list some in spec.floating"))
			continue
		}
		for _, v6 := range w.v6 {
			if d.familyOf(w, v6).IsValid() {
				continue
			}
			pool := &free[0]
			if w.kind == KindFloatingIP {
				pool = &free[1]
			}
			if *pool == nil {
				*pool = d.freeVIPs(w.kind)
			}
			d.wishAny(w, pool, v6)
		}
	}
	for _, addrs := range d.vipsOf {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
}

// wishNamed asks for an address that spec names.
func (d *draft) wishNamed(w wish, a netip.Addr, i int) {
	object, field := w.String(), fmt.Sprintf("%s.addresses[%d]", w.field, i)
	if w.kind == KindFloatingIP {
		field = "spec.address"
	}
	if code, why, fix := d.misplacedVIP(w.kind, a); code != "" {
		d.problem(about(code, object, field, fmt.Sprintf("%s %s", a, why), fix))
		return
	}
	by := ""
	if v, is := d.given[a]; is {
		by = v.String()
	} else if owner := d.owner(a); owner != (Key{}) {
		by = workloadName(owner)
	} else if c, is := d.claims[a]; is {
		by = "Workload " + c.workload + " on node " + c.node
	} else if d.needed[a] {
		by = "another Service or FloatingIP that comes first"
	} else if d.taken[a] != w.String() {
		by = d.taken[a]
	}
	if by != "" {
		d.problem(about(codeVIPTaken, object, field, fmt.Sprintf("%s is the address of %s", a, by), "choose another address"))
		return
	}
	d.kept = append(d.kept, a)
	if holder, waits := d.heldBy(a, ""); waits {
		d.problem(about(codeHeld, object, field, fmt.Sprintf("%s is in an address block of node %s, which has not confirmed yet that it leaves the address alone", a, holder),
			"wait for the node, or list the address in spec.services or spec.static of the Network before it is needed"))
		return
	}
	d.need(w, a)
}

func (d *draft) need(w wish, a netip.Addr) {
	d.needed[a] = true
	d.addresses = append(d.addresses, AddressNeed{Kind: w.kind, Key: w.key, Network: d.f.key, Address: a})
}

// wishAny chooses a free address: for a Service the last, for a FloatingIP the
// first.
func (d *draft) wishAny(w wish, free *ranges, v6 bool) {
	a := d.takenFor(w, v6)
	took := a.IsValid()
	for i, r := range *free {
		if took || r.First.Is6() != v6 {
			continue
		}
		if w.kind == KindFloatingIP {
			a = r.First
			break
		}
		// The end of the first prefix, while it has one.
		if !a.IsValid() || d.firstPrefix(v6).Contains(r.Last) {
			a = (*free)[i].Last
		}
	}
	if !a.IsValid() {
		d.problem(about(codeExhausted, w.String(), w.field, fmt.Sprintf("Network %s has no free %s address for it", d.f.key, family(v6)),
			"add a prefix, or more addresses to spec.services or spec.floating"))
		return
	}
	*free = free.minus(single([]netip.Addr{a}))
	d.kept = append(d.kept, a)
	d.need(w, a)
}

// firstPrefix is the first of the family that the Network declares.
func (d *draft) firstPrefix(v6 bool) netip.Prefix {
	for _, text := range d.f.network.Spec.Prefixes {
		if p, err := v1alpha1.ParsePrefix(text); err == nil && p.Addr().Is6() == v6 {
			return p
		}
	}
	return netip.Prefix{}
}

// freeVIPs are the addresses that may be given to a Service or FloatingIP that
// names none.
func (d *draft) freeVIPs(kind string) ranges {
	s := &d.space
	out := s.floating
	if kind == KindService {
		if out = s.services; len(out) == 0 {
			out = s.inside.minus(s.static).minus(s.floating)
		}
	}
	taken := slices.Concat(slices.Collect(maps.Keys(d.taken)), d.f.taken)
	for _, w := range d.wishes {
		taken = append(taken, w.named...)
	}
	return out.minus(s.special).minus(s.reserved).minus(d.somebodys()).minus(single(taken)).minus(d.f.elder).minus(d.unconfirmed())
}

// unconfirmed are the addresses of blocks that their nodes have not confirmed
// to leave alone.
func (d *draft) unconfirmed() ranges {
	var out ranges
	for _, b := range d.f.network.Status.Blocks {
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil {
			continue
		}
		left := ranges{v1alpha1.RangeOf(p)}
		for _, e := range d.f.host(b.Node).echo {
			if e.CIDR == p {
				left = left.minus(rangesOf(e.Excluded))
			}
		}
		out = append(out, left...)
	}
	return union(out)
}

// misplacedVIP says why no Service or FloatingIP may have the address.
func (d *draft) misplacedVIP(kind string, a netip.Addr) (code, why, fix string) {
	if kind == KindService {
		if code, why, fix = d.misplaced(a); code == "" && d.space.floating.contains(a) {
			return codeReserved, "is in spec.floating of Network " + d.f.key.String(), "choose another address"
		}
		return code, why, fix
	}
	switch {
	case !d.space.floating.contains(a):
		return codeNotInPool, "is not among the addresses that Network " + d.f.key.String() + " sets apart for FloatingIPs", "choose one of them, or its owner would add it to spec.floating"
	case d.space.special.contains(a), d.space.reserved.contains(a):
		return codeReserved, "is reserved in Network " + d.f.key.String(), "choose another address"
	}
	if _, taken := slices.BinarySearchFunc(d.f.taken, a, netip.Addr.Compare); taken {
		return codeVIPTaken, "is an address of a node or the egress address of a Network", "choose another address"
	}
	if d.f.elder.contains(a) {
		return codeVIPTaken, "is given away by an external Network that was there first", "choose another address"
	}
	return "", "", ""
}
