package compile

import (
	"cmp"
	"maps"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// refresh computes anew what the marked projects have.
func (c *Compiler) refresh() {
	m := c.memory
	wide := m.domainWide()
	for name, b := range m.buckets {
		if !m.all && !b.dirty {
			continue
		}
		b.dirty = false
		b.project = m.makeProject(name, b, wide)
		if len(b.networks)+len(b.workloads)+len(b.policies)+len(b.identities)+len(b.attachments) == 0 {
			delete(m.buckets, name)
			continue
		}
		facts := m.facts(name, b)
		old := b.results
		b.results = make([]*result, 0, len(facts))
		for _, k := range slices.SortedFunc(maps.Keys(facts), compareKeys) {
			f := facts[k]
			i, known := slices.BinarySearchFunc(old, k, func(r *result, k Key) int { return compareKeys(r.facts.key, k) })
			if known && old[i].facts.equal(f) {
				b.results = append(b.results, old[i])
				continue
			}
			r := c.compileNetwork(f)
			if known {
				r.keep(old[i])
			}
			b.results = append(b.results, r)
		}
		b.problems = c.lives(b.results, func(p *v1alpha1.Policy) bool { return tierOf(p) == policy.Project })
	}
	m.all = false
}

// domainWide lists the Policies of tiers admin and baseline for each Domain,
// the system's included.
func (m *memory) domainWide() map[string][]*v1alpha1.Policy {
	out := map[string][]*v1alpha1.Policy{}
	for k, p := range m.wide {
		if k.Project == v1alpha1.SystemNamespace {
			for d := range m.trusts {
				out[d] = append(out[d], p)
			}
		} else if d := m.projects[k.Project]; d != "" {
			out[d] = append(out[d], p)
		}
	}
	return out
}

// makeProject returns the project as it is now, the same as before if nothing
// of it is different.
func (m *memory) makeProject(name string, b *bucket, wide map[string][]*v1alpha1.Policy) *project {
	out := &project{name: name, domain: m.projects[name]}
	switch trust, exists := m.trusts[out.domain]; {
	case out.domain == "":
		out.missing = "project " + name + " belongs to no Domain; create the project, or label it: kubectl label namespace " + name + " moire.dev/domain=DOMAIN"
	case !exists:
		out.missing = "Domain " + out.domain + " of project " + name + " does not exist; create it or correct the label"
	default:
		out.trust = trust
		out.policies = slices.AppendSeq(slices.Clone(wide[out.domain]), maps.Values(b.policies))
		slices.SortFunc(out.policies, comparePolicies)
		for _, w := range b.identities {
			if w.row.Domain == out.domain {
				out.who = append(out.who, w)
			}
		}
		slices.SortFunc(out.who, func(a, b *who) int {
			return cmp.Or(cmp.Compare(a.row.Number, b.row.Number), cmp.Compare(a.key, b.key))
		})
	}
	if out.equal(b.project) {
		return b.project
	}
	if b.project != nil && out.sameWho(b.project) {
		out.numbers, out.rows = b.project.numbers, b.project.rows
		return out
	}
	out.numbers = make(map[IdentityKey]policy.Identity, len(out.who))
	out.rows = make([]snapshot.Identity, len(out.who))
	for i, w := range out.who {
		out.numbers[w.key] = w.row.Number
		out.rows[i] = w.row
		out.rows[i].SPIFFE = spiffe(out.trust, w.row.Project, w.row.Account)
	}
	return out
}

// facts sorts what a project has by Network.
func (m *memory) facts(name string, b *bucket) map[Key]*facts {
	out := make(map[Key]*facts, len(b.networks))
	of := func(network string) *facts {
		k := Key{name, network}
		f := out[k]
		if f == nil {
			f = &facts{key: k, network: b.networks[k], project: b.project, twin: m.twins[k]}
			out[k] = f
		}
		return f
	}
	for k := range b.networks {
		of(k.Name)
	}
	for _, w := range b.workloads {
		for i := range w.Spec.Interfaces {
			f := of(w.Spec.Interfaces[i].Network)
			f.workloads = append(f.workloads, w)
		}
	}
	for node, list := range b.attachments {
		if !m.hosts[node].exists {
			continue // the node was removed, and what it said with it
		}
		for _, a := range list {
			f := of(a.Network)
			f.attachments = append(f.attachments, located{node: node, Attachment: a, declared: b.workloads[Key{name, a.Workload}]})
		}
	}
	for _, f := range out {
		f.sort()
		f.hosts = m.hostsOf(f)
	}
	return out
}

// hostsOf lists the nodes that the Network has to do with.
func (m *memory) hostsOf(f *facts) []host {
	seen := map[string]bool{}
	for _, w := range f.workloads {
		if w.Spec.Node != "" {
			seen[w.Spec.Node] = true
		}
	}
	for _, a := range f.attachments {
		seen[a.node] = true
	}
	vni := snapshot.VNI(0)
	if f.network != nil {
		vni = snapshot.VNI(f.network.Status.VNI)
		for _, b := range f.network.Status.Blocks {
			seen[b.Node] = true
		}
	}
	out := make([]host, 0, len(seen))
	for name := range seen {
		h, exists := m.hosts[name]
		if !exists {
			h = host{name: name}
		} else if r := m.reports[name]; r != nil && vni != 0 {
			h.echo = r.blocks[vni]
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b host) int { return cmp.Compare(a.name, b.name) })
	return out
}
