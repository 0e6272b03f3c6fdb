package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of the upstream, all of one process on one thread.
const (
	upstreamHTTP1 = 20900
	upstreamHTTP2 = 20901
	upstreamGRPC  = 20902
	upstreamFast1 = 20903
	upstreamFast2 = 20904
	upstreamSlow  = 20905

	fastAnswer = 5 * time.Millisecond
	slowAnswer = 50 * time.Millisecond
)

// service is one port of the upstream.
type service struct {
	fd    int
	delay time.Duration
	speak func() protocol
	// late answers wait here; as all of a port wait equally long, in order.
	late []lateAnswer
}

type lateAnswer struct {
	due    int64
	to     *peer
	answer []byte
}

// protocol turns bytes received into bytes to send: how many it has used, and
// an answer that stays unchanged until the next call (or for ever, if lasting).
type protocol interface {
	take(in []byte) (used int, answer []byte, lasting bool, err error)
}

// peer is one connection to the upstream.
type peer struct {
	fd      int
	of      *service
	speaks  protocol
	in      []byte // begun and not yet whole
	pending []byte // not yet sent
	filler  int    // bytes of filler that come after pending
}

type upstream struct {
	poll     *poll
	services []*service
	listens  map[int]*service
	peers    map[int]*peer
	buf      []byte
}

// serve runs the upstream at an IPv4 address until it is killed.
func serve(at string) error {
	addr, err := netip.ParseAddr(at)
	if err != nil || !addr.Is4() {
		return fmt.Errorf("serve %q: not an IPv4 address", at)
	}
	p, err := newPoll()
	if err != nil {
		return err
	}
	u := &upstream{poll: p, listens: map[int]*service{}, peers: map[int]*peer{}, buf: make([]byte, 1<<18)}
	one := func() protocol { return &http1{} }
	for _, s := range []struct {
		port  int
		delay time.Duration
		speak func() protocol
	}{
		{upstreamHTTP1, 0, one},
		{upstreamHTTP2, 0, func() protocol { return newHTTP2(false) }},
		{upstreamGRPC, 0, func() protocol { return newHTTP2(true) }},
		{upstreamFast1, fastAnswer, one}, {upstreamFast2, fastAnswer, one}, {upstreamSlow, slowAnswer, one},
	} {
		fd, err := listen(addr, s.port)
		if err != nil {
			return fmt.Errorf("upstream port %d: %w", s.port, err)
		}
		of := &service{fd: fd, delay: s.delay, speak: s.speak}
		u.services = append(u.services, of)
		u.listens[fd] = of
		if err := p.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stdout, "ready")
	return u.loop()
}

func listen(addr netip.Addr, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: addr.As4()}); err != nil {
		return 0, err
	}
	return fd, unix.Listen(fd, 4096)
}

const loopback = "127.0.0.1"

func (u *upstream) loop() error {
	for {
		events, err := u.poll.wait(u.lateAnswers())
		if err != nil {
			return err
		}
		for _, e := range events {
			fd := int(e.Fd)
			if s := u.listens[fd]; s != nil {
				u.accept(s)
				continue
			}
			p := u.peers[fd]
			if p == nil {
				continue
			}
			if e.Events&unix.EPOLLOUT != 0 {
				u.flush(p)
			}
			if u.peers[fd] == p && e.Events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
				u.receive(p)
			}
		}
	}
}

// lateAnswers sends what is due, and says how long until the next; -1: none waits.
func (u *upstream) lateAnswers() time.Duration {
	next := time.Duration(-1)
	for _, s := range u.services {
		for len(s.late) > 0 {
			l := s.late[0]
			if left := time.Duration(l.due - nanos()); left > 0 {
				if next < 0 || left < next {
					next = left
				}
				break
			}
			s.late = s.late[1:]
			if u.peers[l.to.fd] == l.to {
				u.send(l.to, l.answer, true)
			}
		}
	}
	return next
}

func (u *upstream) accept(s *service) {
	for {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if u.poll.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN) != nil {
			unix.Close(fd)
			continue
		}
		u.peers[fd] = &peer{fd: fd, of: s, speaks: s.speak()}
	}
}

func (u *upstream) end(p *peer) {
	delete(u.peers, p.fd)
	unix.Close(p.fd)
}

