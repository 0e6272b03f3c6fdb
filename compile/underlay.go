package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"moire.dev/moire/api/v1alpha1"
)

// egress says whose an egress address is, or why it is nobody's.
type egress struct {
	owner    Key
	gateways []string
	refused  string
}

func (e egress) equal(o egress) bool {
	return e.owner == o.owner && slices.Equal(e.gateways, o.gateways) && e.refused == o.refused
}

// pool are the addresses of the underlay that an external Network gives away.
type pool struct {
	key       Key
	addresses ranges
}

// reaching are the Networks that name addresses of the underlay, the oldest
// first: who was there first keeps what it has, whatever somebody else writes.
func (m *memory) reaching() []*v1alpha1.Network {
	var out []*v1alpha1.Network
	for _, n := range m.networks {
		if n.Spec.External || len(egressOf(n)) > 0 {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, compareAge[*v1alpha1.Network])
	return out
}

// judgeEgress finds the owner of every egress address, and for each external
// Network what of the underlay its FloatingIPs may not have: addresses of nodes,
// egress addresses, and what an older external Network gives away.
func (m *memory) judgeEgress() {
	m.egress, m.sources = map[netip.Addr]egress{}, nil
	taken, elder := slices.Clone(m.underlay), map[Key]ranges{}
	for _, n := range m.reaching() {
		k := Key{n.Namespace, n.Name}
		if n.Spec.External {
			own := spaceOf(&n.Spec).floating
			for _, o := range m.sources {
				elder[k] = union(append(elder[k], own.and(o.addresses)...))
			}
			m.sources = append(m.sources, pool{k, own})
			continue
		}
		for _, a := range egressOf(n) {
			if _, has := m.egress[a]; !has && m.refusedEgress(k.Project, a) == "" {
				m.egress[a] = egress{owner: k, gateways: n.Spec.Outside.Gateways}
				taken = append(taken, a)
			}
		}
	}
	slices.SortFunc(taken, netip.Addr.Compare)
	taken = slices.Compact(taken)
	for k, n := range m.networks {
		if n.Spec.External && (!slices.Equal(taken, m.taken) || !slices.Equal(elder[k], m.elder[k])) {
			m.touch(k.Project)
		}
	}
	m.taken, m.elder = taken, elder
}

// egressFor is what there is to say of an egress address that the project names.
func (m *memory) egressFor(project string, a netip.Addr) egress {
	if e, has := m.egress[a]; has {
		return e
	}
	return egress{refused: cmp.Or(m.refusedEgress(project, a), "is nobody's")}
}

// refusedEgress says why the project may not leave as that address: a node has
// it, or a pool that is there already and does not give it to the project.
func (m *memory) refusedEgress(project string, a netip.Addr) string {
	if _, node := slices.BinarySearchFunc(m.underlay, a, netip.Addr.Compare); node {
		return "is the address of a node"
	}
	for _, o := range m.sources {
		n := m.networks[o.key]
		if o.addresses.contains(a) && !consents(n, m.projects[o.key.Project], project, m.projects[project], v1alpha1.ConsentFloatingIP) {
			return "is one of the FloatingIPs of Network " + o.key.String()
		}
	}
	return ""
}
