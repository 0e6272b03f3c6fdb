package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

func grant(s *snapshot.Snapshot, workload string) (snapshot.Grant, bool) {
	g, ok := s.Grants[snapshot.AttachmentKey{Project: "shop", Workload: workload, Network: "main"}]
	return g, ok
}

func endpoint(s *snapshot.Snapshot, ip string) snapshot.Endpoint {
	return s.Endpoints[snapshot.Addr{VNI: 1, IP: netip.MustParseAddr(ip)}]
}

func wantCodes(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", got, want)
	}
}

// TestGrantErrors: every reason for which an attachment is refused, and that
// nothing of it is in any snapshot.
func TestGrantErrors(t *testing.T) {
	for name, c := range map[string]struct {
		build func(w world)
		want  string
	}{
		"no domain":       {func(w world) { delete(w.Projects, "shop") }, "project shop belongs to no Domain; create the project, or label it: kubectl label namespace shop moire.dev/domain=DOMAIN"},
		"domain gone":     {func(w world) { delete(w.Domains, "red") }, "Domain red of project shop does not exist; create it or correct the label"},
		"no network":      {func(w world) { delete(w.Networks, Key{"shop", "main"}) }, "Network shop/main does not exist; create it or correct the name"},
		"bound elsewhere": {func(w world) { w.workload("shop", "web", "n2", "main") }, "is bound to node n2"},
		"not listed":      {func(w world) { w.workload("shop", "web", "n1", "other") }, "has no interface in Network main"},
		"external":        {func(w world) { w.Nodes["n1"].Spec.External = true }, ""},
		"outside":         {func(w world) { w.workload("shop", "web", "n1", "main", "10.9.9.9") }, "10.9.9.9 is in no prefix"},
		"gateway":         {func(w world) { w.workload("shop", "web", "n1", "main", "10.0.0.1") }, "is the gateway"},
		"the nodes' own": {func(w world) {
			w.edit("shop", "main", func(s *v1alpha1.NetworkSpec) { s.Prefixes = append(s.Prefixes, "169.254.169.0/24") })
			w.workload("shop", "web", "n1", "main", "169.254.169.253")
		}, "169.254.169.253 is an address of the nodes themselves"},
		"taken": {func(w world) {
			w.block("n2", "shop", "main", "10.0.0.0/28")
			w.attach("n2", "shop", "old", "main", 5, "10.0.0.9")
			w.workload("shop", "web", "n1", "main", "10.0.0.9")
		}, "10.0.0.9 is in use by shop/old on node n2"},
		"declared twice": {func(w world) {
			w.workload("shop", "web", "n1", "main", "10.0.0.9")
			w.workload("shop", "a", "n1", "main", "10.0.0.9")
		}, "declared by Workload shop/a too"},
	} {
		t.Run(name, func(t *testing.T) {
			w := shop()
			w.attach("n1", "shop", "web", "main", 9)
			c.build(w)
			snaps, problems := w.compile()
			if c.want == "" {
				if snaps["n1"] != nil {
					t.Fatal("an external node has a snapshot")
				}
				return
			}
			g, ok := grant(snaps["n1"], "web")
			if !ok || !strings.Contains(g.Error, c.want) {
				t.Fatalf("grant %+v, want error %q", g, c.want)
			}
			if g.VNI != 0 || g.Identity != 0 || len(g.Addresses) != 0 {
				t.Errorf("a refused grant grants: %+v", g)
			}
			if len(problems) == 0 {
				t.Error("no Problem tells it")
			}
		})
	}
}

// TestLyingNode: a node can say what it likes of when an attachment began and
// which address it has. It takes no address that another one was given.
func TestLyingNode(t *testing.T) {
	w := shop()
	w.block("n2", "shop", "main", "10.0.0.0/28")
	w.attach("n2", "shop", "honest", "main", 9, "10.0.0.5")
	w.workload("shop", "vault", "n2", "main", "10.0.0.99")
	w.workload("shop", "bound", "n2", "main")
	w.attach("n1", "shop", "thief", "main", 0, "10.0.0.5")
	w.attach("n1", "shop", "robber", "main", 0, "10.0.0.99")
	w.attach("n1", "shop", "bound", "main", 0, "10.0.0.77")
	for _, attached := range []bool{false, true} {
		if attached {
			w.attach("n2", "shop", "vault", "main", 10, "10.0.0.99")
		}
		snaps, _ := w.compile()
		for lie, want := range map[string]string{
			"thief": "in use by shop/honest", "robber": "10.0.0.99 is declared by Workload shop/vault", "bound": "is bound to node n2",
		} {
			if g, ok := grant(snaps["n1"], lie); !ok || !strings.Contains(g.Error, want) {
				t.Errorf("%s was granted %+v, want error %q", lie, g, want)
			}
		}
		if e := endpoint(snaps["n2"], "10.0.0.5"); e.Workload != "honest" || e.Node != "n2" {
			t.Errorf("10.0.0.5 is %+v", e)
		}
		if e := endpoint(snaps["n2"], "10.0.0.99"); attached && (e.Workload != "vault" || e.Node != "n2") || e.Node == "n1" {
			t.Errorf("10.0.0.99 is %+v", e)
		}
		if e := endpoint(snaps["n2"], "10.0.0.77"); e.Workload != "" {
			t.Errorf("10.0.0.77 is %+v", e)
		}
	}
}

