package explain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func namespace(name, domain string) runtime.Object {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.DomainLabel: domain}}}
}

func meta(project, name string, labels ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: project, Name: name}
	for i := 0; i+1 < len(labels); i += 2 {
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[labels[i]] = labels[i+1]
	}
	return m
}

func network(project, name, deflt string, prefixes ...string) *v1alpha1.Network {
	return &v1alpha1.Network{ObjectMeta: meta(project, name), Spec: v1alpha1.NetworkSpec{Prefixes: prefixes, Default: deflt}}
}

func workload(project, name, node string, labels []string, networks ...string) *v1alpha1.Workload {
	w := &v1alpha1.Workload{ObjectMeta: meta(project, name, labels...), Spec: v1alpha1.WorkloadSpec{Node: node}}
	for _, n := range networks {
		w.Spec.Interfaces = append(w.Spec.Interfaces, v1alpha1.Interface{Network: n})
	}
	return w
}

func app(a string) []string { return []string{"app", a} }

// shop is a project with a Policy, beside another tenant on the same addresses.
func shop() []runtime.Object {
	return []runtime.Object{
		&v1alpha1.Domain{ObjectMeta: meta("", "red")}, &v1alpha1.Domain{ObjectMeta: meta("", "blue")},
		namespace("shop", "red"), namespace("bank", "blue"),
		network("shop", "front", "open", "10.0.0.0/24", "fd00::/64"), network("shop", "back", "open", "10.1.0.0/24"),
		network("bank", "main", "deny", "10.0.0.0/24"),
		workload("shop", "web", "n1", app("web"), "front"), workload("shop", "db", "n2", app("db"), "front"),
		workload("shop", "cron", "n1", app("cron"), "front"), workload("shop", "vault", "n1", app("vault"), "back"),
		workload("bank", "a", "n1", nil, "main"), workload("bank", "b", "n2", nil, "main"),
		&v1alpha1.Policy{ObjectMeta: meta("shop", "db"), Spec: v1alpha1.PolicySpec{
			Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
			Ingress: []v1alpha1.Rule{{Name: "from-web", Action: "allow", From: []v1alpha1.Peer{{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 5432}}}},
		}},
		&v1alpha1.Policy{ObjectMeta: meta("shop", "trial"), Spec: v1alpha1.PolicySpec{Mode: "audit",
			Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			Ingress: []v1alpha1.Rule{{Action: "deny"}},
		}},
	}
}

var questions = []struct {
	name string
	q    explain.Query
}{
	{"allowed", explain.Query{From: "shop/web", To: "shop/db", Port: 5432}},
	{"isolated", explain.Query{From: "shop/cron", To: "shop/db", Port: 5432}},
	{"wrong-port", explain.Query{From: "shop/web", To: "shop/db", Port: 80}},
	{"audit", explain.Query{From: "shop/cron", To: "shop/web", Protocol: "icmp"}},
	{"ipv6", explain.Query{From: "shop/cron", To: "shop/web", Protocol: "udp", Port: 53, IPv6: true}},
	{"to-address", explain.Query{From: "shop/web", To: "10.0.0.3", Port: 5432}},
	{"from-address", explain.Query{From: "10.0.0.2", To: "shop/web", Port: 80}},
	{"ambiguous", explain.Query{From: "10.0.0.2", To: "10.0.0.3", Port: 80}},
	{"ambiguous-settled", explain.Query{From: "10.0.0.2", To: "10.0.0.3", Port: 80, Network: "bank/main"}},
	{"default-deny", explain.Query{From: "bank/a", To: "bank/b", Port: 80}},
	{"other-network", explain.Query{From: "shop/web", To: "shop/vault", Port: 80}},
	{"other-tenant", explain.Query{From: "shop/web", To: "bank/a", Port: 80}},
	{"gateway", explain.Query{From: "shop/web", To: "10.0.0.1", Port: 80}},
	{"free-address", explain.Query{From: "shop/web", To: "10.0.0.77", Port: 80}},
	{"outside", explain.Query{From: "shop/web", To: "192.0.2.1", Port: 80}},
	{"elsewhere", explain.Query{From: "shop/web", To: "10.1.0.2", Port: 80}},
	{"itself", explain.Query{From: "shop/web", To: "shop/web", Port: 80}},
	{"nobody", explain.Query{From: "shop/web", To: "shop/nobody", Port: 80}},
	{"no-port", explain.Query{From: "shop/web", To: "shop/db"}},
	{"bad-protocol", explain.Query{From: "shop/web", To: "shop/db", Protocol: "gre"}},
	{"wrong-network", explain.Query{From: "shop/web", To: "shop/db", Network: "back", Port: 80}},
}

