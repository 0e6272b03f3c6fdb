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
	"moire.dev/moire/snapshot/policy"
)

// tenants are two Domains with the same addresses: shop/main and store/main of
// red, bank/main of blue, which has those of shop/main.
func tenants() world {
	w := newWorld()
	w.domain("red")
	w.domain("blue")
	w.Projects = map[string]string{"shop": "red", "store": "red", "bank": "blue"}
	w.network("shop", "main", "10.0.0.0/24", "fd00::/64")
	w.network("store", "main", "10.1.0.0/24", "fd01::/64")
	w.network("bank", "main", "10.0.0.0/24", "fd00::/64")
	for _, n := range []string{"n1", "n2", "n3"} {
		w.node(n)
	}
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2", "fd00::2")
	w.attach("n2", "store", "db", "main", 1, "10.1.0.2", "fd01::2")
	w.attach("n3", "bank", "ledger", "main", 1, "10.0.0.2", "fd00::2")
	return w
}

func (w world) edit(project, name string, do func(*v1alpha1.NetworkSpec)) {
	n := w.Networks[Key{project, name}].DeepCopy()
	do(&n.Spec)
	w.Networks[Key{project, name}] = n
}

func (w world) consent(project, name, to, domain string, what ...string) {
	w.edit(project, name, func(s *v1alpha1.NetworkSpec) {
		s.Consents = append(s.Consents, v1alpha1.Consent{Project: to, Domain: domain, For: what})
	})
}

// link makes a Link of project; ends are "project/network".
func (w world) link(project, name, a, b string, via ...v1alpha1.Function) *v1alpha1.LinkSpec {
	l := &v1alpha1.Link{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}}
	for _, e := range []string{a, b} {
		p, n, _ := strings.Cut(e, "/")
		l.Spec.Ends = append(l.Spec.Ends, v1alpha1.LinkEnd{Project: p, Network: n})
	}
	l.Spec.Via = via
	w.Links[Key{project, name}] = l
	return &l.Spec
}

func (w world) service(project, name string, spec v1alpha1.ServiceSpec) *v1alpha1.ServiceSpec {
	if spec.Networks == nil {
		spec.Networks = []v1alpha1.ServiceNetwork{{Network: "main"}}
	}
	if spec.Ports == nil {
		spec.Ports = []v1alpha1.ServicePort{{Port: 80, TargetPort: 8080}}
	}
	s := &v1alpha1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}, Spec: spec}
	w.Services[Key{project, name}] = s
	return &s.Spec
}

