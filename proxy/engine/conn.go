package engine

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// readLimit is how many bytes of input wait in a Conn before it stops
	// reading; writeLimit is the same for output.
	readLimit  = 64 << 10
	writeLimit = 64 << 10
	// scantLimit is readLimit for a Conn that has a smaller one, in a crowd.
	scantLimit = 4 << 10
	// unsentLimit is how many bytes wait in the kernel beyond what is on the wire:
	// without it that is megabytes for a peer that reads nothing, and long until
	// we notice.
	unsentLimit = 256 << 10
	// direct is the least that is written from where it is, without a copy.
	direct = 8 << 10
)

// Owner is who a Conn belongs to.
type Owner interface {
	// Ready: bytes came, or the end, or an error, or room to write, or the
	// connection was made. It is called in the loop, not on a task.
	Ready(c *Conn)
}

// Conn is a connected socket with bounded buffers both ways. It reads as soon
// as bytes come, until readLimit of them wait, and writes once at the end of a
// turn what was put in meanwhile.
type Conn struct {
	// In holds what was received and not yet consumed; take with Consume.
	In Buffer
	// EOF: the peer sends no more, after In.
	EOF bool
	// Err is why the connection is broken; 0: it is not.
	Err syscall.Errno
	// Fault is what a Layer found wrong.
	Fault error
	// Shaking: the layer is not up yet; its owner is told of bytes for it.
	Shaking bool
	// Connecting until a dialled connection is made or Err is set.
	Connecting bool
	// Starved: the owner is told when there is room to write again.
	Starved bool
	// Local and Peer are the ends.
	Local, Peer netip.AddrPort
	// Received and Sent count bytes of the wire.
	Received, Sent uint64
	// BlockedAt is since when the peer takes nothing; 0: it takes.
	BlockedAt int64

	loop    *Loop
	fd      int
	owner   Owner
	layer   Layer
	out     Buffer
	raw     Buffer // from the wire, for the layer
	want    int    // size of the next buffer to read into
	limit   int    // of what waits in In
	more    bool   // the kernel may have more to read
	queued  bool   // in loop.again
	dirty   bool   // in loop.dirty
	hup     bool
	closing bool // close when out is written
	half    bool // shut down the write side when out is written
	done    bool // the write side is shut down
	linger  bool // discards what comes
	lent    bool // a Pipe takes what comes
	pipes   int8 // that it is an end of
	flood   int8 // large reads in a row
	timer   Timer

	// With a ring only.
	fly     Buffer        // is sent when the ring is entered
	flying  bool          // it did not land yet
	sealed  bool          // fly is the layer's
	took    int32         // how much of fly, or what error
	failed  syscall.Errno // what Err will be when all was read
	watched bool          // epoll knows it
	armed   arming        // what brings input
	bulk    uint8         // reads that have to be small until armed changes
}

const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

// Adopt makes fd, a connected non-blocking stream socket, a Conn of l.
func (l *Loop) Adopt(fd int, local, peer netip.AddrPort, owner Owner) (*Conn, error) {
	return l.newConn(fd, &Conn{owner: owner, Local: local, Peer: peer})
}

