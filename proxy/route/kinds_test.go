package route

import (
	"math"
	"testing"
)

const grpcText = "method: POST; content-type: application/grpc"

func TestGRPCRouteMethodMatching(t *testing.T) {
	expect(t, `
routes:
- kind: grpc
  rules:
  - {matches: [{grpc: {service: shop.Cart, method: Add}}], backends: [{cluster: v1}]}
  - {matches: [{grpc: {service: shop.Cart}}], backends: [{cluster: v2}]}
  - {matches: [{grpc: {method: Login}}], backends: [{cluster: v3}]}
  - {matches: [{grpc: {service: shop.Cart, method: Add}, headers: [{name: version, value: two}]}], backends: [{cluster: v3}]}
  - {matches: [{grpc: {kind: RegularExpression, service: "shop[.].*", method: "Get.*"}}], backends: [{cluster: v1}]}
  - {matches: [{grpc: {kind: RegularExpression, service: "shop[.].*"}}], backends: [{cluster: v2}]}
  - {matches: [{grpc: {kind: RegularExpression, method: "List.*"}}], backends: [{cluster: v2}]}
`, 0, []ask{
		{"/shop.Cart/Add", grpcText, "v1"}, {"/shop.Cart/Remove", grpcText, "v2"}, {"/other.Users/Login", grpcText, "v3"},
		{"/shop.Cart/Login", grpcText, "v2"}, // the service counts before the method
		{"/shop.Cart/Add", grpcText + "; version: two", "v3"},
		{"/shop.Orders/GetOne", grpcText, "v1"}, {"/shop.Orders/Login", grpcText, "v2"}, // a pattern of the service before a method alone
		{"/other.Users/ListAll", grpcText, "v2"}, {"/other.Users/Add", grpcText, "404"},
		{"/shop.Cart/Add", "method: POST; content-type: application/json", "404"},
		{"/shop.Cart/Add", "method: POST", "404"}, {"/shop.Cart/Add", "content-type: application/grpc", "404"},
		{"/shop.Cart/Add", "method: POST; content-type: application/grpc+proto", "v1"},
		{"/shop.Cart/Add", "method: POST; content-type: application/grpc-web", "404"},
		{"/shop.Cart", grpcText, "404"}, {"/shop.Cart/Add/More", grpcText, "404"}, {"/shop.Cart/", grpcText, "404"},
	})
	expect(t, `
routes:
- {kind: grpc, rules: [{backends: [{cluster: v1}]}]}
`, 0, []ask{{"/any.Service/Method", grpcText, "v1"}, {"/any", grpcText, "404"}})
}

func TestGRPCRouteHeaderAndHostMatching(t *testing.T) {
	expect(t, `
listeners:
- {name: l1, address: "0.0.0.0:80", hostname: bar.com}
- {name: l3, address: "0.0.0.0:80", hostname: "*.bar.com"}
routes:
- kind: grpc
  listeners: [l1]
  rules:
  - {matches: [{headers: [{name: version, value: one}]}], backends: [{cluster: v1}]}
  - {matches: [{headers: [{name: version, value: one}, {name: color, value: red}]}], backends: [{cluster: v2}]}
- {kind: grpc, listeners: [l3], rules: [{backends: [{cluster: v3}]}]}
`, 0, []ask{
		{"bar.com/s.S/M", grpcText + "; version: one", "v1"}, {"bar.com/s.S/M", grpcText + "; version: one; color: red", "v2"},
		{"bar.com/s.S/M", grpcText, "404"}, {"foo.bar.com/s.S/M", grpcText, "v3"}, {"a.b.bar.com/s.S/M", grpcText, "v3"}, {"foo.com/s.S/M", grpcText, "404"},
	})
}

// TestKindsDoNotShareHosts: of a GRPCRoute and an HTTPRoute that share a host of
// a listener the older stays, and of equal age the name that sorts first.
func TestKindsDoNotShareHosts(t *testing.T) {
	table := read(t, `
listeners:
- {name: one, address: "0.0.0.0:80"}
- {name: two, address: "0.0.0.0:81", hostname: "*.example.com"}
routes:
- {name: b-web, kind: http, hostnames: [shop.example.com], rules: [{backends: [{cluster: v1}]}]}
- {name: a-grpc, kind: grpc, hostnames: ["*.example.com"], rules: [{backends: [{cluster: v2}]}]}
- {name: c-other, kind: http, listeners: [one], hostnames: [example.com], rules: [{backends: [{cluster: v3}]}]}
- {name: d-old, kind: http, created: -5, listeners: [one], hostnames: [old.example.org], rules: [{backends: [{cluster: v3}]}]}
- {name: d-new, kind: grpc, listeners: [one], hostnames: ["*.org"], rules: [{backends: [{cluster: v3}]}]}
clusters:
- {name: v1}
- {name: v2, protocol: http2}
- {name: v3, protocol: http2}
`)
	want := []Rejected{{"one", "b-web", "a-grpc"}, {"two", "b-web", "a-grpc"}, {"one", "d-new", "d-old"}}
	got := table.Rejected()
	if len(got) != len(want) {
		t.Fatalf("rejected %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("rejected %v, want %v", got[i], want[i])
		}
	}
}

