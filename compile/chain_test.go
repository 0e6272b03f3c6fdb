package compile

import (
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// chained is shop/main and store/main with a chain of two functions between
// them, by way of shop/middle: fw, twice, and ids.
func chained() (world, *v1alpha1.LinkSpec) {
	w := tenants()
	w.network("shop", "middle", "10.5.0.0/24", "fd05::/64")
	w.consent("store", "main", "shop", "", v1alpha1.ConsentLink, v1alpha1.ConsentAttach)
	for i, f := range []struct{ node, name, app, left, leftIP, right, rightIP string }{
		{"n1", "fw1", "fw", "main", "10.0.0.11", "middle", "10.5.0.11"}, {"n3", "fw2", "fw", "main", "10.0.0.12", "middle", "10.5.0.12"},
		{"n3", "ids1", "ids", "middle", "10.5.0.21", "store/main", "10.1.0.21"},
	} {
		w.attach(f.node, "shop", f.name, f.left, i, f.leftIP)
		w.attach(f.node, "shop", f.name, f.right, i, f.rightIP)
		for j := range w.Reports[f.node].Attachments {
			if a := &w.Reports[f.node].Attachments[j]; a.Workload == f.name {
				a.Labels = []snapshot.Label{{Key: "app", Value: f.app}}
			}
		}
	}
	return w, w.link("shop", "x", "shop/main", "store/main", v1alpha1.Function{Name: "wall", Workloads: *app("fw"), Right: "middle"},
		v1alpha1.Function{Name: "watch", Workloads: *app("ids"), Mode: v1alpha1.FunctionTransparent})
}

func hops(s *snapshot.Snapshot, k snapshot.ChainKey) string {
	c, ok := s.Chains[k]
	if !ok {
		return "none"
	}
	out := c.Function
	for _, h := range c.Hops {
		out += " " + h.Workload + "=" + h.Addr.IP.String() + "@" + h.Node
	}
	return out
}

func TestChain(t *testing.T) {
	w, _ := chained()
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	left, middle, right := w.vni("shop/main"), w.vni("shop/middle"), w.vni("store/main")
	for _, c := range []struct {
		node    string
		vni     snapshot.VNI
		reverse bool
		want    string
	}{
		{"n1", left, false, "wall fw1=10.0.0.11@n1 fw2=10.0.0.12@n3"},
		{"n1", left, true, "none"},
		{"n1", middle, false, "watch ids1=10.5.0.21@n3"},
		{"n1", middle, true, "wall fw1=10.5.0.11@n1 fw2=10.5.0.12@n3"},
		{"n1", right, true, "none"}, // it hosts no Workload of store/main
		{"n2", right, true, "watch ids1=10.1.0.21@n3"},
		{"n2", right, false, "none"},
		{"n2", left, false, "none"},
		{"n3", right, true, "watch ids1=10.1.0.21@n3"},
	} {
		if got := hops(snaps[c.node], snapshot.ChainKey{VNI: c.vni, Link: "shop/x", Reverse: c.reverse}); got != c.want {
			t.Errorf("%s, VNI %d, reverse %v: %s, want %s", c.node, c.vni, c.reverse, got, c.want)
		}
	}
	if c := snaps["n3"].Chains[snapshot.ChainKey{VNI: middle, Link: "shop/x"}]; !c.Transparent {
		t.Errorf("%+v is not transparent", c)
	}
	// Everybody of the path sees both ends, each behind its next function.
	for _, c := range []struct {
		node, at, ip string
		chain        snapshot.ChainKey
		home         snapshot.Addr
	}{
		{"n1", "shop/main", "10.1.0.2", snapshot.ChainKey{VNI: left, Link: "shop/x"}, w.at("store/main", "10.1.0.2")},
		{"n3", "shop/middle", "10.1.0.2", snapshot.ChainKey{VNI: middle, Link: "shop/x"}, w.at("store/main", "10.1.0.2")},
		{"n3", "shop/middle", "fd00::2", snapshot.ChainKey{VNI: middle, Link: "shop/x", Reverse: true}, w.at("shop/main", "fd00::2")},
		{"n2", "store/main", "10.0.0.2", snapshot.ChainKey{VNI: right, Link: "shop/x", Reverse: true}, w.at("shop/main", "10.0.0.2")},
	} {
		if e := snaps[c.node].Endpoints[w.at(c.at, c.ip)]; e.Chain != c.chain || e.Home != c.home || snaps[c.node].Identities[e.Identity].Number == 0 {
			t.Errorf("%s sees %s in %s as %+v", c.node, c.ip, c.at, e)
		}
	}
	if n := snaps["n2"].Networks[left]; n.Name != "main" {
		t.Errorf("n2 does not know where its peers are at home: %v", snaps["n2"].Networks)
	}
}

// TestChainNAT: behind a function that translates, its own addresses stand for
// the first end, whose own are not seen.
func TestChainNAT(t *testing.T) {
	w, l := chained()
	l.Via[0].Mode = v1alpha1.FunctionNAT
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	middle, right := w.vni("shop/middle"), w.vni("store/main")
	if e, seen := snaps["n3"].Endpoints[snapshot.Addr{VNI: middle, IP: w.at("shop/main", "10.0.0.2").IP}]; seen {
		t.Errorf("the middle sees %+v", e)
	}
	if e, seen := snaps["n2"].Endpoints[w.at("store/main", "10.0.0.2")]; seen {
		t.Errorf("the far end sees %+v", e)
	}
	e := snaps["n2"].Endpoints[w.at("store/main", "10.5.0.11")]
	if e.Workload != "fw1" || e.Home != w.at("shop/middle", "10.5.0.11") || e.Chain != (snapshot.ChainKey{VNI: right, Link: "shop/x", Reverse: true}) {
		t.Errorf("the far end sees the function as %+v", e)
	}
	if e := snaps["n1"].Endpoints[w.at("shop/main", "10.1.0.2")]; e.Workload != "db" || e.Chain.VNI == 0 {
		t.Errorf("the near end sees %+v", e)
	}
	// Then the ends may overlap from the far end's view.
	w.edit("store", "main", func(s *v1alpha1.NetworkSpec) { s.Prefixes = []string{"10.1.0.0/24", "fd01::/64"} })
	l.Via[0].Mode, l.Via[1].Mode = "", v1alpha1.FunctionNAT
	if snaps, ps = w.settled(); len(ps) != 0 || len(snaps["n2"].Endpoints) != 3 {
		t.Errorf("nat at the last function: %v, %v", snaps["n2"].Endpoints, ps)
	}
}

// TestChainDown: closed and bypass, away nodes and health.
func TestChainDown(t *testing.T) {
	w, l := chained()
	l.Via[0].Health = &v1alpha1.HealthCheck{Type: "icmp"}
	left := w.vni
	snaps, ps := w.settled()
	key := snapshot.ChainKey{VNI: left("shop/main"), Link: "shop/x"}
	if got := hops(snaps["n1"], key); got != "wall" || !slices.Contains(codes(ps), codeNoInstance) {
		t.Errorf("not checked yet: %s, %v", got, ps)
	}
	if e := snaps["n1"].Endpoints[w.at("shop/main", "10.1.0.2")]; e.Chain != key {
		t.Errorf("closed: %+v", e)
	}
	if st := StatusesOf(w.Input).Links[Key{"shop", "x"}]; st.Ready || !strings.Contains(st.Message, "function wall") {
		t.Errorf("status %+v", st)
	}
	for node, ip := range map[string]string{"n1": "10.0.0.11", "n3": "10.0.0.12"} {
		c := snapshot.CheckKey{Addr: w.at("shop/main", ip), Kind: "icmp"}
		if _, does := snaps[node].Checks[c]; !does {
			t.Errorf("%s does not check: %v", node, snaps[node].Checks)
		}
		r := *w.Reports[node]
		r.Health = []snapshot.Health{{CheckKey: c, Healthy: node == "n3"}}
		w.Reports[node] = &r
	}
	if snaps, ps = w.settled(); hops(snaps["n1"], key) != "wall fw2=10.0.0.12@n3" || len(ps) != 0 {
		t.Errorf("one is well: %s, %v", hops(snaps["n1"], key), ps)
	}
	w.Away = map[string]bool{"n3": true}
	if snaps, ps = w.settled(); hops(snaps["n1"], key) != "wall" || strings.Count(told(ps, "Link"), "function wall and function watch") != 1 {
		t.Errorf("away: %s, %v", hops(snaps["n1"], key), ps)
	}
	l = &w.Links[Key{"shop", "x"}].DeepCopy().Spec
	w.link("shop", "x", "shop/main", "store/main", l.Via...).OnFailure = v1alpha1.OnFailureBypass
	snaps, ps = w.settled()
	if e := snaps["n1"].Endpoints[w.at("shop/main", "10.1.0.2")]; e.Chain.VNI != 0 || e.Home != w.at("store/main", "10.1.0.2") || !strings.Contains(told(ps, "Link"), "bypassed") {
		t.Errorf("bypassed: %+v, %v", e, ps)
	}
	if _, left := snaps["n1"].Chains[key]; left || snaps["n1"].Checks == nil {
		t.Errorf("bypassed: %v, %v", snaps["n1"].Chains, snaps["n1"].Checks)
	}
}

// TestChainProblems: what cannot be a chain.
func TestChainProblems(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(w world, l *v1alpha1.LinkSpec)
		code   string
		says   string
	}{
		"translate": {func(_ world, l *v1alpha1.LinkSpec) {
			l.Ends[0].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.64.0.0/24"}}
		}, codeChain, "exclude each other"},
		"no right":      {func(_ world, l *v1alpha1.LinkSpec) { l.Via[0].Right = "" }, codeChain, "spec.via[0].right"},
		"wrong right":   {func(_ world, l *v1alpha1.LinkSpec) { l.Via[1].Right = "middle" }, codeChain, "spec.via[1].right"},
		"wrong left":    {func(_ world, l *v1alpha1.LinkSpec) { l.Via[1].Left = "main" }, codeChain, "after Network shop/middle"},
		"twice":         {func(_ world, l *v1alpha1.LinkSpec) { l.Via[0].Right = "main" }, codeChain, "twice"},
		"no Network":    {func(_ world, l *v1alpha1.LinkSpec) { l.Via[0].Right = "gone" }, codeNoNetwork, "shop/gone"},
		"no instance":   {func(_ world, l *v1alpha1.LinkSpec) { l.Via[1].Workloads = *app("nobody") }, codeNoInstance, "function watch"},
		"no consent":    {func(w world, l *v1alpha1.LinkSpec) { l.Via[0].Right = "bank/main" }, codeNoConsent, "spec.via[0].right"},
		"one interface": {func(w world, l *v1alpha1.LinkSpec) { w.attach("n1", "shop", "fw", "main", 1, "10.0.0.13") }, codeFunction, "no interface in Network shop/middle"},
		"overlap inside": {func(w world, l *v1alpha1.LinkSpec) {
			w.edit("shop", "middle", func(s *v1alpha1.NetworkSpec) { s.Prefixes[0] = "10.1.0.128/25" })
		}, codeLinkOverlap, "in Network shop/middle"},
		"bypassed nat": {func(w world, l *v1alpha1.LinkSpec) {
			l.Via[1].Mode, l.OnFailure = v1alpha1.FunctionNAT, v1alpha1.OnFailureBypass
			w.edit("shop", "middle", func(s *v1alpha1.NetworkSpec) { s.Prefixes[0] = "10.5.0.0/24" })
			w.network("shop", "twin", "10.0.0.0/24")
			w.consent("store", "main", "shop", "")
			w.link("shop", "a", "shop/twin", "store/main")
		}, codeLinkOverlap, "in Network store/main"},
		"itself": {func(w world, l *v1alpha1.LinkSpec) { l.Ends[1] = l.Ends[0]; l.Via = nil }, codeChain, "both ends"},
		"external": {func(w world, l *v1alpha1.LinkSpec) {
			w.edit("shop", "middle", func(s *v1alpha1.NetworkSpec) { s.External = true })
		}, codeChain, "external"},
	} {
		w, l := chained()
		c.break_(w, l)
		_, ps := w.settled()
		if text := told(ps, "Link shop/x"); !strings.Contains(text, c.code) || !strings.Contains(text, c.says) {
			t.Errorf("%s: %s, want %s %q", name, text, c.code, c.says)
		}
	}
}
