package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// needRoot skips a test that changes the kernel when it may not.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Fatal("this test makes network namespaces and needs root")
	}
	t.Skip("this test makes network namespaces and needs root")
}

// testNode is a node in a namespace of its own.
type testNode struct {
	*Datapath
	t       testing.TB
	name    string
	ns      string
	addr    netip.Addr
	runDir  string
	locals  []Local
	proxies []Proxy
	mu      sync.Mutex
	seen    []record.Record

	captured []snapshot.Captured
	quiet    func() // ends what record has begun
}

// world is what all nodes agree on.
type world struct {
	t         testing.TB
	nodes     map[string]*testNode
	networks  map[snapshot.VNI]snapshot.Network
	ids       map[policy.Identity]snapshot.Identity
	endpoints map[snapshot.Addr]snapshot.Endpoint
	policies  map[snapshot.PolicyKey]policy.Set
	external  map[string]netip.Addr
	services  map[snapshot.ServiceKey]snapshot.Service
	grants    map[snapshot.AttachmentKey]snapshot.Grant
	macs      byte
	captures  map[string]snapshot.Capture
	// change, when not nil, adds what else a snapshot has.
	change func(*snapshot.Snapshot)
	chains map[snapshot.ChainKey]snapshot.Chain
}

func sh(t testing.TB, format string, args ...any) string {
	t.Helper()
	out, err := shell(format, args...)
	if err != nil {
		t.Fatalf("%s\n%v\n%s", fmt.Sprintf(format, args...), err, out)
	}
	return out
}

func shell(format string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(format, args...)).CombinedOutput()
	return string(out), err
}

func addNetns(t testing.TB, name string) string {
	t.Helper()
	shell("ip netns del %s", name)
	sh(t, "ip netns add %s && ip -n %s link set lo up", name, name)
	t.Cleanup(func() { shell("ip netns del %s", name) })
	return "/run/netns/" + name
}

func newWorld(t testing.TB) *world {
	needRoot(t)
	return &world{
		t: t, nodes: map[string]*testNode{}, networks: map[snapshot.VNI]snapshot.Network{}, ids: map[policy.Identity]snapshot.Identity{},
		endpoints: map[snapshot.Addr]snapshot.Endpoint{}, policies: map[snapshot.PolicyKey]policy.Set{}, external: map[string]netip.Addr{},
		services: map[snapshot.ServiceKey]snapshot.Service{}, grants: map[snapshot.AttachmentKey]snapshot.Grant{},
	}
}

// underlay makes two namespaces with a link between them:
//
//	moire-dp-a [up0] ------ [up0] moire-dp-b
func (w *world) underlay(prefix4, prefix6 string) {
	w.t.Helper()
	a, b := "moire-dp-a", "moire-dp-b"
	addNetns(w.t, a)
	addNetns(w.t, b)
	sh(w.t, "ip link add up0 netns %s type veth peer name up0 netns %s", a, b)
	for i, n := range []string{a, b} {
		sh(w.t, "ip -n %s addr add %s%d/24 dev up0 && ip -n %s addr add %s%d/64 dev up0 nodad && ip -n %s link set up0 up", n, prefix4, i+1, n, prefix6, i+1, n)
	}
}

// twoNodes is a world with the nodes a and b, which talk to each other by the first
// and second address behind that beginning: 192.168.77. or fd77::
func twoNodes(t testing.TB, by string) *world {
	t.Helper()
	w := newWorld(t)
	w.underlay("192.168.77.", "fd77::")
	w.node("a", "moire-dp-a", by+"1")
	w.node("b", "moire-dp-b", by+"2")
	return w
}

// node opens a data path in a namespace.
func (w *world) node(name, ns, addr string) *testNode {
	w.t.Helper()
	n := &testNode{t: w.t, name: name, ns: ns, addr: netip.MustParseAddr(addr), runDir: filepath.Join("/tmp", "moire-dp-"+name)}
	inNetns(w.t, ns, func() error { return Cleanup(n.runDir, name) })
	n.open()
	w.nodes[name] = n
	w.t.Cleanup(func() {
		n.Close()
		inNetns(w.t, ns, func() error { return Cleanup(n.runDir, name) })
		os.RemoveAll(n.runDir)
	})
	return n
}

func (n *testNode) open() {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	inNetns(n.t, n.ns, func() (err error) {
		n.Datapath, err = Open(Config{Node: n.name, RunDir: n.runDir, Address: n.addr, ConntrackMax: 4096, Log: log})
		return err
	})
}

// record collects what the node tells, until the test ends.
func (n *testNode) record() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- n.Run(ctx, func(r record.Record) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.seen = append(n.seen, r)
		}, func(c snapshot.Captured) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.captured = append(n.captured, c)
		})
	}()
	n.quiet = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(n.quiet)
}

// Close ends what record has begun, then the agent's hold on the kernel.
func (n *testNode) Close() error {
	if n.quiet != nil {
		n.quiet()
	}
	return n.Datapath.Close()
}

