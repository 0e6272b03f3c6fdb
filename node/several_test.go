package node

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/datapath"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// withBack adds a second Network of the project, and one of another project.
func withBack(s *snapshot.Snapshot) {
	for vni, n := range map[snapshot.VNI]snapshot.Network{
		101: {Project: "shop", Name: "back", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd01::/64")}},
		102: {Project: "bank", Name: "core", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}},
	} {
		n.VNI, n.Domain = vni, "d"
		s.Networks[vni] = n
		for _, p := range n.Prefixes {
			bits := 28
			if p.Addr().Is6() {
				bits = 120
			}
			k := snapshot.BlockKey{VNI: vni, CIDR: netip.PrefixFrom(p.Addr(), bits)}
			s.Blocks[k] = snapshot.Block{BlockKey: k, Excluded: []snapshot.Range{{First: p.Addr(), Last: p.Addr().Next()}}}
		}
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			s.Policies[snapshot.PolicyKey{VNI: vni, Identity: webIdentity, Direction: d}] = policy.Set{Default: policy.DefaultRule{ID: "default/open", Allow: true}}
		}
	}
}

func TestInterfaceNames(t *testing.T) {
	other := func(ifName, network string, d datapath.DefaultRoute) *attachment {
		return &attachment{Key: snapshot.AttachmentKey{Project: "shop", Workload: "web", Network: network}, IfName: ifName, Default: d}
	}
	there := []*attachment{other("eth0", "front", datapath.FirstRoute), other("eth2", "dmz", datapath.SecondRoute)}
	for name, c := range map[string]struct {
		attach local.Attach
		beside []*attachment
		names  string
		routes []datapath.DefaultRoute
		err    string
	}{
		"alone":      {local.Attach{Networks: []string{"a", "b"}}, nil, "eth0 eth1", []datapath.DefaultRoute{0, 1}, ""},
		"chosen":     {local.Attach{Networks: []string{"a", "b"}, DefaultRoute: "b"}, nil, "eth0 eth1", []datapath.DefaultRoute{1, 0}, ""},
		"none":       {local.Attach{Networks: []string{"a", "b"}, DefaultRoute: "none"}, nil, "eth0 eth1", []datapath.DefaultRoute{2, 2}, ""},
		"one by one": {local.Attach{Networks: []string{"a", "b", "c"}, IfNames: []string{"in", "", "eth0"}}, nil, "in eth1 eth0", []datapath.DefaultRoute{0, 1, 1}, ""},
		"count on":   {local.Attach{Networks: []string{"a", "b"}, IfName: "net9"}, nil, "net9 net10", []datapath.DefaultRoute{0, 1}, ""},
		"afterwards": {local.Attach{Networks: []string{"a", "b"}}, there, "eth1 eth3", []datapath.DefaultRoute{1, 1}, ""},
		"again":      {local.Attach{Networks: []string{"a", "front"}}, there, "eth1 eth0", []datapath.DefaultRoute{1, 0}, ""},
		"no second":  {local.Attach{Networks: []string{"a"}, DefaultRoute: "a"}, there, "", nil, "goes by shop/front already"},
		"taken":      {local.Attach{Networks: []string{"a"}, IfName: "eth2"}, there, "", nil, "eth2 is the interface in dmz"},
		"twice":      {local.Attach{Networks: []string{"a", "b"}, IfNames: []string{"x", "x"}}, nil, "", nil, "both be x"},
		"own":        {local.Attach{Networks: []string{"shop/a", "a"}}, nil, "", nil, "named twice"},
		"too many":   {local.Attach{Networks: []string{"a"}, IfNames: []string{"x", "y"}}, nil, "", nil, "2 interface names"},
		"elsewhere":  {local.Attach{Networks: []string{"a"}, DefaultRoute: "b"}, nil, "", nil, "not among those"},
		"not a name": {local.Attach{Networks: []string{"x/y/z"}}, nil, "", nil, "is not a name"},
		"tap":        {local.Attach{Networks: []string{"a"}, Tap: true, IfName: "eth0"}, nil, "", nil, "the node chooses"},
		"owner":      {local.Attach{Networks: []string{"a"}, Owner: 7}, nil, "", nil, "only a tap"},
	} {
		c.attach.Project, c.attach.Workload = "shop", "web"
		err := check(&c.attach)
		var names []string
		var routes []datapath.DefaultRoute
		if err == nil {
			names, err = namesFor(&c.attach, c.beside)
		}
		if err == nil {
			routes, err = routesFor(&c.attach, c.beside)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v", name, err)
		}
		if c.err == "" && (err != nil || strings.Join(names, " ") != c.names || !slices.Equal(routes, c.routes)) {
			t.Errorf("%s: %v %v %v", name, names, routes, err)
		}
	}
}

