package control

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/discovery"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// bench is a loop with everything around it faked: intent in lists, rows in
// memory, published snapshots in a map. Allocation really happens.
type bench struct {
	*loop
	rows     *memory
	networks *shelfOfNetworks

	mu     sync.Mutex
	lists  map[string][]any
	out    map[string]*snapshot.Snapshot
	pushes int
}

// newBench is a process named self on rows.
func newBench(rows *memory, networks *shelfOfNetworks, self string) *bench {
	b := &bench{rows: rows, networks: networks, lists: map[string][]any{}, out: map[string]*snapshot.Snapshot{}}
	b.loop = newLoop(silent(), time.Now, func(node string, s *snapshot.Snapshot) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if s == nil {
			delete(b.out, node)
			return
		}
		if b.out[node] != s {
			b.pushes++
		}
		b.out[node] = s
	})
	b.world = newWorld(self, time.Now, b.wake)
	b.keeper = newKeeper(rows, self, b.world, silent(), time.Now, b.wake)
	b.resolver = newResolver(b.keeper, nil, silent(), time.Now)
	b.fetcher = newFetcher(b.keeper, newGuard(nil, b.resolver.addresses, nil), silent(), time.Now)
	b.allocator = newAllocator(b.keeper, networks, noWriter{}, silent())
	shelve := func(kind string) *shelf {
		s := &shelf{list: func() []any { b.mu.Lock(); defer b.mu.Unlock(); return slices.Clone(b.lists[kind]) }}
		s.changed.Store(true)
		return s
	}
	b.intent = &intent{domains: shelve("domains"), networks: shelve("networks"), workloads: shelve("workloads"),
		policies: shelve("policies"), nodes: shelve("nodes"), projects: shelve("projects"),
		links: shelve("links"), services: shelve("services"), floating: shelve("floatingips"),
		traffic: traffic{http: shelve("httproutes"), grpc: shelve("grpcroutes"), tls: shelve("tlsroutes"), tcp: shelve("tcproutes"), grants: shelve("referencegrants"),
			backends: shelve("backendpolicies"), faults: shelve("faultpolicies"), gateways: shelve("gateways"), classes: shelve("gatewayclasses"), secrets: shelve("secrets")}}
	b.intent.networks.list = func() (out []any) {
		for _, n := range networks.input() {
			out = append(out, n)
		}
		return out
	}
	b.set("domains", domain("acme"))
	b.set("projects", projectOf("shop", "acme"), projectOf("lost", ""))
	b.set("nodes", nodeObject("n1"), nodeObject("n2"))
	return b
}

func nodeObject(name string) *v1alpha1.Node {
	return &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.NodeSpec{Address: "192.0.2." + name[1:]}}
}

// set replaces a list of the intent, as an informer would.
func (b *bench) set(kind string, objects ...any) {
	b.mu.Lock()
	b.lists[kind] = objects
	b.mu.Unlock()
	map[string]*shelf{"domains": b.intent.domains, "projects": b.intent.projects, "nodes": b.intent.nodes,
		"workloads": b.intent.workloads, "policies": b.intent.policies,
		"links": b.intent.links, "services": b.intent.services, "floatingips": b.intent.floating}[kind].changed.Store(true)
	b.wake()
}

// heard is what informers of Networks do after a write.
func (b *bench) heard() { b.intent.networks.changed.Store(true); b.wake() }

func (b *bench) snapshot(node string) *snapshot.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out[node]
}

func (b *bench) pushed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pushes
}

// run runs everything until the returned function is called.
func (b *bench) run(t *testing.T) (stop func()) {
	t.Helper()
	if err := b.keeper.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.loop.run(ctx) })
	wg.Go(func() { _ = b.keeper.run(ctx) })
	wg.Go(func() { b.allocator.run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func oneNetwork() *shelfOfNetworks {
	return &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{{Project: "shop", Name: "front"}: aNetwork("shop", "front", "10.0.0.0/24")}}
}

// settle gives the loop time, and its writes back to it.
func (b *bench) settle() {
	for range 5 {
		time.Sleep(200 * time.Millisecond)
		b.heard()
	}
	time.Sleep(200 * time.Millisecond)
}

func TestLoopAllocatesAndPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(newMemory(), oneNetwork(), "a")
		defer b.run(t)()
		b.world.connected("n1")
		b.world.report("n1", someReport("web"))
		b.settle()
		s := b.snapshot("n1")
		if s == nil || len(s.Endpoints) != 1 || len(s.Grants) != 1 || s.Nodes["n1"].Number == 0 {
			t.Fatalf("n1 got %+v", s)
		}
		pushes := b.pushed()
		b.world.ack("n1", s.Version(), true, "")
		b.settle()
		if b.pushed() != pushes {
			t.Error("an acknowledgement made new snapshots")
		}
		b.set("nodes", nodeObject("n2"))
		b.settle()
		if b.snapshot("n1") != nil || len(b.current.Load().in.Reports) != 0 {
			t.Error("a deleted node still gets snapshots or is heard")
		}
	})
}

