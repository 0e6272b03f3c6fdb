package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"moire.dev/moire/ipam"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestMain lets the test binary be an agent, to be killed.
func TestMain(m *testing.M) {
	if config := os.Getenv("MOIRE_TEST_AGENT"); config != "" {
		os.Exit(agentMain(config))
	}
	if args := os.Getenv("MOIRE_TEST_TAPS"); args != "" {
		os.Exit(tapProgram(args))
	}
	if config := os.Getenv("MOIRE_TEST_CLEANUP"); config != "" {
		var cfg Config
		err := json.Unmarshal([]byte(config), &cfg)
		if err == nil {
			err = Cleanup(cfg, true)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// fakeKernel is an applier and the wiring.
type fakeKernel struct {
	grown, shrunk      []State
	growErr, shrinkErr error
	plugs              map[string]plug
	plugErr            error
	unplugErr          error
	changes            int // of interfaces
	repairs            uint64
}

func (k *fakeKernel) Name() string { return "fake" }
func (k *fakeKernel) Grow(s State) error {
	if k.growErr != nil {
		return k.growErr
	}
	k.grown = append(k.grown, s)
	return nil
}
func (k *fakeKernel) Shrink(s State) error {
	if k.shrinkErr != nil {
		return k.shrinkErr
	}
	k.shrunk = append(k.shrunk, s)
	return nil
}
func (k *fakeKernel) Dump(w io.Writer) error { _, err := fmt.Fprintln(w, "fake"); return err }
func (k *fakeKernel) Plug(p plug) error {
	if k.plugErr != nil {
		return k.plugErr
	}
	k.plugs[p.Host], k.changes = p, k.changes+1
	return nil
}
func (k *fakeKernel) Unplug(host string) error {
	if k.unplugErr != nil {
		return k.unplugErr
	}
	delete(k.plugs, host)
	k.changes++
	return nil
}
func (k *fakeKernel) Plugged() ([]string, error) {
	var out []string
	for h := range k.plugs {
		out = append(out, h)
	}
	return out, nil
}

// MakeNetns shows our own namespace there.
func (k *fakeKernel) MakeNetns(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/proc/self/ns/net", path); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (k *fakeKernel) RemoveNetns(path string) error { return os.Remove(path) }

func (k *fakeKernel) Repairs() (uint64, string) { return k.repairs, "fake row" }

func (k *fakeKernel) MTU(want int) int {
	if want == 0 {
		return 1450
	}
	return want
}

type ack struct {
	v       snapshot.Version
	applied bool
	err     string
}

type fakeControl struct {
	reports []snapshot.Report
	acks    []ack
	away    bool
}

func (c *fakeControl) Report(r snapshot.Report) { c.reports = append(c.reports, r) }
func (c *fakeControl) Ack(v snapshot.Version, applied bool, err string) {
	c.acks = append(c.acks, ack{v, applied, err})
}
func (c *fakeControl) Connected() bool { return !c.away }
func (c *fakeControl) last() snapshot.Report {
	if len(c.reports) == 0 {
		return snapshot.Report{}
	}
	return c.reports[len(c.reports)-1]
}

type fakeWatcher struct {
	ended map[int]func()
	last  context.Context // of the last watch
}

func (w *fakeWatcher) watch(ctx context.Context, pid int, _ uint64, ended func()) error {
	if pid == 999999999 {
		return errors.New("gone")
	}
	w.ended[pid], w.last = ended, ctx
	return nil
}

// bench is a loop with fakes around it, driven by hand.
type bench struct {
	*loop
	t       *testing.T
	kernel  *fakeKernel
	control *fakeControl
	procs   *fakeWatcher
	dir     string
	clock   time.Time
	memory  *ipam.Pool
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t: t, dir: t.TempDir(), clock: time.Unix(1_800_000_000, 0),
		kernel:  &fakeKernel{plugs: map[string]plug{}},
		control: &fakeControl{}, procs: &fakeWatcher{ended: map[int]func(){}},
	}
	b.restart()
	t.Cleanup(func() { b.memory.Close() })
	return b
}

// restart is kill -9 and a new agent: only disk and kernel stay.
func (b *bench) restart() {
	b.t.Helper()
	if b.memory != nil {
		b.memory.Close()
	}
	memory, err := ipam.OpenPool(filepath.Join(b.dir, "pool"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.memory = memory
	cfg := Config{Name: "n1", Address: netip.MustParseAddr("192.0.2.1"), Dir: b.dir, RunDir: b.dir, Wait: 10 * time.Second, Version: "test"}
	l := newLoop(cfg, slog.New(slog.DiscardHandler))
	l.now = func() time.Time { return b.clock }
	l.pool, l.wiring, l.appliers, l.up, l.watcher = memory, b.kernel, appliers{b.kernel}, b.control, b.procs
	l.snapshots, l.lost = newSnapshotFile(b.dir, "n1"), func() uint64 { return 0 }
	l.health = func() []snapshot.Health { return nil }
	if l.disk, err = openDisk(b.dir); err != nil {
		b.t.Fatal(err)
	}
	l.ctx, l.since, l.away = context.Background(), b.clock, b.clock
	b.loop = l
	if err := l.start(); err != nil {
		b.t.Fatal(err)
	}
	l.step()
}

func (b *bench) pass(d time.Duration) {
	b.clock = b.clock.Add(d)
	b.watch()
	b.step()
}

// attach begins one and steps.
func (b *bench) attach(a local.Attach) *request {
	r := &request{ctx: b.t.Context(), attach: &a, answer: make(chan answer, 1)}
	b.begin(r)
	b.step()
	return r
}

func (b *bench) detach(d local.Detach) error {
	r := &request{ctx: b.t.Context(), detach: &d, answer: make(chan answer, 1)}
	b.begin(r)
	b.step()
	return (<-r.answer).err
}

// answered fails the test when there is none.
func (b *bench) answered(r *request) answer {
	b.t.Helper()
	select {
	case a := <-r.answer:
		return a
	default:
		b.t.Fatal("there is no answer yet")
		return answer{}
	}
}

func (b *bench) unanswered(r *request) {
	b.t.Helper()
	select {
	case a := <-r.answer:
		b.t.Fatalf("answered too early: %+v", a)
	default:
	}
}

// gives hands a snapshot to the loop and steps.
func (b *bench) gives(s *snapshot.Snapshot) {
	b.Snapshot(s)
	b.step()
}

const webIdentity policy.Identity = 7

var webKey = snapshot.AttachmentKey{Project: "shop", Workload: "web", Network: "front"}

func web() local.Attach {
	return local.Attach{Project: "shop", Workload: "web", Networks: []string{"front"}, Netns: "/proc/self/ns/net", Labels: map[string]string{"app": "web"}}
}

// world is a snapshot of node n1 with Network shop/front and, for each own
// attachment in the last report, what compile would say of it.
func world(c *fakeControl, edit func(*snapshot.Snapshot)) *snapshot.Snapshot {
	return worldOf(c.last(), edit)
}

func worldOf(r snapshot.Report, edit func(*snapshot.Snapshot)) *snapshot.Snapshot {
	vni := snapshot.VNI(100)
	s := &snapshot.Snapshot{
		Node:  "n1",
		Nodes: map[string]snapshot.Node{"n1": {Name: "n1", Address: netip.MustParseAddr("192.0.2.1"), Number: 3}},
		Networks: map[snapshot.VNI]snapshot.Network{vni: {
			VNI: vni, Project: "shop", Name: "front", Domain: "d",
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")},
		}},
		Identities: map[policy.Identity]snapshot.Identity{webIdentity: {Number: webIdentity, Project: "shop", Account: "default", Labels: []snapshot.Label{{Key: "app", Value: "web"}}}},
		Endpoints:  map[snapshot.Addr]snapshot.Endpoint{},
		Grants:     map[snapshot.AttachmentKey]snapshot.Grant{},
		Blocks:     map[snapshot.BlockKey]snapshot.Block{},
		Policies:   map[snapshot.PolicyKey]policy.Set{},
	}
	for _, p := range []string{"10.0.0.64/28", "fd00::100/120"} {
		k := snapshot.BlockKey{VNI: vni, CIDR: netip.MustParsePrefix(p)}
		s.Blocks[k] = snapshot.Block{BlockKey: k}
	}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		s.Policies[snapshot.PolicyKey{VNI: vni, Identity: webIdentity, Direction: d}] = policy.Set{Default: policy.DefaultRule{ID: "default/shop/front/open", Allow: true}}
	}
	for _, a := range r.Attachments {
		s.Grants[a.AttachmentKey] = snapshot.Grant{AttachmentKey: a.AttachmentKey, VNI: vni, Identity: webIdentity}
		for _, ip := range a.Addresses {
			addr := snapshot.Addr{VNI: vni, IP: ip}
			s.Endpoints[addr] = snapshot.Endpoint{Addr: addr, Project: a.Project, Workload: a.Workload, MAC: a.MAC, Identity: webIdentity, Node: "n1"}
		}
	}
	if edit != nil {
		edit(s)
	}
	return s
}

// attached goes all the way.
func (b *bench) attachedWeb(a local.Attach) local.Attached {
	b.t.Helper()
	r := b.attach(a)
	b.gives(world(b.control, nil)) // grant
	b.gives(world(b.control, nil)) // endpoint
	an := b.answered(r)
	if an.err != nil {
		b.t.Fatal(an.err)
	}
	return an.attached
}

func (k *fakeKernel) lastState() State {
	if len(k.grown) == 0 {
		return State{}
	}
	return k.grown[len(k.grown)-1]
}

func (k *fakeKernel) locals() []string {
	var out []string
	for _, l := range k.lastState().Locals {
		out = append(out, l.Key.Workload)
	}
	slices.Sort(out)
	return out
}
