package compile

import (
	"cmp"
	"maps"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// domainWide lists the Policies of tiers admin and baseline for each Domain,
// the system's included.
func (m *memory) domainWide() map[string][]*v1alpha1.Policy {
	out := map[string][]*v1alpha1.Policy{}
	for k, p := range m.wide {
		if k.Project == v1alpha1.SystemNamespace {
			for d := range m.domains {
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
	switch d, exists := m.domains[out.domain]; {
	case out.domain == "":
		out.missing = "project " + name + " belongs to no Domain; create the project, or label it: kubectl label namespace " + name + " moire.dev/domain=DOMAIN"
	case !exists:
		out.missing = "Domain " + out.domain + " of project " + name + " does not exist; create it or correct the label"
	default:
		out.trust, out.authorizers = d.trust, d.authorizers
		out.mode = modeOf(cmp.Or(m.modes[name], d.mtls))
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
			if n := networkOf(name, w.Spec.Interfaces[i].Network); n.Project == name {
				f := of(n.Name)
				f.workloads = append(f.workloads, w)
			}
		}
	}
	for n, list := range m.foreign {
		if n.Project == name {
			for _, w := range list {
				f := of(n.Name)
				f.workloads = append(f.workloads, w)
			}
		}
	}
	for _, s := range b.services {
		for i := range s.Spec.Networks {
			f := of(s.Spec.Networks[i].Network)
			f.services = append(f.services, s)
		}
	}
	for _, lists := range []map[string][]*snapshot.Attachment{b.attachments, b.guests} {
		for node, list := range lists {
			if !m.hosts[node].exists {
				continue // the node was removed, and what it said with it
			}
			for _, a := range list {
				if n := networkOf(a.Project, a.Network); n.Project == name {
					f := of(n.Name)
					f.attachments = append(f.attachments, located{node: node, Attachment: a, declared: m.declared(Key{a.Project, a.Workload})})
				}
			}
		}
	}
	for k, f := range out {
		m.addFloats(k, f)
		m.addGuests(f)
		f.sort()
		f.hosts = m.hostsOf(f)
	}
	return out
}

// addFloats finds the FloatingIPs of the pool, and who may have one.
func (m *memory) addFloats(k Key, f *facts) {
	if f.network == nil {
		return
	}
	if f.network.Spec.External {
		f.taken, f.elder = m.taken, m.elder[k]
	}
	for _, o := range m.pools[k] {
		c := poolClaim{FloatingIP: o}
		domain, mine := m.projects[k.Project], m.projects[o.Namespace]
		switch {
		case mine == "":
			c.refused = "project " + o.Namespace + " belongs to no Domain"
		case !consents(f.network, domain, o.Namespace, mine, v1alpha1.ConsentFloatingIP):
			c.refused = noConsent(k, domain, o.Namespace, mine, v1alpha1.ConsentFloatingIP)
		}
		f.floats = append(f.floats, c)
	}
}

// addGuests finds the other projects whose Workloads are in the Network.
func (m *memory) addGuests(f *facts) {
	names := map[string]bool{}
	for _, w := range f.workloads {
		names[w.Namespace] = true
	}
	for _, a := range f.attachments {
		names[a.Project] = true
	}
	delete(names, f.key.Project)
	for _, n := range sortedNames(names) {
		if b := m.buckets[n]; b != nil && b.project != nil {
			f.guests = append(f.guests, b.project)
		}
	}
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
