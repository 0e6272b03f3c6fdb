package explain_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Networks of the hand-written snapshots.
const (
	front  snapshot.VNI = 1 // shop, has a way out by a gateway
	back   snapshot.VNI = 2 // bank, linked with front: translated
	vault  snapshot.VNI = 3 // bank, linked with front through functions
	middle snapshot.VNI = 4 // between the two functions
	pool   snapshot.VNI = 5 // has a FloatingIP for front
	plain  snapshot.VNI = 6 // shop, leaves by each node itself
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func on(v snapshot.VNI, s string) snapshot.Addr { return snapshot.Addr{VNI: v, IP: ip(s)} }

// world of nodes n1, n2 and gw that all know the same, which the real ones do
// not; what each says is its own matter.
type world map[string]*snapshot.Snapshot

func newWorld() world {
	w := world{}
	for i, name := range []string{"n1", "n2", "gw"} {
		w[name] = &snapshot.Snapshot{Node: name, Nodes: map[string]snapshot.Node{}, Networks: map[snapshot.VNI]snapshot.Network{},
			Identities: map[policy.Identity]snapshot.Identity{}, Endpoints: map[snapshot.Addr]snapshot.Endpoint{},
			Policies: map[snapshot.PolicyKey]policy.Set{}, Chains: map[snapshot.ChainKey]snapshot.Chain{},
			Services: map[snapshot.ServiceKey]snapshot.Service{}, Exits: map[snapshot.VNI]snapshot.Exit{},
			Masquerades: map[snapshot.Addr]snapshot.Masquerade{}, Externals: map[netip.Addr]snapshot.External{}, Names: map[snapshot.VNI]snapshot.DNS{}}
		defer func() {
			for _, s := range w {
				s.Nodes[name] = snapshot.Node{Name: name, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
			}
		}()
	}
	return w
}

func (w world) all(do func(*snapshot.Snapshot)) {
	for _, s := range w {
		do(s)
	}
}

func (w world) network(v snapshot.VNI, project, name, domain string, prefixes ...string) {
	n := snapshot.Network{VNI: v, Project: project, Name: name, Domain: domain}
	for _, p := range prefixes {
		n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(p))
	}
	w.all(func(s *snapshot.Snapshot) { s.Networks[v] = n })
}

// at puts a Workload somewhere, open in both directions.
func (w world) at(a snapshot.Addr, id policy.Identity, project, name, node string) snapshot.Endpoint {
	e := snapshot.Endpoint{Addr: a, Project: project, Workload: name, Identity: id, Node: node, MAC: snapshot.MAC{2, 0, 0, 0, byte(a.VNI), byte(id)}}
	w.all(func(s *snapshot.Snapshot) {
		s.Endpoints[a] = e
		s.Identities[id] = snapshot.Identity{Number: id, Project: project, SPIFFE: "spiffe://" + s.Networks[a.VNI].Domain + "/ns/" + project + "/sa/default"}
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			s.Policies[snapshot.PolicyKey{VNI: a.VNI, Identity: id, Direction: d}] = policy.Set{
				Default: policy.DefaultRule{ID: policy.RuleID("default/" + project + "/" + s.Networks[a.VNI].Name + "/open"), Allow: true}}
		}
	})
	return e
}

// seen is how a linked Network sees an Endpoint.
func (w world) seen(e snapshot.Endpoint, as snapshot.Addr, chain snapshot.ChainKey) {
	e.Home, e.Addr, e.Chain = e.Addr, as, chain
	w.all(func(s *snapshot.Snapshot) { s.Endpoints[as] = e })
}

func (w world) rules(a snapshot.Addr, d policy.Direction, rules ...policy.Rule) {
	w.all(func(s *snapshot.Snapshot) {
		k := snapshot.PolicyKey{VNI: a.VNI, Identity: s.Endpoints[a].Identity, Direction: d}
		set := s.Policies[k]
		set.Rules, set.Isolated = rules, policy.RuleID("isolated/"+s.Endpoints[a].Project+"/p/"+d.String())
		s.Policies[k] = set
	})
}

func (w world) service(x snapshot.Service) {
	w.all(func(s *snapshot.Snapshot) { s.Services[x.ServiceKey] = x })
}

func rule(id string, a policy.Action, peers []policy.Peer, ports ...policy.PortRange) policy.Rule {
	return policy.Rule{ID: policy.RuleID(id), Tier: policy.Project, Action: a, Peers: peers, Ports: ports}
}

func tcp(p uint16) policy.PortRange {
	return policy.PortRange{Protocol: policy.TCP, First: p, Last: p}
}

