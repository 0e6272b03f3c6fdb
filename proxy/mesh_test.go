package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot/l7"
)

// shop is two tenants with the same addresses, each with a caller, an API, and a
// legacy machine that has no proxy.
type shop struct {
	tenants []*tenant
	// modes by Workload; edit may change a configuration before it is served.
	modes map[string]string
	edit  func(*l7.Config)
}

func newShop(t testing.TB, more ...string) *shop {
	s := &shop{modes: map[string]string{"web": "permissive", "api": "permissive", "legacy": "off"}}
	for i, name := range []string{"red", "blue"} {
		k := newTenant(t, name, uint32(100*(i+1)), append([]string{"web", "api", "-legacy"}, more...)...)
		s.tenants = append(s.tenants, k)
		whoami := func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s %s", k.name, r.Method, r.URL.Path, netip.MustParseAddrPort(r.RemoteAddr).Addr())
		}
		k.boxes["api"].serve(8080, whoami)
		k.boxes["legacy"].serve(8080, whoami)
		k.boxes["api"].greet(2525)
	}
	return s
}

// config is that of a proxy that speaks for Workloads called names, in all tenants.
func (s *shop) config(names ...string) *l7.Config {
	c := &l7.Config{Name: "n1", Mesh: &l7.Mesh{Node: "n1", Mark: markIn}}
	for _, k := range s.tenants {
		view := fmt.Sprint(k.vni, "/shop")
		cluster := l7.Cluster{Name: fmt.Sprint(k.vni, "/shop/api/80"), Protocol: l7.HTTP1}
		for i, a := range k.boxes["api"].addrs {
			cluster.Endpoints = append(cluster.Endpoints, l7.Endpoint{Address: netip.AddrPortFrom(a, 8080).String(), SPIFFE: k.boxes["api"].spiffe()})
			name := fmt.Sprint(view, "/", vip[i])
			c.Listeners = append(c.Listeners, l7.Listener{Name: name, View: view, Address: netip.AddrPortFrom(vip[i], 80).String()})
		}
		c.Clusters = append(c.Clusters, cluster)
		c.Routes = append(c.Routes, l7.Route{Name: fmt.Sprint(k.vni, "/shop/api"), Listeners: []string{fmt.Sprint(view, "/", vip[0]), fmt.Sprint(view, "/", vip[1])},
			Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: cluster.Name}}}}})
		c.Mesh.Trusts = append(c.Mesh.Trusts, l7.Trust{TrustDomain: k.name + ".example", Roots: k.ca.pem})
		for _, b := range k.boxes {
			c.Mesh.Peers = append(c.Mesh.Peers, b.peers(s.modes[b.name] != "off")...)
		}
		for _, n := range names {
			w := k.boxes[n].workload(s.modes[n])
			if n == "api" {
				w.Ports = []l7.WorkloadPort{{Port: 8080, Protocol: l7.HTTP1}, {Port: 2525, Protocol: l7.TCP}}
			}
			c.Mesh.Workloads = append(c.Mesh.Workloads, w)
			c.Certificates = append(c.Certificates, k.boxes[n].certificate())
		}
	}
	if s.edit != nil {
		s.edit(c)
	}
	return c
}

// sockets of Workloads, as an agent hands them over: they are duplicated.
func (s *shop) sockets(t testing.TB, names ...string) map[string]*door.Sockets {
	all := map[string]*door.Sockets{}
	for _, k := range s.tenants {
		for _, n := range names {
			all[k.boxes[n].ns] = duplicates(t, k.boxes[n].sockets)
		}
	}
	return all
}

// proxies starts one proxy for all, or one for each Workload.
func (s *shop) proxies(t testing.TB, one bool) []*Proxy {
	groups := [][]string{{"web"}, {"api"}}
	if one {
		groups = [][]string{{"web", "api"}}
	}
	var all []*Proxy
	for _, names := range groups {
		all = append(all, startMesh(t, door.State{Config: s.config(names...), Sockets: s.sockets(t, names...)}))
	}
	return all
}

func startMesh(t testing.TB, state door.State) *Proxy {
	t.Helper()
	p, err := New(Options{Workers: 2, Ring: ring, Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Serve(state); err != nil {
		t.Fatal(err)
	}
	runProxy(t, p)
	return p
}

// inBoth runs a test with both ends in one proxy, and in two.
func inBoth(t *testing.T, f func(t *testing.T, one bool)) {
	for _, one := range []bool{true, false} {
		t.Run(fmt.Sprintf("one=%v", one), func(t *testing.T) { f(t, one) })
	}
}

func fetch(t testing.TB, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Error(err)
		return 0, "", nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// TestMeshTwins: in two tenants with the same addresses, in both families, by the
// Service and by the Workload's own address, over HTTP/1 and HTTP/2, requests
// come to the right application from the caller's own address; and who speaks
// first is not waited for.
func TestMeshTwins(t *testing.T) {
	s := newShop(t)
	inBoth(t, func(t *testing.T, one bool) {
		s.proxies(t, one)
		for _, k := range s.tenants {
			web := k.boxes["web"]
			for family := range vip {
				for _, two := range []bool{false, true} {
					c := web.client(true, two)
					for _, at := range []netip.AddrPort{netip.AddrPortFrom(vip[family], 80), netip.AddrPortFrom(k.boxes["api"].addrs[family], 8080)} {
						for range 3 {
							want := fmt.Sprintf("%s GET /a %s", k.name, web.addrs[family])
							if status, body, _ := fetch(t, c, fmt.Sprintf("http://%s/a", at)); status != 200 || body != want && at.Addr() != vip[family] {
								t.Errorf("%s %s two=%v: %d %q, want %q", k.name, at, two, status, body, want)
							}
						}
					}
				}
				c, err := web.dial(netip.AddrPortFrom(k.boxes["api"].addrs[family], 2525), true)
				if err != nil {
					t.Fatal(err)
				}
				line, err := bufio.NewReader(c).ReadString('\n')
				if want := "220 " + k.name; err != nil || !strings.HasPrefix(line, want) || !strings.Contains(line, web.addrs[family].String()) {
					t.Errorf("%q %v", line, err)
				}
				c.Close()
			}
		}
	})
}

var _ = maps.Keys[map[string]int]
