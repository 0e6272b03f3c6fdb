package lab

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shared is one lab of two nodes for all end-to-end tests of this package.
var shared struct {
	once sync.Once
	lab  *Lab
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.lab != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := shared.lab.Down(ctx); err != nil {
			os.Stderr.WriteString("take the lab down: " + err.Error() + "\n")
			code = 1
		}
		cancel()
	}
	os.Exit(code)
}

// freePort is an address on loopback that nobody listens on now.
func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:27443"
	}
	defer l.Close()
	return l.Addr().String()
}

// theLab returns the shared lab, started.
func theLab(t *testing.T) *Lab {
	t.Helper()
	needRoot(t)
	shared.once.Do(func() {
		bin := os.Getenv("MOIRE_BIN")
		if bin == "" {
			bin, _ = filepath.Abs("../bin")
		}
		l, err := New(Config{Name: "moire-t", Nodes: 3, Underlay: netip.MustParsePrefix("198.18.76.0/24"), Bin: bin, RunDir: "/run/moire-test", APIListen: freePort(), NameServers: []string{controlNames}})
		if err != nil {
			shared.err = err
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := l.Down(ctx); err != nil { // what an earlier, killed run left
			shared.err = err
			return
		}
		shared.lab = l
		shared.err = l.Up(ctx)
	})
	if shared.err != nil {
		t.Fatalf("the lab does not start (MOIRE_BIN says where the binaries are, 'make build' makes them): %v", shared.err)
	}
	return shared.lab
}

// moire runs the command line and returns what it prints.
func (l *Lab) moire(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(l.Bin, "moire"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (l *Lab) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.moire(args...)
	if err != nil {
		t.Fatalf("moire %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// apply declares intent and removes it when the test ends.
func (l *Lab) apply(t *testing.T, intent string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "intent.yaml")
	if err := os.WriteFile(file, []byte(intent), 0o644); err != nil {
		t.Fatal(err)
	}
	l.must(t, "apply", "-f", file)
	t.Cleanup(func() {
		if out, err := l.moire("delete", "-f", file); err != nil {
			t.Errorf("delete: %v\n%s", err, out)
		}
	})
}

// guest is a namespace that is attached as a Workload.
type guest struct {
	netns string
	addrs []netip.Addr
}

// netnsOf is the name of the namespace of a guest.
func netnsOf(project, name string) string { return "moire-t-w-" + project + "-" + name }

// attach makes a namespace and attaches it until the test ends.
func (l *Lab) attach(t *testing.T, node, project, network, name string, labels ...string) guest {
	t.Helper()
	ns := netnsOf(project, name)
	path, err := makeNetns(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNetns(ns) })
	args := []string{"attach", "--run-dir", l.RunDir, "--node", node, "--netns", path, "--project", project, "--network", network, "--name", name, "-o", "json"}
	for _, lb := range labels {
		args = append(args, "--label", lb)
	}
	out := l.must(t, args...)
	out = out[max(0, strings.IndexByte(out, '{')):] // behind warnings
	t.Cleanup(func() {
		if out, err := l.moire("detach", "--run-dir", l.RunDir, "--node", node, project+"/"+name); err != nil {
			t.Errorf("detach: %v\n%s", err, out)
		}
	})
	var answer struct {
		Interfaces []struct{ Addresses []netip.Addr }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Interfaces) == 0 {
		t.Fatalf("attach answered %q (%v)", out, err)
	}
	return guest{netns: path, addrs: answer.Interfaces[0].Addresses}
}

// bare is a Domain with one Network; intent that begins with --- goes behind it.
const bare = `
apiVersion: moire.dev/v1alpha1
kind: Domain
metadata: {name: DOMAIN}
---
apiVersion: v1
kind: Namespace
metadata: {name: DOMAIN-p, labels: {moire.dev/domain: DOMAIN}}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: net, namespace: DOMAIN-p}
spec: {prefixes: [10.9.0.0/24, "fd09::/64"]}
`

const tenant = bare + `---
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: db, namespace: DOMAIN-p}
spec:
  subject: {labels: {matchLabels: {app: db}}}
  ingress:
    - name: from-web
      action: allow
      from: [{labels: {matchLabels: {app: web}}}]
`

// pair is a server that one client may reach and another may not.
type pair struct{ web, batch, db guest }

func (l *Lab) pair(t *testing.T, domain string) pair {
	t.Helper()
	l.apply(t, strings.ReplaceAll(tenant, "DOMAIN", domain))
	l.identified(t, domain)
	p := domain + "-p"
	return pair{
		web:   l.attach(t, "n1", p, "net", "web", "app=web"),
		batch: l.attach(t, "n1", p, "net", "batch", "app=batch"),
		db:    l.attach(t, "n2", p, "net", "db", "app=db"),
	}
}

// identified waits until a Domain has its CA: its roots are part of what nodes
// are to know.
func (l *Lab) identified(t *testing.T, domain string) {
	t.Helper()
	for range 100 {
		if l.must(t, "get", "domain", domain, "-o", "jsonpath={.status.identity.phase}") == "Steady" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("Domain %s has no CA after 10 s", domain)
}

func (p pair) start(t *testing.T) (*traffic, *denied) {
	t.Helper()
	work := startTraffic(t, p.web.netns, p.db.netns, netip.AddrPortFrom(p.db.addrs[0], 7000))
	no := startDenied(Probe{From: p.batch.netns, To: p.db.netns, Source: p.batch.addrs[0], Dest: p.db.addrs[0], Protocol: protoTCP, Port: 7001})
	return work, no
}

// TestControlPlaneGone kills the control plane under traffic, for 5 seconds or
// as long as MOIRE_LONG says.
func TestControlPlaneGone(t *testing.T) {
	l := theLab(t)
	p := l.pair(t, "gone")
	before := l.versions(t)
	work, no := p.start(t)
	time.Sleep(time.Second)
	if err := l.Control.Kill(); err != nil {
		t.Fatal(err)
	}
	away := 5 * time.Second
	if long, err := time.ParseDuration(os.Getenv("MOIRE_LONG")); err == nil {
		away = long
	}
	time.Sleep(away)
	if err := l.StartControl(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.settle(t)
	time.Sleep(2 * time.Second)
	work.end(t)
	no.end(t)
	if after := l.versions(t); after != before {
		t.Errorf("snapshots changed although nothing did\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// versions are what each node has applied.
func (l *Lab) versions(t *testing.T) string {
	t.Helper()
	l.settle(t)
	return l.must(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.applied}{"\n"}{end}`)
}

// settle waits until every node has what is wanted.
func (l *Lab) settle(t *testing.T) {
	t.Helper()
	var out string
	var err error
	for range 150 {
		if out, err = l.moire("status"); err == nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("the nodes do not settle: %v\n%s", err, out)
}

// TestAgentKilled kills the agents ten times under traffic.
func TestAgentKilled(t *testing.T) {
	l := theLab(t)
	p := l.pair(t, "killed")
	work, no := p.start(t)
	for i := range 10 {
		n := l.Nodes[i%len(l.Nodes)]
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := l.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond)
	}
	l.settle(t)
	work.end(t)
	no.end(t)
}

// TestTenantsWithTheSameAddresses: two Domains, the same addresses on the same
// nodes; each reaches its own and never the other's.
func TestTenantsWithTheSameAddresses(t *testing.T) {
	l := theLab(t)
	a, b := l.pair(t, "same-a"), l.pair(t, "same-b")
	if a.db.addrs[0] != b.db.addrs[0] {
		t.Fatalf("the tenants got %v and %v; the test wants the same addresses", a.db.addrs, b.db.addrs)
	}
	for i := range a.db.addrs {
		for _, proto := range []uint8{protoTCP, protoUDP, protoICMP, protoSCTP} {
			probe := Probe{From: a.web.netns, To: a.db.netns, Source: a.web.addrs[i], Dest: a.db.addrs[i], Protocol: proto, Port: 7002, Wait: 2 * time.Second}
			if came, err := probe.Run(); err != nil || !came {
				t.Errorf("own db at %s, protocol %d: came %v, error %v", probe.Dest, proto, came, err)
			}
			if proto == protoICMP {
				continue // both have an answering kernel; nothing to tell them apart
			}
			probe.To, probe.Wait = b.db.netns, 0
			if came, err := probe.Run(); err != nil || came {
				t.Errorf("the other tenant's db at %s, protocol %d: came %v, error %v", probe.Dest, proto, came, err)
			}
		}
	}
}