// find waits for a record.
func (n *testNode) find(what string, ok func(record.Record) bool) record.Record {
	n.t.Helper()
	for range 100 {
		n.mu.Lock()
		for _, r := range n.seen {
			if ok(r) {
				n.mu.Unlock()
				return r
			}
		}
		n.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.seen {
		n.t.Logf("%+v", r)
	}
	n.t.Fatalf("node %s has no record: %s", n.name, what)
	return record.Record{}
}

func inNetns(t testing.TB, ns string, f func() error) {
	t.Helper()
	n, err := openNamespace("/run/netns/" + ns)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.do(f); err != nil {
		t.Fatal(err)
	}
}

func (w *world) network(vni snapshot.VNI, project string, prefixes ...string) {
	n := snapshot.Network{VNI: vni, Project: project, Name: "net", Domain: "d-" + project}
	for _, p := range prefixes {
		n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(p))
	}
	w.networks[vni] = n
}

func open(project string) policy.Set {
	return policy.Set{Default: policy.DefaultRule{ID: policy.RuleID("default/" + project + "/net/open"), Allow: true}}
}

// workload plugs a workload into a namespace moire-dp-<name> on a node.
func (w *world) workload(node, project, name string, vni snapshot.VNI, id policy.Identity, addrs ...string) string {
	w.t.Helper()
	ns := "moire-dp-" + project + "-" + name
	path := addNetns(w.t, ns)
	w.macs++
	l := Local{Key: snapshot.AttachmentKey{Project: project, Workload: name, Network: "net"}, VNI: vni, MAC: snapshot.MAC{2, 0, 0, 0, 0, w.macs}, Netns: path}
	l.Host = HostName(node, l.Key)
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParseAddr(a))
	}
	w.endpoint(node, project, name, vni, id, l.MAC, l.Addrs)
	n := w.nodes[node]
	inNetns(w.t, n.ns, func() error {
		return Plug(PlugConfig{
			Node: node, Key: l.Key, Host: l.Host, Netns: path, IfName: "net0", MAC: l.MAC, Addrs: l.Addrs,
			Prefixes: w.networks[vni].Prefixes, MTU: n.MTU(0),
		})
	})
	n.locals = append(n.locals, l)
	return ns
}

func (w *world) endpoint(node, project, name string, vni snapshot.VNI, id policy.Identity, mac snapshot.MAC, addrs []netip.Addr) {
	for _, a := range addrs {
		w.endpoints[snapshot.Addr{VNI: vni, IP: a}] = snapshot.Endpoint{
			Addr: snapshot.Addr{VNI: vni, IP: a}, Project: project, Workload: name, MAC: mac, Identity: id, Node: node,
		}
	}
	w.ids[id] = snapshot.Identity{Number: id, Project: project, Domain: "d-" + project, Account: name, SPIFFE: "spiffe://t/ns/" + project + "/sa/" + name,
		Labels: []snapshot.Label{{Key: "app", Value: name}}}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		k := snapshot.PolicyKey{VNI: vni, Identity: id, Direction: d}
		if _, ok := w.policies[k]; !ok {
			w.policies[k] = open(project)
		}
	}
}

// snapshot is what a node must be.
func (w *world) snapshot(node string) *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Node: node, Nodes: map[string]snapshot.Node{}, Networks: map[snapshot.VNI]snapshot.Network{}, Identities: map[policy.Identity]snapshot.Identity{},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Policies: map[snapshot.PolicyKey]policy.Set{}, Captures: w.captures, Chains: w.chains,
		Services: maps.Clone(w.services), Grants: maps.Clone(w.grants),
	}
	for name, n := range w.nodes {
		s.Nodes[name] = snapshot.Node{Name: name, Address: n.addr}
	}
	for name, a := range w.external {
		s.Nodes[name] = snapshot.Node{Name: name, Address: a, External: true}
	}
	for k, v := range w.networks {
		s.Networks[k] = v
	}
	for k, v := range w.ids {
		s.Identities[k] = v
	}
	for k, v := range w.endpoints {
		s.Endpoints[k] = v
	}
	for k, v := range w.policies {
		s.Policies[k] = v
	}
	if w.change != nil {
		w.change(s)
	}
	return s
}

// apply grows and shrinks every node.
func (w *world) apply() {
	w.t.Helper()
	for name, n := range w.nodes {
		s := State{Snapshot: w.snapshot(name), Locals: n.locals, Proxies: n.proxies}
		if err := n.Grow(s); err != nil {
			w.t.Fatal(err)
		}
		if err := n.Shrink(s); err != nil {
			w.t.Fatal(err)
		}
	}
}

// dump shows every node when the test failed.
func (w *world) dump() {
	if !w.t.Failed() {
		return
	}
	for name, n := range w.nodes {
		var b strings.Builder
		if err := n.Dump(&b); err != nil {
			w.t.Log(name, err) // closed by the test
		}
		w.t.Logf("node %s:\n%s", name, b.String())
	}
}
