package engine

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What a completion is of: it is in its data with the descriptor and the
// generation of its slot.
const (
	ofNothing = iota
	ofEpoll
	ofRecv
	ofPoll
	ofSend
)

func (l *Loop) data(of uint64, fd int) uint64 {
	return uint64(l.slots[fd].generation)<<32 | of<<28 | uint64(fd)
}

// beginRing makes this thread the ring's, and asks for what was adopted before.
func (l *Loop) beginRing() error {
	if err := l.ring.enable(); err != nil {
		return err
	}
	l.watchEpoll()
	for i := range l.slots {
		if c := l.slots[i].conn; c != nil {
			c.arm()
		}
	}
	return nil
}

// watchEpoll asks once for what epoll has: the bell, listening sockets, sockets
// that were not connected or had no room.
func (l *Loop) watchEpoll() { l.ringPoll(l.poll.fd, ofEpoll<<28, unix.EPOLLIN, 0) }

// endRing hands in the last requests and has all that goes on cancelled.
func (l *Loop) endRing() {
	r := l.ring
	r.request(opcodeCancel, -1, ofNothing).opFlags = cancelAll | cancelAny
	for range 4 {
		r.wait(0)
		atomic.StoreUint32(r.cqHead, atomic.LoadUint32(r.cqTail))
	}
	r.enabled = false
}

func (l *Loop) ringPoll(fd int, data uint64, events uint32, how uint32) {
	e := l.ring.request(opcodePollAdd, fd, data)
	e.opFlags, e.len = events, how
}

// completions waits for what the ring completes, and tells of it.
func (l *Loop) completions(wait int64) error {
	r := l.ring
	for _, c := range l.launched {
		if c.closing || c.half || c.Starved || c.out.Len() > 0 {
			wait = 0 // it goes on when this was sent, and of that nobody tells
			break
		}
	}
	if err := r.wait(wait); err != nil {
		return err
	}
	l.Now = l.clock()
	if len(l.launched) > 0 && r.taken() {
		l.land()
	}
	for head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail); head != tail; head++ {
		err := l.complete(r.cqes[head&(ringEvents-1)])
		atomic.StoreUint32(r.cqHead, head+1)
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) complete(e cqe) error {
	of, fd, generation := e.data>>28&15, int(e.data&(1<<28-1)), uint32(e.data>>32)
	if of == ofEpoll {
		err := l.epoll(0)
		l.watchEpoll()
		return err
	}
	var b []byte
	if e.flags&cqeBuffer != 0 {
		defer l.ring.recycle(uint16(e.flags >> 16))
		b = l.ring.buffer(uint16(e.flags>>16), max(e.res, 0))
	}
	if of == ofNothing {
		return nil
	}
	s := &l.slots[fd]
	if s.generation != generation {
		return nil
	}
	c := s.conn
	switch of {
	case ofRecv:
		c.received(b, e.res, e.flags)
	case ofPoll:
		c.polled(e.res, e.flags)
	case ofSend:
		c.took = e.res // of one that did not land yet
	}
	return nil
}

// held: the ring has something to do with the socket, which would keep it open.
func (c *Conn) held() bool {
	return c.loop.ring != nil && c.loop.ring.enabled && (c.armed != disarmed || c.flying)
}

// letGo has all of that cancelled and the socket closed.
func (c *Conn) letGo() {
	l := c.loop
	e := l.ring.request(opcodeCancel, c.fd, ofNothing)
	e.opFlags, e.flags = cancelAll|cancelFD, sqeSkipSuccess
	l.ring.request(opcodeClose, c.fd, ofNothing).flags = sqeSkipSuccess
}
