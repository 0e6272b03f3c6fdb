package explain_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// meshed is a Network with two versions of a Service behind routes, and one that
// is not in the mesh.
func meshed() world {
	w := newWorld()
	w.network(front, "shop", "front", "red", "10.0.0.0/24", "fd00::/64")
	in := func(a string, id policy.Identity, name, node string, mode snapshot.Mode) {
		e := w.at(on(front, a), id, "shop", name, node)
		e.Mode = mode
		w.all(func(s *snapshot.Snapshot) { s.Endpoints[e.Addr] = e })
	}
	in("10.0.0.2", 1, "web", "n1", snapshot.Permissive)
	in("10.0.0.3", 2, "v1", "n1", snapshot.Strict)
	in("10.0.0.4", 3, "v2", "n2", snapshot.Permissive)
	in("10.0.0.5", 4, "old", "n2", snapshot.Off)
	in("10.0.0.6", 5, "cron", "n1", snapshot.Off)
	service := func(name, vip, backend, node string, app l7.Protocol) snapshot.ServiceKey {
		k := snapshot.ServiceKey{Addr: on(front, vip), Protocol: policy.TCP, Port: 80}
		w.service(snapshot.Service{ServiceKey: k, Project: "shop", Name: name, App: app, Backends: []snapshot.Backend{{Addr: on(front, backend), Port: 8080, Weight: 1, Node: node}}})
		return k
	}
	api := service("api", "10.0.0.100", "10.0.0.3", "n1", l7.HTTP1)
	v2 := service("v2", "10.0.0.102", "10.0.0.4", "n2", l7.HTTP1)
	service("old", "10.0.0.105", "10.0.0.5", "n2", "")
	service("bare", "10.0.0.106", "10.0.0.3", "n1", "") // in the mesh, without routes
	nine, one := uint32(90), uint32(10)
	w.all(func(s *snapshot.Snapshot) {
		s.Clusters, s.Routes, s.Frontends = map[string]snapshot.Cluster{}, map[string]l7.Route{}, map[snapshot.FrontendKey]snapshot.Frontend{}
		s.Names[front] = snapshot.DNS{VNI: front, Zone: "moire.internal"}
		for name, k := range map[string]snapshot.ServiceKey{"1/shop/api/80": api, "1/shop/v2/80": v2} {
			s.Clusters[name] = snapshot.Cluster{Cluster: l7.Cluster{Name: name, Protocol: l7.HTTP1}, Service: k}
		}
		s.Routes["shop/api"] = l7.Route{Name: "shop/api", Hostnames: []string{"api.shop.moire.internal"}, Rules: []l7.Rule{
			{Name: "canary", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/cart"}}},
				Filters:  []l7.Filter{{Rewrite: &l7.Rewrite{Path: &l7.PathChange{Prefix: ptr("/basket")}}}},
				Backends: []l7.Backend{{Cluster: "1/shop/api/80", Weight: &nine}, {Cluster: "1/shop/v2/80", Weight: &one}}},
			{Name: "beta", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/"}, Headers: []l7.ValueMatch{{Name: "x-beta", Value: "1"}}}}, Backends: []l7.Backend{{Cluster: "1/shop/v2/80"}}},
			{Name: "moved", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Exact, Value: "/old"}}}, Filters: []l7.Filter{{Redirect: &l7.Redirect{Path: &l7.PathChange{Full: ptr("/new")}, Status: 301}}}},
			{Name: "gone", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Exact, Value: "/gone"}}}, Backends: []l7.Backend{{Cluster: "1/shop/nobody/80"}}},
		}}
		f := snapshot.FrontendKey{ServiceKey: api}
		s.Frontends[f] = snapshot.Frontend{FrontendKey: f, Service: "shop/api", Protocol: l7.HTTP1, Routes: []string{"shop/api"}, Why: "HTTPRoute shop/api"}
	})
	about := func(id string, action policy.Action, m policy.RequestMatch) policy.Rule {
		r := rule(id, action, nil, tcp(8080))
		r.Requests = []policy.RequestMatch{m}
		return r
	}
	paths := func(p string) []policy.TextMatch { return []policy.TextMatch{{Kind: policy.Prefix, Value: p}} }
	w.rules(on(front, "10.0.0.3"), policy.Ingress, about("policy/shop/v1/ingress/no-admin", policy.Deny, policy.RequestMatch{Paths: paths("/basket/admin")}),
		about("policy/shop/v1/ingress/get", policy.Allow, policy.RequestMatch{Methods: []string{"GET"}}))
	w.rules(on(front, "10.0.0.4"), policy.Ingress, about("policy/shop/v2/ingress/staff", policy.Allow, policy.RequestMatch{
		Token: &policy.Token{Issuer: "https://id", Keys: "k", Claims: []policy.NamedMatch{{Name: "groups", TextMatch: policy.TextMatch{Value: "staff"}}}}}),
		about("policy/shop/v2/ingress/asked", policy.Allow, policy.RequestMatch{Paths: paths("/ask"), External: &policy.External{Cluster: "authorizer/1/red/opa"}}))
	w.rules(on(front, "10.0.0.4"), policy.Egress, rule("policy/shop/v2/egress/not-web", policy.Deny, []policy.Peer{{Identities: []policy.Identity{1}}}))
	w.rules(on(front, "10.0.0.6"), policy.Egress, about("policy/shop/cron/egress/read", policy.Allow, policy.RequestMatch{Methods: []string{"GET"}}))
	return w
}

