package proxy

import (
	"bufio"
	"context"
	stdtls "crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// gated makes edge a Gateway: two names at 443, plain HTTP at 80, bytes at 2525, TLS
// that ends at 9443 and TLS that does not at 8443. It lets nobody to /admin, and api lets it read /public.
func (s *shop) gated(c *l7.Config) {
	for _, k := range s.tenants {
		edge, view := k.boxes["edge"], fmt.Sprint(k.vni, "/shop/Gateway/edge")
		at := map[string][]string{}
		for _, host := range []string{"a.test", "b.test"} {
			cert := k.ca.certificate(fmt.Sprint(k.vni, "/", host), host)
			c.Certificates = append(c.Certificates, cert)
			for _, ip := range edge.addrs {
				name := fmt.Sprint(view, "/", host, "@", ip)
				at[host] = append(at[host], name)
				c.Listeners = append(c.Listeners, l7.Listener{Name: name, View: view, Address: netip.AddrPortFrom(ip, 443).String(), Hostname: host, TLS: &l7.ServerTLS{Certificates: []string{cert.Name}}})
			}
		}
		for _, ip := range edge.addrs {
			for port, l := range map[uint16]l7.Listener{80: {}, 2525: {Protocol: l7.TCP}, 8443: {Protocol: l7.TLS}, 9443: {Protocol: l7.TCP, TLS: &l7.ServerTLS{Certificates: []string{fmt.Sprint(k.vni, "/a.test")}}}} {
				l.Address, l.View = netip.AddrPortFrom(ip, port).String(), view
				l.Name = fmt.Sprint(view, "/", l.Address)
				at[fmt.Sprint(port)] = append(at[fmt.Sprint(port)], l.Name)
				c.Listeners = append(c.Listeners, l)
			}
		}
		sealed := fmt.Sprint(k.vni, "/shop/sealed/8443")
		c.Clusters = append(c.Clusters, l7.Cluster{Name: sealed, Protocol: l7.TCP, Endpoints: []l7.Endpoint{{Address: netip.AddrPortFrom(k.boxes["api"].addrs[0], 8443).String(), SPIFFE: k.boxes["api"].spiffe()}}})
		api, greet := fmt.Sprint(k.vni, "/shop/api/80"), fmt.Sprint(k.vni, "/shop/greet/2525")
		c.Clusters = append(c.Clusters, l7.Cluster{Name: greet, Protocol: l7.TCP, Endpoints: []l7.Endpoint{{Address: netip.AddrPortFrom(k.boxes["api"].addrs[0], 2525).String(), SPIFFE: k.boxes["api"].spiffe()}}})
		route := func(name string, kind l7.Kind, to string, listeners ...string) {
			rule := l7.Rule{}
			if to != "" {
				rule.Backends = []l7.Backend{{Cluster: to}}
			}
			r := l7.Route{Name: fmt.Sprint(k.vni, "/", name), Kind: kind, Listeners: listeners, Rules: []l7.Rule{rule}}
			if kind == l7.TLSRoute {
				r.Hostnames = []string{"a.test"}
			}
			c.Routes = append(c.Routes, r)
		}
		route("a", "", api, at["a.test"]...)
		route("b", "", api, at["b.test"]...)
		route("plain", "", api, at["80"]...)
		route("raw", l7.TCPRoute, greet, at["2525"]...)
		route("ended", l7.TLSRoute, greet, at["9443"]...)
		route("passed", l7.TLSRoute, sealed, at["8443"]...)
		for i := range c.Mesh.Workloads {
			w := &c.Mesh.Workloads[i]
			switch {
			case w.VNI == k.vni && w.Name == "shop/edge":
				w.Gateway, w.TellRule = view, true
				w.Ingress = policy.Set{Default: w.Ingress.Default, Rules: []policy.Rule{{ID: "policy/shop/edge/ingress/0", Tier: policy.Project, Action: policy.Deny, Peers: []policy.Peer{{Anyone: true}},
					Ports: []policy.PortRange{{Protocol: policy.TCP, First: 1, Last: 1000}}, Requests: requests("", "/admin")}}}
			case w.VNI == k.vni && w.Name == "shop/api":
				from := []policy.Peer{{Identities: []policy.Identity{edge.number}}}
				w.Ingress = policy.Set{Isolated: "isolated/shop/api/ingress", Rules: []policy.Rule{
					{ID: "policy/shop/api/ingress/0", Tier: policy.Project, Action: policy.Allow, Peers: from, Ports: []policy.PortRange{{Protocol: policy.TCP, First: 8080, Last: 8080}}, Requests: requests("GET", "/public")},
					{ID: "policy/shop/api/ingress/1", Tier: policy.Project, Action: policy.Allow, Peers: from, Ports: []policy.PortRange{{Protocol: policy.TCP, First: 2525, Last: 2525}, {Protocol: policy.TCP, First: 8443, Last: 8443}}},
				}}
			}
		}
	}
}

// TestGate: who comes to a Gateway, in the mesh or not, in either family, comes to
// the listener of the name; it calls on from its own address and under its own
// identity; and both sides tell so.
func TestGate(t *testing.T) {
	s := newShop(t, "edge")
	s.modes["edge"], s.modes["api"] = "permissive", "strict"
	s.edit = s.gated
	for _, k := range s.tenants {
		k.boxes["api"].seal(8443)
	}
	for what, groups := range map[string][][]string{"one": {{"web", "api", "edge"}}, "each": {{"web"}, {"api"}, {"edge"}}} {
		t.Run(what, func(t *testing.T) {
			var all []*Proxy
			for _, names := range groups {
				all = append(all, startMesh(t, door.State{Config: s.config(names...), Sockets: s.sockets(t, names...)}))
			}
			for _, k := range s.tenants {
				for _, from := range []string{"web", "legacy"} {
					for family := range vip {
						k.askGate(t, from, family)
					}
				}
			}
			told := story(all)
			for _, key := range []string{"ingress GET /public/plain", "ingress GET /admin"} {
				if !strings.Contains(told[key], "edge") {
					t.Errorf("%s is told of as %q; all %v", key, told[key], told)
				}
			}
			if got := told["ingress GET /admin"]; !strings.HasPrefix(got, "deny policy/shop/edge/ingress/0") {
				t.Errorf("/admin is told of as %q", got)
			}
		})
	}
}

// seal is an application that speaks TLS, and greets in it.
func (b *box) seal(port uint16) {
	chain, key := b.tenant.ca.issue("a.test")
	pair, err := stdtls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range b.listen(port) {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(stdtls.Server(c, &stdtls.Config{Certificates: []stdtls.Certificate{pair}}), "220 %s %s ready\r\n", b.tenant.name, c.RemoteAddr())
					c.SetDeadline(time.Now().Add(5 * time.Second))
					c.Read(make([]byte, 1000)) // until it goes
				}()
			}
		}()
	}
}

