package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// caller is one connection of the load maker.
type caller struct {
	fd   int
	due  int64
	left int // bytes of the answer still to come; -1: its head has not come
}

// maker sends HTTP/1.1 requests over many connections from one thread.
type maker struct {
	*poll
	job      *job
	callers  map[int]*caller
	requests [][]byte
	turn     int
	buf      []byte
	span     *span

	// Connections without a request, first in first out, and, with a rate,
	// requests that were due when there was none.
	idle    queue[*caller]
	waiting queue[int64]
}

// queue is first in, first out, in a ring that grows.
type queue[T any] struct {
	ring    []T
	from, n int
}

func (q *queue[T]) push(t T) {
	if q.n == len(q.ring) {
		larger := make([]T, max(64, 2*q.n))
		n := copy(larger, q.ring[q.from:])
		copy(larger[n:], q.ring[:q.from])
		q.ring, q.from = larger, 0
	}
	q.ring[(q.from+q.n)%len(q.ring)] = t
	q.n++
}

func (q *queue[T]) pop() T {
	t := q.ring[q.from]
	q.from, q.n = (q.from+1)%len(q.ring), q.n-1
	return t
}

func (j *job) maker() (*maker, error) {
	p, err := newPoll()
	if err != nil {
		return nil, err
	}
	m := &maker{poll: p, job: j, callers: map[int]*caller{}, requests: j.requests(), buf: make([]byte, 1<<18)}
	for range j.conns {
		fd, err := connect(j.addr)
		if err != nil {
			return nil, err
		}
		m.callers[fd] = &caller{fd: fd}
		if err := p.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// connect waits for the connection, which then does not block any more.
func connect(addr string) (int, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return 0, fmt.Errorf("connect to %s: %w", addr, err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return 0, err
	}
	return fd, unix.SetNonblock(fd, true)
}

func loadHTTP1(j *job) (result, error) {
	m, err := j.maker()
	if err != nil {
		return result{}, err
	}
	if err := sharpTimers(); err != nil {
		return result{}, err
	}
	m.span = newSpan(j)
	if j.rate > 0 {
		err = m.atRate()
	} else {
		err = m.atWill()
	}
	return m.span.result(), err
}

func (m *maker) atWill() error {
	for _, c := range m.callers {
		m.idle.push(c)
	}
	active := m.job.conns
	if m.job.active > 0 {
		active = min(active, m.job.active)
	}
	for range active {
		if err := m.send(m.idle.pop(), nanos()); err != nil {
			return err
		}
	}
	for !m.span.over(nanos()) {
		events, err := m.wait(100 * time.Millisecond)
		if err != nil {
			return err
		}
		for i := range events {
			c := m.callers[int(events[i].Fd)]
			done, err := m.receive(c)
			if err != nil {
				return err
			}
			if done {
				now := nanos()
				m.span.answered(c.due, now)
				m.idle.push(c)
				if err := m.send(m.idle.pop(), now); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// atRate measures from when a request was due, not from when it could be sent:
// a proxy that stalls is charged for all that wait meanwhile.
func (m *maker) atRate() error {
	for _, c := range m.callers {
		m.idle.push(c)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	due := nanos()
	for {
		now := nanos()
		if m.span.over(now) {
			return nil
		}
		for ; due <= now; due += int64(dice.ExpFloat64() * 1e9 / m.job.rate) {
			if m.idle.n == 0 {
				m.waiting.push(due)
			} else if err := m.send(m.idle.pop(), due); err != nil {
				return err
			}
		}
		if m.waiting.n > int(10*m.job.rate) {
			return fmt.Errorf("%g requests per second are more than it takes: 10 s behind", m.job.rate)
		}
		events, err := m.wait(time.Duration(max(due-nanos(), 0)))
		if err != nil {
			return err
		}
		for i := range events {
			c := m.callers[int(events[i].Fd)]
			done, err := m.receive(c)
			if err != nil {
				return err
			}
			if !done {
				continue
			}
			m.span.answered(c.due, nanos())
			if m.waiting.n == 0 {
				m.idle.push(c)
			} else if err := m.send(c, m.waiting.pop()); err != nil {
				return err
			}
		}
	}
}

func (m *maker) send(c *caller, due int64) error {
	request := m.requests[m.turn]
	if m.turn++; m.turn == len(m.requests) {
		m.turn = 0
	}
	c.due, c.left = due, -1
	n, err := write(c.fd, request)
	if err == nil && n < len(request) {
		err = io.ErrShortWrite
	}
	return err
}

// receive reads what there is and says whether the answer is whole.
func (m *maker) receive(c *caller) (bool, error) {
	n, err := read(c.fd, m.buf)
	if errors.Is(err, errAgain) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n == 0 {
		return false, errors.New("the proxy closed a connection")
	}
	if m.span.started {
		m.span.r.Bytes += int64(n)
	}
	c.left, err = rest(m.buf[:n], c.left, m.job.size)
	return c.left == 0, err
}

var statusOK = []byte("HTTP/1.1 200 ")

// rest says how much of an answer of size bytes is still to come after b, of
// which left were to come before; -1 when b begins with its head.
func rest(b []byte, left, size int) (int, error) {
	if left < 0 {
		if !bytes.HasPrefix(b, statusOK) {
			return 0, fmt.Errorf("it answered %q", b[:min(len(b), 60)])
		}
		end := bytes.Index(b, endOfHead)
		if end < 0 {
			return 0, errors.New("a head in two pieces")
		}
		b, left = b[end+4:], size
	}
	if len(b) > left {
		return 0, fmt.Errorf("an answer of more than %d bytes", size)
	}
	return left - len(b), nil
}

// hold makes connections, sends one request on each, and holds them until its
// input ends. It says when they are there.
func hold(j *job) (result, error) {
	m, err := j.maker()
	if err != nil {
		return result{}, err
	}
	m.span = newSpan(j)
	for _, c := range m.callers {
		if err := m.send(c, nanos()); err != nil {
			return result{}, err
		}
		for done := false; !done; {
			if _, err := m.wait(5 * time.Second); err != nil {
				return result{}, err
			}
			if done, err = m.receive(c); err != nil {
				return result{}, err
			}
		}
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return result{}, err
	}
	return m.span.result(), nil
}

// dial is connect for those who want a net.Conn. It closes with a reset, so
// that ports do not run out.
func dial(addr string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	t := c.(*net.TCPConn)
	return t, t.SetLinger(0)
}
