package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// floatFacts are everything that the result of one FloatingIP depends on.
type floatFacts struct {
	float *v1alpha1.FloatingIP
	pool  *result // nil: there is none
	// homes: where the targets may be; sorted by key.
	homes []*result
	away  []string // nodes of homes that are away, sorted
}

func (f *floatFacts) equal(o *floatFacts) bool {
	return f.float == o.float && f.pool == o.pool && slices.Equal(f.homes, o.homes) && slices.Equal(f.away, o.away)
}

// floating is everything that follows from one FloatingIP. It is never changed
// after it was made.
type floating struct {
	facts       floatFacts
	key         Key
	addr        snapshot.Addr // where it answers; zero: nowhere yet
	services    []snapshot.Service
	targets     []target
	masquerades []snapshot.Masquerade
	holder      string   // node that has the address on the underlay
	names       []string // absolute, sorted
	problems    []v1alpha1.Problem
	message     string
	ready       bool
}

// target is one interface that a FloatingIP leads to.
type target struct {
	snapshot.Endpoint
	home   *result
	weight uint32
}

func (f *floating) name() string { return "FloatingIP " + f.key.String() }

func (f *floating) external() bool { return f.addr.VNI == snapshot.Outside }

// compileFloating computes the result of one FloatingIP.
func compileFloating(facts floatFacts) *floating {
	f := &floating{facts: facts, key: Key{facts.float.Namespace, facts.float.Name}}
	f.findTargets()
	pool := facts.pool
	if pool == nil || pool.facts.network == nil {
		f.problems = append(f.problems, about(codeNoNetwork, f.name(), "spec.pool.network", "Network "+poolOf(facts.float).String()+" does not exist", "create it or correct the name"))
		return f
	}
	addrs := pool.vipsOf[vipOwner{KindFloatingIP, f.key}]
	if len(addrs) == 0 {
		f.message = "waiting for an address"
		return f
	}
	f.addr = snapshot.Addr{VNI: pool.row.VNI, IP: addrs[0]}
	switch {
	case pool.facts.network.Spec.External && pool.facts.project.missing == "":
		f.addr.VNI = snapshot.Outside
	case !pool.live:
		f.addr, f.message = snapshot.Addr{}, "waiting for Network "+pool.facts.key.String()
		return f
	}
	f.ready, f.message = true, f.addr.IP.String()
	f.ownNames(pool)
	f.rows()
	return f
}

// ownNames are the names that spec asks for. What Workloads and Services of
// others are called in the pool's Network is not for a guest to say, and neither
// is anything else in its zone but what is below the guest's own project.
func (f *floating) ownNames(pool *result) {
	for i, n := range f.facts.float.Spec.Names {
		name, zone := absolute(n), "."+absolute(zoneOf(&pool.facts.network.Spec))
		if pool.facts.key.Project != f.key.Project && !f.external() && strings.HasSuffix("."+name, zone) && !strings.HasSuffix("."+name, "."+f.key.Project+zone) {
			f.problems = append(f.problems, about(codeForeignName, f.name(), fmt.Sprintf("spec.names[%d]", i),
				fmt.Sprintf("%s is in the zone of Network %s of another project", n, pool.facts.key), "choose a name outside of that zone, or below "+f.key.Project+strings.TrimSuffix(zone, ".")))
			continue
		}
		f.names = append(f.names, name)
	}
	slices.Sort(f.names)
}

// poolOf is the Network that the FloatingIP takes its address from.
func poolOf(f *v1alpha1.FloatingIP) Key {
	return Key{cmp.Or(f.Spec.Pool.Project, f.Namespace), f.Spec.Pool.Network}
}

