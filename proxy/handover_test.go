package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// generation is one process of a row of upgrades, played by a Proxy.
type generation struct {
	p      *Proxy
	cancel context.CancelFunc
	ended  chan error
	handed chan error
}

// takeOver begins a Proxy with the sockets of the one before.
func takeOver(t *testing.T, cfg *l7.Config, path string) *generation {
	t.Helper()
	sockets, serves, err := TakeOver(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Workers: 1, Ring: ring, Sockets: sockets, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &generation{p: p, cancel: cancel, ended: make(chan error, 1), handed: make(chan error, 1)}
	go func() { g.ended <- p.Run(ctx) }()
	offer, err := p.Offer(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { g.handed <- offer.Run(ctx) }()
	if err := serves(); err != nil {
		t.Fatal(err)
	}
	return g
}

// retire drains and ends a generation whose sockets were handed over.
func (g *generation) retire(t *testing.T) {
	t.Helper()
	if err := <-g.handed; err != nil {
		t.Errorf("hand-over: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g.p.Drain(ctx)
	g.cancel()
	if err := <-g.ended; err != nil {
		t.Error(err)
	}
}

// TestUpgradesLoseNothing replaces the proxy again and again under load: HTTP/1
// and HTTP/2 connections that are kept, and a new connection for each request.
// No caller tries again (TARGETS R4).
func TestUpgradesLoseNothing(t *testing.T) {
	upgrades := 5
	if os.Getenv("MOIRE_LONG") != "" {
		upgrades = 20
	}
	path := filepath.Join(t.TempDir(), "handover")
	address := free(t)
	cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	cfg.Clusters[0].Circuit = l7.Circuit{Requests: -1, Connections: -1, Pending: -1}
	g := takeOver(t, cfg, path)
	var stop atomic.Bool
	var served, failed atomic.Int64
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				var err error
				switch {
				case i < 8:
					err = keep(address, &stop, &served)
				default:
					err = once(address, fmt.Sprint(i, n))
					served.Add(1)
				}
				if err != nil && !stop.Load() {
					failed.Add(1)
					t.Errorf("caller %d: %v", i, err)
					return
				}
			}
		})
	}
	for range upgrades {
		time.Sleep(150 * time.Millisecond)
		before := served.Load()
		next := takeOver(t, cfg, path)
		g.retire(t)
		g = next
		if served.Load() == before {
			t.Error("nothing was served during an upgrade")
		}
	}
	stop.Store(true)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d failed", failed.Load(), served.Load())
	}
	t.Logf("%d served over %d upgrades", served.Load(), upgrades)
	g.cancel()
	<-g.ended
	<-g.handed
}

// once sends one request on a connection of its own.
func once(address, body string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return ask(c, bufio.NewReader(c), body, nil)
}

// keep sends requests on one connection until an answer says that it is the last.
func keep(address string, stop *atomic.Bool, served *atomic.Int64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for n := 0; !stop.Load(); n++ {
		var last bool
		if err := ask(c, r, fmt.Sprint("body ", n), &last); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		served.Add(1)
		if last {
			return nil
		}
		if n%50 == 49 {
			time.Sleep(5 * time.Millisecond) // idle for a moment
		}
	}
	return nil
}

func ask(c net.Conn, r *bufio.Reader, body string, last *bool) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 || string(got) != body {
		return fmt.Errorf("%d %q, want %q", resp.StatusCode, got, body)
	}
	if last != nil {
		*last = resp.Close
	}
	return nil
}

// TestASuccessorThatDiesChangesNothing takes the sockets and goes away.
func TestASuccessorThatDiesChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handover")
	address := free(t)
	cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	g := takeOver(t, cfg, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	c.Close()
	if err != nil || !strings.Contains(line, address) {
		t.Errorf("%q, %v", line, err)
	}
	time.Sleep(50 * time.Millisecond)
	if got := raw1(t, address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasSuffix(got, "here") {
		t.Errorf("%q", got)
	}
	next := takeOver(t, cfg, path)
	g.retire(t)
	next.cancel()
	<-next.ended
	<-next.handed
}