// TestGrantWaits: what is not allocated yet is no error and no grant.
func TestGrantWaits(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"nothing allocated", func() {}},
		{"only the VNI", func() { w.Networks[Key{"shop", "main"}].Status.VNI = 1 }},
		{"no node number", func() { w.allocate(NewCompiler()); delete(w.NodeNumbers, "n1") }},
	} {
		step.do()
		snaps, problems := Compile(w.Input)
		if g, ok := grant(snaps["n1"], "web"); ok {
			t.Errorf("%s: granted %+v", step.name, g)
		}
		wantCodes(t, codes(problems))
	}
	snaps, _ := w.compile()
	if g, ok := grant(snaps["n1"], "web"); !ok || g.Error != "" || g.VNI != 1 || g.Identity == 0 || g.Addresses != nil {
		t.Errorf("granted %+v", g)
	}
	if n := len(snaps["n1"].Policies); n != 2 {
		t.Errorf("%d policy sets before the first packet, want 2", n)
	}
	if len(snaps["n2"].Networks) != 0 || len(snaps["n2"].Identities) != 0 {
		t.Error("a node that hosts nothing knows of the Network")
	}
}

// TestSameAddressTwice: the earlier attachment wins, ties by node name.
func TestSameAddressTwice(t *testing.T) {
	for _, c := range []struct{ one, two, minute1, minute2 int }{{1, 2, 1, 2}, {2, 1, 2, 1}, {1, 2, 3, 3}} {
		w := shop()
		w.attach("n1", "shop", "a", "main", c.minute1, "10.0.0.9")
		w.attach("n2", "shop", "b", "main", c.minute2, "10.0.0.9")
		snaps, problems := w.compile()
		winner, loser := "n1", "n2"
		if c.one == 2 {
			winner, loser = "n2", "n1"
		}
		for name, s := range map[string]*snapshot.Snapshot{winner: snaps[winner]} {
			if got := endpoint(s, "10.0.0.9").Node; got != winner {
				t.Errorf("%s sees the address on %q, want %s", name, got, winner)
			}
		}
		lost, _ := grant(snaps[loser], map[string]string{"n1": "a", "n2": "b"}[loser])
		if !strings.Contains(lost.Error, "in use by") {
			t.Errorf("the loser was granted %+v", lost)
		}
		if len(snaps[loser].Networks) != 0 {
			t.Error("the loser's node still hosts the Network")
		}
		wantCodes(t, codes(problems), codeInUse)
	}
}

// TestStaticInForeignBlock: a static address waits until the holder of its
// block has confirmed that it leaves it alone.
func TestStaticInForeignBlock(t *testing.T) {
	build := func(echo ...string) world {
		w := shop()
		w.allocate(NewCompiler())
		w.block("n1", "shop", "main", "10.0.0.0/28", echo...)
		w.workload("shop", "db", "n2", "main", "10.0.0.5")
		w.attach("n2", "shop", "db", "main", 1)
		return w
	}
	w := build()
	snaps, problems := w.compile()
	if g, ok := grant(snaps["n2"], "db"); ok {
		t.Errorf("granted before the holder confirmed: %+v", g)
	}
	wantCodes(t, codes(problems), codeHeld)
	if !strings.Contains(problems[0].Reason, "n1") {
		t.Errorf("the Problem does not name the holder: %v", problems[0])
	}
	b := snaps["n1"].Blocks[snapshot.BlockKey{VNI: 1, CIDR: netip.MustParsePrefix("10.0.0.0/28")}]
	five := netip.MustParseAddr("10.0.0.5")
	if !slices.Contains(b.Excluded, snapshot.Range{First: five, Last: five}) {
		t.Errorf("the holder is not asked to leave it alone: %v", b.Excluded)
	}
	w = build("10.0.0.5")
	snaps, problems = w.compile()
	if g, ok := grant(snaps["n2"], "db"); !ok || !slices.Equal(g.Addresses, []netip.Addr{five}) {
		t.Errorf("not granted after the holder confirmed: %+v", g)
	}
	wantCodes(t, codes(problems))
	w = build("10.0.0.5")
	w.attach("n1", "shop", "x", "main", 0, "10.0.0.5")
	snaps, problems = w.compile()
	if g, _ := grant(snaps["n2"], "db"); !strings.Contains(g.Error, "in use by shop/x on node n1") {
		t.Errorf("granted although it is in use: %+v", g)
	}
	wantCodes(t, codes(problems), codeInUse)
}

