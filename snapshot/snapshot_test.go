package snapshot

import (
	"bytes"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot/policy"
)

func draw(t *rapid.T, label string) *Snapshot {
	s := &Snapshot{Node: "n1", Nodes: map[string]Node{}, Networks: map[VNI]Network{}, Identities: map[policy.Identity]Identity{},
		Endpoints: map[Addr]Endpoint{}, Blocks: map[BlockKey]Block{}, Grants: map[AttachmentKey]Grant{}, Policies: map[PolicyKey]policy.Set{}}
	few := func(what string) int { return rapid.IntRange(0, 3).Draw(t, label+what) }
	for i := range few("nodes") {
		name := string(rune('a' + i))
		s.Nodes[name] = Node{Name: name, Number: uint16(few("number"))}
	}
	for i := range few("networks") {
		v := VNI(i + 1)
		s.Networks[v] = Network{VNI: v, Name: "net", MTU: few("mtu")}
		ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(few("address"))})
		s.Endpoints[Addr{v, ip}] = Endpoint{Addr: Addr{v, ip}, Workload: "w", Identity: policy.Identity(few("identity"))}
		p := netip.PrefixFrom(ip, 24).Masked()
		s.Blocks[BlockKey{v, p}] = Block{BlockKey: BlockKey{v, p}}
		key := PolicyKey{VNI: v, Identity: policy.Identity(few("subject")), Direction: policy.Egress}
		s.Policies[key] = policy.Set{Isolated: policy.RuleID(strings.Repeat("x", few("id")))}
		g := AttachmentKey{Project: "p", Workload: "w", Network: "net"}
		s.Grants[g] = Grant{AttachmentKey: g, VNI: v}
		s.Identities[policy.Identity(i)] = Identity{Number: policy.Identity(i), Labels: []Label{{"app", string(rune('a' + few("label")))}}}
	}
	return s
}

// TestDeltaLeadsThere: applying the difference gives the other snapshot, with
// its version, and leaves the first one as it was.
func TestDeltaLeadsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, new := draw(t, "old"), draw(t, "new")
		before := old.Version()
		d := Diff(old, new)
		got := old.Apply(&d)
		if got.Version() != new.Version() || d.Version != new.Version() || !reflect.DeepEqual(normal(got), normal(new)) {
			t.Fatalf("got %+v\nwant %+v", got, new)
		}
		if old.Version() != before {
			t.Fatal("Apply changed the snapshot that it was given")
		}
		if same := Diff(new, got); !same.Empty() {
			t.Fatalf("nothing differs, but %+v", same)
		}
	})
}

// normal has no empty maps.
func normal(s *Snapshot) Snapshot {
	n := *s
	v := reflect.ValueOf(&n).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Map && f.Len() == 0 {
			f.SetZero()
		}
	}
	return n
}

func TestResetIsEverything(t *testing.T) {
	s := &Snapshot{Node: "n1", Networks: map[VNI]Network{7: {VNI: 7}}}
	d := Diff(nil, s)
	var nothing *Snapshot
	if !d.Reset || nothing.Apply(&d).Version() != s.Version() {
		t.Errorf("got %+v", d)
	}
}

// TestVersionIsContent: the order in which rows came does not count, a single
// field does.
func TestVersionIsContent(t *testing.T) {
	a := &Snapshot{Node: "n1", Networks: map[VNI]Network{}}
	for v := VNI(1); v < 50; v++ {
		a.Networks[v] = Network{VNI: v, Name: "net"}
	}
	b := &Snapshot{Node: "n1", Networks: maps.Clone(a.Networks)}
	if a.Version() != b.Version() || len(a.Version()) != 16 {
		t.Errorf("versions %s and %s", a.Version(), b.Version())
	}
	b.Networks[7] = Network{VNI: 7, Name: "net", Deny: true}
	if a.Version() == b.Version() {
		t.Error("a changed field has no effect on the version")
	}
}

func TestDump(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.5")
	s := &Snapshot{Node: "n1",
		Nodes:     map[string]Node{"n2": {Name: "n2"}, "n1": {Name: "n1"}},
		Endpoints: map[Addr]Endpoint{{7, ip}: {Addr: Addr{7, ip}, Workload: "web", MAC: MAC{2, 0, 0, 0, 0, 1}}}}
	var b bytes.Buffer
	s.Dump(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 4 || lines[0] != "snapshot node=n1" || !strings.HasPrefix(lines[1], "node {Name:n1") ||
		!strings.Contains(lines[3], "Addr:7/10.0.0.5") || !strings.Contains(lines[3], "MAC:02:00:00:00:00:01") {
		t.Errorf("got\n%s", b.String())
	}
}

func FuzzParseMAC(f *testing.F) {
	f.Add("02:00:00:00:00:01")
	f.Add("02:00:00:00:00:1 ")
	f.Add("0x:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err == nil && !strings.EqualFold(m.String(), s) {
			t.Errorf("%q was read as %s", s, m)
		}
	})
}

func TestIdentityOf(t *testing.T) {
	s := &Snapshot{Identities: map[policy.Identity]Identity{
		3: {Number: 3, Project: "p", Account: "a", Labels: []Label{{"app", "web"}}},
		9: {Number: 9, Project: "p", Account: "a"},
	}}
	if n, ok := s.IdentityOf("p", "a", []Label{{"app", "web"}}); !ok || n != 3 {
		t.Errorf("got %d, %v", n, ok)
	}
	if _, ok := s.IdentityOf("p", "b", nil); ok {
		t.Error("found an identity of another account")
	}
}

func TestRouteObject(t *testing.T) {
	for name, want := range map[string]string{
		"7/HTTPRoute/shop/cart": "HTTPRoute shop/cart", "7/GRPCRoute/shop/cart@shop/web/80": "GRPCRoute shop/cart", "7/Service/shop/web/80": "Service shop/web",
		"default/http/7/shop/web/80": "", "shop/cart": "shop/cart", "edge": "edge", "": "",
	} {
		if got := RouteObject(name); got != want {
			t.Errorf("%q is made of %q, want %q", name, got, want)
		}
	}
}
