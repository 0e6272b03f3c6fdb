package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/discovery"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/identity"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// control is a control plane of one thought: it grants everything.
type control struct {
	t      *testing.T
	ca     *identity.CA
	server *discovery.Server
	edit   func(*snapshot.Snapshot)
	issuer discovery.Issuer

	mu      sync.Mutex
	report  snapshot.Report
	applied []snapshot.Version
	errs    []string
	records []record.Record
}

func newControl(t *testing.T, edit func(*snapshot.Snapshot)) *control {
	t.Helper()
	ca, err := identity.NewCA(identity.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return &control{t: t, ca: ca, edit: edit}
}

// run serves at addr until stop.
func (c *control) run(addr string) (stop func()) {
	c.t.Helper()
	var err error
	if c.server, err = discovery.NewServer(discovery.ServerConfig{Listen: addr, CA: c.ca, Sink: c, Issuer: c.issuer, Log: slog.New(slog.DiscardHandler)}); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.server.Run(ctx); err != nil {
			c.t.Error(err)
		}
	})
	<-c.server.Ready()
	return sync.OnceFunc(func() { cancel(); wg.Wait() })
}

func (c *control) invite(t *testing.T, runDir string) {
	t.Helper()
	token, err := c.ca.NewToken(identity.TokenSpec{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(joinFile{Servers: []string{c.server.Addr()}, Token: token, CAHash: c.ca.CAHash()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(runDir, "join.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *control) Joined(string, netip.Addr) error { return nil }
func (c *control) Connected(string)                {}
func (c *control) Gone(string, time.Time)          {}
func (c *control) Report(node string, r snapshot.Report) {
	c.mu.Lock()
	c.report = r
	c.mu.Unlock()
	c.server.Publish(node, worldOf(r, c.edit))
}
func (c *control) Acked(_ string, v snapshot.Version, applied bool, errText string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if applied {
		c.applied = append(c.applied, v)
	}
	if errText != "" {
		c.errs = append(c.errs, errText)
	}
}
func (c *control) Captured(string, []snapshot.Captured) {}
func (c *control) Records(_ string, rs []record.Record, _ uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records = append(c.records, rs...)
}

func (c *control) has(what func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return what()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not in time: %s", what)
}

// TestWithDiscovery goes the whole way but for the kernel: join by file,
// report, snapshot, acknowledgement, records, and a control plane that goes
// and comes back.
func TestWithDiscovery(t *testing.T) {
	needRoot(t)
	c := newControl(t, nil)
	stopControl := c.run("127.0.0.1:0")
	defer func() { stopControl() }()
	b := newBench(t)
	up := &link{cfg: b.cfg, log: b.log, handler: b.loop, ready: b.started, last: func() *snapshot.Snapshot { return b.view.Load().wanted }}
	b.loop.up = up
	client, _, stop := b.serve(t)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := up.run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()

	eventually(t, "trouble because there is no invitation", func() bool { return strings.Contains(up.trouble(), "join.json") })
	// What an agent that was restarted applied from its disk.
	const early = "00000000000000aa"
	up.Ack(early, true, "")
	c.invite(t, b.dir)
	eventually(t, "the node is connected", up.Connected)
	eventually(t, "what was applied before is known", func() bool { return c.has(func() bool { return slices.Contains(c.applied, early) }) })
	got, err := client.Attach(t.Context(), web())
	if err != nil || len(got.Warnings) != 0 || len(got.Interfaces[0].Addresses) != 2 {
		t.Fatalf("attached %+v, %v", got, err)
	}
	eventually(t, "the version is applied", func() bool {
		return c.has(func() bool {
			return len(c.applied) > 0 && c.applied[len(c.applied)-1] == worldOf(c.report, nil).Version()
		})
	})
	if err := up.ship([]record.Record{{ID: "r1", Kind: record.Denied, Observer: record.AtSource, Verdict: record.Deny, Protocol: "tcp", Time: time.Now(),
		Source: record.End{VNI: 100, Address: netip.MustParseAddr("10.0.0.65")}, Destination: record.End{VNI: 100, Address: netip.MustParseAddr("10.0.0.66")}}}, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record arrives", func() bool { return c.has(func() bool { return len(c.records) == 1 }) })

	addr := c.server.Addr()
	stopControl()
	eventually(t, "the status is stale", func() bool {
		st, err := client.Status(t.Context())
		return err == nil && st.Stale
	})
	time.Sleep(awayGrace)
	second := web()
	second.Workload = "web2"
	got, err = client.Attach(t.Context(), second)
	if err != nil || len(got.Warnings) != 1 {
		t.Fatalf("attached without a control plane %+v, %v", got, err)
	}
	stopControl = c.run(addr)
	eventually(t, "the control plane hears of it", func() bool { return c.has(func() bool { return len(c.report.Attachments) == 2 }) })
	eventually(t, "and it is ready", func() bool {
		all, err := client.Attachments(t.Context())
		return err == nil && len(all) == 2 && all[1].State == "ready"
	})
	if err := client.Detach(t.Context(), local.Detach{Project: "shop", Workload: "web"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the control plane hears of the end", func() bool { return c.has(func() bool { return len(c.report.Attachments) == 1 }) })
}

// TestInvitedAnew: the control plane of this machine is made anew, with another
// CA, at the same address and then at another one. The node says what is wrong,
// and joins it as soon as it is invited.
func TestInvitedAnew(t *testing.T) {
	first, second := newControl(t, nil), newControl(t, nil)
	stop := first.run("127.0.0.1:0")
	b := newBench(t)
	ready := make(chan struct{})
	close(ready)
	up := &link{cfg: b.cfg, log: b.log, handler: b.loop, ready: ready, last: func() *snapshot.Snapshot { return nil }, look: 20 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := up.run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	first.invite(t, b.dir)
	eventually(t, "the node is connected", up.Connected)
	if up.trouble() != "" {
		t.Errorf("connected, and yet %q", up.trouble())
	}
	addr := first.server.Addr()
	stop()
	stop = second.run(addr)
	eventually(t, "the trouble is told", func() bool { return strings.Contains(up.trouble(), "not from the CA that this node joined") })
	second.invite(t, b.dir)
	eventually(t, "the node is connected to the new one", up.Connected)
	stop()
	stop = second.run("127.0.0.1:0")
	defer func() { stop() }()
	second.invite(t, b.dir)
	eventually(t, "the node is connected at the new address", up.Connected)

	// Its certificate is of no use any more, as after a long sleep.
	if err := os.Remove(filepath.Join(b.cfg.Dir, "node.crt")); err != nil {
		t.Fatal(err)
	}
	addr = second.server.Addr()
	stop()
	eventually(t, "the connection is lost", func() bool { return !up.Connected() })
	stop = second.run(addr)
	second.invite(t, b.dir)
	eventually(t, "the node is connected again", up.Connected)
}

func TestJoinFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "join.json")
	for content, want := range map[string]string{
		"":                    "there is no",
		"{":                   "unexpected end",
		"{}":                  "names no servers",
		`{"servers":["a:1"]}`: "",
	} {
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			os.Remove(path)
		}
		_, err := readJoinFile(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

// FuzzJoinFile: whatever the file holds names servers, or is refused.
func FuzzJoinFile(f *testing.F) {
	f.Add([]byte(`{"servers":["a:1"],"token":"t.s","caHash":"sha256:00"}`))
	f.Add([]byte(`{"servers":null}`))
	path := filepath.Join(f.TempDir(), "join.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := readJoinFile(path); err == nil && len(j.Servers) == 0 {
			t.Errorf("%q gives %+v", b, j)
		}
	})
}
