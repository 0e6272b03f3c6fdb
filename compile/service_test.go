package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// rows lists the Services of a name that a node knows, as text.
func rows(s *snapshot.Snapshot, name string) []string {
	var out []string
	for _, k := range slices.SortedFunc(maps.Keys(s.Services), snapshot.ServiceKey.Compare) {
		if row := s.Services[k]; row.Name == name {
			text := fmt.Sprintf("%s/%d:%d", k.Addr, k.Protocol, k.Port)
			for _, b := range row.Backends {
				text += fmt.Sprintf(" %s:%d*%d@%s", b.Addr, b.Port, b.Weight, b.Node)
			}
			for _, b := range row.Leaving {
				text += fmt.Sprintf(" -%s:%d@%s", b.Addr, b.Port, b.Node)
			}
			out = append(out, text)
		}
	}
	return out
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// mall is shop/main with three web servers on three nodes of two zones.
func mall() world {
	w := shop()
	w.node("n3")
	for i, n := range []string{"n1", "n2", "n3"} {
		w.Nodes[n].Spec.Zone = []string{"east", "east", "west"}[i]
		w.attach(n, "shop", fmt.Sprintf("web%d", i+1), "main", 1, fmt.Sprintf("10.0.0.%d", i+2))
		r := w.Reports[n]
		r.Attachments[0].Labels = []snapshot.Label{{Key: "app", Value: "web"}}
	}
	return w
}

func TestServiceRows(t *testing.T) {
	w := mall()
	w.Networks[Key{"shop", "main"}].Spec.Prefixes = []string{"10.0.0.0/24", "fd00::/64"}
	w.service("shop", "web", v1alpha1.ServiceSpec{Selector: app("web"), AffinitySeconds: 60, Drain: []string{"web3"},
		Ports: []v1alpha1.ServicePort{{Name: "http", Port: 80, TargetPort: 8080}, {Port: 53, Protocol: "UDP"}}})
	if n := NeedsOf(w.Input); fmt.Sprint(n.Addresses) != "[{Service shop/web shop/main 10.0.0.254} {Service shop/web shop/main fd00::ffff:ffff:ffff:ffff}]" {
		t.Errorf("needs %v", n.Addresses)
	}
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		want(t, n, rows(snaps[n], "web"),
			"1/10.0.0.254/6:80 1/10.0.0.2:8080*1@n1 1/10.0.0.3:8080*1@n2 -1/10.0.0.4:8080@n3",
			"1/10.0.0.254/17:53 1/10.0.0.2:53*1@n1 1/10.0.0.3:53*1@n2 -1/10.0.0.4:53@n3",
			"1/fd00::ffff:ffff:ffff:ffff/6:80", "1/fd00::ffff:ffff:ffff:ffff/17:53")
	}
	row := snaps["n1"].Services[snapshot.ServiceKey{Addr: w.at("shop/main", "10.0.0.254"), Protocol: policy.TCP, Port: 80}]
	if row.Affinity != time.Minute || row.PortName != "http" || row.Project != "shop" || row.Floating {
		t.Errorf("row %+v", row)
	}
	st := StatusesOf(w.Input).Services[Key{"shop", "web"}]
	if st.Backends != "2/3" || !st.Ready || fmt.Sprint(st.Addresses) != "[{main 10.0.0.254} {main fd00::ffff:ffff:ffff:ffff}]" {
		t.Errorf("status %+v", st)
	}
	// The node of web1 goes away, and comes back.
	w.Away = map[string]bool{"n1": true}
	snaps, _ = w.settled()
	want(t, "n1 away", rows(snaps["n2"], "web")[:1], "1/10.0.0.254/6:80 1/10.0.0.3:8080*1@n2 -1/10.0.0.4:8080@n3")
	w.Away = nil
	snaps, _ = w.settled()
	want(t, "n1 back", rows(snaps["n2"], "web")[:1], "1/10.0.0.254/6:80 1/10.0.0.2:8080*1@n1 1/10.0.0.3:8080*1@n2 -1/10.0.0.4:8080@n3")
}

