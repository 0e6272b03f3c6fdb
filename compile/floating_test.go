package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

func (w world) float(project, name, pool string, targets ...v1alpha1.FloatingTarget) *v1alpha1.FloatingIPSpec {
	p, n, _ := strings.Cut(pool, "/")
	for i := range targets {
		if targets[i].Weight == 0 {
			targets[i].Weight = 1
		}
	}
	f := &v1alpha1.FloatingIP{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}, Spec: v1alpha1.FloatingIPSpec{Pool: v1alpha1.NetworkRef{Project: p, Network: n}, Targets: targets}}
	w.FloatingIPs[Key{project, name}] = f
	return &f.Spec
}

// TestFloating: an address of store/main leads to Workloads of the bank, which
// overlaps with shop, and the nodes of both ends know what they need.
func TestFloating(t *testing.T) {
	w := tenants()
	w.attach("n1", "bank", "spare", "main", 2, "10.0.0.3")
	w.edit("store", "main", func(s *v1alpha1.NetworkSpec) { s.Floating = []string{"10.1.0.64/28"} })
	f := w.float("bank", "vip", "store/main", v1alpha1.FloatingTarget{Workload: "ledger"})
	f.Names = []string{"Money.Example.com"}
	_, ps := w.settled()
	if text := told(ps, "FloatingIP bank/vip"); !strings.Contains(text, "{project: bank, domain: blue, for: [floatingIP]}") {
		t.Errorf("without consent: %s", text)
	}
	w.consent("store", "main", "bank", "blue", v1alpha1.ConsentFloatingIP)
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	pool, home := w.vni("store/main"), w.vni("bank/main")
	row := fmt.Sprintf("%d/10.1.0.64/0:0 %d/10.0.0.2:0*1@n3", pool, home)
	want(t, "the caller's node", rows(snaps["n2"], "vip"), row)
	want(t, "the target's node", rows(snaps["n3"], "vip"), row)
	want(t, "a node of neither", rows(snaps["n1"], "vip"))
	s := snaps["n2"]
	if got := s.Services[snapshot.ServiceKey{Addr: w.at("store/main", "10.1.0.64")}]; !got.Floating || !slices.Equal(got.Names, []string{"money.example.com."}) {
		t.Errorf("row %+v", got)
	}
	if e := s.Endpoints[w.at("bank/main", "10.0.0.2")]; e.Workload != "ledger" || s.Identities[e.Identity].Project != "bank" || s.Networks[home].Project != "bank" || s.Nodes["n3"].Name == "" {
		t.Errorf("the caller's node knows the target as %+v", e)
	}
	if _, more := s.Endpoints[w.at("bank/main", "10.0.0.3")]; more {
		t.Error("the caller's node knows other Workloads of the bank")
	}
	s = snaps["n3"]
	if e := s.Endpoints[w.at("store/main", "10.1.0.2")]; e.Workload != "db" || s.Identities[e.Identity].Project != "store" || s.Nodes["n2"].Name == "" {
		t.Errorf("the target's node knows the caller as %+v", e)
	}
	if st := StatusesOf(w.Input).FloatingIPs[Key{"bank", "vip"}]; st.Address != "10.1.0.64" || !st.Ready || st.Node != "" {
		t.Errorf("status %+v", st)
	}
	// From blue to green: new sessions at once, and back.
	w.float("bank", "vip", "store/main", v1alpha1.FloatingTarget{Workload: "spare"}).Ports = []v1alpha1.ServicePort{{Port: 80, TargetPort: 8080}, {Port: 90}}
	w.FloatingIPs[Key{"bank", "vip"}].Status.Address = "10.1.0.64"
	snaps, _ = w.settled()
	want(t, "moved", rows(snaps["n2"], "vip"), fmt.Sprintf("%d/10.1.0.64/6:80 %d/10.0.0.3:8080*1@n1", pool, home), fmt.Sprintf("%d/10.1.0.64/6:90 %d/10.0.0.3:90*1@n1", pool, home))
	want(t, "moved, green's node", rows(snaps["n1"], "vip"), rows(snaps["n2"], "vip")...)
	want(t, "moved, blue's node", rows(snaps["n3"], "vip"))
}

