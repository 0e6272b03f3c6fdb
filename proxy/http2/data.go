package http2

// body is the rest of a DATA frame, or of a frame that is skipped, whose bytes
// have not come yet.
type body struct {
	stream  *Stream // nil: nobody wants it
	left    uint32
	padding uint32
	end     bool
}

func (c *Conn) onData(f frame, p []byte, ev *Event) *Error {
	if c.idle(f.id) {
		return &Error{ProtocolError, "DATA on an idle stream"}
	}
	if c.recvWindow -= int64(f.length); c.recvWindow < 0 {
		return &Error{FlowControlError, "DATA beyond the window of the connection"}
	}
	data, padding := f.length, uint32(0)
	if f.has(flagPadded) {
		padding = uint32(p[0])
		if padding+1 > f.length {
			return &Error{ProtocolError, "padding longer than its frame"}
		}
		data -= padding + 1
	}
	if data == 0 && !f.has(flagEndStream) {
		if e := c.spend(1, "a flood of empty DATA"); e != nil {
			return e
		}
	}
	s := c.streams.find(f.id)
	if s == nil {
		return c.lateData(f, data+padding)
	}
	if code, reason := c.checkData(s, f, data); code != NoError {
		c.body = body{padding: data + padding}
		c.credit(f.length)
		return c.streamError(f.id, code, reason, ev)
	}
	end := f.has(flagEndStream)
	c.body = body{stream: s, left: data, padding: padding, end: end}
	if rest := f.length - data; rest > 0 {
		c.credit(rest)
		c.creditStream(s, rest)
	}
	if data == 0 {
		if end {
			c.endRemote(s)
			*ev = Event{Kind: Data, Stream: s, End: true}
		}
		c.body.stream = nil
		return nil
	}
	return nil
}

// lateData is DATA on a closed stream: it may come when we reset the stream.
func (c *Conn) lateData(f frame, rest uint32) *Error {
	if !c.mayBeLate(f.id) {
		return &Error{StreamClosed, "DATA on a closed stream"}
	}
	c.body = body{padding: rest}
	c.credit(f.length)
	return c.spend(1, "a flood of DATA on closed streams")
}

// checkData counts a frame against the stream's window and its length.
func (c *Conn) checkData(s *Stream, f frame, data uint32) (Code, string) {
	if s.is(remoteEnd) {
		return StreamClosed, "DATA after the end of the stream"
	}
	if c.cfg.Client && !s.is(headReceived) {
		return ProtocolError, "DATA before the head"
	}
	if int64(s.recvWindow) < int64(f.length) {
		return FlowControlError, "DATA beyond the window of the stream"
	}
	s.recvWindow -= int32(f.length)
	if s.expect >= 0 {
		if s.expect -= int64(data); s.expect < 0 {
			return ProtocolError, "more DATA than Content-Length says"
		}
		if f.has(flagEndStream) && s.expect > 0 {
			return ProtocolError, "less DATA than Content-Length says"
		}
	}
	return NoError, ""
}

// readBody passes on what there is of the rest of a frame.
func (c *Conn) readBody(in []byte, ev *Event) int {
	b := &c.body
	if b.stream == nil {
		n := min(b.left, uint32(len(in)))
		b.left -= n
		m := min(b.padding, uint32(len(in))-n)
		b.padding -= m
		return int(n + m)
	}
	n := min(b.left, uint32(len(in)))
	if n == 0 {
		return 0
	}
	b.left -= n
	s := b.stream
	s.held += n
	*ev = Event{Kind: Data, Stream: s, Data: in[:n:n]}
	if b.left == 0 {
		b.stream = nil
		if b.end {
			ev.End = true
			c.endRemote(s)
		}
	}
	return int(n)
}

// forgetBody gives up the rest of a DATA frame of a stream that goes away.
func (c *Conn) forgetBody(s *Stream) {
	if c.body.stream == s && s != nil {
		c.body.stream = nil
		c.credit(c.body.left)
	}
}

func (c *Conn) endRemote(s *Stream) {
	s.flags |= remoteEnd
	c.closeIfDone(s)
}

// Consumed says that n bytes of Data of s were passed on: it opens the windows
// again. The frames for that are batched. What was not consumed is given back to
// the connection on Release.
func (c *Conn) Consumed(s *Stream, n int) {
	m := min(uint32(n), s.held)
	s.held -= m
	c.credit(m)
	if !s.is(remoteEnd) && s.is(listed) {
		c.creditStream(s, m)
	}
}

func (c *Conn) creditStream(s *Stream, n uint32) {
	s.unacked += n
	if s.unacked > 0 && s.unacked >= c.cfg.InitialWindow/2 && !s.is(remoteEnd) {
		c.writeWindow(s.ID, s.unacked)
		s.recvWindow += int32(s.unacked)
		s.unacked = 0
	}
}

func (c *Conn) credit(n uint32) {
	c.unacked += n
	if c.unacked >= c.cfg.ConnWindow/2 {
		c.writeWindow(0, c.unacked)
		c.recvWindow += int64(c.unacked)
		c.unacked = 0
	}
}
