package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/explain"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// client of a user who has the administrator's kubeconfig.
type userClient struct{ *rest.RESTClient }

func (r *running) admin() userClient {
	r.t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig())
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := newClients(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return userClient{c.moire}
}

// DoRaw gets a path with its query.
func (c userClient) DoRaw(ctx context.Context, path string) ([]byte, error) {
	return c.Get().RequestURI(path).DoRaw(ctx)
}

// TestEndToEnd walks through one life: join, attach, see, ask, restart, leave.
func TestEndToEnd(t *testing.T) {
	dir := t.TempDir()
	z := &zone{}
	cfg := Config{Dir: filepath.Join(dir, "control"), RunDir: filepath.Join(dir, "run"), DiscoveryListen: freePort(t), NameServers: []string{nameServer(t, z)}}
	z.set("mail.example.com. A", "mail.example.com. 60 IN A 198.51.100.25")
	c := start(t, cfg)
	for file, mode := range map[string]os.FileMode{"join.json": 0o600, "kubeconfig": 0o600} {
		if i, err := os.Stat(filepath.Join(cfg.RunDir, file)); err != nil || i.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %v", file, i, err, mode)
		}
	}
	c.create(domain("acme"), projectOf("shop", "acme"), projectOf("lost", ""),
		network("shop", "front", "10.0.0.0/24"),
		&v1alpha1.Workload{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", Labels: map[string]string{"app": "db"}},
			Spec: v1alpha1.WorkloadSpec{Interfaces: []v1alpha1.Interface{{Network: "front", Addresses: []string{"10.0.0.77"}}}}},
		&v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: v1alpha1.PolicySpec{
			Subject: &v1alpha1.Subject{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
			Ingress: []v1alpha1.Rule{{Name: "web", Action: v1alpha1.ActionAllow,
				From:  []v1alpha1.Peer{{Labels: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}},
				Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 5432}}}}}})
	a, b := newAgent(t, c, "node-a"), newAgent(t, c, "node-b")
	a.attach("shop", "web", "front")
	b.attach("shop", "db", "front")
	b.attach("shop", "nowhere", "missing")
	seen(t, a, b)
	t.Run("objects", func(t *testing.T) { objects(t, c) })
	t.Run("conditions", func(t *testing.T) { tells(t, c, a) })
	t.Run("explain", func(t *testing.T) { explains(t, c) })
	t.Run("foreign", func(t *testing.T) { foreign(t, c) })
	t.Run("flows", func(t *testing.T) { flows(t, c, a) })
	t.Run("services", func(t *testing.T) { services(t, c, a, b) })
	t.Run("traffic", func(t *testing.T) { trafficOf(t, c, a) })
	t.Run("gateways", func(t *testing.T) { gatewaysOf(t, c, a, b) })
	t.Run("captures", func(t *testing.T) { captures(t, c, a) })
	last := map[*agent]told{a: a.told(), b: b.told()}
	c.stop()
	c = start(t, cfg)
	t.Run("restart", func(t *testing.T) { restarted(t, c, last) })
	t.Run("delete a node", func(t *testing.T) { deleted(t, c, a, b) })
}

// freePort finds an address that is free now; a restart needs it again.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// seen waits until both nodes know both Workloads and their own Policies.
func seen(t *testing.T, a, b *agent) {
	t.Helper()
	eventually(t, "both nodes know both Workloads", func() error {
		for _, n := range []*agent{a, b} {
			for _, w := range []string{"web", "db"} {
				if _, err := n.endpoint("shop", w); err != nil {
					return err
				}
			}
		}
		return nil
	})
	eventually(t, "policies, block and grants", func() error {
		s, _ := b.now()
		db, err := b.endpoint("shop", "db")
		if err != nil {
			return err
		}
		if db.Addr.IP.String() != "10.0.0.77" {
			return fmt.Errorf("db has %s, want what it declares", db.Addr.IP)
		}
		set, ok := s.Policies[snapshot.PolicyKey{VNI: db.Addr.VNI, Identity: db.Identity, Direction: policy.Ingress}]
		if !ok || len(set.Rules) != 1 {
			return fmt.Errorf("policies of db: %+v", s.Policies)
		}
		if g := s.Grants[snapshot.AttachmentKey{Project: "shop", Workload: "nowhere", Network: "missing"}]; g.Error == "" {
			return fmt.Errorf("an attachment to a missing Network was not refused: %+v", s.Grants)
		}
		sa, _ := a.now()
		if len(sa.Blocks) != 1 || sa.Nodes["node-a"].Number == 0 || sa.Nodes["node-a"].Number == s.Nodes["node-b"].Number {
			return fmt.Errorf("block or node number: %v %v", sa.Blocks, sa.Nodes)
		}
		return nil
	})
}

