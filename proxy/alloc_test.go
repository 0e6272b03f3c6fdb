package proxy

import (
	"bytes"
	stdtls "crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

// calm2 answers on HTTP/2 connections and does not allocate.
func calm2(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serveCalm2(c)
			}()
		}
	}()
	return l.Addr().String()
}

func serveCalm2(c net.Conn) {
	var h http2.Conn
	h.Init(&http2.Config{}, nil, 1)
	answer := &message.Head{Status: 200, Framing: message.Sized, Length: 5, Minor: 1}
	answer.Add([]byte("content-type"), []byte("text/plain"))
	hello, b := []byte("hello"), make([]byte, 64<<10)
	for {
		for out := h.Out(); len(out) > 0; out = h.Out() {
			n, err := c.Write(out)
			if err != nil {
				return
			}
			h.Sent(n)
		}
		n, err := c.Read(b)
		if err != nil {
			return
		}
		for in := b[:n]; ; {
			ev, used, err := h.Next(in, time.Now().UnixNano())
			if in = in[used:]; err != nil {
				return
			}
			if ev.Kind == http2.Head {
				h.WriteHead(ev.Stream, answer, false)
				h.WriteData(ev.Stream, hello, true, 1)
				h.Release(ev.Stream)
			}
			if ev.Kind == http2.NeedMore {
				break
			}
		}
	}
}

// calmCaller2 asks again and again on an HTTP/2 connection.
type calmCaller2 struct {
	c   net.Conn
	h   http2.Conn
	req message.Head
	b   []byte
}

func (k *calmCaller2) ask(t *testing.T) {
	s, err := k.h.Open()
	if err == nil {
		err = k.h.WriteHead(s, &k.req, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	for got := 0; ; {
		for out := k.h.Out(); len(out) > 0; out = k.h.Out() {
			n, err := k.c.Write(out)
			if err != nil {
				t.Fatal(err)
			}
			k.h.Sent(n)
		}
		n, err := k.c.Read(k.b)
		if err != nil {
			t.Fatal(err)
		}
		for in := k.b[:n]; ; {
			ev, used, err := k.h.Next(in, time.Now().UnixNano())
			if err != nil {
				t.Fatal(err)
			}
			in = in[used:]
			if ev.Kind == http2.Data && ev.Stream == s {
				got += len(ev.Data)
				k.h.Consumed(s, len(ev.Data))
			}
			if ev.Stream == s && (ev.End || ev.Kind == http2.Reset) {
				if got != 5 {
					t.Errorf("%d bytes, event %+v", got, ev)
				}
				k.h.Release(s)
				return
			}
			if ev.Kind == http2.NeedMore {
				break
			}
		}
	}
}

// TestRequestsDoNotAllocate counts what a request and its answer allocate in the
// whole process, over each pair of protocols, with tracing and without.
func TestRequestsDoNotAllocate(t *testing.T) {
	for _, up2 := range []bool{false, true} {
		for _, down2 := range []bool{false, true} {
			for _, traced := range []bool{false, true} {
				t.Run(fmt.Sprintf("down2=%v,up2=%v,traced=%v", down2, up2, traced), func(t *testing.T) {
					if n := allocations(t, down2, up2, traced); n > 0 {
						t.Errorf("%v allocations for a request", n)
					}
				})
			}
		}
	}
}

func allocations(t *testing.T, down2, up2, traced bool) float64 {
	address := free(t)
	cfg := one(address, calm1(t))
	if up2 {
		cfg = one(address, calm2(t))
		cfg.Clusters[0].Protocol = l7.HTTP2
	}
	if traced {
		// Every trace is sampled and passed on; what exports spans is off this path.
		cfg.Telemetry.Tracing = &l7.Tracing{Sample: 1, Propagate: "both"}
	}
	start(t, cfg)
	c := dial(t, address)
	var ask func()
	if down2 {
		k := &calmCaller2{c: c, b: make([]byte, 64<<10), req: *request2("GET", "/some/path?q=1")}
		k.req.Add([]byte("user-agent"), []byte("test"))
		k.req.Add([]byte("x-own"), []byte("value"))
		k.h.Init(&http2.Config{Client: true}, nil, 1)
		ask = func() { k.ask(t) }
	} else {
		request, b := []byte("GET /some/path?q=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nX-Own: value\r\n\r\n"), make([]byte, 4096)
		ask = func() {
			c.Write(request)
			if n, err := c.Read(b); err != nil || !bytes.HasSuffix(b[:n], []byte("hello")) {
				t.Errorf("%q %v", b[:n], err)
			}
		}
	}
	for range 100 {
		ask()
	}
	return testing.AllocsPerRun(500, ask)
}

// calm1 answers heads on plain connections and does not allocate.
func calm1(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serveCalm1(l)
	return l.Addr().String()
}

// serveCalm1 answers heads and does not allocate.
func serveCalm1(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b, answer := make([]byte, 4096), []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
			for {
				if n, err := c.Read(b); err != nil || !bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
					return
				}
				c.Write(answer)
			}
		}()
	}
}

