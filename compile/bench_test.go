package compile

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fleet is 1,000 Networks in 1,000 projects of 20 Domains, 10,000 Workloads on
// 100 nodes and 5,000 Policies.
func fleet() world {
	w := newWorld()
	for i := range 20 {
		w.domain(fmt.Sprintf("d%d", i))
	}
	for i := range 100 {
		w.node(fmt.Sprintf("n%d", i))
	}
	for i := range 1000 {
		p := fmt.Sprintf("p%d", i)
		w.Projects[p] = fmt.Sprintf("d%d", i%20)
		w.network(p, "main", "10.0.0.0/24", "fd00::/64")
		for j := range 10 {
			node, name := fmt.Sprintf("n%d", (i+j*7)%100), fmt.Sprintf("w%d", j)
			w.workload(p, name, node, "main").Labels = map[string]string{"app": fmt.Sprintf("a%d", j%5), "tier": fmt.Sprintf("t%d", j%2)}
			w.attach(node, p, name, "main", j, fmt.Sprintf("10.0.0.%d", j+2), fmt.Sprintf("fd00::%d", j+2))
		}
		for j := range 5 {
			w.Policies[Key{p, fmt.Sprintf("pol%d", j)}] = fleetPolicy(p, j, 8000+j)
		}
	}
	w.allocate(NewCompiler())
	return w
}

func fleetPolicy(project string, app, port int) *v1alpha1.Policy {
	selector := func(a int) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", a%5)}}
	}
	return &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: fmt.Sprintf("pol%d", app)},
		Spec: v1alpha1.PolicySpec{Subject: &v1alpha1.Subject{Labels: selector(app)}, Ingress: []v1alpha1.Rule{
			{Name: "near", Action: "allow", From: []v1alpha1.Peer{{Labels: selector(app + 1)}}, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: int32(port)}}},
			{Name: "range", Action: "allow", From: []v1alpha1.Peer{{CIDR: "10.0.0.0/28", Except: []string{"10.0.0.4/32"}}}, Ports: []v1alpha1.Port{{Protocol: "UDP", Port: 1000, EndPort: 2000}}},
		}},
	}
}

// BenchmarkCompileFull compiles everything with an empty memory.
func BenchmarkCompileFull(b *testing.B) {
	w := fleet()
	b.ReportAllocs()
	var snaps map[string]*snapshot.Snapshot
	since := cpu()
	for b.Loop() {
		snaps, _ = Compile(w.Input)
	}
	b.StopTimer()
	reportCPU(b, since)
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	rows := 0
	for _, s := range snaps {
		rows += len(s.Endpoints) + len(s.Policies) + len(s.Identities) + len(s.Grants)
	}
	snaps = nil
	runtime.GC()
	runtime.ReadMemStats(&without)
	b.ReportMetric(float64(rows), "rows")
	b.ReportMetric(float64(with.HeapAlloc-without.HeapAlloc)/(1<<20), "MB-kept")
}

// BenchmarkCompileOneChange compiles after one Policy was replaced.
func BenchmarkCompileOneChange(b *testing.B) {
	benchmarkChange(b, func(w world, i int) {
		w.Policies[Key{"p7", "pol3"}] = fleetPolicy("p7", 3, 8003+i%2)
	})
}

// BenchmarkCompileOneReport compiles after one node reported anew.
func BenchmarkCompileOneReport(b *testing.B) {
	benchmarkChange(b, func(w world, i int) {
		r := *w.Reports["n7"]
		r.Attachments = append([]snapshot.Attachment(nil), r.Attachments...)
		r.Attachments[0].MAC = snapshot.MAC{2, 0, 0, 0, 0, byte(i % 2)}
		w.Reports["n7"] = &r
	})
}

// BenchmarkCompileOneLabel compiles after the labels of one Workload changed,
// its new identity being allocated.
func BenchmarkCompileOneLabel(b *testing.B) {
	benchmarkChange(b, func(w world, i int) {
		k := Key{"p7", "w3"}
		o := w.Workloads[k].DeepCopy()
		o.Labels["app"] = fmt.Sprintf("a%d", i%2)
		w.Workloads[k] = o
		id := declaredIdentity(o, w.Projects["p7"])
		if _, known := w.Identities[KeyOf(id)]; !known {
			w.Identities[KeyOf(id)] = policy.Identity(len(w.Identities) + 256)
		}
	})
}

// cpu is the CPU time of the process so far: what counts on a busy machine.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, since time.Duration) {
	b.ReportMetric(float64((cpu()-since).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func benchmarkChange(b *testing.B, change func(w world, i int)) {
	w := fleet()
	c := NewCompiler()
	c.Compile(w.Input)
	b.ReportAllocs()
	i, since := 0, cpu()
	for b.Loop() {
		i++
		change(w, i)
		c.Compile(w.Input)
	}
	reportCPU(b, since)
}

// services gives every project a Service in front of its Workloads, and puts
// 1,000 more, with 10 endpoints each, into one Network.
func services(w world) {
	for i := range 1000 {
		w.service(fmt.Sprintf("p%d", i), "svc", v1alpha1.ServiceSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a1"}}})
	}
	w.Projects["big"] = "d0"
	w.network("big", "main", "10.0.0.0/16")
	for i := range 1000 {
		for j := range 10 {
			node, name := fmt.Sprintf("n%d", (i+j*7)%100), fmt.Sprintf("s%d-%d", i, j)
			w.attach(node, "big", name, "main", j, fmt.Sprintf("10.0.%d.%d", (i*10+j)/250, (i*10+j)%250+2))
			as := w.Reports[node].Attachments
			for k := range as {
				if as[k].Workload == name {
					as[k].Labels = []snapshot.Label{{Key: "app", Value: fmt.Sprintf("s%d", i)}}
				}
			}
		}
		w.service("big", fmt.Sprintf("svc%d", i), v1alpha1.ServiceSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("s%d", i)}}})
	}
	w.settle()
}

// BenchmarkCompileServices compiles everything, Services included, with an
// empty memory.
func BenchmarkCompileServices(b *testing.B) {
	w := fleet()
	services(w)
	b.ReportAllocs()
	since := cpu()
	for b.Loop() {
		Compile(w.Input)
	}
	reportCPU(b, since)
}

// BenchmarkCompileOneEndpoint compiles after one endpoint of one Service came
// or went: small, of 1,000 Networks with one Service each; large, of one
// Network with 1,000 Services.
func BenchmarkCompileOneEndpoint(b *testing.B) {
	for name, in := range map[string]struct{ project, app string }{"small": {"p7", "a1"}, "large": {"big", "s7"}} {
		b.Run(name, func(b *testing.B) {
			w := fleet()
			services(w)
			c := NewCompiler()
			c.Compile(w.Input)
			b.ReportAllocs()
			i, since := 0, cpu()
			for b.Loop() {
				r := *w.Reports["n7"]
				if i++; i%2 == 1 {
					r.Attachments = append(slices.Clone(r.Attachments), snapshot.Attachment{AttachmentKey: snapshot.AttachmentKey{Project: in.project, Workload: "extra", Network: "main"}, Account: "default",
						Labels: []snapshot.Label{{Key: "app", Value: in.app}}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.231")}})
				} else {
					r.Attachments = r.Attachments[:len(r.Attachments)-1]
				}
				w.Reports["n7"] = &r
				c.Compile(w.Input)
			}
			reportCPU(b, since)
		})
	}
}
