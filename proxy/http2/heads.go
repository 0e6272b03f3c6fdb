package http2

import (
	"encoding/binary"

	"moire.dev/moire/proxy/http2/hpack"
)

// block is a field block that is not complete.
type block struct {
	id      uint32 // 0: none
	end     bool   // END_STREAM
	selfDep bool   // its priority depends on itself
	frames  int
	buf     []byte
}

func (c *Conn) onHeaders(f frame, p []byte, ev *Event) *Error {
	if c.ours(f.id) != c.cfg.Client || f.id&1 == 0 {
		return &Error{ProtocolError, "HEADERS on a stream that the peer may not open"}
	}
	padding := 0
	if f.has(flagPadded) {
		if len(p) == 0 {
			return &Error{FrameSizeError, "HEADERS without the length of its padding"}
		}
		padding = int(p[0])
		p = p[1:]
	}
	selfDep := false
	if f.has(flagPriority) {
		if len(p) < 5 {
			return &Error{FrameSizeError, "HEADERS without its priority"}
		}
		selfDep = binary.BigEndian.Uint32(p)&maxWindow == f.id
		p = p[5:]
	}
	if padding > len(p) {
		return &Error{ProtocolError, "padding longer than its frame"}
	}
	p = p[:len(p)-padding]
	b := &c.block
	*b = block{id: f.id, end: f.has(flagEndStream), selfDep: selfDep, frames: 1, buf: b.buf[:0]}
	if f.has(flagEndHeaders) {
		return c.onBlock(p, ev)
	}
	b.buf = append(b.buf, p...)
	return c.checkBlock()
}

func (c *Conn) onContinuation(f frame, p []byte, ev *Event) *Error {
	b := &c.block
	if b.id == 0 {
		return &Error{ProtocolError, "CONTINUATION without HEADERS"}
	}
	b.frames++
	b.buf = append(b.buf, p...)
	if e := c.checkBlock(); e != nil || !f.has(flagEndHeaders) {
		return e
	}
	return c.onBlock(b.buf, ev)
}

// checkBlock bounds what is kept of a block (CVE-2024-27316 and its like).
func (c *Conn) checkBlock() *Error {
	if c.block.frames > c.cfg.MaxBlockFrames {
		return &Error{EnhanceYourCalm, "a field block of too many frames"}
	}
	if len(c.block.buf) > c.cfg.MaxHead {
		return &Error{EnhanceYourCalm, "a field block larger than the largest head"}
	}
	return nil
}

// onBlock takes a whole field block of the stream that c.block says.
func (c *Conn) onBlock(p []byte, ev *Event) *Error {
	b := c.block
	c.block = block{buf: b.buf[:0]}
	if cap(b.buf) > keptStash {
		c.block.buf = nil
	}
	if c.cfg.Client && c.idle(b.id) {
		return &Error{ProtocolError, "HEADERS on an idle stream"}
	}
	if !c.cfg.Client && b.id > c.peerLast {
		return c.newRequest(b, p, ev)
	}
	s := c.streams.find(b.id)
	switch {
	case s == nil:
		if !c.mayBeLate(b.id) {
			return &Error{StreamClosed, "HEADERS on a closed stream"}
		}
		if e := c.skipBlock(p); e != nil {
			return e
		}
		return c.spend(1, "a flood of HEADERS on closed streams")
	case s.is(remoteEnd):
		if e := c.skipBlock(p); e != nil {
			return e
		}
		return c.streamError(b.id, StreamClosed, "HEADERS after the end of the stream", ev)
	case s.is(headReceived):
		return c.trailers(s, b, p, ev)
	}
	return c.answer(s, b, p, ev)
}

// skipBlock decodes a block for the sake of the dynamic table alone.
func (c *Conn) skipBlock(p []byte) *Error {
	s := c.pool.get()
	defer c.pool.put(s)
	c.reading.start(readNothing)
	return c.decode(s, p)
}

func (c *Conn) newRequest(b block, p []byte, ev *Event) *Error {
	c.peerLast = b.id
	if b.id > c.goingAway {
		if e := c.skipBlock(p); e != nil {
			return e
		}
		return c.spend(1, "a flood of requests after GOAWAY")
	}
	if uint32(c.streams.count) >= c.cfg.MaxStreams || c.held >= 2*c.cfg.MaxStreams {
		if e := c.skipBlock(p); e != nil {
			return e
		}
		return c.refuse(b.id, RefusedStream, "too many streams", ev)
	}
	s := c.pool.get()
	s.ID = b.id
	r := &c.reading
	r.start(readRequest)
	if e := c.decode(s, p); e != nil {
		c.pool.put(s)
		return e
	}
	if r.fault == "" && !r.large {
		r.fault = c.request(s, b.end)
	}
	if b.selfDep && r.fault == "" {
		r.fault = "a stream that depends on itself"
	}
	switch {
	case r.fault != "":
		c.pool.put(s)
		return c.refuse(b.id, ProtocolError, r.fault, ev)
	case r.large:
		c.pool.put(s)
		return c.reject(b, 431, "the head is too large", ev)
	case r.expect:
		c.pool.put(s)
		return c.reject(b, 417, "an expectation other than 100-continue", ev)
	case c.heads+len(s.arena) > c.cfg.MaxHeads:
		c.pool.put(s)
		return c.refuse(b.id, RefusedStream, "the heads of all streams are too large", ev)
	}
	s.heavy = len(s.arena)
	c.heads += s.heavy
	s.flags = listed | owned | headReceived | requestFlags(&s.Head)
	if b.end {
		s.flags |= remoteEnd
	}
	s.born = c.now
	s.recvWindow, s.sendWindow = c.recvInit, c.sendInit
	c.streams.add(s)
	c.held++
	c.control.give(2, c.cfg.ControlBurst)
	*ev = Event{Kind: Head, Stream: s, ID: s.ID, End: b.end}
	return nil
}

