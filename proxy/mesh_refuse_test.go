package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/proxy/tls"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// drops are the reasons in records of refused connections.
func drops(p *Proxy) (out []string) {
	for _, r := range p.Telemetry().Last(-1) {
		if r.Drop != "" {
			out = append(out, r.Drop)
		}
	}
	return out
}

// hears says what comes first on a connection.
func hears(t *testing.T, c net.Conn, err error) string {
	t.Helper()
	if errors.Is(err, syscall.ECONNRESET) { // before it was seen that it was connected
		return "refused"
	}
	if err != nil {
		return "not connected: " + err.Error()
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "refused"
	}
	return strings.TrimSpace(line)
}

// TestMeshModes: who is let in as it speaks, and who is not.
func TestMeshModes(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	web, api, legacy := k.boxes["web"], k.boxes["api"], k.boxes["legacy"]
	for _, c := range []struct {
		what, web, api   string
		unknown, refused bool // legacy is known to nobody, and not let in
	}{
		{"permissive", "permissive", "permissive", false, false},
		{"strict", "strict", "strict", false, true},
		{"permissive, a stranger", "permissive", "permissive", true, false},
		{"strict, a stranger", "strict", "strict", true, true},
		{"off", "off", "off", false, false},
		{"a caller that is off", "off", "permissive", false, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			s.modes["web"], s.modes["api"] = c.web, c.api
			s.edit = func(cfg *l7.Config) {
				cfg.Mesh.Peers = slices.DeleteFunc(cfg.Mesh.Peers, func(p l7.Peer) bool { return c.unknown && p.Name == "shop/legacy" })
			}
			all := s.proxies(t, false)
			for family := range vip {
				at := netip.AddrPortFrom(api.addrs[family], 2525)
				conn, err := legacy.dial(at, false)
				got, want := hears(t, conn, err), "220 red "
				if c.refused {
					want = "refused"
				}
				if !strings.HasPrefix(got, want) {
					t.Errorf("legacy hears %q, want %q", got, want)
				}
				conn, err = web.dial(at, true)
				if got := hears(t, conn, err); !strings.HasPrefix(got, "220 red ") {
					t.Errorf("web hears %q", got)
				}
				if status, body, _ := fetch(t, web.client(true, false), fmt.Sprintf("http://%s/", netip.AddrPortFrom(legacy.addrs[family], 8080))); status != 200 || !strings.HasPrefix(body, "red GET / ") {
					t.Errorf("web to legacy: %d %q", status, body)
				}
			}
			if c.refused {
				eventually(t, "the records", func() bool { return slices.Contains(drops(all[1]), "not-in-mesh") })
			}
		})
	}
}

// TestMeshImpostors (TARGETS S12): who is not who is at its address, on either
// side, gets nothing and gives nothing.
func TestMeshImpostors(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	web, api := k.boxes["web"], k.boxes["api"]
	foreign := newCA(t)
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	for _, c := range []struct {
		what string
		// certificate of whom, and who it is then.
		certificate func(b *box) l7.Certificate
		spiffe      string
		caller      string // drop, when it is the caller's
	}{
		{"another identity", func(b *box) l7.Certificate { return k.ca.certificate(b.spiffe(), b.spiffe()+"x") }, "x", "wrong-identity"},
		{"a foreign root", func(b *box) l7.Certificate { return foreign.certificate(b.spiffe(), b.spiffe()) }, "", "bad-tls"},
		{"it has ended", func(b *box) l7.Certificate { return k.ca.change(expired).certificate(b.spiffe(), b.spiffe()) }, "", "bad-tls"},
		{"another's name in it", func(b *box) l7.Certificate { return k.ca.certificate(b.spiffe(), api.spiffe(), web.spiffe()) }, "", ""},
		{"none", nil, "", ""},
	} {
		for _, who := range []*box{web, api} {
			t.Run(c.what+" of "+who.name, func(t *testing.T) {
				s.edit = func(cfg *l7.Config) {
					i := slices.IndexFunc(cfg.Certificates, func(o l7.Certificate) bool { return o.Name == who.spiffe() })
					if i < 0 {
						return
					}
					if c.certificate == nil {
						cfg.Certificates = slices.Delete(cfg.Certificates, i, i+1)
					} else {
						cfg.Certificates[i] = c.certificate(who)
					}
					for j := range cfg.Mesh.Workloads {
						if w := &cfg.Mesh.Workloads[j]; w.SPIFFE == who.spiffe() {
							w.SPIFFE += c.spiffe
						}
					}
				}
				all := s.proxies(t, false)
				status, body, _ := fetch(t, web.client(true, false), "http://"+netip.AddrPortFrom(vip[0], 80).String()+"/")
				if status != 503 || strings.Contains(body, "red") {
					t.Errorf("%d %q", status, body)
				}
				conn, err := web.dial(netip.AddrPortFrom(api.addrs[1], 2525), true)
				if got := hears(t, conn, err); got != "refused" {
					t.Errorf("hears %q", got)
				}
				if who == web && c.caller != "" {
					eventually(t, "the record", func() bool { return slices.Contains(drops(all[1]), c.caller) })
				}
			})
		}
	}
}