func TestFloatingTargets(t *testing.T) {
	for name, c := range map[string]struct {
		targets []v1alpha1.FloatingTarget
		row     string
		code    string
	}{
		"two":       {[]v1alpha1.FloatingTarget{{Workload: "web", Network: "main", Weight: 3}, {Workload: "api"}}, " H/10.0.0.2:0*3@n1 H/10.0.0.3:0*1@n2", ""},
		"none":      {nil, "", ""},
		"weight 0":  {[]v1alpha1.FloatingTarget{{Workload: "api"}, {Workload: "web", Network: "main", Weight: -1}}, " H/10.0.0.3:0*1@n2 -H/10.0.0.2:0@n1", ""},
		"missing":   {[]v1alpha1.FloatingTarget{{Workload: "gone"}}, "", codeNoTarget},
		"unclear":   {[]v1alpha1.FloatingTarget{{Workload: "web"}}, "", codeNoTarget},
		"elsewhere": {[]v1alpha1.FloatingTarget{{Workload: "api", Network: "back"}}, "", codeNoTarget},
	} {
		w := tenants()
		w.network("shop", "back", "10.7.0.0/24")
		w.attach("n1", "shop", "web", "back", 3, "10.7.0.2")
		w.attach("n2", "shop", "api", "main", 3, "10.0.0.3")
		w.edit("store", "main", func(s *v1alpha1.NetworkSpec) { s.Floating = []string{"10.1.0.64/28"} })
		w.consent("store", "main", "shop", "", v1alpha1.ConsentFloatingIP)
		f := w.float("shop", "vip", "store/main", c.targets...)
		for i := range f.Targets {
			f.Targets[i].Weight = max(f.Targets[i].Weight, 0)
		}
		snaps, ps := w.settled()
		row := strings.ReplaceAll(fmt.Sprintf("%d/10.1.0.64/0:0", w.vni("store/main"))+c.row, "H", fmt.Sprint(w.vni("shop/main")))
		want(t, name, rows(snaps["n2"], "vip"), row)
		if got := told(ps, "FloatingIP"); (c.code == "") != (got == "") || !strings.Contains(got, c.code) {
			t.Errorf("%s: problems %s", name, got)
		}
	}
}

// underlay is tenants with an external pool of the operator.
func underlay() world {
	w := tenants()
	w.network("store", "public", "203.0.113.0/28").Spec.External = true
	w.consent("store", "public", "shop", "", v1alpha1.ConsentFloatingIP)
	w.consent("store", "public", "bank", "blue", v1alpha1.ConsentFloatingIP)
	return w
}

// TestFloatingExternal: an address of the underlay, held by the node of the
// first living target by name, which is also what a 1:1 target leaves as.
func TestFloatingExternal(t *testing.T) {
	w := underlay()
	w.attach("n2", "shop", "api", "main", 3, "10.0.0.3")
	w.float("shop", "vip", "store/public", v1alpha1.FloatingTarget{Workload: "web"}, v1alpha1.FloatingTarget{Workload: "api"})
	snaps, ps := w.settled()
	if len(ps) != 0 || len(NeedsOf(w.Input).VNIs) != 0 {
		t.Errorf("problems %v, needs %v", ps, NeedsOf(w.Input).VNIs)
	}
	row := fmt.Sprintf("16777215/203.0.113.1/0:0 %d/10.0.0.2:0*1@n1 %d/10.0.0.3:0*1@n2", w.vni("shop/main"), w.vni("shop/main"))
	addr := w.at("shop/main", "203.0.113.1").IP
	for _, n := range []string{"n1", "n2"} {
		want(t, n, rows(snaps[n], "vip"), row)
		if x := snaps[n].Externals[addr]; x.Node != "n2" || x.Owner != "FloatingIP shop/vip" {
			t.Errorf("%s: external %+v", n, x)
		}
		if m := snaps[n].Masquerades[w.at("shop/main", "10.0.0.2")]; m.As != addr || m.Node != "n2" {
			t.Errorf("%s: masquerade %+v", n, m)
		}
	}
	if len(snaps["n3"].Externals) != 0 {
		t.Errorf("the bank's node: %v", snaps["n3"].Externals)
	}
	if st := StatusesOf(w.Input).FloatingIPs[Key{"shop", "vip"}]; st.Node != "n2" || !st.Ready {
		t.Errorf("status %+v", st)
	}
	w.Away = map[string]bool{"n2": true}
	snaps, _ = w.settled()
	want(t, "n2 away", rows(snaps["n1"], "vip"), fmt.Sprintf("16777215/203.0.113.1/0:0 %d/10.0.0.2:0*1@n1", w.vni("shop/main")))
	if x := snaps["n1"].Externals[addr]; x.Node != "n1" {
		t.Errorf("n2 away: %+v", x)
	}
	// Nothing can be attached to the pool.
	w.attach("n1", "store", "x", "public", 1, "203.0.113.5")
	snaps, ps = w.settled()
	if g := snaps["n1"].Grants[snapshot.AttachmentKey{Project: "store", Workload: "x", Network: "public"}]; !strings.Contains(g.Error, "external") {
		t.Errorf("attached to a pool: %+v, %v", g, ps)
	}
}