func TestTLSRoutes(t *testing.T) {
	cfg := readConfig(t, `
listeners:
- {name: pass, address: "0.0.0.0:443", protocol: tls}
- {name: sub, address: "0.0.0.0:444", protocol: tls, hostname: "*.example.com"}
- {name: raw, address: "0.0.0.0:5432", protocol: tcp}
routes:
- {name: exact, kind: tls, hostnames: [a.example.com], rules: [{backends: [{cluster: v1}]}]}
- {name: wide, kind: tls, hostnames: ["*.example.com"], rules: [{backends: [{cluster: v2}]}]}
- {name: late, kind: tls, created: 9, hostnames: [a.example.com], rules: [{backends: [{cluster: v3}]}]}
- {name: other, kind: tls, hostnames: [example.org], rules: [{backends: [{cluster: v3}]}]}
- {name: db-late, kind: tcp, created: 9, rules: [{backends: [{cluster: v1}]}]}
- {name: db, kind: tcp, created: 1, rules: [{backends: [{cluster: v2}, {cluster: v3}]}]}
`)
	table, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var s Scratch
	for _, c := range []struct {
		listener int
		sni      string
		want     string
	}{
		{0, "a.example.com", "exact"}, {0, "A.Example.com", "exact"}, {0, "b.example.com", "wide"}, {0, "x.b.example.com", "wide"},
		{0, "example.com", ""}, {0, "", ""}, {0, "example.org", "other"}, {1, "example.org", ""}, {1, "a.example.com", "exact"}, {0, "bad name", ""},
	} {
		got := ""
		if r := table.MatchTLS(c.listener, []byte(c.sni), &s); r != nil {
			got = r.Route.Name
		}
		if got != c.want {
			t.Errorf("%q at %d goes to %q, want %q", c.sni, c.listener, got, c.want)
		}
	}
	if r := table.MatchTCP(2); r == nil || r.Route.Name != "db" {
		t.Errorf("TCP goes to %v, want the older route", r)
	}
	if r := table.MatchTCP(0); r != nil {
		t.Errorf("a tls listener has a TCP rule: %v", r)
	}
}

func TestWeights(t *testing.T) {
	table := read(t, `
routes:
- rules:
  - {backends: [{cluster: v1, weight: 70}, {cluster: v2, weight: 0}, {cluster: v3, weight: 30}]}
  - {backends: [{cluster: v1, weight: 0}, {cluster: v2, weight: 0}]}
  - {}
  - {backends: [{cluster: gone}]}
  - {backends: [{cluster: v1}]}
  - {backends: [{cluster: v1}, {cluster: gone}]}
`)
	counts := [3]int{}
	const n = 100_000
	for i := range uint64(n) {
		counts[table.Rule(0).Pick(i*(math.MaxUint64/n))]++
	}
	if counts[1] != 0 || counts[0] < 69_900 || counts[0] > 70_100 || counts[0]+counts[2] != n {
		t.Errorf("picked %v of %d, want 70:0:30", counts, n)
	}
	for id, want := range map[int]int{1: None, 2: None, 3: 0, 4: 0} {
		if got := table.Rule(id).Pick(math.MaxUint64); got != want {
			t.Errorf("rule %d picks %d, want %d", id, got, want)
		}
	}
	if c := table.Rule(3).Backends[0].Cluster; c != Invalid {
		t.Errorf("a cluster that does not exist is %d", c)
	}
	if r := table.Rule(5); r.Pick(0) != 0 || r.Pick(math.MaxUint64) != 1 || r.Backends[1].Cluster != Invalid {
		t.Error("an invalid backend has lost its share")
	}
	if first, last := table.Rule(0).Pick(0), table.Rule(0).Pick(math.MaxUint64); first != 0 || last != 2 {
		t.Errorf("the ends fall to %d and %d", first, last)
	}
}

func TestMisdirected(t *testing.T) {
	table := read(t, `
listeners:
- {name: a, address: "0.0.0.0:443", hostname: a.example.com}
- {name: b, address: "0.0.0.0:443", hostname: "*.example.com"}
routes:
- rules: [{backends: [{cluster: v1}]}]
`)
	var s Scratch
	var m Arena
	if n := table.Listener(1, []byte("a.example.com"), &s); n != 0 {
		t.Errorf("SNI a.example.com is for listener %d", n)
	}
	if n := table.Listener(0, []byte("c.example.org"), &s); n != -1 {
		t.Errorf("SNI c.example.org is for listener %d", n)
	}
	f := table.Match(0, head("GET", "b.example.com", "/"), &s, &m)
	if f.Listener != 1 || f.Rule == nil {
		t.Errorf("host b.example.com: %+v", f)
	}
}

func TestConnectAndAsterisk(t *testing.T) {
	table := read(t, `
routes:
- rules:
  - {name: web, matches: [{path: {kind: PathPrefix, value: /}}]}
  - {name: get, matches: [{path: {kind: PathPrefix, value: /ws}, method: GET}]}
- hostnames: [tunnel.example.com]
  rules: [{name: tunnel, matches: [{method: CONNECT}]}]
`)
	var s Scratch
	var a Arena
	for _, c := range []struct{ method, host, path, upgrade, want string }{
		{"CONNECT", "db.example.com:5432", "", "", ""}, {"CONNECT", "tunnel.example.com:5432", "", "", "tunnel"},
		{"OPTIONS", "db.example.com", "*", "", "web"}, {"GET", "db.example.com", "*", "", ""}, {"GET", "db.example.com", "", "", ""},
		{"CONNECT", "db.example.com", "/ws/chat", "websocket", "get"}, {"POST", "db.example.com", "/ws/chat", "", "web"},
	} {
		h := head(c.method, c.host, c.path)
		if c.upgrade != "" {
			h.Upgrade = []byte(c.upgrade)
		}
		got := ""
		if f := table.Match(0, h, &s, &a); f.Rule != nil {
			got = f.Rule.Name
		}
		if got != c.want {
			t.Errorf("%s %s %s goes to %q, want %q", c.method, c.host, c.path, got, c.want)
		}
	}
}