// TestMeshFederation: Workloads of two trust domains meet when both believe.
func TestMeshFederation(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	web, api := k.boxes["web"], k.boxes["api"]
	other := newCA(t)
	const id = "spiffe://other.example/ns/shop/sa/api"
	for _, both := range []bool{false, true} {
		s.edit = func(cfg *l7.Config) {
			trust := l7.Trust{TrustDomain: "other.example", Roots: other.pem, Federates: []string{"red.example"}}
			if both {
				cfg.Mesh.Trusts[0].Federates = []string{"other.example"}
			}
			cfg.Mesh.Trusts = append(cfg.Mesh.Trusts, trust)
			for i := range cfg.Mesh.Workloads {
				if w := &cfg.Mesh.Workloads[i]; w.SPIFFE == api.spiffe() {
					w.SPIFFE, w.Certificate = id, id
				}
			}
			for i := range cfg.Mesh.Peers {
				if p := &cfg.Mesh.Peers[i]; p.SPIFFE == api.spiffe() {
					p.SPIFFE = id
				}
			}
			cfg.Certificates = append(cfg.Certificates, other.certificate(id, id))
		}
		for _, one := range []bool{true, false} {
			t.Run(fmt.Sprintf("both=%v,one=%v", both, one), func(t *testing.T) {
				s.proxies(t, one)
				conn, err := web.dial(netip.AddrPortFrom(api.addrs[0], 2525), true)
				if got := hears(t, conn, err); strings.HasPrefix(got, "220 red") != both {
					t.Errorf("hears %q", got)
				}
			})
		}
	}
}

// TestMeshChange: what is not allowed any more ends, and the next request is
// decided by what is true then.
func TestMeshChange(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	web, api := k.boxes["web"], k.boxes["api"]
	at := netip.AddrPortFrom(api.addrs[0], 8080)
	for _, one := range []bool{true, false} {
		t.Run(fmt.Sprintf("one=%v", one), func(t *testing.T) {
			s.edit = nil
			all := s.proxies(t, one)
			raw, err := web.dial(netip.AddrPortFrom(api.addrs[0], 2525), true)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			lines := bufio.NewReader(raw)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			c := web.client(true, false)
			ask := func() int {
				status, _, _ := fetch(t, c, "http://"+at.String()+"/")
				return status
			}
			if got := ask(); got != 200 {
				t.Fatal(got)
			}
			s.edit = func(cfg *l7.Config) {
				for i := range cfg.Mesh.Workloads {
					if w := &cfg.Mesh.Workloads[i]; w.Name == "shop/api" {
						w.Ingress = policy.Set{Isolated: "isolated/shop/api/ingress", Rules: []policy.Rule{{ID: "policy/shop/api/ingress/0", Tier: policy.Project, Action: policy.Allow,
							Ports: []policy.PortRange{{Protocol: policy.TCP, First: 8080, Last: 8080}}, Requests: requests("PUT", "")}}}
					}
				}
			}
			names := [][]string{{"web"}, {"api"}}
			if one {
				names = [][]string{{"web", "api"}}
			}
			for i, p := range all { // the sockets stay: the same pointers
				if err := p.Serve(door.State{Config: s.config(names[i]...), Sockets: p.namespaces}); err != nil {
					t.Fatal(err)
				}
			}
			if got := ask(); got != 403 {
				t.Errorf("a request is answered with %d", got)
			}
			raw.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := lines.ReadString('\n'); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("a connection goes on: %v", err)
			}
		})
	}
}

// TestMeshChangeBeforeTLS: a caller whose handshake is still to come when the
// configuration changes is let in all the same.
func TestMeshChangeBeforeTLS(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	web, api := k.boxes["web"], k.boxes["api"]
	s.modes["web"], s.modes["api"] = "strict", "strict"
	in := s.proxies(t, false)[1]
	for _, address := range api.addrs {
		raw, err := web.dial(netip.AddrPortFrom(address, 8080), false)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		time.Sleep(50 * time.Millisecond) // the proxy waits for TLS now
		if err := in.Serve(door.State{Config: s.config("api"), Sockets: in.namespaces}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		c := stdtls.Client(raw, &stdtls.Config{Certificates: []stdtls.Certificate{k.ca.pair(web.spiffe())}, NextProtos: []string{tls.Raw}, InsecureSkipVerify: true})
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: api\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %v, %q", address, resp, err, drops(in))
		}
	}
}
