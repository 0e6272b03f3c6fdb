package compile

import (
	"maps"
	"reflect"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// built is a snapshot with what it was made from.
type built struct {
	from     []*joint // sorted by key
	firewall *v1alpha1.Firewall
	accept   string // the annotation
	trusts   *trusts
	// needsKeys are the JWK sets that rules name, by URI; what had to be fetched
	// has no JSON here.
	needsKeys map[string]l7.KeySet
	*snapshot.Snapshot
	endpoints []piece[snapshot.Endpoint]
	sets      []piece[setRow]
	services  []piece[snapshot.Service]
	frontends []piece[snapshot.Frontend]
	routes    []piece[l7.Route]
	clusters  []piece[snapshot.Cluster]
	projects  []*project
}

// keep takes the endpoints of an older result when they are no different, so
// that snapshots see at a glance what changed.
func (r *result) keep(old *result) {
	if slices.Equal(r.endpoints, old.endpoints) {
		r.endpoints = old.endpoints
	}
}

// trusting is b with the Trusts of now.
func (c *Compiler) trusting(b *built) *built {
	if b.trusts == c.trusts {
		return b
	}
	next := *b
	next.trusts = c.trusts
	if trusts := c.trusts.on(b.projects); !reflect.DeepEqual(trusts, b.Trusts) {
		s := *b.Snapshot // it was handed out
		s.Trusts, next.Snapshot = trusts, &s
	}
	return &next
}

// keyed is b with the JWK sets of now.
func keyed(b *built, fetched map[string]l7.KeySet) *built {
	if len(b.needsKeys) == 0 && len(b.KeySets) == 0 {
		return b
	}
	var keys map[string]l7.KeySet
	for uri, k := range b.needsKeys {
		if f, known := fetched[uri]; known && k.JSON == "" {
			k.JSON, k.Until = f.JSON, f.Until
		}
		set(&keys, uri, k)
	}
	if maps.Equal(keys, b.KeySets) {
		return b
	}
	next, s := *b, *b.Snapshot // it was handed out
	s.KeySets, next.Snapshot = keys, &s
	return &next
}

func sameSet(a, b setRow) bool { return a.key == b.key && snapshot.SameSet(a.set, b.set) }

// assemble puts the results together, node by node.
func (c *Compiler) assemble(in *Input, joints []*joint) map[string]*snapshot.Snapshot {
	nodes := c.memory.nodes
	if !maps.Equal(nodes, c.nodes) {
		c.nodes, c.snapshots = nodes, nil
	}
	from := make(map[string][]*joint, len(nodes))
	for _, j := range joints {
		for node := range j.hosts {
			from[node] = append(from[node], j)
		}
	}
	out := make(map[string]*snapshot.Snapshot, len(nodes))
	all := make(map[string]*built, len(nodes))
	var common shared
	for name, n := range nodes {
		if n.External {
			continue
		}
		o := in.Nodes[name]
		b := c.snapshots[name]
		if b == nil || !slices.Equal(b.from, from[name]) || b.firewall != o.Spec.Firewall || b.accept != o.Annotations[v1alpha1.AcceptRisk] {
			next := (&assembly{node: name, nodes: nodes, from: from[name], shared: &common}).build(b)
			next.firewall, next.accept = o.Spec.Firewall, o.Annotations[v1alpha1.AcceptRisk]
			next.Firewall, next.AcceptMassDelete = firewallOf(o), o.AcceptsRisk(v1alpha1.RiskMassDelete)
			if b != nil && reflect.DeepEqual(b.Firewall, next.Firewall) {
				next.Firewall = b.Firewall
			}
			b = next
		}
		b = keyed(c.trusting(b), in.KeySets)
		all[name], out[name] = b, b.Snapshot
	}
	c.snapshots = all
	return out
}
