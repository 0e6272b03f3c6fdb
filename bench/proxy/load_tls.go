package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// loadTLS is loadHTTP1 over TLS 1.3: crypto/tls on goroutines, which is dearer
// than the raw loop, but the CPU that counts is the proxy's.
func loadTLS(j *job) (result, error) {
	cfg, err := clientTLS(j)
	if err != nil {
		return result{}, err
	}
	conns := make([]*tls.Conn, j.conns)
	for i := range conns {
		raw, err := dial(j.addr)
		if err != nil {
			return result{}, err
		}
		// A connection is to the host that its SNI names.
		each := cfg.Clone()
		each.ServerName = hostname(i % j.hosts)
		conns[i] = tls.Client(raw, each)
		if err := conns[i].Handshake(); err != nil {
			return result{}, fmt.Errorf("handshake: %w", err)
		}
	}
	s := &shared{span: newSpan(j)}
	return s.all(j.conns, func(ctx context.Context, i int) error {
		requests := j.requestsTo(i % j.hosts)
		buf := make([]byte, 64<<10)
		for turn := i; ctx.Err() == nil; turn++ {
			sent := nanos()
			if _, err := conns[i].Write(requests[turn%len(requests)]); err != nil {
				return err
			}
			if err := answer(conns[i], buf, j.size, false); err != nil {
				return err
			}
			s.answered(sent, false)
		}
		return nil
	})
}

// answer reads one answer: a 200 of size bytes, or, if redirected, any head.
func answer(c *tls.Conn, buf []byte, size int, redirected bool) error {
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for left := -1; left != 0; {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if redirected {
			if n > 12 && string(buf[9:12]) == "302" {
				return nil
			}
			return fmt.Errorf("it answered %q", buf[:min(n, 60)])
		}
		if left, err = rest(buf[:n], left, size); err != nil {
			return err
		}
	}
	return nil
}

// shakeHands makes connection after connection. On each goes one request that
// the proxy answers itself with a redirect: only then has it accepted our
// certificate, and has sent the ticket.
func shakeHands(j *job) (result, error) {
	s := &shared{span: newSpan(j)}
	return s.all(j.conns, func(ctx context.Context, _ int) error {
		cfg, err := clientTLS(j)
		if err != nil {
			return err
		}
		buf := make([]byte, 4<<10)
		for ctx.Err() == nil {
			sent := nanos()
			raw, err := dial(j.addr)
			if err != nil {
				return err
			}
			c := tls.Client(raw, cfg)
			if _, err = c.Write([]byte("GET /p0/128 HTTP/1.1\r\nHost: h0.bench.test\r\n\r\n")); err == nil {
				err = answer(c, buf, 0, true)
			}
			raw.Close()
			if err != nil {
				return err
			}
			s.answered(sent, c.ConnectionState().DidResume)
		}
		return nil
	})
}

// shared is a span that many goroutines count into.
type shared struct {
	mu sync.Mutex
	*span
}

func (s *shared) answered(sent int64, resumed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.span.answered(sent, nanos())
	if resumed && s.started {
		s.r.Resumed++
	}
}

// all runs one n times side by side until the span is over.
func (s *shared) all(n int, one func(ctx context.Context, i int) error) (result, error) {
	ctx, stop := context.WithCancelCause(context.Background())
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := one(ctx, i); err != nil {
				stop(err)
			}
		})
	}
	defer wg.Wait()
	defer stop(nil)
	for tick := time.NewTicker(time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return result{}, context.Cause(ctx)
		case <-tick.C:
		}
		s.mu.Lock()
		over := s.over(nanos())
		s.mu.Unlock()
		if over {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.result(), nil
		}
	}
}
