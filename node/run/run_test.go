package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"moire.dev/moire/node/local"
)

// TestMain lets the test binary be `moire run` itself, to be killed.
func TestMain(m *testing.M) {
	if socket := os.Getenv("MOIRE_TEST_RUN_SOCKET"); socket != "" {
		code, err := Run(context.Background(), Config{
			Socket: socket, RunDir: filepath.Dir(socket), Project: "shop", Workload: "victim", Networks: []string{"front"},
			Command: os.Args[1:],
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	if netns := os.Getenv("MOIRE_TEST_ENTER"); netns != "" {
		code, err := Enter(netns, "nameserver 192.0.2.53\n", "unix:///run/moire/workload/n1.sock", os.Args[1:])
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Fatal("network namespaces need root")
	}
	t.Skip("network namespaces need root")
}

// agent answers like one, and remembers what it was asked.
type agent struct {
	socket string
	mu     sync.Mutex
	asked  []string
	attach local.Attach
	inode  uint64 // of the namespace that was to be attached
	refuse string
	names  []netip.Addr
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "moire-node-run")
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{socket: filepath.Join(dir, "n1.sock")}
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: a}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); wg.Wait(); os.RemoveAll(dir) })
	return a
}

func (a *agent) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, q.URL.Path)
	if q.URL.Path != local.AttachPath {
		fmt.Fprintln(w, "{}")
		return
	}
	json.NewDecoder(q.Body).Decode(&a.attach)
	if a.refuse != "" {
		w.WriteHeader(http.StatusConflict)
		json.NewEncoder(w).Encode(local.Problem{Error: a.refuse})
		return
	}
	var st unix.Stat_t
	if err := unix.Stat(a.attach.Netns, &st); err == nil {
		a.inode = st.Ino
	}
	json.NewEncoder(w).Encode(local.Attached{WorkloadAPI: "unix:///run/moire/workload/n1.sock", Interfaces: []local.Interface{{Network: "front", Nameservers: a.names, Search: []string{"shop.moire.internal"}}}})
}

func (a *agent) calls() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.asked, " ")
}

