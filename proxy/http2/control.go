package http2

import "encoding/binary"

// onPriority reads and ignores a PRIORITY frame (RFC 9113, 5.3.2).
func (c *Conn) onPriority(f frame, p []byte, ev *Event) *Error {
	if len(p) != 5 {
		return c.streamError(f.id, FrameSizeError, "PRIORITY of a wrong size", ev)
	}
	if binary.BigEndian.Uint32(p)&maxWindow == f.id {
		return c.streamError(f.id, ProtocolError, "a stream that depends on itself", ev)
	}
	return c.spend(1, "a flood of PRIORITY frames")
}

func (c *Conn) onReset(f frame, p []byte, ev *Event) *Error {
	if c.idle(f.id) {
		return &Error{ProtocolError, "RST_STREAM on an idle stream"}
	}
	s := c.streams.find(f.id)
	if s == nil {
		return c.spend(1, "a flood of RST_STREAM frames on closed streams")
	}
	code := Code(binary.BigEndian.Uint32(p))
	// Who waited long, or has the answer, had a reason to go.
	if early := c.now-s.born < grown && !s.is(localEnd); early && !c.cfg.Client && !c.overlook() {
		return &Error{EnhanceYourCalm, "the peer resets streams too fast"}
	}
	c.drop(s, code, "reset by the peer")
	*ev = Event{Kind: Reset, Stream: s, ID: s.ID, Code: code, Unprocessed: code == RefusedStream, Reason: s.reason}
	return nil
}

func (c *Conn) onSettings(f frame, p []byte, ev *Event) *Error {
	if e := c.spend(2+int32(len(p)/6), "a flood of SETTINGS"); e != nil {
		return e
	}
	if f.has(flagAck) {
		c.onSettingsAck()
		return nil
	}
	c.settled = true
	for ; len(p) > 0; p = p[6:] {
		if e := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); e != nil {
			return e
		}
	}
	c.frame(0, frameSettings, flagAck, 0)
	ev.Kind = Settings
	return c.owe(frameHead)
}

// onSettingsAck puts into force what may only count once the peer knows it.
func (c *Conn) onSettingsAck() {
	if c.acked {
		return
	}
	c.acked = true
	c.dec.Limit(uint32(c.cfg.HeaderTable))
	delta := int32(c.cfg.InitialWindow) - c.recvInit
	c.recvInit += delta
	for _, s := range c.streams.slots {
		if s != nil {
			s.recvWindow += delta
		}
	}
}

