package compile

import (
	"cmp"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// assembly is the snapshot of one node in the making.
type assembly struct {
	node   string
	nodes  map[string]snapshot.Node
	from   []*joint
	s      *snapshot.Snapshot
	full   map[snapshot.VNI]bool // Networks of which all rows are there
	shared *shared
	loose  []snapshot.Endpoint
	keys   map[string]l7.KeySet // that rules verify tokens with, by URI
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
	s.Endpoints = endpointTable.make(before.Endpoints, before.endpoints, &a.endpoints, &a.shared.endpoints)
	s.Policies = setTable.make(before.Policies, before.sets, &a.sets, &a.shared.sets)
	s.Services = serviceTable.make(before.Services, before.services, &a.services, &a.shared.services)
	s.Frontends = frontendTable.make(before.Frontends, before.frontends, &a.frontends, &a.shared.frontends)
	s.Routes = routeTable.make(before.Routes, before.routes, &a.routes, &a.shared.routes)
	s.Clusters = clusterTable.make(before.Clusters, before.clusters, &a.clusters, &a.shared.clusters)
	a.built.needsKeys = a.keys
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
	a.frontends = append(a.frontends, piece[snapshot.Frontend]{id, j.frontends})
	a.routes = append(a.routes, piece[l7.Route]{id, j.routes})
	a.clusters = append(a.clusters, piece[snapshot.Cluster]{id, j.clusters})
	id.kind = "near"
	a.services = append(a.services, piece[snapshot.Service]{id, h.services})
	a.clusters = append(a.clusters, piece[snapshot.Cluster]{id, h.clusters})
	a.routes = append(a.routes, piece[l7.Route]{id, h.routes})
	for _, g := range h.gateways {
		set(&a.s.Gateways, g.GatewayKey, g)
	}
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
	for uri, k := range j.keys {
		set(&a.keys, uri, k)
	}
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
