package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// link is one proxy that knocked.
type link struct {
	a     *Agent
	c     *net.UnixConn
	hello hello

	// Guarded by Agent.mu.
	applied, refused uint64
	reason           string
	alive            time.Time // of its last sign of life
	ejected          []Ejection
	drain            bool // it is to be told
	over             bool // the connection ended

	// Of the goroutine that sends.
	sent    map[string]*Sockets // nil: not all of them
	number  uint64              // of the State that was sent last
	drained bool                // it was told
}

// patience is how long a proxy may take to say who it is.
const patience = 5 * time.Second

// serve speaks with one proxy until it is gone.
func (a *Agent) serve(ctx context.Context, c *net.UnixConn) {
	l := &link{a: a, c: c, sent: map[string]*Sockets{}}
	r := newReader(c)
	defer r.close()
	if err := l.greet(r); err != nil {
		a.o.Log.Warn("a proxy was not let in", "error", err)
		return
	}
	a.mu.Lock()
	a.links = append(a.links, l)
	a.tell()
	a.mu.Unlock()
	a.o.Log.Info("a proxy is at the door", "pid", l.hello.PID, "workers", l.hello.Workers, "version", l.hello.Version)
	ended := make(chan error, 1)
	go func() {
		err := l.listen(r)
		a.mu.Lock()
		l.over = true
		a.tell()
		a.mu.Unlock()
		ended <- err
	}()
	err := l.send(ctx)
	c.Close()
	if heard := <-ended; err == nil || errors.Is(err, net.ErrClosed) {
		err = heard
	}
	if ctx.Err() == nil {
		a.o.Log.Info("a proxy left the door", "pid", l.hello.PID, "why", err)
	}
}

func (l *link) greet(r *reader) error {
	l.c.SetReadDeadline(time.Now().Add(patience))
	k, body, err := r.next()
	if err != nil {
		return err
	}
	l.c.SetReadDeadline(time.Time{})
	if k != helloFrame {
		return fmt.Errorf("it began with a message of kind %d", k)
	}
	if err := json.Unmarshal(body, &l.hello); err != nil {
		return err
	}
	if l.hello.Protocol != protocol {
		return fmt.Errorf("it speaks version %d of the protocol, and we speak %d; install the same release of both", l.hello.Protocol, protocol)
	}
	return nil
}

// listen takes what the proxy says.
func (l *link) listen(r *reader) error {
	for {
		k, body, err := r.next()
		if err == io.EOF {
			return errors.New("it closed the connection")
		}
		if err != nil {
			return err
		}
		switch k {
		case answerFrame:
			var v answer
			if err := json.Unmarshal(body, &v); err != nil {
				return err
			}
			if err := l.answered(v); err != nil {
				return err
			}
		case aliveFrame:
			var v alive
			if err := json.Unmarshal(body, &v); err != nil {
				return err
			}
			l.a.mu.Lock()
			l.alive, l.ejected = time.Now(), v.Ejected
			l.a.tell()
			l.a.mu.Unlock()
		default:
			return fmt.Errorf("it sent a message of kind %d", k)
		}
	}
}

func (l *link) answered(v answer) error {
	a := l.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.Number > a.number {
		return fmt.Errorf("it answers State %d, and the newest is %d", v.Number, a.number)
	}
	if v.Refused == "" {
		l.applied, l.refused, l.reason = v.Number, 0, ""
	} else {
		l.refused, l.reason = v.Number, v.Refused
	}
	a.tell()
	return nil
}

// send brings the proxy to each State, one after the other was answered; those
// that came meanwhile are left out.
func (l *link) send(ctx context.Context) error {
	a := l.a
	for {
		a.mu.Lock()
		over, drain, changed := l.over, l.drain && !l.drained, a.changed
		state, number := a.state, a.number
		busy := max(l.applied, l.refused) < l.number
		a.mu.Unlock()
		switch {
		case over:
			return nil
		case drain:
			l.drained = true
			if err := l.write(drainFrame, struct{}{}); err != nil {
				return err
			}
			continue
		case number > l.number && !busy:
			err := l.bring(state, number)
			if err == errGone {
				continue
			}
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// bring sends what is different in a State.
func (l *link) bring(s State, number uint64) error {
	for name, had := range l.sent {
		if has, ok := s.Sockets[name]; ok && had != nil && has == had {
			continue
		}
		if err := l.write(goneFrame, gone{name}); err != nil {
			return err
		}
		delete(l.sent, name)
	}
	for name, has := range s.Sockets {
		if l.sent[name] != nil {
			continue
		}
		l.sent[name] = nil
		if err := l.give(name, has, number); err != nil {
			return err
		}
		l.sent[name] = has
	}
	if s.Config == nil {
		s.Config = noConfig
	}
	b, err := encodeConfig(number, s.Config)
	if err != nil {
		return err
	}
	l.number = number
	_, err = l.c.Write(b)
	return err
}

// give sends the descriptors of one namespace, while number is the newest State.
func (l *link) give(name string, has *Sockets, number uint64) error {
	type part struct {
		fds   []int
		about func(*sockets) *int
	}
	guard := func() (func(), bool) {
		l.a.mu.Lock()
		if l.a.number != number {
			l.a.mu.Unlock()
			return nil, false
		}
		return l.a.mu.Unlock, true
	}
	head := sockets{Namespace: name, Itself: true}
	fds := []int{has.Namespace}
	flush := func() error {
		b, err := frame(socketsFrame, head)
		if err != nil {
			return err
		}
		err = sendWith(l.c, b, fds, guard)
		head, fds = sockets{Namespace: name}, nil
		return err
	}
	for _, p := range []part{
		{has.Outbound, func(s *sockets) *int { return &s.Outbound }},
		{has.Inbound, func(s *sockets) *int { return &s.Inbound }},
	} {
		for rest := p.fds; len(rest) > 0; {
			n := min(len(rest), fdsAtOnce-len(fds))
			fds = append(fds, rest[:n]...)
			*p.about(&head) += n
			if rest = rest[n:]; len(fds) == fdsAtOnce {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if len(fds) > 0 {
		return flush()
	}
	return nil
}

func (l *link) write(k kind, body any) error {
	b, err := frame(k, body)
	if err != nil {
		return err
	}
	_, err = l.c.Write(b)
	return err
}
