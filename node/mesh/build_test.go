package mesh_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"moire.dev/moire/node/mesh"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

const (
	red, blue snapshot.VNI = 100, 200
	proto                  = policy.TCP
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func at(vni snapshot.VNI, s string) snapshot.Addr { return snapshot.Addr{VNI: vni, IP: ip(s)} }

func service(vni snapshot.VNI, s string, port uint16) snapshot.ServiceKey {
	return snapshot.ServiceKey{Addr: at(vni, s), Protocol: proto, Port: port}
}

// twins is a node with the same shop in two Domains, at the same addresses.
func twins() *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Node: "n1", Networks: map[snapshot.VNI]snapshot.Network{}, Identities: map[policy.Identity]snapshot.Identity{}, Endpoints: map[snapshot.Addr]snapshot.Endpoint{},
		Policies: map[snapshot.PolicyKey]policy.Set{}, Services: map[snapshot.ServiceKey]snapshot.Service{}, Trusts: map[string]snapshot.Trust{},
		Frontends: map[snapshot.FrontendKey]snapshot.Frontend{}, Routes: map[string]l7.Route{}, Clusters: map[string]snapshot.Cluster{},
		KeySets: map[string]l7.KeySet{"https://issuer/keys": {URI: "https://issuer/keys", JSON: "{}"}},
	}
	for n, vni := range []snapshot.VNI{red, blue} {
		domain, project := []string{"red", "blue"}[n], []string{"red-shop", "blue-shop"}[n]
		web, api := policy.Identity(10*n+1), policy.Identity(10*n+2)
		s.Networks[vni] = snapshot.Network{VNI: vni, Project: project, Name: "net", Domain: domain}
		s.Trusts[domain+".example"] = snapshot.Trust{Name: domain + ".example", TrustDomain: domain + ".example", Domain: domain, Roots: [][]byte{{1, byte(n)}}}
		for _, w := range []struct {
			name string
			id   policy.Identity
			node string
			ips  [2]string
		}{{"web", web, "n1", [2]string{"10.0.0.1", "fd00::1"}}, {"api", api, "n2", [2]string{"10.0.0.2", "fd00::2"}}} {
			s.Identities[w.id] = snapshot.Identity{Number: w.id, Domain: domain, Project: project, Account: w.name,
				SPIFFE: "spiffe://" + domain + ".example/ns/" + project + "/sa/" + w.name, Labels: []snapshot.Label{{Key: "app", Value: w.name}}}
			for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
				s.Policies[snapshot.PolicyKey{VNI: vni, Identity: w.id, Direction: d}] = policy.Set{Default: policy.DefaultRule{ID: "default/" + policy.RuleID(project) + "/net/open", Allow: true}}
			}
			for _, a := range w.ips {
				s.Endpoints[at(vni, a)] = snapshot.Endpoint{Addr: at(vni, a), Project: project, Workload: w.name, Identity: w.id, Node: w.node, Mode: snapshot.Strict}
			}
		}
		cluster := snapshot.Cluster{Service: service(vni, "10.9.0.1", 80), Second: service(vni, "fd00:9::1", 80)}
		for i, vip := range []string{"10.9.0.1", "fd00:9::1"} {
			k := service(vni, vip, 80)
			s.Services[k] = snapshot.Service{ServiceKey: k, Project: project, Name: "api", App: l7.HTTP1,
				Backends: []snapshot.Backend{{Addr: at(vni, []string{"10.0.0.2", "fd00::2"}[i]), Port: 8080, Weight: 1, Node: "n2"}}}
			name := snapshot.ClusterName(&snapshot.Service{ServiceKey: k, Project: project, Name: "api"})
			cluster.Name, cluster.Protocol = name, l7.HTTP1
			s.Frontends[snapshot.FrontendKey{ServiceKey: k}] = snapshot.Frontend{FrontendKey: snapshot.FrontendKey{ServiceKey: k}, Service: project + "/api", Protocol: l7.AutoHTTP,
				Routes: []string{project + "/api"}, Why: "HTTPRoute " + project + "/api"}
			s.Routes[project+"/api"] = l7.Route{Name: project + "/api", Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: name}}}}}
			s.Clusters[name] = cluster
		}
	}
	return s
}

