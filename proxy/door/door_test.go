package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served remembers what it was told, and owns descriptors as a proxy does.
type served struct {
	mu      sync.Mutex
	states  []State
	has     map[*Sockets]bool
	refuse  error
	drained int
	stuck   atomic.Bool
	ejected []Ejection
}

func (s *served) Serve(st State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return s.refuse
	}
	now := map[*Sockets]bool{}
	for _, x := range st.Sockets {
		now[x] = true
	}
	for x := range s.has {
		if !now[x] {
			unix.Close(x.Namespace)
			closeFDs(x.Outbound)
			closeFDs(x.Inbound)
		}
	}
	s.has = now
	s.states = append(s.states, st)
	return nil
}

func (s *served) Alive(ctx context.Context) error {
	for s.stuck.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return ctx.Err()
}

func (s *served) Ejected() []Ejection { return s.ejected }

func (s *served) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained++
}

func (s *served) last() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.states) == 0 {
		return State{}
	}
	return s.states[len(s.states)-1]
}

func (s *served) drains() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained
}

// run runs something until the returned function is called.
func run(t *testing.T, what interface{ Run(context.Context) error }) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- what.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for by := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatal("never: " + what)
		}
	}
}

// listening makes sockets as an agent does, n of them for each direction.
func listening(t *testing.T, n int) *Sockets {
	t.Helper()
	one := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 10)); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	ns, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sockets{Namespace: ns}
	for range n {
		s.Outbound, s.Inbound = append(s.Outbound, one()), append(s.Inbound, one())
	}
	return s
}

func port(t *testing.T, fd int) int {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return sa.(*unix.SockaddrInet4).Port
}

// config has Workloads that share their Sets.
func config(name string, workloads int) *l7.Config {
	rules := []policy.Rule{{ID: "policy/shop/a#0", Action: policy.Allow, Requests: []policy.RequestMatch{{Methods: []string{"GET"}}}}}
	set := policy.Set{Rules: rules, Isolated: "isolated/shop", Default: policy.DefaultRule{ID: "default/x", Allow: true}}
	c := &l7.Config{Name: name, Mesh: &l7.Mesh{Node: "n1"}}
	for i := range workloads {
		c.Mesh.Workloads = append(c.Mesh.Workloads, l7.Workload{Name: fmt.Sprint("shop/w", i), Namespace: fmt.Sprint("ns", i), VNI: 7, Egress: policy.Set{}, Ingress: set})
	}
	return c
}

func start(t *testing.T, path string, grace time.Duration) (*Agent, func()) {
	a := NewAgent(AgentOptions{Path: path, Grace: grace})
	return a, run(t, a)
}

func wait(t *testing.T, a *Agent, n uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.Wait(ctx, n); err != nil {
		t.Fatal(err)
	}
}

// TestState: what the agent has is what is served, with the same sockets;
// those that stay the same are not sent again.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	a, _ := start(t, path, 0)
	s := &served{ejected: []Ejection{{"7/shop/a/80", "10.0.0.1:80", "Consecutive5xx"}}}
	run(t, NewProxy(ProxyOptions{Path: path, Served: s, Workers: 3}))
	first := State{Config: config("one", 2), Sockets: map[string]*Sockets{"ns0": listening(t, 3), "ns1": listening(t, 150)}}
	wait(t, a, a.Set(first))
	got := s.last()
	if !reflect.DeepEqual(got.Config, first.Config) {
		t.Errorf("got %+v\nwant %+v", got.Config, first.Config)
	}
	if &got.Config.Mesh.Workloads[0].Ingress.Rules[0] != &got.Config.Mesh.Workloads[1].Ingress.Rules[0] {
		t.Error("Sets that were one are two")
	}
	same := func(x, y *Sockets) bool {
		ports := func(fds []int) (out []int) {
			for _, fd := range fds {
				out = append(out, port(t, fd))
			}
			return out
		}
		return slices.Equal(ports(x.Outbound), ports(y.Outbound)) && slices.Equal(ports(x.Inbound), ports(y.Inbound))
	}
	for name, want := range first.Sockets {
		if !same(got.Sockets[name], want) {
			t.Errorf("%s has other sockets", name)
		}
	}
	eventually(t, "the Status", func() bool {
		st := a.Status()
		return st.Up && st.PID == os.Getpid() && st.Workers == 3 && st.Applied == 1 && len(st.Ejected) == 1
	})
	second := State{Config: config("two", 2), Sockets: map[string]*Sockets{"ns0": first.Sockets["ns0"], "ns1": listening(t, 1)}}
	wait(t, a, a.Set(second))
	now := s.last()
	if now.Sockets["ns0"] != got.Sockets["ns0"] || now.Sockets["ns1"] == got.Sockets["ns1"] || !same(now.Sockets["ns1"], second.Sockets["ns1"]) {
		t.Errorf("%+v after %+v", now.Sockets, got.Sockets)
	}
	wait(t, a, a.Set(State{}))
	if now := s.last(); len(now.Sockets) != 0 || now.Config.Mesh != nil {
		t.Errorf("%+v", now)
	}
}

// TestRefused: the agent is told why, and what was served stays.
func TestRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	a, _ := start(t, path, 0)
	s := &served{}
	run(t, NewProxy(ProxyOptions{Path: path, Served: s}))
	wait(t, a, a.Set(State{Config: config("good", 0)}))
	s.mu.Lock()
	s.refuse = errors.New("listeners[0].address: is none")
	s.mu.Unlock()
	n := a.Set(State{Config: config("bad", 0), Sockets: map[string]*Sockets{"x": listening(t, 1)}})
	var refused *RefusedError
	if err := a.Wait(t.Context(), n); !errors.As(err, &refused) || refused.Number != n || refused.Reason != "listeners[0].address: is none" {
		t.Error(err)
	}
	if st := a.Status(); !st.Up || st.Applied != n-1 || st.Refused != n {
		t.Errorf("%+v", st)
	}
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	wait(t, a, a.Set(State{Config: config("good", 0)}))
	if st := a.Status(); st.Refused != 0 || st.Reason != "" {
		t.Errorf("%+v", st)
	}
}