// TestExcluded: what a block must not give out.
func TestExcluded(t *testing.T) {
	w := shop()
	n := w.Networks[Key{"shop", "main"}]
	n.Spec.Prefixes = []string{"10.0.0.0/27"}
	n.Spec.Reserved = []string{"10.0.0.4-10.0.0.6"}
	n.Spec.Static = []string{"10.0.0.8/31"}
	n.Spec.Allocation = []string{"10.0.0.0-10.0.0.28"}
	w.allocate(NewCompiler())
	w.block("n1", "shop", "main", "10.0.0.0/28")
	w.block("n1", "shop", "main", "10.0.0.16/28")
	w.workload("shop", "db", "", "main", "10.0.0.12")
	w.attach("n2", "shop", "left", "main", 1, "10.0.0.20")
	snaps, _ := w.compile()
	got := map[string]string{}
	for k, b := range snaps["n1"].Blocks {
		for _, r := range b.Excluded {
			got[k.CIDR.String()] += r.First.String() + "-" + r.Last.String() + " "
		}
	}
	want := map[string]string{
		"10.0.0.0/28":  "10.0.0.0-10.0.0.1 10.0.0.4-10.0.0.6 10.0.0.8-10.0.0.9 10.0.0.12-10.0.0.12 ",
		"10.0.0.16/28": "10.0.0.20-10.0.0.20 10.0.0.29-10.0.0.31 ",
	}
	for k := range want {
		if got[k] != want[k] {
			t.Errorf("block %s excludes %s, want %s", k, got[k], want[k])
		}
	}
}

// TestPrefixRemovedWhileInUse: traffic goes on, the Problem tells it.
func TestPrefixRemovedWhileInUse(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.7.0.9")
	w.allocate(NewCompiler())
	w.block("n1", "shop", "main", "10.7.0.0/28")
	snaps, problems := w.compile()
	if endpoint(snaps["n1"], "10.7.0.9").Workload != "web" {
		t.Error("the endpoint was cut off")
	}
	wantCodes(t, codes(problems), codePrefixInUse)
}

// TestRecreatedNetwork: addresses of a Network that was deleted do not leak
// into the one that has its name now.
func TestRecreatedNetwork(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.9")
	w.Reports["n1"].Attachments[0].VNI = 77
	snaps, problems := w.compile()
	if g, _ := grant(snaps["n1"], "web"); !strings.Contains(g.Error, "deleted and made anew") || len(snaps["n1"].Endpoints) != 0 {
		t.Errorf("granted %+v", g)
	}
	wantCodes(t, codes(problems), codeRefused)
}

// TestDeclaredOverridesClaims: labels and account of a declared Workload count.
func TestDeclaredOverridesClaims(t *testing.T) {
	w := shop()
	w.workload("shop", "web", "", "main").Labels = map[string]string{"app": "declared"}
	w.attach("n1", "shop", "web", "main", 1, "10.0.0.9")
	w.Reports["n1"].Attachments[0].Account = "root"
	snaps, _ := w.compile()
	id := snaps["n1"].Identities[endpoint(snaps["n1"], "10.0.0.9").Identity]
	if id.Account != "default" || !slices.Equal(id.Labels, []snapshot.Label{{Key: "app", Value: "declared"}}) || id.SPIFFE != "spiffe://red.moire/ns/shop/sa/default" {
		t.Errorf("identity %+v", id)
	}
}

// TestTwins: two Networks with one VNI never share it.
func TestTwins(t *testing.T) {
	w := shop()
	w.network("shop", "other", "10.0.0.0/24").Status.VNI = 1
	w.Networks[Key{"shop", "main"}].Status.VNI = 1
	w.attach("n1", "shop", "a", "main", 1, "10.0.0.9")
	w.attach("n1", "shop", "b", "other", 1, "10.0.0.9")
	snaps, problems := w.compile()
	if got := endpoint(snaps["n1"], "10.0.0.9").Workload; got != "a" || len(snaps["n1"].Networks) != 1 {
		t.Errorf("the address is %q's", got)
	}
	wantCodes(t, codes(problems), codeRefused, codeTwin)
}

// TestRemovedNode: what a node said goes with it.
func TestRemovedNode(t *testing.T) {
	w := shop()
	w.attach("n1", "shop", "a", "main", 1, "10.0.0.8")
	w.attach("n2", "shop", "b", "main", 1, "10.0.0.9")
	delete(w.Nodes, "n2")
	snaps, _ := w.compile()
	if endpoint(snaps["n1"], "10.0.0.9").Workload != "" || snaps["n2"] != nil || len(snaps["n1"].Nodes) != 1 {
		t.Error("the removed node is still there")
	}
}

// TestUnreadableRange: who cannot read what is reserved gives out nothing.
func TestUnreadableRange(t *testing.T) {
	w := shop()
	w.Networks[Key{"shop", "main"}].Spec.Reserved = []string{"10.0.0.2-10.0.0.9x"}
	w.attach("n1", "shop", "web", "main", 1)
	w.allocate(NewCompiler())
	w.block("n1", "shop", "main", "10.0.0.0/28")
	snaps, problems := w.compile()
	b := snaps["n1"].Blocks[snapshot.BlockKey{VNI: 1, CIDR: netip.MustParsePrefix("10.0.0.0/28")}]
	if len(b.Excluded) != 1 || b.Excluded[0].First != b.CIDR.Addr() {
		t.Errorf("excluded %v", b.Excluded)
	}
	wantCodes(t, codes(problems), v1alpha1.CodeRange, codeExhausted)
}
