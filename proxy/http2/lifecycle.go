package http2

import "encoding/binary"

// Open makes a stream on a client's connection; WriteHead then sends the
// request. It counts until Release.
func (c *Conn) Open() (*Stream, error) {
	if c.err != nil || c.draining || c.peerGone || c.nextID > maxWindow {
		return nil, ErrGoingAway
	}
	if c.Free() <= 0 {
		return nil, ErrTooManyStreams
	}
	s := c.pool.get()
	s.flags = owned
	s.expect = -1
	c.held++
	return s, nil
}

// Free is how many more streams Open gives now.
func (c *Conn) Free() int {
	return int(min(c.peerStreams, c.cfg.MaxStreams)) - int(c.held)
}

// PeerMaxStreams is how many streams the peer allows; before its settings came
// it is taken to be 100.
func (c *Conn) PeerMaxStreams() uint32 { return c.peerStreams }

// PeerConnect says whether the peer takes extended CONNECT (RFC 8441).
func (c *Conn) PeerConnect() bool { return c.peerConnect }

// Ready says whether the peer's settings came.
func (c *Conn) Ready() bool { return c.settled }

// Usable says whether Open may give streams, now or when others end.
func (c *Conn) Usable() bool {
	return c.err == nil && !c.draining && !c.peerGone && c.nextID <= maxWindow
}

// Reset ends a stream at once, both ways. The owner still has to Release it.
func (c *Conn) Reset(s *Stream, code Code) {
	if s.is(listed) {
		c.drop(s, code, "reset by us")
		// Our own wish; it is not the peer's fault if Out is full.
		_ = c.writeReset(s.ID, code)
	}
	s.flags |= aborted
}

// Release gives a stream back: the owner must not use it any more. If it has not
// ended, it is reset: with NO_ERROR if only the rest of a request is not wanted
// (RFC 9113, 8.1), else with CANCEL.
func (c *Conn) Release(s *Stream) {
	if !s.is(owned) {
		return
	}
	if s.is(listed) {
		code := Cancel
		if !c.cfg.Client && s.is(localEnd) {
			code = NoError
		}
		c.Reset(s, code)
	}
	if s.is(isLost) {
		c.removeLost(s)
	}
	c.forgetBody(s)
	c.credit(s.held)
	c.heads -= s.heavy
	c.held--
	c.pool.put(s)
}

// Rest gives back the memory of a connection that has had no stream for a while.
func (c *Conn) Rest() {
	if c.streams.count > 0 || c.held > 0 || c.Partial() {
		return
	}
	c.stash, c.block.buf, c.reading.crumbs, c.streams.slots = nil, nil, nil, nil
}

// Ping sends a PING with a number, which the Pong event brings back.
func (c *Conn) Ping(number uint64) {
	c.frame(8, framePing, 0, 0)
	c.out = binary.BigEndian.AppendUint64(c.out, number)
}

// GoAway says that we take no streams beside those we have, and why. Streams that
// the peer opens later are ignored.
func (c *Conn) GoAway(code Code, debug string) {
	c.draining = true
	c.writeGoAway(c.peerLast, code, debug)
}

func (c *Conn) writeGoAway(last uint32, code Code, debug string) {
	last = min(last, c.goingAway)
	c.goingAway = last
	c.frame(8+len(debug), frameGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
	c.out = append(c.out, debug...)
}

// Drain ends the connection gracefully. A server first says that it will go
// away, and when the peer has heard that (a PING came back, or Drain is called
// again because it did not) which stream was the last. The connection is over
// when Drained.
func (c *Conn) Drain() {
	switch {
	case c.err != nil:
	case c.draining:
		c.finishDrain()
	case c.cfg.Client:
		c.GoAway(NoError, "")
	default:
		c.draining = true
		c.writeGoAway(maxWindow, NoError, "")
		c.Ping(drainPing)
	}
}

func (c *Conn) finishDrain() {
	if c.goingAway == maxWindow {
		c.writeGoAway(c.peerLast, NoError, "")
	}
}

// Drained says whether the connection is going away and nothing is left to do:
// write Out, then close.
func (c *Conn) Drained() bool {
	gone := c.draining && c.goingAway != maxWindow || c.peerGone
	return c.err != nil || gone && c.held == 0
}

func (c *Conn) onGoAway(p []byte, ev *Event) *Error {
	last, code := binary.BigEndian.Uint32(p)&maxWindow, Code(binary.BigEndian.Uint32(p[4:]))
	if e := c.spend(2, "a flood of GOAWAY"); e != nil {
		return e
	}
	if last > c.peerLimit {
		return &Error{ProtocolError, "GOAWAY with a higher last stream than before"}
	}
	c.peerLimit, c.peerGone = last, true
	*ev = Event{Kind: GoAway, Code: code, Last: last}
	if len(p) > 8 {
		ev.Data = p[8:]
	}
	if !c.cfg.Client {
		return nil
	}
	for i := 0; i < len(c.streams.slots); {
		s := c.streams.slots[i]
		if s == nil || s.ID <= last {
			i++
			continue
		}
		// The slot may hold another stream after this.
		c.lose(s, RefusedStream, "not processed before GOAWAY")
	}
	return nil
}

// lose drops a stream and makes its Reset event due.
func (c *Conn) lose(s *Stream, code Code, reason string) {
	c.drop(s, code, reason)
	s.flags |= isLost
	s.next, c.lost = c.lost, s
}

func (c *Conn) popLost(ev *Event) {
	s := c.lost
	c.lost, s.next = s.next, nil
	s.flags &^= isLost
	*ev = Event{Kind: Reset, Stream: s, ID: s.ID, Code: s.code, Local: s.code != RefusedStream,
		Unprocessed: s.code == RefusedStream, Reason: s.reason}
}

func (c *Conn) removeLost(s *Stream) {
	for p := &c.lost; *p != nil; p = &(*p).next {
		if *p == s {
			*p = s.next
			return
		}
	}
}
