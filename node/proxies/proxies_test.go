package proxies

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// TestMain is also a proxy: it serves nothing, but says at the door that it does,
// and writes what it was told beside it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "--agent" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		s := &served{dir: filepath.Dir(os.Args[2]), end: stop}
		door.NewProxy(door.ProxyOptions{Path: os.Args[2], Served: s, Workers: 1}).Run(ctx)
		return
	}
	goleak.VerifyTestMain(m)
}

type served struct {
	dir string
	end func()
	was *l7.Config
}

func (s *served) Serve(st door.State) error {
	for _, p := range st.Config.Validate() {
		if !p.Soft {
			return p
		}
	}
	b, err := json.Marshal(st.Config)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "told.new"), b, 0o600)
	}
	if err == nil {
		err = os.Rename(filepath.Join(s.dir, "told.new"), filepath.Join(s.dir, "told"))
	}
	if s.was == nil && st.Config.Telemetry.Records != "" {
		var c net.Conn
		if c, err = net.Dial("unix", strings.TrimPrefix(st.Config.Telemetry.Records, "unix:")); err == nil {
			defer c.Close()
			err = json.NewEncoder(c).Encode(record.Record{ID: st.Config.Name})
		}
	}
	s.was = st.Config
	return err
}

func (s *served) Alive(ctx context.Context) error { return ctx.Err() }
func (s *served) Ejected() []door.Ejection {
	if s.was == nil {
		return nil
	}
	return []door.Ejection{{Cluster: "100/shop/api/80", Address: "10.0.0.2:80", Reason: "check"}}
}
func (s *served) Drain() { s.end() }

type stage struct {
	t       *testing.T
	dir     string
	p       *Proxies
	stop    func()
	mu      sync.Mutex
	ups     map[string]bool
	records []string
}

// newStage has proxies of one node; again after stop, as a restarted agent has.
func newStage(t *testing.T, m Mode) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	s := &stage{t: t, dir: t.TempDir(), ups: map[string]bool{}}
	root := cgroups(t)
	cgroup := filepath.Join(root, "moire-test", t.Name())
	t.Cleanup(func() {
		if s.stop(); Clean(filepath.Join(s.dir, "run"), cgroup) != nil {
			t.Error("proxies cannot be ended")
		}
	})
	s.run(m, cgroup)
	return s
}

// cgroups is where those of version 2 are.
func cgroups(t *testing.T) string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
			return dir
		}
	}
	t.Fatal("no cgroups of version 2 are mounted")
	return ""
}

func (s *stage) run(m Mode, cgroup string) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.p, err = New(Options{Node: "n1", Mode: m, Program: self, Dir: filepath.Join(s.dir, "run"), Logs: filepath.Join(s.dir, "logs"), Cgroup: cgroup, Workers: 1,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Changed: func(g Group) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ups[g.Name] = g.Up
		},
		Take: func(rs []record.Record) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, r := range rs {
				s.records = append(s.records, r.ID)
			}
		}})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.p.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			s.t.Error(err)
		}
	})
}

// shop is an input for workloads of two projects in one Network.
func (s *stage) shop(routes map[string]l7.Route) Input {
	vni := snapshot.VNI(100)
	k := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: vni, IP: netip.MustParseAddr("10.9.0.1")}, Protocol: policy.TCP, Port: 80}
	snap := &snapshot.Snapshot{Node: "n1", Networks: map[snapshot.VNI]snapshot.Network{vni: {VNI: vni, Project: "shop", Name: "net"}},
		Identities: map[policy.Identity]snapshot.Identity{1: {Number: 1, SPIFFE: "spiffe://x/a"}}, Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Routes: routes,
		Frontends: map[snapshot.FrontendKey]snapshot.Frontend{{ServiceKey: k}: {FrontendKey: snapshot.FrontendKey{ServiceKey: k}, Routes: []string{"shop/api", "shop/bad"}}}}
	in := Input{Snapshot: snap, Interfaces: map[string][]mesh.Interface{}, Sockets: map[string]*door.Sockets{}, Certificates: map[string]mesh.Certificate{}}
	need := map[string]bool{}
	for i, w := range []snapshot.AttachmentKey{{Project: "shop", Workload: "web", Network: "net"}, {Project: "shop", Workload: "api", Network: "net"}, {Project: "third", Workload: "x", Network: "shop/net"}} {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		snap.Endpoints[snapshot.Addr{VNI: vni, IP: addr}] = snapshot.Endpoint{Addr: snapshot.Addr{VNI: vni, IP: addr}, Project: w.Project, Workload: w.Workload, Identity: 1, Node: "n1", Mode: snapshot.Strict}
		name := s.p.Name(w)
		need[name] = true
		in.Interfaces[name] = append(in.Interfaces[name], mesh.Interface{Key: w, VNI: vni, Addrs: []netip.Addr{addr}, Namespace: w.Workload})
	}
	if err := s.p.Need(need); err != nil {
		s.t.Fatal(err)
	}
	return in
}

func (s *stage) eventually(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s", what)
		}
	}
}

func (s *stage) answered() {
	s.t.Helper()
	s.eventually("every proxy has answered", func() bool {
		err := s.p.Answered()
		if err != nil && !errors.Is(err, ErrNotYet) {
			s.t.Fatal(err)
		}
		return err == nil
	})
}