// TestLoopWaitsForNodes: after a restart nothing is published until the nodes
// that were connected have spoken, but not for ever.
func TestLoopWaitsForNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, networks := newMemory(), oneNetwork()
		first := newBench(rows, networks, "a")
		stop := first.run(t)
		for _, n := range []string{"n1", "n2"} {
			first.world.connected(n)
		}
		first.world.report("n1", someReport("web"))
		first.world.report("n2", snapshot.Report{})
		first.settle()
		// This is known to n2, but not saved when the process is killed.
		rows.mu.Lock()
		saved := maps.Clone(rows.rows)
		rows.mu.Unlock()
		first.world.report("n1", someReport("web", "new"))
		first.settle()
		version := first.snapshot("n2").Version()
		stop()
		rows.mu.Lock()
		rows.rows[worldPrefix+"n1"] = saved[worldPrefix+"n1"]
		rows.mu.Unlock()

		second := newBench(rows, networks, "a")
		defer second.run(t)()
		second.settle()
		second.world.connected("n2")
		second.world.report("n2", snapshot.Report{})
		second.settle()
		if n := second.pushed(); n != 0 {
			t.Fatalf("%d snapshots were published before n1 came back", n)
		}
		second.world.connected("n1")
		second.world.report("n1", someReport("web", "new"))
		second.settle()
		if got := second.snapshot("n2"); got == nil || got.Version() != version {
			t.Errorf("n2 gets another version after the restart")
		}

		third := newBench(rows, networks, "a")
		stopThird := third.run(t)
		defer stopThird()
		time.Sleep(comeBack + time.Second)
		if third.snapshot("n1") == nil || len(third.snapshot("n2").Endpoints) != 0 && third.pushed() == 0 {
			t.Error("nothing is published although the nodes had their time")
		}
	})
}

// TestSameFactsSameVersions: in whatever order facts come, what is published
// in the end is the same.
func TestSameFactsSameVersions(t *testing.T) {
	versions := map[snapshot.Version]bool{}
	for order := range 3 {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(newMemory(), oneNetwork(), "a")
			defer b.run(t)()
			steps := []func(){
				func() { b.world.connected("n1"); b.world.report("n1", someReport("web")) },
				func() { b.world.connected("n2"); b.world.report("n2", snapshot.Report{}) },
				func() { b.set("nodes", nodeObject("n2"), nodeObject("n1")) },
			}
			b.settle() // numbers are given in order of arrival; the facts come after
			for i := range steps {
				steps[(i+order)%3]()
				b.settle()
			}
			versions[b.snapshot("n1").Version()] = true
		})
	}
	if len(versions) != 1 {
		t.Errorf("%d versions of the same facts", len(versions))
	}
}

