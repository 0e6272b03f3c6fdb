package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
)

// jointFacts gathers what one Network has to do with.
func (m *memory) jointFacts(base *result) *jointFacts {
	f := &jointFacts{base: base, health: map[snapshot.VNI]*healths{}, resolved: map[string][]netip.Addr{}}
	projects := map[string]*project{}
	meet := func(r *result) {
		projects[r.facts.project.name] = r.facts.project
		for _, g := range r.facts.guests {
			projects[g.name] = g
		}
	}
	meet(base)
	nodes := [][]string{base.endpointNodes}
	services := base.facts.services
	if t := m.touching[base.facts.key]; t != nil {
		f.links, f.pool, f.home = t.links, t.pool, t.home
	}
	for _, l := range f.links {
		for _, o := range l.at(base) {
			meet(o)
			nodes = append(nodes, o.endpointNodes)
			services = slices.Concat(services, o.facts.services)
			if h := m.health[o.row.VNI]; h != nil {
				f.health[o.row.VNI] = h
			}
		}
	}
	for _, x := range f.pool {
		for _, t := range x.targets {
			meet(t.home)
		}
	}
	for _, x := range f.home {
		if x.facts.pool != nil && !x.external() {
			meet(x.facts.pool)
		}
	}
	for _, name := range sortedNames(projects) {
		f.projects = append(f.projects, projects[name])
	}
	if h := m.health[base.row.VNI]; h != nil && base.live {
		f.health[base.row.VNI] = h
	}
	for _, s := range services {
		if name := s.Spec.ExternalName; name != "" {
			if addrs, asked := m.resolved[name]; asked {
				f.resolved[name] = addrs
			}
		}
	}
	if len(services) > 0 { // who checks what is outside
		for node, h := range base.hosts {
			if h.member {
				nodes = append(nodes, []string{node})
			}
		}
	}
	f.behind = m.behindOf(base, f.projects)
	f.fronts, f.gates = m.traffic.frontsOf(services), m.traffic.gatesOf(base.facts.key)
	f.away = m.awayOf(append(nodes, m.gateways(f))...)
	return f
}

// gateways finds who owns the egress addresses and which gateways exist, and
// returns all of those that are named.
func (m *memory) gateways(f *jointFacts) []string {
	n := f.base.facts.network
	if n == nil || n.Spec.Outside == nil {
		return nil
	}
	named := slices.Clone(n.Spec.Outside.Gateways)
	for _, a := range egressOf(n) {
		e := m.egressFor(n.Namespace, a)
		f.egress = append(f.egress, e)
		named = append(named, e.gateways...)
	}
	for _, g := range named {
		if h := m.hosts[g]; h.exists && !h.external {
			f.nodes = append(f.nodes, g)
		}
	}
	slices.Sort(f.nodes)
	f.nodes = slices.Compact(f.nodes)
	return named
}

// behindOf finds the Services that the Policies name which may hold in the
// Network.
func (m *memory) behindOf(base *result, known []*project) []behind {
	found := map[Key]behind{}
	add := func(k Key) {
		s, b := m.services[k], m.buckets[k.Project]
		if s != nil && b != nil && b.project != nil {
			found[k] = behind{k, s, b.project, m.resolved[s.Spec.ExternalName]}
		}
	}
	for _, p := range append([]*project{base.facts.project}, base.facts.guests...) {
		for _, o := range p.policies {
			for _, k := range serviceNames(o) {
				if k.Project != "" {
					add(k)
					continue
				}
				for _, x := range known {
					add(Key{x.name, k.Name})
				}
			}
		}
	}
	out := slices.Collect(maps.Values(found))
	slices.SortFunc(out, func(a, b behind) int {
		return cmp.Or(cmp.Compare(a.key.Project, b.key.Project), cmp.Compare(a.key.Name, b.key.Name))
	})
	return out
}
