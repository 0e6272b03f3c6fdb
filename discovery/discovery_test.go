package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

func TestSnapshotReachesTheNodeAndBack(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	dir := join(t, ca, s.Addr(), "n1")
	sink.look(func() {
		if sink.joined["n1"] != underlay {
			t.Errorf("joined with %v", sink.joined)
		}
	})
	k := &kernel{}
	c, stop := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: dir, Node: "n1", Handler: k})
	c.Report(snapshot.Report{Node: "liar", Address: underlay, Agent: "test"})
	want := some("n1", 1400)
	s.Publish("n1", want)
	eventually(t, "snapshot", func() bool { return k.version() == want.Version() })
	eventually(t, "acked", func() bool { return stateOf(s, "n1").Acked == want.Version() })
	c.Ack(want.Version(), true, "")
	eventually(t, "applied", func() bool {
		n := stateOf(s, "n1")
		return n.Applied == want.Version() && n.Wanted == want.Version() && n.Connected && n.Error == "" && !n.LastSeen.IsZero()
	})
	eventually(t, "report", func() bool {
		ok := false
		sink.look(func() { ok = sink.reports["n1"].Agent == "test" && sink.reports["n1"].Node == "n1" })
		return ok
	})
	stop()
	if c.Connected() {
		t.Error("connected after Run")
	}
	eventually(t, "gone", func() bool { return !stateOf(s, "n1").Connected })
	sink.heard(t, []string{"connected n1", "gone n1"})
}

func TestDeltasStayCorrect(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	k := &kernel{}
	startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "n1"), Node: "n1", Handler: k})
	r := rand.New(rand.NewPCG(1, 2))
	want := some("n1", 1400)
	for i := range 200 {
		want = mutate(r, want)
		s.Publish("n1", want)
		if r.IntN(3) > 0 { // else the next comes at once, and this may be skipped
			v := want.Version()
			eventually(t, fmt.Sprintf("change %d", i), func() bool { return k.version() == v })
		}
	}
	eventually(t, "last change", func() bool { return k.version() == want.Version() })
}

func TestEqualVersionSendsNothing(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, stopServer := startServer(t, ServerConfig{CA: ca, Sink: sink})
	addr := s.Addr()
	k := &kernel{}
	c, stop := startClient(t, ClientConfig{Servers: []string{addr}, Dir: join(t, ca, addr, "n1"), Node: "n1", Handler: k})
	want := some("n1", 1400)
	s.Publish("n1", want)
	eventually(t, "snapshot", func() bool { return k.calls() == 1 })
	c.Ack(want.Version(), true, "")
	eventually(t, "applied", func() bool { return stateOf(s, "n1").Applied == want.Version() })

	stopServer()
	eventually(t, "disconnected", func() bool { return !c.Connected() })
	s, _ = startServer(t, ServerConfig{CA: ca, Sink: sink, Listen: addr})
	s.Publish("n1", some("n1", 1400)) // equal, not the same
	eventually(t, "state after the restart", func() bool {
		n := stateOf(s, "n1")
		return n.Acked == want.Version() && n.Applied == want.Version()
	})
	if n := k.calls(); n != 1 {
		t.Errorf("%d snapshots came; want 1", n)
	}
	other := some("n1", 1401)
	s.Publish("n1", other)
	eventually(t, "change after the restart", func() bool { return k.version() == other.Version() })

	// A new agent that has it from disk.
	stop()
	k2 := &kernel{}
	startClient(t, ClientConfig{Servers: []string{addr}, Dir: c.cfg.Dir, Node: "n1", Handler: k2, Last: other})
	eventually(t, "connected", func() bool { return stateOf(s, "n1").Connected })
	next := some("n1", 1402)
	s.Publish("n1", next)
	eventually(t, "next", func() bool { return k2.version() == next.Version() })
	if n := k2.calls(); n != 1 {
		t.Errorf("%d snapshots came; want 1", n)
	}
}

func TestNackIsVisible(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	k := &kernel{}
	c, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "n1"), Node: "n1", Handler: k})
	good := some("n1", 1400)
	s.Publish("n1", good)
	eventually(t, "good", func() bool { return k.version() == good.Version() })

	bad := some("n1", 1400)
	bad.Networks[8] = snapshot.Network{VNI: 8, Name: "no-project"}
	s.Publish("n1", bad)
	eventually(t, "nack", func() bool {
		n := stateOf(s, "n1")
		return n.Acked == good.Version() && n.Wanted == bad.Version() && strings.Contains(n.Error, "field project: empty")
	})
	sink.look(func() {
		if !slices.ContainsFunc(sink.acks, func(a string) bool {
			return strings.HasPrefix(a, "n1 "+string(bad.Version())+" false ") && strings.Contains(a, "project")
		}) {
			t.Errorf("the sink did not hear of it: %q", sink.acks)
		}
	})
	if k.version() != good.Version() || !c.Connected() {
		t.Error("the node does not go on with what it had")
	}
	next := some("n1", 1401)
	s.Publish("n1", next)
	eventually(t, "next", func() bool { return k.version() == next.Version() && stateOf(s, "n1").Error == "" })

	// Refused by the kernel, later.
	c.Ack(next.Version(), false, errTest.Error())
	eventually(t, "error", func() bool { return stateOf(s, "n1").Error == errTest.Error() })
	c.Ack(next.Version(), true, "")
	eventually(t, "repaired", func() bool { n := stateOf(s, "n1"); return n.Error == "" && n.Applied == next.Version() })
}

