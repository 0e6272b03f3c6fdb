package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

func TestAttachStepByStep(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	r := b.attach(web())
	b.unanswered(r)
	if got := b.control.last().Attachments; len(got) != 1 || got[0].AttachmentKey != webKey || len(got[0].Addresses) != 0 {
		t.Fatalf("the pending attachment is not reported: %+v", got)
	}
	if all, err := b.disk.load(); err != nil || len(all) != 1 {
		t.Fatalf("the pending attachment is not on disk: %v, %v", all, err)
	}
	if len(b.kernel.plugs) != 0 {
		t.Fatal("plugged without a Grant")
	}

	b.gives(world(b.control, nil)) // the grant
	b.unanswered(r)
	got := b.control.last().Attachments
	if len(got) != 1 || len(got[0].Addresses) != 2 || got[0].VNI != 100 || got[0].MAC[0] != 2 || got[0].MAC[2] != 3 {
		t.Fatalf("addresses are not reported: %+v", got)
	}
	if len(b.kernel.plugs) != 1 {
		t.Fatal("not plugged after the Grant")
	}

	b.gives(world(b.control, nil)) // the endpoint
	an := b.answered(r)
	if an.err != nil || len(an.attached.Warnings) != 0 {
		t.Fatalf("answer %+v", an)
	}
	i := an.attached.Interfaces[0]
	if i.IfName != "eth0" || i.VNI != 100 || !slices.Equal(i.Gateways, []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}) {
		t.Errorf("interface %+v", i)
	}
	if b.view.Load().attachments[0].State != "ready" {
		t.Errorf("view %+v", b.view.Load().attachments[0])
	}

	if again := b.attach(web()); b.answered(again).err != nil {
		t.Error("the same request once more is refused")
	}
	other := web()
	other.Labels = nil
	if err := b.answered(b.attach(other)).err; err == nil || !strings.Contains(err.Error(), "attached") {
		t.Errorf("another Workload under the same name: %v", err)
	}
	if err := b.detach(local.Detach{Project: "shop", Workload: "web"}); err != nil {
		t.Fatal(err)
	}
	if len(b.kernel.plugs) != 0 || len(b.memory.Held()) != 0 || len(b.kernel.locals()) != 0 || len(b.control.last().Attachments) != 0 {
		t.Error("detach left something")
	}
	if err := b.detach(local.Detach{Project: "shop", Workload: "web"}); !errors.Is(err, errUnknown) {
		t.Errorf("a second detach: %v", err)
	}
}

func TestGrantRefuses(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	r := b.attach(web())
	b.gives(world(b.control, func(s *snapshot.Snapshot) {
		s.Grants[webKey] = snapshot.Grant{AttachmentKey: webKey, Error: "there is no Network shop/front"}
	}))
	b.unanswered(r) // it may be older than what was applied a moment ago
	b.pass(2 * time.Second)
	if err := b.answered(r).err; err == nil || !strings.Contains(err.Error(), "no Network shop/front") {
		t.Errorf("answer %v", err)
	}
	if len(b.attached) != 0 || len(b.control.last().Attachments) != 0 {
		t.Error("a refused attachment stays")
	}
}

func TestStaticGrant(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	r := b.attach(web())
	want := []netip.Addr{netip.MustParseAddr("10.0.0.12"), netip.MustParseAddr("fd00::12")}
	grant := func(s *snapshot.Snapshot) {
		s.Grants[webKey] = snapshot.Grant{AttachmentKey: webKey, VNI: 100, Identity: webIdentity, Addresses: want}
	}
	b.gives(world(b.control, grant))
	b.gives(world(b.control, grant))
	if an := b.answered(r); an.err != nil || !slices.Equal(an.attached.Interfaces[0].Addresses, want) {
		t.Fatalf("answer %+v", an)
	}
	// The static address is taken back: dynamic ones come without a new attach.
	b.gives(world(b.control, nil))
	b.gives(world(b.control, nil))
	if got := b.kernel.lastState().Locals[0].Addrs; slices.Contains(got, want[0]) || len(got) != 2 {
		t.Errorf("addresses are %v after the static ones were taken back", got)
	}
	if b.attached[webKey].stage != ready {
		t.Errorf("stage %s", b.attached[webKey].stage)
	}
}