// TestIdleConnections: what a kept connection costs while nothing happens on it
// (TARGETS P6). The callers are bare descriptors, which cost no memory of Go.
func TestIdleConnections(t *testing.T) {
	n := 2000
	if long() {
		n = 8000
	}
	t.Run("HTTP/1", func(t *testing.T) {
		each := idle(t, one(free(t), calm1(t)), n, 0, ask1(t))
		if each > 4096 {
			t.Errorf("%.0f bytes for an idle connection, more than 4096", each)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		each := idle(t, one(free(t), calm1(t)), 500, 0, func(fd int) {
			k := &calmCaller2{c: owned(t, fd), b: make([]byte, 64<<10), req: *request2("GET", "/")}
			k.req.Add([]byte("user-agent"), []byte("Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"))
			k.req.Add([]byte("accept"), []byte("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"))
			k.req.Add([]byte("accept-language"), []byte("en-GB,en;q=0.8,de;q=0.5,fr;q=0.3"))
			k.req.Add([]byte("accept-encoding"), []byte("gzip, deflate, br, zstd"))
			k.req.Add([]byte("referer"), []byte("https://shop.example/a/page/before/this/one"))
			k.h.Init(&http2.Config{Client: true}, nil, 1)
			for range 3 { // what is seen again goes into tables
				k.ask(t)
			}
			k.c.Close()
		})
		if each > 4096 {
			t.Errorf("%.0f bytes for an idle connection, more than 4096", each)
		}
	})
	if !long() {
		return
	}
	t.Run("TLS", func(t *testing.T) {
		a := newCA(t)
		cfg := one(free(t), calm1(t))
		secure(cfg, a, "shop.example")
		each := idle(t, cfg, 500, 3*time.Second, func(fd int) {
			c := owned(t, fd)
			defer c.Close() // without a word: the other descriptor stays
			s := stdtls.Client(c, &stdtls.Config{RootCAs: a.pool, ServerName: "shop.example"})
			if _, err := s.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Read(make([]byte, 512)); err != nil || n == 0 {
				t.Fatal(err)
			}
		})
		if each > 5<<10 { // 3 KiB of it are the keys and states of crypto/tls
			t.Errorf("%.0f bytes for an idle connection, more than 5120", each)
		}
	})
}

// ask1 asks on a descriptor.
func ask1(t *testing.T) func(fd int) {
	return func(fd int) {
		b := make([]byte, 512)
		if n, err := unix.Write(fd, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil || n == 0 {
			t.Fatal(n, err)
		}
		if n, err := unix.Read(fd, b); err != nil || !bytes.HasSuffix(b[:n], []byte("hello")) {
			t.Fatalf("%q %v", b[:n], err)
		}
	}
}

// remembered is how many requests telemetry remembers: with fewer, each one more
// would seem to be memory of its connection.
const remembered = 1000

// idle makes n connections of which each was asked once, waits, and says how many
// bytes each costs.
func idle(t *testing.T, cfg *l7.Config, n int, wait time.Duration, ask func(fd int)) float64 {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < uint64(2*(n+remembered)+500) {
		lim.Cur = min(lim.Max, uint64(2*(n+remembered)+500))
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < uint64(2*(n+remembered)+500) {
			t.Fatalf("%d descriptors are allowed: %v", lim.Cur, err)
		}
	}
	address := cfg.Listeners[0].Address
	p := start(t, cfg)
	fds := make([]int, 0, remembered+n)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	more := func(n int) {
		for range n {
			fds = append(fds, connected(t, address))
			ask(fds[len(fds)-1])
		}
	}
	more(remembered)
	before := inUse()
	more(n)
	eventually(t, "all are counted", func() bool { return p.State().Listeners[0].Connections == n+remembered })
	time.Sleep(wait) // TLS gives its memory back after a while
	each := float64(inUse()-before) / float64(n)
	t.Logf("%.0f bytes for each of %d idle connections", each, n)
	return each
}

// owned is a net.Conn on a copy of a descriptor.
func owned(t testing.TB, fd int) net.Conn {
	t.Helper()
	other, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(other), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connected is a descriptor that is connected to address; the caller closes it.
func connected(t testing.TB, address string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, fd, address)
	return fd
}

func connect(t testing.TB, fd int, address string) {
	t.Helper()
	addr := netip.MustParseAddrPort(address)
	sa := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	if err := unix.Connect(fd, sa); err != nil {
		t.Fatal(err)
	}
}

// inUse is the memory of heap and stacks.
func inUse() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