// TestGateFollows: a connection goes on while the configuration changes, and each of
// its requests is decided by what is true then; over HTTP/2, within the TLS of the
// mesh.
func TestGateFollows(t *testing.T) {
	s := newShop(t, "edge")
	s.modes["edge"], s.edit = "permissive", s.gated
	names := []string{"web", "api", "edge"}
	state := door.State{Config: s.config(names...), Sockets: s.sockets(t, names...)}
	p := startMesh(t, state)
	k := s.tenants[0]
	edge, connections := k.boxes["edge"], 0
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &stdtls.Config{RootCAs: k.ca.pool}, DialContext: func(context.Context, string, string) (net.Conn, error) {
		connections++
		return k.boxes["web"].dial(netip.AddrPortFrom(edge.addrs[0], 443), true)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	expect := func(when string, status int) {
		t.Helper()
		resp, err := c.Get("https://a.test/public/x")
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != status || resp.ProtoMajor != 2 || connections != 1 {
			t.Errorf("%s: %d over %s, on connection %d, not %d", when, resp.StatusCode, resp.Proto, connections, status)
		}
	}
	serve := func(change func(*l7.Workload)) {
		t.Helper()
		next := s.config(names...)
		for i := range next.Mesh.Workloads {
			if w := &next.Mesh.Workloads[i]; w.VNI == k.vni {
				change(w)
			}
		}
		if err := p.Serve(door.State{Config: next, Sockets: state.Sockets}); err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", 200)
	serve(func(*l7.Workload) {})
	expect("with the same again", 200)
	serve(func(w *l7.Workload) {
		if w.Name == "shop/edge" {
			w.Ingress = policy.Set{Isolated: "isolated/shop/edge/ingress"}
		}
	})
	expect("when nobody may come to the Gateway", 403)
	serve(func(w *l7.Workload) {
		if w.Name == "shop/edge" {
			w.Egress = policy.Set{Isolated: "isolated/shop/edge/egress"}
		}
	})
	expect("when the Gateway may go nowhere", 403)
	serve(func(*l7.Workload) {})
	expect("as at first", 200)
}

// askGate asks the Gateway of a tenant in all ways.
func (k *tenant) askGate(t *testing.T, from string, family int) {
	t.Helper()
	box, edge := k.boxes[from], k.boxes["edge"]
	through := from == "web"
	own := edge.addrs[family].String()
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(edge.addrs[family], port) }
	ask := func(c net.Conn, host, path string) string {
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
		var text strings.Builder
		if _, err := bufio.NewReader(c).WriteTo(&text); err != nil {
			return err.Error()
		}
		return text.String()
	}
	dial := func(port uint16) net.Conn {
		c, err := box.dial(at(port), through)
		if err != nil {
			t.Fatalf("%s of %s to port %d: %v", from, k.name, port, err)
		}
		return c
	}
	secure := func(port uint16, host string) net.Conn {
		return stdtls.Client(dial(port), &stdtls.Config{RootCAs: k.ca.pool, ServerName: host, NextProtos: []string{"http/1.1"}})
	}
	for _, c := range []struct {
		answer string
		parts  []string
	}{
		{ask(secure(443, "a.test"), "a.test", "/public/a"), []string{" 200 ", k.name + " GET /public/a ", "X-Moire-Rule: default/shop/net/open"}},
		{ask(secure(443, "b.test"), "b.test", "/public/b"), []string{" 200 ", k.name + " GET /public/b "}},
		{ask(secure(443, "a.test"), "b.test", "/public/misdirected"), []string{" 421 "}},
		{ask(secure(443, "a.test"), "a.test", "/public/../admin"), []string{" 403 "}},
		{ask(secure(443, "a.test"), "a.test", "/private"), []string{" 403 "}},
		{ask(dial(80), "c.test", "/public/plain"), []string{" 200 ", k.name + " GET /public/plain "}},
		{ask(dial(80), "c.test", "/admin"), []string{" 403 "}},
	} {
		for _, p := range c.parts {
			if !strings.Contains(strings.ToLower(c.answer), strings.ToLower(p)) {
				t.Errorf("%s of %s at %s: no %q in %q", from, k.name, own, p, c.answer)
			}
		}
		if ips := []string{edge.addrs[0].String(), edge.addrs[1].String()}; strings.Contains(c.answer, " 200 ") &&
			!slices.ContainsFunc(ips, func(ip string) bool { return strings.HasSuffix(c.answer, " "+ip) }) {
			t.Errorf("%s of %s: it did not come from the Gateway's address: %q", from, k.name, c.answer)
		}
	}
	for _, c := range []net.Conn{dial(2525), secure(9443, "a.test"), secure(8443, "a.test")} {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "220 "+k.name+" "+edge.addrs[0].String()) {
			t.Errorf("%s of %s at %s is greeted %q %v", from, k.name, own, line, err)
		}
		c.Close()
	}
}
