package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// who is one allocated identity of a project.
type who struct {
	key    IdentityKey
	row    snapshot.Identity
	labels labels.Set
}

// project is what the Networks of one project share. It is never changed
// after index made it, so that equal pointers mean equal facts.
type project struct {
	name, domain, trust string
	// missing says why nothing in the project is connected; empty: all is well.
	missing string
	// who, sorted by number, and by key.
	who     []*who
	numbers map[IdentityKey]policy.Identity
	// policies that may hold for its Workloads, in the order in which they are
	// asked: admin, project, baseline.
	policies []*v1alpha1.Policy
}

func (p *project) equal(o *project) bool {
	return o != nil && p.name == o.name && p.domain == o.domain && p.trust == o.trust && p.missing == o.missing &&
		slices.Equal(p.policies, o.policies) &&
		slices.EqualFunc(p.who, o.who, func(a, b *who) bool { return a.row.Number == b.row.Number && a.key == b.key })
}

// located is one reported attachment with where it is and what is declared.
type located struct {
	node string
	*snapshot.Attachment
	declared *v1alpha1.Workload
}

func (a located) equal(b located) bool {
	return a.node == b.node && a.declared == b.declared && (a.Attachment == b.Attachment ||
		a.AttachmentKey == b.AttachmentKey && a.Account == b.Account && a.MAC == b.MAC && a.VNI == b.VNI &&
			a.Since.Equal(b.Since) && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addresses, b.Addresses))
}

// host is what a Network needs to know of a node.
type host struct {
	name                       string
	exists, external, numbered bool
	// echo is what the node says of its blocks of the Network.
	echo []snapshot.Block
}

func (h host) equal(o host) bool {
	return h.name == o.name && h.exists == o.exists && h.external == o.external && h.numbered == o.numbered &&
		slices.EqualFunc(h.echo, o.echo, func(a, b snapshot.Block) bool {
			return a.BlockKey == b.BlockKey && slices.Equal(a.Excluded, b.Excluded)
		})
}

// facts are everything that the result of one Network depends on.
type facts struct {
	key     Key
	network *v1alpha1.Network // nil: something refers to it, but it does not exist
	// twin is another Network with the same VNI, which then counts.
	twin        string
	project     *project
	workloads   []*v1alpha1.Workload // that list the Network, sorted by name
	attachments []located            // sorted by since, node and key
	hosts       []host               // sorted by name
}

func (f *facts) equal(o *facts) bool {
	return o != nil && f.network == o.network && f.twin == o.twin && f.project == o.project &&
		slices.Equal(f.workloads, o.workloads) && slices.EqualFunc(f.attachments, o.attachments, located.equal) &&
		slices.EqualFunc(f.hosts, o.hosts, host.equal)
}

func (f *facts) host(name string) host {
	if i, ok := slices.BinarySearchFunc(f.hosts, name, func(h host, n string) int { return cmp.Compare(h.name, n) }); ok {
		return f.hosts[i]
	}
	return host{name: name}
}

// index sorts the facts by Network.
func (c *Compiler) index(in *Input) map[Key]*facts {
	projects := c.projects(in)
	out := make(map[Key]*facts, len(in.Networks))
	of := func(k Key) *facts {
		f := out[k]
		if f == nil {
			f = &facts{key: k, network: in.Networks[k], project: projects.of(k.Project)}
			out[k] = f
		}
		return f
	}
	for k := range in.Networks {
		of(k)
	}
	for k, w := range in.Workloads {
		for i := range w.Spec.Interfaces {
			f := of(Key{k.Project, w.Spec.Interfaces[i].Network})
			f.workloads = append(f.workloads, w)
		}
	}
	for node, r := range in.Reports {
		if in.Nodes[node] == nil {
			continue // the node was removed, and what it said with it
		}
		for i := range r.Attachments {
			a := &r.Attachments[i]
			f := of(Key{a.Project, a.Network})
			f.attachments = append(f.attachments, located{node, a, in.Workloads[Key{a.Project, a.Workload}]})
		}
	}
	twins := twins(in)
	echoes := echoes(in)
	for k, f := range out {
		f.twin = twins[k]
		f.sort()
		f.hosts = hosts(in, f, echoes)
	}
	c.lastProjects = projects.made
	return out
}

func (f *facts) sort() {
	slices.SortFunc(f.workloads, func(a, b *v1alpha1.Workload) int { return cmp.Compare(a.Name, b.Name) })
	f.workloads = slices.Compact(f.workloads)
	slices.SortFunc(f.attachments, func(a, b located) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.node, b.node), a.AttachmentKey.Compare(b.AttachmentKey))
	})
}

// twins finds Networks whose VNI another Network has too; the first by key
// keeps it.
func twins(in *Input) map[Key]string {
	first := make(map[int32]Key, len(in.Networks))
	out := map[Key]string{}
	for k, n := range in.Networks {
		if n.Status.VNI == 0 {
			continue
		}
		o, taken := first[n.Status.VNI]
		if !taken || compareKeys(k, o) < 0 {
			first[n.Status.VNI] = k
		}
	}
	for k, n := range in.Networks {
		if o := first[n.Status.VNI]; n.Status.VNI != 0 && o != k {
			out[k] = o.String()
		}
	}
	return out
}

// echoes sorts what nodes say of their blocks by VNI and node.
func echoes(in *Input) map[snapshot.VNI]map[string][]snapshot.Block {
	out := map[snapshot.VNI]map[string][]snapshot.Block{}
	for node, r := range in.Reports {
		for _, b := range r.Blocks {
			if out[b.VNI] == nil {
				out[b.VNI] = map[string][]snapshot.Block{}
			}
			out[b.VNI][node] = append(out[b.VNI][node], b)
		}
	}
	return out
}

