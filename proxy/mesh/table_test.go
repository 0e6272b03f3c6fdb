package mesh

import (
	"net/netip"
	"strings"
	"testing"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// twins is two Networks with the same addresses.
func twins() *l7.Config {
	c := &l7.Config{Name: "n1", Mesh: &l7.Mesh{}}
	open := policy.Set{Default: policy.DefaultRule{ID: "default/x", Allow: true}}
	for _, vni := range []uint32{1, 2} {
		view := []string{"", "1/shop", "2/shop"}[vni]
		c.Listeners = append(c.Listeners, l7.Listener{Name: view, View: view, Address: "10.96.0.1:80"})
		c.Mesh.Workloads = append(c.Mesh.Workloads, l7.Workload{Name: "shop/web", VNI: vni, Namespace: view, Addresses: []netip.Addr{ip("10.0.0.1"), ip("fd00::1")},
			Mode: "strict", View: view, Egress: open, Ingress: policy.Set{Isolated: "isolated/shop/web/ingress", Rules: []policy.Rule{
				{ID: "policy/a/0", Tier: policy.Project, Action: policy.Allow, Ports: []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 80}},
					Peers: []policy.Peer{{Identities: []policy.Identity{7}}}, Requests: []policy.RequestMatch{{Paths: []policy.TextMatch{{Kind: policy.Prefix, Value: "/"}}}}}}}})
		c.Mesh.Peers = append(c.Mesh.Peers, l7.Peer{VNI: vni, Address: ip("10.0.0.1"), Name: "shop/web", Number: 5},
			l7.Peer{VNI: vni, Address: ip("10.0.0.9"), Name: "shop/x", Number: 7}, l7.Peer{VNI: vni, Address: ip("10.5.0.1"), Name: "shop/web", Home: ip("10.0.0.1"), HomeVNI: 3 - vni})
	}
	return c
}

// TestTable: nothing is found by its address alone.
func TestTable(t *testing.T) {
	table, err := Build(twins())
	if err != nil {
		t.Fatal(err)
	}
	for i, view := range []string{"1/shop", "2/shop"} {
		vni := uint32(i + 1)
		w := table.In(view, ip("fd00::1"))
		if w == nil || w.VNI != vni || !w.Meshed || !w.Strict || table.In(view, ip("10.0.0.2")) != nil {
			t.Fatalf("%s: %+v", view, w)
		}
		if n := table.Frontend(w, netip.MustParseAddrPort("10.96.0.1:80")); n != i {
			t.Errorf("%s: listener %d", view, n)
		}
		if n := table.Frontend(w, netip.MustParseAddrPort("10.96.0.1:81")); n != -1 {
			t.Errorf("%s: listener %d at a port that has none", view, n)
		}
		if p := table.Peer(vni, ip("10.0.0.1")); p == nil || p.Own != w {
			t.Errorf("%s: %+v", view, p)
		}
		if p := table.Peer(vni, ip("10.5.0.1")); p == nil || p.Own != nil {
			t.Errorf("what is linked is ours: %+v", p)
		}
		if table.Peer(3, ip("10.0.0.1")) != nil || table.Same(w) != w {
			t.Error("found where it is not, or not where it is")
		}
	}
	if (*Table)(nil).Same(table.Workloads[0]) != nil {
		t.Error("no Table has somebody")
	}
}

// TestLegs: what the Sets say about a connection, and about one of a stranger.
func TestLegs(t *testing.T) {
	table, err := Build(twins())
	if err != nil {
		t.Fatal(err)
	}
	w := table.Workloads[0]
	if l := w.Enter(table.Peer(1, ip("10.0.0.9")), ip("10.0.0.9"), 80); !l.Open() || l.Allow || l.Session == nil || !l.Paths || l.Rule != "policy/a/0" {
		t.Errorf("%+v", l)
	}
	for _, l := range []Leg{w.Enter(table.Peer(1, ip("10.0.0.9")), ip("10.0.0.9"), 81), w.Enter(nil, ip("10.0.0.9"), 80)} {
		if l.Open() || l.Session != nil || l.Rule != "isolated/shop/web/ingress" {
			t.Errorf("%+v", l)
		}
	}
	if l := w.Leave(nil, netip.MustParseAddrPort("10.0.0.9:80")); !l.Allow || l.Session != nil {
		t.Errorf("%+v", l)
	}
}

func TestBad(t *testing.T) {
	for want, spoil := range map[string]func(*l7.Config){
		"none of off":           func(c *l7.Config) { c.Mesh.Workloads[0].Mode = "maybe" },
		"is in network 1 twice": func(c *l7.Config) { c.Mesh.Workloads[1] = c.Mesh.Workloads[0] },
		"not an IP address":     func(c *l7.Config) { c.Listeners[0].Address = "web:80" },
	} {
		c := twins()
		spoil(c)
		if _, err := Build(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
