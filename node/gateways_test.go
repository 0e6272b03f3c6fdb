package node

import (
	"os"
	"path/filepath"
	"testing"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

var edgeKey = snapshot.AttachmentKey{Project: "shop", Workload: "gateway-edge", Network: "front"}

// gatewayOf is a Gateway of an account in the snapshot.
func gatewayOf(account string) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		k := snapshot.GatewayKey{Project: "shop", Name: "edge"}
		s.Gateways = map[snapshot.GatewayKey]snapshot.Gateway{k: {GatewayKey: k, Attachment: edgeKey, Account: account, Labels: []snapshot.Label{{Key: "app", Value: "web"}}}}
	}
}

// TestGateway: a row makes a namespace and an attachment, which outlive the agent,
// and its end takes both away, also while the agent is not there.
func TestGateway(t *testing.T) {
	b := newBench(t)
	file := b.cfg.gatewayFile("shop", "gateway-edge")
	there := func(when string, want bool) {
		t.Helper()
		_, err := os.Lstat(file)
		if a := b.attached[edgeKey]; (err == nil) != want || (a != nil) != want || want && !a.Gateway {
			t.Fatalf("%s: namespace %v, attachment %+v", when, err, a)
		}
		if !want && (len(b.kernel.plugs) != 0 || len(b.memory.Held()) != 0) {
			t.Fatalf("%s: left %v %v", when, b.kernel.plugs, b.memory.Held())
		}
	}
	with := gatewayOf("web")
	for range 3 { // attached, granted, confirmed
		b.gives(world(b.control, with))
	}
	there("with its row", true)
	if a := b.attached[edgeKey]; !a.here() || len(b.kernel.plugs) != 1 || len(a.Addrs) == 0 {
		t.Fatalf("it is not plugged: %+v", a)
	}
	if got := b.control.last().Attachments; len(got) != 1 || got[0].AttachmentKey != edgeKey || got[0].Account != "web" || len(got[0].Labels) != 1 {
		t.Errorf("reported as %+v", got)
	}
	if l := b.kernel.grown[len(b.kernel.grown)-1].Locals; len(l) != 1 || !l[0].Gateway {
		t.Errorf("locals %+v", l)
	}
	changes := b.kernel.changes
	b.restart()
	there("after a restart", true)
	if b.kernel.changes != changes {
		t.Error("a restart touches the interface")
	}
	if err := b.detach(local.Detach{Project: "shop", Workload: "gateway-edge"}); err != nil {
		t.Fatal(err)
	}
	b.step()
	there("after somebody detached it", true)
	os.Remove(file)
	b.pass(idleTick)
	b.pass(idleTick)
	there("after its namespace went", true)
	for range 2 {
		b.gives(world(b.control, gatewayOf("other")))
	}
	if a := b.attached[edgeKey]; a == nil || a.Account != "other" {
		t.Errorf("of another account it is %+v", a)
	}
	b.gives(world(b.control, nil))
	there("without its row", false)
}

// TestGatewayLeftBehind: an agent that died between two steps leaves a namespace of
// nobody, which the next removes.
func TestGatewayLeftBehind(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(b.cfg.gatewayDir(), "shop.gateway-gone")
	if err := b.kernel.MakeNetns(file); err != nil {
		t.Fatal(err)
	}
	b.restart()
	if _, err := os.Lstat(file); err == nil {
		t.Error("it is still there")
	}
}

// TestGatewayNameIsTaken: who was attached first under its name stays.
func TestGatewayNameIsTaken(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	a := web()
	a.Workload = edgeKey.Workload
	b.attach(a)
	for range 3 {
		b.gives(world(b.control, gatewayOf("web")))
	}
	if got := b.attached[edgeKey]; got == nil || got.Gateway || got.Netns != a.Netns {
		t.Errorf("%+v", got)
	}
}
