package control

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

func aService(name string, networks ...v1alpha1.ServiceNetwork) *v1alpha1.Service {
	return &v1alpha1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: v1alpha1.ServiceSpec{Networks: networks}}
}

func TestServiceAddresses(t *testing.T) {
	front, back := compile.Key{Project: "shop", Name: "front"}, compile.Key{Project: "shop", Name: "back"}
	give := func(list ...given) addresses { return addresses{given: list} }
	at := func(k compile.Key, a string) given { return given{k, netip.MustParseAddr(a)} }
	both := []v1alpha1.ServiceNetwork{{Network: "front"}, {Network: "back"}}
	for name, tt := range map[string]struct {
		networks []v1alpha1.ServiceNetwork
		has      string
		gets     addresses
		want     string
	}{
		"first":                  {both, "", give(at(back, "fd00::9"), at(back, "10.0.0.9"), at(front, "10.0.0.8")), "front 10.0.0.8, back fd00::9, back 10.0.0.9"},
		"of another project":     {both, "", give(at(compile.Key{Project: "bank", Name: "front"}, "10.0.0.8")), ""},
		"keeps":                  {both, "front 10.0.0.7", addresses{}, "front 10.0.0.7"},
		"what is new wins":       {both, "front 10.0.0.7", give(at(front, "10.0.0.8")), "front 10.0.0.8"},
		"somebody else's":        {both, "front 10.0.0.7", addresses{lost: []string{"10.0.0.7"}}, ""},
		"left the Network":       {both[1:], "front 10.0.0.7", addresses{}, ""},
		"another is named":       {[]v1alpha1.ServiceNetwork{{Network: "front", Addresses: []string{"10.0.0.5"}}}, "front 10.0.0.7", addresses{}, ""},
		"the same, written long": {[]v1alpha1.ServiceNetwork{{Network: "front", Addresses: []string{"fd00:0::5"}}}, "front fd00::5", addresses{}, "front fd00::5"},
	} {
		s := aService("web", tt.networks...)
		if tt.has != "" {
			var a v1alpha1.ServiceAddress
			if _, err := fmt.Sscan(tt.has, &a.Network, &a.Address); err != nil {
				t.Fatal(err)
			}
			s.Status.Addresses = []v1alpha1.ServiceAddress{a}
		}
		changed := tt.gets.service(s)
		got := ""
		for i, a := range s.Status.Addresses {
			if i > 0 {
				got += ", "
			}
			got += a.Network + " " + a.Address
		}
		if got != tt.want || changed != (tt.has != tt.want) {
			t.Errorf("%s: got %q (changed %v), want %q", name, got, changed, tt.want)
		}
	}
	f := &v1alpha1.FloatingIP{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: v1alpha1.FloatingIPSpec{Pool: v1alpha1.NetworkRef{Network: "front"}}}
	if !give(at(front, "10.0.0.8")).floating(f) || f.Status.Address != "10.0.0.8" || give(at(back, "10.0.0.9")).floating(f) || (addresses{}).floating(f) {
		t.Errorf("got %+v", f.Status)
	}
	f.Spec.Address = "10.0.0.9"
	if give(at(front, "10.0.0.8")).floating(f) || !give(at(front, "10.0.0.9")).floating(f) || f.Status.Address != "10.0.0.9" {
		t.Errorf("got %+v", f.Status)
	}
}

