package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Room is how many bytes Offer would take.
func (c *Conn) Room() int {
	if c.Connecting {
		return max(sizes[1]-c.out.Len(), 0)
	}
	return max(writeLimit-c.Pending(), 0)
}

// Pending is how many bytes wait to be written.
func (c *Conn) Pending() int { return c.out.Len() + c.fly.Len() }

// Write puts p, a head or something as small, into the output, whatever waits there.
func (c *Conn) Write(p []byte) {
	room := c.out.space(c.loop, len(p))
	c.out.w += copy(room, p)
	c.touch()
}

// Offer puts as much of p into the output as there is room for, and says how
// much. Much at once is written from where it is.
func (c *Conn) Offer(p []byte) int {
	if len(p) >= direct && c.out.Len() == 0 && c.layer == nil && c.BlockedAt == 0 && !c.flying && !c.Connecting && c.Err == 0 {
		return c.writeNow(p)
	}
	n := min(len(p), c.Room())
	if n > 0 {
		c.Write(p[:n])
	}
	return n
}

// Kick has what the layer sealed written in this turn.
func (c *Conn) Kick() { c.touch() }

func (c *Conn) touch() {
	if !c.dirty && c.fd >= 0 {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// writeNow writes p and says how much of it was taken.
func (c *Conn) writeNow(p []byte) int {
	n, errno := rawWrite(c.fd, p)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		n = 0
	case errno != 0:
		c.broke(errno)
		return len(p)
	}
	c.Sent += uint64(n)
	if n < len(p) && c.BlockedAt == 0 {
		c.blocked()
	}
	return n
}

// broke: the peer takes no more. What it said before is read first: it may be
// the reason.
func (c *Conn) broke(errno syscall.Errno) {
	if c.ringed() && !c.readInPlace(errno) {
		return
	}
	for range 4 {
		c.pull()
		if !c.more {
			break
		}
	}
	c.Err = errno
}

// blocked: the socket has no more room.
func (c *Conn) blocked() {
	c.BlockedAt = c.loop.Now
	if c.loop.ring != nil && c.watchOut() != nil {
		c.Err = unix.ENOMEM
	}
}

// flush writes what waits, once.
func (c *Conn) flush() {
	if c.BlockedAt != 0 || c.Connecting || c.flying {
		return
	}
	if c.Err != 0 {
		c.out.Consume(c.out.Len())
	} else if c.layer != nil {
		c.flushLayer()
	} else if c.out.Len() > 0 && c.loop.ring != nil {
		c.launchOut()
	} else if c.out.Len() > 0 {
		c.out.Consume(c.writeNow(c.out.Bytes()))
	}
	if c.flying {
		return
	}
	if c.out.Len() > 0 && c.layer == nil {
		c.wakeStarved()
		return
	}
	if c.layer != nil && (c.out.Len() > 0 || len(c.layer.Sealed()) > 0) && c.Err == 0 {
		c.wakeStarved()
		return
	}
	c.written()
}

func (c *Conn) wakeStarved() {
	if c.Err != 0 || c.Starved && c.out.Len() <= writeLimit/2 {
		c.Starved = false
		c.owner.Ready(c)
	}
}

// written: nothing waits any more.
func (c *Conn) written() {
	switch {
	case c.closing:
		c.endWriting()
	case c.half && !c.done:
		c.shutdown()
	}
	c.out.release(c.loop)
	if c.fd >= 0 && !c.linger && (c.Starved || c.Err != 0) {
		c.Starved = false
		c.owner.Ready(c)
	}
}
