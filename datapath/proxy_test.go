package datapath

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const proxyProcess = "MOIRE_TEST_PROXY"

// TestMain is also the proxy of the tests, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(proxyProcess) != "" {
		if err := runProxy(); err != nil {
			fmt.Fprintln(os.Stderr, "proxy:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// handed says what comes with a message to the proxy: the namespace, then so many
// listeners of each kind.
type handed struct{ Outbound, Inbound int }

// runProxy takes over listeners from descriptor 3, and passes on what they accept,
// byte by byte, until there is nobody at the other end.
func runProxy() error {
	message, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, got, _, _, err := unix.Recvmsg(3, message, rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return err
		}
		var h handed
		if err := json.Unmarshal(message[:n], &h); err != nil {
			return err
		}
		all, err := unix.ParseSocketControlMessage(rights[:got])
		if err != nil {
			return err
		}
		fds, err := unix.ParseUnixRights(&all[0])
		if err != nil {
			return err
		}
		for i, fd := range fds[1:] {
			f := os.NewFile(uintptr(fd), "listener")
			l, err := net.FileListener(f)
			if err != nil {
				return err
			}
			f.Close()
			go accept(l, fds[0], i >= h.Outbound)
		}
		fmt.Println("ready")
	}
}

func accept(l net.Listener, netns int, inbound bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Println(map[bool]string{true: "in", false: "out"}[inbound], c.LocalAddr(), c.RemoteAddr())
			up, err := dialAs(netns, c, inbound)
			if err != nil {
				c.(*net.TCPConn).SetLinger(0)
				return
			}
			defer up.Close()
			done := make(chan bool)
			go func() {
				io.Copy(up, c)
				up.(*net.TCPConn).CloseWrite()
				close(done)
			}()
			io.Copy(c, up)
			c.(*net.TCPConn).CloseWrite()
			<-done
		}()
	}
}

// dialAs connects to what c was meant for: as the Workload, or, inbound, to the
// Workload as whoever it comes from.
func dialAs(netns int, c net.Conn, inbound bool) (up net.Conn, err error) {
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with it
		if err = unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			return
		}
		d := net.Dialer{Timeout: 5 * time.Second}
		for range 20 {
			if inbound {
				d.LocalAddr = &net.TCPAddr{IP: c.RemoteAddr().(*net.TCPAddr).IP, Port: 1024 + rand.IntN(30000)}
				d.Control = toApp
			}
			if up, err = d.DialContext(context.Background(), "tcp", c.LocalAddr().String()); !inbound || err == nil {
				return
			}
		}
	}()
	<-done
	return up, err
}

func toApp(network, _ string, raw syscall.RawConn) (err error) {
	raw.Control(func(fd uintptr) {
		level, option := unix.SOL_IP, unix.IP_TRANSPARENT
		if strings.HasSuffix(network, "6") {
			level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		err = inOrder(
			func() error { return unix.SetsockoptInt(int(fd), level, option, 1) },
			func() error { return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, AppMark) },
			func() error { return unix.BindToDevice(int(fd), "lo") },
		)
	})
	return err
}

// testProxy is the proxy of one node.
type testProxy struct {
	t     testing.TB
	cmd   *exec.Cmd
	to    int
	group string

	mu   sync.Mutex
	seen []string
}

// startProxy starts a process in a cgroup of its own.
func startProxy(t testing.TB, name string) *testProxy {
	t.Helper()
	root, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	p := &testProxy{t: t, group: filepath.Join(root, "moire-dp-"+name)}
	if err := os.MkdirAll(p.group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		for range 100 {
			if os.Remove(p.group) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("cannot remove %s", p.group)
	})
	p.start()
	return p
}

func (p *testProxy) start() {
	p.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	group, err := os.Open(p.group)
	if err != nil {
		p.t.Fatal(err)
	}
	defer group.Close()
	theirs := os.NewFile(uintptr(fds[1]), "door")
	defer theirs.Close()
	p.to = fds[0]
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), proxyProcess+"=1")
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()), Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			p.seen = append(p.seen, lines.Text())
			p.mu.Unlock()
		}
	}()
}

// stop freezes the process.
func (p *testProxy) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(unix.SIGSTOP)
	for range 200 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err == nil && strings.Contains(string(b), ") T ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatal("the proxy does not stop")
}

func (p *testProxy) kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	unix.Close(p.to)
	p.cmd = nil
}

// hand gives the proxy all that it needs of a node.
func (p *testProxy) hand(n *testNode) {
	p.t.Helper()
	for _, i := range n.Interceptions() {
		p.forget()
		message, err := json.Marshal(handed{len(i.Outbound), len(i.Inbound)})
		if err != nil {
			p.t.Fatal(err)
		}
		fds := slices.Concat([]int{i.Netns}, i.Outbound, i.Inbound)
		if err := unix.Sendmsg(p.to, message, unix.UnixRights(fds...), nil, 0); err != nil {
			p.t.Fatal(err)
		}
		p.saw("ready")
	}
}

func (p *testProxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
}

// saw waits until the proxy has said something that begins so.
func (p *testProxy) saw(what string) string {
	p.t.Helper()
	for range 200 {
		if line := p.has(what); line != "" {
			return line
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatalf("the proxy does not say %q but %q", what, p.seen)
	return ""
}

func (p *testProxy) has(what string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		if strings.HasPrefix(s, what) {
			return s
		}
	}
	return ""
}

// banner is a server that speaks first: it says who it is and whom it sees, then
// sends back what comes, and ends when the other side has.
func banner(t testing.TB, ns, who string, port int) {
	t.Helper()
	var l net.Listener
	inNetns(t, ns, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprint(":", port))
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				seen, _ := netip.ParseAddrPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%s sees %s\n", who, seen.Addr())
				io.Copy(c, c)
			}()
		}
	}()
}