// TestNetworkOfAnotherProject: only with the control plane's word.
func TestNetworkOfAnotherProject(t *testing.T) {
	b := newBench(t)
	a := web()
	a.Networks = []string{"front", "bank/core"}
	r := b.attach(a)
	k := snapshot.AttachmentKey{Project: "shop", Workload: "web", Network: "bank/core"}
	edit := func(s *snapshot.Snapshot) {
		withBack(s)
		g := s.Grants[k]
		g.VNI = 102
		s.Grants[k] = g
	}
	b.gives(world(b.control, edit))
	at := b.attached[k]
	if at == nil || at.VNI != 102 || at.stage != plugged || b.kernel.plugs[at.Host].IfName != "eth1" {
		t.Fatalf("%+v", at)
	}
	b.unanswered(r)
	b.gives(world(b.control, func(s *snapshot.Snapshot) {
		edit(s)
		for _, ip := range at.Addrs {
			addr := snapshot.Addr{VNI: 102, IP: ip}
			s.Endpoints[addr] = snapshot.Endpoint{Addr: addr, Project: "shop", Workload: "web", MAC: at.MAC, Identity: webIdentity, Node: "n1"}
		}
	}))
	an := b.answered(r)
	if an.err != nil || len(an.attached.Interfaces) != 2 || an.attached.Interfaces[1].Network != "bank/core" {
		t.Fatalf("%+v", an)
	}
	front := b.attached[webKey].Host
	b.restart() // its file has a name without a slash
	if b.attached[k] == nil || b.attached[k].Host == front {
		t.Fatalf("%+v", b.attached)
	}
	if err := b.detach(local.Detach{Project: "shop", Workload: "web", Networks: []string{"bank/core"}}); err != nil {
		t.Fatal(err)
	}
	if b.attached[k] != nil || b.attached[webKey] == nil || len(b.kernel.plugs) != 1 {
		t.Error("not the one that was meant")
	}
	// The Network is known here, but nobody can say whether it consents.
	b.gives(world(b.control, withBack))
	b.control.away = true
	b.pass(awayGrace)
	b.pass(awayGrace)
	r = b.attach(a)
	b.pass(11_000_000_000)
	if an := b.answered(r); an.err == nil || !strings.Contains(an.err.Error(), "consents") {
		t.Errorf("%+v", an)
	}
}

// TestTwoInterfaces with the real kernel: each in its own Network, with routes
// of its own, and one goes without the other.
func TestTwoInterfaces(t *testing.T) {
	m := newMachine(t)
	m.writeSnapshot(withBack)
	m.start()
	w1, w2, w3 := addNetns(t, ns(t, "w1")), addNetns(t, ns(t, "w2")), addNetns(t, ns(t, "w3"))
	a := web()
	a.Workload, a.Netns, a.Persist, a.Networks = "router", w1, true, []string{"front", "back"}
	got, err := m.client().Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	front := m.attach("web", w2)
	b := a
	b.Workload, b.Netns, b.Networks, b.DHCP = "db", w3, []string{"back"}, false
	back, err := m.client().Attach(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range slices.Concat(front.Addresses, back.Interfaces[0].Addresses, front.Gateways) {
		if err := ping(w1, to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	for _, i := range got.Interfaces {
		for n, from := range map[string]string{"front": w2, "back": w3} {
			if n == i.Network && ping(from, i.Addresses[0]) != nil {
				t.Errorf("%s does not answer in %s", i.Addresses[0], n)
			} else if n != i.Network && ping(from, i.Addresses[0]) == nil {
				t.Errorf("%s answers in %s", i.Addresses[0], n)
			}
		}
	}
	in := func(args ...string) string {
		out, _ := exec.Command("ip", append([]string{"-n", ns(t, "w1")}, args...)...).CombinedOutput()
		return string(out)
	}
	for what, want := range map[string]string{
		in("route", "get", "192.0.2.1"): "dev eth0",
		in("route", "get", "192.0.2.1", "from", got.Interfaces[1].Addresses[0].String()):         "dev eth1",
		in("route", "get", "192.0.2.1", "oif", "eth1"):                                           "dev eth1",
		in("-6", "route", "get", "2001:db8::1"):                                                  "dev eth0",
		in("-6", "route", "get", "2001:db8::1", "from", got.Interfaces[1].Addresses[1].String()): "dev eth1",
	} {
		if !strings.Contains(what, want) {
			t.Errorf("not %s: %s", want, what)
		}
	}
	before := in("route") + in("rule") + in("-6", "route") + in("-6", "rule")
	m.kill()
	m.start()
	if after := in("route") + in("rule") + in("-6", "route") + in("-6", "rule"); after != before {
		t.Errorf("a restart changed %s to %s", before, after)
	}
	// A Link of the second Network: its prefixes, also translated ones, are
	// behind that interface, for as long as it is there. What an interface is in
	// is behind that one, and what is behind a function that this Workload is,
	// is not on the side from which it comes.
	linkedRoutes := func() string { return in("route", "get", "10.2.0.9") + in("route", "get", "10.66.0.9") }
	m.kill()
	m.writeSnapshot(func(s *snapshot.Snapshot) { withLinks(s, got.Interfaces[1].Addresses[0]) })
	m.start()
	eventually(t, "routes of the Link", func() bool { return strings.Count(linkedRoutes(), "dev eth1") == 2 })
	for to, dev := range map[string]string{"10.77.0.9": "eth0", "10.0.0.9": "eth0", "fd00::9": "eth0", "10.1.0.9": "eth1", "fd01::9": "eth1"} {
		if out := in("route", "get", to); !strings.Contains(out, "dev "+dev) {
			t.Errorf("not by %s: %s", dev, out)
		}
	}
	m.kill()
	m.writeSnapshot(withBack)
	m.start()
	eventually(t, "no routes of the Link", func() bool { return !strings.Contains(linkedRoutes(), "dev eth1") })
	if err := m.client().Detach(t.Context(), local.Detach{Project: "shop", Workload: "router", Networks: []string{"front"}}); err != nil {
		t.Fatal(err)
	}
	if err := ping(w1, back.Interfaces[0].Addresses[0]); err != nil {
		t.Errorf("the other went too: %v", err)
	}
	if ping(w2, got.Interfaces[0].Addresses[0]) == nil {
		t.Error("the first is still there")
	}
	if out := in("route", "get", "192.0.2.1"); !strings.Contains(out, "dev eth1") {
		t.Errorf("the second does not take over: %s", out)
	}
	m.stop()
}