func TestServiceHealth(t *testing.T) {
	w := mall()
	w.service("shop", "web", v1alpha1.ServiceSpec{Selector: app("web"), Health: &v1alpha1.HealthCheck{Type: "http", Port: 8080, IntervalSeconds: 1}})
	snaps, ps := w.settled()
	wantCodes(t, codes(ps), codeNoBackend)
	want(t, "not checked yet", rows(snaps["n1"], "web"), "1/10.0.0.254/6:80")
	for i, n := range []string{"n1", "n2", "n3"} {
		key := snapshot.CheckKey{Addr: w.at("shop/main", fmt.Sprintf("10.0.0.%d", i+2)), Kind: "http", Port: 8080, Path: "/"}
		c, ok := snaps[n].Checks[key]
		if !ok || len(snaps[n].Checks) != 1 || c.Interval != time.Second || c.Timeout != time.Second || c.Failures != 2 || c.Successes != 1 {
			t.Errorf("%s checks %+v", n, snaps[n].Checks)
		}
		r := *w.Reports[n]
		r.Health = []snapshot.Health{{CheckKey: key, Healthy: n != "n2"}}
		w.Reports[n] = &r
	}
	// What another node says of it does not count.
	r := *w.Reports["n3"]
	r.Health = append(slices.Clone(r.Health), snapshot.Health{CheckKey: w.Reports["n2"].Health[0].CheckKey, Healthy: true})
	w.Reports["n3"] = &r
	snaps, ps = w.settled()
	want(t, "checked", rows(snaps["n1"], "web"), "1/10.0.0.254/6:80 1/10.0.0.2:8080*1@n1 1/10.0.0.4:8080*1@n3")
	if len(ps) != 0 || len(snaps["n2"].Checks) != 1 {
		t.Errorf("problems %v, checks %v", ps, snaps["n2"].Checks)
	}
}

// TestPolicyCheck: what a BackendPolicy asks of endpoints is asked by the node of
// each, at the ports that it is for; who fails is no backend there, for packets
// and requests alike, and no proxy asks again.
func TestPolicyCheck(t *testing.T) {
	w := mall()
	w.service("shop", "web", v1alpha1.ServiceSpec{Selector: app("web"), Ports: []v1alpha1.ServicePort{
		{Name: "api", Port: 80, TargetPort: 8080, AppProtocol: "http"}, {Name: "admin", Port: 81, TargetPort: 8081, AppProtocol: "https"},
		{Name: "raw", Port: 80, TargetPort: 8080, Protocol: "UDP"}}})
	k := Key{"shop", "web"}
	w.BackendPolicies[k] = &v1alpha1.BackendPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: v1alpha1.BackendPolicySpec{
		TargetRefs: []v1alpha1.PolicyTarget{{Kind: "Service", Name: "web", Port: 80}},
		Check:      &v1alpha1.ActiveCheck{Type: "http", Path: "/healthz", Host: "web.example", Statuses: []int32{200, 204}, Interval: "500ms"}}}
	w.settled()
	for i, n := range []string{"n1", "n2", "n3"} {
		key := snapshot.CheckKey{Addr: w.at("shop/main", fmt.Sprintf("10.0.0.%d", i+2)), Kind: "http", Port: 8080, Path: "/healthz", Host: "web.example", Statuses: "200,204"}
		r := *w.Reports[n]
		r.Health = []snapshot.Health{{CheckKey: key, Healthy: n != "n2"}}
		w.Reports[n] = &r
	}
	snaps, _ := w.settled()
	want(t, "checked", rows(snaps["n1"], "web"),
		"1/10.0.0.254/6:80 1/10.0.0.2:8080*1@n1 1/10.0.0.4:8080*1@n3", "1/10.0.0.254/6:81 1/10.0.0.2:8081*1@n1 1/10.0.0.3:8081*1@n2 1/10.0.0.4:8081*1@n3",
		"1/10.0.0.254/17:80 1/10.0.0.2:8080*1@n1 1/10.0.0.3:8080*1@n2 1/10.0.0.4:8080*1@n3")
	for _, n := range []string{"n1", "n2", "n3"} {
		if len(snaps[n].Checks) != 1 {
			t.Errorf("%s checks %+v", n, snaps[n].Checks)
		}
		for key, c := range snaps[n].Checks {
			if key != w.Reports[n].Health[0].CheckKey || c.Interval != 500*time.Millisecond || c.Timeout != time.Second || c.Failures != 3 || c.Successes != 2 {
				t.Errorf("%s checks %+v", n, c)
			}
		}
		for _, c := range snaps[n].Clusters {
			if c.Check != nil {
				t.Errorf("the proxies of %s ask the endpoints of %s, too", n, c.Name)
			}
		}
	}
}

