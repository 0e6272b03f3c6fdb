package compile

import (
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// drawNetwork adds what lets a Network have to do with others.
func drawNetwork(t *rapid.T, n *v1alpha1.Network) {
	if often(t) {
		n.Spec.Consents = []v1alpha1.Consent{{Project: pick(t, append(projects, "*")), Domain: pick(t, []string{"", "red", "blue"}), For: []string{"link", "attach", "floatingIP"}}}
	}
	switch rapid.IntRange(0, 6).Draw(t, "network") {
	case 0:
		n.Spec.Prefixes, n.Spec.External = []string{"203.0.113.0/29"}, true
	case 1:
		n.Spec.Outside = &v1alpha1.Outside{}
	case 2:
		n.Spec.Outside = &v1alpha1.Outside{Mode: v1alpha1.OutsideGateway, Gateways: []string{pick(t, nodes), pick(t, nodes)}, Addresses: []string{pick(t, []string{"203.0.113.2", "203.0.113.3"})}}
	case 3:
		n.Spec.Floating, n.Spec.Services = []string{"10.0.0.64/28"}, []string{"10.0.0.240/28"}
	case 4:
		n.Spec.Prefixes = []string{pick(t, []string{"10.1.0.0/24", "10.2.0.0/24"})}
	}
}

// changeReach makes one random change of what connects Networks.
func (w world) changeReach(t *rapid.T) {
	p, name := pick(t, projects), pick(t, names)
	k := Key{p, name}
	meta := metav1.ObjectMeta{Namespace: p, Name: name}
	switch rapid.IntRange(0, 12).Draw(t, "reach") {
	case 0, 1:
		w.Links[k] = drawLink(t, meta)
	case 2, 3:
		w.Services[k] = drawService(t, meta)
	case 4, 5:
		f := &v1alpha1.FloatingIP{ObjectMeta: meta, Spec: v1alpha1.FloatingIPSpec{Pool: v1alpha1.NetworkRef{Project: pick(t, projects), Network: pick(t, networks)}}}
		f.Spec.Targets = []v1alpha1.FloatingTarget{{Workload: pick(t, names), Weight: 1}, {Workload: pick(t, names), Network: pick(t, networks), Weight: int32(rapid.IntRange(0, 1).Draw(t, "weight"))}}
		if !often(t) {
			f.Spec.Address = pick(t, []string{"10.0.0.65", "203.0.113.3", "203.0.113.4"})
		}
		if !often(t) {
			f.Spec.Ports = []v1alpha1.ServicePort{{Port: 80, TargetPort: 8080}}
		}
		w.FloatingIPs[k] = f
	case 6:
		delete(w.Links, k)
		delete(w.Services, k)
		delete(w.FloatingIPs, k)
	case 7:
		if n := pick(t, nodes); w.Away[n] {
			delete(w.Away, n)
		} else {
			w.Away[n] = true
		}
		w.Resolved["db.example.com"] = []netip.Addr{netip.MustParseAddr(pick(t, []string{"198.51.100.1", "198.51.100.2", "10.0.0.9"}))}
	case 8:
		w.report(t)
	default:
		w.changeTraffic(t)
	}
}

// report says of some checks that they succeed.
func (w world) report(t *rapid.T) {
	snaps, _ := Compile(w.Input)
	for _, name := range sortedNames(snaps) {
		if len(snaps[name].Checks) == 0 {
			continue
		}
		r := *w.Reports[name]
		r.Health = nil
		for k := range snaps[name].Checks {
			r.Health = append(r.Health, snapshot.Health{CheckKey: k})
		}
		slices.SortFunc(r.Health, func(a, b snapshot.Health) int { return a.CheckKey.Compare(b.CheckKey) })
		for i := range r.Health {
			r.Health[i].Healthy = often(t)
		}
		w.Reports[name] = &r
	}
}

func drawLink(t *rapid.T, meta metav1.ObjectMeta) *v1alpha1.Link {
	l := &v1alpha1.Link{ObjectMeta: meta, Spec: v1alpha1.LinkSpec{Ends: []v1alpha1.LinkEnd{
		{Project: pick(t, append(projects, "")), Network: pick(t, networks)}, {Project: pick(t, append(projects, "")), Network: pick(t, networks)}}}}
	if !often(t) {
		l.Spec.Ends[0].Translate = []v1alpha1.Translation{{Prefix: "10.0.0.0/24", As: "100.64.0.0/24"}}
	}
	if !often(t) {
		f := v1alpha1.Function{Name: "f", Workloads: *drawSelector(t), Mode: pick(t, []string{"routed", "transparent", "nat"})}
		if !often(t) {
			f.Health = &v1alpha1.HealthCheck{Type: "icmp"}
		}
		l.Spec.Via = []v1alpha1.Function{f}
		l.Spec.OnFailure = pick(t, []string{"closed", "bypass"})
		if !often(t) {
			l.Spec.Via[0].Right = pick(t, projects) + "/" + pick(t, networks)
			l.Spec.Via = append(l.Spec.Via, v1alpha1.Function{Name: "g", Workloads: *drawSelector(t)})
		}
	}
	return l
}

func drawService(t *rapid.T, meta metav1.ObjectMeta) *v1alpha1.Service {
	s := &v1alpha1.Service{ObjectMeta: meta, Spec: v1alpha1.ServiceSpec{Networks: []v1alpha1.ServiceNetwork{{Network: pick(t, networks)}}, Ports: []v1alpha1.ServicePort{{Port: int32(rapid.IntRange(1, 3).Draw(t, "port"))}},
		Locality: pick(t, []string{"any", "node", "zone"})}}
	switch rapid.IntRange(0, 3).Draw(t, "service") {
	case 0:
		s.Spec.Endpoints = []v1alpha1.ServiceEndpoint{{Address: pick(t, hostings)}, {Address: "198.51.100.7", Weight: 3}}
	case 1:
		s.Spec.ExternalName = "db.example.com"
	default:
		s.Spec.Selector = drawSelector(t)
	}
	if !often(t) {
		s.Spec.Networks[0].Addresses = []string{pick(t, []string{"10.0.0.200", "10.0.0.9", "10.0.0.66"})}
	}
	s.Spec.Ports[0].AppProtocol = pick(t, []string{"", "", "http", "grpc", "tcp"})
	if !often(t) {
		s.Spec.Health = &v1alpha1.HealthCheck{Type: "tcp", Port: 80}
		s.Spec.Drain = []string{pick(t, names)}
	}
	return s
}

// checkReach: what refers to other rows finds them.
func checkReach(t *rapid.T, s *snapshot.Snapshot, e snapshot.Endpoint) {
	if e.Chain != (snapshot.ChainKey{}) {
		if c, ok := s.Chains[e.Chain]; !ok || c.VNI != e.Addr.VNI {
			t.Fatalf("endpoint %+v behind an unknown chain", e)
		}
	}
	if !e.Home.IP.IsValid() {
		return
	}
	if _, known := s.Networks[e.Home.VNI]; !known {
		t.Fatalf("endpoint %+v of an unknown Network", e)
	}
	if e.Chain == (snapshot.ChainKey{}) {
		if home, known := s.Endpoints[e.Home]; !known || home.Node != e.Node || home.Identity != e.Identity {
			t.Fatalf("endpoint %+v is %+v at home", e, home)
		}
	}
}

// checkServices: every backend that is a Workload has its row, and sets are
// there for those that are here.
func checkServices(t *rapid.T, s *snapshot.Snapshot) {
	for k, row := range s.Services {
		if row.ServiceKey != k {
			t.Fatalf("service %+v under %+v", row, k)
		}
		if _, known := s.Networks[k.Addr.VNI]; !known && k.Addr.VNI != snapshot.Outside {
			t.Fatalf("service %+v in an unknown Network", row)
		}
		if _, taken := s.Endpoints[k.Addr]; taken {
			t.Fatalf("service %+v has the address of a Workload", row)
		}
		for _, b := range slices.Concat(row.Backends, row.Leaving) {
			e, known := s.Endpoints[b.Addr]
			if b.Node != "" && (!known || e.Node != b.Node) {
				t.Fatalf("backend %+v of %+v is %+v", b, row, e)
			}
			if b.Node == "" && (known || row.Floating) || b.Weight == 0 {
				t.Fatalf("backend %+v of %+v", b, row)
			}
			if b.Addr.IP.Is4() != k.Addr.IP.Is4() {
				t.Fatalf("backend %+v of another family than %+v", b, row)
			}
		}
	}
	for _, c := range s.Chains {
		for _, h := range c.Hops {
			if e, known := s.Endpoints[h.Addr]; !known || e.Node != h.Node || h.Addr.VNI != c.VNI {
				t.Fatalf("hop %+v of %+v is %+v", h, c, e)
			}
		}
	}
	for _, m := range s.Masquerades {
		if x, known := s.Externals[m.As]; !known || x.Node != m.Node {
			t.Fatalf("%+v without its external address: %+v", m, x)
		}
	}
	for v, x := range s.Exits {
		if n, known := s.Networks[v]; !known || x.Gateway != "" && s.Nodes[x.Gateway].Name == "" {
			t.Fatalf("exit %+v of %+v without its gateway", x, n)
		}
	}
}

// connected is a world in which much has to do with each other.
func connected(t *rapid.T) world {
	w := newWorld()
	w.domain("red")
	w.domain("blue")
	for p, d := range map[string]string{"shop": "red", "store": "red", "bank": "blue"} {
		w.Projects[p] = d
	}
	for i, k := range []Key{{"shop", "main"}, {"store", "main"}, {"bank", "main"}, {"bank", "back"}} {
		n := w.network(k.Project, k.Name, []string{"10.0.0.0/24", "10.1.0.0/24", "10.0.0.0/24", "10.2.0.0/24"}[i], []string{"fd00::/64", "fd01::/64", "fd02::/64", "fd03::/64"}[i])
		n.Spec.Consents = []v1alpha1.Consent{{Project: "*", Domain: "red", For: []string{"link", "attach", "floatingIP"}}, {Project: "*", Domain: "blue", For: []string{"link", "attach", "floatingIP"}}}
		if k.Project == "bank" {
			n.Spec.Floating = []string{[]string{"10.0.0.64/28", "10.2.0.64/28"}[i-2]}
		}
		if often(t) {
			n.Spec.Outside = &v1alpha1.Outside{}
		}
	}
	w.network("store", "back", "203.0.113.0/29").Spec.External = true
	w.Networks[Key{"store", "back"}].Spec.Consents = []v1alpha1.Consent{{Project: "*", For: []string{"floatingIP"}}}
	for i, n := range nodes {
		w.node(n).Spec = v1alpha1.NodeSpec{Address: w.Nodes[n].Spec.Address, External: n == "sw", Zone: []string{"z1", "z2"}[i%2]}
	}
	for i, a := range []struct{ project, name, network, address string }{
		{"shop", "a", "main", "10.0.0.2"}, {"shop", "b", "main", "10.0.0.3"}, {"store", "a", "main", "10.1.0.2"}, {"store", "b", "shop/main", "10.0.0.4"},
		{"store", "b", "main", "10.1.0.4"}, {"bank", "a", "main", "10.0.0.2"}, {"bank", "b", "back", "10.2.0.2"}, {"shop", "f", "main", "10.0.0.9"}, {"shop", "f", "store/main", "10.1.0.9"},
	} {
		w.attach(nodes[i%3], a.project, a.name, a.network, i, a.address)
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "links") {
		l := drawLink(t, metav1.ObjectMeta{Namespace: "shop", Name: names[i]})
		if often(t) {
			l.Spec.Ends[0].Project, l.Spec.Ends[0].Network = "shop", "main"
			l.Spec.Ends[1].Project, l.Spec.Ends[1].Network = pick(t, []string{"store", "bank"}), "main"
		}
		w.Links[Key{"shop", names[i]}] = l
	}
	for range rapid.IntRange(1, 10).Draw(t, "reach") {
		w.changeReach(t)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "policies") {
		p := pick(t, projects[:3])
		w.Policies[Key{p, names[i]}] = drawPolicy(t, p, names[i])
	}
	return w
}
