package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// requests is a match of a rule about requests.
func requests(method, path string) []policy.RequestMatch {
	m := policy.RequestMatch{}
	if method != "" {
		m.Methods = []string{method}
	}
	if path != "" {
		m.Paths = []policy.TextMatch{{Kind: policy.Prefix, Value: path}}
	}
	return []policy.RequestMatch{m}
}

// locked has Sets about requests on both sides.
func locked(c *l7.Config) {
	http := []policy.PortRange{{Protocol: policy.TCP, First: 8080, Last: 8080}}
	for i := range c.Mesh.Workloads {
		w := &c.Mesh.Workloads[i]
		switch w.Name {
		case "shop/web":
			w.Egress = policy.Set{Default: w.Egress.Default, Rules: []policy.Rule{
				{ID: "policy/shop/web/egress/0", Tier: policy.Project, Action: policy.Deny, Ports: http, Requests: requests("DELETE", "")}}}
		case "shop/api":
			web := []policy.Peer{{Identities: []policy.Identity{w.Number - 1}}}
			w.TellRule = true
			w.Ingress = policy.Set{Isolated: "isolated/shop/api/ingress", Rules: []policy.Rule{
				{ID: "policy/shop/api/ingress/0", Tier: policy.Project, Action: policy.Deny, Peers: []policy.Peer{{Anyone: true}}, Ports: http, Requests: requests("", "/secret")},
				{ID: "policy/shop/api/ingress/1", Tier: policy.Project, Action: policy.Allow, Peers: web, Ports: http, Requests: requests("GET", "/public")},
				{ID: "policy/shop/api/ingress/2", Tier: policy.Project, Action: policy.Allow, Peers: web, Ports: []policy.PortRange{{Protocol: policy.TCP, First: 2525, Last: 2525}}},
			}}
		}
	}
}

// story is what records say about requests: by direction, method and path, and
// of the caller's side by what it asked for.
func story(proxies []*Proxy) map[string]string {
	out := map[string]string{}
	for _, p := range proxies {
		for _, r := range p.Telemetry().Last(-1) {
			key := r.Direction + " " + r.Request.Method + " " + r.Request.Path
			if r.Direction == "egress" {
				key += " " + r.ServiceAddress
			}
			out[key] = strings.Join([]string{r.Verdict, r.Rule, r.Tier, r.Drop, r.Source.Workload, r.Source.Identity,
				fmt.Sprint(r.Source.Number), r.Destination.Workload, fmt.Sprint(r.Destination.Number), fmt.Sprint(r.Request.Status)}, " ")
		}
	}
	return out
}

// TestMeshVerdicts: a request meets the same rules whether it crosses in memory
// or between two proxies, by a Service or by an address, and both sides tell so.
func TestMeshVerdicts(t *testing.T) {
	s := newShop(t)
	s.edit = locked
	k := s.tenants[0]
	web, api := k.boxes["web"], k.boxes["api"]
	paths := []struct {
		method, path    string
		status          int
		egress, ingress string // verdict and rule
	}{
		{"GET", "/public/x", 200, "allow default/shop/net/open", "allow policy/shop/api/ingress/1"},
		{"GET", "/public/../secret/x", 403, "allow default/shop/net/open", "deny policy/shop/api/ingress/0"},
		{"POST", "/public/post", 403, "allow default/shop/net/open", "deny isolated/shop/api/ingress"},
		{"GET", "/other", 403, "allow default/shop/net/open", "deny isolated/shop/api/ingress"},
		{"DELETE", "/public/del", 403, "deny policy/shop/web/egress/0", ""},
		{"GET", "/public%2f..%2fsecret", 400, "", ""},
	}
	var told []map[string]string
	inBoth(t, func(t *testing.T, one bool) {
		all := s.proxies(t, one)
		asked := []netip.AddrPort{netip.AddrPortFrom(vip[0], 80), netip.AddrPortFrom(api.addrs[1], 8080)}
		for _, at := range asked {
			c := web.client(true, false)
			for _, p := range paths {
				req, err := http.NewRequest(p.method, fmt.Sprintf("http://%s%s", at, p.path), nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := c.Do(req)
				if err != nil {
					t.Errorf("%s %s: %v", p.method, p.path, err)
					continue
				}
				resp.Body.Close()
				_, rule, _ := strings.Cut(p.ingress, " ")
				if got := resp.Header.Get("x-moire-rule"); resp.StatusCode != p.status || got != rule {
					t.Errorf("%s %s at %s: %d, rule %q, want %d, %q", p.method, p.path, at, resp.StatusCode, got, p.status, rule)
				}
			}
		}
		if c, err := web.dial(netip.AddrPortFrom(api.addrs[0], 2525), true); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		eventually(t, "the records", func() bool { return len(story(all)) >= 18 })
		got := story(all)
		for _, p := range paths {
			path := strings.Replace(p.path, "/public/..", "", 1)
			for direction, want := range map[string]string{"egress": p.egress, "ingress": p.ingress} {
				for _, at := range asked {
					key := direction + " " + p.method + " " + path
					if direction == "egress" {
						key += " " + at.String()
					}
					if said := got[key]; want != "" && !strings.HasPrefix(said, want+" ") {
						t.Errorf("%s: %q, want %q", key, said, want)
					}
				}
			}
		}
		told = append(told, got)
	})
	if len(told) == 2 && !maps.Equal(told[0], told[1]) {
		for _, key := range slices.Sorted(maps.Keys(told[0])) {
			if told[0][key] != told[1][key] {
				t.Errorf("%s\nin memory:   %s\nbetween two: %s", key, told[0][key], told[1][key])
			}
		}
	}
}
