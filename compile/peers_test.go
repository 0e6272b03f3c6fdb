package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// plaza is shop/main, linked with store/main of its Domain and with bank/main
// of another one, which is seen as 100.64.0.0/24.
func plaza() world {
	w := tenants()
	w.consent("store", "main", "shop", "")
	w.consent("bank", "main", "shop", "red")
	w.edit("bank", "main", func(s *v1alpha1.NetworkSpec) { s.Prefixes = s.Prefixes[:1] })
	w.link("shop", "x", "shop/main", "store/main")
	l := w.link("shop", "y", "shop/main", "bank/main")
	l.Ends[0].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.65.0.0/24"}}
	l.Ends[1].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.64.0.0/24"}}
	w.attach("n1", "shop", "api", "main", 3, "10.0.0.3")
	w.attach("n2", "store", "web", "main", 3, "10.1.0.3")
	return w
}

func (w world) policy(project, name, tier string, egress bool, rules ...v1alpha1.Rule) {
	p := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}, Spec: v1alpha1.PolicySpec{Tier: tier}}
	if egress {
		p.Spec.Egress = rules
	} else {
		p.Spec.Ingress = rules
	}
	w.Policies[Key{project, name}] = p
}

// rulesOf is the set of a Workload, as text with names for identities.
func rulesOf(t *testing.T, w world, s *snapshot.Snapshot, at, ip string, dir policy.Direction) string {
	t.Helper()
	e, ok := s.Endpoints[w.at(at, ip)]
	if !ok {
		t.Fatalf("nobody is at %s %s", at, ip)
	}
	set := s.Policies[snapshot.PolicyKey{VNI: e.Addr.VNI, Identity: e.Identity, Direction: dir}]
	var out []string
	for _, r := range set.Rules {
		text := r.Action.String()
		for _, p := range r.Peers {
			text += " "
			if p.Anyone {
				text += "any"
			}
			for i, n := range p.Identities {
				id := s.Identities[n]
				if i > 0 {
					text += ","
				}
				text += id.Project + "/" + id.Labels[0].Value
			}
			if p.CIDR.IsValid() {
				text += "@" + p.CIDR.String()
			}
			text += p.Name
			for _, x := range p.Except {
				text += "-" + x.String()
			}
		}
		for _, q := range r.Ports {
			text += fmt.Sprintf(" %d:%d-%d", q.Protocol, q.First, q.Last)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// TestPeersAcrossLinks: who a peer is, where a Network sees three projects of
// two Domains.
func TestPeersAcrossLinks(t *testing.T) {
	for name, c := range map[string]struct {
		tier string
		peer v1alpha1.Peer
		want string
	}{
		"own labels":          {"project", v1alpha1.Peer{Labels: app("web")}, "shop/web"},
		"all of its own":      {"project", v1alpha1.Peer{Labels: &metav1.LabelSelector{}}, "shop/api,shop/web"},
		"another project":     {"project", v1alpha1.Peer{Project: "store"}, "store/db,store/web"},
		"labels there":        {"project", v1alpha1.Peer{Project: "store", Labels: app("web")}, "store/web"},
		"every of the Domain": {"project", v1alpha1.Peer{Project: "*", Labels: app("web")}, "shop/web,store/web"},
		"all of the Domain":   {"project", v1alpha1.Peer{Project: "*"}, "shop/api,shop/web,store/db,store/web"},
		"another Domain":      {"project", v1alpha1.Peer{Project: "bank"}, "bank/ledger"},
		"a Network":           {"project", v1alpha1.Peer{Project: "store", Network: "main"}, "store/db,store/web@10.1.0.0/24 store/db,store/web@fd01::/64"},
		"its own Network":     {"project", v1alpha1.Peer{Network: "main", Labels: app("web")}, "shop/web@10.0.0.0/24 shop/web@fd00::/64"},
		"as it is seen":       {"project", v1alpha1.Peer{Project: "bank", Network: "main"}, "bank/ledger@100.64.0.0/24"},
		"by its full name":    {"project", v1alpha1.Peer{Project: "store", Network: "store/main", Labels: app("db")}, "store/db@10.1.0.0/24 store/db@fd01::/64"},
		"not linked":          {"project", v1alpha1.Peer{Network: "other"}, ""},
		"not met":             {"project", v1alpha1.Peer{Project: "stray"}, ""},
		"by address":          {"project", v1alpha1.Peer{CIDR: "10.1.0.0/28", Except: []string{"10.1.0.4/32"}}, "any@10.1.0.0/28-10.1.0.4/32"},
		"address and more":    {"project", v1alpha1.Peer{Project: "store", Network: "main", CIDR: "10.1.0.0/28", Except: []string{"10.1.0.4/32"}}, "store/db,store/web@10.1.0.0/28-10.1.0.4/32"},
		"address of nobody":   {"project", v1alpha1.Peer{CIDR: "192.168.0.0/24"}, ""},
		"admin":               {"admin", v1alpha1.Peer{Labels: app("web")}, "shop/web,store/web"},
		"admin, a Network":    {"admin", v1alpha1.Peer{Network: "main", Labels: app("db")}, "store/db@10.1.0.0/24 store/db@fd01::/64"},
		"admin, named":        {"admin", v1alpha1.Peer{Project: "bank", Labels: app("ledger")}, "bank/ledger"},
	} {
		w := plaza()
		action := map[string]string{"project": "allow", "admin": "accept"}[c.tier]
		w.policy("shop", "p", c.tier, false, v1alpha1.Rule{Action: action, From: []v1alpha1.Peer{c.peer}})
		snaps, ps := w.settled()
		got := rulesOf(t, w, snaps["n1"], "shop/main", "10.0.0.3", policy.Ingress)
		if c.want = strings.TrimSpace("allow " + c.want); c.want == "allow" {
			c.want = "allow " // nobody
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if missed := strings.Contains(told(ps, "Policy"), codeNeverMatches); missed != (c.want == "allow ") {
			t.Errorf("%s: problems %v", name, ps)
		}
	}
}

// TestPeersSeenFromTheOtherSide: addresses are those that the judged Workload
// sees, and an admin of one Domain does not speak for another.
func TestPeersSeenFromTheOtherSide(t *testing.T) {
	w := plaza()
	w.policy("bank", "p", "project", false, v1alpha1.Rule{Action: "allow", From: []v1alpha1.Peer{{Project: "shop", Network: "main", Labels: app("web")}}}, v1alpha1.Rule{Action: "deny", From: []v1alpha1.Peer{{Project: "*"}}})
	w.policy("shop", "admin", "admin", false, v1alpha1.Rule{Action: "deny"})
	snaps, _ := w.settled()
	if got := rulesOf(t, w, snaps["n3"], "bank/main", "10.0.0.2", policy.Ingress); got != "deny bank/ledger; allow shop/web@100.65.0.0/24 shop/web@fd00::/64" {
		t.Errorf("the bank: %s", got)
	}
	if got := rulesOf(t, w, snaps["n2"], "store/main", "10.1.0.2", policy.Ingress); got != "deny" {
		t.Errorf("store: %s", got)
	}
}

// TestPeersWithAWayOut: who comes from or goes outside is nobody's Workload.
func TestPeersWithAWayOut(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.2")
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Outside = &v1alpha1.Outside{} })
	w.policy("shop", "p", "project", true, v1alpha1.Rule{Action: "allow", To: []v1alpha1.Peer{{Network: "main"}}}, v1alpha1.Rule{Action: "allow", To: []v1alpha1.Peer{{CIDR: "198.51.100.0/24"}, {Name: "*.Example.COM."}}})
	snaps, ps := w.settled()
	if got := rulesOf(t, w, snaps["n1"], "shop/main", "10.0.0.2", policy.Egress); got != "allow shop/web@10.0.0.0/24; allow any@198.51.100.0/24 *.example.com" || len(ps) != 0 {
		t.Errorf("%s, %v", got, ps)
	}
}

// TestMatchEqual: one rule for every environment, and for nobody without.
func TestMatchEqual(t *testing.T) {
	w := plaza()
	label := func(node, workload string, labels ...string) {
		for i := range w.Reports[node].Attachments {
			if a := &w.Reports[node].Attachments[i]; a.Workload == workload {
				a.Labels = []snapshot.Label{{Key: "app", Value: workload}}
				for j := 0; j+1 < len(labels); j += 2 {
					a.Labels = append(a.Labels, snapshot.Label{Key: labels[j], Value: labels[j+1]})
				}
			}
		}
	}
	label("n1", "web", "env", "prod")
	label("n1", "api", "env", "test")
	label("n2", "db", "env", "prod")
	label("n2", "web", "env", "test")
	label("n3", "ledger", "env", "prod")
	w.attach("n1", "shop", "bare", "main", 4, "10.0.0.4")
	w.policy("shop", "p", "project", true,
		v1alpha1.Rule{Action: "allow", To: []v1alpha1.Peer{{Project: "*"}}, MatchEqual: []string{"env"}},
		v1alpha1.Rule{Action: "allow", MatchEqual: []string{"env"}},
		v1alpha1.Rule{Action: "allow", To: []v1alpha1.Peer{{Project: "bank"}}, MatchEqual: []string{"env"}},
		v1alpha1.Rule{Action: "allow", To: []v1alpha1.Peer{{CIDR: "10.1.0.0/24"}}, MatchEqual: []string{"env"}})
	snaps, _ := w.settled()
	for ip, want := range map[string]string{
		"10.0.0.2": "allow shop/web,store/db; allow shop/web,store/db; allow bank/ledger; allow shop/web,store/db@10.1.0.0/24",
		"10.0.0.3": "allow shop/api,store/web; allow shop/api,store/web; allow ; allow shop/api,store/web@10.1.0.0/24",
		"10.0.0.4": "allow ; allow ; allow ; allow ",
	} {
		if got := rulesOf(t, w, snaps["n1"], "shop/main", ip, policy.Egress); got != want {
			t.Errorf("%s: %s\nwant %s", ip, got, want)
		}
	}
}

// TestPeerService: whoever is behind a Service, at its target ports.
func TestPeerService(t *testing.T) {
	w := plaza()
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Outside = &v1alpha1.Outside{} })
	w.service("shop", "api", v1alpha1.ServiceSpec{Selector: app("api"), Ports: []v1alpha1.ServicePort{{Port: 80, TargetPort: 8080}, {Port: 53, Protocol: "UDP"}}})
	w.service("store", "db", v1alpha1.ServiceSpec{Endpoints: []v1alpha1.ServiceEndpoint{{Address: "10.1.0.2"}}, Ports: []v1alpha1.ServicePort{{Port: 5432}}})
	w.service("shop", "mail", v1alpha1.ServiceSpec{ExternalName: "mail.example.com", Ports: []v1alpha1.ServicePort{{Port: 25}}})
	w.Resolved["mail.example.com"] = []netip.Addr{netip.MustParseAddr("198.51.100.25")}
	for name, c := range map[string]struct {
		rule v1alpha1.Rule
		want string
	}{
		"all ports":     {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "api"}}}, "allow shop/api 6:8080-8080 17:53-53"},
		"one port":      {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "api"}}, Ports: []v1alpha1.Port{{Protocol: "UDP", Port: 1, EndPort: 100}}}, "allow shop/api 17:53-53"},
		"no port":       {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "api"}}, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 80}}}, "allow  6:80-80"},
		"another's":     {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "db", Project: "store"}}}, "allow any@10.1.0.2/32 6:5432-5432"},
		"outside":       {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "mail"}}}, "allow any@198.51.100.25/32 6:25-25"},
		"among others":  {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "api"}, {Labels: app("web")}, {Service: "mail"}}}, "allow shop/web; allow shop/api 6:8080-8080 17:53-53; allow any@198.51.100.25/32 6:25-25"},
		"none":          {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "gone"}}}, "allow "},
		"any of Domain": {v1alpha1.Rule{To: []v1alpha1.Peer{{Service: "db", Project: "*"}}}, "allow any@10.1.0.2/32 6:5432-5432"},
	} {
		c.rule.Action = "allow"
		w.policy("shop", "p", "project", true, c.rule)
		snaps, ps := w.settled()
		if got := rulesOf(t, w, snaps["n1"], "shop/main", "10.0.0.2", policy.Egress); got != c.want {
			t.Errorf("%s: %q, want %q; %v", name, got, c.want, ps)
		}
		if gone := strings.Contains(told(ps, "Policy"), codeNoService); gone != (name == "none") {
			t.Errorf("%s: %v", name, ps)
		}
	}
}