// told is what a proxy was told last.
func (s *stage) told(place string) *l7.Config {
	b, err := os.ReadFile(filepath.Join(s.dir, "run", place, "told"))
	if err != nil {
		s.t.Fatal(err)
	}
	var c l7.Config
	if err := json.Unmarshal(b, &c); err != nil {
		s.t.Fatal(err)
	}
	return &c
}

// TestModes: the same Workloads are served, by one proxy or by several, and each
// says what it saw.
func TestModes(t *testing.T) {
	for mode, want := range map[Mode]map[string][]string{
		Node:     {"node": {"shop/web", "shop/api", "third/x"}},
		Project:  {"shop": {"shop/web", "shop/api"}, "third": {"third/x"}},
		Workload: {"shop+web": {"shop/web"}, "shop+api": {"shop/api"}, "third+x": {"third/x"}},
	} {
		t.Run(string(mode), func(t *testing.T) {
			s := newStage(t, mode)
			in := s.shop(map[string]l7.Route{"shop/api": {Rules: []l7.Rule{{}}}})
			in.Certificates["spiffe://x/a"] = mesh.Certificate{Chain: "chain", Key: "key"}
			s.p.Set(in)
			s.answered()
			for place, workloads := range want {
				c := s.told(place)
				for i, w := range workloads {
					if c.Mesh.Workloads[i].Name != w || len(c.Mesh.Workloads) != len(workloads) || len(c.Listeners) == 0 || len(c.Routes) != 1 || c.Workers != 1 {
						t.Errorf("%s was told %+v", place, c)
					}
				}
			}
			for _, list := range in.Interfaces {
				for _, i := range list {
					s.eventually("every interface is served", func() bool { return s.p.Serves(i.Key) == "" })
				}
			}
			s.eventually("all are up, and have told", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.ups) == len(want) && len(s.records) == len(want) && len(s.p.Groups()) == len(want) && s.p.Groups()[0].Up
			})
			if e := s.p.Ejected(); len(e) != 1 || e[0].Address != "10.0.0.2:80" {
				t.Errorf("ejected %v", e)
			}
		})
	}
}

// TestRefused: what nobody can serve is left out, as long as that helps.
func TestRefused(t *testing.T) {
	s := newStage(t, Node)
	routes := map[string]l7.Route{"shop/api": {Rules: []l7.Rule{{}}}, "shop/bad": {Rules: []l7.Rule{{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: "x", Value: "/"}}}}}}}
	in := s.shop(routes)
	s.p.Set(in)
	s.answered()
	if c := s.told("node"); len(c.Routes) != 1 || c.Routes[0].Name != "shop/api" {
		t.Errorf("told %+v", c.Routes)
	}
	if st := s.p.Status(); len(st) != 1 || len(st[0].LeftOut) != 1 || !strings.HasPrefix(st[0].LeftOut[0], "shop/bad: ") {
		t.Errorf("%+v", st)
	}
	key := snapshot.AttachmentKey{Project: "shop", Workload: "web", Network: "net"}
	s.eventually("it is served, but for its certificate", func() bool { return s.p.Serves(key) == "it has no certificate yet" })
	next := *in.Snapshot
	next.Routes = map[string]l7.Route{"shop/api": routes["shop/api"]}
	in.Snapshot = &next
	s.p.Set(in)
	s.answered()
	if st := s.p.Status(); len(st[0].LeftOut) != 0 {
		t.Errorf("what is sound now is still left out: %+v", st)
	}
	s.p.o.Workers = -1 // no part of it helps
	s.p.Set(in)
	var err error
	s.eventually("it is refused", func() bool { err = s.p.Answered(); return err != nil && !errors.Is(err, ErrNotYet) })
	if !strings.Contains(err.Error(), "workers") {
		t.Errorf("refused because of %v", err)
	}
}

// TestRestart: the agent goes and comes, and the process stays; a process that
// is killed is there again; one that nobody needs is ended.
func TestRestart(t *testing.T) {
	s := newStage(t, Node)
	in := s.shop(nil)
	s.p.Set(in)
	s.answered()
	pid := s.p.Status()[0].PID
	if pid == 0 {
		t.Fatalf("%+v", s.p.Status())
	}
	cgroup := s.p.o.Cgroup
	s.stop()
	s.run(Node, cgroup)
	in = s.shop(nil)
	s.p.Set(in)
	s.answered()
	if now := s.p.Status()[0].PID; now != pid {
		t.Fatalf("process %d in the place of %d", now, pid)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.eventually("another one serves", func() bool {
		st := s.p.Status()[0]
		return st.Up && st.PID != pid && st.PID != 0
	})
	s.answered()
	second := s.p.Status()[0].PID
	if err := s.p.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.p.Status()[0]; !st.Up || st.PID == second {
		t.Errorf("%+v", st)
	}
	if err := s.p.Need(nil); err != nil {
		t.Fatal(err)
	}
	s.p.mu.Lock()
	s.p.groups["n1"].idle = time.Now().Add(-2 * linger)
	s.p.mu.Unlock()
	s.eventually("it is ended", func() bool {
		if err := s.p.Need(nil); err != nil {
			t.Fatal(err)
		}
		return len(s.p.Status()) == 0
	})
}
