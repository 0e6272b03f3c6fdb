package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// agentMain is the test binary as an agent, so that it can be killed.
func agentMain(config string) int {
	var cfg Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	a, err := New(cfg)
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// machine is a node in a namespace of its own, with a snapshot made by hand
// and no control plane.
type machine struct {
	t     *testing.T
	cfg   Config
	netns string
	cmd   *exec.Cmd
	log   *os.File
	ends  chan error
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Fatal("network namespaces and eBPF need root")
	}
	t.Skip("network namespaces and eBPF need root")
}

func sh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ns is a name for a namespace that no other test uses: they run side by side.
func ns(t *testing.T, name string) string {
	test, _, _ := strings.Cut(t.Name(), "/")
	return "moire-" + strings.ToLower(strings.TrimPrefix(test, "Test")) + "-" + name
}

func addNetns(t *testing.T, name string) string {
	t.Helper()
	exec.Command("ip", "netns", "del", name).Run() // of a test that was killed
	sh(t, "ip", "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	return "/run/netns/" + name
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	needRoot(t)
	t.Parallel() // each waits most of its time
	dir, err := os.MkdirTemp("", "moire-node-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, cfg: Config{
		Name: "n1", Address: netip.MustParseAddr("198.18.90.11"), Dir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Wait: 5 * time.Second, Version: "test",
		EtcNetns: filepath.Join(dir, "etc"), ResolvConf: filepath.Join(dir, "resolv.conf"),
	}}
	m.netns = addNetns(t, ns(t, "n1"))
	sh(t, "ip", "-n", ns(t, "n1"), "link", "add", "up0", "type", "veth", "peer", "name", "peer0")
	sh(t, "ip", "-n", ns(t, "n1"), "addr", "add", "198.18.90.11/24", "dev", "up0")
	sh(t, "ip", "-n", ns(t, "n1"), "link", "set", "up0", "up")
	sh(t, "ip", "-n", ns(t, "n1"), "link", "set", "peer0", "up")
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m.writeSnapshot(nil)
	t.Cleanup(func() {
		if m.cmd != nil {
			m.kill()
		}
		unix.Unmount(filepath.Join(m.cfg.RunDir, "bpf"), unix.MNT_DETACH)
		unix.Unmount(filepath.Join(m.cfg.RunDir, "presence", "moire-n1"), unix.MNT_DETACH)
		if t.Failed() && m.log != nil {
			b, _ := os.ReadFile(m.log.Name())
			t.Logf("the agent said:\n%s", b)
		}
		os.RemoveAll(dir)
	})
	return m
}

func (m *machine) writeSnapshot(edit func(*snapshot.Snapshot)) {
	m.t.Helper()
	s := worldOf(snapshot.Report{}, func(s *snapshot.Snapshot) {
		s.Nodes["n1"] = snapshot.Node{Name: "n1", Address: m.cfg.Address, Number: 1}
		if edit != nil {
			edit(s)
		}
	})
	if err := wire.WriteFile(filepath.Join(m.cfg.Dir, "snapshot"), s); err != nil {
		m.t.Fatal(err)
	}
}

// start starts the agent and waits until it serves.
func (m *machine) start() {
	m.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	cfg, err := json.Marshal(m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.log == nil {
		if m.log, err = os.Create(filepath.Join(filepath.Dir(m.cfg.Dir), "log")); err != nil {
			m.t.Fatal(err)
		}
	}
	// Not `ip netns exec`: that makes a mount namespace, and the pins would
	// end with it.
	m.cmd = exec.Command("nsenter", "--net="+m.netns, exe)
	m.cmd.Env = append(os.Environ(), "MOIRE_TEST_AGENT="+string(cfg))
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	os.Remove(m.cfg.socket())
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.ends = make(chan error, 1)
	go func(c *exec.Cmd, ends chan error) { ends <- c.Wait() }(m.cmd, m.ends)
	eventually(m.t, "the agent serves", func() bool {
		_, err := m.client().Status(m.t.Context())
		return err == nil
	})
}

func (m *machine) client() *local.Client { return local.NewClient(m.cfg.socket()) }

func (m *machine) kill() {
	m.cmd.Process.Kill()
	<-m.ends
	m.cmd = nil
}

func (m *machine) stop() {
	m.t.Helper()
	m.cmd.Process.Signal(unix.SIGTERM)
	select {
	case err := <-m.ends:
		if err != nil {
			m.t.Errorf("the agent ended: %v", err)
		}
	case <-time.After(10 * time.Second):
		m.t.Error("the agent does not stop")
		m.cmd.Process.Kill()
		<-m.ends
	}
	m.cmd = nil
}

// attach attaches a namespace as a Workload with the labels of world.
func (m *machine) attach(name, netns string) local.Interface {
	m.t.Helper()
	a := web()
	a.Workload, a.Netns, a.Persist = name, netns, true
	got, err := m.client().Attach(m.t.Context(), a)
	if err != nil {
		m.t.Fatal(err)
	}
	return got.Interfaces[0]
}

func ping(netns string, to netip.Addr) error {
	out, err := exec.Command("nsenter", "--net="+netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", to.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// records of the node so far.
func (m *machine) records(t *testing.T) (all []record.Record) {
	t.Helper()
	err := m.client().Flows(t.Context(), nil, false, func(r record.Record) { all = append(all, r) })
	if err != nil {
		t.Fatal(err)
	}
	return all
}
