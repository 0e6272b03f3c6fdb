package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// crowd adds n Workloads on another node, and a Policy.
func crowd(n int) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		for i := range n {
			a := snapshot.Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + i)})}
			s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "shop", Workload: fmt.Sprintf("far%d", i), Identity: webIdentity, Node: "n2"}
		}
		s.Nodes["n2"] = snapshot.Node{Name: "n2", Address: netip.MustParseAddr("192.0.2.2")}
	}
}

func TestMassDelete(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, crowd(40)))
	lastAck := func() ack { return b.control.acks[len(b.control.acks)-1] }
	// 42 things; 12 of them may go, 13 may not.
	b.gives(world(b.control, crowd(28)))
	if !lastAck().applied {
		t.Fatalf("%+v", lastAck())
	}
	less := world(b.control, crowd(18)) // 10 of 31
	b.gives(less)
	if a := lastAck(); a.applied || !strings.Contains(a.err, "would remove 10 of the 31 things that this node knows (10 Workload)") {
		t.Fatalf("%+v", a)
	}
	if h := b.control.last().Held; !strings.Contains(h, "moire-node consent --accept-risk=mass-delete "+string(less.Version())) || !strings.Contains(h, "annotate") {
		t.Errorf("held: %q", h)
	}
	if b.view.Load().status.Held == "" {
		t.Error("nobody on the node sees it")
	}
	// What grows meanwhile is held, too, until somebody consents.
	b.restart()
	if len(b.view.Load().snapshot.Endpoints) != 28 {
		t.Errorf("%d after a restart", len(b.view.Load().snapshot.Endpoints))
	}
	b.gives(less)
	if err := b.consent(&local.Consent{Risk: local.RiskMassDelete, Version: "other"}); err == nil {
		t.Error("consent to what is not held")
	}
	if err := b.consent(&local.Consent{Risk: "sloth"}); err == nil {
		t.Error("consent to no risk")
	}
	if err := b.consent(&local.Consent{Risk: local.RiskMassDelete}); err != nil {
		t.Fatal(err)
	}
	b.step()
	if a := lastAck(); !a.applied || a.v != less.Version() || b.control.last().Held != "" {
		t.Errorf("%+v %q", a, b.control.last().Held)
	}
	// Consent lasts over a restart, for that one.
	b.gives(world(b.control, crowd(40)))
	b.restart()
	b.gives(less)
	if a := lastAck(); !a.applied || a.v != less.Version() {
		t.Errorf("%+v", a)
	}
	b.gives(world(b.control, crowd(40)))
	b.gives(world(b.control, func(s *snapshot.Snapshot) { s.AcceptMassDelete = true }))
	if a := lastAck(); !a.applied {
		t.Errorf("with the Node's consent: %+v", a)
	}
}

// TestThings: each table counts, an object once, and what left this node by
// itself is no loss.
func TestThings(t *testing.T) {
	s := worldOf(snapshot.Report{}, crowd(2))
	vip := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 100}, Protocol: 6}
	s.Services = map[snapshot.ServiceKey]snapshot.Service{}
	for port := range uint16(3) {
		vip.Port = port
		s.Services[vip] = snapshot.Service{ServiceKey: vip, Project: "shop", Name: "db", Floating: port == 2}
	}
	s.Chains = map[snapshot.ChainKey]snapshot.Chain{{VNI: 100, Link: "shop/up"}: {}, {VNI: 101, Link: "shop/up", Reverse: true}: {}}
	s.Externals = map[netip.Addr]snapshot.External{netip.MustParseAddr("192.0.2.9"): {}}
	for k, set := range s.Policies {
		set.Rules = []policy.Rule{{ID: "policy/shop/db-from-web/ingress/0"}, {ID: "policy/shop/db-from-web/ingress/1"}}
		s.Policies[k] = set
	}
	if got := things(s); len(got) != 10 {
		t.Errorf("%d: %v", len(got), got)
	}
	old, bare := worldOf(snapshot.Report{}, nil), worldOf(snapshot.Report{}, nil)
	for i := range 20 {
		a := snapshot.Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
		old.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "shop", Workload: fmt.Sprint(i), Node: "n1"}
	}
	if why := wouldLose(old, bare, nil); why != "" {
		t.Error(why)
	}
}

