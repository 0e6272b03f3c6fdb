package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// jointFacts are everything that the joint result of one Network depends on.
type jointFacts struct {
	base  *result
	links []*linked   // whose path has the Network, sorted by key
	pool  []*floating // that it is the pool of, sorted by key
	home  []*floating // with a target in it, sorted by key
	// projects whose Workloads may meet here, sorted by name.
	projects []*project
	// health of the Network and of those that it sees.
	health map[snapshot.VNI]*healths
	away   []string // nodes that matter here and are away, sorted
	// resolved are the external names of its Services.
	resolved map[string][]netip.Addr
	// behind are the Services that Policies name, sorted by key.
	behind []behind
	// fronts of the Services that it sees, sorted by key.
	fronts []*front
	gates  []*gate  // that stand in it, sorted by key
	egress []egress // of the addresses of spec.outside, in their order
	nodes  []string // the gateways that exist and have an agent, sorted
}

// behind is a Service that a Policy names.
type behind struct {
	key      Key
	service  *v1alpha1.Service
	project  *project
	resolved []netip.Addr
}

func (f *jointFacts) equal(o *jointFacts) bool {
	return f.base == o.base && slices.Equal(f.links, o.links) && slices.Equal(f.pool, o.pool) && slices.Equal(f.home, o.home) &&
		slices.Equal(f.projects, o.projects) && maps.Equal(f.health, o.health) && slices.Equal(f.away, o.away) && slices.Equal(f.fronts, o.fronts) && slices.Equal(f.gates, o.gates) &&
		maps.EqualFunc(f.resolved, o.resolved, slices.Equal) && slices.Equal(f.nodes, o.nodes) &&
		slices.EqualFunc(f.behind, o.behind, func(a, b behind) bool {
			return a.key == b.key && a.service == b.service && a.project == b.project && slices.Equal(a.resolved, b.resolved)
		}) &&
		slices.EqualFunc(f.egress, o.egress, egress.equal)
}

// who finds an identity of any project that is met here.
func (f *jointFacts) who(n policy.Identity) *who {
	for _, p := range f.projects {
		if w := p.byNumber(n); w != nil {
			return w
		}
	}
	return nil
}

// joint is a Network together with all that it has to do with. It is never
// changed after compileJoint returned it.
type joint struct {
	facts *jointFacts
	// hosts are the nodes that get something of it.
	hosts       map[string]*standing
	rows        []snapshot.Service // for all of them
	exit        *snapshot.Exit
	masquerades []snapshot.Masquerade
	externals   []snapshot.External
	checks      []placedCheck
	loose       []snapshot.Endpoint // of other Networks, sorted by address
	// keys are what rules verify tokens with, by URI.
	keys      map[string]l7.KeySet
	nodeNames []string            // named by any of the rows, sorted
	frontends []snapshot.Frontend // sorted by key
	routes    []l7.Route          // sorted by name
	clusters  []snapshot.Cluster  // sorted by name
	// unseen are destinations of routes that have no address here.
	unseen []unseenRef
	// states are the backends of each Service: whether they get new sessions.
	states   map[Key]map[string]bool
	problems []v1alpha1.Problem
	fates    []policyFate
}

// standing is what one node gets of a joint.
type standing struct {
	// base: what the Network alone gives it; nil for a gateway.
	base     *hosting
	member   bool // hosts it, or is its gateway
	sets     []setRow
	services []snapshot.Service // of its own
	clusters []snapshot.Cluster // of its own
	routes   []l7.Route         // of its Gateways
	gateways []snapshot.Gateway // sorted by key
	floats   []*floating        // with a target here
}

// jointDraft is a joint in the making.
type jointDraft struct {
	*joint
	c *Compiler
	// near are the Network itself and those that it is linked to, alone: it has
	// to do with nobody else.
	near  []neighbour
	alone bool
	peers []peerPlace
	// asked are authorizers, by name of their Cluster.
	asked map[string]snapshot.Cluster
	// seen are the Services that have addresses here.
	seen map[Key]*seenService
}

func (d *jointDraft) problem(p v1alpha1.Problem) { d.problems = append(d.problems, p) }

// compileJoint computes the joint result of one Network. old may be nil.
func (c *Compiler) compileJoint(f *jointFacts, old *joint) *joint {
	d := &jointDraft{c: c, joint: &joint{facts: f, hosts: map[string]*standing{}, states: map[Key]map[string]bool{}}}
	base := f.base
	for node, h := range base.hosts {
		d.hosts[node] = &standing{base: h, member: base.live && h.member}
	}
	d.near = []neighbour{{base, base.space.prefixes}}
	for _, l := range f.links {
		for _, s := range l.sights {
			if s.network == base {
				d.near = append(d.near, s.others...)
			}
		}
	}
	d.alone = base.facts.network == nil || len(d.near) == 1 && len(f.pool) == 0 && len(f.home) == 0 && len(base.facts.guests) == 0 && base.facts.network.Spec.Outside == nil
	d.exit()
	if base.live {
		d.peers = d.peersOf()
		d.gateway()
		d.services()
		d.frontRows()
		d.floatingRows()
		d.policies()
	}
	d.targets()
	d.names()
	d.order()
	if old != nil {
		d.keep(old)
	}
	return d.joint
}

