package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

// childEnv makes the test binary run a Control in that directory.
const childEnv = "MOIRE_CONTROL_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

func child(dir string) {
	// If the test dies, so do we.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	cfg := Config{Dir: filepath.Join(dir, "control"), RunDir: filepath.Join(dir, "run"), APIListen: "127.0.0.1:0", DiscoveryListen: os.Getenv(childEnv + "_LISTEN"), Log: quiet()}
	if servers := os.Getenv(childEnv + "_ETCD"); servers != "" {
		cfg.EtcdServers = strings.Split(servers, ",")
	}
	c, err := New(cfg)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { <-c.Ready(); fmt.Println("ready") }()
	fmt.Println(c.Run(context.Background()))
	os.Exit(1)
}

// TestKilled: a control plane that is killed while Workloads come and go takes
// nothing back: no node loses an endpoint that is still there, and what was
// given out stays given.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	listen := freePort(t)
	begin := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_LISTEN="+listen)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if s := bufio.NewScanner(out); !s.Scan() || s.Text() != "ready" {
			t.Fatalf("the child says %q", s.Text())
		}
		return cmd
	}
	cfg := Config{Dir: filepath.Join(dir, "control"), RunDir: filepath.Join(dir, "run"), DiscoveryListen: listen}
	c := start(t, cfg)
	c.create(domain("acme"), projectOf("shop", "acme"), network("shop", "front", "10.0.0.0/24"))
	a, b := newAgent(t, c, "node-a"), newAgent(t, c, "node-b")
	b.attach("shop", "db", "front")
	a.attach("shop", "w0", "front")
	eventually(t, "b knows w0", func() error { _, err := b.endpoint("shop", "w0"); return err })
	c.stop()
	known := map[string]snapshot.Endpoint{}
	watch := watchLosses(b)
	for round := range 3 {
		cmd := begin()
		name := fmt.Sprint("w", round+1)
		a.attach("shop", name, "front")
		eventually(t, "b knows "+name, func() error {
			e, err := b.endpoint("shop", name)
			known[name] = e
			return err
		})
		// At once, before anything can be saved at leisure.
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	c = start(t, cfg)
	eventually(t, "both are back", func() error {
		for _, n := range []string{"node-a", "node-b"} {
			if got, err := c.node(n); err != nil || got.Status.State != "Ready" {
				return fmt.Errorf("%s is %+v, %v", n, got.Status, err)
			}
		}
		return nil
	})
	if err := watch(); err != nil {
		t.Error(err)
	}
	for name, e := range known {
		if got, err := b.endpoint("shop", name); err != nil || got != e {
			t.Errorf("%s was %+v and is %+v, %v", name, e, got, err)
		}
	}
}

// watchLosses looks at every snapshot of a node for endpoints that vanish; the
// returned function ends it.
func watchLosses(a *agent) func() error {
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		seen := map[snapshot.Addr]string{}
		var lost []string
		for {
			if s, _ := a.now(); s != nil {
				for at, who := range seen {
					if _, there := s.Endpoints[at]; !there {
						lost = append(lost, who)
						delete(seen, at)
					}
				}
				for at, e := range s.Endpoints {
					seen[at] = e.Workload
				}
			}
			select {
			case <-stop:
				if len(lost) > 0 {
					done <- errors.New("endpoints vanished: " + strings.Join(lost, " "))
				}
				close(done)
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() error { close(stop); return <-done }
}