func ptr[T any](v T) *T { return &v }

// TestRequests: the whole way of a request, as people read it.
func TestRequests(t *testing.T) {
	w := meshed()
	for _, c := range []struct{ name, from, to, request, fields string }{
		{"request-canary", "shop/web", "shop/api", "GET /cart/7?x=1", ""},
		{"request-beta", "shop/web", "shop/api", "GET /x", "x-beta: 1,claim:iss=https://id,claim:groups=staff"},
		{"request-token", "shop/web", "shop/api", "GET /x", "x-beta: 1,authorization: Bearer x"},
		{"request-asked", "shop/web", "shop/v2", "GET /ask", ""},
		{"request-denied-path", "shop/web", "shop/v1", "GET /basket/./admin/x", ""},
		{"request-no-rule", "shop/web", "shop/api", "GET /nothing", ""},
		{"request-redirect", "shop/web", "shop/api", "GET /old", ""},
		{"request-no-cluster", "shop/web", "shop/api", "GET /gone", ""},
		{"request-bad-path", "shop/web", "shop/v1", "GET /%zz", ""},
		{"request-plain", "shop/cron", "shop/old", "GET /x", ""},
		{"request-egress", "shop/cron", "shop/old", "POST /x", ""},
		{"request-egress-service", "shop/cron", "service shop/old", "GET /x", ""},
		{"request-grpc", "shop/web", "shop/api", "POST /nothing", "content-type: application/grpc"},
		{"packet-closed", "shop/v2", "shop/web", "", ""},
		{"packet-proxy", "shop/web", "shop/v1", "", ""},
		{"packet-routed", "shop/web", "shop/api", "", ""},
		{"request-itself", "shop/v1", "service shop/bare", "GET /x", ""},
		{"packet-bare", "shop/web", "service shop/bare", "", ""},
		{"packet-strict", "shop/old", "shop/v1", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := explain.Query{From: c.from, To: c.to, Port: 8080}
			if c.to == "shop/api" || strings.HasPrefix(c.to, "service") {
				q.Port = 80
			}
			if c.request != "" {
				r, err := explain.ParseRequest(c.request)
				if err != nil {
					t.Fatal(err)
				}
				var fields, claims []string
				for f := range strings.SplitSeq(c.fields, ",") {
					if claim, is := strings.CutPrefix(f, "claim:"); is {
						claims = append(claims, claim)
					} else if f != "" {
						fields = append(fields, f)
					}
				}
				if err := r.Add(fields, claims, ""); err != nil {
					t.Fatal(err)
				}
				q.Request = r
			}
			a := explain.Packet(q, w)
			var b bytes.Buffer
			a.Text(&b)
			if m := a.Mesh; m != nil {
				fmt.Fprintf(&b, "mesh %+v\n", *m)
			}
			for _, way := range a.Ways {
				fmt.Fprintf(&b, "way %+v\n", way)
			}
			golden(t, filepath.Join("testdata", c.name+".txt"), b.Bytes())
		})
	}
}

// TestRoutesOfOthers: who may not see the project of a Service learns nothing of
// its routes.
func TestRoutesOfOthers(t *testing.T) {
	w := meshed()
	w.all(func(s *snapshot.Snapshot) {
		e := s.Endpoints[on(front, "10.0.0.2")]
		e.Project = "guest"
		s.Endpoints[e.Addr] = e
	})
	r, err := explain.ParseRequest("GET /cart")
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "api.shop.moire.internal"
	a := explain.Packet(explain.Query{From: "guest/web", To: "10.0.0.100", Port: 80, Request: r, Sees: func(p string) bool { return p == "guest" }}, w)
	text := fmt.Sprintf("%+v %+v", a, a.Mesh)
	if a.Error != "" || strings.Contains(text, "canary") || strings.Contains(strings.ReplaceAll(text, r.Host, ""), "shop/api") || strings.Contains(text, "basket") {
		t.Errorf("%s", text)
	}
}
