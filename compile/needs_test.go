package compile

import (
	"fmt"
	"slices"
	"testing"

	"moire.dev/moire/snapshot"
)

func TestNeeds(t *testing.T) {
	w := shop()
	w.network("shop", "empty", "10.1.0.0/24")
	w.node("sw").Spec.External = true
	w.workload("shop", "web", "n1", "main")
	w.attach("n2", "shop", "run", "main", 1)
	n := NeedsOf(w.Input)
	if got := fmt.Sprint(n.VNIs); got != "[shop/empty shop/main]" {
		t.Errorf("VNIs %s", got)
	}
	if got := fmt.Sprint(n.NodeNumbers); got != "[n1 n2]" {
		t.Errorf("node numbers %s", got)
	}
	if got := fmt.Sprint(n.Blocks); got != "[{shop/main n1 false} {shop/main n2 false}]" {
		t.Errorf("blocks %s", got)
	}
	var who []string
	for _, id := range n.Identities {
		who = append(who, string(KeyOf(id)))
		if id.Number != 0 || id.SPIFFE == "" {
			t.Errorf("identity %+v", id)
		}
	}
	if want := []string{"red/shop/default?app=run", "red/shop/default?app=web"}; !slices.Equal(who, want) {
		t.Errorf("identities %v, want %v", who, want)
	}
	w.allocate(NewCompiler())
	n = NeedsOf(w.Input)
	if len(n.VNIs)+len(n.Identities)+len(n.NodeNumbers) != 0 {
		t.Errorf("after allocation still needed: %+v", n)
	}
}

// TestBlocksRunOut: a node asks again before its blocks are empty, and not
// when nothing is left; then the Workloads without an address are told.
func TestBlocksRunOut(t *testing.T) {
	w := shop()
	w.Networks[Key{"shop", "main"}].Spec.Prefixes = []string{"10.0.0.0/28"}
	w.allocate(NewCompiler())
	w.attach("n1", "shop", "w0", "main", 0)
	if n := NeedsOf(w.Input); len(n.Blocks) != 1 {
		t.Fatalf("needs %+v", n.Blocks)
	}
	w.block("n1", "shop", "main", "10.0.0.0/28")
	if n := NeedsOf(w.Input); len(n.Blocks) != 0 {
		t.Fatalf("needs %+v although it holds everything", n.Blocks)
	}
	for i := range 13 {
		w.attach("n1", "shop", fmt.Sprintf("x%d", i), "main", i, fmt.Sprintf("10.0.0.%d", i+2))
	}
	w.attach("n1", "shop", "last", "main", 20)
	snaps, problems := w.compile()
	wantCodes(t, codes(problems), codeExhausted)
	if len(problems) != 3 || problems[0].Object != "Network shop/main" || problems[0].Warning {
		t.Errorf("want the Network and 2 Workloads: %v", problems)
	}
	// The node is told as well, so that who attaches need not wait.
	const want = "Network shop/main has no free IPv4 address left for it; IPv4 addresses to give out: 13, and all of them are in use; add a prefix to the Network, or detach something"
	for key, g := range snaps["n1"].Grants {
		if refused := key.Workload == "last" || key.Workload == "w0"; refused != (g.Error == want) || refused != (g.VNI == 0) {
			t.Errorf("got the grant %+v", g)
		}
	}
	if n := NeedsOf(w.Input); len(n.Blocks) != 0 {
		t.Errorf("needs %+v although nothing is left", n.Blocks)
	}
	if len(snaps["n1"].Endpoints) != 13 {
		t.Errorf("%d endpoints", len(snaps["n1"].Endpoints))
	}
	// Without them the Network works, but says that nobody else fits in.
	w.detach("n1", "last")
	w.detach("n1", "w0")
	if _, problems = w.compile(); len(problems) != 1 || problems[0].Code != codeExhausted || !problems[0].Warning {
		t.Errorf("a Network that is full: %v", problems)
	}
	w.detach("n1", "x3")
	if _, problems = w.compile(); len(problems) != 0 {
		t.Errorf("a Network with one free address: %v", problems)
	}
}

func TestKeys(t *testing.T) {
	for _, id := range []snapshot.Identity{
		{},
		{Domain: "red", Project: "shop", Account: "default"},
		{Domain: "r/e?d", Project: "a&b", Account: "ü=%", Labels: []snapshot.Label{{Key: "a=b", Value: "c&d"}, {Key: "x/y", Value: ""}}},
	} {
		back, err := ParseKey(KeyOf(id))
		if err != nil || back.Domain != id.Domain || back.Project != id.Project || back.Account != id.Account || !slices.Equal(back.Labels, id.Labels) {
			t.Errorf("%+v became %q became %+v (%v)", id, KeyOf(id), back, err)
		}
	}
	a := snapshot.Identity{Labels: []snapshot.Label{{Key: "b"}, {Key: "a"}}, Number: 4, SPIFFE: "x"}
	b := snapshot.Identity{Labels: []snapshot.Label{{Key: "a"}, {Key: "b"}}}
	if KeyOf(a) != KeyOf(b) {
		t.Error("order, number or name count")
	}
	for _, bad := range []IdentityKey{"", "a/b", "a/b/c/d", "a/b/c?b=1&a=1", "%zz/a/b", "a/b/c?%zz=1", "a/b/c?a=%zz", "a/b/c?"} {
		if id, err := ParseKey(bad); err == nil {
			t.Errorf("%q is %+v", bad, id)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("red/shop/default?app=web&tier=1")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseKey(IdentityKey(s)); err == nil && KeyOf(id) != IdentityKey(s) {
			t.Fatalf("%q became %q", s, KeyOf(id))
		}
	})
}
