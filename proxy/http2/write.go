package http2

import (
	"encoding/binary"

	"moire.dev/moire/proxy/http2/hpack"
	"moire.dev/moire/proxy/message"
)

// replies counts the bytes in Out that the peer made us write, so that one that
// asks and never reads is found. It is exact to one turn of Out: bytes count
// until all that was in Out when the first of them came has been written.
type replies struct {
	old, young int
	// ahead is how many bytes have to be sent until old is surely gone.
	ahead int
}

func (r *replies) sent(n int) {
	if r.ahead -= n; r.ahead <= 0 {
		r.old, r.ahead = 0, 0
	}
}

// owe counts n bytes that were just appended to Out.
func (c *Conn) owe(n int) *Error {
	r := &c.owed
	if r.old == 0 {
		r.old, r.young, r.ahead = r.young, 0, len(c.out)-c.sent
	}
	if r.young += n; r.old+r.young > c.cfg.MaxReplies {
		return &Error{EnhanceYourCalm, "the peer does not read the answers that it asks for"}
	}
	return nil
}

func (c *Conn) writeSettings() {
	cfg := &c.cfg
	c.frame(0, frameSettings, 0, 0)
	start := len(c.out) - frameHead
	if cfg.HeaderTable != 4096 {
		c.out = appendSetting(c.out, settingTable, uint32(cfg.HeaderTable))
	}
	if cfg.Client {
		c.out = appendSetting(c.out, settingPush, 0)
	} else {
		c.out = appendSetting(c.out, settingStreams, cfg.MaxStreams)
		if cfg.EnableConnect {
			c.out = appendSetting(c.out, settingConnect, 1)
		}
	}
	c.out = appendSetting(c.out, settingWindow, cfg.InitialWindow)
	if cfg.MaxFrame != defaultFrame {
		c.out = appendSetting(c.out, settingFrame, cfg.MaxFrame)
	}
	c.out = appendSetting(c.out, settingHead, uint32(cfg.MaxHead))
	c.out = appendSetting(c.out, settingNoPriorities, 1)
	c.out[start+2] = byte(len(c.out) - start - frameHead)
}

func (c *Conn) writeWindow(id, n uint32) {
	c.frame(4, frameWindow, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, n)
}

