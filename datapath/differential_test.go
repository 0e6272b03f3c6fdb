package datapath_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"moire.dev/moire/datapath"
	"moire.dev/moire/datapath/proving"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("this test loads programs and needs root")
		}
		t.Skip("this test loads programs and needs root")
	}
}

var (
	prefixes = []string{"10.0.0.0/8", "10.0.0.0/24", "10.0.0.4/30", "10.0.0.5/32", "0.0.0.0/0", "fd00::/8", "fd00::/64", "fd00::5/128", "::/0"}
	peers    = []string{"10.0.0.1", "10.0.0.5", "10.0.0.6", "10.1.0.1", "192.0.2.1", "fd00::1", "fd00::5", "fdff::1", "fe00::1"}
	ports    = []uint16{0, 1, 79, 80, 81, 443, 1024, 8080, 65534, 65535}
	protos   = []uint8{policy.ICMP, policy.TCP, policy.UDP, policy.SCTP}
	me4, me6 = netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("fd77::1")
)

const vni = 4242

func one[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomSet(r *rand.Rand) policy.Set {
	s := policy.Set{Default: policy.DefaultRule{ID: "default", Allow: r.IntN(2) == 0}}
	if r.IntN(3) == 0 {
		s.Isolated = "isolated"
	}
	if r.IntN(3) == 0 {
		s.AuditIsolated = "audit-isolated"
	}
	for i := range r.IntN(9) {
		u := policy.Rule{ID: policy.RuleID(fmt.Sprintf("rule/%d", i)), Tier: policy.Tier(r.IntN(3)), Audit: r.IntN(4) == 0}
		u.Action = policy.Action(r.IntN(2))
		if u.Tier == policy.Admin {
			u.Action = policy.Action(r.IntN(3))
		}
		if u.Action != policy.Pass && r.IntN(4) == 0 {
			u.Requests = []policy.RequestMatch{{Methods: []string{"GET"}}}
		}
		for range r.IntN(3) {
			u.Peers = append(u.Peers, randomPeer(r))
		}
		for range r.IntN(3) {
			p := policy.PortRange{Protocol: one(r, protos), Last: 65535}
			if p.Protocol != policy.ICMP && r.IntN(2) == 0 {
				a, b := one(r, ports), one(r, ports)
				p.First, p.Last = min(a, b), max(a, b)
			}
			u.Ports = append(u.Ports, p)
		}
		s.Rules = append(s.Rules, u)
	}
	slices.SortStableFunc(s.Rules, func(a, b policy.Rule) int { return int(a.Tier) - int(b.Tier) })
	return s
}

func randomPeer(r *rand.Rand) policy.Peer {
	p := policy.Peer{Anyone: r.IntN(2) == 0}
	if !p.Anyone {
		for id := policy.Identity(1); id <= 4; id++ {
			if r.IntN(2) == 0 {
				p.Identities = append(p.Identities, id)
			}
		}
	}
	if r.IntN(2) == 0 {
		p.CIDR = netip.MustParsePrefix(one(r, prefixes))
		if r.IntN(2) == 0 {
			p.Except = []netip.Prefix{netip.MustParsePrefix(one(r, prefixes))}
		}
	}
	return p
}

// differential is one workload here, with the sets, and peers of random
// identities elsewhere.
type differential struct {
	snapshot *snapshot.Snapshot
	sets     map[policy.Direction]policy.Set
	down     bool // the proxy
	modes    map[policy.Identity]snapshot.Mode
}

func randomWorld(r *rand.Rand) differential {
	d := differential{down: r.IntN(4) == 0, modes: map[policy.Identity]snapshot.Mode{}, sets: map[policy.Direction]policy.Set{policy.Ingress: randomSet(r), policy.Egress: randomSet(r)}}
	for _, id := range []policy.Identity{0, 1, 2, 3, 4, 5, 6, 100} {
		d.modes[id] = snapshot.Mode(r.IntN(3))
	}
	s := &snapshot.Snapshot{
		Node: "here",
		Nodes: map[string]snapshot.Node{
			"here": {Name: "here", Address: netip.MustParseAddr("192.0.2.101")}, "there": {Name: "there", Address: netip.MustParseAddr("192.0.2.102")},
		},
		Networks: map[snapshot.VNI]snapshot.Network{vni: {VNI: vni, Project: "p", Name: "n", Prefixes: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fc00::/6"),
		}}},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Policies: map[snapshot.PolicyKey]policy.Set{},
	}
	add := func(node, name string, ip netip.Addr, id policy.Identity) {
		a := snapshot.Addr{VNI: vni, IP: ip}
		s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "p", Workload: name, Node: node, Identity: id, MAC: snapshot.MAC{2, 0, 0, 0, 0, byte(id)}, Mode: d.modes[id]}
	}
	add("here", "me", me4, 100)
	add("here", "me", me6, 100)
	for i, p := range peers {
		add("there", fmt.Sprint("peer", i), netip.MustParseAddr(p), policy.Identity(r.IntN(7)))
	}
	d.link(r, s, add)
	for dir, set := range d.sets {
		s.Policies[snapshot.PolicyKey{VNI: vni, Identity: 100, Direction: dir}] = set
	}
	d.snapshot = s
	return d
}