// config of a shell command; its output goes to the file that is returned.
func (a *agent) config(t *testing.T, command ...string) (Config, func() string) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	c := Config{
		Socket: a.socket, RunDir: filepath.Dir(a.socket), Project: "shop", Workload: "web", Networks: []string{"front"},
		Command: command, Stdin: null, Stdout: out, Stderr: out,
		Warn: func(err error) { t.Error(err) },
	}
	return c, func() string {
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestRunInside(t *testing.T) {
	needRoot(t)
	a := newAgent(t)
	c, out := a.config(t, "sh", "-c", "stat -Lc %i /proc/self/ns/net; stat -c %i "+filepath.Join(filepath.Dir(a.socket), "netns/shop.web")+"; cat /sys/class/net/lo/flags; echo $SPIFFE_ENDPOINT_SOCKET; exit 7")
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///of/the/machine")
	code, err := Run(t.Context(), c)
	if err != nil || code != 7 {
		t.Fatalf("code %d, %v: %s", code, err, out())
	}
	lines := strings.Fields(out())
	if api := lines[len(lines)-1]; api != "unix:///run/moire/workload/n1.sock" {
		t.Errorf("the Workload API is at %s", api)
	}
	if want := strconv.FormatUint(a.inode, 10); len(lines) < 2 || lines[0] != want || lines[1] != want {
		t.Errorf("the command and the file are in %v, the agent was given %s", lines, want)
	}
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil || lines[0] == strconv.FormatUint(own.Ino, 10) {
		t.Error("the command is in our own namespace")
	}
	if a.calls() != "/v1/attach /v1/detach" || a.attach.PID != os.Getpid() || a.attach.Persist {
		t.Errorf("calls %s, %+v", a.calls(), a.attach)
	}
	if left, _ := os.ReadDir(filepath.Join(c.RunDir, "netns")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRunResolves: the command sees the name service of its Network, the rest
// of the machine and what it mounts later do not change.
func TestRunResolves(t *testing.T) {
	needRoot(t)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	a := newAgent(t)
	a.names = []netip.Addr{netip.MustParseAddr("169.254.169.253")}
	c, out := a.config(t, "sh", "-c", "cat /etc/resolv.conf; ls "+os.TempDir()+" | grep -c moire-resolv; stat -c %i "+filepath.Join(filepath.Dir(a.socket), "netns/shop.web"))
	if code, err := Run(t.Context(), c); err != nil || code != 0 {
		t.Fatalf("code %d, %v: %s", code, err, out())
	}
	if want := "nameserver 169.254.169.253\nsearch shop.moire.internal\n0\n"; out() != want+strconv.FormatUint(a.inode, 10)+"\n" {
		t.Errorf("got %q", out())
	}
	if after, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(after) != string(before) {
		t.Errorf("the machine's own became %q, %v", after, err)
	}
}

func TestCodes(t *testing.T) {
	needRoot(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command []string
		code    int
		errText string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"false"}, 1, ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{[]string{"no-such-command-here"}, 127, "not found"},
		{[]string{plain}, 126, "cannot be executed"},
		{[]string{broken}, 126, "exec format error"},
		{nil, 2, "no command"},
	} {
		t.Run(strings.Join(test.command, " "), func(t *testing.T) {
			a := newAgent(t)
			c, _ := a.config(t, test.command...)
			code, err := Run(t.Context(), c)
			if code != test.code || (err == nil) != (test.errText == "") || err != nil && !strings.Contains(err.Error(), test.errText) {
				t.Errorf("code %d, error %v; want %d, %q", code, err, test.code, test.errText)
			}
			if calls := a.calls(); calls != "" && calls != "/v1/attach /v1/detach" {
				t.Errorf("calls %s", calls)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	needRoot(t)
	a := newAgent(t)
	a.refuse = "there is no Network shop/front"
	c, out := a.config(t, "echo", "ran")
	code, err := Run(t.Context(), c)
	if code == 0 || err == nil || !strings.Contains(err.Error(), a.refuse) {
		t.Errorf("code %d, %v", code, err)
	}
	if out() != "" {
		t.Error("the command ran without a network")
	}
}

func TestSignalsGoOn(t *testing.T) {
	needRoot(t)
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			a := newAgent(t)
			name := strings.TrimPrefix(unix.SignalName(s), "SIG")
			c, out := a.config(t, "bash", "-c", "trap 'echo got; exit 3' "+name+"; echo ready; while :; do sleep 0.05; done")
			go func() {
				for range 200 {
					if strings.Contains(out(), "ready") {
						unix.Kill(os.Getpid(), s)
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
			code, err := Run(t.Context(), c)
			if err != nil || code != 3 || strings.Count(out(), "got") != 1 {
				t.Errorf("code %d, %v, %q", code, err, out())
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	needRoot(t)
	a := newAgent(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, _ := a.config(t, "sleep", "60")
	if code, err := Run(ctx, c); code != 128+15 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	if a.calls() != "/v1/attach /v1/detach" {
		t.Errorf("calls %s", a.calls())
	}
}

// TestKilled kills `moire run` itself: the command must not live on.
func TestKilled(t *testing.T) {
	needRoot(t)
	a := newAgent(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "sh", "-c", "echo $$; exec sleep 300")
	cmd.Env = append(os.Environ(), "MOIRE_TEST_RUN_SOCKET="+a.socket)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 32)
	n, err := stdout.Read(buf)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(filepath.Join(filepath.Dir(a.socket), "netns", "shop.victim")) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for range 100 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	unix.Kill(pid, unix.SIGKILL)
	t.Error("the command lives on")
}

// unmount is what the agent does for a command that was killed.
func unmount(path string) {
	unix.Unmount(path, unix.MNT_DETACH)
	os.Remove(path)
}

func TestNameFor(t *testing.T) {
	for command, want := range map[string]string{
		"/usr/bin/python3.12":   `^python3-12-[a-z0-9]{5}$`,
		"Web_Server":            `^web-server-[a-z0-9]{5}$`,
		"---":                   `^workload-[a-z0-9]{5}$`,
		strings.Repeat("x", 90): `^x{50}-[a-z0-9]{5}$`,
	} {
		if got := NameFor(command); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %s", command, got)
		}
	}
	if first, second := NameFor("a"), NameFor("a"); first == second {
		t.Error("twice the same name")
	}
}