func (l *Loop) newConn(fd int, c *Conn) (*Conn, error) {
	c.loop, c.fd, c.want, c.limit = l, fd, sizes[0], readLimit
	events := uint32(interest)
	if l.ring != nil {
		events = 0
	}
	err := l.adopt(fd, c, nil, events)
	if err == nil && l.ring != nil {
		err = c.begin()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Loop is whose c is.
func (c *Conn) Loop() *Loop { return c.loop }

// SetOwner hands c to another owner.
func (c *Conn) SetOwner(o Owner) { c.owner = o }

// Closed says whether Close was called.
func (c *Conn) Closed() bool { return c.fd < 0 }

// Broken: nothing can be written any more.
func (c *Conn) Broken() bool { return c.fd < 0 || c.Err != 0 || c.Fault != nil }

// Limit sets how many bytes wait in In before reading stops; 0: as in the
// beginning. A Conn with less than that has still less in a crowd.
func (c *Conn) Limit(n int) {
	if n == 0 {
		n = readLimit
	}
	if c.limit = n; c.loop.crowded {
		c.thrift()
	}
	c.Resume()
}

// most is how many bytes wait in In.
func (c *Conn) most() int {
	if c.loop.crowded && c.limit < readLimit {
		return min(scantLimit, c.limit)
	}
	return c.limit
}

// Acked is how many bytes of the wire the peer has taken.
func (c *Conn) Acked() uint64 {
	left := 0
	if c.fd >= 0 {
		left, _ = unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	}
	return c.Sent - min(uint64(left), c.Sent)
}

// Again has the owner told in the next turn.
func (c *Conn) Again() {
	if !c.queued && c.fd >= 0 {
		c.queued = true
		c.loop.again = append(c.loop.again, c)
	}
}

// Consume takes n bytes of In; when In was full, reading goes on.
func (c *Conn) Consume(n int) {
	c.In.Consume(n)
	if c.more {
		c.Resume()
	}
}

// Resume reads in the next turn if there may be something.
func (c *Conn) Resume() {
	if c.more && !c.queued && c.fd >= 0 && c.In.Len() < c.most() {
		if c.ringed() && c.layer == nil {
			c.pullRing()
			return
		}
		c.Again()
	}
}

// Rest gives back the memory of a connection on which nothing happens; that of
// its output goes when it is written.
func (c *Conn) Rest() {
	if c.In.Len() == 0 {
		c.In.release(c.loop)
		c.want = sizes[0]
	}
	if c.layer != nil && c.In.Len() == 0 && c.out.Len() == 0 {
		c.layer.Rest()
	}
}

func (c *Conn) event(events uint32) {
	if c.Connecting {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return
		}
		c.Connecting = false
		if v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || v != 0 {
			c.Err = syscall.Errno(v)
			if v == 0 {
				c.Err = syscall.EIO
			}
			c.owner.Ready(c)
			return
		}
		c.touch()
		if c.loop.ring != nil {
			c.arm()
		}
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.hup = true
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.pull()
	}
	if events&unix.EPOLLOUT != 0 && c.BlockedAt != 0 {
		c.BlockedAt = 0
		c.touch()
	}
	if c.fd >= 0 && !c.linger {
		c.owner.Ready(c)
	}
}

// pull reads once.
func (c *Conn) pull() {
	if c.linger {
		c.discard()
		return
	}
	if c.EOF || c.Err != 0 || c.Connecting {
		return
	}
	if c.ringed() {
		c.pullRing()
		return
	}
	if c.layer != nil {
		c.pullLayer()
		return
	}
	if c.lent || c.In.Len() >= c.most() {
		c.more = true
		return
	}
	n, whole := c.read(&c.In)
	c.more = n > 0 && (whole || c.hup)
	c.Resume()
}

// read reads once into b and says whether it filled all room.
func (c *Conn) read(b *Buffer) (n int, whole bool) {
	if b.b == nil {
		b.b = c.loop.buffers.get(c.want)
	}
	left := c.most() - b.Len()
	room := b.b[b.w:]
	if len(room) < min(len(b.b)/4, left) {
		room = b.space(c.loop, min(c.want/2, left))
	}
	room = room[:min(len(room), left)]
	n, errno := rawRead(c.fd, room)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		if b.Len() == 0 {
			b.release(c.loop)
		}
		return 0, false
	case errno != 0:
		c.Err = errno
		return 0, false
	case n == 0:
		c.EOF = true
		return 0, false
	}
	b.w += n
	c.Received += uint64(n)
	if n == len(room) && c.want < c.most() {
		c.want *= 4
		if b.Len() == n && b.r == 0 { // all of it is new: the next read gets more room
			b.space(c.loop, c.want-b.Len())
		}
	}
	if n < bulkyRead {
		c.flood = 0
	} else if c.flood < flooded {
		c.flood++
	}
	if c.armed == polling && c.pipes == 0 {
		c.counted(n == len(room))
	}
	return n, n == len(room)
}