const linkedVNI = 4243

// strangers are in a linked Network, where they have other addresses than the
// ones that they are seen under.
var strangers = map[string]string{"10.0.0.7": "172.16.0.7", "10.1.0.7": "10.200.0.1", "fd00::7": "fdee::7"}

// link joins a Network whose Workloads me sees, and they me, translated.
func (d *differential) link(r *rand.Rand, s *snapshot.Snapshot, add func(string, string, netip.Addr, policy.Identity)) {
	s.Networks[linkedVNI] = snapshot.Network{VNI: linkedVNI, Project: "q", Name: "m", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("10.200.0.0/24"), netip.MustParsePrefix("fdee::/16")}}
	see := func(vni snapshot.VNI, as netip.Addr, home snapshot.Addr, like snapshot.Endpoint) {
		like.Addr, like.Home = snapshot.Addr{VNI: vni, IP: as}, home
		s.Endpoints[like.Addr] = like
	}
	for as, at := range strangers {
		home := snapshot.Addr{VNI: linkedVNI, IP: netip.MustParseAddr(at)}
		e := snapshot.Endpoint{Addr: home, Project: "q", Workload: "stranger", Node: "there", Identity: policy.Identity(r.IntN(7)), MAC: snapshot.MAC{2, 0, 0, 0, 9, 1}}
		e.Mode = d.modes[e.Identity]
		s.Endpoints[home] = e
		see(vni, netip.MustParseAddr(as), home, e)
	}
	for at, as := range map[netip.Addr]string{me4: "172.31.0.1", me6: "fdee::1"} {
		home := snapshot.Addr{VNI: vni, IP: at}
		see(linkedVNI, netip.MustParseAddr(as), home, s.Endpoints[home])
	}
}

// askLinked asks about a packet to or from a stranger, as its sender sends it;
// what is translated on the way has checksums that are right.
func (d *differential) askLinked(n *proving.Node, dir policy.Direction, p proving.Packet, peer netip.Addr) (datapath.Judgement, error) {
	if dir == policy.Egress {
		return n.Ask(vni, p)
	}
	p.Src = netip.MustParseAddr(strangers[peer.String()])
	p.Dst = netip.MustParseAddr(map[bool]string{true: "172.31.0.1", false: "fdee::1"}[peer.Is4()])
	j, err := n.Ask(linkedVNI, p)
	if err != nil || !j.Allow {
		return j, err
	}
	seen, err := proving.Read(j.Packet)
	if err == nil && (seen.Src != peer || seen.Dst != map[bool]netip.Addr{true: me4, false: me6}[peer.Is4()] ||
		(p.Protocol != policy.SCTP && p.Protocol != 47 && !seen.ChecksumOK)) {
		err = fmt.Errorf("%+v arrives as %+v", p, seen)
	}
	return j, err
}