// objects: what users see is what the nodes said.
func objects(t *testing.T, c *running) {
	eventually(t, "Workloads are shown", func() error {
		web, err := c.workload("shop", "web")
		if err != nil {
			return err
		}
		if web.Status.Phase != v1alpha1.PhaseRunning || web.Status.Node != "node-a" || web.Annotations[ReportedBy] != "node-a" ||
			web.Labels["app"] != "web" || web.Status.Identity == 0 || web.Status.SPIFFEID != "spiffe://acme.moire/ns/shop/sa/default" ||
			len(web.Status.Interfaces) != 1 || len(web.Status.Interfaces[0].Addresses) != 1 {
			return fmt.Errorf("web is %+v", web)
		}
		db, err := c.workload("shop", "db")
		if err != nil {
			return err
		}
		if db.Status.Phase != v1alpha1.PhaseRunning || db.Status.Node != "node-b" || db.Annotations[ReportedBy] != "" {
			return fmt.Errorf("db is %+v", db)
		}
		none, err := c.workload("shop", "nowhere")
		if err != nil {
			return err
		}
		if none.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(none.Status.Message, "missing") {
			return fmt.Errorf("nowhere is %+v", none.Status)
		}
		return nil
	})
	eventually(t, "Nodes are shown", func() error {
		n, err := c.node("node-a")
		if err != nil {
			return err
		}
		if s := n.Status; s.State != v1alpha1.NodeReady || s.Wanted == "" || s.Wanted != s.Applied || s.Workloads != 1 || s.Agent != "test" || s.LastSeen == nil {
			return fmt.Errorf("node-a is %+v", s)
		}
		return nil
	})
	eventually(t, "the Network is ready", func() error {
		var n v1alpha1.Network
		if err := c.get("/apis/moire.dev/v1alpha1/namespaces/shop/networks/front", &n); err != nil {
			return err
		}
		if len(n.Status.Conditions) != 1 || n.Status.Conditions[0].Status != metav1.ConditionTrue || n.Status.VNI != firstVNI || len(n.Status.Blocks) != 1 {
			return fmt.Errorf("front is %+v", n.Status)
		}
		return nil
	})
}

func explains(t *testing.T, c *running) {
	ask := func(project, query string) (a explain.Answer, err error) {
		return a, c.get("/apis/moire.dev/v1alpha1/namespaces/"+project+"/explain?"+query, &a)
	}
	got, err := ask("shop", "from=web&to=shop/db&port=5432&protocol=tcp&output=json")
	if err != nil || !got.Allow || got.Rule != "policy/shop/db/ingress/web" {
		t.Errorf("got %+v, %v", got, err)
	}
	object := ""
	for _, s := range got.Steps {
		if s.Rule == got.Rule && s.Object != "" {
			object = s.Object
		}
	}
	if object != "Policy shop/db" {
		t.Errorf("the rule comes from %q", object)
	}
	if got, err = ask("shop", "from=web&to=db&port=80"); err != nil || got.Allow || got.Rule != "isolated/shop/db/ingress" {
		t.Errorf("got %+v, %v", got, err)
	}
	for query, want := range map[string]string{"from=web&to=db&port=x": "not a port", "from=a&to=b&output=xml": "write json or text"} {
		if _, err := ask("shop", query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", query, err, want)
		}
	}
}

