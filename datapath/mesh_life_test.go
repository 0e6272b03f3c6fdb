package datapath

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// TestMeshProxyDown: when a proxy is down what needs it is refused and recorded at
// once, wherever it comes from; all else goes on. Nobody is lost while one is replaced.
func TestMeshProxyDown(t *testing.T) {
	w, a, b := meshWorld(t)
	w.join(snapshot.Permissive, a, b)
	refusedBy := func(node string) {
		t.Helper()
		want := map[string]error{"a": unix.ECONNREFUSED, "b": unix.ECONNRESET}[node] // b refuses the proxy of a
		if got := greet(webNS, toFar, 7, nil); !errors.Is(got.err, want) || got.took > time.Second {
			t.Errorf("%s is down: %q, %v after %v", node, got.said, got.err, got.took)
		}
		r := w.nodes[node].find("of the refusal", func(r record.Record) bool { return r.Drop == "no-proxy" && r.Destination.Workload == "far" })
		if r.Source.Workload != "web" || r.Rule != "default/acme/net/open" {
			t.Errorf("%+v", r)
		}
		if got := greet("moire-dp-acme-plain", "10.1.0.4", 7, nil); got.err != nil {
			t.Errorf("%s is down, and what needs no proxy fails: %v", node, got.err)
		}
	}
	for name, p := range map[string]*testProxy{"a": a, "b": b} {
		n := w.nodes[name]
		// It stops: whoever comes now waits, until it is said to be down.
		p.stop()
		waiting := make(chan greeted, 1)
		go func() { waiting <- greet(webNS, toFar, 7, nil) }()
		time.Sleep(200 * time.Millisecond)
		began := time.Now()
		if err := n.ProxyUp("node", false); err != nil {
			t.Fatal(err)
		}
		if got := <-waiting; got.err == nil || time.Since(began) > time.Second {
			t.Errorf("%s: who waited had %q, %v after %v", name, got.said, got.err, time.Since(began))
		}
		refusedBy(name)
		p.cmd.Process.Signal(unix.SIGCONT)
		n.ProxyUp("node", true)
		if got := greet(webNS, toFar, 7, nil); got.err != nil {
			t.Errorf("%s is up again: %v", name, got.err)
		}
		// It dies, and another comes before anybody says that it is down.
		p.kill()
		go func() { waiting <- greet(webNS, toFar, 7, nil) }()
		time.Sleep(200 * time.Millisecond)
		p.start()
		p.hand(n)
		if got := <-waiting; got.err != nil {
			t.Errorf("%s: who came while it was replaced: %v", name, got.err)
		}
	}
	if err := w.nodes["a"].ProxyUp("none", true); err == nil {
		t.Error("a proxy that is not in the State is up")
	}
}

// TestMeshRestart: the agent goes and comes back. Meanwhile the proxy goes on, with new
// connections too; afterwards it gets other listeners, and nobody notices.
func TestMeshRestart(t *testing.T) {
	w, a, b := meshWorld(t)
	w.join(snapshot.Permissive, a, b)
	old := greet(webNS, toFar, 7, nil)
	if old.err != nil {
		t.Fatal(old.err)
	}
	works := func(when string) {
		t.Helper()
		if got := greet(webNS, toFar, 7, nil); got.err != nil || !echoed(got, time.Second) || !echoed(old, time.Second) {
			t.Errorf("%s: %v", when, got.err)
		}
	}
	for range often(3, 1) {
		for name, p := range map[string]*testProxy{"a": a, "b": b} {
			n := w.nodes[name]
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			works("without the agent of " + name)
			n.open()
			works("before it has grown")
			before := n.Writes()
			w.apply()
			if n.Writes() == before {
				t.Error("no listeners were made")
			}
			p.hand(n)
			works("with the agent of " + name)
		}
	}
	// Without agent and proxy there is nobody: refused.
	w.nodes["a"].Close()
	a.kill()
	if got := greet(webNS, toFar, 7, nil); !errors.Is(got.err, unix.ECONNREFUSED) {
		t.Errorf("without agent and proxy: %q %v", got.said, got.err)
	}
}

// leftIn lists what is ours in a namespace.
func leftIn(t *testing.T, ns string) string {
	t.Helper()
	out := sh(t, "ip -n %s rule | grep '^77:'; ip -n %s -6 rule | grep '^77:'; ip -n %s route show table all proto 77; ip -n %s -6 route show table all proto 77; ip netns exec %s ss -Hltn | grep -v ':7 '; exit 0", ns, ns, ns, ns, ns)
	inNetns(t, ns, func() error {
		for _, path := range lentSettings {
			if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != "0" {
				out += path + " " + string(b)
			}
		}
		return nil
	})
	return out
}