// whole is everything at once.
func whole() world {
	w := newWorld()
	w.network(front, "shop", "front", "red", "10.0.0.0/24", "fd00::/64")
	w.network(back, "bank", "back", "blue", "10.0.0.0/24")
	w.network(vault, "bank", "vault", "blue", "10.3.0.0/24")
	w.network(middle, "shop", "middle", "red", "10.4.0.0/24")
	w.network(pool, "shop", "pool", "red", "10.0.0.0/24")
	w.network(plain, "shop", "plain", "red", "10.6.0.0/24")
	web := w.at(on(front, "10.0.0.2"), 1, "shop", "web", "n1")
	w.at(on(front, "fd00::2"), 1, "shop", "web", "n1")
	w.at(on(front, "10.0.0.3"), 2, "shop", "blue", "n1")
	w.at(on(front, "10.0.0.4"), 3, "shop", "green", "n2")
	w.at(on(plain, "10.6.0.2"), 1, "shop", "web", "n1")
	w.at(on(plain, "10.6.0.3"), 8, "shop", "cron", "n1")
	w.at(on(pool, "10.0.0.2"), 9, "shop", "caller", "n2")
	// Services and FloatingIPs.
	vip := func(port uint16, backends ...snapshot.Backend) snapshot.Service {
		return snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: on(front, "10.0.0.200"), Protocol: policy.TCP, Port: port}, Project: "shop", Name: "api", Backends: backends}
	}
	b := func(a snapshot.Addr, port uint16, node string) snapshot.Backend {
		return snapshot.Backend{Addr: a, Port: port, Weight: 1, Node: node}
	}
	w.service(vip(80, b(on(front, "10.0.0.3"), 8080, "n1"), b(on(front, "10.0.0.4"), 8080, "n2")))
	w.service(vip(81, b(on(front, "10.0.0.2"), 0, "n1")))
	w.service(vip(82))
	w.service(vip(25, snapshot.Backend{Addr: on(front, "203.0.113.25"), Weight: 1}))
	w.service(snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: on(pool, "10.0.0.100"), Protocol: policy.TCP, Port: 80}, Project: "shop", Name: "swap", Floating: true,
		Names: []string{"shop.example.com."}, Backends: []snapshot.Backend{b(on(front, "10.0.0.3"), 8080, "n1"), b(on(front, "10.0.0.4"), 8080, "n2")}})
	w.service(snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: on(snapshot.Outside, "198.51.100.7")}, Project: "shop", Name: "public", Floating: true,
		Backends: []snapshot.Backend{b(on(front, "10.0.0.4"), 0, "n2")}})
	w.rules(on(front, "10.0.0.4"), policy.Ingress, rule("policy/shop/green/ingress/web", policy.Allow, []policy.Peer{{Identities: []policy.Identity{1}}}, tcp(8080)),
		rule("policy/shop/green/ingress/world", policy.Allow, []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix("203.0.113.0/24")}}, tcp(443)))
	// A Link with translation.
	db := w.at(on(back, "10.0.0.2"), 4, "bank", "db", "n2")
	w.seen(db, on(front, "100.64.2.2"), snapshot.ChainKey{})
	w.seen(web, on(back, "100.64.1.2"), snapshot.ChainKey{})
	w.rules(on(back, "10.0.0.2"), policy.Ingress, rule("policy/bank/db/ingress/shop", policy.Allow,
		[]policy.Peer{{Identities: []policy.Identity{1}, CIDR: netip.MustParsePrefix("100.64.1.0/24")}}, tcp(5432)))
	w.chains(web)
	w.outside()
	return w
}

// chains: front -> fw (routed) -> middle -> nat -> vault.
func (w world) chains(web snapshot.Endpoint) {
	safe := w.at(on(vault, "10.3.0.2"), 5, "bank", "safe", "n2")
	w.at(on(front, "10.0.0.9"), 6, "shop", "fw", "gw")
	w.at(on(middle, "10.4.0.9"), 6, "shop", "fw", "gw")
	w.at(on(middle, "10.4.0.8"), 7, "shop", "nat", "n1")
	w.at(on(vault, "10.3.0.8"), 7, "shop", "nat", "n1")
	there := func(v snapshot.VNI, function string, hops ...snapshot.Hop) snapshot.ChainKey {
		k := snapshot.ChainKey{VNI: v, Link: "shop/to-vault"}
		w.all(func(s *snapshot.Snapshot) { s.Chains[k] = snapshot.Chain{ChainKey: k, Function: function, Hops: hops} })
		return k
	}
	first := there(front, "firewall", snapshot.Hop{Project: "shop", Workload: "fw", Addr: on(front, "10.0.0.9"), Node: "gw"})
	second := there(middle, "hide", snapshot.Hop{Project: "shop", Workload: "nat", Addr: on(middle, "10.4.0.8"), Node: "n1"})
	w.seen(safe, on(front, "10.3.0.2"), first)
	w.seen(safe, on(middle, "10.3.0.2"), second)
	back := snapshot.ChainKey{VNI: middle, Link: "shop/to-vault", Reverse: true}
	w.all(func(s *snapshot.Snapshot) { s.Chains[back] = snapshot.Chain{ChainKey: back, Function: "firewall"} })
	w.seen(web, on(middle, "10.0.0.2"), back)
	w.rules(on(vault, "10.3.0.2"), policy.Ingress, rule("policy/bank/safe/ingress/nat", policy.Allow, []policy.Peer{{Identities: []policy.Identity{7}}}))
}

