package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// traffic is continuous work between two namespaces that must not fail: one
// long TCP stream whose every byte is checked and a new TCP connection every
// few milliseconds.
type traffic struct {
	target string
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu       sync.Mutex
	trips    int // on the long stream
	conns    int // new connections
	failures []string
}

// startTraffic runs until end is called.
func startTraffic(t *testing.T, from, to string, dest netip.AddrPort) *traffic {
	t.Helper()
	w := &traffic{target: dest.String()}
	var l net.Listener
	if err := InNetns(to, func() (err error) { l, err = net.Listen("tcp", w.target); return err }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = func() { cancel(); l.Close() }
	w.all.Go(func() { w.serve(l) })
	for _, work := range []func(context.Context) error{w.stream, w.connect} {
		w.all.Go(func() {
			if err := InNetns(from, func() error { return work(ctx) }); err != nil && ctx.Err() == nil {
				w.fail(err)
			}
		})
	}
	return w
}

func (w *traffic) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		w.all.Go(func() {
			defer c.Close()
			io.Copy(c, c)
		})
	}
}

func (w *traffic) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf("%s %v", time.Now().Format("15:04:05.000"), err))
}

// stream sends numbered bytes on one connection and wants them back.
func (w *traffic) stream(ctx context.Context) error {
	c, err := net.DialTimeout("tcp", w.target, 5*time.Second)
	if err != nil {
		return fmt.Errorf("open the long stream: %w", err)
	}
	defer c.Close()
	b := make([]byte, 1)
	for i := 0; ctx.Err() == nil; i++ {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			return fmt.Errorf("long stream, byte %d: %w", i, err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return fmt.Errorf("long stream, byte %d: %w", i, err)
		}
		if b[0] != byte(i) {
			return fmt.Errorf("long stream, byte %d: got %d", i, b[0])
		}
		w.mu.Lock()
		w.trips++
		w.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

// connect opens connections one after the other; each must answer.
func (w *traffic) connect(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.once(); err != nil && ctx.Err() == nil {
			w.fail(fmt.Errorf("new connection: %w", err))
		}
		w.mu.Lock()
		w.conns++
		w.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func (w *traffic) once() error {
	c, err := net.DialTimeout("tcp", w.target, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// end stops the work and fails the test if any of it failed or none was done.
func (w *traffic) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.all.Wait()
	t.Logf("%d round trips on the long stream, %d new connections, %d failed", w.trips, w.conns, len(w.failures))
	for _, f := range w.failures[:min(5, len(w.failures))] {
		t.Error(f)
	}
	if w.trips < 10 || w.conns < 10 {
		t.Errorf("too little traffic to prove anything")
	}
}

// denied probes again and again what must not come through.
type denied struct {
	stop context.CancelFunc
	done chan struct{}
	n    int
	err  error
}

func startDenied(p Probe) *denied {
	ctx, cancel := context.WithCancel(context.Background())
	d := &denied{stop: cancel, done: make(chan struct{})}
	p.Wait = 150 * time.Millisecond
	go func() {
		defer close(d.done)
		for ctx.Err() == nil {
			came, err := p.Run()
			if came {
				err = errors.New("a denied probe came through")
			}
			if err != nil {
				d.err = err
				return
			}
			d.n++
		}
	}()
	return d
}

func (d *denied) end(t *testing.T) {
	t.Helper()
	d.stop()
	<-d.done
	t.Logf("%d denied probes", d.n)
	if d.err != nil || d.n == 0 {
		t.Errorf("after %d denied probes: %v", d.n, d.err)
	}
}

// sh runs lines of shell in the namespace of the calling thread.
func sh(lines string) error {
	if out, err := exec.Command("sh", "-ec", lines).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
