package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func someReport(workloads ...string) snapshot.Report {
	r := snapshot.Report{Address: netip.MustParseAddr("192.0.2.1"), Agent: "a", Kernel: "k"}
	for i, w := range workloads {
		r.Attachments = append(r.Attachments, snapshot.Attachment{
			AttachmentKey: snapshot.AttachmentKey{Project: "shop", Workload: w, Network: "front"},
			Account:       "default", VNI: 100, MAC: snapshot.MAC{2, 0, 1, 0, 0, byte(i + 1)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)})}, Since: time.Unix(int64(i+1), 0).UTC(),
		})
	}
	return r
}

// life is one process on shared rows.
type life struct {
	*world
	*keeper
}

func newLife(rows *memory, self string, nodes ...string) life {
	w := newWorld(self, time.Now, func() {})
	k := newKeeper(rows, self, w, silent(), time.Now, func() {})
	declared := map[string]bool{}
	for _, n := range nodes {
		declared[n] = true
	}
	k.setDeclared(declared)
	return life{w, k}
}

func (l life) node(name string) nodeWorld {
	all, _, _ := l.world.all()
	return all[name]
}

func TestWorldSurvives(t *testing.T) {
	rows := newMemory()
	a := newLife(rows, "a", "n1")
	a.connected("n1")
	a.report("n1", someReport("web", "db"))
	a.ack("n1", "v1", true, "")
	a.save(t.Context(), nil)
	b := newLife(rows, "a", "n1") // the same process, after a restart
	if err := b.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, want := b.node("n1"), a.node("n1")
	if got.connected() || got.fresh || !b.wasConnected("n1") {
		t.Errorf("after a restart a node must be stale and expected: %+v", got)
	}
	if !reflect.DeepEqual(got.report, want.report) || got.applied != "v1" {
		t.Errorf("got %+v, want %+v", got.report, want.report)
	}
	// What others see of a living process.
	c := newLife(rows, "c", "n1")
	if err := c.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := c.node("n1"); !n.away || !n.fresh || c.wasConnected("n1") {
		t.Errorf("another process says that the node is connected: %+v", n)
	}
}

func TestWorldRowIsNotStolen(t *testing.T) {
	rows := newMemory()
	a, b := newLife(rows, "a", "n1"), newLife(rows, "b", "n1")
	a.connected("n1")
	a.report("n1", someReport("web"))
	a.save(t.Context(), nil)
	b.connected("n1") // the node went over before a noticed
	b.report("n1", someReport("web", "new"))
	b.save(t.Context(), nil)
	a.report("n1", someReport("web")) // a was frozen, and this was still on its way
	a.save(t.Context(), nil)
	a.gone("n1", a.world.now())
	a.save(t.Context(), nil)
	c := newLife(rows, "c", "n1")
	if err := c.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := c.node("n1"); n.owner != "b" || !n.away || len(n.report.Attachments) != 2 {
		t.Errorf("the late word of a overrides b: %+v", n)
	}
}

func TestWorldDamagedRow(t *testing.T) {
	rows := newMemory()
	for i, v := range []string{"", "{", `{"report":"AAAA"}`, `{"report":"!"}`} {
		rows.rows[fmt.Sprint(worldPrefix, "n", i)] = memoryRow{[]byte(v), 1}
	}
	a := newLife(rows, "a")
	if err := a.load(t.Context()); err != nil {
		t.Fatalf("one damaged row must not stop the others: %v", err)
	}
	if all, _, _ := a.world.all(); len(all) != 0 {
		t.Errorf("got %v from damaged rows", all)
	}
}

func FuzzDecodeWorld(f *testing.F) {
	r := someReport("web")
	good, err := encodeWorld(nodeWorld{owner: "a", here: true, report: &r})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"report":"AAAA"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeWorld("n", "self", b)
		if err == nil && n.here {
			t.Fatal("a row makes a node connected here")
		}
	})
}

