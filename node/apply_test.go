package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// denying is another snapshot than world's.
func denying(s *snapshot.Snapshot) {
	for k := range s.Policies {
		s.Policies[k] = policy.Set{Default: policy.DefaultRule{ID: "default/shop/front/deny"}}
	}
}

func TestAcksAndOrder(t *testing.T) {
	b := newBench(t)
	s := world(b.control, nil)
	b.gives(s)
	v := s.Version()
	if want := []ack{{v, true, ""}}; fmt.Sprint(b.control.acks) != fmt.Sprint(want) {
		t.Errorf("acks %v, want %v", b.control.acks, want)
	}
	if len(b.kernel.grown) != 1 || len(b.kernel.shrunk) != 1 {
		t.Errorf("grown %d, shrunk %d times", len(b.kernel.grown), len(b.kernel.shrunk))
	}
	b.gives(world(b.control, nil)) // the same again
	b.pass(time.Second)
	if len(b.kernel.grown) != 1 {
		t.Error("the same version was applied twice")
	}
}

func TestNothingIsSweptBeforeASnapshot(t *testing.T) {
	b := newBench(t)
	b.pass(time.Hour)
	if len(b.kernel.grown)+len(b.kernel.shrunk) != 0 {
		t.Error("the kernel was touched without a snapshot")
	}
}

func TestGrowFails(t *testing.T) {
	b := newBench(t)
	good := world(b.control, nil)
	b.gives(good)
	b.kernel.growErr = errors.New("map is full")
	bad := world(b.control, denying)
	b.gives(bad)
	last := b.control.acks[len(b.control.acks)-1]
	if last.v != bad.Version() || last.applied || !strings.Contains(last.err, "fake: map is full") {
		t.Errorf("ack %+v", last)
	}
	if len(b.kernel.shrunk) != 1 {
		t.Error("swept after a Grow that failed")
	}
	if on, err := b.snapshots.load(); err != nil || on.Version() != good.Version() {
		t.Errorf("on disk is %v, %v", on, err)
	}
	if st := b.view.Load().status; st.Wanted != string(bad.Version()) || st.Applied != string(good.Version()) || st.Error == "" {
		t.Errorf("status %+v", st)
	}
	b.kernel.growErr = nil
	b.pass(2 * time.Second)
	last = b.control.acks[len(b.control.acks)-1]
	if last.v != bad.Version() || !last.applied || b.view.Load().status.Error != "" {
		t.Errorf("ack %+v after a second try", last)
	}
}

func TestShrinkFails(t *testing.T) {
	b := newBench(t)
	b.kernel.shrinkErr = errors.New("cannot delete")
	s := world(b.control, nil)
	b.gives(s)
	if last := b.control.acks[len(b.control.acks)-1]; last.applied || last.err == "" {
		t.Errorf("ack %+v", last)
	}
	b.kernel.shrinkErr = nil
	b.pass(2 * time.Second)
	if last := b.control.acks[len(b.control.acks)-1]; !last.applied || last.v != s.Version() {
		t.Errorf("ack %+v after a second try", last)
	}
}

func TestForeignSnapshot(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, func(s *snapshot.Snapshot) { s.Node = "n2" }))
	if last := b.control.acks[len(b.control.acks)-1]; last.applied || !strings.Contains(last.err, `for node "n2"`) {
		t.Errorf("ack %+v", last)
	}
	if len(b.kernel.grown) != 0 {
		t.Error("applied another node's snapshot")
	}
}

func TestLosingMostWaitsForConsent(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	for i := range manyInterfaces {
		a := web()
		a.Workload = fmt.Sprintf("web%d", i)
		b.attach(a)
	}
	b.gives(world(b.control, nil))
	b.gives(world(b.control, nil))
	if len(b.kernel.locals()) != manyInterfaces {
		t.Fatalf("locals %v", b.kernel.locals())
	}
	empty := &snapshot.Snapshot{Node: "n1"}
	grown := len(b.kernel.grown)
	b.gives(empty)
	last := b.control.acks[len(b.control.acks)-1]
	if last.applied || !strings.Contains(last.err, "would disconnect 8 of 8") || len(b.kernel.grown) != grown {
		t.Fatalf("ack %+v", last)
	}
	if err := b.consent(&local.Consent{Version: "other"}); err == nil {
		t.Error("consent to what is not held")
	}
	if err := b.consent(&local.Consent{Version: string(empty.Version())}); err != nil {
		t.Fatal(err)
	}
	b.step()
	if last := b.control.acks[len(b.control.acks)-1]; !last.applied || last.v != empty.Version() {
		t.Errorf("ack %+v after consent", last)
	}
}

func TestRestart(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	b.attachedWeb(web())
	half := web()
	half.Workload = "half"
	b.attach(half)
	before, changes := b.attached[webKey], b.kernel.changes
	b.control.away = true
	b.kernel.grown, b.kernel.shrunk = nil, nil
	wanted := b.good.Version()

	b.restart()
	a := b.attached[webKey]
	if a == nil || a.MAC != before.MAC || fmt.Sprint(a.Addrs) != fmt.Sprint(before.Addrs) || a.stage != ready {
		t.Fatalf("after a restart %+v", a)
	}
	if b.attached[snapshot.AttachmentKey{Project: "shop", Workload: "half", Network: "front"}] != nil {
		t.Error("what was never answered is there after a restart")
	}
	if b.kernel.changes > changes+1 { // the Unplug of the half one
		t.Errorf("%d changes of interfaces", b.kernel.changes-changes)
	}
	if len(b.kernel.grown) != 1 || b.kernel.grown[0].Snapshot.Version() != wanted {
		t.Error("the snapshot from disk is not applied")
	}
	if !b.view.Load().status.Stale {
		t.Error("a node that has only heard its disk is not stale")
	}
}

