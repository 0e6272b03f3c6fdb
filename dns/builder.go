package dns

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
)

// change begins a view that is like another one.
func change(v *view) *builder {
	n := *v
	n.names, n.below, n.ptr = maps.Clone(v.names), maps.Clone(v.below), maps.Clone(v.ptr)
	return &builder{view: &n, mine: map[string]*entry{}}
}

// entry is the one of that name, to be changed.
func (b *builder) entry(key string) *entry {
	if e := b.mine[key]; e != nil {
		return e
	}
	e := &entry{}
	if old := b.names[key]; old != nil {
		e.addrs, e.srv, e.custom, e.cname, e.alias = old.addrs, old.srv, old.custom, old.cname, old.alias
		e.turn.Store(old.turn.Load())
	} else {
		b.count(key, 1)
	}
	b.mine[key], b.names[key] = e, e
	return e
}

// count says to the names above that one more is below them.
func (b *builder) count(key string, n int) {
	if !within(key, b.zone) {
		return
	}
	for key != b.zone {
		key = parent(key)
		if b.below[key] += n; b.below[key] == 0 {
			delete(b.below, key)
		}
	}
}

// address adds or removes an address of a name in the zone, and its reverse.
func (b *builder) address(project, name string, of kind, a netip.Addr, add bool) {
	key, ok := b.nameOf(project, name)
	if !ok {
		return // longer than a name can be
	}
	b.addressAt(key, of, a, add)
	have := b.ptr[a]
	i, found := slices.BinarySearch(have, key)
	switch {
	case add && !found:
		b.ptr[a] = slices.Insert(slices.Clone(have), i, key)
	case !add && found && !b.mine[key].has(a):
		if have = slices.Delete(slices.Clone(have), i, i+1); len(have) == 0 {
			delete(b.ptr, a)
		} else {
			b.ptr[a] = have
		}
	}
}

func (e *entry) has(a netip.Addr) bool {
	return slices.ContainsFunc(e.addrs[:], func(addrs []netip.Addr) bool { return slices.Contains(addrs, a) })
}

// addressAt adds or removes an address of a name. A Service has one for each
// of its ports, so the same may come more than once.
func (b *builder) addressAt(key string, of kind, a netip.Addr, add bool) {
	e := b.entry(key)
	i, found := slices.BinarySearchFunc(e.addrs[of], a, netip.Addr.Compare)
	switch {
	case add:
		e.addrs[of] = slices.Insert(slices.Clone(e.addrs[of]), i, a)
	case found:
		e.addrs[of] = slices.Delete(slices.Clone(e.addrs[of]), i, i+1)
	}
}

// done settles what changed.
func (b *builder) done() *view {
	for key, e := range b.mine {
		if e.empty() {
			delete(b.names, key)
			b.count(key, -1)
			continue
		}
		e.settle(b.ttl)
	}
	return b.view
}

func compareTargets(a, b target) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.port, b.port))
}

// Problems of the tenants' own records, by Network.
func (z *Zones) Problems() map[snapshot.VNI][]string {
	out := map[snapshot.VNI][]string{}
	for vni, v := range z.views {
		if len(v.problems) > 0 {
			out[vni] = v.problems
		}
	}
	return out
}

// Inside reports whether the address is one of the Network, or of one that it
// is linked to, as seen from there.
func (z *Zones) Inside(a snapshot.Addr) bool {
	v := z.views[a.VNI]
	return v != nil && v.inside(a.IP)
}

// Lookup lists the addresses of a name of the Network's own, sorted; none when
// somebody else would have to be asked.
func (z *Zones) Lookup(vni snapshot.VNI, name string) []netip.Addr {
	v := z.views[vni]
	key, ok := wireName(name)
	if v == nil || !ok {
		return nil
	}
	e, k := v.find([]byte(key))
	for range maxAliases {
		if k != here || e.cname == nil {
			break
		}
		e, k = v.find([]byte(e.alias))
	}
	if k != here {
		return nil
	}
	var out []netip.Addr
	for _, a := range []*answer{e.a, e.aaaa} {
		if a == nil {
			continue
		}
		for i := range int(a.an) {
			ip, _ := netip.AddrFromSlice(a.body[i*a.size+12 : (i+1)*a.size])
			out = append(out, ip)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
