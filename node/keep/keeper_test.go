package keep

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is also the program that is kept: it serves as soon as it says so in
// a file, unless there is a file that tells it to hang, or to fail.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "program" {
		program(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m)
}

func program(dir string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	there := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	if there("fail") {
		fmt.Fprintln(os.Stderr, "it does not like this")
		os.Exit(3)
	}
	if !there("hang") {
		tmp := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		os.WriteFile(tmp, []byte(strconv.Itoa(os.Getpid())), 0o600)
		os.Rename(tmp, filepath.Join(dir, "serving"))
	}
	select {
	case <-end:
	case <-time.After(time.Minute):
	}
}

type stage struct {
	t        *testing.T
	dir      string
	o        Options
	k        *Keeper
	stopping context.CancelFunc
	ran      chan error
}

func newStage(t *testing.T) *stage {
	if os.Geteuid() != 0 {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	root := cgroups(t)
	s := &stage{t: t, dir: t.TempDir()}
	s.o = Options{Name: "program", Path: filepath.Join(s.dir, "program"), Args: []string{"program", s.dir}, Cgroup: filepath.Join(root, "moire-test", t.Name()),
		Log: filepath.Join(s.dir, "log"), Serving: s.serving, Patience: 500 * time.Millisecond, Drain: time.Second, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	s.install()
	t.Cleanup(func() {
		if err := Kill(filepath.Dir(s.o.Cgroup)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// install puts the program into place, as another file than before.
func (s *stage) install() {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		s.t.Fatal(err)
	}
	was := time.Now().Add(-time.Minute)
	for _, err := range []error{os.WriteFile(s.o.Path+".new", b, 0o755), os.Chtimes(s.o.Path+".new", was, was), os.Rename(s.o.Path+".new", s.o.Path)} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *stage) touch(name string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) serving() int {
	b, err := os.ReadFile(filepath.Join(s.dir, "serving"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(b))
	if stat, gone := os.ReadFile("/proc/" + string(b) + "/stat"); err != nil || gone != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") T ") {
		return 0
	}
	return pid
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

// run has a new Keeper, as after a restart of the agent.
func (s *stage) run() {
	s.k = New(s.o)
	ctx, stop := context.WithCancel(s.t.Context())
	s.stopping, s.ran = stop, make(chan error, 1)
	go func() { s.ran <- s.k.Run(ctx) }()
	s.t.Cleanup(stop)
}

func (s *stage) stop() {
	s.t.Helper()
	s.stopping()
	if err := <-s.ran; err != nil {
		s.t.Fatal(err)
	}
}

// serves waits until a process serves that is none of these.
func (s *stage) serves(than ...int) int {
	s.t.Helper()
	return s.until("another process serves", func() bool {
		now := s.serving()
		for _, pid := range than {
			if pid == now {
				return false
			}
		}
		return now != 0 && s.k.Status().PID == now
	})
}

func (s *stage) until(what string, is func() bool) int {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s; %+v", what, s.k.Status())
		}
	}
	return s.serving()
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestKept: it is there again when it was killed, when it hangs, and stays when
// the agent goes and comes.
func TestKept(t *testing.T) {
	s := newStage(t)
	s.run()
	first := s.serves()
	s.stop()
	if s.serving() != first {
		t.Fatal("it ended with the agent")
	}
	s.run()
	if again := s.serves(); again != first {
		t.Fatalf("process %d in the place of %d", again, first)
	}
	begin := time.Now()
	syscall.Kill(first, syscall.SIGKILL)
	second := s.serves(first)
	if d := time.Since(begin); d > time.Second {
		t.Errorf("served again after %s", d)
	}
	if last := s.k.Status().Last; last == "" {
		t.Error("nobody says how it ended")
	}
	syscall.Kill(second, syscall.SIGSTOP) // it hangs
	third := s.serves(first, second)
	if !gone(second) {
		t.Error("the one that hung is still there")
	}
	s.k.End()
	if err := <-s.ran; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.o.Cgroup); !gone(third) || err == nil {
		t.Errorf("after its end it is still there: %v", err)
	}
}

// TestReplaced: another file of the program is run in the place of the old one,
// which goes when the new one serves; one that does not come to serve changes
// nothing.
func TestReplaced(t *testing.T) {
	s := newStage(t)
	s.run()
	first := s.serves()
	s.install()
	second := s.serves(first)
	s.until("the old one goes", func() bool { return gone(first) })
	for name, want := range map[string]string{"hang": "it did not come to serve", "fail": "exit status 3"} {
		s.touch(name)
		if err := s.k.Replace(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		os.Remove(filepath.Join(s.dir, name))
		if s.serving() != second {
			t.Fatalf("%s: the one that served is gone", name)
		}
	}
	if err := s.k.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	third := s.serving()
	if third == second {
		t.Error("it was not replaced")
	}
	s.until("the old one goes", func() bool { return gone(second) })
	syscall.Kill(third, syscall.SIGKILL)
	s.serves(first, second, third)
}

// TestFails: a program that cannot run is tried again, with pauses.
func TestFails(t *testing.T) {
	s := newStage(t)
	s.touch("fail")
	s.run()
	s.until("it was tried three times", func() bool { return s.k.Status().Starts >= 3 })
	if last := s.k.Status().Last; last != "exit status 3" {
		t.Errorf("it is said to have ended by %q", last)
	}
	os.Remove(filepath.Join(s.dir, "fail"))
	s.serves()
	s.stop()
}
