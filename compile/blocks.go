package compile

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// blockRows makes the blocks of every node, with what they must not give out:
// all that is not dynamic, what declared Workloads name, and what is in use
// on other nodes.
func (d *draft) blockRows() {
	base := d.space.dynamic.minus(single(d.named)).minus(single(d.kept))
	for _, b := range d.f.network.Status.Blocks {
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil || d.vni == 0 {
			continue
		}
		if len((ranges{v1alpha1.RangeOf(p)}).minus(d.space.inside)) > 0 && d.inUse(p) {
			d.problem(about(codePrefixInUse, networkName(d.f.key), "spec.prefixes",
				fmt.Sprintf("no prefix contains all of the block %s, from which node %s has given out addresses", p, b.Node), "put the prefix back until its Workloads are gone"))
		}
		h := d.hosting(b.Node)
		h.blocks = append(h.blocks, snapshot.Block{BlockKey: snapshot.BlockKey{VNI: d.vni, CIDR: p}, Excluded: excluded(p, base.minus(d.elsewhere(p, b.Node)))})
	}
}

func (d *draft) inUse(p netip.Prefix) bool {
	for a := range d.claims {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// elsewhere are the addresses of a block that other nodes use.
func (d *draft) elsewhere(p netip.Prefix, node string) ranges {
	var out []netip.Addr
	for a, c := range d.claims {
		if c.node != node && p.Contains(a) {
			out = append(out, a)
		}
	}
	return single(out)
}

// capacity finds out which nodes need another block, and whether there is one.
// An attachment for which there is no address is refused.
func (d *draft) capacity() {
	if d.f.project.missing != "" || d.f.twin != "" {
		return
	}
	waiting := d.waiting()
	for _, v6 := range []bool{false, true} {
		if !slices.ContainsFunc(d.space.prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }) {
			continue
		}
		var unserved []Key
		if len(waiting) > 0 {
			unserved = d.share(waiting, v6)
		}
		d.scarce(unserved, v6)
	}
	slices.SortFunc(d.blocks, func(a, b BlockNeed) int { return cmp.Or(cmp.Compare(a.Node, b.Node), boolOrder(a.IPv6, b.IPv6)) })
}

// share orders blocks and returns those that wait for an address of the family
// in vain.
func (d *draft) share(waiting map[string][]Key, v6 bool) (unserved []Key) {
	left := d.unblocked().size(v6)
	for _, node := range sortedNames(waiting) {
		held, spare := d.spare(node, v6)
		need := int64(len(waiting[node]))
		if spare >= need+held/8 {
			continue
		}
		if left > 0 {
			d.blocks = append(d.blocks, BlockNeed{Network: d.f.key, Node: node, IPv6: v6})
		}
		for _, w := range waiting[node][min(spare, need):] {
			if left--; left < 0 {
				d.exhausted(node, w, v6)
				unserved = append(unserved, w)
			}
		}
	}
	return unserved
}

const moreAddresses = "add a prefix to the Network, or detach something"

// scarce says of the Network that it has too few addresses, or no more.
func (d *draft) scarce(unserved []Key, v6 bool) {
	size := d.space.dynamic.size(v6)
	switch {
	case size == 0: // only static addresses, perhaps on purpose
	case len(unserved) > 0:
		d.problem(about(codeExhausted, networkName(d.f.key), "spec.prefixes",
			fmt.Sprintf("Workloads wait in vain for an %s address: %d, such as %s; %s", family(v6), len(unserved), unserved[0], d.why(v6)), moreAddresses))
	case d.full(v6):
		d.problem(warn(about(codeExhausted, networkName(d.f.key), "spec.prefixes", d.why(v6), moreAddresses)))
	}
}

// why no address of the family is free.
func (d *draft) why(v6 bool) string {
	why := "all of them are in use"
	if !d.full(v6) {
		why = "those that are free are in blocks of other nodes or kept for Workloads that came first"
	}
	return fmt.Sprintf("%s addresses to give out: %d, and %s", family(v6), d.space.dynamic.size(v6), why)
}

// full: every dynamic address of the family is in use or named.
func (d *draft) full(v6 bool) bool {
	size := d.space.dynamic.size(v6)
	if size == 0 || int64(len(d.claims)+len(d.named)+len(d.kept)) < size {
		return false
	}
	return d.space.dynamic.minus(d.somebodys()).size(v6) == 0
}

// somebodys are the addresses that are in use, named or kept.
func (d *draft) somebodys() ranges {
	return single(slices.Concat(slices.Collect(maps.Keys(d.claims)), d.named, d.kept))
}

// exhausted tells the Workload and its node that it gets nothing.
func (d *draft) exhausted(node string, w Key, v6 bool) {
	if d.space.dynamic.size(v6) == 0 {
		why, fix := fmt.Sprintf("Network %s has no dynamic %s addresses: all are gateway, reserved, static or outside spec.allocation", d.f.key, family(v6)),
			"add a prefix to the Network, or name a static address"
		d.problem(about(codeExhausted, workloadName(w), "", why, fix))
		d.refuse(node, w, why+"; "+fix)
		return
	}
	why := fmt.Sprintf("Network %s has no free %s address left for it; %s", d.f.key, family(v6), d.why(v6))
	d.problem(about(codeExhausted, workloadName(w), "", why, moreAddresses))
	d.refuse(node, w, why+"; "+moreAddresses)
}

// refuse takes back the Grant of an attachment that waits for an address.
func (d *draft) refuse(node string, w Key, why string) {
	h := d.hosts[node]
	if h == nil {
		return
	}
	for i, g := range h.grants {
		if g.Project == w.Project && g.Workload == w.Name {
			h.grants[i] = snapshot.Grant{AttachmentKey: g.AttachmentKey, Error: why}
		}
	}
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// waiting lists, by node, the Workloads there that need dynamic addresses and
// have none.
func (d *draft) waiting() map[string][]Key {
	out := map[string][]Key{}
	here := map[Key]bool{}
	for i := range d.judged {
		j := &d.judged[i]
		if j.refused != "" || !d.f.host(j.node).exists {
			continue
		}
		k := Key{j.Project, j.Workload}
		here[k] = true
		if len(j.Addresses) == 0 && len(j.static) == 0 {
			out[j.node] = append(out[j.node], k)
		}
	}
	for _, w := range d.workloads {
		k := Key{w.Namespace, w.Name}
		h := d.f.host(w.Spec.Node)
		if w.Spec.Node == "" || here[k] || !h.exists || h.external {
			continue
		}
		if len(w.Spec.Interfaces[interfaceOf(w, d.f.key)].Addresses) == 0 {
			out[w.Spec.Node] = append(out[w.Spec.Node], k)
		}
	}
	return out
}

// unblocked are the dynamic addresses that are free and in no block.
func (d *draft) unblocked() ranges {
	taken := d.somebodys()
	for _, b := range d.f.network.Status.Blocks {
		if p, err := netip.ParsePrefix(b.CIDR); err == nil {
			taken = append(taken, v1alpha1.RangeOf(p))
		}
	}
	return d.space.dynamic.minus(union(taken))
}

// spare counts the addresses of a family that a node may give out, and those
// of them that are free.
func (d *draft) spare(node string, v6 bool) (all, free int64) {
	h := d.hosts[node]
	if h == nil {
		return 0, 0
	}
	for _, b := range h.blocks {
		if b.CIDR.Addr().Is6() != v6 {
			continue
		}
		usable := (ranges{v1alpha1.RangeOf(b.CIDR)}).minus(rangesOf(b.Excluded))
		all += usable.size(v6)
		free += usable.size(v6)
		for a, c := range d.claims {
			if c.node == node && usable.contains(a) {
				free--
			}
		}
	}
	return all, free
}