func TestControlPlaneAway(t *testing.T) {
	t.Run("known network", func(t *testing.T) {
		b := newBench(t)
		b.gives(world(b.control, nil))
		b.control.away = true
		b.step()
		b.pass(awayGrace)
		r := b.attach(web())
		an := b.answered(r)
		if an.err != nil || len(an.attached.Warnings) != 1 || len(an.attached.Interfaces[0].Addresses) != 2 {
			t.Fatalf("answer %+v", an)
		}
		e := b.kernel.lastState().Snapshot.Endpoints
		if len(e) != 2 {
			t.Errorf("the effective snapshot has endpoints %v", e)
		}
	})
	t.Run("unknown identity stays closed", func(t *testing.T) {
		b := newBench(t)
		b.gives(world(b.control, nil))
		b.control.away = true
		b.step()
		b.pass(awayGrace)
		a := web()
		a.Labels = map[string]string{"app": "stranger"}
		an := b.answered(b.attach(a))
		if an.err != nil || len(an.attached.Warnings) != 1 || !strings.Contains(an.attached.Warnings[0], "closed") {
			t.Fatalf("answer %+v", an)
		}
		if e := b.kernel.lastState().Snapshot.Endpoints; len(e) != 0 {
			t.Errorf("a stranger is an endpoint: %v", e)
		}
	})
	t.Run("unknown network", func(t *testing.T) {
		b := newBench(t)
		b.control.away = true
		b.step()
		b.pass(unknownGrace)
		r := b.attach(web())
		if err := b.answered(r).err; err == nil || !strings.Contains(err.Error(), "does not know the Network") {
			t.Errorf("answer %v", err)
		}
	})
	t.Run("a moment is not away", func(t *testing.T) {
		b := newBench(t)
		b.gives(world(b.control, nil))
		b.control.away = true
		b.step()
		r := b.attach(web())
		b.unanswered(r)
		b.control.away = false
		b.gives(world(b.control, nil))
		b.gives(world(b.control, nil))
		if b.answered(r).err != nil {
			t.Error("not attached")
		}
	})
}

func TestBounded(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	r := b.attach(web())
	b.pass(9 * time.Second)
	b.unanswered(r)
	b.pass(time.Second)
	if err := b.answered(r).err; err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("answer %v", err)
	}
	if len(b.attached) != 0 || len(b.memory.Held()) != 0 {
		t.Error("what came too late stays")
	}
	// Plugged but not confirmed: attached, closed, and said so.
	r = b.attach(web())
	b.gives(world(b.control, nil))
	b.pass(10 * time.Second)
	an := b.answered(r)
	if an.err != nil || len(an.attached.Warnings) != 1 {
		t.Errorf("answer %+v", an)
	}
}

func TestGivesUpWhenNobodyWaits(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	ctx, cancel := context.WithCancel(t.Context())
	a := web()
	r := &request{ctx: ctx, attach: &a, answer: make(chan answer, 1)}
	b.begin(r)
	b.step()
	cancel()
	b.step()
	if len(b.attached) != 0 || len(b.waiting) != 0 {
		t.Error("an attachment that nobody waits for stays")
	}
}

func TestProcessEnds(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	a := web()
	a.PID = os.Getpid()
	b.attachedWeb(a)
	if b.procs.ended[a.PID] == nil {
		t.Fatal("the process is not watched")
	}
	b.ended(b.attached[webKey])
	b.step()
	if len(b.attached) != 0 || len(b.kernel.plugs) != 0 || len(b.memory.Held()) != 0 || len(b.kernel.locals()) != 0 {
		t.Error("something is left of a process that ended")
	}
}

func TestUnplugFailsAtFirst(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	b.attachedWeb(web())
	b.kernel.unplugErr = errors.New("busy")
	if err := b.detach(local.Detach{Project: "shop", Workload: "web"}); err == nil {
		t.Fatal("no error")
	}
	if len(b.memory.Held()) != 1 {
		t.Error("the address is free while the interface is there")
	}
	if len(b.kernel.locals()) != 0 {
		t.Error("it is still open")
	}
	b.kernel.unplugErr = nil
	b.pass(2 * time.Second)
	if len(b.attached) != 0 || len(b.memory.Held()) != 0 {
		t.Error("not tried again")
	}
}

func TestSeveralNetworks(t *testing.T) {
	b := newBench(t)
	two := func(s *snapshot.Snapshot) {
		n := s.Networks[100]
		n.VNI, n.Name = 101, "back"
		s.Networks[101] = n
		k := snapshot.BlockKey{VNI: 101, CIDR: netip.MustParsePrefix("10.0.0.64/28")}
		s.Blocks[k] = snapshot.Block{BlockKey: k}
		n.Prefixes = n.Prefixes[:1]
		s.Networks[101] = n
		key := webKey
		key.Network = "back"
		if g, ok := s.Grants[key]; ok {
			g.VNI = 101
			s.Grants[key] = g
		}
	}
	b.gives(world(b.control, two))
	a := web()
	a.Networks, a.IfName = []string{"front", "back"}, "net5"
	r := b.attach(a)
	b.gives(world(b.control, two))
	b.pass(10 * time.Second)
	an := b.answered(r)
	if an.err != nil || len(an.attached.Interfaces) != 2 || an.attached.Interfaces[1].IfName != "net6" {
		t.Fatalf("answer %+v", an)
	}
	if err := b.detach(local.Detach{Project: "shop", Workload: "web", Networks: []string{"back"}}); err != nil || len(b.attached) != 1 {
		t.Errorf("detach of one: %v, %d left", err, len(b.attached))
	}
}

