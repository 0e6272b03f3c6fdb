package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot/l7"
)

// pressure asks on kept connections and on new ones until it is stopped, and says how
// often, and what failed.
func pressure(t *testing.T, web *box, tolerate func(error) bool) (stop func() int) {
	t.Helper()
	var asked, failed atomic.Int64
	var all sync.WaitGroup
	done := make(chan struct{})
	url := "http://" + netip.AddrPortFrom(vip[0], 80).String() + "/"
	worker := func(fresh bool) {
		c := web.client(true, false)
		c.Transport.(*http.Transport).DisableKeepAlives = fresh
		for {
			select {
			case <-done:
				return
			default:
			}
			resp, err := c.Get(url)
			if err == nil {
				var b []byte
				b, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && (resp.StatusCode != 200 || !strings.HasPrefix(string(b), "red GET / ")) {
					err = fmt.Errorf("%d %q", resp.StatusCode, b)
				}
			}
			asked.Add(1)
			if err != nil && !tolerate(err) && failed.Add(1) < 5 {
				t.Error(err)
			}
		}
	}
	for i := range 8 {
		all.Go(func() { worker(i%2 == 0) })
	}
	var once sync.Once
	stop = func() int {
		once.Do(func() { close(done) })
		all.Wait()
		if n := failed.Load(); n > 0 {
			t.Errorf("%d of %d failed", n, asked.Load())
		}
		return int(asked.Load())
	}
	t.Cleanup(func() { stop() })
	return stop
}

func none(error) bool { return false }

// TestMeshRotation (TARGETS R9): leaves are replaced many times a second, and the
// root by overlap, and nothing fails.
func TestMeshRotation(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	inBoth(t, func(t *testing.T, one bool) {
		s.edit = nil
		all := s.proxies(t, one)
		names := [][]string{{"web"}, {"api"}}
		if one {
			names = [][]string{{"web", "api"}}
		}
		stop := pressure(t, k.boxes["web"], none)
		old, next := k.ca, newCA(t)
		defer func() { k.ca = old }()
		for i := range 24 {
			switch i { // roots overlap: trusted first, then used, then the only ones
			case 8:
				s.edit = func(c *l7.Config) { c.Mesh.Trusts[0].Roots = old.pem + next.pem }
			case 12:
				k.ca = next
			case 16:
				s.edit = nil
			}
			for j, p := range all {
				if err := p.Serve(door.State{Config: s.config(names[j]...), Sockets: p.namespaces}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(25 * time.Millisecond)
		}
		if n := stop(); n < 100 {
			t.Errorf("asked %d times only", n)
		}
	})
}

// child is a proxy as a process of its own, when the test binary is run as one.
func child(path string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	p, err := New(Options{Workers: 2, Ring: os.Getenv("PROXY_RING"), Log: log})
	if err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &drainer{p, make(chan struct{})}
	go p.Run(ctx)
	go door.NewProxy(door.ProxyOptions{Path: path, Served: g, Workers: 2, Log: log}).Run(ctx)
	<-g.drain
	drain, cancel := context.WithTimeout(ctx, 10*time.Second)
	p.Drain(drain)
	cancel()
	stop()
}

type drainer struct {
	*Proxy
	drain chan struct{}
}

func (d *drainer) Drain() { close(d.drain) }

func spawn(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "PROXY_CHILD="+path, "PROXY_RING="+ring)
	c.Stderr = testLog{t}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	t.Cleanup(func() { c.Process.Kill(); <-ended })
	return c
}

// TestMeshReplaced (TARGETS R4, R5): a proxy that is replaced loses nothing; one
// that is killed loses what it had under way, but nobody is refused: those who
// come meanwhile are served by the next one.
func TestMeshReplaced(t *testing.T) {
	s := newShop(t)
	k := s.tenants[0]
	path := t.TempDir() + "/door"
	a := door.NewAgent(door.AgentOptions{Path: path})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	state := door.State{Config: s.config("web", "api"), Sockets: map[string]*door.Sockets{}}
	for _, k := range s.tenants {
		for _, n := range []string{"web", "api"} {
			state.Sockets[k.boxes[n].ns] = k.boxes[n].sockets
		}
	}
	serves := func(c *exec.Cmd) {
		t.Helper()
		eventually(t, "it serves", func() bool { st := a.Status(); return st.Up && st.PID == c.Process.Pid })
	}
	number := a.Set(state)
	first := spawn(t, path)
	wait, stopWaiting := context.WithTimeout(ctx, 10*time.Second)
	defer stopWaiting()
	if err := a.Wait(wait, number); err != nil {
		t.Fatal(err)
	}
	serves(first)
	stop := pressure(t, k.boxes["web"], none)
	time.Sleep(100 * time.Millisecond)
	second := spawn(t, path)
	serves(second)
	time.Sleep(300 * time.Millisecond)
	stop()
	t.Run("killed", func(t *testing.T) {
		stop := pressure(t, k.boxes["web"], func(err error) bool {
			var op *net.OpError
			dialing := errors.As(err, &op) && op.Op == "dial"
			return !dialing && !errors.Is(err, syscall.ECONNREFUSED)
		})
		time.Sleep(100 * time.Millisecond)
		second.Process.Kill()
		time.Sleep(200 * time.Millisecond)
		third := spawn(t, path)
		serves(third)
		time.Sleep(200 * time.Millisecond)
		stop()
	})
}