func TestPacket(t *testing.T) {
	snaps, problems := compile.Compile(compile.Offline(shop()...))
	for _, p := range problems {
		t.Error(p.Error())
	}
	for _, c := range questions {
		t.Run(c.name, func(t *testing.T) {
			c.q.Origin = func(id policy.RuleID) (string, int) {
				if strings.HasPrefix(string(id), "policy/shop/db/") {
					return "shop.yaml", 42
				}
				return "", 0
			}
			a := explain.Packet(c.q, snaps)
			var b bytes.Buffer
			a.Text(&b)
			golden(t, filepath.Join("testdata", c.name+".txt"), b.Bytes())
		})
	}
}

func TestJSONFieldNamesAreStable(t *testing.T) {
	snaps, _ := compile.Compile(compile.Offline(shop()...))
	b, err := json.MarshalIndent(explain.Packet(explain.Query{From: "shop/cron", To: "shop/web", Port: 80}, snaps), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "answer.json"), append(b, '\n'))
}

// TestMissingSnapshotIsClosed: a node nobody knows anything of denies.
func TestMissingSnapshotIsClosed(t *testing.T) {
	snaps, _ := compile.Compile(compile.Offline(shop()...))
	delete(snaps, "n2")
	a := explain.Packet(explain.Query{From: "shop/web", To: "shop/db", Port: 5432}, snaps)
	if a.Allow || a.Rule != explain.NoSnapshot {
		t.Fatalf("got %+v", a)
	}
}

// TestMissingPolicyIsClosed: an endpoint without its two sets denies.
func TestMissingPolicyIsClosed(t *testing.T) {
	snaps, _ := compile.Compile(compile.Offline(shop()...))
	snaps["n1"].Policies = map[snapshot.PolicyKey]policy.Set{}
	a := explain.Packet(explain.Query{From: "shop/web", To: "shop/db", Port: 5432}, snaps)
	if a.Allow || a.Rule != policy.NoPolicy {
		t.Fatalf("got %+v", a)
	}
}

// TestUnseenIsNotThere: who may not see a project learns nothing of it.
func TestUnseenIsNotThere(t *testing.T) {
	snaps, _ := compile.Compile(compile.Offline(shop()...))
	sees := func(project string) bool { return project == "shop" }
	for _, q := range []explain.Query{{From: "bank/a", To: "bank/b"}, {From: "shop/web", To: "bank/a"}, {From: "shop/web", To: "bank/none"}, {From: "10.0.0.2", To: "10.0.0.3", Network: "bank/main"}} {
		q.Port, q.Sees = 80, sees
		a := explain.Packet(q, snaps)
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if a.Error == "" || strings.Contains(string(b), "blue") || strings.Contains(string(b), "main") && q.Network == "" {
			t.Errorf("%s -> %s tells %s", q.From, q.To, b)
		}
	}
	if a := explain.Packet(explain.Query{From: "10.0.0.2", To: "10.0.0.4", Port: 80, Sees: sees}, snaps); a.Error != "" || a.Source.Project != "shop" {
		t.Errorf("the own address is ambiguous: %+v", a)
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", path, got, want)
	}
}