func app(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func (w world) vni(key string) snapshot.VNI {
	return snapshot.VNI(w.Networks[networkOf("", key)].Status.VNI)
}

func (w world) at(network, ip string) snapshot.Addr {
	return snapshot.Addr{VNI: w.vni(network), IP: netip.MustParseAddr(ip)}
}

// settled compiles after everything was allocated; ps are the Problems that
// are no warnings, as text.
func (w world) settled() (snaps map[string]*snapshot.Snapshot, ps []v1alpha1.Problem) {
	w.settle()
	return Compile(w.Input)
}

func told(ps []v1alpha1.Problem, object string) string {
	var out []string
	for _, p := range ps {
		if strings.HasPrefix(p.Object, object) {
			out = append(out, p.Error())
		}
	}
	return strings.Join(out, "\n")
}

// TestLinkRows: both ends see each other's Workloads, nodes of either end know
// both, and nodes of neither know nothing.
func TestLinkRows(t *testing.T) {
	w := tenants()
	w.consent("store", "main", "shop", "")
	w.link("shop", "x", "shop/main", "store/main")
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	for _, node := range []string{"n1", "n2"} {
		s := snaps[node]
		for seen, home := range map[snapshot.Addr]snapshot.Addr{
			w.at("shop/main", "10.1.0.2"): w.at("store/main", "10.1.0.2"), w.at("store/main", "10.0.0.2"): w.at("shop/main", "10.0.0.2"),
			w.at("shop/main", "fd01::2"): w.at("store/main", "fd01::2"), w.at("store/main", "fd00::2"): w.at("shop/main", "fd00::2"),
		} {
			if e, at := s.Endpoints[seen], s.Endpoints[home]; e.Home != home || e.Identity != at.Identity || e.Node != at.Node || at.Node == "" || e.MAC != at.MAC {
				t.Errorf("%s sees %v as %+v, at home %+v", node, seen, e, at)
			}
		}
		if len(s.Networks) != 2 || len(s.Endpoints) != 8 || len(s.Nodes) != 2 || len(s.Identities) != 2 {
			t.Errorf("%s knows %d Networks, %d endpoints, %d nodes, %d identities", node, len(s.Networks), len(s.Endpoints), len(s.Nodes), len(s.Identities))
		}
	}
	if s := snaps["n3"]; len(s.Networks) != 1 || len(s.Endpoints) != 2 || len(s.Identities) != 1 {
		t.Errorf("the bank's node knows %v", s.Endpoints)
	}
	if st := StatusesOf(w.Input).Links[Key{"shop", "x"}]; !st.Ready || st.Message != "connected" {
		t.Errorf("status %+v", st)
	}
	// Withdrawn consent cuts at once.
	w.edit("store", "main", func(s *v1alpha1.NetworkSpec) { s.Consents = nil })
	snaps, ps = w.settled()
	if len(snaps["n1"].Endpoints) != 2 || !strings.Contains(told(ps, "Link shop/x"), "{project: shop, for: [link]}") {
		t.Errorf("without consent: %v, %v", snaps["n1"].Endpoints, ps)
	}
}

// TestLinkConsent: who may link what.
func TestLinkConsent(t *testing.T) {
	for name, c := range map[string]struct {
		project, domain string // of the consent
		to              string
		want            bool
	}{
		"named":               {"shop", "", "store/main", true},
		"nobody":              {"", "", "store/main", false},
		"another project":     {"bank", "", "store/main", false},
		"every project":       {"*", "", "store/main", true},
		"wrong Domain":        {"shop", "blue", "store/main", false},
		"other Domain":        {"shop", "red", "bank/main", true},
		"other, without":      {"shop", "", "bank/main", false},
		"every of the other":  {"*", "red", "bank/main", true},
		"every, other Domain": {"*", "", "bank/main", false},
	} {
		w := tenants()
		p, n, _ := strings.Cut(c.to, "/")
		if c.project != "" {
			w.consent(p, n, c.project, c.domain)
		}
		w.link("shop", "x", "shop/main", c.to).Ends[1].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.64.0.0/24"}, {Prefix: "fd00::/64", As: "fd64::/64"}}
		_, ps := w.settled()
		if c.to == "bank/main" {
			w.Links[Key{"shop", "x"}].Spec.Ends[0].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.65.0.0/24"}, {Prefix: "fd00::/64", As: "fd65::/64"}}
			_, ps = w.settled()
		}
		if got := len(codes(ps)) == 0; got != c.want {
			t.Errorf("%s: %v", name, ps)
		}
		if !c.want {
			wantCodes(t, codes(ps), codeNoConsent)
		}
	}
	w := tenants()
	w.consent("store", "main", "shop", "", []string{}...)
	w.link("shop", "x", "shop/main", "store/main")
	_, ps := w.settled()
	wantCodes(t, codes(ps), codeNoConsent) // for: [] is for nothing
}

// TestLinkOverlap: what would be seen twice is refused with both owners, the
// later Link by name; translated, both work at the same time.
func TestLinkOverlap(t *testing.T) {
	w := tenants()
	w.consent("bank", "main", "shop", "red")
	w.link("shop", "x", "shop/main", "bank/main")
	snaps, ps := w.settled()
	wantCodes(t, codes(ps), codeLinkOverlap)
	for _, owner := range []string{"Network shop/main", "Network bank/main", "10.0.0.0-10.0.0.255"} {
		if !strings.Contains(told(ps, "Link shop/x"), owner) {
			t.Errorf("%s is not told: %v", owner, ps)
		}
	}
	if len(snaps["n1"].Endpoints) != 2 {
		t.Errorf("an overlapping Link made rows: %v", snaps["n1"].Endpoints)
	}
	spec := w.link("shop", "x", "shop/main", "bank/main")
	spec.Ends[0].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.64.0.0/24"}, {Prefix: "fd00::/64", As: "fd64::/64"}}
	spec.Ends[1].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.65.0.0/24"}, {Prefix: "fd00::/64", As: "fd65::/64"}}
	snaps, ps = w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	for _, node := range []string{"n1", "n3"} {
		if e := snaps[node].Endpoints[w.at("shop/main", "100.65.0.2")]; e.Workload != "ledger" || e.Home != w.at("bank/main", "10.0.0.2") {
			t.Errorf("shop on %s sees %+v", node, e)
		}
		if e := snaps[node].Endpoints[w.at("bank/main", "fd64::2")]; e.Workload != "web" || e.Home != w.at("shop/main", "fd00::2") {
			t.Errorf("bank on %s sees %+v", node, e)
		}
	}
	// Another Link to what is seen under the same addresses is the later one.
	w.network("store", "other", "100.65.0.0/16")
	w.consent("store", "other", "shop", "")
	w.link("shop", "y", "shop/main", "store/other")
	_, ps = w.settled()
	if text := told(ps, "Link"); !strings.Contains(text, "Link shop/y") || !strings.Contains(text, "Network bank/main by Link shop/x") || !strings.Contains(text, "Network store/other") || strings.Contains(text, "Link shop/x: ") {
		t.Errorf("overlap of two Links: %s", text)
	}
	// Without the first, it works.
	delete(w.Links, Key{"shop", "x"})
	if _, ps = w.settled(); len(ps) != 0 {
		t.Errorf("alone: %v", ps)
	}
}

// TestTranslate: addresses keep their host part.
func TestTranslate(t *testing.T) {
	ts := translations([]v1alpha1.Translation{{Prefix: "10.0.0.0/20", As: "100.64.16.0/20"}, {Prefix: "fd00::/61", As: "fd64::8:0:0:0:0/61"}, {Prefix: "10.0.0.0/24", As: "10.0.0.0/25"}})
	if len(ts) != 2 {
		t.Errorf("%d translations", len(ts))
	}
	for from, want := range map[string]string{"10.0.5.7": "100.64.21.7", "10.0.15.255": "100.64.31.255", "10.0.16.1": "10.0.16.1", "fd00::3:1": "fd64::8:0:0:3:1", "fd00:0:0:7::1": "fd64:0:0:f::1"} {
		if got := seenAs(ts, netip.MustParseAddr(from)).String(); got != want {
			t.Errorf("%s is seen as %s, want %s", from, got, want)
		}
	}
	n := &v1alpha1.Network{Spec: v1alpha1.NetworkSpec{Prefixes: []string{"10.0.0.0/24", "10.0.1.0/24"}}}
	for to, bad := range map[string]bool{"100.64.0.0/24": false, "10.0.1.0/24": true, "10.0.0.0/24": false} {
		if got := mixed(n, []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: to}}); (got != "") != bad {
			t.Errorf("seen as %s: %q", to, got)
		}
	}
	if got := fmt.Sprint(prefixesOf(sightOf(n, []v1alpha1.Translation{{Prefix: "10.0.0.0/25", As: "100.64.0.0/25"}}))); got != "[10.0.0.128/25 10.0.1.0/24 100.64.0.0/25]" {
		t.Errorf("seen as %s", got)
	}
}

