package compile

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

var (
	nodes    = []string{"n1", "n2", "n3", "sw"}
	projects = []string{"shop", "store", "bank", "moire-system", "stray"}
	networks = []string{"main", "back"}
	names    = []string{"a", "b", "c", "d"}
	apps     = []string{"web", "db"}
	hostings = []string{"10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.9", "10.0.1.3", "fd00::5"}
	words    = []string{"10.0.0.0/28", "10.0.0.16/28", "10.0.1.0/30", "fd00::/122"}
)

func pick[T any](t *rapid.T, from []T) T { return rapid.SampledFrom(from).Draw(t, "pick") }

func often(t *rapid.T) bool { return rapid.IntRange(0, 3).Draw(t, "often") > 0 }

// drawWorld draws intent and world in every combination, also wrong ones.
func drawWorld(t *rapid.T) world {
	w := newWorld()
	if often(t) {
		w = connected(t)
		w.settle()
		for range rapid.IntRange(3, 15).Draw(t, "changes") {
			w.change(t)
		}
		return w
	}
	for _, d := range []string{"red", "blue"} {
		if often(t) {
			w.domain(d)
		}
	}
	for _, p := range projects {
		if often(t) {
			w.Projects[p] = pick(t, []string{"red", "blue"})
		}
	}
	for _, n := range nodes {
		if often(t) {
			w.node(n).Spec.External = n == "sw"
		}
	}
	for range rapid.IntRange(10, 40).Draw(t, "things") {
		w.change(t)
	}
	return w
}

// change makes one random change of intent or world.
func (w world) change(t *rapid.T) {
	p, n, name, node := pick(t, projects), pick(t, networks), pick(t, names), pick(t, nodes)
	ref := n // of the interface
	if !often(t) {
		ref = pick(t, projects) + "/" + n
	}
	switch rapid.IntRange(0, 19).Draw(t, "what") {
	case 0:
		o := w.network(p, n, rapid.SampledFrom([][]string{{"10.0.0.0/24"}, {"10.0.0.0/30"}, {"10.0.0.0/24", "fd00::/64"}, {"10.0.0.0/24", "10.0.1.0/24"}}).Draw(t, "prefixes")...)
		o.Spec.Default = pick(t, []string{"open", "deny"})
		drawNetwork(t, o)
		if !often(t) {
			o.Spec.Reserved = []string{"10.0.0.8/30"}
		}
	case 1, 2:
		o := w.workload(p, name, rapid.SampledFrom([]string{"", "n1", "n2", "sw", "gone"}).Draw(t, "node"), ref)
		o.Labels["app"] = pick(t, apps)
		if !often(t) {
			o.Spec.Interfaces[0].Addresses = []string{pick(t, hostings)}
			o.Spec.Interfaces[0].MAC = "02:00:00:00:00:01"
		}
	case 3, 4:
		if w.Reports[node] == nil {
			return
		}
		var addresses []string
		if often(t) {
			addresses = []string{pick(t, hostings)}
		}
		w.attach(node, p, name, ref, rapid.IntRange(0, 2).Draw(t, "minute"), addresses...)
	case 5:
		w.Policies[Key{p, name}] = drawPolicy(t, p, name)
	case 6:
		if w.Reports[node] != nil && w.Networks[Key{p, n}] != nil {
			w.block(node, p, n, pick(t, words), pick(t, hostings))
		}
	case 7:
		delete(w.Workloads, Key{p, name})
		delete(w.Policies, Key{p, n})
	case 8:
		if often(t) {
			w.allocate(NewCompiler())
		}
	case 9, 10:
		w.changeMesh(t)
	case 11, 12:
		w.changeGateways(t)
	default:
		w.changeReach(t)
	}
}

func drawPolicy(t *rapid.T, project, name string) *v1alpha1.Policy {
	p := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}}
	p.Spec.Tier = pick(t, []string{"admin", "project", "project", "baseline"})
	p.Spec.Mode = pick(t, []string{"enforce", "enforce", "audit"})
	p.Spec.Priority = int32(rapid.IntRange(0, 2).Draw(t, "priority"))
	if often(t) {
		p.Spec.Subject = &v1alpha1.Subject{Labels: drawSelector(t)}
	}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		r := v1alpha1.Rule{Action: pick(t, map[string][]string{"admin": {"accept", "deny", "pass"}, "project": {"allow", "deny"}, "baseline": {"allow", "deny"}}[p.Spec.Tier])}
		var peers []v1alpha1.Peer
		for range rapid.IntRange(0, 2).Draw(t, "peers") {
			peer := drawPeer(t)
			switch rapid.IntRange(0, 9).Draw(t, "word") {
			case 0:
				peer = v1alpha1.Peer{Service: pick(t, names)}
			case 1:
				peer = v1alpha1.Peer{Name: "*.example.com"}
			}
			peers = append(peers, peer)
		}
		if often(t) {
			r.Ports = []v1alpha1.Port{{Protocol: "TCP", Port: int32(rapid.IntRange(1, 3).Draw(t, "port"))}}
		}
		if !often(t) {
			r.MatchEqual = []string{"app"}
		}
		drawRequests(t, &r)
		if often(t) {
			r.From = peers
			p.Spec.Ingress = append(p.Spec.Ingress, r)
		} else {
			r.To = peers
			p.Spec.Egress = append(p.Spec.Egress, r)
		}
	}
	return p
}