// TestGateway: egress addresses, the gateway that holds them and who is next.
func TestGateway(t *testing.T) {
	w := underlay()
	gateway := func(project string, address string, gateways ...string) {
		w.edit(project, "main", func(s *v1alpha1.NetworkSpec) {
			s.Outside = &v1alpha1.Outside{Mode: v1alpha1.OutsideGateway, Gateways: gateways, Addresses: []string{address}, Hosts: []v1alpha1.Port{{Protocol: "TCP", Port: 22, EndPort: 23}}}
		})
	}
	gateway("shop", "203.0.113.1", "n3", "n2")
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	v, addr := w.vni("shop/main"), w.at("shop/main", "203.0.113.1").IP
	for _, n := range []string{"n1", "n3"} {
		x := snaps[n].Exits[v]
		if x.Gateway != "n3" || !slices.Equal(x.Addresses, []netip.Addr{addr}) || !slices.Equal(x.Hosts, []snapshot.HostPort{{Protocol: 6, First: 22, Last: 23}}) {
			t.Errorf("%s: exit %+v", n, x)
		}
		if e := snaps[n].Externals[addr]; e.Node != "n3" || e.Owner != "Network shop/main" {
			t.Errorf("%s: external %+v", n, e)
		}
		if e := snaps[n].Endpoints[w.at("shop/main", "10.0.0.2")]; e.Workload != "web" || snaps[n].Nodes["n1"].Name == "" || snaps[n].Nodes["n3"].Name == "" {
			t.Errorf("%s knows %+v", n, e)
		}
	}
	if _, is := snaps["n2"].Exits[v]; is {
		t.Error("n2 has the exit")
	}
	w.Away = map[string]bool{"n3": true}
	if snaps, _ = w.settled(); snaps["n1"].Exits[v].Gateway != "n2" || snaps["n2"].Externals[addr].Node != "n2" {
		t.Errorf("n3 away: %+v", snaps["n1"].Exits[v])
	}
	w.Away["n2"] = true
	if snaps, ps = w.settled(); snaps["n1"].Exits[v].Gateway != "n3" || !slices.Contains(codes(ps), codeGateway) {
		t.Errorf("all away: %+v, %v", snaps["n1"].Exits[v], ps)
	}
	w.Away = nil
	// No FloatingIP takes it, no other project may have it, a Network of the
	// same one shares it with its gateway.
	w.float("shop", "vip", "store/public", v1alpha1.FloatingTarget{Workload: "web"})
	gateway("bank", "203.0.113.1", "n1")
	if snaps, ps = w.settled(); StatusesOf(w.Input).FloatingIPs[Key{"shop", "vip"}].Address != "203.0.113.2" {
		t.Errorf("the FloatingIP has %+v", StatusesOf(w.Input).FloatingIPs)
	}
	// bank/main comes first by name.
	if text := told(ps, "Network shop/main"); !strings.Contains(text, codeEgressTaken) || snaps["n3"].Exits[w.vni("bank/main")].Gateway != "n1" {
		t.Errorf("two projects: %s", text)
	}
	if _, is := snaps["n1"].Exits[v]; is {
		t.Error("a Network without an address of its own leaves")
	}
	gateway("bank", "203.0.113.9", "n1")
	w.network("shop", "back", "10.7.0.0/24")
	w.attach("n2", "shop", "x", "back", 1, "10.7.0.2")
	w.edit("shop", "back", func(s *v1alpha1.NetworkSpec) {
		s.Outside = &v1alpha1.Outside{Mode: v1alpha1.OutsideGateway, Gateways: []string{"n1"}, Addresses: []string{"203.0.113.1"}}
	})
	if snaps, ps = w.settled(); len(codes(ps)) != 0 || snaps["n1"].Exits[v].Gateway != "n1" || snaps["n2"].Exits[w.vni("shop/back")].Gateway != "n1" {
		t.Errorf("shared: %v, %+v", ps, snaps["n1"].Exits)
	}
}
