package analyze

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
)

// key names a namespaced object.
type key struct{ project, name string }

func (k key) String() string { return k.project + "/" + k.name }

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.name, b.name))
}

// model is the intent, indexed.
type model struct {
	domains     map[string]string // project -> Domain
	networks    map[key]*v1alpha1.Network
	links       map[key]*v1alpha1.Link
	services    map[key]*v1alpha1.Service
	floatingIPs map[key]*v1alpha1.FloatingIP
	workloads   map[key]*v1alpha1.Workload
	policies    []*policy // in the order in which they are asked
	ifaces      []*iface  // of all declared Workloads
	// joined: the Networks that each one is linked with.
	joined map[key]map[key]bool
	// kinds: one of the interfaces for each kind that rules can tell apart.
	kinds    []*iface
	compared int
	found    []Finding
}

// iface is one interface of a Workload, declared or imagined.
type iface struct {
	project, domain, workload string
	labels                    labels.Set
	network                   key
	addrs                     []netip.Addr
	// imagined: nobody declared it; it stands for Workloads to come that a
	// selector would select.
	imagined bool
	prefixes []netip.Prefix // of its Network
}

// Run looks at the objects: our kinds, and Namespaces as
// *metav1.PartialObjectMetadata. Others are ignored; of what is there twice the
// last counts.
func Run(objects ...runtime.Object) []Finding {
	m := &model{domains: map[string]string{}, networks: map[key]*v1alpha1.Network{}, links: map[key]*v1alpha1.Link{},
		services: map[key]*v1alpha1.Service{}, floatingIPs: map[key]*v1alpha1.FloatingIP{}, workloads: map[key]*v1alpha1.Workload{}, joined: map[key]map[key]bool{}}
	policies := map[key]*v1alpha1.Policy{}
	for _, o := range objects {
		switch o := o.(type) {
		case *metav1.PartialObjectMetadata:
			m.domains[o.Name] = o.Labels[v1alpha1.DomainLabel]
		case *v1alpha1.Network:
			m.networks[key{o.Namespace, o.Name}] = o
		case *v1alpha1.Link:
			m.links[key{o.Namespace, o.Name}] = o
		case *v1alpha1.Service:
			m.services[key{o.Namespace, o.Name}] = o
		case *v1alpha1.FloatingIP:
			m.floatingIPs[key{o.Namespace, o.Name}] = o
		case *v1alpha1.Workload:
			m.workloads[key{o.Namespace, o.Name}] = o
		case *v1alpha1.Policy:
			policies[key{o.Namespace, o.Name}] = o
		}
	}
	m.attach()
	m.join()
	m.kinds = m.unlike(m.ifaces)
	for _, k := range sortedKeys(policies) {
		m.policies = append(m.policies, m.parse(policies[k]))
	}
	slices.SortStableFunc(m.policies, comparePolicies)
	m.lookAtPolicies()
	m.lookAtShadows()
	m.lookAtLinks()
	m.lookAtServices()
	m.lookAtConsents()
	return sorted(m.found)
}

func sortedKeys[V any](of map[key]V) []key { return slices.SortedFunc(maps.Keys(of), compareKeys) }

func (m *model) tell(f Finding) { m.found = append(m.found, f) }

// attach makes the interfaces of declared Workloads.
func (m *model) attach() {
	for _, k := range sortedKeys(m.workloads) {
		w := m.workloads[k]
		for i := range w.Spec.Interfaces {
			x := &w.Spec.Interfaces[i]
			f := &iface{project: k.project, domain: m.domains[k.project], workload: k.name, labels: labels.Set(w.Labels), network: networkKey(k.project, x.Network)}
			for _, text := range x.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					f.addrs = append(f.addrs, a)
				}
			}
			f.prefixes = m.prefixes(f.network)
			m.ifaces = append(m.ifaces, f)
		}
	}
}

// networkKey reads "network" or "project/network".
func networkKey(project, name string) key {
	if p, n, ok := strings.Cut(name, "/"); ok {
		return key{p, n}
	}
	return key{project, name}
}

func (m *model) prefixes(k key) []netip.Prefix {
	n := m.networks[k]
	if n == nil {
		return nil
	}
	return parsePrefixes(n.Spec.Prefixes)
}

func parsePrefixes(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// ends are the Networks of a Link; ok is false unless both are there.
func (m *model) ends(k key, l *v1alpha1.Link) (a, b key, ok bool) {
	if len(l.Spec.Ends) != 2 {
		return
	}
	end := func(e v1alpha1.LinkEnd) key { return key{cmp.Or(e.Project, k.project), e.Network} }
	a, b = end(l.Spec.Ends[0]), end(l.Spec.Ends[1])
	return a, b, m.networks[a] != nil && m.networks[b] != nil
}

// join notes which Networks reach which: by a Link that both sides want.
func (m *model) join() {
	for _, k := range sortedKeys(m.links) {
		a, b, ok := m.ends(k, m.links[k])
		if !ok || !m.consents(a, k.project, v1alpha1.ConsentLink) || !m.consents(b, k.project, v1alpha1.ConsentLink) {
			continue // compile says so
		}
		for _, pair := range [][2]key{{a, b}, {b, a}} {
			if m.joined[pair[0]] == nil {
				m.joined[pair[0]] = map[key]bool{}
			}
			m.joined[pair[0]][pair[1]] = true
		}
	}
}

// consents: the Network lets the project refer to it for a purpose.
func (m *model) consents(network key, project, purpose string) bool {
	if network.project == project {
		return true
	}
	n := m.networks[network]
	return n != nil && slices.ContainsFunc(n.Spec.Consents, func(c v1alpha1.Consent) bool {
		return m.meant(&c, network, project) && slices.Contains(c.Purposes(), purpose)
	})
}

// meant: the Consent of the Network is for the project.
func (m *model) meant(c *v1alpha1.Consent, network key, project string) bool {
	domain := cmp.Or(c.Domain, m.domains[network.project])
	return (c.Project == project || c.Project == "*") && m.domains[project] == domain
}

// reaches: what is in one Network gets to the other.
func (m *model) reaches(from, to key) bool { return from == to || m.joined[from][to] }
