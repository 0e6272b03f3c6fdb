package compile

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
	"moire.dev/moire/snapshot/wire"
)

// drawRequests makes a rule be about requests, also about such as cannot be.
func drawRequests(t *rapid.T, r *v1alpha1.Rule) {
	switch rapid.IntRange(0, 8).Draw(t, "requests") {
	case 0:
		r.HTTP = []v1alpha1.HTTPMatch{{Methods: []string{"GET"}, Paths: []v1alpha1.PathMatch{{Prefix: "/a"}, {Regex: pick(t, []string{"/b.*", "("})}}}}
	case 1:
		r.GRPC = []v1alpha1.GRPCMatch{{Service: "shop.Cart"}}
	case 2:
		r.JWT = &v1alpha1.JWTMatch{Issuer: "id", JWKSURI: pick(t, []string{"", "https://id/keys"})}
		if r.JWT.JWKSURI == "" {
			r.JWT.JWKS = pick(t, []string{`{"keys":[]}`, "no keys"})
		}
	case 3:
		if r.Action == v1alpha1.ActionAllow || r.Action == v1alpha1.ActionAccept {
			r.External = pick(t, []string{"opa", "nobody"})
		}
	}
}

// changeMesh makes one random change of modes, authorizers and keys.
func (w world) changeMesh(t *rapid.T) {
	mode := pick(t, []string{"", "off", "permissive", "strict", "nonsense"})
	switch rapid.IntRange(0, 3).Draw(t, "mesh") {
	case 0:
		w.Modes[pick(t, projects)] = mode
	case 1:
		k := Key{pick(t, projects), pick(t, names)}
		if o := w.Workloads[k]; o != nil {
			o = o.DeepCopy()
			o.Spec.MTLS = mode
			w.Workloads[k] = o
		}
	case 2:
		name := pick(t, []string{"red", "blue"})
		if d := w.Domains[name]; d != nil {
			d = d.DeepCopy()
			d.Spec.MTLS = mode
			d.Spec.Authorizers = []v1alpha1.Authorizer{{Name: "opa", Project: pick(t, projects), Service: pick(t, names), Port: 80}}
			w.Domains[name] = d
		}
	case 3:
		w.KeySets["https://id/keys"] = l7.KeySet{URI: "https://id/keys", JSON: `{"keys":[]}`, Until: int64(rapid.IntRange(0, 9).Draw(t, "until"))}
	}
}

// checkCrosses: what is compiled passes the judge at the node's door. One
// tenant's mistake must not keep a whole snapshot away.
func checkCrosses(t *rapid.T, s *snapshot.Snapshot) {
	rows, err := wire.FromSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.ToSnapshot(s.Node, rows)
	if err != nil {
		t.Fatal(err)
	}
	if got.Version() != s.Version() {
		t.Fatalf("version %s became %s", s.Version(), got.Version())
	}
}

func checkRequests(t *rapid.T, s *snapshot.Snapshot, r *policy.Rule) {
	for _, m := range r.Requests {
		if m.Token != nil {
			if _, known := s.KeySets[m.Token.Keys]; !known {
				t.Fatalf("rule %s needs keys that the snapshot does not have", r.ID)
			}
		}
		if m.External != nil {
			if c, known := s.Clusters[m.External.Cluster]; !known || s.Services[c.Service].Name == "" {
				t.Fatalf("rule %s asks a service that the snapshot does not have", r.ID)
			}
		}
	}
}

// locked has a Policy that lets GET /cart in at TCP 8080, and denies its /admin.
func locked(w world) {
	w.policy("shop", "p", "project", false,
		v1alpha1.Rule{Name: "get", Action: "allow", Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 8080}}, HTTP: []v1alpha1.HTTPMatch{{Methods: []string{"GET"}, Paths: []v1alpha1.PathMatch{{Prefix: "/cart"}}}}},
		v1alpha1.Rule{Name: "plain", Action: "allow", Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 22}}},
		v1alpha1.Rule{Name: "admin", Action: "deny", HTTP: []v1alpha1.HTTPMatch{{Paths: []v1alpha1.PathMatch{{Prefix: "/cart/admin"}}, Hosts: []string{"*.shop.example"}}}},
		v1alpha1.Rule{Name: "smtp", Action: "deny", Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 25}}})
}

