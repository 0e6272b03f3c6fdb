package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/local"
	"moire.dev/moire/node/run"
)

func TestTwoWorkloadsWithoutControlPlane(t *testing.T) {
	m := newMachine(t)
	m.start()
	w1, w2 := addNetns(t, ns(t, "w1")), addNetns(t, ns(t, "w2"))
	_, i2 := m.attach("one", w1), m.attach("two", w2)
	for _, a := range i2.Addresses {
		if err := ping(w1, a); err != nil {
			t.Errorf("ping %s: %v", a, err)
		}
	}
	for _, g := range i2.Gateways {
		if err := ping(w1, g); err != nil {
			t.Errorf("ping the gateway %s: %v", g, err)
		}
	}
	if i2.MTU != 1450 {
		t.Errorf("MTU %d", i2.MTU)
	}
	t.Run("records", func(t *testing.T) { m.expectRecord(t) })
	t.Run("command", func(t *testing.T) { m.runCommand(t, i2.Addresses[0]) })
	t.Run("replaced namespace", func(t *testing.T) {
		sh(t, "ip", "netns", "del", ns(t, "w2"))
		sh(t, "ip", "netns", "add", ns(t, "w2"))
		eventually(t, "the interface is there again", func() bool {
			return exec.Command("ip", "-n", ns(t, "w2"), "link", "show", "eth0").Run() == nil && ping(w1, i2.Addresses[0]) == nil
		})
	})
	t.Run("deleted interface", func(t *testing.T) {
		var host string
		all, err := m.client().Attachments(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if a.Workload == "two" {
				host = a.Host
			}
		}
		sh(t, "ip", "-n", ns(t, "n1"), "link", "del", host)
		eventually(t, "the interface is there again", func() bool { return ping(w1, i2.Addresses[0]) == nil })
	})
	t.Run("detached", func(t *testing.T) {
		if err := m.client().Detach(t.Context(), local.Detach{Project: "shop", Workload: "two"}); err != nil {
			t.Fatal(err)
		}
		if ping(w1, i2.Addresses[0]) == nil {
			t.Error("it still answers")
		}
	})
	m.stop()
}