func (c *Conn) writeReset(id uint32, code Code) *Error {
	c.resets.add(id, int(2*c.cfg.MaxStreams))
	c.frame(4, frameReset, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
	return c.owe(frameHead + 4)
}

// roomOfHead is enough for most heads; a larger one makes Out grow.
const roomOfHead = 512

// beginBlock leaves room for the head of a frame; the block is appended to Out.
func (c *Conn) beginBlock() (start int) {
	c.reserve(roomOfHead)
	start = len(c.out)
	c.out = append(c.out, make([]byte, frameHead)...)
	c.out = c.enc.Begin(c.out)
	return start
}

// endBlock makes HEADERS, and CONTINUATION where the peer's frames are too small,
// of what was appended since beginBlock.
func (c *Conn) endBlock(start int, id uint32, end bool) {
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	size, most := len(c.out)-start-frameHead, int(c.peerFrame)
	if size <= most {
		appendFrame(c.out[:start], size, frameHeaders, flags|flagEndHeaders, id)
		return
	}
	more := (size - 1) / most // CONTINUATION frames
	c.out = append(c.out, make([]byte, more*frameHead)...)
	// From the last to the first, as each moves to the right.
	for i := more; i > 0; i-- {
		from := start + frameHead + i*most
		to := from + i*frameHead
		n := min(most, size-i*most)
		copy(c.out[to:to+n], c.out[from:from+n])
		f := uint8(0)
		if i == more {
			f = flagEndHeaders
		}
		appendFrame(c.out[:to-frameHead], n, frameContinuation, f, id)
	}
	appendFrame(c.out[:start], most, frameHeaders, flags, id)
}

// skipped says which known fields WriteHead never writes from Fields: they
// belong to HTTP/1, or other parts of the head say them.
var skipped = [message.Count]bool{
	message.Host: true, message.Connection: true, message.KeepAlive: true, message.ProxyConnection: true,
	message.TransferEncoding: true, message.Upgrade: true, message.HTTP2Settings: true,
	message.ContentLength: true, message.TE: true, message.Expect: true,
}

// WriteHead writes a head: the request of a client's stream, an answer or an
// interim answer of a server's. With end nothing follows it. For a client a head
// with Upgrade becomes an extended CONNECT (RFC 8441), whatever its method is;
// what the upgraded protocol has in its fields (Sec-WebSocket-Key) is the
// owner's. An answer 101 to an extended CONNECT becomes 200. The stream is
// unchanged after an error.
func (c *Conn) WriteHead(s *Stream, h *message.Head, end bool) error {
	if s.is(localEnd|aborted|headSent) || c.err != nil {
		return ErrStreamClosed
	}
	if c.cfg.Client {
		return c.writeRequest(s, h, end)
	}
	if c.peerHead != ^uint32(0) && sizeOf(h) > uint64(c.peerHead) {
		return ErrHeadTooLarge
	}
	status := h.Status
	if status == 101 && s.is(isExtended) {
		status = 200
	}
	start := c.beginBlock()
	c.out = c.enc.Status(c.out, status)
	switch {
	case s.is(isHead) || status == 304:
		c.writeFields(h, h.Length >= 0)
	default:
		// END_STREAM says better that there is no body.
		c.writeFields(h, h.Framing == message.Sized && status >= 200 && status != 204 && !(end && h.Length == 0))
	}
	c.endBlock(start, s.ID, end)
	if status >= 200 {
		s.flags |= headSent
	}
	c.wroteHead(s, end)
	return nil
}

func (c *Conn) writeRequest(s *Stream, h *message.Head, end bool) error {
	if c.peerHead != ^uint32(0) && sizeOf(h) > uint64(c.peerHead) {
		return ErrHeadTooLarge
	}
	if h.Upgrade != nil && !c.peerConnect {
		return ErrNoConnectProtocol
	}
	if c.draining || c.peerGone || c.nextID > maxWindow {
		return ErrGoingAway
	}
	s.ID = c.nextID
	c.nextID += 2
	start := c.beginBlock()
	c.writeTarget(h)
	if h.Trailers {
		c.out = c.enc.Field(c.out, nameTE, valueTrailers, message.TE, false)
	}
	c.writeFields(h, h.Framing == message.Sized)
	if h.Expect {
		c.out = c.enc.Field(c.out, nameExpect, valueContinue, message.Expect, false)
	}
	c.endBlock(start, s.ID, end)
	s.flags |= headSent | listed | requestFlags(h)
	s.recvWindow, s.sendWindow = c.recvInit, c.sendInit
	c.streams.add(s)
	c.wroteHead(s, end)
	return nil
}

func (c *Conn) wroteHead(s *Stream, end bool) {
	c.control.give(2, c.cfg.ControlBurst)
	if end {
		s.flags |= localEnd
		c.closeIfDone(s)
	}
}

var (
	nameTE        = []byte("te")
	valueTrailers = []byte("trailers")
	nameLength    = []byte("content-length")
	nameExpect    = []byte("expect")
	valueContinue = []byte("100-continue")
	methodConnect = []byte("CONNECT")
	schemeHTTP    = []byte("http")
	schemeHTTPS   = []byte("https")
)

// writeTarget writes the pseudo-header fields of a request.
func (c *Conn) writeTarget(h *message.Head) {
	e, out := &c.enc, c.out
	method := h.Method
	if h.Upgrade != nil {
		method = methodConnect
	}
	out = e.Pseudo(out, hpack.Method, method)
	if h.Upgrade != nil || !h.IsMethod("CONNECT") {
		scheme := h.Scheme
		if len(scheme) == 0 {
			scheme = schemeHTTP
			if c.cfg.TLS {
				scheme = schemeHTTPS
			}
		}
		out = e.Pseudo(out, hpack.Scheme, scheme)
		out = e.Pseudo(out, hpack.Path, h.Path)
	}
	if len(h.Authority) > 0 {
		out = e.Pseudo(out, hpack.Authority, h.Authority)
	}
	if h.Upgrade != nil {
		out = e.Pseudo(out, hpack.Protocol, h.Upgrade)
	}
	c.out = out
}

// writeFields writes what follows the pseudo-header fields, with or without the
// length.
func (c *Conn) writeFields(h *message.Head, length bool) {
	e, out := &c.enc, c.out
	if length {
		var digits [20]byte
		out = e.Field(out, nameLength, appendDecimal(digits[:0], h.Length), message.ContentLength, false)
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; !skipped[f.ID] {
			out = e.Field(out, f.Name, f.Value, f.ID, f.Never)
		}
	}
	c.out = out
}

// appendDecimal appends n, which is not negative.
func appendDecimal(dst []byte, n int64) []byte {
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(dst, digits[i:]...)
		}
	}
}

// sizeOf is what a head counts for SETTINGS_MAX_HEADER_LIST_SIZE, about.
func sizeOf(h *message.Head) uint64 {
	n := 4*48 + len(h.Method) + len(h.Authority) + len(h.Path) + len(h.Upgrade)
	for i := range h.Fields {
		n += 32 + len(h.Fields[i].Name) + len(h.Fields[i].Value)
	}
	return uint64(n)
}

// WriteTrailers writes trailers, which end our side of the stream.
func (c *Conn) WriteTrailers(s *Stream, fields []message.Field) error {
	if s.is(localEnd|aborted) || !s.is(headSent) || c.err != nil {
		return ErrStreamClosed
	}
	start := c.beginBlock()
	for i := range fields {
		if f := &fields[i]; !skipped[f.ID] {
			c.out = c.enc.Field(c.out, f.Name, f.Value, f.ID, f.Never)
		}
	}
	c.endBlock(start, s.ID, true)
	c.wroteHead(s, true)
	return nil
}