func ingressOf(t *testing.T, w world, ip string) policy.Set {
	t.Helper()
	w.settle()
	snaps, _ := Compile(w.Input)
	e := snaps["n1"].Endpoints[w.at("shop/main", ip)]
	set, ok := snaps["n1"].Policies[snapshot.PolicyKey{VNI: e.Addr.VNI, Identity: e.Identity, Direction: policy.Ingress}]
	if !ok {
		t.Fatalf("nobody is at %s", ip)
	}
	return set
}

// TestRuleOrder: deny before allow, and of one action those that need no proxy
// first.
func TestRuleOrder(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2")
	locked(w)
	set := ingressOf(t, w, "10.0.0.2")
	var order []string
	for _, r := range set.Rules {
		_, name, _ := strings.Cut(string(r.ID), "ingress/")
		order = append(order, name)
	}
	if got := strings.Join(order, " "); got != "smtp admin plain get" {
		t.Fatalf("the order is %s", got)
	}
	for _, c := range []struct {
		port         uint16
		method, path string
		host         string
		want         string
	}{
		{8080, "GET", "/cart/7", "a.shop.example", "allow get"}, {8080, "POST", "/cart", "a.shop.example", "deny isolated"},
		{8080, "GET", "/cart/admin", "a.shop.example", "deny admin"}, {8080, "GET", "/cart/admin", "other.example", "allow get"},
		{25, "GET", "/cart", "", "deny smtp"}, {22, "GET", "/cart/admin/x", "b.shop.example", "deny admin"}, {22, "GET", "/", "", "allow plain"},
	} {
		v := set.DecideRequest(policy.Packet{PeerAddr: w.at("shop/main", "10.0.0.9").IP, Protocol: policy.TCP, Port: c.port},
			&policy.Request{Method: []byte(c.method), Path: []byte(c.path), Host: []byte(c.host)})
		_, name, _ := strings.Cut(string(v.Rule), "ingress/")
		got := "deny "
		if v.Allow {
			got = "allow "
		}
		if strings.HasPrefix(string(v.Rule), "isolated/") {
			name = "isolated"
		}
		if got+name != c.want {
			t.Errorf("%+v: %s%s", c, got, name)
		}
	}
}

// TestPathOfNoRequest: what the API server lets in, although it can never match,
// is told.
func TestPathOfNoRequest(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2")
	w.policy("shop", "p", "project", false, v1alpha1.Rule{Action: "deny", HTTP: []v1alpha1.HTTPMatch{{Paths: []v1alpha1.PathMatch{{Prefix: "/a//b"}}}}})
	w.settle()
	_, problems := Compile(w.Input)
	if !slices.ContainsFunc(problems, func(p v1alpha1.Problem) bool {
		return p.Code == v1alpha1.CodeRequest && p.Field == "spec.ingress[0].http[0].paths[0].prefix"
	}) {
		t.Errorf("%v", problems)
	}
}

// TestModes: Workload over project over Domain; what has no proxy is off, and
// says so.
func TestModes(t *testing.T) {
	w := shop()
	w.Domains["red"].Spec.MTLS = "permissive"
	w.node("sw").Spec.External = true
	w.workload("shop", "own", "n1", "main").Spec.MTLS = "strict"
	w.workload("shop", "outside", "sw", "main", "10.0.0.7").Spec.Interfaces[0].MAC = "02:00:00:00:00:07"
	w.attach("n1", "shop", "own", "main", 1, "10.0.0.2")
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.3")
	w.attach("n1", "shop", "vm", "main", 1, "10.0.0.4")
	for i := range w.Reports["n1"].Attachments {
		a := &w.Reports["n1"].Attachments[i]
		a.Tap = a.Workload == "vm"
	}
	locked(w)
	w.settle()
	for _, c := range []struct{ project, own, web, vm string }{{"", "strict", "permissive", "off"}, {"strict", "strict", "strict", "off"}, {"off", "strict", "off", "off"}} {
		w.Modes = map[string]string{"shop": c.project}
		snaps, problems := Compile(w.Input)
		for ip, want := range map[string]string{"10.0.0.2": c.own, "10.0.0.3": c.web, "10.0.0.4": c.vm, "10.0.0.7": "off"} {
			if e := snaps["n1"].Endpoints[w.at("shop/main", ip)]; e.Mode.String() != want || e.Project == "" {
				t.Errorf("project %q: %s is %s, want %s", c.project, ip, e.Mode, want)
			}
		}
		told := 0
		for _, p := range problems {
			if p.Code == codeMode {
				told++
			}
		}
		if want := map[bool]int{true: 2}[c.project == "strict"]; told != want {
			t.Errorf("project %q: %d Problems about modes, want %d", c.project, told, want)
		}
		if !slices.ContainsFunc(problems, func(p v1alpha1.Problem) bool { return p.Code == codeNoProxy && p.Object == "Workload shop/vm" }) {
			t.Errorf("nobody says that the VM has no proxy for rules about requests: %v", problems)
		}
	}
}