func TestRestartRepairs(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	a := web()
	a.Persist = true
	b.attachedWeb(a)
	host := b.attached[webKey].Host
	delete(b.kernel.plugs, host)
	b.kernel.plugs["mostranger"] = plug{}
	b.restart()
	if _, ok := b.kernel.plugs[host]; !ok {
		t.Error("the missing interface is not made again")
	}
	if _, ok := b.kernel.plugs["mostranger"]; ok {
		t.Error("a stranger stays")
	}
	delete(b.kernel.plugs, host)
	b.pass(auditEvery)
	if _, ok := b.kernel.plugs[host]; !ok {
		t.Error("the interface that went while the agent ran is not made again")
	}
}

func TestRestartAfterProcessEnded(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	a := web()
	a.PID = os.Getpid()
	b.attachedWeb(a)
	b.attached[webKey].PID = 999999999
	if err := b.disk.save(b.attached[webKey]); err != nil {
		t.Fatal(err)
	}
	b.restart()
	if len(b.attached) != 0 || len(b.kernel.plugs) != 0 || len(b.memory.Held()) != 0 {
		t.Error("the attachment of a process that ended is there after a restart")
	}
}

func TestDamagedDisk(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	b.attachedWeb(web())
	for _, f := range []string{b.disk.path(webKey), filepath.Join(b.dir, "snapshot")} {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 0x40
		if err := os.WriteFile(f, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.kernel.grown, b.kernel.shrunk = nil, nil
	b.restart()
	if len(b.kernel.grown)+len(b.kernel.shrunk) != 0 {
		t.Error("a damaged snapshot was applied")
	}
	if len(b.kernel.plugs) != 0 || len(b.attached) != 0 {
		t.Error("a damaged attachment is open")
	}
	if b.view.Load().status.Error == "" {
		t.Error("nothing is said of it")
	}
	b.gives(world(b.control, nil))
	if len(b.kernel.grown) != 1 || b.view.Load().status.Error != "" {
		t.Error("the next snapshot does not heal it")
	}
}

func TestNamespaceGoes(t *testing.T) {
	for _, persist := range []bool{false, true} {
		t.Run(fmt.Sprint("persist=", persist), func(t *testing.T) {
			b := newBench(t)
			b.gives(world(b.control, nil))
			path := filepath.Join(b.dir, "ns")
			if err := os.Symlink("/proc/self/ns/net", path); err != nil {
				t.Fatal(err)
			}
			a := web()
			a.Netns, a.Persist = path, persist
			b.attachedWeb(a)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			b.pass(time.Second)
			if len(b.kernel.locals()) != 0 {
				t.Error("still open")
			}
			if got := b.attached[webKey] != nil; got != persist {
				t.Errorf("attached: %v", got)
			}
			if !persist {
				return
			}
			if err := os.Symlink("/proc/self/ns/net", path); err != nil {
				t.Fatal(err)
			}
			b.pass(2 * time.Second)
			b.pass(time.Second)
			if len(b.kernel.locals()) != 1 {
				t.Error("not plugged again when the namespace came back")
			}
		})
	}
}

func TestReportsOnlyChanges(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	b.attachedWeb(web())
	n := len(b.control.reports)
	for range 10 {
		b.pass(time.Second)
	}
	if len(b.control.reports) != n {
		t.Errorf("%d reports of nothing new", len(b.control.reports)-n)
	}
	lost := uint64(0)
	b.lost = func() uint64 { return lost }
	lost = 5
	b.pass(lostEvery)
	if len(b.control.reports) != n+1 || b.control.last().RecordsLost != 5 {
		t.Error("lost records are not reported")
	}
	if got := len(b.control.last().Blocks); got != 2 {
		t.Errorf("%d blocks reported", got)
	}
}

func TestAppliersOrder(t *testing.T) {
	var order []string
	as := appliers{ordered{"a", &order}, ordered{"b", &order}}
	if err := as.grow(State{}); err != nil {
		t.Fatal(err)
	}
	if err := as.shrink(State{}); err == nil {
		t.Fatal("no error")
	}
	if got := strings.Join(order, " "); got != "grow-a grow-b shrink-b shrink-a" {
		t.Errorf("order %s", got)
	}
}

type ordered struct {
	name  string
	order *[]string
}

func (o ordered) Name() string { return o.name }
func (o ordered) Grow(State) error {
	*o.order = append(*o.order, "grow-"+o.name)
	return nil
}
func (o ordered) Shrink(State) error {
	*o.order = append(*o.order, "shrink-"+o.name)
	return errors.New("no")
}
func (o ordered) Dump(io.Writer) error { return nil }

func TestDetachUnknown(t *testing.T) {
	b := newBench(t)
	if err := b.detach(local.Detach{Project: "a", Workload: "b"}); !errors.Is(err, errUnknown) {
		t.Error(err)
	}
}