func web(vni snapshot.VNI) mesh.Interface {
	project := map[snapshot.VNI]string{red: "red-shop", blue: "blue-shop"}[vni]
	return mesh.Interface{Key: snapshot.AttachmentKey{Project: project, Workload: "web", Network: "net"}, VNI: vni, Addrs: []netip.Addr{ip("10.0.0.1"), ip("fd00::1")}, Namespace: "ns-" + project}
}

func input(s *snapshot.Snapshot, interfaces ...mesh.Interface) mesh.Input {
	return mesh.Input{Name: "n1", Snapshot: s, Interfaces: interfaces, Records: "unix:/run/records", Certificates: map[string]mesh.Certificate{
		"spiffe://red.example/ns/red-shop/sa/web":   {Chain: "red chain", Key: "red key"},
		"spiffe://blue.example/ns/blue-shop/sa/web": {Chain: "blue chain", Key: "blue key"},
	}}
}

func build(in mesh.Input) *l7.Config { return new(mesh.Builder).Build(in) }

// TestTwins: two Domains with the same addresses, in both families, share
// nothing in one proxy.
func TestTwins(t *testing.T) {
	c := build(input(twins(), web(blue), web(red)))
	var listeners []string
	for _, l := range c.Listeners {
		listeners = append(listeners, l.Name)
	}
	want := []string{
		"100/red-shop/10.9.0.1:80", "100/red-shop/[fd00:9::1]:80",
		"200/blue-shop/10.9.0.1:80", "200/blue-shop/[fd00:9::1]:80",
	}
	if d := cmp.Diff(want, listeners); d != "" {
		t.Error(d)
	}
	if len(c.Routes) != 2 || c.Routes[1].Name != "red-shop/api" || !slices.Equal(c.Routes[1].Listeners, want[:2]) || !slices.Equal(c.Routes[0].Listeners, want[2:]) {
		t.Errorf("routes %+v", c.Routes)
	}
	endpoint := func(domain string) []l7.Endpoint {
		return []l7.Endpoint{{Address: "10.0.0.2:8080", Labels: map[string]string{"app": "api"}, SPIFFE: "spiffe://" + domain + ".example/ns/" + domain + "-shop/sa/api"}}
	}
	clusters := []l7.Cluster{
		{Name: "100/red-shop/api/80", Protocol: l7.HTTP1, Endpoints: endpoint("red")},
		{Name: "200/blue-shop/api/80", Protocol: l7.HTTP1, Endpoints: endpoint("blue")},
	}
	if d := cmp.Diff(clusters, c.Clusters); d != "" {
		t.Error(d)
	}
	if len(c.Mesh.Peers) != 8 || len(c.Mesh.Workloads) != 2 || len(c.Mesh.Trusts) != 2 || len(c.Certificates) != 2 || len(c.Mesh.KeySets) != 1 {
		t.Fatalf("mesh %+v", c.Mesh)
	}
	p := c.Mesh.Peers[5] // sorted: blue's IPv4 api
	if p.VNI != 200 || p.Name != "blue-shop/api" || p.Domain != "blue" || p.Network != "net" || p.Number != 12 || !p.Mesh || p.Node != "n2" || p.Address != ip("10.0.0.2") {
		t.Errorf("peer %+v", p)
	}
	w := c.Mesh.Workloads[1]
	if w.Name != "red-shop/web" || w.VNI != 100 || w.View != "100/red-shop" || w.Mode != "strict" || w.Domain != "red" || w.Namespace != "ns-red-shop" ||
		w.Certificate != "spiffe://red.example/ns/red-shop/sa/web" || w.Egress.Default.ID != "default/red-shop/net/open" {
		t.Errorf("workload %+v", w)
	}
	if p := c.Validate(); slices.ContainsFunc(p, func(p l7.Problem) bool { return !p.Soft }) {
		t.Error(p)
	}
}

// TestRestricted: the proxy of one project gets nothing of the other.
func TestRestricted(t *testing.T) {
	c := build(input(twins(), web(red)))
	c.Mesh.Trusts, c.Mesh.KeySets = nil, nil // public
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "blue") {
		t.Errorf("it has something of blue: %s", text)
	}
}

