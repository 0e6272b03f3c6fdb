package compile

import (
	"maps"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// learnReach learns what connects Networks: Links, Services, FloatingIPs, which
// nodes are away and what names mean outside.
func (m *memory) learnReach(in *Input) {
	diff(m.links, in.Links, func(Key, *v1alpha1.Link, *v1alpha1.Link) { m.relink = true })
	diff(m.services, in.Services, func(k Key, old, s *v1alpha1.Service) {
		m.serviced = m.serviced || old == nil || s == nil
		put(m.touch(k.Project).services, k, s)
		if s != nil && s.Spec.ExternalName != "" {
			m.noteExternal(s.Spec.ExternalName, k)
		}
		m.touchUsers(k)
		m.traffic.serviceMoved(k)
	})
	diff(m.floats, in.FloatingIPs, func(k Key, old, f *v1alpha1.FloatingIP) {
		for _, o := range []*v1alpha1.FloatingIP{old, f} {
			if o == nil {
				continue
			}
			pool := poolOf(o)
			m.touch(pool.Project)
			if m.pools[pool] == nil {
				m.pools[pool] = map[Key]*v1alpha1.FloatingIP{}
			}
			if o == old {
				delete(m.pools[pool], k)
			} else {
				m.pools[pool][k] = o
			}
		}
	})
	if !maps.Equal(in.Away, m.away) {
		m.away = maps.Clone(in.Away)
		for k := range m.results {
			m.rejoin[k] = true
		}
	}
	if !maps.EqualFunc(in.Resolved, m.resolved, slices.Equal) {
		old := m.resolved
		m.resolved = maps.Clone(in.Resolved)
		for name, services := range m.external {
			was, had := old[name]
			is, has := m.resolved[name]
			if had == has && slices.Equal(was, is) {
				continue
			}
			for k := range services {
				m.touch(k.Project)
				m.touchUsers(k)
			}
		}
	}
}

func (m *memory) noteExternal(name string, k Key) {
	if m.external[name] == nil {
		m.external[name] = map[Key]bool{}
	}
	m.external[name][k] = true
}

// learnUsers notes which Services a Policy names.
func (m *memory) learnUsers(k Key, p *v1alpha1.Policy) {
	if p == nil {
		return
	}
	user := k.Project
	if tierOf(p) != policy.Project {
		user = ""
	}
	for _, s := range serviceNames(p) {
		if m.users[s] == nil {
			m.users[s] = map[string]bool{}
		}
		m.users[s][user] = true
	}
}

// serviceNames are the Services that a Policy names; Project "" is any.
func serviceNames(p *v1alpha1.Policy) []Key {
	var out []Key
	for i := range p.Spec.Egress {
		for _, peer := range p.Spec.Egress[i].To {
			if peer.Service == "" {
				continue
			}
			k := Key{peer.Project, peer.Service}
			if k.Project == "" && tierOf(p) == policy.Project {
				k.Project = p.Namespace
			}
			if k.Project == "*" {
				k.Project = ""
			}
			out = append(out, k)
		}
	}
	return out
}

// touchUsers marks the projects whose Policies name the Service.
func (m *memory) touchUsers(k Key) {
	for _, named := range []Key{k, {"", k.Name}} {
		for user := range m.users[named] {
			if user == "" {
				m.all = true
				continue
			}
			m.touch(user)
			// Its Policies hold in the Networks of others, too.
			for p := range m.visits[user] {
				m.touch(p)
			}
		}
	}
}

// visit notes that Workloads of a project are in a Network of another one.
func (m *memory) visit(project, owner string) {
	if m.visits[project] == nil {
		m.visits[project] = map[string]bool{}
	}
	m.visits[project][owner] = true
}

// learnForeign notes in which Networks of other projects a declared Workload
// has interfaces.
func (m *memory) learnForeign(k Key, old, now *v1alpha1.Workload) {
	for _, w := range []*v1alpha1.Workload{old, now} {
		if w == nil {
			continue
		}
		for i := range w.Spec.Interfaces {
			n := networkOf(k.Project, w.Spec.Interfaces[i].Network)
			if n.Project == k.Project {
				continue
			}
			m.visit(k.Project, n.Project)
			if m.foreign[n] == nil {
				m.foreign[n] = map[Key]*v1alpha1.Workload{}
			}
			if w == now {
				m.foreign[n][k] = w
			} else {
				delete(m.foreign[n], k)
			}
		}
	}
	// It says also how what is attached under its name may be.
	for p := range m.visits[k.Project] {
		m.touch(p)
	}
}

// learnHealth makes the health of one Network anew.
func (m *memory) learnHealth(v snapshot.VNI) {
	h := &healths{byNode: map[string]map[snapshot.CheckKey]bool{}}
	for node, r := range m.reports {
		if len(r.health[v]) > 0 {
			h.byNode[node] = r.health[v]
		}
	}
	if m.health[v] = h; len(h.byNode) == 0 {
		delete(m.health, v)
	}
	k, known := m.owner[v]
	if !known {
		return
	}
	m.rejoin[k] = true
	if t := m.touching[k]; t != nil {
		for _, l := range t.links {
			for _, n := range l.facts.lane.path {
				m.rejoin[n] = true
			}
		}
	}
}

// awayOf lists which of the nodes are away, sorted.
func (m *memory) awayOf(lists ...[]string) []string {
	var out []string
	if len(m.away) == 0 {
		return nil
	}
	for _, l := range lists {
		for _, n := range l {
			if m.away[n] {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