// TestAuthorizer: a rule asks a Service of the Domain in the Workload's own
// Network; without one it allows nothing, and says why.
func TestAuthorizer(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2")
	w.policy("shop", "p", "project", false, v1alpha1.Rule{Action: "allow", External: "opa"})
	missing := func(want string) {
		t.Helper()
		w.settle()
		snaps, problems := Compile(w.Input)
		if i := slices.IndexFunc(problems, func(p v1alpha1.Problem) bool { return p.Code == codeNeverMatches }); i < 0 || !strings.Contains(problems[i].Reason, want) {
			t.Errorf("got %v, want %q", problems, want)
		}
		set := ingressOf(t, w, "10.0.0.2")
		if v := set.Decide(policy.Packet{Protocol: policy.TCP, Port: 80}); v.Allow || v.Proxy || len(snaps["n1"].Clusters) > 0 {
			t.Errorf("without authorizer: %+v", v)
		}
	}
	missing("Domain red has no authorizer opa")
	w.Domains["red"] = w.Domains["red"].DeepCopy()
	w.Domains["red"].Spec.Authorizers = []v1alpha1.Authorizer{{Name: "opa", Project: "shop", Service: "opa", Port: 9191, TimeoutMilliseconds: 50, Status: 503}}
	missing("TCP port 9191 of Service shop/opa, which has no address in Network shop/main")
	w.service("shop", "opa", v1alpha1.ServiceSpec{Selector: app("opa"), Ports: []v1alpha1.ServicePort{{Port: 9191, Protocol: "TCP"}}})
	w.settle()
	snaps, problems := Compile(w.Input)
	set := ingressOf(t, w, "10.0.0.2")
	if len(set.Rules) != 1 || len(set.Rules[0].Requests) != 1 || set.Rules[0].Requests[0].External == nil {
		t.Fatalf("%+v, %v", set, problems)
	}
	e := set.Rules[0].Requests[0].External
	c, ok := snaps["n1"].Clusters[e.Cluster]
	if !ok || c.Protocol != l7.HTTP2 || snaps["n1"].Services[c.Service].Name != "opa" || *e != (policy.External{Cluster: c.Name, Timeout: 50, Status: 503}) {
		t.Errorf("%+v is asked at %+v", e, c)
	}
}

// TestKeySets: JWK sets come with the rules that need them, those to be fetched as
// they are known.
func TestKeySets(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2")
	w.policy("shop", "p", "project", false,
		v1alpha1.Rule{Action: "allow", JWT: &v1alpha1.JWTMatch{Issuer: "a", JWKSURI: "https://id/keys"}},
		v1alpha1.Rule{Action: "deny", JWT: &v1alpha1.JWTMatch{Issuer: "b", JWKS: `{"keys":[{}]}`}})
	w.settle()
	c := NewCompiler()
	if n := c.NeedsOf(w.Input); !slices.Equal(n.KeySets, []string{"https://id/keys"}) {
		t.Fatalf("needs %v", n.KeySets)
	}
	snaps, _ := c.Compile(w.Input)
	if k, ok := snaps["n1"].KeySets["https://id/keys"]; !ok || k.JSON != "" || len(snaps["n1"].KeySets) != 2 {
		t.Fatalf("%+v", snaps["n1"].KeySets)
	}
	w.KeySets["https://id/keys"] = l7.KeySet{JSON: `{"keys":[]}`, Until: 7}
	before := snaps["n1"]
	snaps, _ = c.Compile(w.Input)
	if k := snaps["n1"].KeySets["https://id/keys"]; k != (l7.KeySet{URI: "https://id/keys", JSON: `{"keys":[]}`, Until: 7}) {
		t.Fatalf("%+v", k)
	}
	if d := snapshot.Diff(before, snaps["n1"]); len(d.Put.KeySets) != 1 || len(d.Put.Policies) > 0 {
		t.Errorf("fetched keys changed %+v", d)
	}
}