func (u *upstream) receive(p *peer) {
	kept := copy(u.buf, p.in)
	n, err := read(p.fd, u.buf[kept:])
	if errors.Is(err, errAgain) {
		return
	}
	if err != nil || n == 0 {
		u.end(p)
		return
	}
	in := u.buf[:kept+n]
	for len(in) > 0 {
		used, answer, lasting, err := p.speaks.take(in)
		if err != nil {
			fmt.Fprintln(os.Stderr, "upstream:", err)
			u.end(p)
			return
		}
		if used == 0 {
			break
		}
		in = in[used:]
		if p.of.delay > 0 {
			p.of.late = append(p.of.late, lateAnswer{nanos() + int64(p.of.delay), p, answer})
		} else if len(answer) > 0 {
			if h, ok := p.speaks.(*http1); ok {
				p.filler = h.filler
			}
			if u.send(p, answer, lasting); u.peers[p.fd] != p {
				return
			}
		}
	}
	p.in = append(p.in[:0], in...)
}

func (u *upstream) send(p *peer, b []byte, lasting bool) {
	if len(p.pending) > 0 {
		p.pending = append(p.pending[:len(p.pending):len(p.pending)], b...)
		return
	}
	n, err := write(p.fd, b)
	if err != nil && !errors.Is(err, errAgain) {
		u.end(p)
		return
	}
	if n == len(b) && p.filler == 0 {
		return
	}
	if p.pending = b[n:]; !lasting {
		p.pending = bytes.Clone(b[n:])
	}
	u.poll.watch(unix.EPOLL_CTL_MOD, p.fd, unix.EPOLLIN|unix.EPOLLOUT)
}

func (u *upstream) flush(p *peer) {
	if len(p.pending) == 0 && p.filler > 0 {
		p.pending = filler[:min(p.filler, len(filler))]
		p.filler -= len(p.pending)
	}
	n, err := write(p.fd, p.pending)
	if err != nil && !errors.Is(err, errAgain) {
		u.end(p)
		return
	}
	if p.pending = p.pending[n:]; len(p.pending) == 0 && p.filler == 0 {
		p.pending = nil
		u.poll.watch(unix.EPOLL_CTL_MOD, p.fd, unix.EPOLLIN)
	}
}

// http1 answers HTTP/1.1: the last element of the path is how many bytes.
type http1 struct {
	filler int // bytes that come after the last answer
}

var sizes = []int{0, 128, 1 << 10, 16 << 10, 128 << 10, 1 << 20, 16 << 20, 256 << 20, 1 << 30}

// filler is what large answers are made of.
var filler = bytes.Repeat([]byte{'x'}, 1<<20)

// answers to each size that may be asked for; of those that are larger than
// filler the head.
var answers = func() map[int][]byte {
	all := map[int][]byte{}
	for _, n := range sizes {
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: upstream\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", n)
		if all[n] = []byte(head); n <= len(filler) {
			all[n] = append(all[n], filler[:n]...)
		}
	}
	return all
}()

var (
	endOfHead = []byte("\r\n\r\n")
	// Proxies write it in either case.
	lengthField = [2][]byte{[]byte("\r\nContent-Length: "), []byte("\r\ncontent-length: ")}
)

func (h *http1) take(in []byte) (int, []byte, bool, error) {
	end := bytes.Index(in, endOfHead)
	if end < 0 {
		return 0, nil, false, nil
	}
	head, used := in[:end+2], end+4
	if in[0] != 'G' {
		for _, name := range lengthField {
			if at := bytes.Index(head, name); at >= 0 {
				used += number(head[at+len(name):])
			}
		}
		if used > len(in) {
			return 0, nil, false, nil
		}
	}
	line := head[:bytes.IndexByte(head, '\r')]
	path := line[:max(bytes.LastIndexByte(line, ' '), 0)]
	size := number(path[bytes.LastIndexByte(path, '/')+1:])
	answer := answers[size]
	if h.filler = 0; size > len(filler) {
		h.filler = size
	}
	if answer == nil {
		return 0, nil, false, fmt.Errorf("request %q asks for no size of %v", line, sizes)
	}
	return used, answer, true, nil
}

// number reads the digits that b begins with.
func number(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func nanos() int64 { return int64(time.Since(began)) }

var began = time.Now()

func address(port int) string { return loopback + ":" + strconv.Itoa(port) }
