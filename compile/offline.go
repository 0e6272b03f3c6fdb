package compile

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// OfflineNode is where Offline puts Workloads that are bound to no node.
const OfflineNode = "offline"

// Offline makes an Input of intent alone, as if every declared Workload were
// attached to its node: VNIs, identities, node numbers, addresses and MACs
// are made up, the same for the same objects in any order. Everything that is
// checked is healthy, no node is away, and no external name has been asked yet:
// put addresses into Resolved where they matter. Gateways are where they shall be,
// and what Secrets they name is there, without anybody having read it. Objects are
// our kinds, those of the Gateway API, and Namespaces as
// *metav1.PartialObjectMetadata; others are ignored.
// What exists twice counts once, the last one.
func Offline(objects ...runtime.Object) *Input {
	in := &Input{
		Domains: map[string]*v1alpha1.Domain{}, Projects: map[string]string{}, Modes: map[string]string{}, Networks: map[Key]*v1alpha1.Network{},
		Workloads: map[Key]*v1alpha1.Workload{}, Policies: map[Key]*v1alpha1.Policy{}, Nodes: map[string]*v1alpha1.Node{},
		NodeNumbers: map[string]uint16{}, Reports: map[string]*snapshot.Report{}, Identities: map[IdentityKey]policy.Identity{},
		Links: map[Key]*v1alpha1.Link{}, Services: map[Key]*v1alpha1.Service{}, FloatingIPs: map[Key]*v1alpha1.FloatingIP{},
		HTTPRoutes: map[Key]*gateway.HTTPRoute{}, GRPCRoutes: map[Key]*gateway.GRPCRoute{}, TLSRoutes: map[Key]*gateway.TLSRoute{}, TCPRoutes: map[Key]*gateway.TCPRoute{},
		Grants: map[Key]*gateway.ReferenceGrant{}, BackendPolicies: map[Key]*v1alpha1.BackendPolicy{}, FaultPolicies: map[Key]*v1alpha1.FaultPolicy{},
		Gateways: map[Key]*gateway.Gateway{}, Labels: map[string]map[string]string{},
		Away: map[string]bool{}, Resolved: map[string][]netip.Addr{},
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *metav1.PartialObjectMetadata:
			in.Labels[o.Name] = o.Labels
			if d := o.Labels[v1alpha1.DomainLabel]; d != "" {
				in.Projects[o.Name] = d
			}
			if mode := o.Annotations[v1alpha1.MTLSAnnotation]; mode != "" {
				in.Modes[o.Name] = mode
			}
		case *v1alpha1.Domain:
			in.Domains[o.Name] = o
		case *v1alpha1.Network:
			in.Networks[Key{o.Namespace, o.Name}] = o
		case *v1alpha1.Workload:
			in.Workloads[Key{o.Namespace, o.Name}] = o
		case *v1alpha1.Policy:
			in.Policies[Key{o.Namespace, o.Name}] = o
		case *v1alpha1.Node:
			in.Nodes[o.Name] = o
		case *v1alpha1.Link:
			in.Links[Key{o.Namespace, o.Name}] = o
		case *v1alpha1.Service:
			o = o.DeepCopy()
			o.Status = v1alpha1.ServiceStatus{}
			in.Services[Key{o.Namespace, o.Name}] = o
		case *v1alpha1.FloatingIP:
			o = o.DeepCopy()
			o.Status = v1alpha1.FloatingIPStatus{}
			in.FloatingIPs[Key{o.Namespace, o.Name}] = o
		default:
			in.offlineTraffic(o)
		}
	}
	if in.Classes != nil && in.Classes[v1alpha1.GatewayClass] == nil { // every server has it
		in.Classes[v1alpha1.GatewayClass] = &gateway.GatewayClass{Spec: gateway.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}
	}
	in.offlineNumbers()
	workloads := in.offlineWorkloads()
	in.offlineIdentities(workloads)
	in.offlineAttachments(workloads)
	if len(in.Services)+len(in.FloatingIPs)+len(in.Links) > 0 {
		in.offlineReach()
	}
	return in
}

