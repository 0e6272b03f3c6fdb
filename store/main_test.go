package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary run a store instead of tests: the value is
// its directory. Tests that kill a store use it.
const childEnv = "MOIRE_STORE_TEST_CHILD"

// shared is the one server that most tests use, started by TestMain: starting
// one takes seconds.
var shared struct {
	store      *Store
	dir        string
	kubeconfig string
	world      *fakeWorld
	startTime  time.Duration
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(run(m))
}

// child runs a store until it is told to stop, and says on stdout when it is
// ready and when it has stopped.
func child(dir string) int {
	// If the test dies, so do we.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := Config{Dir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if e := os.Getenv(childEnv + "_ETCD"); e != "" {
		cfg.EtcdServers = strings.Split(e, ",")
	}
	if l := os.Getenv(childEnv + "_LISTEN"); l != "" {
		cfg.Listen = l
	}
	s, err := New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-s.Ready()
		fmt.Println("ready")
	}()
	if err := s.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if !s.hooked.Load() {
		fmt.Println("stopped in the middle of its start")
		return 1
	}
	fmt.Println("stopped")
	return 0
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "moire-store-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer logFile.Close()
	shared.dir, shared.kubeconfig, shared.world = dir, filepath.Join(dir, "kubeconfig"), newFakeWorld()
	shared.store, err = New(Config{
		Dir: dir, Listen: "127.0.0.1:0", Virtual: testVirtual(),
		Log: slog.New(slog.NewTextHandler(logFile, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared.store.SetWorld(shared.world)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- shared.store.Run(ctx) }()
	select {
	case <-shared.store.Ready():
		shared.startTime = time.Since(begin)
	case err := <-done:
		fmt.Fprintln(os.Stderr, "the store did not start:", err)
		return 1
	}
	code := m.Run()
	cancel()
	begin = time.Now()
	select {
	case err := <-done:
		if err != nil {
			fmt.Fprintln(os.Stderr, "the store stopped with:", err)
			code = 1
		}
	case <-time.After(20 * time.Second):
		fmt.Fprintln(os.Stderr, "the store did not stop in 20 s")
		code = 1
	}
	if d := time.Since(begin); testing.Verbose() {
		fmt.Printf("ready after %v, stopped after %v\n", shared.startTime.Round(time.Millisecond), d.Round(time.Millisecond))
	}
	if code != 0 {
		tail(logFile.Name())
	}
	return code
}

func tail(file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		return
	}
	var lines []string
	for l := range strings.Lines(string(data)) {
		if !strings.Contains(l, "level=DEBUG") {
			lines = append(lines, l)
		}
	}
	fmt.Print("last lines of the store's log:\n", strings.Join(lines[max(0, len(lines)-40):], ""))
}

// kubectl runs the real kubectl and returns stdout, stderr and its error.
func kubectlWith(t *testing.T, kubeconfig, stdin string, args ...string) (string, string, error) {
	t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		t.Fatal("these tests need kubectl in PATH: install the package kubectl or kubernetes-client")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+shared.dir, "KUBECTL_EXTERNAL_DIFF=diff -u")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// kubectl runs kubectl as admin of the shared server and wants success.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, errs, err := kubectlWith(t, shared.kubeconfig, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// project makes a namespace with a name of its own for the test.
func project(t *testing.T, labels ...string) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(t.Name()))
	name = strings.TrimRight(name[:min(len(name), 50)], "-")
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", name)
	if len(labels) > 0 {
		b.WriteString("  labels:\n")
		for _, l := range labels {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	kubectl(t, b.String(), "apply", "-f", "-")
	return name
}
