package compile

import (
	"maps"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/policy"
)

// refresh computes anew what the marked projects have, then what Links and
// FloatingIPs make of it, then the Networks that have to do with either.
func (c *Compiler) refresh() {
	m := c.memory
	if m.relink || m.all {
		m.judgeEgress()
	}
	dirty := c.projects()
	for _, name := range dirty {
		c.networks(name, m.buckets[name])
	}
	if m.relink || m.all {
		m.lanes = m.judgeLanes()
		for k := range m.results { // egress addresses may have another owner
			if n := m.networks[k]; n != nil && n.Spec.Outside != nil {
				m.rejoin[k] = true
			}
		}
	}
	touched := c.links()
	touched = c.floatings() || touched
	if touched {
		m.sortTouching()
	}
	for _, k := range m.refreshFronts() {
		m.rejoinSeers(k)
	}
	m.refreshGates()
	c.joinAll()
	for name, b := range m.buckets {
		if b.stale {
			b.stale, b.problems = false, c.lives(m.jointsOf(name), func(p *v1alpha1.Policy) bool { return tierOf(p) == policy.Project && p.Namespace == name })
		}
	}
	m.all, m.relink = false, false
	clear(m.rejoin)
}

// projects brings the projects up to date and returns those whose Networks may
// be different, sorted.
func (c *Compiler) projects() []string {
	m := c.memory
	wide := m.domainWide()
	seen := map[string]bool{}
	var next []string
	for name, b := range m.buckets {
		if m.all || b.dirty {
			next = append(next, name)
		}
	}
	for len(next) > 0 {
		name := next[len(next)-1]
		next = next[:len(next)-1]
		if seen[name] {
			continue
		}
		seen[name] = true
		b := m.bucket(name)
		b.dirty = false
		old := b.project
		if b.project = m.makeProject(name, b, wide); b.project != old {
			// Networks in which it is a guest are different, too.
			for owner := range m.visits[name] {
				next = append(next, owner)
			}
		}
	}
	return sortedNames(seen)
}

// networks computes the Networks of one project anew.
func (c *Compiler) networks(name string, b *bucket) {
	m := c.memory
	old := b.results
	b.stale = true
	facts := m.facts(name, b)
	b.results = make([]*result, 0, len(facts))
	for _, k := range slices.SortedFunc(maps.Keys(facts), compareKeys) {
		f := facts[k]
		m.rejoin[k] = true
		last := m.results[k]
		if last != nil && last.facts.equal(f) {
			b.results = append(b.results, last)
			continue
		}
		r := compileNetwork(f)
		if last != nil {
			r.keep(last)
		}
		m.results[k] = r
		b.results = append(b.results, r)
	}
	for _, r := range old {
		if k := r.facts.key; facts[k] == nil {
			delete(m.results, k)
			m.traffic.moved = m.traffic.moved || m.joints[k] != nil && len(m.joints[k].unseen) > 0
			delete(m.joints, k)
			m.rejoin[k] = true
		}
	}
	if len(b.networks)+len(b.workloads)+len(b.policies)+len(b.identities)+len(b.attachments)+len(b.services)+len(b.guests)+len(b.results) == 0 {
		delete(m.buckets, name)
	}
}

// links computes the Links that are different, and marks their Networks.
func (c *Compiler) links() (touched bool) {
	m := c.memory
	for k, l := range m.lanes {
		f := linkFacts{lane: l}
		var nodes [][]string
		for _, n := range l.path {
			r := m.results[n]
			f.path = append(f.path, r)
			var h *healths
			if r != nil {
				nodes = append(nodes, r.endpointNodes)
				if len(l.functions) > 0 {
					h = m.health[r.row.VNI]
				}
			}
			f.health = append(f.health, h)
		}
		if len(l.functions) > 0 {
			f.away = m.awayOf(nodes...)
		}
		old := m.linked[k]
		if old != nil && old.facts.equal(&f) {
			continue
		}
		touched = true
		m.linked[k] = compileLink(f, old)
		m.rejoinAll(l.path)
		if old != nil {
			m.rejoinAll(old.facts.lane.path)
		}
	}
	for k, old := range m.linked {
		if m.lanes[k] == nil {
			touched = true
			delete(m.linked, k)
			m.rejoinAll(old.facts.lane.path)
		}
	}
	return touched
}