func drawSelector(t *rapid.T) *metav1.LabelSelector {
	if !often(t) {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: pick(t, []metav1.LabelSelectorOperator{"Exists", "NotIn", "Broken"})}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(t, apps)}}
}

func drawPeer(t *rapid.T) v1alpha1.Peer {
	var p v1alpha1.Peer
	if often(t) {
		p.Labels = drawSelector(t)
	}
	switch rapid.IntRange(0, 5).Draw(t, "peer") {
	case 0:
		p.Project = pick(t, append(projects, "*"))
	case 1:
		p.Network = pick(t, networks)
	case 2:
		p.CIDR, p.Except = pick(t, []string{"10.0.0.0/24", "192.168.0.0/16", "0.0.0.0/0"}), []string{"10.0.0.8/29"}
	}
	return p
}

// shuffled is the same facts, put together in another order.
func (w world) shuffled(seed int64) *Input {
	r := rand.New(rand.NewSource(seed))
	return &Input{
		Domains: again(r, w.Domains), Projects: again(r, w.Projects), Networks: again(r, w.Networks), Workloads: again(r, w.Workloads),
		Policies: again(r, w.Policies), Nodes: again(r, w.Nodes), NodeNumbers: again(r, w.NodeNumbers), Reports: again(r, w.Reports), Identities: again(r, w.Identities),
		Links: again(r, w.Links), Services: again(r, w.Services), FloatingIPs: again(r, w.FloatingIPs), Away: again(r, w.Away), Resolved: again(r, w.Resolved),
		Modes: again(r, w.Modes), KeySets: again(r, w.KeySets),
		HTTPRoutes: again(r, w.HTTPRoutes), GRPCRoutes: again(r, w.GRPCRoutes), TLSRoutes: again(r, w.TLSRoutes), TCPRoutes: again(r, w.TCPRoutes),
		Gateways: again(r, w.Gateways), Classes: again(r, w.Classes), Secrets: again(r, w.Secrets), Labels: again(r, w.Labels),
		Grants: again(r, w.Grants), BackendPolicies: again(r, w.BackendPolicies), FaultPolicies: again(r, w.FaultPolicies),
	}
}

func again[K comparable, V any](r *rand.Rand, m map[K]V) map[K]V {
	keys := slices.Collect(maps.Keys(m))
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	out := map[K]V{}
	for _, k := range keys {
		out[k] = m[k]
	}
	return out
}

// TestAnyOrderSameBytes: the same facts in any order give the same snapshots,
// Problems and Needs.
func TestAnyOrderSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		snaps, problems := Compile(w.Input)
		want, needs := dump(snaps), fmt.Sprint(NeedsOf(w.Input))
		for seed := range int64(4) {
			in := w.shuffled(seed)
			again, told := Compile(in)
			if got := dump(again); got != want {
				t.Fatalf("other bytes:\n%s\nwant\n%s", got, want)
			}
			if got, want := fmt.Sprint(StatusesOf(in)), fmt.Sprint(StatusesOf(w.Input)); got != want {
				t.Fatalf("other statuses:\n%s\nwant\n%s", got, want)
			}
			if fmt.Sprint(told) != fmt.Sprint(problems) {
				t.Fatalf("other Problems:\n%v\nwant\n%v", told, problems)
			}
			if got := fmt.Sprint(NeedsOf(in)); got != needs {
				t.Fatalf("other Needs: %s, want %s", got, needs)
			}
		}
	})
}

// TestMemoryChangesNothing: a Compiler that has seen everything before gives
// what a new one gives, after every change.
func TestMemoryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		c := NewCompiler()
		for range 12 {
			w.change(t)
			if got, want := fmt.Sprint(c.NeedsOf(w.Input)), fmt.Sprint(NeedsOf(w.Input)); got != want {
				t.Fatalf("Needs %s, want %s", got, want)
			}
			snaps, problems := c.Compile(w.Input)
			fresh, told := Compile(w.Input)
			if got, want := dump(snaps), dump(fresh); got != want {
				t.Fatalf("other bytes:\n%s\nwant\n%s", got, want)
			}
			if got, want := fmt.Sprint(c.StatusesOf(w.Input)), fmt.Sprint(StatusesOf(w.Input)); got != want {
				t.Fatalf("other statuses:\n%s\nwant\n%s", got, want)
			}
			if fmt.Sprint(problems) != fmt.Sprint(told) {
				t.Fatalf("other Problems:\n%v\nwant\n%v", problems, told)
			}
		}
	})
}

