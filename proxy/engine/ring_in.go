package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// arming is what the ring does for the input of a Conn.
type arming uint8

const (
	disarmed  arming = iota
	receiving        // multishot receive
	polling          // multishot poll: much comes, it is read in place
	ending           // one of both is being cancelled
	inPlace          // nothing: what is left is read in place
)

const (
	// bulky is how many reads in a row have to be small until a Conn that had
	// large ones gets what comes in small buffers again.
	bulky = 16
)

// begin asks for the first thing of a new connection. The ring waits only for
// sockets that block.
func (c *Conn) begin() error {
	if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, 0); err != nil {
		return err
	}
	if c.Connecting {
		return c.watchOut()
	}
	c.arm()
	return nil
}

// arm asks for what comes.
func (c *Conn) arm() {
	l := c.loop
	if c.fd < 0 || c.EOF || c.Err != 0 || c.Connecting || !l.ring.enabled {
		return
	}
	if c.In.Len() >= c.most() {
		c.more = true // Consume arms it
		return
	}
	if c.armed != disarmed || c.linger && c.Received > lingeringMost {
		return // the end of what is ending arms it again
	}
	if c.bulk > 0 || l.crowded && c.limit < readLimit {
		c.armed = polling
		l.ringPoll(c.fd, l.data(ofPoll, c.fd), unix.EPOLLIN|unix.EPOLLRDHUP, pollMulti)
		return
	}
	c.armed = receiving
	e := l.ring.request(opcodeRecv, c.fd, l.data(ofRecv, c.fd))
	e.flags, e.ioprio = sqeBufferSelect, recvMultishot
}

// disarm ends what arm began; what comes before it ends is still taken.
func (c *Conn) disarm() {
	of := uint64(ofRecv)
	switch c.armed {
	case receiving:
	case polling:
		of = ofPoll
	default:
		return
	}
	c.armed = ending
	e := c.loop.ring.request(opcodeCancel, -1, ofNothing)
	e.addr, e.flags = c.loop.data(of, c.fd), sqeSkipSuccess
}

// thrift has what comes read in place, if no more than a little may: the ring
// would receive what there is.
func (c *Conn) thrift() {
	if c.armed == receiving && c.limit < readLimit {
		c.bulk = bulky
		c.disarm()
	}
}

// received takes what a multishot receive has.
func (c *Conn) received(b []byte, res int32, flags uint32) {
	if flags&cqeMore == 0 {
		c.armed = disarmed
	}
	told := true
	switch errno := syscall.Errno(-res); {
	case res > 0:
		c.Received += uint64(res)
		if c.linger {
			if c.Received > lingeringMost {
				c.disarm()
			}
			break
		}
		c.take(b)
		if len(b) == ringBuffer && flags&cqeNonEmpty != 0 {
			c.bulk = bulky
			c.disarm()
		}
	case res == 0:
		c.ended()
	case errno == syscall.ENOBUFS || errno == syscall.ECANCELED || errno == syscall.EINTR || errno == syscall.EAGAIN:
		told = false
	default:
		c.Err = errno
	}
	if c.linger && (res == 0 || c.Err != 0) {
		c.Close()
		return
	}
	if c.In.Len() >= c.most() {
		c.disarm()
	}
	if c.rearm() || told && !c.linger {
		c.owner.Ready(c)
	}
}

// ended: the peer sends no more.
func (c *Conn) ended() {
	if c.layer == nil {
		c.EOF = true
		return
	}
	c.EOF = c.Shaking
	c.layer.End()
	c.Decrypt()
}

// rearm arms after something ended, or breaks c if that was why it had to end.
func (c *Conn) rearm() (broke bool) {
	if c.failed != 0 && c.armed == disarmed && c.Err == 0 {
		c.broke(c.failed)
		return true
	}
	c.arm()
	return false
}

// readInPlace has what is left read in place before c is broken. False: the
// ring has to end first, and then breaks it.
func (c *Conn) readInPlace(errno syscall.Errno) bool {
	if c.armed == disarmed || c.armed == inPlace {
		c.armed = inPlace
		return true
	}
	c.failed = errno
	c.disarm()
	return false
}

// take puts b into In, through the layer.
func (c *Conn) take(b []byte) {
	if c.layer != nil {
		c.layer.Feed(b)
		c.Decrypt()
		return
	}
	room := c.In.space(c.loop, len(b))
	for len(room) < len(b) { // more was on its way than In has room for
		held := c.In
		c.In = Buffer{b: make([]byte, 2*len(held.b))}
		c.In.w = copy(c.In.b, held.Bytes())
		c.loop.buffers.put(held.b)
		room = c.In.b[c.In.w:]
	}
	c.In.w += copy(room, b)
}

// polled reads where a multishot poll says that there is something.
func (c *Conn) polled(res int32, flags uint32) {
	if flags&cqeMore == 0 {
		c.armed = disarmed
	}
	if res > 0 {
		c.event(uint32(res))
	}
	if c.armed == disarmed && c.rearm() {
		c.owner.Ready(c)
	}
}

// pullRing is pull for a Conn whose input the ring receives.
func (c *Conn) pullRing() {
	c.more = false
	if c.layer != nil {
		c.Decrypt()
	}
	c.arm()
}

// ringed: the ring receives, nobody reads.
func (c *Conn) ringed() bool { return c.loop.ring != nil && c.armed != polling && c.armed != inPlace }

// counted says whether a read of a polled Conn filled all room.
func (c *Conn) counted(whole bool) {
	if whole {
		c.bulk = bulky
	} else if c.bulk > 0 {
		if c.bulk--; c.bulk == 0 {
			c.disarm()
		}
	}
}
