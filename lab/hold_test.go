package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func heldLab(t *testing.T) *Lab {
	t.Helper()
	dir := t.TempDir()
	l, err := New(Config{Name: "moire-hold", Dir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHoldIsForOne(t *testing.T) {
	l := heldLab(t)
	release, err := l.Hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Hold(); !errors.Is(err, ErrHeld) || l.holder() != os.Getpid() {
		t.Errorf("held twice: %v, holder %d", err, l.holder())
	}
	if l.Left() {
		t.Error("an empty lab counts as left behind")
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "moired.pid"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !l.Left() {
		t.Error("processes that are remembered do not count as left behind")
	}
	// Who holds a directory that is gone holds nothing.
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Fatal(err)
	}
	again, err := l.Hold()
	if err != nil {
		t.Fatal(err)
	}
	again()
	release()
}

func TestEndHolder(t *testing.T) {
	flock, err := exec.LookPath("flock")
	if err != nil {
		t.Skip("this test needs flock of util-linux")
	}
	l := heldLab(t)
	if err := l.EndHolder(t.Context()); err != nil {
		t.Fatalf("nobody to end: %v", err)
	}
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(flock, "--no-fork", l.Dir, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for range 500 {
		release, err := l.Hold()
		if errors.Is(err, ErrHeld) {
			break
		}
		release()
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, holderFile), []byte(pidRecord(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.EndHolder(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("it ended with %v", err)
	}
}

// A process that has ended and whose parent does not ask is waited for no
// longer: after a crash of the demo the parent may be anybody.
func TestEndDoesNotWaitForTheParent(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	for range 500 {
		if gone(cmd.Process.Pid) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // end would say so if it had to wait
	if err := end(ctx, cmd.Process.Pid); err != nil {
		t.Errorf("waits for a process that has ended: %v", err)
	}
}

func TestOthersInTheRunDirectoryStay(t *testing.T) {
	l := heldLab(t)
	stay := []string{"bpf/maps.debug", "bpf/vm/pin", "up.json", "vm.sock"}
	leave := []string{"bpf/n1/pin", "kubeconfig", "join.json", "n1.sock", "n2.sock"}
	for _, name := range append(append([]string{}, stay...), leave...) {
		path := filepath.Join(l.RunDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !l.shared() {
		t.Error("the pins of another node are not seen")
	}
	if err := errors.Join(l.removeOwn()...); err != nil {
		t.Fatal(err)
	}
	for _, name := range stay {
		if _, err := os.Stat(filepath.Join(l.RunDir, name)); err != nil {
			t.Errorf("%s is gone", name)
		}
	}
	for _, name := range leave {
		if _, err := os.Stat(filepath.Join(l.RunDir, name)); err == nil {
			t.Errorf("%s stays", name)
		}
	}
	if err := os.RemoveAll(filepath.Join(l.RunDir, "bpf/vm")); err != nil {
		t.Fatal(err)
	}
	if l.shared() {
		t.Error("nobody else is there")
	}
}