// TestGuests: an interface in a Network of another project, where that
// consents, with the Policies of the Workload's own project.
func TestGuests(t *testing.T) {
	w := tenants()
	w.attach("n2", "store", "db", "shop/main", 2, "10.0.0.7")
	snaps, ps := w.settled()
	g := snaps["n2"].Grants[snapshot.AttachmentKey{Project: "store", Workload: "db", Network: "shop/main"}]
	if !strings.Contains(g.Error, "{project: store, for: [attach]}") || codes(ps)[0] != codeRefused {
		t.Errorf("without consent: %+v, %v", g, ps)
	}
	w.consent("shop", "main", "store", "", v1alpha1.ConsentAttach)
	w.Policies[Key{"store", "closed"}] = &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "store", Name: "closed"}, Spec: v1alpha1.PolicySpec{Tier: "project",
		Subject: &v1alpha1.Subject{Labels: app("db"), Networks: []string{"shop/main"}}, Ingress: []v1alpha1.Rule{{Action: "allow", From: []v1alpha1.Peer{{Project: "shop", Labels: app("web")}}}}}}
	snaps, ps = w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	s := snaps["n2"]
	if g = s.Grants[g.AttachmentKey]; g.Error != "" || g.VNI != w.vni("shop/main") {
		t.Errorf("granted %+v", g)
	}
	e := s.Endpoints[w.at("shop/main", "10.0.0.7")]
	if e.Project != "store" || s.Identities[e.Identity].Project != "store" {
		t.Errorf("endpoint %+v is %+v", e, s.Identities[e.Identity])
	}
	web := s.Endpoints[w.at("shop/main", "10.0.0.2")].Identity
	here, there := s.Policies[snapshot.PolicyKey{VNI: e.Addr.VNI, Identity: e.Identity}], s.Policies[snapshot.PolicyKey{VNI: w.vni("store/main"), Identity: e.Identity}]
	if len(here.Rules) != 1 || !slices.Equal(here.Rules[0].Peers[0].Identities, []policy.Identity{web}) || here.Default.ID != "default/shop/main/open" {
		t.Errorf("set in shop/main: %+v", here)
	}
	if len(there.Rules) != 0 {
		t.Errorf("set in store/main: %+v", there)
	}
}