// TestCaptured: what captures see arrives whole and in order, with the name of
// who really sent it, and is bounded while nobody takes it.
func TestCaptured(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	c, err := NewClient(ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "n1"), Node: "n1", Handler: &kernel{}})
	if err != nil {
		t.Fatal(err)
	}
	one := snapshot.Captured{Capture: "c1", Time: time.Unix(5, 6).UTC(), Node: "somebody-else", Where: "to-node", VNI: 7, Verdict: "allow", Length: 1500}
	taken := 0
	for i := range 2 * maxCaptured {
		one.Data = fmt.Appendf(nil, "%01000d", i)
		if !c.Captured(one) {
			break
		}
		taken++
	}
	if taken == 0 || taken*1000 > maxCapturedBytes || taken > maxCaptured {
		t.Fatalf("%d packets wait for a server that is not there", taken)
	}
	start(t, c.Run)
	eventually(t, "packets", func() (all bool) {
		sink.look(func() { all = len(sink.captured) == taken })
		return all
	})
	sink.look(func() {
		for i, p := range sink.captured {
			if string(p.Data) != fmt.Sprintf("%01000d", i) || p.Node != "n1" || p.Where != "to-node" || !p.Time.Equal(one.Time) {
				t.Fatalf("packet %d: %.40s… of %s at %s, %s", i, p.Data, p.Node, p.Where, p.Time)
			}
		}
	})
	if !c.Captured(one) {
		t.Error("there is no room after everything was taken")
	}
}

func TestWhatCannotBeSentIsVisible(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	k := &kernel{}
	c, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "n1"), Node: "n1", Handler: k})
	bad := some("n1", 1400)
	bad.Networks[8] = snapshot.Network{VNI: 9, Project: "p", Name: "n"}
	s.Publish("n1", bad)
	eventually(t, "error", func() bool { return strings.Contains(stateOf(s, "n1").Error, "stored under the key") })
	good := some("n1", 1400)
	s.Publish("n1", good)
	eventually(t, "good", func() bool { return k.version() == good.Version() && stateOf(s, "n1").Error == "" })
	if !c.Connected() {
		t.Error("the connection was lost")
	}
}

func TestShip(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, stopServer := startServer(t, ServerConfig{CA: ca, Sink: sink})
	addr := s.Addr()
	c, _ := startClient(t, ClientConfig{Servers: []string{addr}, Dir: join(t, ca, addr, "n1"), Node: "n1", Handler: &kernel{}})
	rec := func(i int) record.Record {
		return record.Record{
			ID: fmt.Sprint("r", i), Kind: record.Started, Observer: record.AtSource, Verdict: record.Allow, Node: "liar",
			Source: record.End{VNI: 7, Address: netip.MustParseAddr("10.0.0.1")}, Destination: record.End{VNI: 7, Address: netip.MustParseAddr("10.0.0.2")},
		}
	}
	for i := range 100 {
		if i == 50 {
			stopServer()
			eventually(t, "disconnected", func() bool { return !c.Connected() })
			startServer(t, ServerConfig{CA: ca, Sink: sink, Listen: addr})
		}
		if err := c.Ship([]record.Record{rec(i)}, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "records", func() bool {
		seen := map[string]bool{}
		sink.look(func() {
			for _, r := range sink.records["n1"] {
				seen[r.ID] = r.Node == "n1"
			}
		})
		for i := range 100 {
			if !seen[fmt.Sprint("r", i)] {
				return false
			}
		}
		return true
	})
	sink.look(func() {
		if sink.lost["n1"] != 99 {
			t.Errorf("lost %d, want 99", sink.lost["n1"])
		}
	})
}

func TestShipIsBounded(t *testing.T) {
	s := newShipper()
	rs := make([]record.Record, 1000)
	for i := range rs {
		rs[i] = record.Record{ID: strings.Repeat("x", 200)}
	}
	begin := time.Now()
	for range 1000 {
		if err := s.add(rs, 0); err == ErrFull {
			if s.bytes > maxQueue {
				t.Fatalf("%d bytes", s.bytes)
			}
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("never full, after %s", time.Since(begin))
}

func TestSnapshotOfAnotherNodeIsNotPublished(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	k := &kernel{}
	startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "a"), Node: "a", Handler: k})
	s.Publish("a", some("b", 1400))
	want := some("a", 1401)
	s.Publish("a", want)
	eventually(t, "own", func() bool { return k.version() == want.Version() })
	if n := k.calls(); n != 1 {
		t.Errorf("%d snapshots came", n)
	}
}