// TestMeshLeaves: when nobody needs a proxy any more what goes on may go on for a while,
// then nothing is left; what an agent has begun and not ended goes too.
func TestMeshLeaves(t *testing.T) {
	w, a, b := meshWorld(t)
	n := w.nodes["a"]
	if left := leftIn(t, webNS); left != "" {
		t.Fatalf("before: %s", left)
	}
	w.join(snapshot.Permissive, a, b)
	old := greet(webNS, toFar, 7, nil)
	if old.err != nil || leftIn(t, webNS) == "" || leftIn(t, "moire-dp-acme-plain") != "" {
		t.Fatalf("%v; in plain: %s", old.err, leftIn(t, "moire-dp-acme-plain"))
	}
	apart := func() {
		for _, name := range []string{"web", "far"} {
			w.mode("acme", name, snapshot.Off)
			w.mode("beta", name, snapshot.Off)
		}
		n.meshed()
		n.proxies = nil
		w.apply()
	}
	apart()
	if !echoed(old, time.Second) || leftIn(t, webNS) == "" {
		t.Error("what goes on is cut off")
	}
	if got := greet(webNS, toFar, 7, nil); got.err != nil || len(n.Interceptions()) != 0 {
		t.Errorf("new: %v", got.err)
	}
	a.kill()
	clean := func(when string) {
		t.Helper()
		n.standLinger = 0
		apart()
		if left := leftIn(t, webNS) + leftIn(t, "moire-dp-beta-web"); left != "" {
			t.Errorf("%s: left %s", when, left)
		}
		if pins := sh(t, "ls %s/bpf/a/links", n.runDir); strings.Contains(pins, standPin) || strings.Contains(pins, "connect") {
			t.Errorf("%s: left pins %s", when, pins)
		}
		if len(n.tables.stands.rows) != 0 || len(n.tables.groups.rows) != 0 || len(n.tables.proxies.rows) != 0 || len(n.stands) != 0 {
			t.Errorf("%s: left rows", when)
		}
	}
	clean("after a while")
	n.proxies = []Proxy{{Name: "node", Cgroup: a.group, Workers: 2}}
	for after := range 5 {
		n.meshed("web")
		n.crash(t, after, State{Snapshot: w.snapshot("a"), Locals: n.locals, Proxies: n.proxies})
		clean("after an agent that died at step " + string(rune('0'+after)))
		n.proxies = []Proxy{{Name: "node", Cgroup: a.group, Workers: 2}}
	}
	n.meshed("web")
	w.apply()
	n.Close()
	inNetns(t, n.ns, func() error { return Cleanup(n.runDir, "a") })
	if left := leftIn(t, webNS); left != "" {
		t.Errorf("after the node was cleaned up: left %s", left)
	}
}

// crash makes an agent die after so many steps of making a namespace ready, and
// starts another.
func (n *testNode) crash(t *testing.T, after int, s State) {
	t.Helper()
	err := n.locked(func() error {
		w, err := n.compute(s, false)
		if err != nil {
			return err
		}
		for cookie, want := range w.mesh.stands {
			s, row := n.Datapath.stands[cookie], want.row
			for _, step := range n.stepsOf(s, &row)[:after] {
				if err := step(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	n.open()
	n.record()
}

// TestMeshNamespaceGone: nobody holds the namespace of a Workload that is gone.
func TestMeshNamespaceGone(t *testing.T) {
	w, a, b := meshWorld(t)
	w.join(snapshot.Permissive, a, b)
	n := w.nodes["a"]
	idle := w.workload("a", "acme", "idle", 100, 14, "10.1.0.9")
	host := n.locals[len(n.locals)-1].Host
	n.meshed("web", "idle")
	w.apply()
	a.hand(n)
	sh(t, "ip netns del %s", idle)
	there := func() bool {
		_, err := shell("ip -n moire-dp-a link show %s", host)
		return err == nil
	}
	if !there() {
		t.Fatal("the interface went although namespaces are held")
	}
	n.again()
	if err := n.Shrink(n.Datapath.state); err != nil {
		t.Fatal(err)
	}
	if left := len(n.Interceptions()); left != 2 {
		t.Errorf("%d namespaces of 2 are told", left)
	}
	a.kill() // as one does that is told
	for range 100 {
		if !there() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the interface of a namespace that is gone stays")
}
