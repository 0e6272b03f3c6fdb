package control

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
)

// BenchmarkChurn is what one change of one node costs the loop, with 1,000
// Services, 10,000 endpoints and 100 nodes, all that is shown included.
func BenchmarkChurn(b *testing.B) {
	const nodes, networks, each = 100, 100, 100
	networksOf := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{}}
	w := newBench(newMemory(), networksOf, "a")
	var services, all []any
	for n := range networks {
		name := fmt.Sprint("n", n)
		net := aNetwork("shop", name, "10.0.0.0/16")
		net.Status.VNI = int32(100 + n)
		networksOf.all[compile.Key{Project: "shop", Name: name}] = net
		for i := range 10 {
			s := aService(fmt.Sprint(name, "-", i), v1alpha1.ServiceNetwork{Network: name})
			s.Spec.Ports = []v1alpha1.ServicePort{{Protocol: "TCP", Port: 80}}
			s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint(i)}}
			s.Status.Addresses = []v1alpha1.ServiceAddress{{Network: name, Address: fmt.Sprintf("10.0.200.%d", i+1)}}
			net.Status.Taken = append(net.Status.Taken, v1alpha1.Taken{Address: s.Status.Addresses[0].Address, By: owner(kindService, compile.Key{Project: "shop", Name: s.Name})})
			services = append(services, s)
		}
	}
	report := func(node, extra int) snapshot.Report {
		var r snapshot.Report
		for i := range each + extra {
			n := (node*7 + i) % networks
			r.Attachments = append(r.Attachments, snapshot.Attachment{AttachmentKey: snapshot.AttachmentKey{Project: "shop", Workload: fmt.Sprintf("w-%d-%d", node, i), Network: fmt.Sprint("n", n)},
				VNI: snapshot.VNI(100 + n), Since: began, Labels: []snapshot.Label{{Key: "app", Value: fmt.Sprint(i % 10)}},
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(node), byte(i)})}, MAC: snapshot.MAC{2, 0, 0, 0, byte(node), byte(i)}})
		}
		return r
	}
	for n := range nodes {
		o := nodeObject(fmt.Sprint("n", n+1))
		o.Spec.Address = fmt.Sprintf("192.0.2.%d", n+1)
		all = append(all, o)
	}
	w.set("nodes", all...)
	w.set("services", services...)
	if err := w.keeper.load(b.Context()); err != nil {
		b.Fatal(err)
	}
	for n := range nodes {
		w.world.connected(fmt.Sprint("n", n+1))
		w.world.report(fmt.Sprint("n", n+1), report(n, 0))
	}
	shown := newShown(w.loop, nil)
	for range 3 { // numbers first
		w.pass()
		if err := w.allocator.fulfil(b.Context(), w.allocator.take()); err != nil {
			b.Fatal(err)
		}
		w.heard()
	}
	w.pass()
	if s := w.snapshot("n1"); s == nil || len(s.Services) == 0 || len(s.Endpoints) < each {
		b.Fatalf("nothing is compiled: %d", len(s.Endpoints))
	}
	i := 0
	for b.Loop() {
		i++
		w.world.report("n1", report(0, i%2))
		begin := time.Now()
		w.pass()
		passed := time.Now()
		shown.Objects("workloads", "")
		if i == 5 {
			b.Logf("pass %s, shown %s", passed.Sub(begin), time.Since(passed))
		}
	}
}
