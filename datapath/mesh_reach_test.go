package datapath

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// proxied gives the nodes a and b a proxy each, that speaks for Workloads.
func (w *world) proxied(names ...string) (a, b *testProxy) {
	w.t.Helper()
	a, b = startProxy(w.t, "a"), startProxy(w.t, "b")
	for name, p := range map[string]*testProxy{"a": a, "b": b} {
		n := w.nodes[name]
		n.proxies = []Proxy{{Name: "node", Cgroup: p.group, Workers: 1}}
		n.meshed(names...)
		n.record()
	}
	w.apply()
	for name, p := range map[string]*testProxy{"a": a, "b": b} {
		p.hand(w.nodes[name])
		if err := w.nodes[name].ProxyUp("node", true); err != nil {
			w.t.Fatal(err)
		}
	}
	return a, b
}

// TestMeshLinks: over a translated Link between two Domains those in the mesh speak
// by both proxies, each seeing the other as its Network does; who is not in the mesh is
// refused by who is strict, also from the other node.
func TestMeshLinks(t *testing.T) {
	w := twoDomains(t)
	w.workload("a", "acme", "plain", 100, 12, "10.1.0.9", "fd10:1::9")
	w.seen(101, "10.77.0.9", 100, "10.1.0.9")
	w.seen(101, "fd77:1::9", 100, "fd10:1::9")
	w.mode("acme", "web", snapshot.Permissive)
	for _, name := range []string{"db", "near"} {
		w.mode("bolt", name, snapshot.Strict)
		banner(t, "moire-dp-bolt-"+name, "bolt/"+name, 7)
	}
	a, b := w.proxied("web", "db", "near")
	for to, who := range map[string]string{"10.88.0.2": "db", "10.88.0.3": "near", "fd88:1::2": "db", "fd88:1::3": "near"} {
		sees := map[bool]string{true: "10.77.0.2", false: "fd77:1::2"}[strings.Contains(to, ".")]
		a.forget()
		b.forget()
		got := greet("moire-dp-acme-web", to, 7, nil)
		if got.err != nil || got.said != "bolt/"+who+" sees "+sees || !echoed(got, time.Second) {
			t.Errorf("%s: %q %v", to, got.said, got.err)
			continue
		}
		a.saw("out ")
		map[string]*testProxy{"db": b, "near": a}[who].saw("in ")
		if got := greet("moire-dp-acme-plain", to, 7, nil); !errors.Is(got.err, unix.ECONNREFUSED) || got.took > time.Second {
			t.Errorf("plain to %s: %q %v", to, got.said, got.err)
		}
	}
	for _, name := range []string{"a", "b"} {
		r := w.nodes[name].find("of who was refused", func(r record.Record) bool { return r.Drop == "not-in-mesh" })
		if r.Source.Workload != "plain" || r.Destination.Project != "bolt" {
			t.Errorf("%+v", r)
		}
	}
}

// TestMeshFloating: who comes over a FloatingIP, from another Network or from outside,
// comes as one who is not in the mesh. Who is strict refuses; a rule about requests
// sends it to the proxy, which never takes it for somebody of the Network.
func TestMeshFloating(t *testing.T) {
	w := plaza(t)
	w.mode("front", "caller", snapshot.Permissive)
	for _, name := range []string{"web", "far"} {
		w.mode("acme", name, snapshot.Strict)
		banner(t, "moire-dp-acme-"+name, "acme/"+name, 8)
	}
	banner(t, "moire-dp-out", "out", 8)
	w.change = func(s *snapshot.Snapshot) {
		exitsOf(snapshot.Exit{VNI: 100})(s)
		s.Externals = map[netip.Addr]snapshot.External{netip.MustParseAddr("192.168.77.60"): {Address: netip.MustParseAddr("192.168.77.60"), Node: "a"},
			netip.MustParseAddr("192.168.77.61"): {Address: netip.MustParseAddr("192.168.77.61"), Node: "a"}}
		s.Services = services(
			floatingIP(snapshot.Outside, "192.168.77.60", 80, target(100, "a", "10.1.0.2", 8)), floatingIP(snapshot.Outside, "192.168.77.61", 80, target(100, "b", "10.1.0.4", 8)),
			floatingIP(300, "172.16.0.101", 80, target(100, "a", "10.1.0.2", 8)), floatingIP(300, "172.16.0.102", 80, target(100, "b", "10.1.0.4", 8)),
			floatingIP(200, "10.1.0.200", 80, target(100, "a", "10.1.0.2", 8)),
		)
	}
	a, b := w.proxied("web", "far", "caller")
	ways := []struct {
		from, to, said string
		proxy          *testProxy
	}{
		{"moire-dp-out", "192.168.77.60", "acme/web sees 192.168.77.3", a}, {"moire-dp-out", "192.168.77.61", "acme/far sees 192.168.77.3", b},
		{"moire-dp-front-caller", "172.16.0.101", "acme/web sees 172.16.0.2", a}, {"moire-dp-front-caller", "172.16.0.102", "acme/far sees 172.16.0.2", b},
		{"moire-dp-other-far", "10.1.0.200", "acme/web sees 10.1.0.200", a}, // its own address is acme/far's, there
	}
	for _, c := range ways {
		if got := greet(c.from, c.to, 80, nil); !errors.Is(got.err, unix.ECONNREFUSED) || got.took > time.Second {
			t.Errorf("%s to %s, which is strict: %q, %v after %v", c.from, c.to, got.said, got.err, got.took)
		}
	}
	w.mode("acme", "web", snapshot.Permissive)
	w.mode("acme", "far", snapshot.Permissive)
	for _, requests := range []bool{false, true} {
		if requests {
			w.decide(11, policy.Ingress, asks("x/ingress/get", 8))
			w.decide(12, policy.Ingress, asks("x/ingress/get", 8))
		}
		w.apply()
		for _, c := range ways {
			a.forget()
			b.forget()
			got := greet(c.from, c.to, 80, nil)
			if got.err != nil || got.said != c.said {
				t.Errorf("%s to %s: %q, %v", c.from, c.to, got.said, got.err)
			}
			if (c.proxy.has("in ") != "") != requests {
				t.Errorf("%s to %s: the proxy had %q", c.from, c.to, c.proxy.seen)
			}
		}
	}
	// What leaves to the outside may need the proxy as well.
	w.decide(11, policy.Egress, asks("x/egress/get", 8))
	w.apply()
	if got := greet("moire-dp-acme-web", "192.168.77.3", 8, nil); got.err != nil || got.said != "out sees 192.168.77.1" {
		t.Errorf("to the outside: %q %v", got.said, got.err)
	}
	a.saw("out 192.168.77.3:8 ")
}
