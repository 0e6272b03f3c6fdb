package supervise

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// text collects what is written from several goroutines.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

func (t *text) tell(s string) { t.Write([]byte(s + "\n")) }

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited too long for " + what)
}

func TestChildIsStartedAgainAndEnded(t *testing.T) {
	defer goleak.VerifyNone(t)
	var log, told text
	notes, err := NewNotes(filepath.Join(t.TempDir(), "sub", "up.json"), map[string]string{"node": "n1"})
	if err != nil {
		t.Fatal(err)
	}
	c := &Child{Name: "c", Path: "/bin/sh", Log: &log, Tell: told.tell, Notes: notes, Grace: 5 * time.Second,
		Args: []string{"-c", `trap "echo bye; exit 0" TERM; echo hello; while :; do sleep 0.02; done`}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	until(t, "the start", func() bool { return strings.Contains(log.String(), "hello") })
	about, list, err := ReadNotes(notes.path)
	if err != nil || about["node"] != "n1" || len(list) != 1 || !list[0].Alive() {
		t.Fatal(about, list, err)
	}
	first := list[0]
	if p, err := os.FindProcess(first.PID); err != nil || p.Kill() != nil {
		t.Fatal("kill", err)
	}
	until(t, "the second start", func() bool { return strings.Count(log.String(), "hello") == 2 })
	if first.Alive() || c.Last() == nil || !strings.Contains(told.String(), "starting it again in 250ms") {
		t.Error(first.Alive(), c.Last(), told.String())
	}
	cancel()
	if err := <-done; err != nil || !strings.Contains(log.String(), "bye") {
		t.Error(err, log.String())
	}
	if err := notes.Remove(); err != nil {
		t.Error(err)
	}
}

func TestChildThatDoesNotEndIsKilled(t *testing.T) {
	defer goleak.VerifyNone(t)
	var log, told text
	c := &Child{Name: "c", Path: "/bin/sh", Log: &log, Tell: told.tell, Grace: 50 * time.Millisecond,
		Args: []string{"-c", `trap "" TERM; echo hello; while :; do sleep 0.02; done`}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	until(t, "the start", func() bool { return strings.Contains(log.String(), "hello") })
	cancel()
	if err := <-done; err != nil || !strings.Contains(told.String(), "is killed") {
		t.Error(err, told.String())
	}
}

func TestChildThatCannotStart(t *testing.T) {
	c := &Child{Name: "c", Path: "/no/such/program", Log: &text{}, Tell: func(string) {}}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be started") {
		t.Error(err)
	}
}

func TestNoteNamesOneProcessOnly(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	defer func() { cmd.Process.Kill(); <-ended }()
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	right := Note{Name: "s", PID: cmd.Process.Pid, Started: started, Boot: bootID()}
	for name, wrong := range map[string]Note{
		"earlier process": {PID: right.PID, Started: "1", Boot: right.Boot},
		"earlier boot":    {PID: right.PID, Started: started, Boot: "x"},
		"init":            {PID: 1, Started: started, Boot: right.Boot},
		"nobody":          {},
	} {
		if wrong.Alive() {
			t.Errorf("%s counts as ours", name)
		}
		if err := wrong.End(t.Context(), time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !right.Alive() {
		t.Fatal("the process was ended in place of another")
	}
	if err := right.End(t.Context(), 5*time.Second); err != nil || right.Alive() {
		t.Error(err)
	}
}

func TestNotesThatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "up.json")
	if _, list, err := ReadNotes(path); err != nil || list != nil {
		t.Error(list, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadNotes(path); err == nil {
		t.Error("half a file was read")
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 1<<17)+"\na\nb\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(path, 2); got != "b\nc" {
		t.Errorf("%q", got)
	}
	if got := Tail(path+".gone", 2); got != "" {
		t.Errorf("%q", got)
	}
}