// TestPeersOfFloatingIPs: who calls by a FloatingIP is known by who it is and
// where it calls from, also where the addresses are the target's own.
func TestPeersOfFloatingIPs(t *testing.T) {
	w := tenants()
	w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Floating = []string{"10.0.0.64/28"} })
	w.consent("shop", "main", "bank", "blue", v1alpha1.ConsentFloatingIP)
	w.float("bank", "vip", "shop/main", v1alpha1.FloatingTarget{Workload: "ledger"})
	w.policy("bank", "p", "project", false, v1alpha1.Rule{Action: "allow", From: []v1alpha1.Peer{{Project: "shop", Network: "main"}}, Ports: []v1alpha1.Port{{Port: 1}}}, v1alpha1.Rule{Action: "allow", From: []v1alpha1.Peer{{Project: "shop", Labels: app("web")}}})
	w.policy("shop", "p", "project", true, v1alpha1.Rule{Action: "allow", To: []v1alpha1.Peer{{Project: "bank"}}})
	snaps, ps := w.settled()
	if len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	if got := rulesOf(t, w, snaps["n3"], "bank/main", "10.0.0.2", policy.Ingress); got != "allow shop/web@10.0.0.0/24 shop/web@fd00::/64 6:1-1; allow shop/web" {
		t.Errorf("the target: %s", got)
	}
	if got := rulesOf(t, w, snaps["n1"], "shop/main", "10.0.0.2", policy.Egress); got != "allow bank/ledger" {
		t.Errorf("the caller: %s", got)
	}
}
