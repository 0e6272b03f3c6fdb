package engine

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Origin is where a connection comes from. The zero Origin is the namespace of
// this process, and the address that the kernel chooses.
type Origin struct {
	// Namespace is the descriptor of a network namespace; 0: that of this process.
	Namespace int
	// Address that the connection comes from; not valid: the kernel chooses.
	Address netip.Addr
	// Mark, when not 0, is put on the socket, and Address is another's: what has the
	// mark is routed to the namespace itself, by lo, both what we send and what comes
	// back. The port is none that a kernel gives by itself, so that it is none of the
	// other's own.
	Mark uint32
}

// Ports of connections from another's address.
const (
	firstPort, lastPort = 1024, 32767
	// portTries are made to find one that is free.
	portTries = 64
)

// DialFrom begins to connect to addr. The Conn is Connecting until its owner is
// told; an error that the kernel knows at once is returned.
func (l *Loop) DialFrom(from Origin, addr netip.AddrPort, owner Owner) (*Conn, error) {
	for tries := 0; ; tries++ {
		fd, err := l.socket(from.Namespace, addr.Addr())
		if err != nil {
			return nil, err
		}
		if err = l.apply(&from, fd); err == nil {
			err = unix.Connect(fd, sockaddr(addr))
		}
		if err == nil || err == unix.EINPROGRESS {
			return l.newConn(fd, &Conn{owner: owner, Peer: addr, Connecting: err != nil})
		}
		unix.Close(fd)
		if from.Mark == 0 || err != unix.EADDRNOTAVAIL || tries == 8 {
			return nil, err
		}
	}
}

// Keepalive of connections in other namespaces, seconds: nothing else ends one
// whose peer is gone.
const keepIdle, keepEvery = 120, 30

// Endure makes a socket find out that its peer is gone. Sockets that a listening
// one accepts inherit it.
func Endure(fd int) error {
	for _, o := range [...][3]int{{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepEvery}} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return err
		}
	}
	return nil
}

// apply makes fd a socket that connects from there.
func (l *Loop) apply(o *Origin, fd int) error {
	if o.Namespace == 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
	} else if err := Endure(fd); err != nil {
		return err
	}
	switch {
	case !o.Address.IsValid():
		return nil
	case o.Mark != 0:
		return l.disguise(o, fd)
	}
	// The port is chosen when it connects, so that one serves for many peers.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	return unix.Bind(fd, sockaddr(netip.AddrPortFrom(o.Address, 0)))
}

// disguise gives fd another's address.
func (l *Loop) disguise(o *Origin, fd int) error {
	level, transparent := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if o.Address.Is6() {
		level, transparent = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	for _, v := range [...][3]int{{unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)}, {level, transparent, 1}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}} {
		if err := unix.SetsockoptInt(fd, v[0], v[1], v[2]); err != nil {
			return fmt.Errorf("take another's address: %w", err)
		}
	}
	// By lo in any case: else the kernel takes an own address for one of the
	// interface that has it, and what we send for something that comes from outside.
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		return fmt.Errorf("take another's address: %w", err)
	}
	for range portTries {
		if l.port++; l.port < firstPort || l.port > lastPort {
			l.port = firstPort
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(o.Address, l.port))); err != unix.EADDRINUSE {
			return err
		}
	}
	return unix.EADDRINUSE
}

// errAway: the thread of the loop could not come back from another namespace.
var errAway = errors.New("the thread is in a network namespace that is not its own")

// socket makes a TCP socket in a namespace. Sockets stay where they were made;
// the thread, which is the loop's alone, goes there and comes back.
func (l *Loop) socket(namespace int, to netip.Addr) (fd int, err error) {
	if l.failed != nil {
		return -1, l.failed
	}
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	if namespace > 0 {
		if err := l.leave(namespace); err != nil {
			return -1, err
		}
		defer func() {
			if back := l.comeBack(); back != nil {
				if err == nil {
					unix.Close(fd)
				}
				fd, err = -1, back
			}
		}()
	}
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// leave takes the thread into a namespace.
func (l *Loop) leave(namespace int) error {
	if l.origin == 0 {
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("own network namespace: %w", err)
		}
		l.origin = fd
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	return nil
}

// comeBack takes the thread home. A loop that cannot is ended: whatever it made
// next would belong to somebody else.
func (l *Loop) comeBack() error {
	if err := unix.Setns(l.origin, unix.CLONE_NEWNET); err != nil {
		l.failed = fmt.Errorf("%w: %w", errAway, err)
		return l.failed
	}
	return nil
}