// expectRecord waits for a record of the pings.
func (m *machine) expectRecord(t *testing.T) {
	eventually(t, "a record of the ping", func() bool {
		found := false
		err := m.client().Flows(t.Context(), url.Values{"from": {"shop/one"}, "to": {"shop/two"}}, false, func(r record.Record) {
			found = found || r.Protocol == "icmp" && r.Verdict == record.Allow && r.Node == "n1" && r.Rule != ""
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	})
}

// runCommand runs a command as a Workload with the real agent.
func (m *machine) runCommand(t *testing.T, to netip.Addr) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	code, err := run.Run(t.Context(), run.Config{
		Socket: m.cfg.socket(), RunDir: m.cfg.RunDir, Project: "shop", Networks: []string{"front"}, Labels: map[string]string{"app": "web"},
		Command: []string{"ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", to.String()},
		Stdin:   null, Stdout: null, Stderr: null,
		Warn: func(err error) { t.Error(err) },
	})
	if code != 0 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	all, err := m.client().Attachments(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("%d attachments, %v", len(all), err)
	}
}

// TestKillAgentUnderPing: no packet is lost while the agent is killed, away
// and started, ten times.
func TestKillAgentUnderPing(t *testing.T) {
	m := newMachine(t)
	m.start()
	w1, w2 := addNetns(t, ns(t, "w1")), addNetns(t, ns(t, "w2"))
	_, i2 := m.attach("one", w1), m.attach("two", w2)
	var pings []*exec.Cmd
	var outs []*bytes.Buffer
	for _, a := range i2.Addresses {
		if err := ping(w1, a); err != nil {
			t.Fatal(err)
		}
		p := exec.Command("nsenter", "--net="+w1, "ping", "-n", "-q", "-i", "0.02", a.String())
		out := &bytes.Buffer{}
		p.Stdout, p.Stderr = out, out
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		pings, outs = append(pings, p), append(outs, out)
	}
	for range 10 {
		m.kill()
		time.Sleep(100 * time.Millisecond)
		m.start()
		time.Sleep(100 * time.Millisecond)
	}
	for i, p := range pings {
		p.Process.Signal(unix.SIGINT)
		p.Wait()
		if !strings.Contains(outs[i].String(), " 0% packet loss") {
			t.Errorf("lost under ping: %s", outs[i])
		}
	}
	m.stop()
}

// TestCommandKilled: what `moire run` leaves when it is killed goes within a
// second or so.
func TestCommandKilled(t *testing.T) {
	m := newMachine(t)
	m.start()
	w := addNetns(t, ns(t, "w1"))
	sleeper := exec.Command("nsenter", "--net="+w, "sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	shown := m.cfg.netnsFile("shop", "run")
	if err := os.WriteFile(shown, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	sh(t, "mount", "--bind", w, shown)
	a := web()
	a.Workload, a.Netns, a.PID = "run", fmt.Sprintf("/proc/%d/ns/net", sleeper.Process.Pid), sleeper.Process.Pid
	eventually(t, "the process is in its namespace", func() bool {
		one, err1 := netnsInode(a.Netns)
		two, err2 := netnsInode(w)
		return err1 == nil && err2 == nil && one == two
	})
	if _, err := m.client().Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	sleeper.Process.Kill()
	sleeper.Wait()
	eventually(t, "it is detached", func() bool {
		all, err := m.client().Attachments(t.Context())
		return err == nil && len(all) == 0
	})
	if d := time.Since(killed); d > time.Second {
		t.Errorf("detached after %s", d)
	}
	if _, err := os.Stat(shown); err == nil {
		t.Error("the namespace is still shown")
	}
	// And one whose process ends while the agent is away.
	again := exec.Command("nsenter", "--net="+w, "sleep", "600")
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	a.PID, a.Netns = again.Process.Pid, w
	if _, err := m.client().Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	m.kill()
	again.Process.Kill()
	again.Wait()
	m.start()
	if all, err := m.client().Attachments(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("attachments %v, %v", all, err)
	}
	m.stop()
}

// TestCleanupLeavesNothing compares before and after.
func TestCleanupLeavesNothing(t *testing.T) {
	m := newMachine(t)
	inNode := func(args ...string) string {
		return sh(t, append([]string{"nsenter", "--net=" + m.netns}, args...)...)
	}
	links := func(s string) []string {
		var out []string
		for line := range strings.Lines(s) {
			out = append(out, strings.Fields(line)[1])
		}
		return slices.Sorted(slices.Values(out))
	}
	before := links(inNode("ip", "-o", "link"))
	m.start()
	w1 := addNetns(t, ns(t, "w1"))
	m.attach("one", w1)
	m.attachTap("vm", nil)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cleanup := func() (string, error) {
		cfg, err := json.Marshal(m.cfg)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command("nsenter", "--net="+m.netns, exe)
		c.Env = append(os.Environ(), "MOIRE_TEST_CLEANUP="+string(cfg))
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := cleanup(); err == nil || !strings.Contains(out, "still running") {
		t.Errorf("cleanup under a running agent: %v: %s", err, out)
	}
	m.kill()
	if out, err := cleanup(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if after := links(inNode("ip", "-o", "link")); !slices.Equal(before, after) {
		t.Errorf("links before %v, after %v", before, after)
	}
	if in := sh(t, "ip", "-n", ns(t, "w1"), "-o", "link"); strings.Contains(in, "eth0") {
		t.Errorf("the interface is still in the namespace: %s", in)
	}
	if _, err := os.Stat(m.cfg.Dir); err == nil {
		t.Error("the state is still there")
	}
	err = filepath.WalkDir(m.cfg.RunDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != m.cfg.RunDir {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if on := inNode("bpftool", "net", "show"); strings.Contains(on, "tcx") && strings.Contains(on, "up0") {
		t.Errorf("programs are still attached: %s", on)
	}
}
