package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// greeted is what came of a connection to a server that speaks first.
type greeted struct {
	net.Conn
	said string // by the server, first
	took time.Duration
	err  error
}

// greet connects to a banner server; control may change the socket before.
func greet(ns, addr string, port int, control func(fd int) error) (a greeted) {
	began := time.Now()
	n, err := openNamespace("/run/netns/" + ns)
	if err != nil {
		return greeted{err: err}
	}
	defer n.close()
	a.err = n.do(func() (err error) {
		d := net.Dialer{Timeout: 3 * time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
			raw.Control(func(fd uintptr) {
				if control != nil {
					err = control(int(fd))
				}
			})
			return err
		}}
		a.Conn, err = d.Dial("tcp", net.JoinHostPort(addr, fmt.Sprint(port)))
		return err
	})
	if a.err != nil {
		a.took = time.Since(began)
		return a
	}
	a.SetDeadline(time.Now().Add(3 * time.Second))
	a.said, a.err = bufio.NewReaderSize(a.Conn, 256).ReadString('\n')
	a.said, a.took = strings.TrimSpace(a.said), time.Since(began)
	a.SetDeadline(time.Time{})
	return a
}

// mode sets the mode of a Workload.
func (w *world) mode(project, name string, m snapshot.Mode) {
	for a, e := range w.endpoints {
		if e.Project == project && e.Workload == name {
			e.Mode = m
			w.endpoints[a] = e
		}
	}
}

// meshed lets the proxy of its node speak for Workloads.
func (n *testNode) meshed(names ...string) {
	for i := range n.locals {
		n.locals[i].Proxy = ""
		if slices.Contains(names, n.locals[i].Key.Workload) {
			n.locals[i].Proxy = "node"
		}
	}
}

// meshWorld is two nodes with a proxy each, and two tenants with the same addresses:
// web and plain on node a, far on node b.
func meshWorld(t *testing.T) (w *world, a, b *testProxy) {
	w = twoNodes(t, "192.168.77.")
	for i, project := range []string{"acme", "beta"} {
		vni, id := snapshot.VNI(100*(i+1)), policy.Identity(10*(i+1))
		w.network(vni, project, "10.1.0.0/24", "fd10:1::/64")
		w.workload("a", project, "web", vni, id+1, "10.1.0.2", "fd10:1::2")
		w.workload("a", project, "plain", vni, id+2, "10.1.0.3", "fd10:1::3")
		w.workload("b", project, "far", vni, id+3, "10.1.0.4", "fd10:1::4")
		for _, name := range []string{"web", "plain", "far"} {
			banner(t, "moire-dp-"+project+"-"+name, project+"/"+name, 7)
		}
	}
	a, b = startProxy(t, "a"), startProxy(t, "b")
	for name, p := range map[string]*testProxy{"a": a, "b": b} {
		w.nodes[name].proxies = []Proxy{{Name: "node", Cgroup: p.group, Workers: 2}}
		w.nodes[name].record()
	}
	t.Cleanup(w.dump)
	return w, a, b
}

