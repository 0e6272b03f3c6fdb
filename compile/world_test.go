package compile

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// world is an Input that tests build step by step.
type world struct{ *Input }

func newWorld() world {
	return world{&Input{
		Domains: map[string]*v1alpha1.Domain{}, Projects: map[string]string{}, Networks: map[Key]*v1alpha1.Network{},
		Workloads: map[Key]*v1alpha1.Workload{}, Policies: map[Key]*v1alpha1.Policy{}, Nodes: map[string]*v1alpha1.Node{},
		NodeNumbers: map[string]uint16{}, Reports: map[string]*snapshot.Report{}, Identities: map[IdentityKey]policy.Identity{},
		Links: map[Key]*v1alpha1.Link{}, Services: map[Key]*v1alpha1.Service{}, FloatingIPs: map[Key]*v1alpha1.FloatingIP{},
		HTTPRoutes: map[Key]*gateway.HTTPRoute{}, GRPCRoutes: map[Key]*gateway.GRPCRoute{}, TLSRoutes: map[Key]*gateway.TLSRoute{}, TCPRoutes: map[Key]*gateway.TCPRoute{},
		Gateways: map[Key]*gateway.Gateway{}, Classes: map[string]*gateway.GatewayClass{"moire": class("moire.dev/control")}, Secrets: map[Key]*Secret{}, Labels: map[string]map[string]string{},
		Grants: map[Key]*gateway.ReferenceGrant{}, BackendPolicies: map[Key]*v1alpha1.BackendPolicy{}, FaultPolicies: map[Key]*v1alpha1.FaultPolicy{},
		Away: map[string]bool{}, Resolved: map[string][]netip.Addr{}, Modes: map[string]string{}, KeySets: map[string]l7.KeySet{},
	}}
}

// shop is a Domain, a project, a Network and two nodes.
func shop() world {
	w := newWorld()
	w.domain("red")
	w.Projects["shop"] = "red"
	w.network("shop", "main", "10.0.0.0/24")
	w.node("n1")
	w.node("n2")
	return w
}

func (w world) domain(name string) {
	w.Domains[name] = &v1alpha1.Domain{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func (w world) node(name string) *v1alpha1.Node {
	n := &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.NodeSpec{Address: fmt.Sprintf("192.0.2.%d", len(w.Nodes)+1)}}
	w.Nodes[name] = n
	w.Reports[name] = &snapshot.Report{Node: name}
	return n
}

func (w world) network(project, name string, prefixes ...string) *v1alpha1.Network {
	n := &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}, Spec: v1alpha1.NetworkSpec{Prefixes: prefixes, Default: "open"}}
	w.Networks[Key{project, name}] = n
	return n
}

func (w world) workload(project, name, node, network string, addresses ...string) *v1alpha1.Workload {
	o := &v1alpha1.Workload{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name, Labels: map[string]string{"app": name}},
		Spec: v1alpha1.WorkloadSpec{Account: "default", Node: node, Interfaces: []v1alpha1.Interface{{Network: network, Addresses: addresses}}}}
	w.Workloads[Key{project, name}] = o
	return o
}

// attach reports an attachment; minute is when it began.
func (w world) attach(node, project, workload, network string, minute int, addresses ...string) {
	r := *w.Reports[node]
	r.Attachments = slices.Clone(r.Attachments)
	a := snapshot.Attachment{AttachmentKey: snapshot.AttachmentKey{Project: project, Workload: workload, Network: network},
		Account: "default", Labels: []snapshot.Label{{Key: "app", Value: workload}}, Since: time.Unix(int64(minute)*60, 0).UTC(), MAC: snapshot.MAC{2, 0, 0, 0, byte(len(r.Attachments)), node[len(node)-1]}}
	for _, text := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(text))
	}
	r.Attachments = append(r.Attachments, a)
	slices.SortFunc(r.Attachments, func(a, b snapshot.Attachment) int { return a.AttachmentKey.Compare(b.AttachmentKey) })
	w.Reports[node] = &r
}

// block gives a node a block; echoed says what the node confirms of it.
// detach takes a Workload from a node.
func (w world) detach(node, workload string) {
	r := *w.Reports[node]
	r.Attachments = slices.DeleteFunc(slices.Clone(r.Attachments), func(a snapshot.Attachment) bool { return a.Workload == workload })
	w.Reports[node] = &r
}

func (w world) block(node, project, network, cidr string, echoed ...string) {
	n := w.Networks[Key{project, network}].DeepCopy()
	n.Status.Blocks = append(n.Status.Blocks, v1alpha1.Block{CIDR: cidr, Node: node})
	w.Networks[Key{project, network}] = n
	b := snapshot.Block{BlockKey: snapshot.BlockKey{VNI: snapshot.VNI(n.Status.VNI), CIDR: netip.MustParsePrefix(cidr)}}
	for _, text := range echoed {
		a := netip.MustParseAddr(text)
		b.Excluded = append(b.Excluded, snapshot.Range{First: a, Last: a})
	}
	r := *w.Reports[node]
	r.Blocks = append(slices.Clone(r.Blocks), b)
	w.Reports[node] = &r
}

// allocate does what the control plane does with Needs, blocks left out.
func (w world) allocate(c *Compiler) {
	needs := c.NeedsOf(w.Input)
	vni := int32(0)
	for _, n := range w.Networks {
		vni = max(vni, n.Status.VNI)
	}
	for _, k := range needs.VNIs {
		n := w.Networks[k].DeepCopy()
		vni++
		n.Status.VNI = vni
		w.Networks[k] = n
	}
	for _, name := range needs.NodeNumbers {
		w.NodeNumbers[name] = uint16(len(w.NodeNumbers) + 1)
	}
	for _, id := range needs.Identities {
		w.Identities[KeyOf(id)] = policy.Identity(len(w.Identities) + 256)
	}
	for _, n := range needs.Addresses {
		w.give(n)
	}
	// What control writes: no more than is in force or needed.
	for k, s := range StatusesOf(w.Input).Services {
		if o := w.Services[k]; !slices.Equal(o.Status.Addresses, s.Addresses) {
			o = o.DeepCopy()
			o.Status.Addresses = s.Addresses
			w.Services[k] = o
		}
	}
}

func (w world) give(n AddressNeed) {
	network, by := w.Networks[n.Network].DeepCopy(), n.Kind+" "+n.Key.String()
	network.Status.Taken = append(slices.DeleteFunc(network.Status.Taken, func(t v1alpha1.Taken) bool { return t.Address == n.Address.String() }), v1alpha1.Taken{Address: n.Address.String(), By: by})
	w.Networks[n.Network] = network
	if n.Kind == KindFloatingIP {
		f := w.FloatingIPs[n.Key].DeepCopy()
		f.Status.Address = n.Address.String()
		w.FloatingIPs[n.Key] = f
		return
	}
	s := w.Services[n.Key].DeepCopy()
	s.Status.Addresses = append(s.Status.Addresses, v1alpha1.ServiceAddress{Network: n.Network.Name, Address: n.Address.String()})
	w.Services[n.Key] = s
}

// settle does what the control plane does until nothing more is needed.
func (w world) settle() {
	for range 4 {
		w.allocate(NewCompiler())
	}
}

func (w world) compile() (map[string]*snapshot.Snapshot, []v1alpha1.Problem) {
	w.allocate(NewCompiler())
	return Compile(w.Input)
}

func dump(snaps map[string]*snapshot.Snapshot) string {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(snaps)) {
		snaps[name].Dump(&b)
	}
	return b.String()
}

func codes(ps []v1alpha1.Problem) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
