package node

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/node/local"
)

func TestProcesses(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	born, err := bornAt(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p := &processes{}
	ended := make(chan struct{}, 2)
	if err := p.watch(t.Context(), cmd.Process.Pid, born+1, func() { ended <- struct{}{} }); err == nil {
		t.Error("another process of the same number is watched")
	}
	if err := p.watch(t.Context(), cmd.Process.Pid, born, func() { ended <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := p.watch(ctx, cmd.Process.Pid, born, func() { t.Error("called although the watch ended") }); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-ended:
		t.Fatal("ended too early")
	case <-time.After(50 * time.Millisecond):
	}
	cmd.Process.Kill() // not waited for: a zombie has ended too
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the end is not seen")
	}
	cmd.Wait()
	p.wait()
	if err := p.watch(t.Context(), cmd.Process.Pid, born, nil); err == nil {
		t.Error("a process that has ended is watched")
	}
}

// TestLongProcess: a process that goes on is not watched for what it has given
// back, however often it does that.
func TestLongProcess(t *testing.T) {
	b := newBench(t)
	b.gives(world(b.control, nil))
	a := web()
	a.PID = os.Getpid()
	b.attachedWeb(a)
	if b.procs.last.Err() != nil {
		t.Fatal("the process is not watched")
	}
	if err := b.detach(local.Detach{Project: "shop", Workload: "web"}); err != nil {
		t.Fatal(err)
	}
	if b.procs.last.Err() == nil {
		t.Error("the process is still watched")
	}
}

func TestNetnsInode(t *testing.T) {
	if _, err := netnsInode("/proc/self/ns/net"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/proc/self/status", "/", "/nowhere"} {
		if _, err := netnsInode(path); err == nil {
			t.Errorf("%s is a network namespace", path)
		}
	}
}

func TestDefaultRoute(t *testing.T) {
	const head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
	for _, c := range []struct {
		name, v4, v6, want string
		six                bool
	}{
		{"v4", head + "eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\neth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n", "", "eth0", false},
		{"v6", head, strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth2\n", "eth2", true},
		{"only the reject route", head, strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " ffffffff 00000001 00000000 00200200 lo\n", "", false},
		{"none", head, "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for f, s := range map[string]string{"route": c.v4, "ipv6_route": c.v6} {
				if err := os.WriteFile(filepath.Join(dir, f), []byte(s), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, six, err := defaultRoute(dir)
			if got != c.want || six != c.six || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v, %v", got, six, err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	c, err := Config{Name: "n1", Address: snapshotAddr}.WithDefaults()
	if err != nil || c.Dir != "/var/lib/moire/node/n1" || c.socket() != "/run/moire/n1.sock" || c.Wait != DefaultWait {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []Config{{Name: "a/b", Address: snapshotAddr}, {Name: "n1", Address: snapshotAddr, Token: "x"}} {
		if _, err := bad.WithDefaults(); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

var snapshotAddr = netip.MustParseAddr("192.0.2.1")