// offlineTraffic takes routes and what is attached to them.
func (in *Input) offlineTraffic(o runtime.Object) {
	switch o := o.(type) {
	case *gateway.HTTPRoute:
		in.HTTPRoutes[Key{o.Namespace, o.Name}] = o
	case *gateway.GRPCRoute:
		in.GRPCRoutes[Key{o.Namespace, o.Name}] = o
	case *gateway.TLSRoute:
		in.TLSRoutes[Key{o.Namespace, o.Name}] = o
	case *gateway.TCPRoute:
		in.TCPRoutes[Key{o.Namespace, o.Name}] = o
	case *gateway.Gateway:
		in.Gateways[Key{o.Namespace, o.Name}] = o
	case *gateway.GatewayClass:
		set(&in.Classes, o.Name, o)
	case *gateway.ReferenceGrant:
		in.Grants[Key{o.Namespace, o.Name}] = o
	case *v1alpha1.BackendPolicy:
		in.BackendPolicies[Key{o.Namespace, o.Name}] = o
	case *v1alpha1.FaultPolicy:
		in.FaultPolicies[Key{o.Namespace, o.Name}] = o
	}
}

// offlineReach makes up addresses of Services and FloatingIPs, and that
// everything is well.
func (in *Input) offlineReach() {
	needs := NeedsOf(in)
	for _, n := range needs.Addresses {
		switch n.Kind {
		case KindService:
			s := in.Services[n.Key]
			s.Status.Addresses = append(s.Status.Addresses, v1alpha1.ServiceAddress{Network: n.Network.Name, Address: n.Address.String()})
		case KindFloatingIP:
			in.FloatingIPs[n.Key].Status.Address = n.Address.String()
		}
	}
	snaps, _ := Compile(in)
	for name, s := range snaps {
		for k := range s.Checks {
			in.Reports[name].Health = append(in.Reports[name].Health, snapshot.Health{CheckKey: k, Healthy: true})
		}
		slices.SortFunc(in.Reports[name].Health, func(a, b snapshot.Health) int { return a.CheckKey.Compare(b.CheckKey) })
	}
}

// offlineNumbers makes up nodes, node numbers and VNIs.
func (in *Input) offlineNumbers() {
	if len(in.Gateways) > 0 && len(in.Nodes) == 0 { // one has to run them
		in.Nodes[OfflineNode] = &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: OfflineNode}}
	}
	for _, w := range in.Workloads {
		if name := offlineNode(w); in.Nodes[name] == nil {
			in.Nodes[name] = &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		}
	}
	underlay := netip.MustParseAddr("100.64.0.0")
	for i, name := range sortedNames(in.Nodes) {
		in.NodeNumbers[name] = uint16(i + 1)
		underlay = underlay.Next()
		if n := in.Nodes[name]; n.Spec.Address == "" {
			n = n.DeepCopy()
			n.Spec.Address = underlay.String()
			in.Nodes[name] = n
		}
		if !in.Nodes[name].Spec.External {
			in.Reports[name] = &snapshot.Report{Node: name, Address: underlay, Agent: OfflineNode}
		}
	}
	vni := int32(0)
	for _, k := range sortedKeys(in.Networks) {
		n := in.Networks[k].DeepCopy()
		n.Status = v1alpha1.NetworkStatus{}
		if !n.Spec.External {
			vni++
			n.Status.VNI = vni
		}
		in.Networks[k] = n
	}
}

// offlineWorkloads are the declared ones, and those that Gateways are.
func (in *Input) offlineWorkloads() map[Key]*v1alpha1.Workload {
	if len(in.Gateways) == 0 {
		return in.Workloads
	}
	m, all := newMemory(), maps.Clone(in.Workloads)
	m.learn(in)
	maps.Copy(all, m.traffic.stands)
	return all
}

// offlineIdentities makes up the numbers of identities.
func (in *Input) offlineIdentities(workloads map[Key]*v1alpha1.Workload) {
	for _, w := range workloads {
		if d := in.Projects[w.Namespace]; d != "" {
			in.Identities[KeyOf(declaredIdentity(w, d))] = 0
		}
	}
	for i, k := range sortedNames(in.Identities) {
		in.Identities[k] = policy.Identity(i + 1)
	}
}