func hosts(in *Input, f *facts, echoes map[snapshot.VNI]map[string][]snapshot.Block) []host {
	var names []string
	for _, w := range f.workloads {
		if w.Spec.Node != "" {
			names = append(names, w.Spec.Node)
		}
	}
	for _, a := range f.attachments {
		names = append(names, a.node)
	}
	var said map[string][]snapshot.Block
	if f.network != nil {
		said = echoes[snapshot.VNI(f.network.Status.VNI)]
		for _, b := range f.network.Status.Blocks {
			names = append(names, b.Node)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	out := make([]host, len(names))
	for i, name := range names {
		n := in.Nodes[name]
		out[i] = host{name: name, exists: n != nil, external: n != nil && n.Spec.External, numbered: in.NodeNumbers[name] != 0}
		if n != nil {
			out[i].echo = said[name]
		}
	}
	return out
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}

// projectIndex makes and remembers the projects of one compile.
type projectIndex struct {
	c          *Compiler
	in         *Input
	identities map[string][]*who // by project
	policies   map[string][]*v1alpha1.Policy
	made       map[string]*project
	domainWide map[string][]*v1alpha1.Policy // by Domain, the system's included
}

func (c *Compiler) projects(in *Input) *projectIndex {
	p := &projectIndex{c: c, in: in, identities: map[string][]*who{}, policies: map[string][]*v1alpha1.Policy{},
		made: make(map[string]*project, len(c.lastProjects)), domainWide: map[string][]*v1alpha1.Policy{}}
	for k, n := range in.Identities {
		if row := c.identity(k, n); row != nil {
			p.identities[row.row.Project] = append(p.identities[row.row.Project], row)
		}
	}
	var system []*v1alpha1.Policy
	for k, pol := range in.Policies {
		switch {
		case tierOf(pol) == policy.Project:
			p.policies[k.Project] = append(p.policies[k.Project], pol)
		case k.Project == v1alpha1.SystemNamespace:
			system = append(system, pol)
		default:
			if d := in.Projects[k.Project]; d != "" {
				p.domainWide[d] = append(p.domainWide[d], pol)
			}
		}
	}
	for d := range in.Domains {
		all := append(p.domainWide[d], system...)
		slices.SortFunc(all, comparePolicies)
		p.domainWide[d] = all
	}
	return p
}

func (p *projectIndex) of(name string) *project {
	if made := p.made[name]; made != nil {
		return made
	}
	out := &project{name: name, domain: p.in.Projects[name]}
	switch d := p.in.Domains[out.domain]; {
	case out.domain == "":
		out.missing = "project " + name + " belongs to no Domain"
	case d == nil:
		out.missing = "Domain " + out.domain + " of project " + name + " does not exist"
	default:
		out.trust = TrustDomain(d)
	}
	if out.missing == "" {
		out.policies = slices.Concat(p.policies[name], p.domainWide[out.domain])
		slices.SortFunc(out.policies, comparePolicies)
		for _, w := range p.identities[name] {
			if w.row.Domain == out.domain {
				out.who = append(out.who, w)
			}
		}
	}
	out.finish()
	if last := p.c.lastProjects[name]; out.equal(last) {
		out = last
	}
	p.made[name] = out
	return out
}

// finish sorts and keys what is known.
func (p *project) finish() {
	slices.SortFunc(p.who, func(a, b *who) int {
		return cmp.Or(cmp.Compare(a.row.Number, b.row.Number), cmp.Compare(a.key, b.key))
	})
	p.numbers = make(map[IdentityKey]policy.Identity, len(p.who))
	for _, w := range p.who {
		p.numbers[w.key] = w.row.Number
	}
}

// identityRow is the row of Snapshot.Identities.
func (p *project) identityRow(w *who) snapshot.Identity {
	row := w.row
	row.SPIFFE = spiffe(p.trust, row.Project, row.Account)
	return row
}

// comparePolicies is the order in which Policies are asked: by tier; in admin
// and baseline moire-system first, then priority; then project and name.
func comparePolicies(a, b *v1alpha1.Policy) int {
	ta, tb := tierOf(a), tierOf(b)
	if ta != tb {
		return cmp.Compare(ta, tb)
	}
	if ta != policy.Project {
		sa, sb := a.Namespace == v1alpha1.SystemNamespace, b.Namespace == v1alpha1.SystemNamespace
		if sa != sb {
			if sa {
				return -1
			}
			return 1
		}
		if c := cmp.Compare(a.Spec.Priority, b.Spec.Priority); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func tierOf(p *v1alpha1.Policy) policy.Tier {
	switch p.Spec.Tier {
	case v1alpha1.TierAdmin:
		return policy.Admin
	case v1alpha1.TierBaseline:
		return policy.Baseline
	}
	return policy.Project
}

// nodeRows are the rows of Snapshot.Nodes of every known node.
func nodeRows(in *Input) map[string]snapshot.Node {
	out := make(map[string]snapshot.Node, len(in.Nodes))
	for name, n := range in.Nodes {
		addr, err := netip.ParseAddr(n.Spec.Address)
		if err != nil {
			if r := in.Reports[name]; r != nil {
				addr = r.Address
			}
		}
		out[name] = snapshot.Node{Name: name, Address: addr, Number: in.NodeNumbers[name], External: n.Spec.External}
	}
	return out
}

// sortedNames lists the keys of a map in order.
func sortedNames[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