// gateway lets the node that translates know the Network.
func (d *jointDraft) gateway() {
	if d.joint.exit == nil || d.joint.exit.Gateway == "" {
		return
	}
	h := d.hosts[d.joint.exit.Gateway]
	if h == nil {
		h = &standing{}
		d.hosts[d.joint.exit.Gateway] = h
	}
	h.member = true
}

// targets are what FloatingIPs of the pool lead to, and which nodes have them.
func (d *jointDraft) targets() {
	for _, f := range d.facts.pool {
		if f.external() {
			continue
		}
		for _, t := range f.targets {
			d.loose = append(d.loose, t.Endpoint)
		}
	}
	for _, f := range d.facts.home {
		for node, h := range d.hosts {
			if h.member && f.targetsOn(node) && f.addr.IP.IsValid() {
				h.floats = append(h.floats, f)
			}
		}
	}
}

// names lists all nodes that rows name.
func (d *jointDraft) names() {
	seen := map[string]bool{}
	if d.facts.base.live {
		for _, n := range d.facts.base.endpointNodes {
			seen[n] = true
		}
	}
	for _, l := range d.facts.links {
		for _, s := range l.sights {
			for _, o := range s.others {
				for _, n := range o.endpointNodes {
					seen[n] = true
				}
			}
			for _, n := range s.network.endpointNodes {
				seen[n] = true
			}
		}
	}
	for _, e := range d.loose {
		seen[e.Node] = true
	}
	for _, f := range d.facts.home {
		if f.facts.pool != nil {
			for _, n := range f.facts.pool.endpointNodes {
				seen[n] = true
			}
		}
	}
	for _, e := range d.externals {
		seen[e.Node] = true
	}
	d.nodeNames = sortedNames(seen)
}

// order brings everything into its one order.
func (d *jointDraft) order() {
	byKey := func(a, b snapshot.Service) int { return a.ServiceKey.Compare(b.ServiceKey) }
	slices.SortStableFunc(d.rows, byKey)
	d.rows = slices.CompactFunc(d.rows, func(a, b snapshot.Service) bool { return a.ServiceKey == b.ServiceKey })
	for _, h := range d.hosts {
		slices.SortFunc(h.routes, func(a, b l7.Route) int { return cmp.Compare(a.Name, b.Name) })
		slices.SortFunc(h.clusters, func(a, b snapshot.Cluster) int { return cmp.Compare(a.Name, b.Name) })
		slices.SortStableFunc(h.services, byKey)
		h.services = slices.CompactFunc(h.services, func(a, b snapshot.Service) bool { return a.ServiceKey == b.ServiceKey })
	}
	d.joint.clusters = slices.AppendSeq(d.joint.clusters, maps.Values(d.asked))
	slices.SortFunc(d.joint.clusters, func(a, b snapshot.Cluster) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.loose, func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
	d.loose = slices.CompactFunc(d.loose, func(a, b snapshot.Endpoint) bool { return a.Addr == b.Addr })
	d.problems = sortProblems(d.problems)
}

// keep takes the parts of an older joint that are no different, so that
// snapshots see at a glance what changed.
func (j *joint) keep(old *joint) {
	if slices.EqualFunc(j.rows, old.rows, snapshot.SameService) {
		j.rows = old.rows
	}
	j.frontends, j.routes, j.clusters = kept(j.frontends, old.frontends), kept(j.routes, old.routes), kept(j.clusters, old.clusters)
	for node, h := range j.hosts {
		o := old.hosts[node]
		if o == nil {
			continue
		}
		if slices.EqualFunc(h.sets, o.sets, sameSet) {
			h.sets = o.sets
		}
		if slices.EqualFunc(h.services, o.services, snapshot.SameService) {
			h.services = o.services
		}
		h.clusters, h.routes, h.gateways = kept(h.clusters, o.clusters), kept(h.routes, o.routes), kept(h.gateways, o.gateways)
	}
}

// kept is the old slice when the new one has nothing else in it.
func kept[T any](now, old []T) []T {
	if len(now) == len(old) && reflect.DeepEqual(now, old) {
		return old
	}
	return now
}

// at are the Networks that the given one sees through the Link.
func (l *linked) at(base *result) []*result {
	for _, s := range l.sights {
		if s.network == base {
			out := make([]*result, len(s.others))
			for i, o := range s.others {
				out[i] = o.result
			}
			return out
		}
	}
	return nil
}

// peerPlace is a Network whose Workloads may be peers here.
type peerPlace struct {
	neighbour
	// floats: through FloatingIPs; prefixes may be those of others, too.
	floats bool
}

// peersOf lists the Networks whose Workloads may be peers. Where they come
// through a FloatingIP, they are known by identity alone.
func (d *jointDraft) peersOf() []peerPlace {
	var out []peerPlace
	for _, n := range d.near {
		out = append(out, peerPlace{neighbour: n})
	}
	seen := map[*result]bool{}
	add := func(r *result, prefixes []netip.Prefix) {
		if r != nil && r.live && !seen[r] {
			seen[r] = true
			out = append(out, peerPlace{neighbour{r, prefixes}, true})
		}
	}
	for _, f := range d.facts.home {
		if !f.external() && f.facts.pool != nil {
			add(f.facts.pool, f.facts.pool.space.prefixes)
		}
	}
	for _, f := range d.facts.pool {
		for _, t := range f.targets {
			add(t.home, nil)
		}
	}
	return out
}