func TestServiceLocality(t *testing.T) {
	for locality, rowsOf := range map[string]map[string]string{
		"node": {"n1": " 1/10.0.0.2:8080*1@n1 -1/10.0.0.3:8080@n2 -1/10.0.0.4:8080@n3", "n3": " 1/10.0.0.4:8080*1@n3 -1/10.0.0.2:8080@n1 -1/10.0.0.3:8080@n2"},
		"zone": {"n1": " 1/10.0.0.2:8080*1@n1 1/10.0.0.3:8080*1@n2 -1/10.0.0.4:8080@n3", "n3": " 1/10.0.0.4:8080*1@n3 -1/10.0.0.2:8080@n1 -1/10.0.0.3:8080@n2"},
	} {
		w := mall()
		w.service("shop", "web", v1alpha1.ServiceSpec{Selector: app("web"), Locality: locality})
		snaps, _ := w.settled()
		for n, row := range rowsOf {
			want(t, locality+" "+n, rows(snaps[n], "web"), "1/10.0.0.254/6:80"+row)
		}
		w.Services[Key{"shop", "web"}].Spec.Drain = []string{"web1"}
		snaps, _ = w.settled()
		want(t, locality+" n1 drained", rows(snaps["n1"], "web"), "1/10.0.0.254/6:80 1/10.0.0.3:8080*1@n2 -1/10.0.0.2:8080@n1 -1/10.0.0.4:8080@n3")
		w.Away = map[string]bool{"n2": true}
		snaps, _ = w.settled()
		want(t, locality+" n1 alone", rows(snaps["n1"], "web"), "1/10.0.0.254/6:80 1/10.0.0.4:8080*1@n3 -1/10.0.0.2:8080@n1")
	}
}

// TestServiceOutside: declared addresses and names outside.
func TestServiceOutside(t *testing.T) {
	w := mall()
	w.service("shop", "old", v1alpha1.ServiceSpec{Endpoints: []v1alpha1.ServiceEndpoint{{Address: "198.51.100.1", Weight: 3}, {Address: "10.0.0.3"}, {Address: "10.0.0.99"}}})
	w.service("shop", "mail", v1alpha1.ServiceSpec{ExternalName: "mail.example.com"})
	_, ps := w.settled()
	if text := told(ps, "Service"); strings.Count(text, codeNoExit) != 2 {
		t.Errorf("without a way out: %s", text)
	}
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Outside = &v1alpha1.Outside{} })
	if n := NeedsOf(w.Input); !slices.Equal(n.Names, []string{"mail.example.com"}) {
		t.Errorf("names %v", n.Names)
	}
	w.Resolved["mail.example.com"] = []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("198.51.100.9")}
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	want(t, "old", rows(snaps["n1"], "old"), "1/10.0.0.253/6:80 1/10.0.0.3:8080*1@n2 1/198.51.100.1:8080*3@")
	want(t, "mail", rows(snaps["n1"], "mail"), "1/10.0.0.254/6:80 1/198.51.100.9:8080*1@")
}