// TestNoAddressTwice: whatever stale facts leaders act on, in whatever order,
// an address has one owner, and who was told an address has it.
func TestNoAddressTwice(t *testing.T) {
	front := compile.Key{Project: "shop", Name: "front"}
	rapid.Check(t, func(t *rapid.T) {
		s := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{front: aNetwork("shop", "front", "10.0.0.0/24")}, held: map[string]bool{}}
		rows := newMemory()
		services := map[compile.Key]*v1alpha1.Service{}
		for i := range 4 {
			services[compile.Key{Project: "shop", Name: fmt.Sprint("s", i)}] = aService(fmt.Sprint("s", i), v1alpha1.ServiceNetwork{Network: "front"})
		}
		leaders := []*allocator{newAllocator(loadedKeeper(t, rows, "a"), s, noWriter{}, silent()), newAllocator(loadedKeeper(t, rows, "b"), s, noWriter{}, silent())}
		view := func() *compile.Input { return &compile.Input{Networks: s.input(), Services: services} }
		views := []*compile.Input{view(), view()}
		has := map[string]string{} // address -> owner, as somebody was told
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			who := rapid.IntRange(0, 1).Draw(t, "leader")
			if rapid.Bool().Draw(t, "looks") {
				views[who] = view()
			}
			k := compile.Key{Project: "shop", Name: fmt.Sprint("s", rapid.IntRange(0, 3).Draw(t, "service"))}
			if rapid.IntRange(0, 9).Draw(t, "what") == 0 {
				w := work{blocks: []compile.BlockNeed{{Network: front, Node: "n1"}}}
				if _, err := leaders[who].network(t.Context(), views[who], front, w); err != nil {
					t.Fatal(err)
				}
				continue
			}
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(200 + rapid.IntRange(0, 3).Draw(t, "address"))})
			got, err := leaders[who].network(t.Context(), views[who], front, work{claims: []compile.AddressNeed{{Kind: kindService, Key: k, Network: front, Address: a}}})
			if err != nil {
				t.Fatal(err)
			}
			if g := got[subject{"services", k}]; g != nil {
				for _, one := range g.given {
					if by, taken := has[one.address.String()]; taken && by != k.Name {
						t.Fatalf("%s belongs to %s and was given to %s", one.address, by, k.Name)
					}
					has[one.address.String()] = k.Name
					s.mu.Lock()
					s.held[owner(kindService, k)+" "+one.address.String()] = true
					s.mu.Unlock()
				}
			}
		}
		n := s.all[front]
		seen := map[string]bool{}
		for _, taken := range n.Status.Taken {
			if seen[taken.Address] {
				t.Fatalf("%s stands there twice: %+v", taken.Address, n.Status.Taken)
			}
			seen[taken.Address] = true
		}
		for a := range has {
			if !seen[a] {
				t.Fatalf("%s was given out and is not in the Network: %+v", a, n.Status.Taken)
			}
		}
	})
}

// TestClaims: an address of somebody who does not want it any more can
// be had at once; and a status without an entry in the Network gets one.
func TestClaims(t *testing.T) {
	front := compile.Key{Project: "shop", Name: "front"}
	n := aNetwork("shop", "front", "10.0.0.0/24")
	n.Status.Taken = []v1alpha1.Taken{{Address: "10.0.0.9", By: "Service shop/gone"}, {Address: "10.0.0.8", By: "Service shop/here"}}
	s := &shelfOfNetworks{all: map[compile.Key]*v1alpha1.Network{front: n}, held: map[string]bool{"Service shop/here 10.0.0.8": true}}
	has := aService("has", v1alpha1.ServiceNetwork{Network: "front"})
	has.Status.Addresses = []v1alpha1.ServiceAddress{{Network: "front", Address: "10.0.0.7"}}
	in := &compile.Input{Networks: s.input(), Services: map[compile.Key]*v1alpha1.Service{{Project: "shop", Name: "has"}: has}}
	need := func(name, a string) compile.AddressNeed {
		return compile.AddressNeed{Kind: kindService, Key: compile.Key{Project: "shop", Name: name}, Network: front, Address: netip.MustParseAddr(a)}
	}
	wanted := claims(in, compile.Needs{Addresses: []compile.AddressNeed{need("new", "10.0.0.9"), need("late", "10.0.0.8")}})[front]
	a := newAllocator(loadedKeeper(t, newMemory(), "a"), s, noWriter{}, silent())
	got, err := a.network(t.Context(), in, front, work{claims: wanted})
	if err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.Taken{{Address: "10.0.0.7", By: "Service shop/has"}, {Address: "10.0.0.8", By: "Service shop/here"}, {Address: "10.0.0.9", By: "Service shop/new"}}
	if have := s.all[front].Status.Taken; !slices.Equal(have, want) {
		t.Errorf("got %+v, want %+v", have, want)
	}
	if g := got[subject{"services", compile.Key{Project: "shop", Name: "late"}}]; g == nil || len(g.given) != 0 || !slices.Equal(g.lost, []string{"10.0.0.8"}) {
		t.Errorf("late got %+v", g)
	}
}

func TestAway(t *testing.T) {
	now := time.Unix(1000, 0)
	external := nodeObject("n4")
	external.Spec.External = true
	exist := map[string]*v1alpha1.Node{"n1": nodeObject("n1"), "n2": nodeObject("n2"), "n3": nodeObject("n3"), "n4": external, "n5": nodeObject("n5"), "n6": nodeObject("n6")}
	nodes := map[string]nodeWorld{"n1": {here: true}, "n2": {seen: now.Add(-time.Second)}, "n3": {seen: now.Add(-2 * time.Second)}, "n5": {away: true, seen: now.Add(-time.Hour)}}
	away, next := awayNodes(exist, nodes, map[string]bool{"n6": true}, nil, now, 2*time.Second)
	if len(away) != 1 || !away["n3"] || !next.Equal(now.Add(time.Second)) {
		t.Errorf("got %v, next %s", away, next)
	}
	delete(nodes, "n1")
	if away, _ = awayNodes(exist, nodes, nil, nil, now, 2*time.Second); !away["n1"] {
		t.Error("a node that was never seen is not away")
	}
}

