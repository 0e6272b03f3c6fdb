package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

func TestLimits(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, "1000": 1000, "64k": 64_000, "100M": 100_000_000, "1.5G": 1_500_000_000, "0.5k": 500, "x": 0, "1e400": 0, "k": 0} {
		if got := limitOf(&v1alpha1.Limit{Egress: text}).Egress; got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
	w := shop()
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Limit = &v1alpha1.Limit{Egress: "1G"} })
	w.workload("shop", "web", "n1", "main").Spec.Interfaces[0].Limit = &v1alpha1.Limit{Egress: "10M", Ingress: "20M"}
	w.attach("n1", "shop", "web", "main", 1)
	snaps, _ := w.settled()
	if g, _ := grant(snaps["n1"], "web"); g.Limit != (snapshot.Limit{Egress: 10_000_000, Ingress: 20_000_000}) {
		t.Errorf("granted %+v", g)
	}
	if n := snaps["n1"].Networks[1]; n.Limit != (snapshot.Limit{Egress: 1_000_000_000}) {
		t.Errorf("network %+v", n)
	}
}

func TestNames(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2")
	snaps, _ := w.settled()
	if got, want := fmt.Sprintf("%+v", snaps["n1"].Names[1]), "{VNI:1 Zone:moire.internal Search:[shop.moire.internal moire.internal] TTL:5s Order:random Records:[] Delegations:[] Forward:[] NoForward:false Metadata:}"; got != want {
		t.Errorf("by default %s", got)
	}
	if len(snaps["n2"].Names) != 0 {
		t.Errorf("where nobody is: %v", snaps["n2"].Names)
	}
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) {
		s.Metadata = "http://192.0.2.1:80"
		s.DNS = &v1alpha1.DNS{Zone: "Shop.Example", Search: []string{"example"}, TTLSeconds: 30, Order: "fixed", NoForward: true,
			Records:     []v1alpha1.DNSRecord{{Name: "WWW", Type: "CNAME", Data: "web"}, {Name: "Example.com.", Type: "MX", Data: "10 mail.example.com.", TTLSeconds: 60}},
			Delegations: []v1alpha1.Delegation{{Zone: "Corp.Example.", Servers: []string{"192.0.2.5", "[2001:db8::5]:5353"}}}, Forward: []string{"2001:db8::1", "nonsense"}}
	})
	snaps, ps := w.settled()
	d := snaps["n1"].Names[1]
	if got, want := fmt.Sprintf("%+v", d), "{VNI:1 Zone:shop.example Search:[shop.shop.example shop.example example] TTL:30s Order:fixed "+
		"Records:[{Name:www.shop.shop.example. Type:CNAME Data:web TTL:30s} {Name:example.com. Type:MX Data:10 mail.example.com. TTL:1m0s}] "+
		"Delegations:[{Zone:corp.example Servers:[192.0.2.5:53 [2001:db8::5]:5353]}] Forward:[[2001:db8::1]:53] NoForward:true Metadata:http://192.0.2.1:80}"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if d.TTL != 30*time.Second || !strings.Contains(told(ps, "Network"), "spec.dns.forward[1]") {
		t.Errorf("problems %v", ps)
	}
}

func TestFirewall(t *testing.T) {
	w := shop()
	set := func(mode, risk string, rules ...v1alpha1.FirewallRule) (*snapshot.Snapshot, []v1alpha1.Problem) {
		n := w.Nodes["n1"].DeepCopy()
		n.Annotations = map[string]string{v1alpha1.AcceptRisk: risk}
		n.Spec.Firewall = &v1alpha1.Firewall{Mode: mode, Allow: rules}
		w.Nodes["n1"] = n
		snaps, ps := w.settled()
		return snaps["n1"], ps
	}
	ssh := v1alpha1.FirewallRule{Name: "ssh", From: []string{"192.0.2.0/24", "2001:db8::/32"}, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 22}}}
	web := v1alpha1.FirewallRule{Name: "web", Ports: []v1alpha1.Port{{Port: 80, EndPort: 90}}}
	if s, _ := set("off", "", ssh); s.Firewall != nil {
		t.Errorf("off: %+v", s.Firewall)
	}
	s, ps := set("enforce", "", ssh, web)
	if got := fmt.Sprintf("%+v", *s.Firewall); got != "{Audit:false AcceptLockOut:false Allow:[{Name:ssh From:[192.0.2.0/24 2001:db8::/32] Ports:[{Protocol:6 First:22 Last:22}]} {Name:web From:[] Ports:[{Protocol:6 First:80 Last:90}]}]}" || len(ps) != 0 {
		t.Errorf("%s, %v", got, ps)
	}
	if s, ps = set("enforce", "", web); !s.Firewall.Audit || !slices.Equal(codes(ps), []string{codeLockOut}) {
		t.Errorf("locks out: %+v, %v", s.Firewall, ps)
	}
	if s, ps = set("enforce", "mass-delete, lock-out", web); s.Firewall.Audit || !s.Firewall.AcceptLockOut || len(ps) != 0 || !s.AcceptMassDelete {
		t.Errorf("accepted: %+v, %v", s.Firewall, ps)
	}
	if s, _ = set("audit", "lock-out"); !s.Firewall.Audit || s.AcceptMassDelete {
		t.Errorf("audit: %+v", s.Firewall)
	}
}