// findTargets finds the interfaces of the targets that are attached.
func (f *floating) findTargets() {
	for i := range f.facts.float.Spec.Targets {
		t := &f.facts.float.Spec.Targets[i]
		field := fmt.Sprintf("spec.targets[%d]", i)
		workload := Key{f.key.Project, t.Workload}
		var homes []*result
		for _, r := range f.facts.homes {
			if len(r.of(workload)) > 0 && (t.Network == "" || networkOf(f.key.Project, t.Network) == r.facts.key) {
				homes = append(homes, r)
			}
		}
		switch {
		case len(homes) == 0:
			where := ""
			if t.Network != "" {
				where = " to Network " + networkOf(f.key.Project, t.Network).String()
			}
			f.problems = append(f.problems, warn(about(codeNoTarget, f.name(), field, fmt.Sprintf("Workload %s is not attached%s", workload, where), "attach it or correct the name")))
			continue
		case len(homes) > 1:
			f.problems = append(f.problems, about(codeNoTarget, f.name(), field, fmt.Sprintf("Workload %s is attached to several Networks, such as %s and %s", workload, homes[0].facts.key, homes[1].facts.key), "say which with network"))
			continue
		}
		for _, n := range homes[0].of(workload) {
			f.targets = append(f.targets, target{homes[0].endpoints[n], homes[0], uint32(max(t.Weight, 0))})
		}
	}
	slices.SortStableFunc(f.targets, func(a, b target) int { return cmp.Or(cmp.Compare(a.Workload, b.Workload), a.Addr.Compare(b.Addr)) })
	f.targets = slices.CompactFunc(f.targets, func(a, b target) bool { return a.Addr == b.Addr })
}

// rows makes the Services, one for each port, and what the targets leave as.
func (f *floating) rows() {
	var here []target
	for _, t := range f.targets {
		if t.Addr.IP.Is4() == f.addr.IP.Is4() && t.home.live && !t.home.facts.host(t.Node).external {
			here = append(here, t)
		}
	}
	if len(here) == 0 && len(f.targets) > 0 {
		f.problems = append(f.problems, about(codeNoTarget, f.name(), "spec.targets", fmt.Sprintf("no target has an address of the family of %s", f.addr.IP), "choose an address of the family that the targets have"))
	}
	f.targets = here
	alive := slices.DeleteFunc(slices.Clone(here), func(t target) bool { return slices.Contains(f.facts.away, t.Node) })
	if len(alive) > 0 && f.external() {
		f.holder = alive[0].Node
	}
	if len(alive) == 0 && len(here) > 0 {
		f.problems = append(f.problems, warn(about(codeNoTarget, f.name(), "spec.targets", "the nodes of all targets are away", "wait for one, or add another target")))
	}
	ports := f.facts.float.Spec.Ports
	if len(ports) == 0 {
		f.service(alive, 0, 0, 0, "")
		if f.external() && f.holder != "" {
			for _, t := range alive {
				f.masquerades = append(f.masquerades, snapshot.Masquerade{Addr: t.Addr, As: f.addr.IP, Node: f.holder})
			}
		}
		return
	}
	for _, p := range ports {
		f.service(alive, protocol(p.Protocol), uint16(p.Port), targetPort(p), p.Name)
	}
}

func (f *floating) service(alive []target, protocol uint8, port, to uint16, portName string) {
	s := snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: f.addr, Protocol: protocol, Port: port}, Project: f.key.Project, Name: f.key.Name, Floating: true, PortName: portName}
	s.Names = f.names
	for _, t := range alive {
		b := snapshot.Backend{Addr: t.Addr, Port: to, Weight: t.weight, Node: t.Node}
		if t.weight == 0 {
			b.Weight = 1
			s.Leaving = append(s.Leaving, b)
		} else {
			s.Backends = append(s.Backends, b)
		}
	}
	sortBackends(s.Backends)
	sortBackends(s.Leaving)
	f.services = append(f.services, s)
}

func sortBackends(bs []snapshot.Backend) {
	slices.SortFunc(bs, func(a, b snapshot.Backend) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port)) })
}

// protocol is the IP protocol number.
func protocol(name string) uint8 { return portRange(v1alpha1.Port{Protocol: name}).Protocol }

func targetPort(p v1alpha1.ServicePort) uint16 { return uint16(cmp.Or(p.TargetPort, p.Port)) }

// absolute is a DNS name in lower case with a full stop at the end.
func absolute(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

// targetsOn reports whether a target is on the node.
func (f *floating) targetsOn(node string) bool {
	return slices.ContainsFunc(f.targets, func(t target) bool { return t.Node == node })
}

// egressOf are the addresses that a Network names as its source outside.
func egressOf(n *v1alpha1.Network) []netip.Addr {
	if n == nil || n.Spec.Outside == nil || n.Spec.Outside.Mode != v1alpha1.OutsideGateway {
		return nil
	}
	out := addresses(n.Spec.Outside.Addresses)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
