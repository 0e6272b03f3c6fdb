package engine

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launch has b, what waits or what the layer sealed, sent when the ring is
// entered. Its memory must not change until then: landed comes after.
func (c *Conn) launch(b []byte) {
	l := c.loop
	c.flying, c.took = true, int32(len(b))
	l.launched = append(l.launched, c)
	e := l.ring.request(opcodeSend, c.fd, l.data(ofSend, c.fd))
	e.addr, e.len = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), uint32(len(b))
	// It never waits, so that all is known when the ring was entered. What was taken
	// whole is not told of; with WAITALL, that less was taken is a failure.
	e.opFlags, e.flags = unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT|unix.MSG_WAITALL, sqeSkipSuccess
}

// launchOut launches what waits.
func (c *Conn) launchOut() {
	c.fly, c.out = c.out, Buffer{}
	c.launch(c.fly.Bytes())
}

// launchSealed launches what the layer sealed.
func (c *Conn) launchSealed(b []byte) {
	c.fly = Buffer{b: b, w: len(b)}
	c.sealed = true
	c.launch(b)
}

// land ends all that was launched, when the ring was entered.
func (l *Loop) land() {
	r := l.ring
	for at, tail := *r.cqHead, atomic.LoadUint32(r.cqTail); at != tail; at++ {
		e := &r.cqes[at&(ringEvents-1)]
		if fd := e.data & (1<<28 - 1); e.data>>28&15 == ofSend && l.slots[fd].generation == uint32(e.data>>32) {
			l.slots[fd].conn.took = e.res
		}
	}
	for i, c := range l.launched {
		l.launched[i] = nil
		c.landed()
	}
	l.launched = l.launched[:0]
}

// landed takes note of how much of what was launched the kernel took.
func (c *Conn) landed() {
	n, errno, failed := int(c.took), syscall.Errno(-c.took), syscall.Errno(0)
	if n < 0 {
		n = 0
		if errno != syscall.EAGAIN && errno != syscall.EINTR {
			n, failed = c.fly.Len(), errno
		}
	}
	c.flying = false
	c.fly.r += n
	left := c.fly.Len()
	switch {
	case c.sealed:
		c.sealed, c.fly = false, Buffer{}
		if c.fd >= 0 {
			c.layer.Sent(n)
			if c.out.Len() == 0 { // all of it is sealed
				c.out.release(c.loop)
			}
		}
	case c.fd < 0:
		c.fly.release(c.loop)
	default:
		c.unlaunch()
	}
	if c.fd < 0 {
		return
	}
	if failed != 0 {
		c.broke(failed)
	} else {
		c.Sent += uint64(n)
	}
	if left > 0 {
		c.blocked()
		return
	}
	if c.closing || c.half || c.out.Len() > 0 || c.layer != nil && len(c.layer.Sealed()) > 0 {
		c.touch()
	} else if c.Starved || c.Err != 0 {
		c.Starved = false
		c.owner.Ready(c)
	}
}

// unlaunch puts what is left of what was launched before what waits.
func (c *Conn) unlaunch() {
	if c.fly.Len() == 0 {
		c.fly.release(c.loop)
		return
	}
	later := c.out
	c.out, c.fly = c.fly, Buffer{}
	if n := later.Len(); n > 0 {
		c.out.w += copy(c.out.space(c.loop, n), later.Bytes())
	}
	later.release(c.loop)
}

// watchOut asks once for room to write. It is epoll that is asked, because to a
// poll by the ring a peer that sends no more is an event, always.
func (c *Conn) watchOut() error {
	const once = unix.EPOLLOUT | unix.EPOLLONESHOT
	p, generation := &c.loop.poll, c.loop.slots[c.fd].generation
	if c.watched {
		return p.change(c.fd, generation, once)
	}
	c.watched = true
	return p.add(c.fd, generation, once)
}