// TestEitherEnds: the agent comes again, the proxy is replaced, dies, hangs.
func TestEitherEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	const grace = 600 * time.Millisecond
	sockets := map[string]*Sockets{"ns0": listening(t, 1)}
	a, stop := start(t, path, grace)
	old := &served{}
	stopOld := run(t, NewProxy(ProxyOptions{Path: path, Served: old}))
	wait(t, a, a.Set(State{Config: config("a", 1), Sockets: sockets}))
	stop()
	a, _ = start(t, path, grace)
	wait(t, a, a.Set(State{Config: config("b", 1), Sockets: sockets}))
	if got := old.last(); got.Config.Name != "b" {
		t.Errorf("%+v", got)
	}
	var down atomic.Int32
	watching, stopWatching := context.WithCancel(t.Context())
	watched := make(chan bool)
	go func() {
		defer close(watched)
		for watching.Err() == nil {
			if !a.Status().Up {
				down.Add(1)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	young := &served{}
	stopYoung := run(t, NewProxy(ProxyOptions{Path: path, Served: young}))
	eventually(t, "the older one is told to drain", func() bool { return old.drains() == 1 })
	if young.drains() != 0 || young.last().Config.Name != "b" {
		t.Error("the younger one does not serve")
	}
	// What drains still follows: its requests are decided by what is true now.
	wait(t, a, a.Set(State{Config: config("c", 1), Sockets: sockets}))
	eventually(t, "the older one follows", func() bool { return old.last().Config.Name == "c" })
	stopOld()
	time.Sleep(2 * grace)
	stopWatching()
	<-watched
	if n := down.Load(); n > 0 {
		t.Errorf("down %d times while it was replaced", n)
	}
	young.stuck.Store(true)
	eventually(t, "down, as it hangs", func() bool { return !a.Status().Up })
	young.stuck.Store(false)
	eventually(t, "up, as it turns again", func() bool { return a.Status().Up })
	stopYoung()
	begin := time.Now()
	eventually(t, "down, as it is gone", func() bool { return !a.Status().Up })
	if d := time.Since(begin); d > grace+grace/2 {
		t.Errorf("down after %v", d)
	}
}

// TestNobodyElse: who says nothing, or nonsense, or a great length, gets nothing.
func TestNobodyElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	a, _ := start(t, path, 0)
	a.Set(State{Config: config("a", 0)})
	eventually(t, "the socket", func() bool { _, err := os.Stat(path); return err == nil })
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	hi, _ := frame(helloFrame, hello{Protocol: protocol + 1})
	for _, b := range [][]byte{{}, []byte("GET / HTTP/1.1\r\n\r\n"), {0xff, 0xff, 0xff, 0xff, 16}, {0, 0, 0, 2, 16, '{'}, {0, 0, 0, 1, 16, 'x'}, {0, 0, 0, 2, 18, '{', '}'}, hi} {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		c.Write(b)
		c.CloseWrite()
		if n, err := c.Read(make([]byte, 1)); n != 0 {
			t.Errorf("%q was answered: %v", b, err)
		}
		c.Close()
	}
	if st := a.Status(); !st.equal(Status{}) {
		t.Errorf("%+v", st)
	}
}

// TestNothingIsLeft: descriptors that were replaced, refused, or never announced
// are closed.
func TestNothingIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	a, stop := start(t, path, 0)
	s := &served{}
	stopProxy := run(t, NewProxy(ProxyOptions{Path: path, Served: s}))
	kept, other := listening(t, 2), listening(t, 2)
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	wait(t, a, a.Set(State{Config: config("a", 1), Sockets: map[string]*Sockets{"ns0": kept}}))
	before := count()
	for i := range 40 {
		s.mu.Lock()
		s.refuse = nil
		if i%3 == 1 {
			s.refuse = errors.New("no")
		}
		s.mu.Unlock()
		all := map[string]*Sockets{"ns0": kept}
		if i%2 == 0 {
			all["ns1"] = other
		}
		n := a.Set(State{Config: config("b", 1), Sockets: all})
		eventually(t, "an answer", func() bool { st := a.Status(); return st.Applied == n || st.Refused == n })
	}
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	wait(t, a, a.Set(State{Config: config("a", 1), Sockets: map[string]*Sockets{"ns0": kept}}))
	if after := count(); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
	stop()
	stopProxy()
}

// TestRecords: what proxies tell arrives.
func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	var mu sync.Mutex
	var got []string
	run(t, &Records{Path: path, Take: func(rs []record.Record) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range rs {
			got = append(got, r.ID)
		}
	}})
	eventually(t, "the socket", func() bool { _, err := os.Stat(path); return err == nil })
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprint(i))
		fmt.Fprintf(c, "{\"id\":\"%d\"}\n", i)
	}
	eventually(t, "all", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Equal(got, want) })
}

// TestRecordsTogether: what comes together is taken together.
func TestRecordsTogether(t *testing.T) {
	var calls, records int
	r := &Records{Take: func(rs []record.Record) { calls, records = calls+1, records+len(rs) }}
	if err := r.read(strings.NewReader(strings.Repeat("{\"id\":\"a\"}\n", 500)), new(sync.Mutex)); err != nil || records != 500 || calls > 4 {
		t.Errorf("%d records in %d calls, %v", records, calls, err)
	}
}