// TestTakenIsGivenBack: what no status has any more is free after a while, what
// a Service or FloatingIP has is not.
func TestTakenIsGivenBack(t *testing.T) {
	networks := oneNetwork()
	front, web, vip := compile.Key{Project: "shop", Name: "front"}, compile.Key{Project: "shop", Name: "web"}, compile.Key{Project: "shop", Name: "vip"}
	networks.all[front].Status = v1alpha1.NetworkStatus{VNI: 100, Taken: []v1alpha1.Taken{
		{Address: "10.0.0.5", By: owner(kindService, web)}, {Address: "10.0.0.6", By: owner(kindFloatingIP, vip)},
		{Address: "10.0.0.7", By: owner(kindService, web)}, {Address: "10.0.0.8", By: owner(kindFloatingIP, vip)}, {Address: "10.0.0.9", By: "FloatingIP shop/gone"}}}
	s := aService("web", v1alpha1.ServiceNetwork{Network: "front"})
	s.Status.Addresses = []v1alpha1.ServiceAddress{{Network: "front", Address: "10.0.0.5"}}
	float := &v1alpha1.FloatingIP{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "vip"},
		Spec: v1alpha1.FloatingIPSpec{Pool: v1alpha1.NetworkRef{Network: "front"}}, Status: v1alpha1.FloatingIPStatus{Address: "10.0.0.6"}}
	f := &facts{in: &compile.Input{Networks: networks.input(), Services: map[compile.Key]*v1alpha1.Service{web: s}, FloatingIPs: map[compile.Key]*v1alpha1.FloatingIP{vip: float}}}
	now := time.Unix(1000, 0)
	r := &retirer{keeper: loadedKeeper(t, newMemory(), "a"), networks: networks, facts: func() *facts { return f }, log: silent(), now: func() time.Time { return now }, unused: map[string]time.Time{}}
	left := func(after time.Duration) (out string) {
		t.Helper()
		now = now.Add(after)
		if err := r.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, taken := range networks.all[front].Status.Taken {
			out += " " + taken.Address
		}
		return out
	}
	const all = " 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.8 10.0.0.9"
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, all}, {retireAfter - time.Second, all}, {time.Second, " 10.0.0.5 10.0.0.6"}, {retireAfter, " 10.0.0.5 10.0.0.6"}} {
		if got := left(step.after); got != step.want {
			t.Errorf("after %s: taken are%s, want%s", step.after, got, step.want)
		}
	}
}

// TestFloatingClaims: a FloatingIP takes its address from the pool, another
// that wants the same gets to know that it lost, and one that was taken in a
// former life is used again.
func TestFloatingClaims(t *testing.T) {
	networks := oneNetwork()
	front, one, two := compile.Key{Project: "shop", Name: "front"}, compile.Key{Project: "shop", Name: "one"}, compile.Key{Project: "shop", Name: "two"}
	networks.held = map[string]bool{owner(kindFloatingIP, one) + " 10.0.0.6": true}
	a := newAllocator(loadedKeeper(t, newMemory(), "a"), networks, nil, silent())
	in := &compile.Input{Networks: networks.input(), FloatingIPs: map[compile.Key]*v1alpha1.FloatingIP{}}
	for _, k := range []compile.Key{one, two} {
		in.FloatingIPs[k] = &v1alpha1.FloatingIP{ObjectMeta: metav1.ObjectMeta{Namespace: k.Project, Name: k.Name}, Spec: v1alpha1.FloatingIPSpec{Pool: v1alpha1.NetworkRef{Network: "front"}}}
	}
	claim := func(k compile.Key, address string) *addresses {
		t.Helper()
		n, err := networks.get(t.Context(), front)
		if err != nil {
			t.Fatal(err)
		}
		changed, out, err := a.claim(t.Context(), in, n, []compile.AddressNeed{{Kind: kindFloatingIP, Key: k, Network: front, Address: netip.MustParseAddr(address)}})
		if err == nil && changed {
			err = networks.putStatus(t.Context(), n)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out.of(kindFloatingIP, k)
	}
	if got := claim(one, "10.0.0.6"); len(got.given) != 1 || got.given[0].address.String() != "10.0.0.6" {
		t.Errorf("one got %+v", got)
	}
	if got := claim(two, "10.0.0.6"); len(got.given) != 0 || len(got.lost) != 1 {
		t.Errorf("two got %+v", got)
	}
	if got := claim(one, "10.0.0.7"); len(got.given) != 1 || got.given[0].address.String() != "10.0.0.6" {
		t.Errorf("one, which has an address that its status does not say yet, got %+v", got)
	}
	if taken := networks.all[front].Status.Taken; len(taken) != 1 || taken[0].By != owner(kindFloatingIP, one) {
		t.Errorf("taken are %+v", taken)
	}
}