func (w world) outside() {
	w.all(func(s *snapshot.Snapshot) {
		s.Exits[front] = snapshot.Exit{VNI: front, Gateway: "gw", Addresses: []netip.Addr{ip("198.51.100.1")}, Hosts: []snapshot.HostPort{{Protocol: policy.TCP, First: 53, Last: 53}}}
		s.Exits[plain] = snapshot.Exit{VNI: plain}
		s.Masquerades[on(front, "10.0.0.4")] = snapshot.Masquerade{Addr: on(front, "10.0.0.4"), As: ip("198.51.100.7"), Node: "gw"}
		s.Externals[ip("198.51.100.1")] = snapshot.External{Address: ip("198.51.100.1"), Node: "gw", Owner: "Network shop/front"}
		s.Externals[ip("198.51.100.7")] = snapshot.External{Address: ip("198.51.100.7"), Node: "gw", Owner: "FloatingIP shop/public"}
		s.Names[front] = snapshot.DNS{VNI: front, Zone: "cloud.example", Metadata: "http://192.0.2.9", Records: []snapshot.DNSRecord{
			{Name: "mail.example.com.", Type: "CNAME", Data: "green.example.com."}, {Name: "green.example.com.", Type: "A", Data: "10.0.0.4"},
			{Name: "www.shop.cloud.example.", Type: "A", Data: "10.0.0.4"}, {Name: "blue.shop.cloud.example.", Type: "A", Data: "10.0.0.4"},
			{Name: "alias.shop.cloud.example.", Type: "CNAME", Data: "green.shop.cloud.example."}, {Name: "*.apps.shop.cloud.example.", Type: "A", Data: "10.0.0.4"}}}
	})
	w.rules(on(plain, "10.6.0.3"), policy.Egress,
		rule("policy/shop/cron/egress/bad", policy.Deny, []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix("203.0.113.0/24")}}),
		rule("policy/shop/cron/egress/api", policy.Allow, []policy.Peer{{Name: "*.example.com"}}, tcp(443)))
}