// TestOfflineReach: intent alone is a world with addresses in which all is well.
func TestOfflineReach(t *testing.T) {
	var objects []runtime.Object
	w, _ := chained()
	w.Links[Key{"shop", "x"}].Spec.Via[0].Health = &v1alpha1.HealthCheck{Type: "icmp"}
	w.edit("store", "main", func(s *v1alpha1.NetworkSpec) {
		s.Floating, s.Outside = []string{"10.1.0.64/28"}, &v1alpha1.Outside{}
		s.Consents = append(s.Consents, v1alpha1.Consent{Project: "bank", Domain: "blue", For: []string{"floatingIP"}})
	})
	w.service("store", "db", v1alpha1.ServiceSpec{Selector: app("db"), Health: &v1alpha1.HealthCheck{Port: 80}})
	w.service("store", "mail", v1alpha1.ServiceSpec{ExternalName: "mail.example.com", Networks: []v1alpha1.ServiceNetwork{{Network: "main", Addresses: []string{"10.1.0.2"}}}})
	w.float("bank", "vip", "store/main", v1alpha1.FloatingTarget{Workload: "ledger"})
	for p, d := range w.Projects {
		objects = append(objects, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: p, Labels: map[string]string{v1alpha1.DomainLabel: d}}})
	}
	for _, d := range w.Domains {
		objects = append(objects, d)
	}
	for _, n := range w.Networks {
		objects = append(objects, n)
	}
	for _, l := range w.Links {
		objects = append(objects, l)
	}
	for _, s := range w.Services {
		objects = append(objects, s)
	}
	for _, f := range w.FloatingIPs {
		objects = append(objects, f)
	}
	for _, x := range []struct{ project, name, node, app, a, b string }{
		{"shop", "web", "n1", "web", "main", ""}, {"store", "db", "n2", "db", "main", ""}, {"bank", "ledger", "n3", "ledger", "main", ""},
		{"shop", "fw1", "n1", "fw", "main", "middle"}, {"shop", "ids1", "n2", "ids", "middle", "store/main"},
	} {
		o := w.workload(x.project, x.name, x.node, x.a)
		o.Labels["app"] = x.app
		if x.b != "" {
			o.Spec.Interfaces = append(o.Spec.Interfaces, v1alpha1.Interface{Network: x.b})
		}
		objects = append(objects, o)
	}
	in := Offline(objects...)
	snaps, ps := Compile(in)
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	if n := NeedsOf(in); len(n.Addresses)+len(n.VNIs)+len(n.Identities)+len(n.NodeNumbers) != 0 {
		t.Errorf("needs %+v", n)
	}
	st := StatusesOf(in)
	if s := st.Services[Key{"store", "db"}]; s.Backends != "1/1" || len(s.Addresses) != 2 {
		t.Errorf("db: %+v", s)
	}
	if s := st.Services[Key{"store", "mail"}]; s.Addresses[0].Address != "10.1.0.2" {
		t.Errorf("mail: %+v", s)
	}
	if s := st.FloatingIPs[Key{"bank", "vip"}]; s.Address != "10.1.0.64" {
		t.Errorf("vip: %+v", s)
	}
	if l := st.Links[Key{"shop", "x"}]; !l.Ready {
		t.Errorf("link: %+v", l)
	}
	again, _ := Compile(Offline(objects...))
	slices.Reverse(objects)
	reversed, _ := Compile(Offline(objects...))
	if dump(snaps) != dump(reversed) || dump(snaps) != dump(again) {
		t.Error("another order gives another world")
	}
}
