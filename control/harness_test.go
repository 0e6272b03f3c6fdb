package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/discovery"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/ipam"
	"moire.dev/moire/snapshot"
)

// quiet shows logs only when asked for: MOIRE_TEST_LOG=1.
func quiet() *slog.Logger {
	if os.Getenv("MOIRE_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// eventually waits until ok says nothing more to complain about.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// running is a Control that runs.
type running struct {
	*Control
	t    *testing.T
	stop func()
	join joining
}

// start runs a Control until it is ready. The test stops it at its end.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	cfg.APIListen, cfg.Log = "127.0.0.1:0", quiet()
	if cfg.DiscoveryListen == "" {
		cfg.DiscoveryListen = "127.0.0.1:0"
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r := &running{Control: c, t: t}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("control ended with: %v", err)
		}
	})
	t.Cleanup(r.stop)
	select {
	case <-c.Ready():
	case err := <-done:
		t.Fatalf("control did not start: %v", err)
	case <-time.After(90 * time.Second):
		t.Fatal("control is not ready after 90 s")
	}
	b, err := os.ReadFile(filepath.Join(cfg.RunDir, joinFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r.join); err != nil {
		t.Fatal(err)
	}
	return r
}

// create makes objects of the moire.dev kinds and projects.
func (r *running) create(objects ...runtime.Object) {
	r.t.Helper()
	for _, o := range objects {
		api := r.clients.Load()
		var err error
		switch o := o.(type) {
		case *corev1.Namespace:
			err = api.core.Post().Resource("namespaces").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Domain:
			err = api.moire.Post().Resource("domains").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Node:
			err = api.moire.Post().Resource("nodes").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Network:
			err = api.moire.Post().Namespace(o.Namespace).Resource("networks").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Workload:
			err = api.moire.Post().Namespace(o.Namespace).Resource("workloads").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Link:
			err = api.moire.Post().Namespace(o.Namespace).Resource("links").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Service:
			err = api.moire.Post().Namespace(o.Namespace).Resource("services").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.FloatingIP:
			err = api.moire.Post().Namespace(o.Namespace).Resource("floatingips").Body(o).Do(r.t.Context()).Error()
		case *v1alpha1.Policy:
			err = api.moire.Post().Namespace(o.Namespace).Resource("policies").Body(o).Do(r.t.Context()).Error()
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// get reads an object as users see it.
func (r *running) get(path string, into any) error {
	b, err := r.admin().DoRaw(r.t.Context(), path)
	if err != nil {
		return fmt.Errorf("%w: %s", err, b)
	}
	return json.Unmarshal(b, into)
}

func (r *running) workload(project, name string) (w v1alpha1.Workload, err error) {
	err = r.get("/apis/moire.dev/v1alpha1/namespaces/"+project+"/workloads/"+name, &w)
	return w, err
}

func (r *running) node(name string) (n v1alpha1.Node, err error) {
	err = r.get("/apis/moire.dev/v1alpha1/nodes/"+name, &n)
	return n, err
}

func network(project, name string, prefixes ...string) *v1alpha1.Network {
	return &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}, Spec: v1alpha1.NetworkSpec{Prefixes: prefixes}}
}

// agent is a fake node: the discovery client with the memory of a real one.
type agent struct {
	t      *testing.T
	name   string
	client *discovery.Client
	pool   *ipam.Pool
	stop   func()

	mu       sync.Mutex
	snap     *snapshot.Snapshot
	received int
	wants    []snapshot.AttachmentKey
	slow     bool // what it trusts is not in force yet
	trusts   []snapshot.TrustMark
}

var agentNumber = 10

// newAgent joins and connects.
func newAgent(t *testing.T, r *running, name string) *agent {
	t.Helper()
	return newAgentOf(t, r.join, name)
}

func newAgentOf(t *testing.T, j joining, name string) *agent {
	t.Helper()
	agentNumber++
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	address := netip.AddrFrom4([4]byte{192, 0, 2, byte(agentNumber)})
	if err := discovery.Join(ctx, discovery.JoinConfig{Servers: j.Servers, Token: j.Token, CAHash: j.CAHash, Node: name, Address: address, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, name: name}
	var err error
	if a.pool, err = ipam.OpenPool(filepath.Join(dir, "pool")); err != nil {
		t.Fatal(err)
	}
	a.client, err = discovery.NewClient(discovery.ClientConfig{Servers: j.Servers, Dir: dir, Node: name, Handler: a, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	run, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.client.Run(run) }()
	a.stop = sync.OnceFunc(func() {
		end()
		<-done
		_ = a.pool.Close()
	})
	t.Cleanup(a.stop)
	a.report()
	return a
}

// Snapshot takes what comes, applies it at once and reports anew.
func (a *agent) Snapshot(s *snapshot.Snapshot) {
	a.mu.Lock()
	a.snap = s
	a.received++
	a.mu.Unlock()
	a.client.Ack(s.Version(), true, "")
	a.report()
}

func (a *agent) attach(project, workload, network string) {
	a.mu.Lock()
	a.wants = append(a.wants, snapshot.AttachmentKey{Project: project, Workload: workload, Network: network})
	a.mu.Unlock()
	a.report()
}

func (a *agent) detach(workloads ...string) {
	a.mu.Lock()
	a.wants = slices.DeleteFunc(slices.Clone(a.wants), func(k snapshot.AttachmentKey) bool { return slices.Contains(workloads, k.Workload) })
	a.mu.Unlock()
	a.report()
}

var began = time.Now().Truncate(time.Second)

// report says what there is, with an address wherever that is possible.
func (a *agent) report() {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := snapshot.Report{Node: a.name, Address: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Agent: "test", Kernel: "none"}
	for i, k := range a.wants {
		at := snapshot.Attachment{AttachmentKey: k, Since: began.Add(time.Duration(i) * time.Second), Labels: []snapshot.Label{{Key: "app", Value: k.Workload}}}
		if a.snap != nil {
			if g, granted := a.snap.Grants[k]; granted && g.Error == "" {
				a.fill(&at, g)
			}
		}
		r.Attachments = append(r.Attachments, at)
	}
	if a.snap != nil && !a.slow {
		a.trusts = snapshot.MarksOf(a.snap.Trusts)
	}
	r.Trusts = a.trusts
	if a.snap != nil {
		for _, b := range a.snap.Blocks {
			r.Blocks = append(r.Blocks, b)
		}
	}
	slices.SortFunc(r.Blocks, func(x, y snapshot.Block) int { return x.BlockKey.Compare(y.BlockKey) })
	slices.SortFunc(r.Attachments, func(x, y snapshot.Attachment) int { return x.Compare(y.AttachmentKey) })
	a.client.Report(r)
}

func (a *agent) fill(at *snapshot.Attachment, g snapshot.Grant) {
	var err error
	if len(g.Addresses) > 0 {
		err = a.pool.TakeStatic(g.AttachmentKey, g.VNI, g.Addresses)
		at.Addresses = g.Addresses
	} else {
		var blocks []snapshot.Block
		for _, b := range a.snap.Blocks {
			blocks = append(blocks, b)
		}
		at.Addresses, err = a.pool.Take(g.AttachmentKey, g.VNI, blocks, ipam.IPv4)
	}
	if err != nil {
		return // waits for a block
	}
	at.VNI = g.VNI
	if at.MAC, err = a.pool.MAC(g.AttachmentKey, a.snap.Nodes[a.name].Number); err != nil {
		a.t.Error(err)
	}
}

// now is the last snapshot and how many came.
func (a *agent) now() (*snapshot.Snapshot, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.snap, a.received
}

// endpoint finds a Workload in the last snapshot.
func (a *agent) endpoint(project, workload string) (snapshot.Endpoint, error) {
	s, _ := a.now()
	if s == nil {
		return snapshot.Endpoint{}, fmt.Errorf("%s has no snapshot yet", a.name)
	}
	for _, e := range s.Endpoints {
		if e.Project == project && e.Workload == workload {
			return e, nil
		}
	}
	return snapshot.Endpoint{}, fmt.Errorf("%s does not know %s/%s", a.name, project, workload)
}

func (a *agent) ship(rs ...record.Record) {
	a.t.Helper()
	eventually(a.t, "ship", func() error { return a.client.Ship(rs, 0) })
}

// rejoin asks for a certificate anew.
func rejoin(t *testing.T, r *running, name, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := discovery.Join(ctx, discovery.JoinConfig{Servers: r.join.Servers, Token: r.join.Token, CAHash: r.join.CAHash, Node: name,
		Address: netip.MustParseAddr("192.0.2.99"), Dir: dir}); err != nil {
		t.Fatal(err)
	}
}
