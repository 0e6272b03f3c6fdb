package main

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// perNetwork is how many Services one Network has: a team's.
const perNetwork = 10

// world is the objects of a fleet, all allocated: every project has one
// Network with ten Services and their endpoints on ten nodes, and a Policy for
// each Service.
type world struct {
	*compile.Input
	size     size
	services []compile.Key
}

func newWorld(s size) *world {
	w := &world{size: s, Input: &compile.Input{
		Domains: map[string]*v1alpha1.Domain{"d": {ObjectMeta: metav1.ObjectMeta{Name: "d"}}}, Projects: map[string]string{},
		Networks: map[compile.Key]*v1alpha1.Network{}, Workloads: map[compile.Key]*v1alpha1.Workload{}, Policies: map[compile.Key]*v1alpha1.Policy{},
		Nodes: map[string]*v1alpha1.Node{}, NodeNumbers: map[string]uint16{}, Reports: map[string]*snapshot.Report{},
		Services: map[compile.Key]*v1alpha1.Service{}, Identities: map[compile.IdentityKey]policy.Identity{},
	}}
	for i := range s.Nodes {
		n := nodeName(i)
		w.Nodes[n] = &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}, Spec: v1alpha1.NodeSpec{Address: nodeAddress(i).String()}}
		w.NodeNumbers[n] = uint16(i + 1)
		w.Reports[n] = &snapshot.Report{Node: n, Address: nodeAddress(i), Agent: "fleet"}
	}
	for i := range (s.Services + perNetwork - 1) / perNetwork {
		w.project(i)
	}
	for _, r := range w.Reports {
		slices.SortFunc(r.Attachments, func(a, b snapshot.Attachment) int { return a.AttachmentKey.Compare(b.AttachmentKey) })
	}
	for _, id := range compile.NeedsOf(w.Input).Identities {
		w.Identities[compile.KeyOf(id)] = policy.Identity(len(w.Identities) + 1000)
	}
	return w
}

func labels(service int) map[string]string {
	return map[string]string{"app": fmt.Sprintf("s%d", service)}
}

// project makes the i-th project.
func (w *world) project(i int) {
	p := fmt.Sprintf("p%d", i)
	w.Projects[p] = "d"
	w.Networks[compile.Key{Project: p, Name: "main"}] = &v1alpha1.Network{
		ObjectMeta: metav1.ObjectMeta{Namespace: p, Name: "main"},
		Spec:       v1alpha1.NetworkSpec{Prefixes: []string{"10.0.0.0/20"}},
		Status:     v1alpha1.NetworkStatus{VNI: int32(i + 1)},
	}
	per := w.size.Endpoints / w.size.Services
	for s := range perNetwork {
		name := fmt.Sprintf("s%d", s)
		key := compile.Key{Project: p, Name: name}
		w.services = append(w.services, key)
		w.Services[key] = &v1alpha1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: p, Name: name},
			Spec: v1alpha1.ServiceSpec{Networks: []v1alpha1.ServiceNetwork{{Network: "main"}}, Selector: &metav1.LabelSelector{MatchLabels: labels(s)},
				Ports: []v1alpha1.ServicePort{{Protocol: "TCP", Port: 80, TargetPort: 8080}}, Locality: v1alpha1.LocalityAny},
			Status: v1alpha1.ServiceStatus{Addresses: []v1alpha1.ServiceAddress{{Network: "main", Address: fmt.Sprintf("10.0.15.%d", s+10)}}},
		}
		w.Policies[key] = allow(p, name, s, 8080)
		for e := range per {
			n := s*per + e
			node := nodeName((i + e*7) % w.size.Nodes)
			r := w.Reports[node]
			r.Attachments = append(r.Attachments, snapshot.Attachment{
				AttachmentKey: snapshot.AttachmentKey{Project: p, Workload: fmt.Sprintf("w%d", n), Network: "main"},
				Account:       "default", Labels: []snapshot.Label{{Key: "app", Value: name}}, VNI: snapshot.VNI(i + 1),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}).Next().Next()},
				MAC:       snapshot.MAC{2, byte(i >> 8), byte(i), 0, byte(n >> 8), byte(n)},
			})
		}
	}
}

func allow(project, name string, service int, port int32) *v1alpha1.Policy {
	return &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name},
		Spec: v1alpha1.PolicySpec{Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchLabels: labels(service)}},
			Ingress: []v1alpha1.Rule{{Name: "callers", Action: v1alpha1.ActionAllow, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: port}},
				From: []v1alpha1.Peer{{Labels: &metav1.LabelSelector{MatchLabels: labels((service + 1) % perNetwork)}}}}}},
	}
}

// changed is what a change was: a Workload of a Service is drained, a Policy
// has another port, or the first endpoint of a node another MAC address.
type changed struct {
	key     compile.Key
	drained string
	port    uint16
	node    string
	mac     snapshot.MAC
}

// change makes the i-th change, of each kind in turns.
func (w *world) change(i int) changed {
	key := w.services[i*37%len(w.services)]
	switch i % 3 {
	case 0:
		s := w.Services[key].DeepCopy()
		s.Spec.Drain = []string{fmt.Sprintf("w%d", w.firstOf(key)+i%2)}
		w.Services[key] = s
		return changed{key: key, drained: s.Spec.Drain[0]}
	case 1:
		port := uint16(8081 + i)
		w.Policies[key] = allow(key.Project, key.Name, w.number(key), int32(port))
		return changed{key: key, port: port}
	default:
		node := nodeName(i * 37 % len(w.services) / perNetwork % w.size.Nodes) // of the first endpoint of each Service
		r := *w.Reports[node]
		r.Attachments = slices.Clone(r.Attachments)
		r.Attachments[0].MAC[3]++
		w.Reports[node] = &r
		return changed{node: node, mac: r.Attachments[0].MAC}
	}
}

func (w *world) number(key compile.Key) int {
	n := 0
	_, _ = fmt.Sscanf(key.Name, "s%d", &n) // the names are ours
	return n
}

// firstOf is the number of the first Workload behind a Service.
func (w *world) firstOf(key compile.Key) int {
	return w.number(key) * (w.size.Endpoints / w.size.Services)
}
