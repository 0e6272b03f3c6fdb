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
	// Address that the connection comes from, any port; not valid: the kernel
	// chooses.
	Address netip.Addr
	// Mark, when not 0, is put on the socket, and Address may be one that is not of
	// the namespace: whoever routes there brings its packets back.
	Mark uint32
}

// Dial begins to connect to addr. The Conn is Connecting until its owner is
// told; an error that the kernel knows at once is returned.
func (l *Loop) Dial(addr netip.AddrPort, owner Owner) (*Conn, error) {
	return l.DialFrom(Origin{}, addr, owner)
}

// DialFrom is Dial from elsewhere.
func (l *Loop) DialFrom(from Origin, addr netip.AddrPort, owner Owner) (*Conn, error) {
	fd, err := l.socket(from.Namespace, addr.Addr())
	if err != nil {
		return nil, err
	}
	if err = from.apply(fd); err == nil {
		err = unix.Connect(fd, sockaddr(addr))
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err
	}
	c := &Conn{owner: owner, Peer: addr, Connecting: err != nil}
	return l.newConn(fd, c)
}

// apply makes fd a socket that connects from there.
func (o *Origin) apply(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if !o.Address.IsValid() {
		return nil
	}
	level, transparent := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if o.Address.Is6() {
		level, transparent = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	if o.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)); err != nil {
			return fmt.Errorf("mark: %w", err)
		}
		if err := unix.SetsockoptInt(fd, level, transparent, 1); err != nil {
			return fmt.Errorf("another's address: %w", err)
		}
	}
	// The port is chosen when it connects, so that one serves for many peers.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	return unix.Bind(fd, sockaddr(netip.AddrPortFrom(o.Address, 0)))
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
