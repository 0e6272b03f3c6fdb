package node

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/flow"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/local"
)

// serve runs the loop and the socket; the bench is not driven by hand then.
func (b *bench) serve(t *testing.T) (*local.Client, *flow.Archive, func()) {
	t.Helper()
	l := b.loop
	l.now = time.Now
	b.control.away = false
	archive := flow.NewArchive(100, 1<<20)
	s := &server{loop: l, archive: archive, waiting: func() int { return 3 }, joining: func() string { return "" }, log: l.log}
	path := filepath.Join(b.dir, "n1.sock")
	socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-l.started
	wg.Go(func() {
		if err := s.run(ctx, socket); err != nil {
			t.Error(err)
		}
	})
	return local.NewClient(path), archive, sync.OnceFunc(func() { cancel(); wg.Wait() })
}

func TestSocket(t *testing.T) {
	needRoot(t)
	b := newBench(t)
	b.gives(world(b.control, nil))
	c, archive, stop := b.serve(t)
	defer stop()
	ctx := t.Context()

	if info, err := os.Stat(filepath.Join(b.dir, "n1.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info.Mode(), err)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Node != "n1" || !st.Connected || st.RecordsWaiting != 3 || st.Networks != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
	a := web()
	a.WaitMillis = 300
	if _, err := c.Attach(ctx, a); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("attach without an answer of the control plane: %v", err)
	}
	a.Project = "../etc"
	if _, err := c.Attach(ctx, a); !errors.Is(err, local.ErrInvalid) || !strings.Contains(err.Error(), "is not a name") {
		t.Errorf("a wrong name: %v", err)
	}
	if err := c.Detach(ctx, local.Detach{Project: "a", Workload: "b"}); !errors.Is(err, local.ErrNotFound) {
		t.Errorf("detach of nothing: %v", err)
	}
	if err := c.Consent(ctx, local.Consent{Version: "x"}); err == nil {
		t.Error("consent to nothing")
	}
	if all, err := c.Attachments(ctx); err != nil || len(all) != 0 {
		t.Errorf("attachments %v, %v", all, err)
	}
	var dump bytes.Buffer
	if err := c.Dump(ctx, &dump); err != nil || !strings.Contains(dump.String(), "network {VNI:100") || !strings.Contains(dump.String(), "# fake") {
		t.Errorf("dump %v: %s", err, dump.String())
	}
	archive.Add("n1", []record.Record{{ID: "1", Verdict: record.Deny, Source: record.End{Address: netip.MustParseAddr("10.0.0.1")}}}, 0)
	flows(t, c, archive)
	stop()
	if _, err := c.Status(ctx); !errors.Is(err, local.ErrAway) {
		t.Errorf("status of an agent that has stopped: %v", err)
	}
}

func flows(t *testing.T, c *local.Client, archive *flow.Archive) {
	t.Helper()
	n := 0
	count := func(record.Record) { n++ }
	if err := c.Flows(t.Context(), url.Values{"verdict": {"deny"}}, false, count); err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
	if err := c.Flows(t.Context(), url.Values{"verdict": {"maybe"}}, false, count); err == nil || !strings.Contains(err.Error(), "is not a verdict") {
		t.Errorf("wrong filter: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan record.Record, 10)
	done := make(chan error, 1)
	go func() {
		done <- c.Flows(ctx, url.Values{"limit": {"1"}}, true, func(r record.Record) { got <- r })
	}()
	<-got
	archive.Add("n1", []record.Record{{ID: "2"}}, 0)
	if r := <-got; r.ID != "2" {
		t.Errorf("followed %+v", r)
	}
	cancel()
	<-done
}

func TestOnlyRoot(t *testing.T) {
	needRoot(t)
	needProgram(t, "python3")
	dir, err := os.MkdirTemp("", "moire-node-socket")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	})
	// Somebody else connects although the mode would let them, and sees the end.
	out, err := exec.Command("python3", "-c", `import os,socket,sys
os.setgid(65534); os.setuid(65534)
s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])
print(s.recv(1))`, path).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "b''" {
		t.Errorf("somebody else: %v: %s", err, out)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	(<-accepted).Close()
	c.Close()
	l.Close()
	wg.Wait()
	if len(accepted) != 0 {
		t.Error("somebody else was let in")
	}
}
