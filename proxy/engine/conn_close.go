package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lingering is how long a connection that we closed stays, and for how many
// bytes it is still read: a reset would take away the answer that its peer has
// not read. A peer that sends more has to wait, and so finds time to read.
const (
	lingering     = int64(2e9)
	lingeringMost = 256 << 10
)

// Close ends the connection at once; the owner hears nothing more.
func (c *Conn) Close() {
	if c.fd < 0 {
		return
	}
	c.loop.Disarm(&c.timer)
	c.loop.abandon(c.fd)
	c.fd = -1
	c.In.release(c.loop)
	c.out.release(c.loop)
	c.raw.release(c.loop)
}

// Abort ends the connection with a reset, so that the peer does not take what
// it has for all there is.
func (c *Conn) Abort() {
	if c.fd >= 0 {
		unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		c.Close()
	}
}

// CloseSoon ends the connection after what waits was written, and lets the peer
// read it in peace. The owner hears nothing more.
func (c *Conn) CloseSoon() {
	if c.fd < 0 || c.closing {
		return
	}
	c.closing = true
	c.owner = nobody{}
	c.loop.Arm(&c.timer, c.loop.Now+15e9, c)
	if c.Err != 0 {
		c.Close()
		return
	}
	c.touch()
}

// CloseWrite tells the peer, after what waits was written, that no more comes.
func (c *Conn) CloseWrite() {
	if c.fd >= 0 && !c.half {
		c.half = true
		c.touch()
	}
}

func (c *Conn) shutdown() {
	c.done = true
	if c.layer != nil {
		c.layer.CloseWrite()
		if b := c.layer.Sealed(); len(b) > 0 && c.Err == 0 {
			c.layer.Sent(c.writeNow(b))
		}
	}
	syscall.Shutdown(c.fd, syscall.SHUT_WR)
}

// endWriting: all was written, and the connection is to end.
func (c *Conn) endWriting() {
	if c.Err != 0 || c.EOF {
		c.Close()
		return
	}
	if !c.done {
		c.shutdown()
	}
	c.linger = true
	c.In.release(c.loop)
	c.out.release(c.loop)
	c.Received = 0
	c.loop.Arm(&c.timer, c.loop.Now+lingering, c)
	c.discard()
}

// discard reads and forgets, until the peer ends or the patience does.
func (c *Conn) discard() {
	if c.ringed() {
		c.arm()
		return
	}
	for range 4 {
		if c.Received > lingeringMost {
			if c.hup {
				c.Close()
			}
			return
		}
		b := c.loop.buffers.get(sizes[1])
		n, errno := rawRead(c.fd, b)
		c.loop.buffers.put(b)
		if errno == syscall.EAGAIN {
			return
		}
		c.Received += uint64(n)
		if n == 0 || errno != 0 {
			c.Close()
			return
		}
	}
	c.Again()
}

// Expire implements Expirer: the peer took too long to take or to end.
func (c *Conn) Expire(*Timer) { c.Close() }

// nobody owns connections that only wait for their end.
type nobody struct{}

func (nobody) Ready(c *Conn) {
	if c.Err != 0 {
		c.Close()
	}
}
