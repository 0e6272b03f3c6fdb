package http2

// Next reads from in until there is an event, and says how many bytes it used.
// An Event of kind NeedMore means that all of in was used. When the connection
// ends, a Reset of every open stream comes first, then the error.
func (c *Conn) Next(in []byte, now int64) (ev Event, n int, err error) {
	c.now = now
	for {
		if c.lost != nil {
			c.popLost(&ev)
			return ev, n, nil
		}
		if c.err != nil {
			return Event{}, n, c.err
		}
		if c.body.left > 0 || c.body.padding > 0 {
			if n += c.readBody(in[n:], &ev); ev.Kind != NeedMore {
				return ev, n, nil
			}
		}
		if c.preface < len(Preface) {
			n += c.readPreface(in[n:])
			if c.err != nil {
				continue
			}
		}
		head, payload, used, ok := c.nextFrame(in[n:])
		n += used
		if !ok {
			if c.err != nil {
				continue
			}
			return ev, n, nil
		}
		if e := c.handle(head, payload, &ev); e != nil {
			c.fail(e)
			continue
		}
		if ev.Kind != NeedMore {
			return ev, n, nil
		}
	}
}

func (c *Conn) readPreface(in []byte) int {
	n := min(len(Preface)-c.preface, len(in))
	if string(in[:n]) != Preface[c.preface:c.preface+n] {
		c.fail(&Error{ProtocolError, "the connection does not start with the preface of HTTP/2"})
		return n
	}
	c.preface += n
	return n
}

// nextFrame finds a frame whose payload is whole; of DATA, and of frames that
// are skipped, only the head and the length of the padding. What is cut off is
// kept in the stash. The payload is valid until the next call.
func (c *Conn) nextFrame(in []byte) (f frame, payload []byte, used int, ok bool) {
	if len(c.stash) == 0 {
		need, ok := c.need(in)
		if ok && len(in) >= need {
			return parseFrame(in), in[frameHead:need], need, true
		}
		if c.err == nil && len(in) > 0 {
			c.stash = append(c.stash, in...)
		}
		return f, nil, len(in), false
	}
	for {
		need, ok := c.need(c.stash)
		if c.err != nil {
			return f, nil, used, false
		}
		if ok && len(c.stash) >= need {
			f, payload = parseFrame(c.stash), c.stash[frameHead:need]
			if c.stash = c.stash[:0]; cap(c.stash) > keptStash {
				c.stash = nil
			}
			return f, payload, used, true
		}
		take := min(need-len(c.stash), len(in)-used)
		if take == 0 {
			return f, nil, used, false
		}
		c.stash = append(c.stash, in[used:used+take]...)
		used += take
	}
}

// need is how many bytes of the frame at the start of b have to be there before
// it is handled; ok is false when not even its head is there.
func (c *Conn) need(b []byte) (n int, ok bool) {
	if len(b) < frameHead {
		return frameHead, false
	}
	f := parseFrame(b)
	if e := c.checkFrame(&f); e != nil {
		c.fail(e)
		return 0, false
	}
	switch {
	case f.kind == frameData:
		if f.has(flagPadded) {
			return frameHead + 1, true
		}
		return frameHead, true
	case f.kind > frameContinuation:
		return frameHead, true
	}
	return frameHead + int(f.length), true
}

// checkFrame says whether a frame may come now at all.
func (c *Conn) checkFrame(f *frame) *Error {
	if !c.settled && (f.kind != frameSettings || f.has(flagAck)) {
		return &Error{ProtocolError, "the first frame is not SETTINGS"}
	}
	if c.block.id != 0 && (f.kind != frameContinuation || f.id != c.block.id) {
		return &Error{ProtocolError, "a field block is not continued"}
	}
	if f.kind == frameData && f.has(flagPadded) && f.length == 0 {
		return &Error{FrameSizeError, "DATA without the length of its padding"}
	}
	return f.check(c.cfg.MaxFrame)
}

func (c *Conn) handle(f frame, p []byte, ev *Event) *Error {
	switch f.kind {
	case frameData:
		return c.onData(f, p, ev)
	case frameHeaders:
		return c.onHeaders(f, p, ev)
	case frameContinuation:
		return c.onContinuation(f, p, ev)
	case framePriority:
		return c.onPriority(f, p, ev)
	case frameReset:
		return c.onReset(f, p, ev)
	case frameSettings:
		return c.onSettings(f, p, ev)
	case framePush:
		return &Error{ProtocolError, "PUSH_PROMISE, which we do not allow"}
	case framePing:
		return c.onPing(f, p, ev)
	case frameGoAway:
		return c.onGoAway(p, ev)
	case frameWindow:
		return c.onWindow(f, p, ev)
	}
	c.body = body{padding: f.length}
	return c.spend(1, "a flood of frames of unknown types")
}

// fail ends the connection: it writes GOAWAY once.
func (c *Conn) fail(e *Error) {
	if c.err == nil {
		c.writeGoAway(c.peerLast, e.Code, e.Reason)
		c.end(e)
	}
}

func (c *Conn) end(e *Error) {
	c.err = e
	for i := 0; i < len(c.streams.slots); {
		if s := c.streams.slots[i]; s != nil {
			// The slot may hold another stream after this.
			c.lose(s, e.Code, e.Reason)
		} else {
			i++
		}
	}
}

// End says that the transport is gone, and why. Next gives a Reset of every open
// stream then, and the error.
func (c *Conn) End(reason string) {
	if c.err == nil {
		c.end(&Error{InternalError, reason})
	}
}

// spend takes from the budget of control frames.
func (c *Conn) spend(cost int32, reason string) *Error {
	if !c.control.take(cost, c.cfg.ControlBurst, c.cfg.ControlRate, c.now) {
		return &Error{EnhanceYourCalm, reason}
	}
	return nil
}
