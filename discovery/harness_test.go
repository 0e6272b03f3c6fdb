package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newCA(t testing.TB, nodeLife time.Duration) *identity.CA {
	t.Helper()
	ca, err := identity.NewCA(identity.Config{Dir: t.TempDir(), NodeLife: nodeLife})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// world is a Sink that remembers.
type world struct {
	mu       sync.Mutex
	refuse   error
	joined   map[string]netip.Addr
	events   []string  // connected and gone
	last     time.Time // the node that went last was heard last then
	reports  map[string]snapshot.Report
	captured []snapshot.Captured
	acks     []string
	records  map[string][]record.Record
	lost     map[string]uint64
	block    map[string]chan struct{} // Report of the node waits for it
}

func newWorld() *world {
	return &world{
		joined: map[string]netip.Addr{}, reports: map[string]snapshot.Report{}, records: map[string][]record.Record{},
		lost: map[string]uint64{}, block: map[string]chan struct{}{},
	}
}

func (w *world) Joined(node string, a netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.joined[node] = a
	return nil
}

func (w *world) event(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf(format, args...))
}

func (w *world) Connected(node string) { w.event("connected %s", node) }
func (w *world) Gone(node string, heard time.Time) {
	w.mu.Lock()
	w.last = heard
	w.mu.Unlock()
	w.event("gone %s", node)
}

func (w *world) Report(node string, r snapshot.Report) {
	w.mu.Lock()
	w.reports[node] = r
	block := w.block[node]
	w.mu.Unlock()
	if block != nil {
		<-block
	}
}

func (w *world) Acked(node string, v snapshot.Version, applied bool, errText string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks = append(w.acks, fmt.Sprintf("%s %s %v %s", node, v, applied, errText))
}

func (w *world) Records(node string, rs []record.Record, lost uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[node] = append(w.records[node], rs...)
	w.lost[node] = lost
}

func (w *world) Captured(node string, cs []snapshot.Captured) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.captured = append(w.captured, cs...)
}

func (w *world) look(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// heard waits until the connections began and ended as said.
func (w *world) heard(t testing.TB, want []string) {
	t.Helper()
	var got []string
	eventually(t, want[len(want)-1], func() bool {
		w.look(func() { got = slices.Clone(w.events) })
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// kernel is a Handler that remembers.
type kernel struct {
	mu    sync.Mutex
	last  *snapshot.Snapshot
	count int
	slow  time.Duration
}

func (k *kernel) Snapshot(s *snapshot.Snapshot) {
	time.Sleep(k.slow)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = s
	k.count++
}

func (k *kernel) version() snapshot.Version {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil {
		return ""
	}
	return k.last.Version()
}

func (k *kernel) calls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count
}

// start runs something until the returned function, which waits for its end,
// or until the test ends.
func start(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("Run does not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func startServer(t testing.TB, cfg ServerConfig) (*Server, func()) {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Log == nil {
		cfg.Log = quiet
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, s.Run)
	select {
	case <-s.Ready():
	case <-time.After(5 * time.Second):
		t.Fatal("the server does not listen")
	}
	return s, stop
}

func token(t testing.TB, ca *identity.CA) string {
	t.Helper()
	tok, err := ca.NewToken(identity.TokenSpec{})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// patience is for machines that do much else; nothing here takes so long.
const patience = 90 * time.Second

var underlay = netip.MustParseAddr("192.0.2.7")

// join gets the node its papers and returns their directory.
func join(t testing.TB, ca *identity.CA, server, node string) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := Join(ctx, JoinConfig{Servers: []string{server}, Token: token(t, ca), CAHash: ca.CAHash(), Node: node, Address: underlay, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func startClient(t testing.TB, cfg ClientConfig) (*Client, func()) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = quiet
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, start(t, c.Run)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not come: %s", what)
}

// after ends when the context does not keep us from it.
func after(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func stateOf(s *Server, node string) NodeState {
	for _, n := range s.Nodes() {
		if n.Node == node {
			return n
		}
	}
	return NodeState{}
}

// some is a snapshot whose content is the number.
func some(node string, n int) *snapshot.Snapshot {
	return &snapshot.Snapshot{Node: node, Networks: map[snapshot.VNI]snapshot.Network{
		7: {VNI: 7, Project: "p", Name: "net", Domain: "d", MTU: n},
	}}
}

// mutate is a random change of a snapshot.
func mutate(r *rand.Rand, s *snapshot.Snapshot) *snapshot.Snapshot {
	d := snapshot.Delta{Put: snapshot.Snapshot{
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{},
		Policies:  map[snapshot.PolicyKey]policy.Set{},
		Grants:    map[snapshot.AttachmentKey]snapshot.Grant{},
	}, Delete: snapshot.Snapshot{Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Policies: map[snapshot.PolicyKey]policy.Set{}}}
	for range r.IntN(6) {
		a := snapshot.Addr{VNI: 7, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(60))})}
		if r.IntN(3) == 0 {
			delete(d.Put.Endpoints, a)
			d.Delete.Endpoints[a] = snapshot.Endpoint{}
			continue
		}
		delete(d.Delete.Endpoints, a)
		d.Put.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "p", Workload: fmt.Sprint("w", r.IntN(9)), Node: "n", Identity: policy.Identity(r.IntN(9))}
	}
	k := snapshot.PolicyKey{VNI: 7, Identity: policy.Identity(1 + r.IntN(5)), Direction: policy.Direction(r.IntN(2))}
	if r.IntN(2) == 0 {
		d.Put.Policies[k] = policy.Set{Default: policy.DefaultRule{ID: policy.RuleID(fmt.Sprint("default/", r.IntN(99)))}}
	} else {
		d.Delete.Policies[k] = policy.Set{}
	}
	g := snapshot.AttachmentKey{Project: "p", Workload: fmt.Sprint("w", r.IntN(9)), Network: "net"}
	d.Put.Grants[g] = snapshot.Grant{AttachmentKey: g, VNI: 7, Identity: policy.Identity(r.IntN(99))}
	return s.Apply(&d)
}

var errTest = errors.New("no more room")