// TestEverything tells the way of one packet for each of the words.
func TestEverything(t *testing.T) {
	seesShop := func(project string) bool { return project == "shop" }
	for name, q := range map[string]explain.Query{
		"service":             {From: "shop/web", To: "shop/api", Port: 80},
		"service-depends":     {From: "shop/blue", To: "service shop/api", Port: 80},
		"service-name":        {From: "shop/web", To: "api.shop.cloud.example", Port: 80},
		"service-hairpin":     {From: "shop/web", To: "10.0.0.200", Port: 81},
		"service-no-backend":  {From: "shop/web", To: "shop/api", Port: 82},
		"service-other-port":  {From: "shop/web", To: "shop/api", Port: 83},
		"service-ping":        {From: "shop/web", To: "shop/api", Protocol: "icmp"},
		"service-outside":     {From: "shop/web", To: "shop/api", Port: 25},
		"service-elsewhere":   {From: "shop/cron", To: "shop/api", Port: 80},
		"link":                {From: "shop/web", To: "bank/db", Port: 5432},
		"link-back":           {From: "bank/db", To: "shop/web", Port: 80},
		"link-address":        {From: "shop/web", To: "100.64.2.2", Port: 80},
		"link-unseen":         {From: "shop/web", To: "100.64.2.2", Port: 5432, Sees: seesShop},
		"link-one-way":        {From: "shop/blue", To: "bank/db", Port: 5432},
		"chain":               {From: "shop/web", To: "bank/safe", Port: 22},
		"chain-closed":        {From: "shop/web", To: "bank/safe", Port: 22},
		"floating":            {From: "shop/caller", To: "shop/swap", Port: 80},
		"floating-name":       {From: "shop/caller", To: "shop.example.com", Port: 80},
		"floating-outside":    {From: "203.0.113.9", To: "shop/public", Port: 443},
		"floating-from-exit":  {From: "shop/cron", To: "shop/public", Port: 443},
		"outside-gateway":     {From: "shop/blue", To: "203.0.113.5", Port: 443},
		"outside-node":        {From: "shop/web", To: "203.0.113.5", Port: 443, Network: "plain"},
		"outside-masquerade":  {From: "shop/green", To: "203.0.113.5", Port: 443},
		"outside-none":        {From: "bank/db", To: "203.0.113.5", Port: 443},
		"outside-host-closed": {From: "shop/blue", To: "192.0.2.2", Port: 22},
		"outside-host-open":   {From: "shop/blue", To: "192.0.2.2", Port: 53},
		"outside-name":        {From: "shop/cron", To: "api.example.com", Port: 443},
		"outside-other-name":  {From: "shop/cron", To: "api.example.org", Port: 443},
		"outside-no-name":     {From: "shop/cron", To: "192.0.2.77", Port: 443},
		"outside-named":       {From: "shop/cron", To: "192.0.2.77", Port: 443, Name: "x.example.com"},
		"record":              {From: "shop/web", To: "mail.example.com", Port: 8080},
		"platform-names":      {From: "shop/web", To: "169.254.169.253", Protocol: "udp", Port: 53},
		"platform-metadata":   {From: "shop/web", To: "169.254.169.254", Port: 80, Network: "plain"},
		"platform-health":     {From: "169.254.169.253", To: "shop/green", Port: 8080},
	} {
		t.Run(name, func(t *testing.T) {
			w := whole()
			if name == "chain-closed" {
				k := snapshot.ChainKey{VNI: front, Link: "shop/to-vault"}
				c := w["n1"].Chains[k]
				c.Hops = nil
				w["n1"].Chains[k] = c
			}
			a := explain.Packet(q, w)
			var b bytes.Buffer
			a.Text(&b)
			golden(t, filepath.Join("testdata", "words", name+".txt"), b.Bytes())
		})
	}
}

// TestRecords: names are answered as the name service of the Network does.
func TestRecords(t *testing.T) {
	w := whole()
	for name, want := range map[string]string{
		"www.shop.cloud.example": "10.0.0.4", "blue.shop.cloud.example": "10.0.0.4", "alias.shop.cloud.example": "10.0.0.4",
		"any.apps.shop.cloud.example": "10.0.0.4", "a.b.apps.shop.cloud.example": "10.0.0.4", "green.shop.cloud.example": "10.0.0.4", "mail.example.com": "10.0.0.4",
		"web.shop.cloud.example": "10.0.0.2", "x.web.shop.cloud.example": "", "none.shop.cloud.example": "", "apps.shop.cloud.example": "",
	} {
		a := explain.Packet(explain.Query{From: "shop/web", To: name, Port: 8080}, w)
		if got, _, _ := strings.Cut(a.Sent, ":"); got != want || a.Error != "" {
			t.Errorf("%s is sent to %q, want %q: %+v", name, a.Sent, want, a)
		}
	}
}

// TestUnseenIsNotTold: who may see only one project is never told a name, a
// node, an identity or a rule of another, whatever is asked.
func TestUnseenIsNotTold(t *testing.T) {
	w := whole()
	w.all(func(s *snapshot.Snapshot) {
		for v, n := range s.Networks {
			if n.Project == "bank" {
				n.Domain = "bank-domain"
				s.Networks[v] = n
			}
		}
	})
	sees := func(project string) bool { return project == "shop" }
	n := 0
	for a := range w["n1"].Endpoints {
		for _, from := range []string{"shop/web", "shop/blue", "shop/cron", "shop/caller", "shop/fw"} {
			for _, network := range []string{"", "front", "middle", "plain", "pool"} {
				got := explain.Packet(explain.Query{From: from, To: a.IP.String(), Network: network, Port: 5432, Sees: sees}, w)
				b, err := json.Marshal(got)
				if err != nil {
					t.Fatal(err)
				}
				var text bytes.Buffer
				got.Text(&text)
				if strings.Contains(string(b)+text.String(), "bank") {
					t.Errorf("%s -> %s in %q tells %s", from, a.IP, network, b)
				}
				if got.Error == "" {
					n++
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d answers", n)
	}
	for _, to := range []string{"bank/db", "service bank/db", "db.bank.cloud.example"} {
		told := func(to string) string {
			b, err := json.Marshal(explain.Packet(explain.Query{From: "shop/web", To: to, Port: 1, Sees: sees}, w))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if x, y := strings.ReplaceAll(told(to), "db", "xx"), told(strings.ReplaceAll(to, "db", "xx")); x != y {
			t.Errorf("%s is told apart from what is not there:\n%s\n%s", to, x, y)
		}
	}
}
