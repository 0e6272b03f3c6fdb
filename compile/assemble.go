package compile

import (
	"maps"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// built is a snapshot with what it was made from.
type built struct {
	from []*result // sorted by key
	*snapshot.Snapshot
}

// keep takes the parts of an older result that are no different, so that
// snapshots see at a glance what changed.
func (r *result) keep(old *result) {
	if slices.Equal(r.endpoints, old.endpoints) {
		r.endpoints = old.endpoints
	}
	for node, h := range r.hosts {
		o := old.hosts[node]
		if o != nil && slices.EqualFunc(h.sets, o.sets, sameSet) {
			h.sets = o.sets
		}
	}
}

func sameSet(a, b setRow) bool {
	return a.key == b.key && a.set.Isolated == b.set.Isolated && a.set.AuditIsolated == b.set.AuditIsolated && a.set.Default == b.set.Default &&
		slices.EqualFunc(a.set.Rules, b.set.Rules, sameRule)
}

func sameRule(a, b policy.Rule) bool {
	return a.ID == b.ID && a.Tier == b.Tier && a.Action == b.Action && a.Audit == b.Audit && slices.Equal(a.Ports, b.Ports) &&
		slices.EqualFunc(a.Peers, b.Peers, func(p, q policy.Peer) bool {
			return p.Anyone == q.Anyone && p.CIDR == q.CIDR && slices.Equal(p.Except, q.Except) && slices.Equal(p.Identities, q.Identities)
		})
}

// assemble puts the results together, node by node.
func (c *Compiler) assemble(in *Input, results []*result) map[string]*snapshot.Snapshot {
	nodes := nodeRows(in)
	if !maps.Equal(nodes, c.nodes) {
		c.nodes, c.snapshots = nodes, nil
	}
	from := make(map[string][]*result, len(nodes))
	for _, r := range results {
		for node := range r.hosts {
			from[node] = append(from[node], r)
		}
	}
	out := make(map[string]*snapshot.Snapshot, len(nodes))
	all := make(map[string]*built, len(nodes))
	for name, n := range nodes {
		if n.External {
			continue
		}
		b := c.snapshots[name]
		if b == nil || !slices.Equal(b.from, from[name]) {
			b = &built{from: from[name], Snapshot: assembleNode(name, nodes, from[name], b)}
		}
		all[name], out[name] = b, b.Snapshot
	}
	c.snapshots = all
	return out
}

// assembleNode makes one snapshot from the results of its Networks. Large
// tables begin as those of the snapshot before.
func assembleNode(node string, nodes map[string]snapshot.Node, from []*result, before *built) *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Node:     node,
		Nodes:    map[string]snapshot.Node{node: nodes[node]},
		Networks: map[snapshot.VNI]snapshot.Network{},
		Blocks:   map[snapshot.BlockKey]snapshot.Block{},
		Grants:   map[snapshot.AttachmentKey]snapshot.Grant{},
	}
	for _, r := range from {
		h := r.hosts[node]
		for _, g := range h.grants {
			if _, twice := s.Grants[g.AttachmentKey]; !twice {
				s.Grants[g.AttachmentKey] = g
			}
		}
		if !r.live {
			continue
		}
		for _, b := range h.blocks {
			s.Blocks[b.BlockKey] = b
		}
		if !h.member {
			continue
		}
		s.Networks[r.row.VNI] = r.row
		for _, name := range r.endpointNodes {
			s.Nodes[name] = nodes[name]
		}
	}
	if before == nil {
		before = &built{Snapshot: &snapshot.Snapshot{}}
	}
	s.Identities = identityRows(node, from, before)
	s.Endpoints = rows(before.Endpoints, before.from, from, func(r *result) []snapshot.Endpoint {
		if !r.member(node) {
			return nil
		}
		return r.endpoints
	}, func(e snapshot.Endpoint) snapshot.Addr { return e.Addr }, func(e snapshot.Endpoint) snapshot.Endpoint { return e })
	s.Policies = rows(before.Policies, before.from, from, func(r *result) []setRow {
		if !r.member(node) {
			return nil
		}
		return r.hosts[node].sets
	}, func(s setRow) snapshot.PolicyKey { return s.key }, func(s setRow) policy.Set { return s.set })
	return s
}

// member reports whether the node hosts the Network.
func (r *result) member(node string) bool {
	h := r.hosts[node]
	return r.live && h != nil && h.member
}

// identityRows are those of every project with a Network on the node.
func identityRows(node string, from []*result, before *built) map[policy.Identity]snapshot.Identity {
	now, was := identityLists(node, from), identityLists(node, before.from)
	if before.Identities != nil && slices.EqualFunc(now, was, sameSlice) {
		return before.Identities
	}
	n := 0
	for _, rows := range now {
		n += len(rows)
	}
	out := make(map[policy.Identity]snapshot.Identity, n)
	for _, rows := range now {
		for _, row := range rows {
			if _, twice := out[row.Number]; !twice {
				out[row.Number] = row
			}
		}
	}
	return out
}

// identityLists has one list for each project with a Network on the node.
func identityLists(node string, from []*result) [][]snapshot.Identity {
	out := make([][]snapshot.Identity, 0, len(from))
	var last *project
	for _, r := range from {
		if p := r.facts.project; r.member(node) && p != last {
			out, last = append(out, p.rows), p
		}
	}
	return out
}

// sameSlice reports whether both are the very same slice.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// rows makes a table from the rows of all results. It is the table of before
// with the rows of other results exchanged; before itself stays as it is, and
// is the answer when no row is different. Rows of two results never share a
// key, because every key begins with the VNI.
func rows[K comparable, V, R any](before map[K]V, was, is []*result, of func(*result) []R, key func(R) K, value func(R) V) map[K]V {
	out, fresh := before, false
	if before == nil {
		n := 0
		for _, r := range is {
			n += len(of(r))
		}
		out, fresh, was = make(map[K]V, n), true, nil
	}
	exchange(was, is, func(old, now *result) {
		var gone, come []R
		if old != nil {
			gone = of(old)
		}
		if now != nil {
			come = of(now)
		}
		if sameSlice(gone, come) {
			return
		}
		if !fresh {
			out, fresh = maps.Clone(before), true
		}
		for _, r := range gone {
			delete(out, key(r))
		}
		for _, r := range come {
			out[key(r)] = value(r)
		}
	})
	return out
}

// exchange calls do for every pair of results of one Network that differ; nil
// where there is none.
func exchange(was, is []*result, do func(old, now *result)) {
	for len(was) > 0 || len(is) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = compareKeys(was[0].facts.key, is[0].facts.key)
		}
		switch {
		case order < 0:
			do(was[0], nil)
			was = was[1:]
		case order > 0:
			do(nil, is[0])
			is = is[1:]
		default:
			if was[0] != is[0] {
				do(was[0], is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
}