// TestInvariants: what DESIGN.md promises of every snapshot.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.allocate(NewCompiler())
		snaps, _ := Compile(w.Input)
		seen := map[snapshot.Addr]snapshot.Endpoint{}
		run := map[snapshot.GatewayKey]string{}
		for name, s := range snaps {
			if s.Node != name || w.Nodes[name] == nil || w.Nodes[name].Spec.External {
				t.Fatalf("a snapshot for %s", name)
			}
			checkEndpoints(t, s, seen)
			checkPolicies(t, s)
			checkServices(t, s)
			checkCrosses(t, s)
			checkTraffic(t, s)
			checkGateways(t, s, run)
			for k, b := range s.Blocks {
				if b.BlockKey != k {
					t.Fatalf("block %v under %v", b.BlockKey, k)
				}
			}
			checkGrants(t, w, s)
		}
	})
}

func checkEndpoints(t *rapid.T, s *snapshot.Snapshot, seen map[snapshot.Addr]snapshot.Endpoint) {
	for k, e := range s.Endpoints {
		n, hosted := s.Networks[k.VNI]
		id, known := s.Identities[e.Identity]
		if !hosted || !known || e.Project != id.Project {
			t.Fatalf("endpoint %+v without its Network or identity: %+v %+v", e, n, id)
		}
		if _, ok := s.Nodes[e.Node]; !ok {
			t.Fatalf("endpoint %+v on an unknown node", e)
		}
		if other, twice := seen[k]; twice && other != e {
			t.Fatalf("two nodes disagree: %+v and %+v", e, other)
		}
		seen[k] = e
		checkReach(t, s, e)
		if e.Node != s.Node || e.Home.IP.IsValid() {
			continue
		}
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			if _, ok := s.Policies[snapshot.PolicyKey{VNI: k.VNI, Identity: e.Identity, Direction: d}]; !ok {
				t.Fatalf("local endpoint %+v has no %s set", e, d)
			}
		}
	}
}

func checkPolicies(t *rapid.T, s *snapshot.Snapshot) {
	for k, set := range s.Policies {
		if _, ok := s.Networks[k.VNI]; !ok || set.Default.ID == "" {
			t.Fatalf("set %+v of an unknown Network or without default", k)
		}
		if !slices.IsSortedFunc(set.Rules, func(a, b policy.Rule) int { return int(a.Tier) - int(b.Tier) }) {
			t.Fatalf("rules out of order: %+v", set.Rules)
		}
		allowed := false
		for _, r := range set.Rules {
			checkRequests(t, s, &r)
			if r.Tier == policy.Project {
				if allowed = allowed || r.Action == policy.Allow; allowed && r.Action == policy.Deny {
					t.Fatalf("allow before deny: %+v", set.Rules)
				}
			}
			for _, p := range r.Peers {
				if !slices.IsSorted(p.Identities) {
					t.Fatalf("identities out of order: %+v", p)
				}
				for _, n := range p.Identities {
					if _, ok := s.Identities[n]; !ok {
						t.Fatalf("rule %s names the identity %d that the snapshot does not know", r.ID, n)
					}
				}
			}
		}
	}
}

func checkGrants(t *rapid.T, w world, s *snapshot.Snapshot) {
	for k, g := range s.Grants {
		if g.AttachmentKey != k || g.Error == "" && (g.VNI == 0 || g.Identity == 0) || g.Error != "" && (g.VNI != 0 || g.Identity != 0 || g.Addresses != nil) {
			t.Fatalf("grant %+v under %+v", g, k)
		}
		if !slices.ContainsFunc(w.Reports[s.Node].Attachments, func(a snapshot.Attachment) bool { return a.AttachmentKey == k }) {
			t.Fatalf("grant %+v for what the node does not have", g)
		}
		for _, a := range g.Addresses {
			for other, o := range s.Grants {
				if other != k && o.VNI == g.VNI && slices.Contains(o.Addresses, a) {
					t.Fatalf("%s granted to %v and %v", a, k, other)
				}
			}
			if e, ok := s.Endpoints[snapshot.Addr{VNI: g.VNI, IP: a}]; ok && (e.Workload != k.Workload || e.Node != s.Node) {
				t.Fatalf("%s granted to %v although %+v has it", a, k, e)
			}
		}
	}
}

// TestSettles: what is allocated as needed is then in force, so nothing is
// needed for ever, and no two have one address.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.settle()
		if n := NeedsOf(w.Input); len(n.Addresses)+len(n.VNIs)+len(n.Identities)+len(n.NodeNumbers) > 0 {
			t.Fatalf("still needed: %+v", n)
		}
		owners := map[string]string{}
		st := StatusesOf(w.Input)
		for k, s := range st.Services {
			for _, a := range s.Addresses {
				at := k.Project + "/" + a.Network + " " + a.Address
				if owners[at] != "" {
					t.Fatalf("%s belongs to %s and %s", at, owners[at], k)
				}
				owners[at] = k.String()
			}
		}
		for k, s := range st.FloatingIPs {
			if s.Address == "" {
				continue
			}
			at := poolOf(w.FloatingIPs[k]).String() + " " + s.Address
			if owners[at] != "" {
				t.Fatalf("%s belongs to %s and %s", at, owners[at], k)
			}
			owners[at] = k.String()
		}
	})
}
