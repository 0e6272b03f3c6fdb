package discovery

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

func TestHundredNodes(t *testing.T) {
	const nodes = 100
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	kernels := make([]*kernel, nodes)
	var wg sync.WaitGroup
	for i := range nodes {
		kernels[i] = &kernel{}
		wg.Go(func() {
			node := fmt.Sprint("n", i)
			dir := join(t, ca, s.Addr(), node)
			startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: dir, Node: node, Handler: kernels[i]})
		})
	}
	wg.Wait()
	for mtu := 1400; mtu < 1410; mtu++ {
		for i := range nodes {
			node := fmt.Sprint("n", i)
			s.Publish(node, some(node, mtu))
		}
	}
	for i := range nodes {
		node := fmt.Sprint("n", i)
		want := some(node, 1409).Version()
		eventually(t, node, func() bool { return kernels[i].version() == want && stateOf(s, node).Acked == want })
	}
	if n := len(s.Nodes()); n != nodes {
		t.Errorf("%d nodes", n)
	}
}

// large is more than flow control lets through to who does not read.
func large(node string) *snapshot.Snapshot {
	s := some(node, 1400)
	s.Endpoints = map[snapshot.Addr]snapshot.Endpoint{}
	for i := range 20_000 {
		a := snapshot.Addr{VNI: 7, IP: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "p", Workload: strings.Repeat("w", 100), Node: node}
	}
	return s
}

func TestSlowNodeHoldsUpNobody(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink, AckTimeout: 2 * time.Second})
	s.Publish("slow", large("slow"))
	cfg := papersOf(t, join(t, ca, s.Addr(), "slow")).tls()
	stream, err := raw(t, s.Addr(), cfg).Watch(after(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.FromNode{Hello: &wire.Hello{}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "slow node", func() bool {
		ok := false
		sink.look(func() { ok = slices.Contains(sink.events, "connected slow") })
		return ok
	})

	// One whose Sink call hangs.
	hang := make(chan struct{})
	sink.look(func() { sink.block["hung"] = hang })
	h, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "hung"), Node: "hung", Handler: &kernel{}})
	h.Report(snapshot.Report{Address: underlay})
	eventually(t, "report of the hung one", func() bool {
		ok := false
		sink.look(func() { _, ok = sink.reports["hung"] })
		return ok
	})

	k := &kernel{}
	startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: join(t, ca, s.Addr(), "fast"), Node: "fast", Handler: k})
	for i := range 50 {
		want := some("fast", i)
		s.Publish("fast", want)
		s.Publish("slow", some("slow", i))
		s.Publish("hung", some("hung", i))
		eventually(t, "fast", func() bool { return k.version() == want.Version() })
	}
	close(hang)
	// Who takes nothing must connect anew; a later snapshot did not overtake.
	eventually(t, "timeout", func() bool { n := stateOf(s, "slow"); return !n.Connected && n.Error != "" })
	var last error
	for last == nil {
		_, last = stream.Recv()
	}
	if status.Code(last) != codes.DeadlineExceeded {
		t.Errorf("the slow node was told %v", last)
	}
}

func TestOneDeltaInFlight(t *testing.T) {
	ca := newCA(t, 0)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld(), AckTimeout: time.Second})
	cfg := papersOf(t, join(t, ca, s.Addr(), "n1")).tls()
	stream, err := raw(t, s.Addr(), cfg).Watch(after(t))
	if err != nil {
		t.Fatal(err)
	}
	say := func(m *wire.FromNode) {
		t.Helper()
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	hear := func() *wire.Delta {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	say(&wire.FromNode{Hello: &wire.Hello{Version: "something-old"}})
	s.Publish("n1", some("n1", 1))
	first := hear()
	if !first.Reset_ {
		t.Error("a version that is not known needs a reset")
	}
	for i := 2; i < 10; i++ {
		s.Publish("n1", some("n1", i))
	}
	say(&wire.FromNode{Ack: &wire.Ack{Receipt: true, Version: first.Version}})
	second := hear()
	if want := some("n1", 9).Version(); second.Version != string(want) || second.Reset_ {
		t.Errorf("got %s reset %v, want the latest, %s", second.Version, second.Reset_, want)
	}
	// Refused: once more as a whole, then not again.
	say(&wire.FromNode{Ack: &wire.Ack{Receipt: true, Version: second.Version, Error: "no"}})
	third := hear()
	if third.Version != second.Version || !third.Reset_ {
		t.Errorf("after a refusal: %v", third)
	}
	say(&wire.FromNode{Ack: &wire.Ack{Receipt: true, Version: third.Version, Error: "still no"}})
	eventually(t, "nack", func() bool { return stateOf(s, "n1").Error == "still no" })
	s.Publish("n1", some("n1", 10))
	if m := hear(); m.Version != string(some("n1", 10).Version()) || !m.Reset_ {
		t.Errorf("after the next change: %v", m)
	}
	// Never acknowledged.
	if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("without an acknowledgement: %v", err)
	}
}