func offlineNode(w *v1alpha1.Workload) string {
	if w.Spec.Node != "" {
		return w.Spec.Node
	}
	return OfflineNode
}

func sortedKeys[V any](m map[Key]V) []Key {
	out := make([]Key, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// offlineAttachments makes up what nodes would report.
func (in *Input) offlineAttachments(workloads map[Key]*v1alpha1.Workload) {
	pools := map[Key]*offlinePool{}
	for k, n := range in.Networks {
		pools[k] = &offlinePool{space: spaceOf(&n.Spec), taken: map[netip.Addr]bool{}}
	}
	for k, w := range workloads {
		for i := range w.Spec.Interfaces {
			if p := pools[networkOf(k.Project, w.Spec.Interfaces[i].Network)]; p != nil {
				p.named = append(p.named, addresses(w.Spec.Interfaces[i].Addresses)...)
			}
		}
	}
	for k, s := range in.Services {
		for _, n := range s.Spec.Networks {
			if p := pools[Key{k.Project, n.Network}]; p != nil {
				p.named = append(p.named, addresses(n.Addresses)...)
			}
		}
	}
	serial := uint32(0)
	for _, k := range sortedKeys(workloads) {
		w := workloads[k]
		node := offlineNode(w)
		report := in.Reports[node]
		if report == nil {
			continue // an external Node; its Workloads are as they are declared
		}
		for i := range w.Spec.Interfaces {
			iface := &w.Spec.Interfaces[i]
			serial++
			a := snapshot.Attachment{AttachmentKey: snapshot.AttachmentKey{Project: k.Project, Workload: k.Name, Network: iface.Network},
				Account: w.Spec.Account, Labels: LabelsOf(w.Labels), Since: time.Unix(0, 0).UTC()}
			number := in.NodeNumbers[node]
			a.MAC = snapshot.MAC{0x02, byte(number >> 8), byte(number), byte(serial >> 16), byte(serial >> 8), byte(serial)}
			if mac, err := snapshot.ParseMAC(strings.ToLower(iface.MAC)); err == nil {
				a.MAC = mac
			}
			netKey := networkOf(k.Project, iface.Network)
			if p := pools[netKey]; p != nil {
				a.VNI = snapshot.VNI(in.Networks[netKey].Status.VNI)
				a.Addresses = p.take(iface)
			}
			report.Attachments = append(report.Attachments, a)
		}
	}
	for _, r := range in.Reports {
		slices.SortFunc(r.Attachments, func(a, b snapshot.Attachment) int { return a.AttachmentKey.Compare(b.AttachmentKey) })
	}
}

// offlinePool gives out the addresses of one Network in order.
type offlinePool struct {
	space space
	named []netip.Addr // by declared Workloads
	taken map[netip.Addr]bool
	free  ranges // what is left; nil before the first take
	begun bool
}

// take gives an interface its addresses: those it names as far as they are
// possible, else the first free one of each family.
func (p *offlinePool) take(iface *v1alpha1.Interface) []netip.Addr {
	if named := addresses(iface.Addresses); len(named) > 0 {
		for _, a := range named {
			if p.taken[a] || !p.space.inside.contains(a) || p.space.reserved.contains(a) || p.space.special.contains(a) {
				return nil // Compile says why
			}
		}
		for _, a := range named {
			p.taken[a] = true
		}
		slices.SortFunc(named, netip.Addr.Compare)
		return named
	}
	if !p.begun {
		p.begun, p.free = true, p.space.dynamic.minus(single(p.named))
	}
	var out []netip.Addr
	for _, v6 := range []bool{false, true} {
		if !slices.ContainsFunc(p.space.prefixes, func(x netip.Prefix) bool { return x.Addr().Is6() == v6 }) {
			continue
		}
		i := slices.IndexFunc(p.free, func(r v1alpha1.Range) bool { return r.First.Is6() == v6 })
		if i < 0 {
			return nil // exhausted; Compile says so
		}
		a := p.free[i].First
		out = append(out, a)
		if a == p.free[i].Last {
			p.free = slices.Delete(p.free, i, i+1)
		} else {
			p.free[i].First = a.Next()
		}
	}
	return out
}