func (m *memory) rejoinAll(keys []Key) {
	for _, k := range keys {
		m.rejoin[k] = true
	}
}

// floatings computes the FloatingIPs that are different, and marks their
// Networks.
func (c *Compiler) floatings() (touched bool) {
	m := c.memory
	mark := func(f *floating) {
		touched = true
		m.rejoin[poolOf(f.facts.float)] = true
		for _, t := range f.targets {
			m.rejoin[t.home.facts.key] = true
		}
	}
	ofProject := map[string]floatFacts{}
	for k, o := range m.floats {
		f, known := ofProject[k.Project]
		if !known {
			f.homes = m.homesOf(k.Project)
			var nodes [][]string
			for _, r := range f.homes {
				nodes = append(nodes, r.endpointNodes)
			}
			f.away = m.awayOf(nodes...)
			ofProject[k.Project] = f
		}
		f.float, f.pool = o, m.results[poolOf(o)]
		old := m.floatings[k]
		if old != nil && old.facts.equal(&f) {
			continue
		}
		if old != nil {
			mark(old)
		}
		m.floatings[k] = compileFloating(f)
		mark(m.floatings[k])
	}
	for k, old := range m.floatings {
		if m.floats[k] == nil {
			mark(old)
			delete(m.floatings, k)
		}
	}
	return touched
}

// homesOf are the Networks in which Workloads of a project may be.
func (m *memory) homesOf(project string) []*result {
	var out []*result
	if b := m.buckets[project]; b != nil {
		out = append(out, b.results...)
	}
	for _, owner := range sortedNames(m.visits[project]) {
		if b := m.buckets[owner]; b != nil && owner != project {
			for _, r := range b.results {
				if r.facts.projectOf(project) != nil {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// sortTouching sorts Links and FloatingIPs by the Networks that they touch.
func (m *memory) sortTouching() {
	m.touching = map[Key]*touching{}
	of := func(k Key) *touching {
		t := m.touching[k]
		if t == nil {
			t = &touching{}
			m.touching[k] = t
		}
		return t
	}
	for _, k := range sortedKeys(m.linked) {
		l := m.linked[k]
		for _, n := range l.facts.lane.path {
			if t := of(n); len(t.links) == 0 || t.links[len(t.links)-1] != l {
				t.links = append(t.links, l)
			}
		}
	}
	for _, k := range sortedKeys(m.floatings) {
		f := m.floatings[k]
		of(poolOf(f.facts.float)).pool = append(of(poolOf(f.facts.float)).pool, f)
		for _, target := range f.targets {
			if t := of(target.home.facts.key); len(t.home) == 0 || t.home[len(t.home)-1] != f {
				t.home = append(t.home, f)
			}
		}
	}
}

// joinAll computes the joint results that may be different.
func (c *Compiler) joinAll() {
	m := c.memory
	for k := range m.rejoin {
		base := m.results[k]
		if base == nil {
			continue
		}
		f := m.jointFacts(base)
		old := m.joints[k]
		if old != nil && old.facts.equal(f) {
			continue
		}
		next := c.compileJoint(f, old)
		m.traffic.moved = m.traffic.moved || old == nil && len(next.unseen) > 0 || old != nil && !slices.Equal(old.unseen, next.unseen)
		m.joints[k] = next
		m.stale(k.Project)
		for _, g := range base.facts.guests {
			m.stale(g.name)
		}
		if old != nil {
			for _, g := range old.facts.base.facts.guests {
				m.stale(g.name)
			}
		}
	}
}

func (m *memory) stale(project string) {
	if b := m.buckets[project]; b != nil {
		b.stale = true
	}
}

// jointsOf are the joints in which Policies of the project may hold, sorted.
func (m *memory) jointsOf(project string) []*joint {
	var out []*joint
	for _, r := range m.homesOf(project) {
		if j := m.joints[r.facts.key]; j != nil {
			out = append(out, j)
		}
	}
	return out
}
