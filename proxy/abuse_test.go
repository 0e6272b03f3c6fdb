package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/snapshot/l7"
)

// TestACallerThatAsksAndDoesNotRead gets every answer whole, in order, when it
// reads at last; the proxy does not hold them all meanwhile.
func TestACallerThatAsksAndDoesNotRead(t *testing.T) {
	address := free(t)
	cfg := one(address, calm1(t))
	cfg.Routes[0].Hostnames = []string{"there.example"}
	start(t, cfg)
	c := dial(t, address)
	const n = 40_000
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriter(c)
		for i := range n {
			if i%1000 == 999 {
				io.WriteString(w, "GET / HTTP/1.1\r\nHost: there.example\r\n\r\n")
				continue
			}
			fmt.Fprintf(w, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		}
		sent <- w.Flush()
	}()
	time.Sleep(200 * time.Millisecond) // all buffers are full
	r := bufio.NewReader(c)
	for i := range n {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		b, err := io.ReadAll(resp.Body)
		want, body := 404, "no route\n"
		if i%1000 == 999 {
			want, body = 200, "hello"
		}
		if err != nil || resp.StatusCode != want || string(b) != body {
			t.Fatalf("answer %d: %d %q %v", i, resp.StatusCode, b, err)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestALocalAnswerInASmallWindow comes in pieces, and whole.
func TestALocalAnswerInASmallWindow(t *testing.T) {
	address := free(t)
	cfg := one(address, calm1(t))
	cfg.Routes[0].Hostnames = []string{"there.example"}
	start(t, cfg)
	w := newWire2(t, dial(t, address), http2.Config{Client: true, InitialWindow: 3})
	s := w.ask(request2("GET", "/"), true)
	if got := w.read(s, 100); got != "no route\n" {
		t.Errorf("%q", got)
	}
}

// TestAnEndpointThatSaysTooMuchFirst: interim answers without end.
func TestAnEndpointThatSaysTooMuchFirst(t *testing.T) {
	address := free(t)
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead1(r)
		for range 100 {
			if _, err := fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\nlink: %s\r\n\r\n", strings.Repeat("x", 30_000)); err != nil {
				return
			}
		}
	})
	start(t, one(address, up))
	got := raw1(t, address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, "HTTP/1.1 502 ") || strings.Count(got, "HTTP/1.1 103 ") > 40 {
		t.Errorf("%d interim answers, the end is %q", strings.Count(got, "HTTP/1.1 103 "), got[max(0, len(got)-200):])
	}
}

// TestNoDescriptorsLeft: what cannot be accepted waits and costs no time of the
// processor, and is served when there are descriptors again.
func TestNoDescriptorsLeft(t *testing.T) {
	address := free(t)
	start(t, one(address, calm1(t)))
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := get(t, client(t, false), "http://"+address+"/"); status != 200 {
		t.Fatal(status)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: lim.Max}); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() {
		if !restored {
			restored = true
			syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
		}
	}
	defer restore()
	connect(t, fd, address)
	began := processTime()
	time.Sleep(200 * time.Millisecond)
	if used := processTime() - began; used > 100*time.Millisecond {
		t.Errorf("%v of processor time in 200 ms", used)
	}
	restore()
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	unix.Write(fd, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	b := make([]byte, 512)
	if n, err := unix.Read(fd, b); err != nil || !bytes.HasSuffix(b[:n], []byte("hello")) {
		t.Errorf("%q %v", b[:max(n, 0)], err)
	}
}

// processTime is the processor time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestNoConfigurationWhileDraining: a drain is the end.
func TestNoConfigurationWhileDraining(t *testing.T) {
	address := free(t)
	cfg := one(address, calm1(t))
	p := start(t, cfg)
	ctx, cancel := contextOf(time.Second)
	defer cancel()
	p.Drain(ctx)
	cfg.Listeners = append(cfg.Listeners, l7.Listener{Name: "new", Address: free(t)})
	if err := p.Apply(cfg); err == nil {
		t.Error("a configuration was applied")
	}
}