// disagreement asks the kernel and the decision code about one random packet.
func (d *differential) disagreement(r *rand.Rand, n *proving.Node, port uint16) (string, error) {
	peer := netip.MustParseAddr(one(r, append(slices.Sorted(maps.Keys(strangers)), peers...)))
	me := me4
	if peer.Is6() {
		me = me6
	}
	p := proving.Packet{Protocol: one(r, append(slices.Clone(protos), 47)), SrcPort: port, DstPort: one(r, ports), Spoken: r.IntN(2) == 0}
	dir := policy.Direction(r.IntN(2))
	p.Src, p.Dst = me, peer
	if dir == policy.Ingress {
		p.Src, p.Dst = peer, me
	}
	if p.Protocol == 47 { // no ports: every packet would be of one session
		p.Payload = make([]byte, 20)
		if err := n.Forget(); err != nil {
			return "", err
		}
	}
	set := d.sets[dir]
	id := d.snapshot.Endpoints[snapshot.Addr{VNI: vni, IP: peer}].Identity
	q := policy.Packet{Peer: id, PeerAddr: peer, Protocol: p.Protocol, Port: p.DstPort}
	if p.Protocol == policy.ICMP || p.Protocol == 47 {
		q.Port = 0
	}
	want := set.Decide(q)
	ask := n.Ask
	if strangers[peer.String()] != "" {
		ask = func(_ snapshot.VNI, p proving.Packet) (datapath.Judgement, error) {
			return d.askLinked(n, dir, p, peer)
		}
	}
	got, err := ask(vni, p)
	if err != nil {
		return "", err
	}
	allow, drop := d.expected(want, dir, p, peer)
	if got.Allow == allow && got.Rule == string(want.Rule) && got.Shadow == string(want.Shadow.ID) &&
		got.ShadowAllow == want.Shadow.Allow && got.Drop == drop {
		return "", nil
	}
	return fmt.Sprintf("%s of %+v (peer identity %d)\nset %+v\nrules say %+v, so %v %s\nkernel says %+v", dir, p, id, set, want, allow, drop, got), nil
}

// expected says what becomes of a packet about which the rules say that.
func (d *differential) expected(v policy.Verdict, dir policy.Direction, p proving.Packet, peer netip.Addr) (allow bool, drop string) {
	mine, theirs := d.snapshot.Endpoints[snapshot.Addr{VNI: vni, IP: me4}].Mode, d.snapshot.Endpoints[snapshot.Addr{VNI: vni, IP: peer}].Mode
	mesh := mine != snapshot.Off && theirs != snapshot.Off
	switch {
	case p.Protocol != policy.TCP || !v.Allow && !v.Proxy:
		return v.Allow, ""
	case dir == policy.Ingress && mine == snapshot.Strict && !mesh:
		return false, "not-in-mesh"
	case !mesh && !v.Proxy:
		return true, ""
	case d.down:
		return false, "no-proxy"
	case dir == policy.Egress && !p.Spoken:
		return false, "needs-proxy"
	}
	return true, ""
}

// TestDifferential: for more than 10,000 random pairs of policy set and packet
// the program in the kernel decides as policy.Set.Decide does, with the same
// rule and the same shadow, and lets only a proxy say what only a proxy may.
func TestDifferential(t *testing.T) {
	needRoot(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	world := randomWorld(r)
	n, err := proving.New(world.snapshot)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	const worlds, packets = 260, 40
	pairs := 0
	for range worlds {
		world = randomWorld(r)
		if err := n.Apply(world.snapshot); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(n.Forget(), n.ProxyUp(!world.down)); err != nil {
			t.Fatal(err)
		}
		for i := range packets {
			wrong, err := world.disagreement(r, n, uint16(30000+i))
			if err != nil {
				t.Fatal(err)
			}
			if wrong != "" {
				t.Fatal(wrong)
			}
			pairs++
		}
	}
	t.Logf("%d pairs agree", pairs)
	plantDisagreement(t, r, n, &world)
}

// plantDisagreement: the test above can fail. The rows of the policy table are
// turned round behind the agent's back; afterwards Grow repairs them.
func plantDisagreement(t *testing.T, r *rand.Rand, n *proving.Node, world *differential) {
	rows, err := n.Corrupt()
	if err != nil || rows == 0 {
		t.Fatalf("corrupted %d rows: %v", rows, err)
	}
	found := func() int {
		if err := n.Forget(); err != nil {
			t.Fatal(err)
		}
		count := 0
		for i := range 50 {
			wrong, err := world.disagreement(r, n, uint16(40000+i))
			if err != nil {
				t.Fatal(err)
			}
			if wrong != "" {
				count++
			}
		}
		return count
	}
	if found() != 50 {
		t.Fatal("a planted disagreement was not found")
	}
	before := n.Writes()
	if err := n.Apply(world.snapshot); err != nil {
		t.Fatal(err)
	}
	if n.Writes() == before {
		t.Fatal("nothing was repaired")
	}
	if found() != 0 {
		t.Fatal("the planted wrong rows were not repaired")
	}
	before = n.Writes()
	if err := n.Apply(world.snapshot); err != nil {
		t.Fatal(err)
	}
	if n.Writes() != before {
		t.Fatalf("%d writes although nothing changed", n.Writes()-before)
	}
}
