package http2

// Room is how many bytes WriteData would take now.
func (c *Conn) Room(s *Stream) int {
	if s.is(localEnd|aborted) || !s.is(headSent) || c.err != nil {
		return 0
	}
	return max(0, min(int(s.sendWindow), int(c.sendWindow), c.cfg.MaxOut-(len(c.out)-c.sent)))
}

// WriteData writes as much of p as the windows and the bound on Out allow, and
// says how much. End says that nothing follows p: when all of p was taken, our
// side of the stream ends. When less was taken, Writable will name the stream
// once there is room; now is the time, for Stalled.
func (c *Conn) WriteData(s *Stream, p []byte, end bool, now int64) int {
	if s.is(localEnd|aborted) || !s.is(headSent) || c.err != nil {
		return 0
	}
	n := min(len(p), c.Room(s))
	last := n == len(p)
	c.reserve(n + frameHead*(1+n/defaultFrame))
	for at := 0; at < n || at == 0 && last && end && n == 0; {
		size := min(n-at, int(c.peerFrame), defaultFrame)
		flags := uint8(0)
		if end && last && at+size == n {
			flags = flagEndStream
		}
		c.out = append(appendFrame(c.out, size, frameData, flags, s.ID), p[at:at+size]...)
		c.control.give(4, c.cfg.ControlBurst)
		if at += size; size == 0 {
			break
		}
	}
	s.sendWindow -= int32(n)
	c.sendWindow -= int32(n)
	if !last {
		if n > 0 || !s.is(blocked) {
			s.since = now
		}
		c.wait(s)
		return n
	}
	c.unblock(s)
	if end {
		s.flags |= localEnd
		c.closeIfDone(s)
	}
	return n
}

// wait notes that s waits. It queues s when its own window is not what it waits
// for.
func (c *Conn) wait(s *Stream) {
	if !s.is(blocked) {
		s.flags |= blocked
		c.waiting++
	}
	if s.sendWindow > 0 {
		c.ready.add(s)
	}
}

func (c *Conn) unblock(s *Stream) {
	if s.is(blocked) {
		s.flags &^= blocked
		c.waiting--
	}
	c.ready.remove(s)
}

// Shut says whether the peer's windows let a stream write nothing.
func (c *Conn) Shut(s *Stream) bool { return s.sendWindow <= 0 || c.sendWindow <= 0 }

// Waiting is how many streams could not write all that they wanted to.
func (c *Conn) Waiting() int { return c.waiting }

// wake queues a stream whose own window opened; it says whether it may write
// now.
func (c *Conn) wake(s *Stream) bool {
	if !s.is(blocked) || s.sendWindow <= 0 {
		return false
	}
	c.ready.add(s)
	return c.sendWindow > 0
}

// Writable is the next stream that waits and may write now, in turn; nil: none.
// It is asked after Sent and after Window, Settings and Data events, until nil. A
// stream that then again writes less than it wants is queued anew.
func (c *Conn) Writable() *Stream {
	if c.sendWindow <= 0 || len(c.out)-c.sent >= c.cfg.MaxOut || c.err != nil {
		return nil
	}
	for s := c.ready.first; s != nil; s = c.ready.first {
		c.ready.remove(s)
		if s.sendWindow > 0 { // it may have shrunk since
			return s
		}
	}
	return nil
}

// queue is a list of streams, first come first served.
type queue struct{ first, last *Stream }

func (q *queue) add(s *Stream) {
	if s.is(queued) {
		return
	}
	s.flags |= queued
	s.prev, s.next = q.last, nil
	if q.last == nil {
		q.first = s
	} else {
		q.last.next = s
	}
	q.last = s
}

func (q *queue) remove(s *Stream) {
	if !s.is(queued) {
		return
	}
	s.flags &^= queued
	if s.prev == nil {
		q.first = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		q.last = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}