func TestNewestConnectionWins(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	cfg := papersOf(t, join(t, ca, s.Addr(), "n1")).tls()
	s.Publish("n1", some("n1", 1400))
	open := func() wire.Discovery_WatchClient {
		t.Helper()
		stream, err := raw(t, s.Addr(), cfg).Watch(after(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&wire.FromNode{Hello: &wire.Hello{}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	first := open()
	second := open()
	if _, err := first.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the first was told %v", err)
	}
	if !stateOf(s, "n1").Connected {
		t.Error("not connected")
	}
	if err := second.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { return !stateOf(s, "n1").Connected })
	sink.heard(t, []string{"connected n1", "connected n1", "gone n1"})
	s.Publish("n1", nil)
	eventually(t, "forgotten", func() bool { return len(s.Nodes()) == 0 })
}

// wireTap carries connections to a server until it is told to swallow.
type wireTap struct {
	l       net.Listener
	to      string
	swallow atomic.Bool
	running sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

func newTap(t *testing.T, to string) *wireTap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wireTap{l: l, to: to}
	w.running.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		for _, c := range w.conns {
			_ = c.Close()
		}
		w.mu.Unlock()
		w.running.Wait()
	})
	return w
}

func (w *wireTap) accept() {
	for {
		a, err := w.l.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", w.to)
		if err != nil {
			_ = a.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, a, b)
		w.mu.Unlock()
		for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
			w.running.Go(func() { w.carry(p[0], p[1]) })
		}
	}
}

func (w *wireTap) carry(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			if !w.swallow.Load() {
				_ = to.Close()
			}
			return
		}
		if !w.swallow.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
	}
}

func TestDeadPeerIsSeen(t *testing.T) {
	ca, sink := newCA(t, 0), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	tap := newTap(t, s.Addr())
	c, _ := startClient(t, ClientConfig{Servers: []string{tap.l.Addr().String()}, Dir: join(t, ca, s.Addr(), "n1"), Node: "n1", Handler: &kernel{}})
	eventually(t, "connected", func() bool { return c.Connected() && stateOf(s, "n1").Connected })
	tap.swallow.Store(true)
	begin := time.Now()
	eventually(t, "gone", func() bool { return !stateOf(s, "n1").Connected })
	t.Logf("seen after %s", time.Since(begin))
	eventually(t, "told", func() bool {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		return !sink.last.IsZero()
	})
	sink.mu.Lock()
	heard := sink.last
	sink.mu.Unlock()
	if silent := heard.Sub(begin); silent > 500*time.Millisecond {
		t.Errorf("it is said to have been heard %s after it fell silent", silent)
	}
	tap.swallow.Store(false)
	eventually(t, "back", func() bool { return stateOf(s, "n1").Connected && c.Connected() })
}

func TestNextServer(t *testing.T) {
	ca := newCA(t, 0)
	sink := newWorld()
	s1, stop1 := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	s2, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	// One that accepts and says nothing.
	mute := newTap(t, s1.Addr())
	mute.swallow.Store(true)
	k := &kernel{}
	c, _ := startClient(t, ClientConfig{Servers: []string{mute.l.Addr().String(), s1.Addr(), s2.Addr()}, Dir: join(t, ca, s1.Addr(), "n1"), Node: "n1", Handler: k})
	eventually(t, "first", func() bool { return stateOf(s1, "n1").Connected })
	one := some("n1", 1400)
	s1.Publish("n1", one)
	eventually(t, "one", func() bool { return k.version() == one.Version() })
	c.Report(snapshot.Report{Address: underlay, Agent: "x"})
	c.Ack(one.Version(), true, "")
	stop1()
	eventually(t, "second", func() bool { return stateOf(s2, "n1").Applied == one.Version() })
	two := some("n1", 1401)
	s2.Publish("n1", two)
	eventually(t, "two", func() bool { return k.version() == two.Version() })
	sink.look(func() {
		if sink.reports["n1"].Agent != "x" {
			t.Error("the second server did not hear the report")
		}
	})
}

func TestRenewal(t *testing.T) {
	ca, sink := newCA(t, 6*time.Second), newWorld()
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: sink})
	dir := join(t, ca, s.Addr(), "n1")
	first := papersOf(t, dir)
	k := &kernel{}
	c, _ := startClient(t, ClientConfig{Servers: []string{s.Addr()}, Dir: dir, Node: "n1", Handler: k})
	s.Publish("n1", some("n1", 1400))
	eventually(t, "third certificate", func() bool {
		p, err := load(dir)
		return err == nil && p.leaf.NotAfter.Sub(first.leaf.NotAfter) >= 5*time.Second
	})
	eventually(t, "connected", c.Connected)
	now := papersOf(t, dir)
	if now.key.Equal(first.key) {
		t.Error("the key is the old one")
	}
	if n := k.calls(); n != 1 {
		t.Errorf("%d snapshots came, want 1", n)
	}
	if time.Until(first.leaf.NotAfter) > 0 {
		time.Sleep(time.Until(first.leaf.NotAfter))
	}
	want := some("n1", 1401)
	s.Publish("n1", want)
	eventually(t, "still served", func() bool { return k.version() == want.Version() })
}

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	ca := newCA(t, 3*time.Second)
	s, _ := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	cfg := papersOf(t, join(t, ca, s.Addr(), "n1")).tls()
	c := raw(t, s.Addr(), cfg)
	watch, err := c.Watch(after(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Send(&wire.FromNode{Hello: &wire.Hello{}}); err != nil {
		t.Fatal(err)
	}
	ship, err := c.Ship(after(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Watch: %v", err)
	}
	if _, err := ship.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Ship: %v", err)
	}
	if _, err := c.Renew(after(t), &wire.RenewRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Renew with a certificate that ended: %v", err)
	}
}

func TestServerRunsOnce(t *testing.T) {
	ca := newCA(t, 0)
	s, stop := startServer(t, ServerConfig{CA: ca, Sink: newWorld()})
	stop()
	if err := s.Run(after(t)); err == nil {
		t.Error("ran twice")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err = NewServer(ServerConfig{Listen: l.Addr().String(), CA: ca, Sink: newWorld(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(after(t)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}
