package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// answersPerSecond of one interface, at most.
const answersPerSecond = 20

// Server answers on the interfaces that Grow names. Grow and Shrink may be
// called before Run and while it runs, from the namespace of the node.
type Server struct {
	log      *slog.Logger
	answered atomic.Uint64
	wake     chan struct{} // has room for one

	mu    sync.Mutex
	ports map[string]*port // by Host
	fresh []*port          // not served yet
	done  bool
}

// port is one interface that is listened on.
type port struct {
	index int
	file  *os.File
	is    atomic.Pointer[Interface]
}

// NewServer returns a Server without interfaces.
func NewServer(log *slog.Logger) *Server {
	return &Server{log: log, wake: make(chan struct{}, 1), ports: map[string]*port{}}
}

// Answered counts the answers since the beginning.
func (s *Server) Answered() uint64 { return s.answered.Load() }

// Grow listens on these interfaces, and on those that it has. One that is not
// there is an error; the others are served all the same.
func (s *Server) Grow(want []Interface) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, i := range want {
		if err := s.grow(&i); err != nil {
			errs = append(errs, fmt.Errorf("answer DHCP on %s: %w", i.Host, err))
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}

func (s *Server) grow(i *Interface) error {
	if s.done {
		return errors.New("the server has stopped")
	}
	device, err := net.InterfaceByName(i.Host)
	if err != nil {
		return err
	}
	if p := s.ports[i.Host]; p != nil {
		if p.index == device.Index {
			if !p.is.Load().equal(i) {
				p.is.Store(i)
				p.file.SetReadDeadline(time.Now()) // the news is told at once
			}
			return nil
		}
		p.file.Close() // the device was made anew
		delete(s.ports, i.Host)
	}
	p := &port{index: device.Index}
	if p.file, err = listen(device); err != nil {
		return err
	}
	p.is.Store(i)
	s.ports[i.Host] = p
	s.fresh = append(s.fresh, p)
	return nil
}

// Shrink stops to listen on all other interfaces.
func (s *Server) Shrink(want []Interface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[string]bool{}
	for _, i := range want {
		keep[i.Host] = true
	}
	for host, p := range s.ports {
		if !keep[host] {
			p.file.Close()
			delete(s.ports, host)
		}
	}
}

// Interfaces says what is told on each interface, in no order.
func (s *Server) Interfaces() []Interface {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Interface
	for _, p := range s.ports {
		out = append(out, *p.is.Load())
	}
	return out
}

// Run answers until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for ctx.Err() == nil {
		s.mu.Lock()
		for _, p := range s.fresh {
			wg.Go(func() { s.serve(p) })
		}
		s.fresh = nil
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-s.wake:
		}
	}
	s.mu.Lock()
	s.done = true
	for _, p := range s.fresh {
		p.file.Close()
	}
	for _, p := range s.ports {
		p.file.Close()
	}
	s.mu.Unlock()
	wg.Wait()
	return nil
}

// serve answers on one interface until its socket is closed.
func (s *Server) serve(p *port) {
	defer p.file.Close()
	buf := make([]byte, maxFrame)
	var told *Interface
	var next, second time.Time
	left := 0
	for {
		now := time.Now()
		if is := p.is.Load(); is != told || !now.Before(next) {
			told, next = is, now.Add(advertiseEvery)
			s.send(p, Advertisement(is, allNodes))
		}
		p.file.SetReadDeadline(next)
		if p.is.Load() != told {
			continue // between the look and the deadline
		}
		n, err := p.file.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, unix.ENETDOWN):
			time.Sleep(100 * time.Millisecond) // it comes up again, or is closed
			continue
		case err != nil:
			if !errors.Is(err, os.ErrClosed) {
				s.log.Warn("no DHCP any more", "host", told.Host, "error", err)
			}
			return
		}
		if now = time.Now(); now.Sub(second) >= time.Second {
			second, left = now, answersPerSecond
		}
		if left == 0 {
			continue
		}
		if answer := Answer(p.is.Load(), buf[:n]); answer != nil {
			left--
			s.answered.Add(1)
			s.send(p, answer)
		}
	}
}

// send is best effort, as on every wire: who hears nothing asks again.
func (s *Server) send(p *port, frame []byte) {
	if frame == nil {
		return
	}
	if _, err := p.file.Write(frame); err != nil {
		s.log.Debug("an answer was not sent", "host", p.is.Load().Host, "error", err)
	}
}