// join puts Workloads into the mesh of both tenants, and hands everything over.
func (w *world) join(m snapshot.Mode, a, b *testProxy) {
	w.t.Helper()
	for _, project := range []string{"acme", "beta"} {
		w.mode(project, "web", m)
		w.mode(project, "far", m)
	}
	w.nodes["a"].meshed("web")
	w.nodes["b"].meshed("far")
	w.apply()
	for name, p := range map[string]*testProxy{"a": a, "b": b} {
		p.hand(w.nodes[name])
		if err := w.nodes[name].ProxyUp("node", true); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestMeshBothEnds: between two that are in the mesh everything goes by both proxies, in
// both families, for two tenants with the same addresses at once; the ends see each
// other's own addresses, and a server may speak first.
func TestMeshBothEnds(t *testing.T) {
	w, a, b := meshWorld(t)
	w.join(snapshot.Permissive, a, b)
	for _, to := range []string{"10.1.0.4", "fd10:1::4"} {
		from := strings.TrimSuffix(to, "4") + "2"
		greet("moire-dp-acme-web", to, 7, nil) // neighbours are found
		greet("moire-dp-beta-web", to, 7, nil)
		a.forget()
		b.forget()
		var group sync.WaitGroup
		for _, project := range []string{"acme", "beta"} {
			group.Go(func() {
				got := greet("moire-dp-"+project+"-web", to, 7, nil)
				if got.err != nil || got.said != project+"/far sees "+from || got.took > 50*time.Millisecond {
					t.Errorf("%s to %s: %q after %v, %v", project, to, got.said, got.took, got.err)
					return
				}
				defer got.Close()
				if h, _, _ := net.SplitHostPort(got.RemoteAddr().String()); h != to || !echoed(got, time.Second) {
					t.Errorf("%s to %s: connected to %s", project, to, got.RemoteAddr())
				}
			})
		}
		group.Wait()
		host := net.JoinHostPort(to, "7")
		for _, p := range []*testProxy{a, b} {
			p.mu.Lock()
			lines := slices.Clone(p.seen)
			p.mu.Unlock()
			want := map[*testProxy]string{a: "out " + host + " ", b: "in " + host + " "}[p]
			if len(lines) != 2 || !strings.HasPrefix(lines[0], want) || !strings.HasPrefix(lines[1], want) {
				t.Errorf("to %s the proxy had %q, not twice %q", to, lines, want)
			}
		}
	}
	r := w.nodes["b"].find("of the session between the nodes", func(r record.Record) bool {
		return r.Kind == record.Started && r.Source.Workload == "web" && r.Source.Project == "beta"
	})
	if r.Destination.Port != 7 || r.Destination.Workload != "far" || r.Rule != "default/beta/net/open" {
		t.Errorf("%+v", r)
	}
}

// TestMeshModes: who is not in the mesh is spoken to, and speaks, plainly: past the
// proxies, where nothing else needs them; strict refuses that.
func TestMeshModes(t *testing.T) {
	w, a, b := meshWorld(t)
	w.join(snapshot.Permissive, a, b)
	plain := func(from, to string) {
		t.Helper()
		got := greet("moire-dp-acme-"+from, to, 7, nil)
		if got.err != nil {
			t.Fatalf("%s to %s: %v", from, to, got.err)
		}
		got.Close()
		if a.has("out ") != "" || a.has("in ") != "" || b.has("in ") != "" {
			t.Errorf("%s to %s went by a proxy: %q %q", from, to, a.seen, b.seen)
		}
	}
	a.forget()
	b.forget()
	for _, family := range []string{"10.1.0.", "fd10:1::"} {
		plain("web", family+"3")
		plain("plain", family+"4")
		plain("plain", family+"2")
	}
	w.mode("acme", "far", snapshot.Strict)
	w.mode("acme", "web", snapshot.Strict)
	w.apply()
	for _, family := range []string{"10.1.0.", "fd10:1::"} {
		a.forget()
		b.forget()
		plain("web", family+"3")
		for _, to := range []string{"2", "4"} {
			got := greet("moire-dp-acme-plain", family+to, 7, nil)
			if !errors.Is(got.err, unix.ECONNREFUSED) || got.took > time.Second {
				t.Errorf("plain bytes to %s, which is strict: %v after %v", family+to, got.err, got.took)
			}
		}
		if got := greet("moire-dp-acme-web", family+"4", 7, nil); got.err != nil {
			t.Errorf("strict to strict: %v", got.err)
		}
	}
	for _, name := range []string{"a", "b"} {
		r := w.nodes[name].find("of the refusal", func(r record.Record) bool { return r.Drop == "not-in-mesh" })
		if r.Source.Workload != "plain" || r.Verdict != record.Deny || r.Direction != "ingress" || r.Rule != "default/acme/net/open" {
			t.Errorf("node %s: %+v", name, r)
		}
	}
	if !udpWorks(t, "moire-dp-acme-plain", "moire-dp-acme-far", "10.1.0.4") {
		t.Error("UDP is none of the mesh's business")
	}
}

func udpWorks(t *testing.T, from, to, addr string) bool {
	answering(t, to, net.JoinHostPort(addr, "9"), sameBytes)
	return echoed(dialPort(t, from, "udp", addr, "9"), time.Second)
}

// asks is a Set that lets the ports through to a proxy that reads requests.
func asks(id string, ports ...uint16) policy.Set {
	r := policy.Rule{ID: policy.RuleID("policy/acme/" + id), Tier: policy.Project, Action: policy.Allow, Requests: []policy.RequestMatch{{Methods: []string{"GET"}}}}
	for _, p := range ports {
		r.Ports = append(r.Ports, policy.PortRange{Protocol: policy.TCP, First: p, Last: p})
	}
	return policy.Set{Rules: []policy.Rule{r}, Default: policy.DefaultRule{ID: "default/acme/net/open", Allow: true}}
}

// TestMeshRequests: a rule about requests needs the proxy of its side, for that port
// alone; a session that went without ends when the rule comes.
func TestMeshRequests(t *testing.T) {
	w, a, b := meshWorld(t)
	w.nodes["a"].meshed("web")
	w.nodes["b"].meshed("far")
	w.apply()
	for name, p := range map[string]*testProxy{"a": a, "b": b} {
		p.hand(w.nodes[name])
		w.nodes[name].ProxyUp("node", true)
	}
	banner(t, "moire-dp-acme-far", "acme/far", 8)
	for _, c := range []struct {
		id        policy.Identity
		direction policy.Direction
		proxy     *testProxy
		line      string
	}{{11, policy.Egress, a, "out 10.1.0.4:7"}, {13, policy.Ingress, b, "in 10.1.0.4:7"}} {
		before := greet("moire-dp-acme-web", "10.1.0.4", 7, nil)
		other := greet("moire-dp-acme-web", "10.1.0.4", 8, nil)
		if before.err != nil || other.err != nil || !echoed(before, time.Second) {
			t.Fatal(before.err, other.err)
		}
		a.forget()
		b.forget()
		w.decide(c.id, c.direction, asks("x/ingress/get", 7))
		w.apply()
		if echoed(before, 500*time.Millisecond) {
			t.Errorf("%v: a session that needs a proxy now goes on without", c.direction)
		}
		if !echoed(other, time.Second) {
			t.Errorf("%v: a session to another port ended", c.direction)
		}
		if got := greet("moire-dp-acme-web", "10.1.0.4", 7, nil); got.err != nil || got.said != "acme/far sees 10.1.0.2" {
			t.Errorf("%v: %q %v", c.direction, got.said, got.err)
		}
		c.proxy.saw(c.line)
		if got := greet("moire-dp-acme-web", "10.1.0.4", 8, nil); got.err != nil || a.has("out 10.1.0.4:8") != "" || b.has("in 10.1.0.4:8") != "" {
			t.Errorf("%v: another port: %v, or by a proxy", c.direction, got.err)
		}
		w.decide(c.id, c.direction, open("acme"))
		w.apply()
	}
	w.nodes["a"].find("of the end", func(r record.Record) bool { return r.Kind == record.Ended && r.Destination.Port == 7 })
}

// TestMeshServices: a Service with a Frontend for the caller's project is reached by
// the proxy, under the address of the Service; nothing else in the project is.
func TestMeshServices(t *testing.T) {
	w, a, _ := meshWorld(t)
	w.nodes["a"].meshed("web")
	for _, vip := range []string{"10.1.0.100:80", "[fd10:1::100]:80"} {
		to := "10.1.0.4:7"
		if vip[0] == '[' {
			to = "[fd10:1::4]:7"
		}
		w.service("shop", 100, policy.TCP, vip, to)
	}
	ofProject := ""
	w.change = func(s *snapshot.Snapshot) {
		s.Frontends = map[snapshot.FrontendKey]snapshot.Frontend{}
		for k := range w.services {
			s.Frontends[snapshot.FrontendKey{ServiceKey: k, Project: ofProject}] = snapshot.Frontend{}
		}
	}
	for _, c := range []struct {
		project string
		proxied bool
	}{{"acme", true}, {"", true}, {"other", false}} {
		ofProject = c.project
		w.apply()
		a.hand(w.nodes["a"])
		w.nodes["a"].ProxyUp("node", true)
		for _, vip := range []string{"10.1.0.100", "fd10:1::100"} {
			a.forget()
			got := greet("moire-dp-acme-web", vip, 80, nil)
			if got.err != nil || !strings.HasPrefix(got.said, "acme/far sees ") {
				t.Errorf("%+v: %q %v", c, got.said, got.err)
			}
			if (a.has("out "+net.JoinHostPort(vip, "80")) != "") != c.proxied {
				t.Errorf("%+v: the proxy had %q", c, a.seen)
			}
			past := greet(webNS, vip, 80, func(fd int) error { return unix.BindToDevice(fd, "net0") })
			if errors.Is(past.err, unix.ECONNREFUSED) != c.proxied {
				t.Errorf("%+v: past the proxy: %q %v", c, past.said, past.err)
			}
		}
	}
}
