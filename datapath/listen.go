package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
)

// listen makes the listeners that are missing: as many as the proxy has workers, all
// on one port that was free, which `steer` keeps for them. Sockets of the agent, so
// that they are there when a proxy is not.
func (d *Datapath) listen(s *stand, row *bpf.MoireStand) error {
	for direction := range s.listeners {
		for worker := range int(row.Workers) {
			if worker < len(s.listeners[direction]) {
				if err := d.putListener(s, direction, worker); err != nil {
					return err
				}
				continue
			}
			fd, err := s.newListener(row)
			if err != nil {
				return err
			}
			s.listeners[direction] = append(s.listeners[direction], fd)
			if err := d.putListener(s, direction, worker); err != nil {
				return err
			}
			d.writes.Add(1)
		}
	}
	return nil
}

// putListener makes steer find a listener. What it accepts to come in speaks for
// the Workload.
func (d *Datapath) putListener(s *stand, direction, worker int) error {
	fd := s.listeners[direction][worker]
	if direction == listensIn {
		if err := d.objects.Speakers.Update(uint32(fd), uint32(1), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("let a listener speak: %w", err)
		}
	}
	key := bpf.MoireListenerKey{Cookie: s.cookie, Direction: uint32(direction), Worker: uint32(worker)}
	if err := d.objects.Listeners.Update(&key, uint64(fd), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("enter a listener: %w", err)
	}
	return nil
}

// newListener listens for both families, on the port of the others.
func (s *stand) newListener(row *bpf.MoireStand) (fd int, err error) {
	err = s.ns.do(func() error {
		if fd, err = listener(int(row.Port)); errors.Is(err, unix.EADDRINUSE) {
			fd, err = listener(0)
		}
		if err != nil {
			return err
		}
		if row.Port, err = portOf(fd); err != nil {
			unix.Close(fd)
		}
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("listen for a proxy: %w", err)
	}
	return fd, nil
}

// listener takes connections to whatever address, and answers as it.
func listener(port int) (int, error) {
	const kind = unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	var at unix.Sockaddr = &unix.SockaddrInet6{Port: port}
	v6 := true
	fd, err := unix.Socket(unix.AF_INET6, kind, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		v6, at = false, &unix.SockaddrInet4{Port: port}
		fd, err = unix.Socket(unix.AF_INET, kind, 0)
	}
	if err != nil {
		return -1, err
	}
	set := func(level, option, value int) error { return unix.SetsockoptInt(fd, level, option, value) }
	err = inOrder(
		func() error {
			if !v6 {
				return set(unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			}
			return errors.Join(set(unix.SOL_IPV6, unix.IPV6_V6ONLY, 0), set(unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
		},
		func() error { return set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) },
		func() error { return unix.Bind(fd, at) },
		func() error { return unix.Listen(fd, backlog) },
	)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func portOf(fd int) (uint32, error) {
	at, err := unix.Getsockname(fd)
	switch at := at.(type) {
	case *unix.SockaddrInet6:
		return uint32(at.Port), nil
	case *unix.SockaddrInet4:
		return uint32(at.Port), nil
	}
	return 0, err
}

// dropListeners closes all but those of so many workers.
func (d *Datapath) dropListeners(s *stand, workers int) error {
	for direction, all := range s.listeners {
		for worker := len(all) - 1; worker >= workers; worker-- {
			key := bpf.MoireListenerKey{Cookie: s.cookie, Direction: uint32(direction), Worker: uint32(worker)}
			if err := d.objects.Listeners.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("remove a listener: %w", err)
			}
			unix.Close(all[worker])
			s.listeners[direction] = all[:worker]
			d.writes.Add(1)
		}
	}
	return nil
}

// mostTurnedAway bounds the work of one call.
const mostTurnedAway = 4 * backlog

// turnAway resets whoever waits to be accepted.
func (s *stand) turnAway() {
	for _, all := range s.listeners {
		for _, fd := range all {
			for range mostTurnedAway {
				c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				if errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
					continue
				}
				if err != nil {
					break
				}
				unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				unix.Close(c)
			}
		}
	}
}