// refuse resets a request that never became a stream of the owner.
func (c *Conn) refuse(id uint32, code Code, reason string, ev *Event) *Error {
	if !c.overlook() {
		return &Error{EnhanceYourCalm, "the peer makes us refuse requests too fast"}
	}
	*ev = Event{Kind: Refused, ID: id, Code: code, Reason: reason}
	return c.writeReset(id, code)
}

// reject answers a request that never became a stream of the owner.
func (c *Conn) reject(b block, status int, reason string, ev *Event) *Error {
	cost := int32(1)
	if status == 431 {
		cost = tooLarge
	}
	if !c.abuse.take(cost, c.cfg.ResetBurst, c.cfg.ResetRate, c.now) {
		return &Error{EnhanceYourCalm, "the peer makes us refuse requests too fast"}
	}
	start := c.beginBlock()
	c.out = c.enc.Status(c.out, status)
	c.endBlock(start, b.id, true)
	*ev = Event{Kind: Refused, ID: b.id, Status: status, Reason: reason}
	if b.end {
		return c.owe(len(c.out) - start)
	}
	return c.writeReset(b.id, NoError)
}

// tooLarge is what a head that is too large costs of the budget of resets: it had
// to be decompressed to its end.
const tooLarge = 20

// bomb is how many times the largest head one may be that is decoded to its end,
// so that the connection can go on: nobody sends more in good faith.
const bomb = 4

const maxInterim = 32

// answer is a head on a stream that we opened.
func (c *Conn) answer(s *Stream, b block, p []byte, ev *Event) *Error {
	r := &c.reading
	r.start(readAnswer)
	s.Head.Reset()
	s.arena = s.arena[:0]
	if e := c.decode(s, p); e != nil {
		return e
	}
	if r.large {
		r.fault = "the head is too large"
	}
	if r.fault == "" {
		r.fault = c.answerHead(s, b.end)
	}
	if r.fault == "" && s.Head.Status < 200 {
		if s.interim++; s.interim > maxInterim {
			r.fault = "too many interim answers"
		}
	}
	if r.fault != "" {
		return c.streamError(b.id, ProtocolError, r.fault, ev)
	}
	if s.Head.Status >= 200 {
		s.flags |= headReceived
	}
	if b.end {
		c.endRemote(s)
	}
	c.control.give(2, c.cfg.ControlBurst)
	*ev = Event{Kind: Head, Stream: s, ID: s.ID, End: b.end}
	return nil
}

func (c *Conn) trailers(s *Stream, b block, p []byte, ev *Event) *Error {
	r := &c.reading
	r.start(readTrailers)
	if e := c.decode(s, p); e != nil {
		return e
	}
	switch {
	case r.fault != "":
	case r.large:
		r.fault = "the trailers are too large"
	case !b.end:
		r.fault = "a second head that does not end the stream"
	case s.expect > 0:
		r.fault = "less DATA than Content-Length says"
	}
	if r.fault != "" {
		return c.streamError(b.id, ProtocolError, r.fault, ev)
	}
	c.endRemote(s)
	*ev = Event{Kind: Trailers, Stream: s, ID: s.ID, End: true}
	return nil
}

// decode reads a block into s. What is wrong with the head is left in
// c.reading; an error is one of the compression.
func (c *Conn) decode(s *Stream, p []byte) *Error {
	r, d := &c.reading, &c.dec
	d.Begin(p)
	d.Discard = r.what == readNothing
	arena := s.arena
	var f hpack.Field
	for d.More() {
		mark := len(arena)
		var found bool
		var err error
		if arena, found, err = d.Next(&f, arena); err != nil {
			return &Error{CompressionError, err.Error()}
		}
		if !found {
			break
		}
		if d.Discard {
			arena = arena[:mark]
			continue
		}
		if r.size += f.Size(); r.size > bomb*c.cfg.MaxHead {
			return &Error{EnhanceYourCalm, "a head that grows without end"}
		} else if r.size > c.cfg.MaxHead {
			r.large = true
		} else {
			r.field(s, &f, c.cfg.MaxFields)
		}
		d.Discard = r.large || r.fault != ""
	}
	s.arena = r.joinCookies(s, arena)
	c.decoded += uint64(r.size)
	return nil
}
