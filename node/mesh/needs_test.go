package mesh_test

import (
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/node/mesh"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

func TestNeeds(t *testing.T) {
	off := func(s *snapshot.Snapshot) {
		for a, e := range s.Endpoints {
			e.Mode = snapshot.Off
			s.Endpoints[a] = e
		}
	}
	for _, c := range []struct {
		why    string
		change func(*snapshot.Snapshot)
	}{
		{"mtls strict", func(*snapshot.Snapshot) {}},
		{"HTTPRoute red-shop/api", off},
		{"", func(s *snapshot.Snapshot) { off(s); s.Frontends = nil }},
		{"", func(s *snapshot.Snapshot) {
			off(s)
			k := snapshot.FrontendKey{ServiceKey: service(red, "10.9.0.1", 80), Project: "third"}
			s.Frontends = map[snapshot.FrontendKey]snapshot.Frontend{k: {FrontendKey: k, Why: "of another project"}}
		}},
		{"policy/red-shop/p/ingress/0", func(s *snapshot.Snapshot) {
			off(s)
			k := snapshot.PolicyKey{VNI: red, Identity: 1, Direction: policy.Ingress}
			s.Policies[k] = policy.Set{Rules: []policy.Rule{{ID: "policy/red-shop/p/ingress/0", Requests: []policy.RequestMatch{{Methods: []string{"GET"}}}}}}
		}},
	} {
		s, i := twins(), web(red)
		c.change(s)
		if why := mesh.Needs(s, &i); why != c.why {
			t.Errorf("it needs a proxy because of %q, want %q", why, c.why)
		}
	}
}

// TestSound: one tenant's mistake is left out, the other's routes stay.
func TestSound(t *testing.T) {
	s := twins()
	s.Routes["red-shop/api"] = l7.Route{Rules: []l7.Rule{{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: "Nonsense", Value: "/"}}}, Backends: s.Routes["red-shop/api"].Rules[0].Backends}}}
	in := input(s, web(blue), web(red))
	c := build(in)
	sound, why := mesh.Sound(c)
	if len(why) != 1 || !strings.HasPrefix(why[0], "red-shop/api: routes[1].rules[0]") {
		t.Fatalf("left out because of %q", why)
	}
	if len(sound.Routes) != 1 || sound.Routes[0].Name != "blue-shop/api" || len(sound.Listeners) != 4 || len(sound.Mesh.Workloads) != 2 {
		t.Errorf("%+v", sound)
	}
	if p := sound.Validate(); slices.ContainsFunc(p, func(p l7.Problem) bool { return !p.Soft }) {
		t.Error(p)
	}
	if again, why := mesh.Sound(sound); again != sound || why != nil {
		t.Errorf("a sound Config is changed: %v", why)
	}
	if c.Mesh.Workloads[0].Certificate == "" || sound.Mesh.Workloads[0].Certificate == "" {
		t.Error("a certificate is lost")
	}
}