func TestLockOut(t *testing.T) {
	b := newBench(t)
	wall := func(edit func(*snapshot.Firewall)) func(*snapshot.Snapshot) {
		return func(s *snapshot.Snapshot) {
			s.Firewall = &snapshot.Firewall{Allow: []snapshot.FirewallRule{{Name: "web", Ports: []snapshot.HostPort{{Protocol: 6, First: 80, Last: 443}}}}}
			if edit != nil {
				edit(s.Firewall)
			}
		}
	}
	audit := func() bool { return b.kernel.lastState().Snapshot.Firewall.Audit }
	b.gives(world(b.control, wall(nil)))
	if !audit() || !strings.Contains(b.control.last().Held, "allows SSH") {
		t.Fatalf("%q", b.control.last().Held)
	}
	for name, edit := range map[string]func(*snapshot.Firewall){
		"ssh":      func(f *snapshot.Firewall) { f.Allow[0].Ports[0].First = 22 },
		"anything": func(f *snapshot.Firewall) { f.Allow[0].Ports = nil },
		"meant":    func(f *snapshot.Firewall) { f.AcceptLockOut = true },
	} {
		b.gives(world(b.control, wall(edit)))
		if audit() || b.control.last().Held != "" {
			t.Errorf("%s: held %q", name, b.control.last().Held)
		}
		b.gives(world(b.control, wall(nil)))
		if !audit() {
			t.Errorf("locked out after %s", name)
		}
	}
	if err := b.consent(&local.Consent{Risk: local.RiskLockOut}); err != nil {
		t.Fatal(err)
	}
	b.step()
	if audit() || b.control.last().Held != "" {
		t.Errorf("still held: %q", b.control.last().Held)
	}
	b.restart()
	b.step()
	if audit() {
		t.Error("consent was forgotten")
	}
	// Not to another firewall.
	b.gives(world(b.control, wall(func(f *snapshot.Firewall) { f.Allow = nil })))
	if !audit() {
		t.Error("consent to one is not consent to all")
	}
	b.gives(world(b.control, nil))
	if err := b.consent(&local.Consent{Risk: local.RiskLockOut}); err == nil {
		t.Error("consent to nothing")
	}
}

// TestRepairsAreTold: every ten seconds the kernel is compared, and what was
// repaired is reported.
func TestRepairsAreTold(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	grown := len(b.kernel.grown)
	b.pass(compareEvery / 2)
	if len(b.kernel.grown) != grown {
		t.Error("compared too early")
	}
	b.kernel.repairs = 3
	b.pass(compareEvery)
	b.pass(time.Second)
	if len(b.kernel.grown) != grown+1 {
		t.Errorf("compared %d times", len(b.kernel.grown)-grown)
	}
	if r := b.control.last(); r.Repairs != 3 || r.LastRepair != "fake row" {
		t.Errorf("%+v", r)
	}
}

// TestLastOneLeaves: the last interface in a Network that leaves this node takes all
// that is in that Network with it, and that is no loss; with one left it would be.
func TestLastOneLeaves(t *testing.T) {
	old := world(&fakeControl{}, crowd(40))
	bare := *old
	bare.Networks, bare.Endpoints, bare.Policies = map[snapshot.VNI]snapshot.Network{}, nil, nil
	if why := wouldLose(old, &bare, nil); why != "" {
		t.Error(why)
	}
	if why := wouldLose(old, &bare, []*attachment{{Key: webKey, VNI: 100}}); why == "" {
		t.Error("a Network goes in which there is an interface")
	}
}