// TestOwnFrontend: what a project has of its own stands in the place of what
// all see, for that project alone.
func TestOwnFrontend(t *testing.T) {
	s := twins()
	k := snapshot.FrontendKey{ServiceKey: service(red, "10.9.0.1", 80), Project: "red-shop"}
	s.Routes["red-shop/mine"] = l7.Route{Rules: []l7.Rule{{Filters: []l7.Filter{{Mirror: &l7.Mirror{Cluster: "200/blue-shop/api/80"}}}}}}
	s.Frontends[k] = snapshot.Frontend{FrontendKey: k, Protocol: l7.HTTP1, Routes: []string{"red-shop/mine", "red-shop/gone"}, Cluster: "100/red-shop/api/80", Why: "HTTPRoute red-shop/mine"}
	other := s.Endpoints[at(red, "10.0.0.2")]
	other.Project, other.Workload, other.Node = "third", "x", "n1"
	s.Endpoints[at(red, "10.0.0.3")] = other
	x := mesh.Interface{Key: snapshot.AttachmentKey{Project: "third", Workload: "x", Network: "red-shop/net"}, VNI: red, Addrs: []netip.Addr{ip("10.0.0.3")}}
	c := build(input(s, web(red), x))
	got := map[string][]string{}
	for _, r := range c.Routes {
		got[r.Name] = r.Listeners
	}
	want := map[string][]string{
		"red-shop/mine":                    {"100/red-shop/10.9.0.1:80"},
		"default/http/100/red-shop/api/80": {"100/red-shop/10.9.0.1:80"},
		"red-shop/api":                     {"100/red-shop/[fd00:9::1]:80", "100/third/10.9.0.1:80", "100/third/[fd00:9::1]:80"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(c.Clusters) != 2 {
		t.Errorf("the mirror's cluster is missing: %+v", c.Clusters)
	}
}

// TestPlainService: callers in the mesh reach a Service that nothing is attached
// to by their proxy; in the caller's family first, each Workload once.
func TestPlainService(t *testing.T) {
	s := twins()
	s.Frontends, s.Routes, s.Clusters = nil, nil, nil
	s.Endpoints[at(red, "fd00::5")] = snapshot.Endpoint{Addr: at(red, "fd00::5"), Project: "red-shop", Workload: "old", Identity: 2, Node: "n3"}
	v6, v4 := s.Services[service(red, "fd00:9::1", 80)], s.Services[service(red, "10.9.0.1", 80)]
	v6.Backends = append(v6.Backends, snapshot.Backend{Addr: at(red, "fd00::5"), Weight: 3})
	v4.App, v6.App, v4.Affinity, v6.Affinity = "", "", 1, 1
	s.Services[v6.ServiceKey], s.Services[v4.ServiceKey] = v6, v4
	c := build(input(s, web(red)))
	three := uint32(3)
	want := []l7.Cluster{{Name: "100/red-shop/api/80", Protocol: l7.TCP, Balancer: l7.Balancer{Kind: l7.Maglev}, Endpoints: []l7.Endpoint{
		{Address: "10.0.0.2:8080", Labels: map[string]string{"app": "api"}, SPIFFE: "spiffe://red.example/ns/red-shop/sa/api"},
		{Address: "[fd00::5]:80", Labels: map[string]string{"app": "api"}, Weight: &three},
	}}}
	if d := cmp.Diff(want, c.Clusters); d != "" {
		t.Error(d)
	}
	if len(c.Listeners) != 2 || c.Listeners[0].Protocol != l7.TCP || len(c.Routes) != 1 || c.Routes[0].Kind != l7.TCPRoute || len(c.Routes[0].Listeners) != 2 {
		t.Errorf("%+v %+v", c.Listeners, c.Routes)
	}
	e := s.Endpoints[at(red, "10.0.0.1")]
	e.Mode = snapshot.Off
	s.Endpoints[at(red, "10.0.0.1")] = e
	if c := build(input(s, web(red))); len(c.Listeners) != 0 || len(c.Certificates) != 0 || c.Mesh.Workloads[0].Certificate != "" {
		t.Errorf("a caller that is not in the mesh has %+v", c)
	}
}

// TestAsks: a caller whose rules ask about requests to a backend reaches its
// Service by the proxy, as HTTP, although nobody is in the mesh.
func TestAsks(t *testing.T) {
	s := twins()
	s.Frontends, s.Routes, s.Clusters = nil, nil, nil
	for a, e := range s.Endpoints {
		e.Mode = snapshot.Off
		s.Endpoints[a] = e
	}
	for k, v := range s.Services {
		v.App = ""
		s.Services[k] = v
	}
	rule := policy.Rule{ID: "policy/red-shop/p/egress/0", Tier: policy.Project, Action: policy.Allow, Peers: []policy.Peer{{Identities: []policy.Identity{2}}},
		Requests: []policy.RequestMatch{{Methods: []string{"GET"}}}}
	s.Policies[snapshot.PolicyKey{VNI: red, Identity: 1, Direction: policy.Egress}] = policy.Set{Rules: []policy.Rule{rule}, Isolated: "isolated/red-shop/p/egress"}
	c := build(input(s, web(blue), web(red)))
	if len(c.Listeners) != 2 || c.Listeners[0].View != "100/red-shop" || c.Listeners[0].Protocol != l7.AutoHTTP || !slices.Equal(c.Listeners[0].Asking, []string{"red-shop/web"}) {
		t.Errorf("%+v", c.Listeners)
	}
	// HTTP for those who ask, bytes for their neighbours; each has a cluster that takes it.
	if len(c.Clusters) != 2 || c.Clusters[0].Protocol != l7.TCP || c.Clusters[1].Protocol != l7.HTTP1 || c.Clusters[1].Name != c.Clusters[0].Name+"/http1" || c.Clusters[0].Endpoints[0].SPIFFE != "" {
		t.Errorf("%+v", c.Clusters)
	}
	if len(c.Routes) != 2 || c.Routes[0].Kind != l7.HTTPRoute || c.Routes[1].Kind != l7.TCPRoute || len(c.Routes[0].Listeners) != 2 || len(c.Routes[1].Listeners) != 2 {
		t.Errorf("%+v", c.Routes)
	}
	for _, p := range c.Validate() {
		t.Error(p)
	}
}

// TestZones: an endpoint is in the zone of its node, also when only that changes.
func TestZones(t *testing.T) {
	var b mesh.Builder
	s := twins()
	if c := b.Build(input(s, web(red))); c.Clusters[0].Endpoints[0].Zone != "" {
		t.Errorf("%+v", c.Clusters[0])
	}
	moved := *s
	moved.Nodes = map[string]snapshot.Node{"n2": {Name: "n2", Zone: "east"}}
	if c := b.Build(input(&moved, web(red))); c.Clusters[0].Endpoints[0].Zone != "east" {
		t.Errorf("%+v", c.Clusters[0])
	}
}

// TestReceiver: ports that Services lead to, and who comes over a Link.
func TestReceiver(t *testing.T) {
	s := twins()
	s.Node = "n2"
	api := mesh.Interface{Key: snapshot.AttachmentKey{Project: "red-shop", Workload: "api", Network: "net"}, VNI: red, Addrs: []netip.Addr{ip("10.0.0.2"), ip("fd00::2")}}
	s.Endpoints[at(red, "10.5.0.2")] = snapshot.Endpoint{Addr: at(red, "10.5.0.2"), Project: "red-shop", Workload: "api", Identity: 2, Node: "n2", Home: at(red, "10.0.0.2")}
	s.Endpoints[at(red, "10.5.0.3")] = snapshot.Endpoint{Addr: at(red, "10.5.0.3"), Project: "red-shop", Workload: "api", Identity: 2, Node: "n2", Home: at(red, "10.0.0.2"), Chain: snapshot.ChainKey{VNI: red, Link: "x"}}
	k := service(red, "10.9.0.9", 8080)
	s.Services[k] = snapshot.Service{ServiceKey: k, Project: "red-shop", Name: "raw", App: l7.TCP, Backends: []snapshot.Backend{{Addr: at(red, "10.0.0.2")}, {Addr: at(red, "10.0.0.2"), Port: 25}}}
	c := build(input(s, api))
	want := []l7.WorkloadPort{{Port: 25, Protocol: l7.TCP}, {Port: 8080, Protocol: l7.TCP}} // HTTP for one, not for the other
	if d := cmp.Diff(want, c.Mesh.Workloads[0].Ports); d != "" {
		t.Error(d)
	}
	homes := map[string]netip.Addr{}
	for _, p := range c.Mesh.Peers {
		if p.Home.IsValid() {
			homes[p.Address.String()] = p.Home
		}
	}
	if d := cmp.Diff(map[string]string{"10.5.0.2": "10.0.0.2"}, map[string]string{"10.5.0.2": homes["10.5.0.2"].String()}); d != "" || len(homes) != 1 {
		t.Errorf("homes %v", homes)
	}
}

// TestUnknown: an interface that the snapshot does not know is left out.
func TestUnknown(t *testing.T) {
	for what, change := range map[string]func(*snapshot.Snapshot){
		"elsewhere":  func(s *snapshot.Snapshot) { s.Node = "n9" },
		"no network": func(s *snapshot.Snapshot) { delete(s.Networks, red) },
		"an address": func(s *snapshot.Snapshot) { delete(s.Endpoints, at(red, "fd00::1")) },
		"someone else": func(s *snapshot.Snapshot) {
			e := s.Endpoints[at(red, "fd00::1")]
			e.Workload = "x"
			s.Endpoints[at(red, "fd00::1")] = e
		},
	} {
		s := twins()
		change(s)
		i := web(red)
		if c := build(input(s, i)); len(c.Mesh.Workloads)+len(c.Mesh.Peers)+len(c.Listeners) != 0 || mesh.Needs(s, &i) != "" {
			t.Errorf("%s: %+v", what, c.Mesh)
		}
	}
}

// TestDeterministic: same input, same bytes, whatever the order of the tables.
func TestDeterministic(t *testing.T) {
	text := func() string {
		s := twins()
		s.Frontends = maps.Clone(s.Frontends)
		b, err := json.Marshal(build(input(s, web(blue), web(red))))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := text()
	for range 20 {
		if again := text(); again != first {
			t.Fatalf("%s\nbefore %s", again, first)
		}
	}
}

// TestSameAgain: nothing new is the same Config; a change leaves the other parts
// as the very slices that they were; and either way it is what a fresh Builder
// makes.
func TestSameAgain(t *testing.T) {
	var b mesh.Builder
	s := twins()
	in := input(s, web(blue), web(red))
	first := b.Build(in)
	if b.Build(in) != first {
		t.Error("the same input makes another Config")
	}
	copied := *s
	copied.Endpoints, copied.Services = maps.Clone(s.Endpoints), maps.Clone(s.Services)
	if b.Build(input(&copied, web(blue), web(red))) != first {
		t.Error("an equal input makes another Config")
	}
	delete(copied.Endpoints, at(red, "fd00::2"))
	next := copied
	next.Endpoints = maps.Clone(copied.Endpoints)
	in = input(&next, web(blue), web(red))
	second := b.Build(in)
	if second == first || len(second.Mesh.Peers) != 7 {
		t.Errorf("a peer that went is still there: %+v", second.Mesh.Peers)
	}
	if &second.Listeners[0] != &first.Listeners[0] || &second.Mesh.Workloads[0] != &first.Mesh.Workloads[0] {
		t.Error("what did not change is not the same slice")
	}
	in.Certificates = map[string]mesh.Certificate{}
	if third := b.Build(in); len(third.Certificates) != 0 || third.Mesh.Workloads[0].Certificate != "" || !reflect.DeepEqual(third, build(in)) {
		t.Errorf("certificates that ended are still there: %+v", third.Certificates)
	}
}

// TestAuthorizers: what rules ask is a cluster of the proxy, although no route
// leads there; what is of another Network is not.
func TestAuthorizers(t *testing.T) {
	s := twins()
	for name, vni := range map[string]snapshot.VNI{"authorizer/100/red/opa": red, "authorizer/200/blue/opa": blue} {
		c := snapshot.Cluster{Cluster: l7.Cluster{Name: name, Protocol: l7.HTTP2}, Service: service(vni, "10.9.0.1", 80), Asked: true}
		s.Clusters[name] = c
	}
	names := []string{}
	for _, c := range build(input(s, web(red))).Clusters {
		names = append(names, c.Name)
		if c.Protocol == l7.HTTP2 && (len(c.Endpoints) != 1 || c.Endpoints[0].SPIFFE == "") {
			t.Errorf("%+v", c)
		}
	}
	if !slices.Contains(names, "authorizer/100/red/opa") || slices.Contains(names, "authorizer/200/blue/opa") {
		t.Errorf("clusters %v", names)
	}
}