// TestServiceAddresses: who gets which address, and who does not.
func TestServiceAddresses(t *testing.T) {
	named := func(a ...string) []v1alpha1.ServiceNetwork {
		return []v1alpha1.ServiceNetwork{{Network: "main", Addresses: a}}
	}
	for name, c := range map[string]struct {
		build func(w world)
		needs string
		code  string
	}{
		"from the end":      {func(w world) {}, "10.0.0.254", ""},
		"own range":         {func(w world) { w.Networks[Key{"shop", "main"}].Spec.Services = []string{"10.0.0.32/30"} }, "10.0.0.35", ""},
		"beside a block":    {func(w world) { w.allocate(NewCompiler()); w.block("n1", "shop", "main", "10.0.0.240/28") }, "10.0.0.239", ""},
		"beside a Workload": {func(w world) { w.workload("shop", "x", "n1", "main", "10.0.0.254") }, "10.0.0.253", ""},
		"named":             {func(w world) { w.Services[Key{"shop", "web"}].Spec.Networks = named("10.0.0.100") }, "10.0.0.100", ""},
		"named, outside":    {func(w world) { w.Services[Key{"shop", "web"}].Spec.Networks = named("10.9.0.1") }, "", codeOutside},
		"named, gateway":    {func(w world) { w.Services[Key{"shop", "web"}].Spec.Networks = named("10.0.0.1") }, "", codeSpecial},
		"named, the nodes' own": {func(w world) {
			w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Prefixes = append(s.Prefixes, "fd00:4d4f:4952:45::/64") })
			w.Services[Key{"shop", "web"}].Spec.Networks = named("fd00:4d4f:4952:45::53")
		}, "", codeSpecial},
		"named, in use": {func(w world) { w.Services[Key{"shop", "web"}].Spec.Networks = named("10.0.0.2") }, "", codeVIPTaken},
		"named, declared": {func(w world) {
			w.workload("shop", "x", "n1", "main", "10.0.0.9")
			w.Services[Key{"shop", "web"}].Spec.Networks = named("10.0.0.9")
		}, "", codeVIPTaken},
		"named, in a block": {func(w world) {
			w.allocate(NewCompiler())
			w.block("n1", "shop", "main", "10.0.0.0/28")
			w.Services[Key{"shop", "web"}].Spec.Networks = named("10.0.0.9")
		}, "", codeHeld},
		"named, confirmed": {func(w world) {
			w.allocate(NewCompiler())
			w.block("n1", "shop", "main", "10.0.0.0/28", "10.0.0.9")
			w.Services[Key{"shop", "web"}].Spec.Networks = named("10.0.0.9")
		}, "10.0.0.9", ""},
		"full": {func(w world) { w.Networks[Key{"shop", "main"}].Spec.Services = []string{"10.0.0.0/31"} }, "", codeExhausted},
	} {
		w := mall()
		w.service("shop", "web", v1alpha1.ServiceSpec{Selector: app("web")})
		c.build(w)
		for k, s := range w.Services { // not what allocate gave
			s = s.DeepCopy()
			s.Status = v1alpha1.ServiceStatus{}
			w.Services[k] = s
		}
		_, ps := Compile(w.Input)
		var got []string
		for _, n := range NeedsOf(w.Input).Addresses {
			got = append(got, n.Address.String())
		}
		if strings.Join(got, " ") != c.needs {
			t.Errorf("%s: needs %v, want %s", name, got, c.needs)
		}
		if text := told(ps, "Service"); (c.code != "") != strings.Contains(text, "(MOI2") || !strings.Contains(text, c.code) {
			if !(c.code == "" && strings.Contains(text, codeNoBackend)) {
				t.Errorf("%s: problems %q, want %s", name, text, c.code)
			}
		}
	}
}

// TestVIPKept: an address that a Service has is nobody else's: not of blocks,
// not of Workloads that declare it, not of nodes that lie.
func TestVIPKept(t *testing.T) {
	w := mall()
	w.service("shop", "web", v1alpha1.ServiceSpec{Selector: app("web")})
	w.settle()
	w.block("n1", "shop", "main", "10.0.0.240/28")
	w.workload("shop", "late", "n2", "main", "10.0.0.254")
	w.attach("n2", "shop", "late", "main", 1)
	w.attach("n3", "shop", "thief", "main", 0, "10.0.0.254")
	snaps, ps := w.settled()
	b := snaps["n1"].Blocks[snapshot.BlockKey{VNI: 1, CIDR: netip.MustParsePrefix("10.0.0.240/28")}]
	if !slices.Contains(b.Excluded, snapshot.Range{First: netip.MustParseAddr("10.0.0.254"), Last: netip.MustParseAddr("10.0.0.255")}) {
		t.Errorf("block %+v", b)
	}
	for node, workload := range map[string]string{"n2": "late", "n3": "thief"} {
		if g, _ := grant(snaps[node], workload); !strings.Contains(g.Error, "is the address of Service shop/web") {
			t.Errorf("%s is granted %+v", workload, g)
		}
	}
	want(t, "still there", rows(snaps["n1"], "web"), "1/10.0.0.254/6:80 1/10.0.0.2:8080*1@n1 1/10.0.0.3:8080*1@n2 1/10.0.0.4:8080*1@n3")
	if text := told(ps, "Workload shop/late"); !strings.Contains(text, "10.0.0.254 is the address of Service shop/web") {
		t.Errorf("problems %s", text)
	}
}