func (c *Conn) setting(name uint16, v uint32) *Error {
	switch name {
	case settingTable:
		c.enc.Limit(v)
	case settingPush:
		if v > 1 || v == 1 && c.cfg.Client {
			return &Error{ProtocolError, "SETTINGS_ENABLE_PUSH of a wrong value"}
		}
	case settingStreams:
		c.peerStreams = v
	case settingWindow:
		return c.setSendInit(v)
	case settingFrame:
		if v < defaultFrame || v > 1<<24-1 {
			return &Error{ProtocolError, "SETTINGS_MAX_FRAME_SIZE of a wrong value"}
		}
		c.peerFrame = v
	case settingHead:
		c.peerHead = v
	case settingConnect:
		if v > 1 || v == 0 && c.peerConnect {
			return &Error{ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL of a wrong value"}
		}
		c.peerConnect = v == 1
	case settingNoPriorities:
		if v > 1 {
			return &Error{ProtocolError, "SETTINGS_NO_RFC7540_PRIORITIES of a wrong value"}
		}
	}
	return nil
}

// setSendInit changes the windows of all streams (RFC 9113, 6.9.2).
func (c *Conn) setSendInit(v uint32) *Error {
	if v > maxWindow {
		return &Error{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE of a wrong value"}
	}
	delta := int64(v) - int64(c.sendInit)
	c.sendInit = int32(v)
	if delta == 0 {
		return nil
	}
	for _, s := range c.streams.slots {
		if s == nil {
			continue
		}
		w := int64(s.sendWindow) + delta
		if w > maxWindow {
			return &Error{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE overflows the window of a stream"}
		}
		s.sendWindow = int32(w)
		c.wake(s)
	}
	return nil
}

func (c *Conn) onPing(f frame, p []byte, ev *Event) *Error {
	if f.has(flagAck) {
		number := binary.BigEndian.Uint64(p)
		if number == drainPing && c.draining {
			c.finishDrain()
		} else {
			*ev = Event{Kind: Pong, Ping: number}
		}
		return c.spend(1, "a flood of PING answers")
	}
	if e := c.spend(1, "a flood of PING"); e != nil {
		return e
	}
	c.frame(8, framePing, flagAck, 0)
	c.out = append(c.out, p...)
	return c.owe(frameHead + 8)
}

func (c *Conn) onWindow(f frame, p []byte, ev *Event) *Error {
	more := binary.BigEndian.Uint32(p) & maxWindow
	if e := c.spend(1, "a flood of WINDOW_UPDATE"); e != nil {
		return e
	}
	if f.id == 0 {
		if more == 0 {
			return &Error{ProtocolError, "WINDOW_UPDATE by zero"}
		}
		if int64(c.sendWindow)+int64(more) > maxWindow {
			return &Error{FlowControlError, "WINDOW_UPDATE overflows the window of the connection"}
		}
		c.sendWindow += int32(more)
		if c.ready.first != nil {
			ev.Kind = Window
		}
		return nil
	}
	if c.idle(f.id) {
		return &Error{ProtocolError, "WINDOW_UPDATE on an idle stream"}
	}
	s := c.streams.find(f.id)
	if s == nil {
		return nil
	}
	if more == 0 {
		return c.streamError(f.id, ProtocolError, "WINDOW_UPDATE by zero", ev)
	}
	if int64(s.sendWindow)+int64(more) > maxWindow {
		return c.streamError(f.id, FlowControlError, "WINDOW_UPDATE overflows the window of a stream", ev)
	}
	s.sendWindow += int32(more)
	if c.wake(s) {
		ev.Kind = Window
	}
	return nil
}

// grown is the age in nanoseconds from which a reset counts as no abuse.
const grown = 1e9

// overlook takes one from the budget of resets.
func (c *Conn) overlook() bool {
	return c.abuse.take(1, c.cfg.ResetBurst, c.cfg.ResetRate, c.now)
}

// idle says whether no stream with this id was opened yet.
func (c *Conn) idle(id uint32) bool {
	if c.ours(id) {
		return id >= c.nextID
	}
	return id > c.peerLast
}

// ours says whether we open the streams with such ids.
func (c *Conn) ours(id uint32) bool { return c.cfg.Client == (id&1 == 1) }

// streamError resets a stream because of what the peer did. That counts as if
// the peer had reset it (CVE-2025-8671).
func (c *Conn) streamError(id uint32, code Code, reason string, ev *Event) *Error {
	if c.idle(id) {
		return &Error{code, reason}
	}
	if !c.overlook() {
		return &Error{EnhanceYourCalm, "the peer makes us reset streams too fast"}
	}
	if e := c.writeReset(id, code); e != nil {
		return e // all streams are told
	}
	if s := c.streams.find(id); s != nil {
		c.drop(s, code, reason)
		*ev = Event{Kind: Reset, Stream: s, ID: id, Code: code, Local: true, Reason: reason}
	}
	return nil
}

// drop takes a stream that was reset out of the connection. The owner keeps it
// until Release.
func (c *Conn) drop(s *Stream, code Code, reason string) {
	s.code, s.reason = code, reason
	s.flags |= aborted
	c.unlist(s)
	c.forgetBody(s)
}

// unlist takes a stream out of the table: it is closed for the protocol.
func (c *Conn) unlist(s *Stream) {
	if s.is(listed) {
		c.streams.remove(s)
		s.flags &^= listed
	}
	c.unblock(s)
}

// closeIfDone unlists a stream whose both sides have ended.
func (c *Conn) closeIfDone(s *Stream) {
	if s.is(listed) && s.flags&(localEnd|remoteEnd) == localEnd|remoteEnd {
		c.unlist(s)
		c.abuse.give(1, c.cfg.ResetBurst)
	}
}

// mayBeLate says whether a frame on a closed stream may have been on its way when
// we reset the stream, or said that we would go away.
func (c *Conn) mayBeLate(id uint32) bool {
	if c.cfg.Client {
		return id <= c.resets.pushed || c.resets.has(id)
	}
	return id > c.goingAway || c.resets.has(id)
}

// ring holds the ids that we reset lately: frames on them may still be on their
// way, and are ignored.
// A peer that keeps to our limit of streams opens another one only after it saw
// that one was reset, so twice the limit of ids is enough; of those that we open
// more may be reset.
type ring struct {
	ids    []uint32
	next   int
	pushed uint32 // the highest id that was pushed out
}

func (r *ring) add(id uint32, size int) {
	if len(r.ids) < size {
		r.ids = append(r.ids, id)
		return
	}
	r.pushed = max(r.pushed, r.ids[r.next])
	r.ids[r.next] = id
	r.next = (r.next + 1) % size
}

func (r *ring) has(id uint32) bool {
	for _, v := range r.ids {
		if v == id {
			return true
		}
	}
	return false
}
