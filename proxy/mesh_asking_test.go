package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// TestMeshItself: a Workload that is behind the Service which it calls reaches
// itself, from its own address, in both families.
func TestMeshItself(t *testing.T) {
	s := newShop(t)
	s.proxies(t, true)
	for _, k := range s.tenants {
		api := k.boxes["api"]
		told := map[string]bool{}
		for i := range 40 { // the balancer chooses the family
			code, body, _ := fetch(t, api.client(true, false), fmt.Sprintf("http://%s/me", netip.AddrPortFrom(vip[i%2], 80)))
			if told[body] = true; code != 200 {
				t.Fatalf("%d %q", code, body)
			}
		}
		for _, a := range api.addrs {
			if want := fmt.Sprintf("%s GET /me %s", k.name, a); !told[want] || len(told) != 2 {
				t.Errorf("%v, want %q", told, want)
			}
		}
	}
}

// undeclared puts a port beside, of which nobody said what is spoken, in front of an
// application that speaks first; web has to see requests there, api has not.
func undeclared(c *l7.Config) {
	for i := range c.Mesh.Workloads {
		if w := &c.Mesh.Workloads[i]; w.Name == "shop/web" {
			w.Egress.Rules = []policy.Rule{{ID: "policy/shop/web/egress/0", Tier: policy.Project, Action: policy.Allow, Requests: requests("GET", "")}}
		}
	}
	for _, k := range c.Clusters {
		as := map[l7.Kind]l7.Cluster{l7.TCPRoute: {Name: k.Name + "0", Protocol: l7.TCP}, l7.HTTPRoute: {Name: k.Name + "0/http1", Protocol: l7.HTTP1}}
		view, _, _ := strings.Cut(k.Name, "/shop/api")
		name := view + "/undeclared"
		c.Listeners = append(c.Listeners, l7.Listener{Name: name, View: view + "/shop", Address: netip.AddrPortFrom(vip[0], 90).String(), Asking: []string{"shop/web"}})
		for kind, to := range as {
			for _, e := range k.Endpoints {
				e.Address = strings.Replace(e.Address, ":8080", ":2525", 1)
				to.Endpoints = append(to.Endpoints, e)
			}
			c.Clusters = append(c.Clusters, to)
			c.Routes = append(c.Routes, l7.Route{Name: name + "/" + string(kind), Kind: kind, Listeners: []string{name}, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: to.Name}}}}})
		}
	}
}

// TestMeshAsking: at a port of which nobody said what is spoken, who has to see
// requests gets nothing else through, and its neighbour's bytes pass.
func TestMeshAsking(t *testing.T) {
	s := newShop(t)
	s.edit = undeclared
	all := s.proxies(t, true)
	at := netip.AddrPortFrom(vip[0], 90)
	for _, k := range s.tenants {
		c, err := k.boxes["api"].dial(at, true)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 "+k.name) {
			t.Errorf("%s: who need not see requests gets %q: %v", k.name, line, err)
		}
		if c, err = k.boxes["web"].dial(at, true); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "\x00no request\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 400 ") {
			t.Errorf("%s: what is no request is answered with %q: %v", k.name, line, err)
		}
	}
	s.denied(t, all[0], "web", "egress")
}

// denied waits until every tenant has a record that a Workload sent no request where a
// rule has to see some.
func (s *shop) denied(t *testing.T, p *Proxy, from, direction string) {
	t.Helper()
	eventually(t, "the denial is told", func() bool {
		n := 0
		for _, r := range p.Telemetry().Last(-1) {
			if r.Source.Workload == from && r.Direction == direction && r.Verdict == "deny" && r.Drop == "not-http" {
				n++
			}
		}
		return n == len(s.tenants)
	})
}

// TestMeshItselfAsks: bytes of a Workload to itself, whose rules have to see requests,
// are refused: no other proxy would look into them.
func TestMeshItselfAsks(t *testing.T) {
	s := newShop(t)
	s.edit = func(c *l7.Config) {
		undeclared(c)
		for i := range c.Mesh.Workloads {
			if w := &c.Mesh.Workloads[i]; w.Name == "shop/api" {
				w.Ingress.Rules = []policy.Rule{{ID: "policy/shop/api/ingress/0", Tier: policy.Project, Action: policy.Allow, Requests: requests("GET", "")}}
			}
		}
	}
	all := s.proxies(t, true)
	for _, k := range s.tenants {
		c, err := k.boxes["api"].dial(netip.AddrPortFrom(vip[0], 90), true)
		if err != nil {
			continue // it was refused at once
		}
		defer c.Close()
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%s: %q %v", k.name, b, err)
		}
	}
	s.denied(t, all[0], "api", "ingress")
}