// TestWorldRoundTrip: whatever a node may report is the same after saving.
func TestWorldRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}`), 0, 6, rapid.ID).Draw(t, "names")
		slices.Sort(names)
		r := someReport(names...)
		r.Node = "n"
		n := nodeWorld{owner: "a", here: true, fresh: true, report: &r, seen: time.Unix(5, 0).UTC(), err: rapid.String().Draw(t, "err"), lost: rapid.Uint64().Draw(t, "lost")}
		row, err := encodeWorld(n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeWorld("n", "b", row)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.report.Attachments, r.Attachments) || got.lost != n.lost || !got.away {
			t.Fatalf("got %+v, want %+v", got, n)
		}
	})
}

func TestWorldForget(t *testing.T) {
	a := newLife(newMemory(), "a", "n1")
	a.connected("n1")
	a.report("n1", someReport("web"))
	if a.forget("n1") {
		t.Error("a node that is connected is forgotten")
	}
	a.gone("n1", a.world.now())
	if !a.forget("n1") || a.node("n1").report != nil {
		t.Error("a node that is away is not forgotten")
	}
}

// TestKeeperPace: a node's row is saved at once and then at most every second,
// and what failed is tried again.
func TestKeeperPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := newMemory()
		saves, broken := 0, false
		rows.fail = func(op, key string) error {
			if op != "commit" || key != worldPrefix+"n1" {
				return nil
			}
			if broken {
				return errors.New("broken")
			}
			saves++
			return nil
		}
		a := newLife(rows, "a", "n1")
		if err := a.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.run(ctx) }()
		a.connected("n1")
		for i := range 50 { // 5 s of churn
			a.report("n1", someReport("web", fmt.Sprint("w", i)))
			time.Sleep(100 * time.Millisecond)
		}
		if saves < 4 || saves > 7 {
			t.Errorf("%d saves in 5 s, want about 5", saves)
		}
		rows.mu.Lock()
		broken = true
		rows.mu.Unlock()
		a.report("n1", someReport("last"))
		time.Sleep(3 * time.Second)
		rows.mu.Lock()
		broken = false
		rows.mu.Unlock()
		time.Sleep(1500 * time.Millisecond)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b := newLife(rows, "b", "n1")
		if err := b.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := b.node("n1"); n.report.Attachments[0].Workload != "last" {
			t.Errorf("saved %+v", n.report.Attachments)
		}
	})
}

// TestKeeperHears: processes tell each other what changed, and notice when one
// is gone.
func TestKeeperHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := newMemory()
		a, b := newLife(rows, "a", "n1"), newLife(rows, "b", "n1")
		var wg sync.WaitGroup
		ctxA, stopA := context.WithCancel(t.Context())
		ctxB, stopB := context.WithCancel(t.Context())
		for _, l := range []struct {
			life
			ctx context.Context
		}{{a, ctxA}, {b, ctxB}} {
			if err := l.load(t.Context()); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _ = l.run(l.ctx) })
		}
		a.connected("n1")
		a.report("n1", someReport("web"))
		n, err := a.identities.Get(t.Context(), "acme/shop/default")
		if err != nil {
			t.Fatal(err)
		}
		a.note(func(all *allocations) {
			all.identities["acme/shop/default"] = policy.Identity(n)
			all.nodes["n1"] = 1
		})
		time.Sleep(2 * time.Second)
		if w := b.node("n1"); !w.away || w.report == nil {
			t.Errorf("b does not know what a heard: %+v", w)
		}
		if got := b.allocations().identities[compile.IdentityKey("acme/shop/default")]; got != policy.Identity(n) {
			t.Errorf("b knows identity %d, want %d", got, n)
		}
		time.Sleep(time.Minute)
		if !b.node("n1").connected() {
			t.Error("a is quiet but lives; its nodes are connected")
		}
		stopA() // its last word says connected, as if it were killed
		time.Sleep(deadAfter + 2*time.Second)
		if b.node("n1").connected() {
			t.Error("a is dead; its nodes are not connected")
		}
		stopB()
		wg.Wait()
	})
}

func TestKeeperDrops(t *testing.T) {
	rows := newMemory()
	a := newLife(rows, "a", "n1", "n2")
	for _, n := range []string{"n1", "n2", "undeclared"} {
		a.connected(n)
		a.report(n, someReport("web"))
	}
	a.save(t.Context(), nil)
	if _, saved := rows.rows[worldPrefix+"undeclared"]; saved {
		t.Error("what an unknown node says was saved")
	}
	a.setDeclared(map[string]bool{"n2": true})
	a.drop("n1")
	a.drop("n2") // came back meanwhile
	rows.fail = func(string, string) error { return errors.New("broken") }
	a.sweep(t.Context())
	rows.fail = nil
	a.sweep(t.Context())
	if got := slices.Sorted(maps.Keys(rows.rows)); !slices.Equal(got, []string{worldPrefix + "n2"}) {
		t.Errorf("rows are %v", got)
	}
}
