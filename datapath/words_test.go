package datapath

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"pgregory.net/rapid"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestAddresses: encoding is turned back by decoding.
func TestAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ip := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")))
		if rapid.Bool().Draw(t, "is v6") {
			ip = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6"))).Unmap()
		}
		if got := ipOf(addrOf(ip)); got != ip {
			t.Fatalf("%s became %s", ip, got)
		}
		p := netip.PrefixFrom(ip, rapid.IntRange(0, ip.BitLen()).Draw(t, "bits")).Masked()
		if got := prefixOf(prefixKey(7, p)); got != p {
			t.Fatalf("%s became %s", p, got)
		}
	})
	if ntohs(0x1234) != 0x3412 {
		t.Error("ntohs")
	}
}

func TestRuleName(t *testing.T) {
	for _, s := range []string{"", "a", strings.Repeat("x", 511)} {
		if got := ruleText(ruleName(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

// TestDigest: sets that differ anywhere have different names.
func TestDigest(t *testing.T) {
	base := func() policy.Set {
		return policy.Set{Isolated: "i", AuditIsolated: "a", Default: policy.DefaultRule{ID: "d"}, Rules: []policy.Rule{{
			ID: "r", Tier: policy.Project, Action: policy.Allow, Ports: []policy.PortRange{{Protocol: 6, First: 1, Last: 2}},
			Peers: []policy.Peer{{Identities: []policy.Identity{1, 2}, CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
		}}}
	}
	seen := map[digest]int{}
	for i, change := range []func(*policy.Set){
		func(*policy.Set) {},
		func(s *policy.Set) { s.Isolated = "" },
		func(s *policy.Set) { s.AuditIsolated = "" },
		func(s *policy.Set) { s.Default.Allow = true },
		func(s *policy.Set) { s.Default.ID = "e" },
		func(s *policy.Set) { s.Rules = nil },
		func(s *policy.Set) { s.Rules[0].ID = "s" },
		func(s *policy.Set) { s.Rules[0].Tier = policy.Admin },
		func(s *policy.Set) { s.Rules[0].Action = policy.Deny },
		func(s *policy.Set) { s.Rules[0].Audit = true },
		func(s *policy.Set) { s.Rules[0].Ports = nil },
		func(s *policy.Set) { s.Rules[0].Ports[0].Protocol = 17 },
		func(s *policy.Set) { s.Rules[0].Ports[0].First = 2 },
		func(s *policy.Set) { s.Rules[0].Ports[0].Last = 3 },
		func(s *policy.Set) { s.Rules[0].Peers = nil },
		func(s *policy.Set) { s.Rules[0].Peers[0].Anyone = true },
		func(s *policy.Set) { s.Rules[0].Peers[0].Identities = []policy.Identity{1} },
		func(s *policy.Set) { s.Rules[0].Peers[0].CIDR = netip.Prefix{} },
		func(s *policy.Set) { s.Rules[0].Peers[0].CIDR = netip.MustParsePrefix("10.0.0.0/9") },
		func(s *policy.Set) { s.Rules[0].Peers[0].Except = nil },
		func(s *policy.Set) { s.Rules = append(s.Rules, s.Rules[0]) },
	} {
		s := base()
		change(&s)
		if j, ok := seen[digestOf(&s)]; ok {
			t.Errorf("change %d has the name of change %d", i, j)
		}
		seen[digestOf(&s)] = i
	}
}

// TestLayout: another shape has another name; another size has not.
func TestLayout(t *testing.T) {
	load := func() *ebpf.CollectionSpec {
		spec, err := bpf.LoadMoire()
		if err != nil {
			t.Fatal(err)
		}
		return spec
	}
	a, b, c := load(), load(), load()
	b.Maps["sessions"].MaxEntries = 7
	c.Maps["ifaces"].ValueSize++
	if layoutOf(a) != layoutOf(b) || layoutOf(a) == layoutOf(c) {
		t.Errorf("%s %s %s", layoutOf(a), layoutOf(b), layoutOf(c))
	}
}

func TestConfig(t *testing.T) {
	good := Config{Node: "n1", Address: netip.MustParseAddr("192.0.2.1")}
	if c, err := good.withDefaults(); err != nil || c.RunDir != "/run/moire" || c.ConntrackMax != DefaultConntrackMax || c.overhead() != 50 || c.dir() != "/run/moire/bpf/n1" {
		t.Errorf("%+v %v", c, err)
	}
	for _, bad := range []Config{
		{Address: good.Address}, {Node: "../x", Address: good.Address}, {Node: "n1"}, {Node: "n1", Address: netip.MustParseAddr("0.0.0.0")},
		{Node: "n1", Address: netip.MustParseAddr("224.0.0.1")},
	} {
		if _, err := bad.withDefaults(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestPlugConfig(t *testing.T) {
	good := PlugConfig{
		Node: "n", Host: HostName("n", snapshot.AttachmentKey{Project: "p"}), IfName: "net0", MAC: snapshot.MAC{2},
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
	}
	if err := good.check(); err != nil || len(good.Host) > 15 {
		t.Fatal(err, good.Host)
	}
	for name, change := range map[string]func(*PlugConfig){
		"host":   func(c *PlugConfig) { c.Host = "eth0" },
		"ifname": func(c *PlugConfig) { c.IfName = "a/b" },
		"lo":     func(c *PlugConfig) { c.IfName = "lo" },
		"mac":    func(c *PlugConfig) { c.MAC = snapshot.MAC{1} },
		"addr":   func(c *PlugConfig) { c.Addrs = []netip.Addr{netip.MustParseAddr("10.1.0.2")} },
		"none":   func(c *PlugConfig) { c.Addrs = nil },
		"long":   func(c *PlugConfig) { c.Key.Project = strings.Repeat("x", 300) },
	} {
		bad := good
		change(&bad)
		if err := bad.check(); err == nil {
			t.Errorf("%s: %+v was accepted", name, bad)
		}
	}
}

// TestRecordOf: who did what, of every kind of event.
func TestRecordOf(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	s := &snapshot.Snapshot{
		Networks: map[snapshot.VNI]snapshot.Network{5: {VNI: 5, Project: "p", Name: "net", Domain: "dom"}},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{
			{VNI: 5, IP: a}: {Project: "p", Workload: "web", Node: "n1", Identity: 1}, {VNI: 5, IP: b}: {Project: "p", Workload: "db", Node: "n2", Identity: 2},
		},
		Identities: map[policy.Identity]snapshot.Identity{1: {Number: 1, SPIFFE: "spiffe://web", Labels: []snapshot.Label{{Key: "app", Value: "web"}}, Domain: "dom"}},
	}
	local := Local{Key: snapshot.AttachmentKey{Project: "p", Workload: "evil", Network: "net"}, Host: "mo1"}
	v := newView("n1", State{Snapshot: s, Locals: []Local{local}}, map[string]int{"mo1": 9}, map[uint32]policy.RuleID{1: policy.NoPolicy, 2: "out", 3: "in"}, nil)
	e := bpf.MoireEvent{Kind: eventStarted, Time: 1e9}
	e.Key = bpf.MoireSessionKey{A: addrOf(b), B: addrOf(a), Vni: 5, Aport: ntohs(80), Bport: ntohs(1234), Proto: 6}
	e.Session = bpf.MoireSession{Created: 1e9, Judged: 3, Rule: [2]uint32{2, 3}, Tier: [2]uint8{1, 3}, Identity: [2]uint32{1, 2}}
	now := time.Unix(100, 0)
	r := v.recordOf(&e, now, 3e9)
	if r.Kind != record.Started || r.Source.Workload != "web" || r.Source.Port != 1234 || r.Destination.Port != 80 || r.Destination.Node != "n2" ||
		r.Rule != "out" || r.IngressRule != "in" || r.Tier != "project" || r.Direction != "egress" || r.Observer != record.AtBoth ||
		!r.Time.Equal(time.Unix(98, 0)) || r.Source.Labels["app"] != "web" || r.Source.Identity != "spiffe://web" || r.Protocol != "tcp" {
		t.Errorf("%+v", r)
	}
	id := r.ID
	e.Kind, e.Time = eventEnded, 2e9
	if r = v.recordOf(&e, now, 3e9); r.Kind != record.Ended || r.ID != id {
		t.Errorf("%+v", r)
	}
	e.Kind, e.Reason, e.Count = eventDenied, reasonPolicy, 4
	if r = v.recordOf(&e, now, 3e9); r.Verdict != record.Deny || r.Rule != "in" || r.Direction != "ingress" || r.Drop != "" || r.ForwardPackets != 4 {
		t.Errorf("%+v", r)
	}
	e.Reason, e.Session = reasonSpoofIP, bpf.MoireSession{}
	e.Session.Hop[0].Ifindex = 9
	if r = v.recordOf(&e, now, 3e9); r.Drop != "spoofed-ip" || r.Source.Workload != "evil" || r.Rule != "" || r.Observer != record.AtSource {
		t.Errorf("%+v", r)
	}
}

// FuzzEvent: whatever the ring buffer brings makes a record, or none.
func FuzzEvent(f *testing.F) {
	a := netip.MustParseAddr("10.0.0.1")
	v := newView("n1", State{Snapshot: &snapshot.Snapshot{
		Networks:  map[snapshot.VNI]snapshot.Network{5: {VNI: 5, Project: "p", Name: "net"}},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{{VNI: 5, IP: a}: {Project: "p", Workload: "web", Node: "n1", Identity: 1}},
	}}, nil, map[uint32]policy.RuleID{1: policy.NoPolicy}, nil)
	var whole bpf.MoireEvent
	plain := int(unsafe.Offsetof(whole.Session) + unsafe.Offsetof(whole.Session.Guise)) // of a session without guises
	f.Add(make([]byte, unsafe.Sizeof(whole)), uint64(0))
	f.Add(make([]byte, plain), uint64(0))
	f.Add(make([]byte, plain-1), uint64(0))
	f.Add([]byte{1}, uint64(9))
	f.Fuzz(func(t *testing.T, sample []byte, since uint64) {
		e, ok := eventOf(sample)
		if ok != (len(sample) >= plain) {
			t.Fatalf("%d bytes: %v", len(sample), ok)
		}
		if !ok {
			return
		}
		if r := v.recordOf(e, time.Unix(100, 0), since); r.ID == "" || r.Node != "n1" || r.Kind == "" && r.Verdict == "" {
			t.Errorf("%+v", r)
		}
	})
}

func TestProtocolNames(t *testing.T) {
	for p, want := range map[uint8]string{1: "icmp", 58: "icmp", 6: "tcp", 17: "udp", 132: "sctp", 254: "arp", 47: "47"} {
		if got := protocolName(p); got != want {
			t.Errorf("%d is %s, want %s", p, got, want)
		}
	}
	if reasonName(999) != "reason-999" || reasonName(reasonPolicy) != "policy" || reasonName(reasonLimit) != "limit" {
		t.Error("names of reasons")
	}
}

// TestProbe: every check that fails says why and what to do, in one line.
func TestProbe(t *testing.T) {
	for _, c := range Probe() {
		if c.Name == "" || !c.OK && (c.Why == "" || c.Fix == "" || strings.Contains(c.Why, "\n")) {
			t.Errorf("%+v", c)
		}
	}
}

// TestDepartedIsNamed: a record of a Workload that has left names it, for a
// while.
func TestDepartedIsNamed(t *testing.T) {
	a := snapshot.Addr{VNI: 7, IP: netip.MustParseAddr("10.0.0.5")}
	with := &snapshot.Snapshot{
		Networks:   map[snapshot.VNI]snapshot.Network{7: {VNI: 7, Project: "shop", Name: "front", Domain: "acme"}},
		Identities: map[policy.Identity]snapshot.Identity{3: {Number: 3, Domain: "acme", SPIFFE: "spiffe://acme/x"}},
		Endpoints:  map[snapshot.Addr]snapshot.Endpoint{a: {Addr: a, Project: "shop", Workload: "job", Identity: 3, Node: "n1"}},
	}
	now := time.Now()
	first := newView("n1", State{Snapshot: with}, nil, nil, nil)
	second := newView("n1", State{Snapshot: &snapshot.Snapshot{}}, nil, nil, nil).remember(first, now)
	e := &bpf.MoireEvent{Key: bpf.MoireSessionKey{Vni: 7}}
	if got := second.end(record.End{Address: a.IP}, e, 0, false); got.Workload != "job" || got.Network != "front" || got.Identity != "spiffe://acme/x" {
		t.Errorf("just after it left: %+v", got)
	}
	third := newView("n1", State{Snapshot: &snapshot.Snapshot{}}, nil, nil, nil).remember(second, now.Add(partingTime))
	if got := third.end(record.End{Address: a.IP}, e, 0, false); got.Workload != "" {
		t.Errorf("long after it left: %+v", got)
	}
}
