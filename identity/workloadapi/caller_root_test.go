package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"golang.org/x/sys/unix"
)

// childEnv makes the test program a caller: where it connects to.
const childEnv = "MOIRE_WORKLOAD_API_CHILD"

// TestMain is a caller when a test wants one.
func TestMain(m *testing.M) {
	if address := os.Getenv(childEnv); address != "" {
		os.Exit(call(address))
	}
	os.Exit(m.Run())
}

// call says whether it is ready, waits, and says who it is told that it is.
func call(address string) int {
	fmt.Println("ready")
	var line string
	fmt.Scanln(&line)
	if path, only := strings.CutPrefix(address, "connect "); only { // and end
		c, err := net.Dial("unix", path)
		if err == nil {
			fmt.Println("connected")
			_ = c // its end closes it
			return 0
		}
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(address))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer client.Close()
	all, err := client.FetchX509SVIDs(ctx)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, v := range all {
		fmt.Print(v.ID, " ")
	}
	fmt.Println()
	return 0
}

// child is the test program in a network namespace of its own.
type child struct {
	cmd *exec.Cmd
	out interface{ Read([]byte) (int, error) }
	in  interface{ Write([]byte) (int, error) }
}

func newChild(t *testing.T, address string, own bool) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if own {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c := &child{cmd, out, in}
	if got := c.line(t); got != "ready" {
		t.Fatalf("got %q", got)
	}
	return c
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := c.out.Read(b); err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
		if b[0] == '\n' {
			return strings.TrimSpace(string(line))
		}
		line = append(line, b[0])
	}
}

func (c *child) answer(t *testing.T) string {
	t.Helper()
	if _, err := c.in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	return c.line(t)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

// TestNamespaces: who a process is follows from the namespace that it is in,
// and from nothing else.
func TestNamespaces(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	address := serve(t, n)
	one, two, three := newChild(t, address, true), newChild(t, address, true), newChild(t, address, true)
	here := newChild(t, address, false)
	n.change(func() {
		n.callers[namespace(t, fmt.Sprint(one.cmd.Process.Pid))] = []string{web}
		n.callers[namespace(t, fmt.Sprint(two.cmd.Process.Pid))] = []string{admin}
	})
	if got := one.answer(t); got != web {
		t.Errorf("the first is %q", got)
	}
	if got := two.answer(t); got != admin {
		t.Errorf("the second is %q", got)
	}
	for name, c := range map[string]*child{"one that nobody attached": three, "the node itself": here} {
		if got := c.answer(t); !strings.Contains(got, "PermissionDenied") {
			t.Errorf("%s is %q", name, got)
		}
	}
}

// TestWhoConnected: all ways to find the namespace lead to the same one, and
// whoever has ended is nobody.
func TestWhoConnected(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accept := func() *net.UnixConn {
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	own, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	netns, err := namespaceOf(accept())
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	same, err := namespaceByNumber(os.Getpid(), pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	a, err1 := netns.Stat()
	b, err2 := same.Stat()
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(a, b) {
		t.Errorf("two ways, two namespaces: %v", err)
	}

	gone := newChild(t, "connect "+path, true)
	if got := gone.answer(t); got != "connected" {
		t.Fatal(got)
	}
	if err := gone.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if f, err := namespaceOf(accept()); err == nil {
		f.Close()
		t.Error("a process that has ended is somebody")
	}
	dead, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(dead)
	if f, err := namespaceByNumber(os.Getpid(), dead); err == nil {
		f.Close()
		t.Error("a process that is not known to live is somebody")
	}
}
