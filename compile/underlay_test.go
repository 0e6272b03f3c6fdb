package compile

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

func (w world) born(project, name string, at int64) {
	n := w.Networks[Key{project, name}].DeepCopy()
	n.CreationTimestamp = metav1.NewTime(time.Unix(at, 0))
	w.Networks[Key{project, name}] = n
}

// TestUnderlayOwners: who may manage a Domain writes addresses of the underlay,
// but takes none from a node, from another Domain's pool or from its FloatingIPs.
func TestUnderlayOwners(t *testing.T) {
	w := underlay()
	w.born("store", "public", 1)
	w.float("shop", "vip", "store/public", v1alpha1.FloatingTarget{Workload: "web"})
	w.network("bank", "mine", "203.0.113.0/24").Spec.External = true
	w.born("bank", "mine", 2)
	w.float("bank", "vip", "bank/mine", v1alpha1.FloatingTarget{Workload: "ledger"}).Address = "203.0.113.1"
	snaps, ps := w.settled()
	key := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: snapshot.Outside, IP: w.at("shop/main", "203.0.113.1").IP}}
	if s := snaps["n1"].Services[key]; s.Project != "shop" || !strings.Contains(told(ps, "FloatingIP bank/vip"), codeVIPTaken) {
		t.Errorf("the address is of %+v; %v", s, ps)
	}
	// Another one is given, and stays when the older Network goes.
	w.float("bank", "vip", "bank/mine", v1alpha1.FloatingTarget{Workload: "ledger"})
	if _, ps = w.settled(); len(ps) != 0 || StatusesOf(w.Input).FloatingIPs[Key{"bank", "vip"}].Address != "203.0.113.16" {
		t.Errorf("%v, %+v", ps, StatusesOf(w.Input).FloatingIPs[Key{"bank", "vip"}])
	}
	leave := func(project, a string) string {
		w.edit(project, "main", func(s *v1alpha1.NetworkSpec) {
			s.Outside = &v1alpha1.Outside{Mode: v1alpha1.OutsideGateway, Gateways: []string{"n1"}, Addresses: []string{a}}
		})
		w.born(project, "main", 3)
		snaps, ps := w.settled()
		if x := snaps["n1"].Externals[w.at("shop/main", a).IP]; strings.HasPrefix(x.Owner, "Network") != (len(ps) == 0) {
			t.Errorf("%s: %+v with %v", a, x, ps)
		}
		return told(ps, "Network "+project+"/main")
	}
	for a, why := range map[string]string{w.Nodes["n2"].Spec.Address: "the address of a node", "203.0.113.1": "one of the FloatingIPs of Network store/public"} {
		w.consentless("store", "public")
		if got := leave("bank", a); !strings.Contains(got, codeEgressTaken) || !strings.Contains(got, why) {
			t.Errorf("%s: %s", a, got)
		}
	}
	if got := leave("bank", "203.0.113.77"); got != "" { // its own pool
		t.Error(got)
	}
	if got := leave("bank", "198.51.100.9"); got != "" { // nobody's
		t.Error(got)
	}
}

func (w world) consentless(project, name string) {
	w.edit(project, name, func(s *v1alpha1.NetworkSpec) {
		s.Consents = slices.DeleteFunc(s.Consents, func(c v1alpha1.Consent) bool { return c.Project == "bank" })
	})
}

// TestFloatingNames: a guest of a pool gives nobody else's name to itself.
func TestFloatingNames(t *testing.T) {
	w := tenants()
	w.edit("store", "main", func(s *v1alpha1.NetworkSpec) { s.Floating = []string{"10.1.0.64/28"} })
	w.consent("store", "main", "bank", "blue", v1alpha1.ConsentFloatingIP)
	w.float("bank", "vip", "store/main", v1alpha1.FloatingTarget{Workload: "ledger"}).Names = []string{
		"db.store.moire.internal", "moire.internal", "Store.Moire.internal.", "x.bank.moire.internal", "bank.moire.internal", "www.example.com"}
	snaps, ps := w.settled()
	s := snaps["n2"].Services[snapshot.ServiceKey{Addr: w.at("store/main", "10.1.0.64")}]
	if !slices.Equal(s.Names, []string{"bank.moire.internal.", "www.example.com.", "x.bank.moire.internal."}) {
		t.Errorf("names %v", s.Names)
	}
	if got := told(ps, "FloatingIP"); strings.Count(got, codeForeignName) != 3 {
		t.Errorf("problems %s", got)
	}
}

// TestLinkAge: a younger Link does not cut an older one, whatever its name.
func TestLinkAge(t *testing.T) {
	w := tenants()
	w.consent("store", "main", "shop", "")
	w.consent("store", "main", "bank", "blue")
	w.link("shop", "x", "shop/main", "store/main")
	w.link("bank", "a", "bank/main", "store/main") // with the prefixes of shop/main
	w.Links[Key{"shop", "x"}].CreationTimestamp = metav1.NewTime(time.Unix(1, 0))
	w.Links[Key{"bank", "a"}].CreationTimestamp = metav1.NewTime(time.Unix(2, 0))
	_, ps := w.settled()
	if a, x := told(ps, "Link bank/a"), told(ps, "Link shop/x"); !strings.Contains(a, codeLinkOverlap) || x != "" {
		t.Errorf("the younger: %s, the older: %s", a, x)
	}
}

// TestEndpointsNotHere: what is behind a Service is never the node, its link or
// its cloud.
func TestEndpointsNotHere(t *testing.T) {
	w := tenants()
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Outside = &v1alpha1.Outside{Mode: v1alpha1.OutsideNode} })
	w.service("shop", "x", v1alpha1.ServiceSpec{Endpoints: []v1alpha1.ServiceEndpoint{{Address: "127.0.0.1"}, {Address: "169.254.169.254"}, {Address: "192.0.2.1"}, {Address: "fe80::1"}}})
	snaps, ps := w.settled()
	if got := told(ps, "Service shop/x"); strings.Count(got, codeOutside) != 3 {
		t.Errorf("problems %s", got)
	}
	want(t, "x", rows(snaps["n1"], "x"), "2/10.0.0.254/6:80 2/192.0.2.1:8080*1@", "2/fd00::ffff:ffff:ffff:ffff/6:80")
}