// TestServiceLinked: backends in a linked Network, and the Service as seen
// from there.
func TestServiceLinked(t *testing.T) {
	w := tenants()
	w.consent("store", "main", "shop", "")
	w.link("shop", "x", "shop/main", "store/main").Ends[1].Translate = []v1alpha1.Translation{{Prefix: "10.1.0.0/24", As: "100.64.0.0/24"}}
	w.service("store", "db", v1alpha1.ServiceSpec{Selector: app("db"), Networks: []v1alpha1.ServiceNetwork{{Network: "main", Addresses: []string{"10.1.0.50"}}}})
	w.attach("n2", "shop", "web", "main", 2, "10.0.0.22")
	w.attach("n3", "shop", "api", "store/main", 2, "10.1.0.33")
	w.consent("store", "main", "shop", "", "attach")
	w.service("shop", "api", v1alpha1.ServiceSpec{Selector: app("api"), Networks: []v1alpha1.ServiceNetwork{{Network: "main", Addresses: []string{"10.0.0.60"}}}})
	w.edit("store", "main", func(s *v1alpha1.NetworkSpec) { s.Outside = &v1alpha1.Outside{} })
	w.service("store", "mail", v1alpha1.ServiceSpec{ExternalName: "mail.example.com"})
	snaps, ps := w.settled()
	want(t, "what is outside of the linked Network", rows(snaps["n1"], "mail"))
	if got := rows(snaps["n2"], "mail"); len(got) != 2 {
		t.Errorf("mail at home: %v", got)
	}
	wantCodes(t, codes(ps), codeTwoNodes)
	a, b := w.vni("shop/main"), w.vni("store/main")
	want(t, "at home and as shop sees it", rows(snaps["n1"], "db"), fmt.Sprintf("%d/100.64.0.50/6:80 %d/100.64.0.2:8080*1@n2", a, a))
	got := rows(snaps["n2"], "db")
	slices.Sort(got)
	wanted := []string{fmt.Sprintf("%d/100.64.0.50/6:80 %d/100.64.0.2:8080*1@n2", a, a), fmt.Sprintf("%d/10.1.0.50/6:80 %d/10.1.0.2:8080*1@n2", b, b)}
	slices.Sort(wanted)
	want(t, "on the node of db", got, wanted...)
	want(t, "a backend in the linked Network", rows(snaps["n1"], "api"), fmt.Sprintf("%d/10.0.0.60/6:80 %d/100.64.0.33:8080*1@n3", a, a))
}

// TestTaken: what the Network says of who took an address comes before what a
// status says, and is asked for again until it stands there.
func TestTaken(t *testing.T) {
	w := mall()
	w.service("shop", "a", v1alpha1.ServiceSpec{Selector: app("web")})
	w.service("shop", "b", v1alpha1.ServiceSpec{Selector: app("web")})
	taken := func(pairs ...string) {
		n := w.Networks[Key{"shop", "main"}].DeepCopy()
		n.Status.Taken = nil
		for i := 0; i+1 < len(pairs); i += 2 {
			n.Status.Taken = append(n.Status.Taken, v1alpha1.Taken{Address: pairs[i], By: pairs[i+1]})
		}
		w.Networks[Key{"shop", "main"}] = n
	}
	taken("10.0.0.77", "Service shop/b", "10.0.0.254", "Service shop/gone")
	if got := fmt.Sprint(NeedsOf(w.Input).Addresses); got != "[{Service shop/a shop/main 10.0.0.254} {Service shop/b shop/main 10.0.0.77}]" {
		t.Errorf("needs %s", got)
	}
	w.settle()
	taken("10.0.0.77", "Service shop/a", "10.0.0.254", "Service shop/a")
	if got := fmt.Sprint(NeedsOf(w.Input).Addresses); got != "[{Service shop/b shop/main 10.0.0.253}]" {
		t.Errorf("needs %s", got)
	}
	snaps, _ := Compile(w.Input)
	want(t, "b", rows(snaps["n1"], "b"))
	want(t, "a", rows(snaps["n1"], "a"), "1/10.0.0.254/6:80 1/10.0.0.2:8080*1@n1 1/10.0.0.3:8080*1@n2 1/10.0.0.4:8080*1@n3")
}