func TestRetire(t *testing.T) {
	rows, networks := newMemory(), oneNetwork()
	front := compile.Key{Project: "shop", Name: "front"}
	networks.all[front].Status = v1alpha1.NetworkStatus{VNI: 100, Blocks: []v1alpha1.Block{{CIDR: "10.0.0.0/28", Node: "n1"}, {CIDR: "10.0.0.16/28", Node: "dead"}}}
	k := loadedKeeper(t, rows, "a")
	ctx := t.Context()
	used, unused := snapshot.Identity{Domain: "acme", Project: "shop", Account: "default"}, snapshot.Identity{Domain: "acme", Project: "shop", Account: "gone"}
	for _, id := range []snapshot.Identity{used, unused} {
		n, err := k.identities.Get(ctx, string(compile.KeyOf(id)))
		if err != nil {
			t.Fatal(err)
		}
		k.note(func(a *allocations) { a.identities[compile.KeyOf(id)] = policy.Identity(n) })
	}
	for _, node := range []string{"n1", "dead"} {
		n, err := k.nodes.Get(ctx, node)
		if err != nil {
			t.Fatal(err)
		}
		k.note(func(a *allocations) { a.nodes[node] = uint16(n) })
	}
	for _, owner := range []string{vniOwner(networks.all[front]), "shop/deleted u"} {
		if _, err := k.vnis.Get(ctx, owner); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1000, 0)
	report := someReport("web")
	report.Attachments[0].Account = "default"
	f := &facts{in: &compile.Input{Domains: map[string]*v1alpha1.Domain{"acme": domain("acme")}, Projects: map[string]string{"shop": "acme"},
		Networks: networks.input(), Nodes: map[string]*v1alpha1.Node{"n1": nodeObject("n1")}, Reports: map[string]*snapshot.Report{"n1": &report}}}
	r := &retirer{keeper: k, networks: networks, facts: func() *facts { return f }, log: silent(), now: func() time.Time { return now }, unused: map[string]time.Time{}}
	pass := func(after time.Duration) string {
		t.Helper()
		now = now.Add(after)
		if err := r.pass(ctx); err != nil {
			t.Fatal(err)
		}
		vnis, err := k.vnis.All(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(len(k.allocations().identities), len(k.allocations().nodes), len(vnis), len(networks.all[front].Status.Blocks))
	}
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "2 2 2 2"}, {retireAfter - time.Second, "2 2 2 2"}, {time.Second, "1 1 1 1"}, {retireAfter, "1 1 1 1"}} {
		if got := pass(step.after); got != step.want {
			t.Fatalf("after %s: got %s, want %s", step.after, got, step.want)
		}
	}
	if k.allocations().identities[compile.KeyOf(used)] == 0 {
		t.Error("an identity in use was taken back")
	}
	again := loadedKeeper(t, rows, "b")
	if !reflect.DeepEqual(again.allocations(), k.allocations()) {
		t.Errorf("the rows say %+v, memory %+v", again.allocations(), k.allocations())
	}
}

func TestNodeStatus(t *testing.T) {
	plain, external := nodeObject("n1"), nodeObject("n2")
	external.Spec.External = true
	report := someReport("web", "db")
	for _, tt := range []struct {
		name  string
		n     *v1alpha1.Node
		w     nodeWorld
		st    discovery.NodeState
		state string
	}{
		{"external", external, nodeWorld{}, discovery.NodeState{}, v1alpha1.NodeExternal},
		{"away", plain, nodeWorld{report: &report}, discovery.NodeState{}, v1alpha1.NodeStale},
		{"ready", plain, nodeWorld{here: true, applied: "v"}, discovery.NodeState{Wanted: "v"}, v1alpha1.NodeReady},
		{"updating", plain, nodeWorld{here: true, applied: "u"}, discovery.NodeState{Wanted: "v"}, v1alpha1.NodeUpdating},
		{"failing", plain, nodeWorld{here: true, err: "no"}, discovery.NodeState{Wanted: "v"}, v1alpha1.NodeFailing},
		{"held", plain, nodeWorld{here: true, applied: "u", report: &snapshot.Report{Held: "it would remove 40 %"}}, discovery.NodeState{Wanted: "v"}, v1alpha1.NodeHeld},
		{"without its proxy", plain, nodeWorld{here: true, applied: "v", report: &snapshot.Report{Proxies: "proxy a: it is not there"}}, discovery.NodeState{Wanted: "v"}, v1alpha1.NodeFailing},
		{"elsewhere", plain, nodeWorld{away: true}, discovery.NodeState{}, v1alpha1.NodeReady},
	} {
		if got := nodeStatus(tt.n, tt.w, tt.st); got.State != tt.state {
			t.Errorf("%s: got %s, want %s", tt.name, got.State, tt.state)
		}
	}
}

func TestIntentKeepsWhatDidNotChange(t *testing.T) {
	b := newBench(newMemory(), oneNetwork(), "a")
	var one, two compile.Input
	b.intent.read(&compile.Input{}, &one)
	if b.intent.read(&one, &two) {
		t.Error("something changed although nothing did")
	}
	if !reflect.DeepEqual(one, two) || one.Projects["shop"] != "acme" || len(one.Projects) != 1 {
		t.Errorf("got %+v, then %+v", one, two)
	}
	b.set("projects", &corev1.Namespace{})
	if !b.intent.read(&one, &two) || len(two.Projects) != 0 || len(two.Nodes) != 2 {
		t.Errorf("got %+v", two)
	}
}

func domain(name string) *v1alpha1.Domain {
	return &v1alpha1.Domain{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func projectOf(name, domain string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.DomainLabel: domain}}}
}
