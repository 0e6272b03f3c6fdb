package engine

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is epoll, edge-triggered, and an eventfd that others ring.
type poller struct {
	fd, bell int
	events   [256]unix.EpollEvent
}

func (p *poller) open() (err error) {
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(p.fd)
		return err
	}
	return p.add(p.bell, 0, unix.EPOLLIN)
}

func (p *poller) close() {
	unix.Close(p.fd)
	unix.Close(p.bell)
}

func (p *poller) add(fd int, generation, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(generation)}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev)
}

// change sets the events of a descriptor that was added.
func (p *poller) change(fd int, generation, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(generation)}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &ev)
}

func (p *poller) remove(fd int) { unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// wait waits at most d nanoseconds; less than 0 is for ever.
func (p *poller) wait(d int64) (int, error) {
	ms := -1
	if d >= 0 {
		ms = int((d + 999_999) / 1_000_000)
	}
	events := uintptr(unsafe.Pointer(&p.events[0]))
	var n uintptr
	var errno syscall.Errno
	if ms == 0 {
		n, _, errno = syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), events, uintptr(len(p.events)), 0, 0, 0)
	} else {
		// It may block: the runtime has to know, or a garbage collection would wait.
		n, _, errno = syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), events, uintptr(len(p.events)), uintptr(ms), 0, 0)
	}
	if errno == syscall.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (p *poller) ring() {
	one := [8]byte{1}
	unix.Write(p.bell, one[:])
}

func (p *poller) hush() {
	var b [8]byte
	unix.Read(p.bell, b[:])
}

// rawRead and rawWrite never block: the runtime need not be told, which saves a
// fifth of the call.
func rawRead(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
