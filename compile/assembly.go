package compile

import (
	"cmp"
	"maps"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// assembly is the snapshot of one node in the making.
type assembly struct {
	node  string
	nodes map[string]snapshot.Node
	from  []*joint
	s     *snapshot.Snapshot
	full  map[snapshot.VNI]bool // Networks of which all rows are there
	loose []snapshot.Endpoint
	*built
}

// build makes the snapshot. Large tables begin as those of the one before,
// which may be nil.
func (a *assembly) build(before *built) *built {
	if before == nil {
		before = &built{Snapshot: &snapshot.Snapshot{}}
	}
	a.s = &snapshot.Snapshot{
		Node:     a.node,
		Nodes:    map[string]snapshot.Node{a.node: a.nodes[a.node]},
		Networks: map[snapshot.VNI]snapshot.Network{},
		Blocks:   map[snapshot.BlockKey]snapshot.Block{},
		Grants:   map[snapshot.AttachmentKey]snapshot.Grant{},
	}
	a.full = map[snapshot.VNI]bool{}
	a.built = &built{from: a.from, Snapshot: a.s}
	for _, j := range a.from {
		a.alone(j)
		if j.hosts[a.node].member {
			a.member(j)
		}
	}
	a.orphans(before)
	s := a.s
	s.Identities = a.identities(before)
	s.Endpoints = table(before.Endpoints, before.endpoints, &a.endpoints, func(e snapshot.Endpoint) snapshot.Addr { return e.Addr }, func(e snapshot.Endpoint) snapshot.Endpoint { return e })
	s.Policies = table(before.Policies, before.sets, &a.sets, func(s setRow) snapshot.PolicyKey { return s.key }, func(s setRow) policy.Set { return s.set })
	s.Services = table(before.Services, before.services, &a.services, func(s snapshot.Service) snapshot.ServiceKey { return s.ServiceKey }, func(s snapshot.Service) snapshot.Service { return s })
	return a.built
}

// alone takes what the node gets of a Network whether it hosts it or not.
func (a *assembly) alone(j *joint) {
	h := j.hosts[a.node]
	if h.base == nil {
		return
	}
	for _, g := range h.base.grants {
		if _, twice := a.s.Grants[g.AttachmentKey]; !twice {
			a.s.Grants[g.AttachmentKey] = g
		}
	}
	if !j.facts.base.live {
		return
	}
	for _, b := range h.base.blocks {
		a.s.Blocks[b.BlockKey] = b
	}
}

// member takes what a node gets that hosts the Network.
func (a *assembly) member(j *joint) {
	base, h := j.facts.base, j.hosts[a.node]
	a.network(base)
	for _, name := range j.nodeNames {
		if n, known := a.nodes[name]; known {
			a.s.Nodes[name] = n
		}
	}
	id := pieceID{key: base.facts.key}
	a.sets = append(a.sets, piece[setRow]{id, h.sets})
	a.services = append(a.services, piece[snapshot.Service]{id, j.rows})
	id.kind = "near"
	a.services = append(a.services, piece[snapshot.Service]{id, h.services})
	a.projects = append(a.projects, j.facts.projects...)
	for _, l := range j.facts.links {
		a.link(l, base)
	}
	for _, f := range j.facts.pool {
		if f.external() {
			continue
		}
		a.services = append(a.services, piece[snapshot.Service]{pieceID{kind: "floating", key: f.key}, f.services})
		for _, t := range f.targets {
			set(&a.s.Networks, t.home.row.VNI, t.home.row)
		}
	}
	a.loose = append(a.loose, j.loose...)
	for _, f := range h.floats {
		a.floating(f)
	}
	if base.hosts[a.node] != nil && base.hosts[a.node].member {
		set(&a.s.Names, base.row.VNI, namesOf(base.facts.key, base.row.VNI, &base.facts.network.Spec))
	}
	if j.exit != nil {
		set(&a.s.Exits, base.row.VNI, *j.exit)
	}
	for _, m := range j.masquerades {
		set(&a.s.Masquerades, m.Addr, m)
	}
	for _, e := range j.externals {
		set(&a.s.Externals, e.Address, e)
	}
	a.checks(j.checks)
}

func (a *assembly) checks(list []placedCheck) {
	for _, c := range list {
		if c.node == a.node {
			if old, is := a.s.Checks[c.CheckKey]; is && old.Interval <= c.Interval {
				continue // two want the same; the more eager one wins
			}
			set(&a.s.Checks, c.CheckKey, c.Check)
		}
	}
}

// network takes all own rows of a Network.
func (a *assembly) network(r *result) {
	if a.full[r.row.VNI] {
		return
	}
	a.full[r.row.VNI] = true
	a.s.Networks[r.row.VNI] = r.row
	a.endpoints = append(a.endpoints, piece[snapshot.Endpoint]{pieceID{key: r.facts.key}, r.endpoints})
}

// link takes what a Network that is hosted here sees through a Link. Without a
// chain the node translates, so it has to know both ends.
func (a *assembly) link(l *linked, base *result) {
	for _, s := range l.sights {
		if s.network != base && !l.direct {
			set(&a.s.Networks, s.network.row.VNI, s.network.row)
			continue
		}
		a.network(s.network)
		a.endpoints = append(a.endpoints, piece[snapshot.Endpoint]{pieceID{"link", l.facts.lane.key, s.network.row.VNI}, s.rows})
	}
	for _, c := range l.chains {
		if c.VNI == base.row.VNI {
			set(&a.s.Chains, c.ChainKey, c)
		}
	}
	a.checks(l.checks)
}

// floating takes what the node of a target knows of a FloatingIP: who calls.
func (a *assembly) floating(f *floating) {
	a.services = append(a.services, piece[snapshot.Service]{pieceID{kind: "floating", key: f.key}, f.services})
	if !f.external() && f.facts.pool.live {
		a.network(f.facts.pool)
		a.projects = append(a.projects, f.facts.pool.facts.project)
		a.projects = append(a.projects, f.facts.pool.facts.guests...)
	}
	for _, t := range f.targets {
		set(&a.s.Networks, t.home.row.VNI, t.home.row)
		a.loose = append(a.loose, t.Endpoint)
		a.projects = append(a.projects, t.home.facts.project)
		a.projects = append(a.projects, t.home.facts.guests...)
	}
	if f.holder != "" {
		set(&a.s.Externals, f.addr.IP, snapshot.External{Address: f.addr.IP, Node: f.holder, Owner: f.name()})
	}
}

// orphans are single endpoints of Networks whose rows are not all there.
func (a *assembly) orphans(before *built) {
	rows := slices.DeleteFunc(a.loose, func(e snapshot.Endpoint) bool { return a.full[e.Addr.VNI] })
	slices.SortFunc(rows, func(x, y snapshot.Endpoint) int { return x.Addr.Compare(y.Addr) })
	rows = slices.CompactFunc(rows, func(x, y snapshot.Endpoint) bool { return x.Addr == y.Addr })
	if len(rows) == 0 {
		return
	}
	for _, e := range rows {
		if n, known := a.nodes[e.Node]; known {
			a.s.Nodes[e.Node] = n
		}
	}
	id := pieceID{kind: "loose"}
	if i := slices.IndexFunc(before.endpoints, func(p piece[snapshot.Endpoint]) bool { return p.id == id }); i >= 0 && slices.Equal(before.endpoints[i].rows, rows) {
		rows = before.endpoints[i].rows
	}
	a.endpoints = append(a.endpoints, piece[snapshot.Endpoint]{id, rows})
}

// identities are those of every project that may be met on the node.
func (a *assembly) identities(before *built) map[policy.Identity]snapshot.Identity {
	slices.SortFunc(a.projects, func(x, y *project) int { return cmp.Compare(x.name, y.name) })
	a.projects = slices.Compact(a.projects)
	same := func(x, y *project) bool { return x == y || sameSlice(x.rows, y.rows) }
	if before.Identities != nil && slices.EqualFunc(a.projects, before.projects, same) {
		return before.Identities
	}
	n := 0
	for _, p := range a.projects {
		n += len(p.rows)
	}
	out := make(map[policy.Identity]snapshot.Identity, n)
	for _, p := range a.projects {
		for _, row := range p.rows {
			if _, twice := out[row.Number]; !twice {
				out[row.Number] = row
			}
		}
	}
	return out
}

// set sets a row of a table that may not be there yet.
func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// piece is a part of a table that comes from one place.
type piece[R any] struct {
	id   pieceID
	rows []R
}

type pieceID struct {
	kind string
	key  Key
	vni  snapshot.VNI
}

func (p pieceID) compare(o pieceID) int {
	return cmp.Or(compareKeys(p.key, o.key), cmp.Compare(p.kind, o.kind), cmp.Compare(p.vni, o.vni))
}

// sameSlice reports whether both are the very same slice.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// table makes a table from its pieces, which it sorts. It is the table of
// before with the rows of other pieces exchanged; before itself stays as it is,
// and is the answer when no row is different. Rows of two pieces never share a
// key, unless they are the same row.
func table[K comparable, V, R any](before map[K]V, was []piece[R], is *[]piece[R], key func(R) K, value func(R) V) map[K]V {
	slices.SortStableFunc(*is, func(a, b piece[R]) int { return a.id.compare(b.id) })
	*is = slices.CompactFunc(*is, func(a, b piece[R]) bool { return a.id == b.id })
	var gone, come [][]R
	exchange(was, *is, func(old, now []R) {
		if !sameSlice(old, now) {
			gone, come = append(gone, old), append(come, now)
		}
	})
	if before != nil && len(gone) == 0 {
		return before
	}
	out := maps.Clone(before)
	if out == nil {
		n := 0
		for _, rows := range come {
			n += len(rows)
		}
		out = make(map[K]V, n)
	}
	for _, rows := range gone {
		for _, r := range rows {
			delete(out, key(r))
		}
	}
	for _, rows := range come {
		for _, r := range rows {
			out[key(r)] = value(r)
		}
	}
	return out
}

// exchange calls do for every pair of pieces of one place; nil where there is
// none.
func exchange[R any](was, is []piece[R], do func(old, now []R)) {
	for len(was) > 0 || len(is) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = was[0].id.compare(is[0].id)
		}
		switch {
		case order < 0:
			do(was[0].rows, nil)
			was = was[1:]
		case order > 0:
			do(nil, is[0].rows)
			is = is[1:]
		default:
			do(was[0].rows, is[0].rows)
			was, is = was[1:], is[1:]
		}
	}
}
