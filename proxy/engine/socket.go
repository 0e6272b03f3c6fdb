package engine

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// backlog of a listening socket; the kernel caps it at net.core.somaxconn.
const backlog = 4096

// Listen makes a listening socket for addr. Several sockets may listen on one
// address (SO_REUSEPORT): the kernel spreads connections over them. An IPv6
// address takes IPv6 only.
func Listen(addr netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: socket: %w", addr, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	set := func(level, opt int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, opt, 1)
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR)
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT)
	set(unix.IPPROTO_TCP, unix.TCP_NODELAY) // accepted sockets inherit it
	if family == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	}
	if err != nil {
		return fd, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if err = unix.Bind(fd, sockaddr(addr)); err != nil {
		return fd, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if err = unix.Listen(fd, backlog); err != nil {
		return fd, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return fd, nil
}

// LocalAddr is the address that a socket is bound to.
func LocalAddr(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}

// Listener accepts connections of one listening socket.
type Listener struct {
	loop *Loop
	fd   int
	take func(fd int, peer netip.AddrPort)
	// Failed counts accept errors, such as no descriptors left.
	Failed uint64
	timer  Timer
}

// pause is how long nothing is accepted when there are no descriptors left.
const pause = int64(50e6)

// Accept calls take, in the loop, for each connection that comes to fd. The
// Listener owns fd.
func (l *Loop) Accept(fd int, take func(fd int, peer netip.AddrPort)) (*Listener, error) {
	ln := &Listener{loop: l, fd: fd, take: take}
	// Accepted sockets inherit it.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	// Level-triggered: what one turn leaves, the next one sees.
	if err := l.adopt(fd, nil, ln, unix.EPOLLIN); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return ln, nil
}

// FD is the listening socket, to be handed to a successor.
func (ln *Listener) FD() int { return ln.fd }

// Close stops accepting. Connections that the kernel has queued go to others
// who hold the same socket; without such others they are reset.
func (ln *Listener) Close() {
	if ln.fd >= 0 {
		ln.loop.Disarm(&ln.timer)
		ln.loop.abandon(ln.fd)
		ln.fd = -1
	}
}

func (ln *Listener) accept() {
	for range 64 {
		fd, sa, err := unix.Accept4(ln.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			if err != unix.EAGAIN {
				ln.Failed++
				// It would be told of the same connection at once, again and again.
				ln.loop.poll.remove(ln.fd)
				ln.loop.Arm(&ln.timer, ln.loop.Now+pause, ln)
			}
			return
		}
		ln.take(fd, addrPort(sa))
		if ln.fd < 0 {
			return
		}
	}
}

// Expire implements Expirer: it accepts again.
func (ln *Listener) Expire(*Timer) {
	if err := ln.loop.poll.add(ln.fd, ln.loop.slots[ln.fd].generation, unix.EPOLLIN); err != nil {
		ln.loop.Arm(&ln.timer, ln.loop.Now+pause, ln)
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