func flows(t *testing.T, c *running, a *agent) {
	rec := func(id, from, to string) record.Record {
		return record.Record{ID: id, Kind: record.Ended, Time: time.Now(), Node: "node-a", Observer: record.AtSource, Verdict: record.Allow, Protocol: "tcp",
			Source:      record.End{Project: from, Address: netip.MustParseAddr("10.0.0.1")},
			Destination: record.End{Project: to, Address: netip.MustParseAddr("10.0.0.2")}}
	}
	a.ship(rec("1", "shop", "bank"), rec("2", "bank", "bank"), rec("3", "bank", "shop"))
	path := "/apis/moire.dev/v1alpha1/namespaces/shop/flows"
	ids := func(path string) string {
		b, err := c.admin().DoRaw(t.Context(), path)
		if err != nil {
			return err.Error() + string(b)
		}
		var out []string
		for d := json.NewDecoder(strings.NewReader(string(b))); d.More(); {
			var r record.Record
			if err := d.Decode(&r); err != nil {
				return err.Error()
			}
			out = append(out, r.ID)
		}
		return strings.Join(out, " ")
	}
	eventually(t, "records arrive, and a project sees its own", func() error {
		if got := ids(path); got != "1 3" {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	if got := ids("/apis/moire.dev/v1alpha1/flows?limit=2"); got != "2 3" {
		t.Errorf("all projects: got %q", got)
	}
	if got := ids(path + "?project=bank"); !strings.Contains(got, "not the project of the path") {
		t.Errorf("another project was shown: %q", got)
	}
	stream, err := c.admin().Get().RequestURI(path + "?follow=true&limit=1").Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	for _, want := range []string{`"id":"3"`, `"id":"4"`} {
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("got %q, %v, want %s", lines.Text(), lines.Err(), want)
		}
		a.ship(rec("4", "shop", "shop"))
	}
}

// told is what a node was told last, and how often it was told something.
type told struct {
	snap  *snapshot.Snapshot
	count int
}

func (a *agent) told() told {
	s, count := a.now()
	return told{s, count}
}

// restarted: the same facts give the same versions, so nobody is told anything.
func restarted(t *testing.T, c *running, last map[*agent]told) {
	eventually(t, "nodes come back", func() error {
		for a := range last {
			n, err := c.node(a.name)
			if err != nil {
				return err
			}
			if n.Status.State != v1alpha1.NodeReady || n.Status.Wanted == "" {
				return fmt.Errorf("%s is %+v", a.name, n.Status)
			}
		}
		return nil
	})
	for a, was := range last {
		now := a.told()
		if now.snap.Version() != was.snap.Version() || now.count != was.count {
			d := snapshot.Diff(was.snap, now.snap)
			t.Errorf("%s was told something after the restart: %d snapshots, then %d; new: %+v; gone: %+v", a.name, was.count, now.count, d.Put, d.Delete)
		}
		if n, err := c.node(a.name); err != nil || n.Status.Wanted != string(was.snap.Version()) {
			t.Errorf("%s: wanted %s after the restart, %v", a.name, n.Status.Wanted, err)
		}
	}
}

// deleted: what a deleted node said is gone, and what it says is not heard.
func deleted(t *testing.T, c *running, a, b *agent) {
	b.stop()
	eventually(t, "a node that is away is stale", func() error {
		n, err := c.node("node-b")
		w, errW := c.workload("shop", "db")
		if err := errors.Join(err, errW); err != nil {
			return err
		}
		if n.Status.State != v1alpha1.NodeStale || w.Status.Phase != v1alpha1.PhaseStale {
			return fmt.Errorf("node-b is %s, db is %s", n.Status.State, w.Status.Phase)
		}
		return nil
	})
	if _, err := a.endpoint("shop", "db"); err != nil {
		t.Errorf("what is stale must stay: %v", err)
	}
	if err := c.admin().Delete().Resource("nodes").Name("node-b").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its Workloads are gone", func() error {
		if _, err := a.endpoint("shop", "db"); err == nil {
			return errors.New("node-a still knows db")
		}
		rows, err := c.store.Rows().List(t.Context(), worldPrefix)
		if err == nil && len(rows) != 1 {
			err = fmt.Errorf("%d rows of the world", len(rows))
		}
		return err
	})
	if err := c.admin().Delete().Resource("nodes").Name("node-a").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	_, count := a.now()
	eventually(t, "a deleted node is not shown", func() error {
		if w, err := c.workload("shop", "web"); err == nil {
			return fmt.Errorf("web is shown as %+v", w.Status)
		}
		return nil
	})
	a.attach("shop", "late", "front")
	time.Sleep(300 * time.Millisecond)
	if _, now := a.now(); now != count {
		t.Errorf("a deleted node got %d snapshots", now-count)
	}
	// Joining again makes it known again, with what it says now.
	dir := t.TempDir()
	rejoin(t, c, a.name, dir)
	eventually(t, "a node that joined again is heard", func() error {
		_, err := a.endpoint("shop", "late")
		return err
	})
}