func TestCheckRequests(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*local.Attach)
		want string
	}{
		{"project", func(a *local.Attach) { a.Project = "../x" }, `project "../x" is not a name`},
		{"workload", func(a *local.Attach) { a.Workload = "" }, `workload "" is not a name`},
		{"underscore", func(a *local.Attach) { a.Workload = "a_b" }, "is not a name"},
		{"no network", func(a *local.Attach) { a.Networks = nil }, "1 to 16 Networks"},
		{"twice", func(a *local.Attach) { a.Networks = []string{"x", "x"} }, "named twice"},
		{"lo", func(a *local.Attach) { a.IfName = "lo" }, "cannot be the name of an interface"},
		{"long", func(a *local.Attach) { a.IfName = strings.Repeat("x", 16) }, "cannot be the name of an interface"},
		{"account", func(a *local.Attach) { a.Account = "A B" }, "is not a name"},
		{"label value", func(a *local.Attach) { a.Labels = map[string]string{"app": "@@"} }, `label "app=@@" cannot be`},
		{"label key", func(a *local.Attach) { a.Labels = map[string]string{"a/b/c": "x"} }, `label "a/b/c=x" cannot be`},
		{"no netns", func(a *local.Attach) { a.Netns = "/nowhere" }, "no such file"},
		{"not a netns", func(a *local.Attach) { a.Netns = "/etc" }, "not a network namespace"},
		{"no process", func(a *local.Attach) { a.PID = 1 << 30 }, "no process"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			a := web()
			c.edit(&a)
			if err := b.answered(b.attach(a)).err; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if len(b.attached) != 0 {
				t.Error("something is left")
			}
		})
	}
}

func TestNetworkGrowsAFamily(t *testing.T) {
	b := newBench(t)
	only4 := func(s *snapshot.Snapshot) {
		n := s.Networks[100]
		n.Prefixes = n.Prefixes[:1]
		s.Networks[100] = n
	}
	b.gives(world(b.control, only4))
	r := b.attach(web())
	b.gives(world(b.control, only4))
	b.gives(world(b.control, only4))
	if an := b.answered(r); an.err != nil || len(an.attached.Interfaces[0].Addresses) != 1 {
		t.Fatalf("answer %+v", an)
	}
	first := b.attached[webKey].Addrs[0]
	b.gives(world(b.control, nil))
	if got := b.attached[webKey].Addrs; len(got) != 2 || got[0] != first {
		t.Errorf("addresses %v, the first was %v", got, first)
	}
}

func TestProcessGoneBeforeWatched(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	b.watcher = goneWatcher{}
	a := web()
	a.PID = os.Getpid()
	if err := b.answered(b.attach(a)).err; err == nil {
		t.Error("attached for a process that has ended")
	}
	if all, err := b.disk.load(); len(b.attached) != 0 || len(all) != 0 || err != nil {
		t.Errorf("something is left: %v, %v", all, err)
	}
}

type goneWatcher struct{}

func (goneWatcher) watch(context.Context, int, uint64, func()) error {
	return errors.New("process has ended")
}

func TestNotEnforcedIsNotAttached(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	r := b.attach(web())
	b.kernel.growErr = errors.New("map is full")
	b.gives(world(b.control, nil))
	b.pass(10 * time.Second)
	if err := b.answered(r).err; err == nil || !strings.Contains(err.Error(), "map is full") {
		t.Errorf("answer %v", err)
	}
	if len(b.attached) != 0 || len(b.kernel.plugs) != 0 {
		t.Error("something is left")
	}
}

func TestManyAtOnceTakeTurns(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	const many = 3 * plugsPerStep
	for i := range many {
		a := web()
		a.Workload = fmt.Sprintf("web%d", i)
		a.Networks = []string{"front"}
		b.begin(&request{ctx: t.Context(), attach: &a, answer: make(chan answer, 1)})
	}
	b.step()
	wide := func(s *snapshot.Snapshot) {
		k := snapshot.BlockKey{VNI: 100, CIDR: netip.MustParsePrefix("10.0.0.128/25")}
		s.Blocks[k] = snapshot.Block{BlockKey: k}
	}
	b.gives(world(b.control, wide))
	for n := plugsPerStep; n <= many; n += plugsPerStep {
		if len(b.kernel.plugs) != n || b.backlog != (n < many) || len(b.kernel.locals()) != n {
			t.Fatalf("%d interfaces, want %d; backlog %v", len(b.kernel.plugs), n, b.backlog)
		}
		b.step()
	}
}
