package http2

import (
	"moire.dev/moire/proxy/http2/hpack"
)

// Conn is one connection. Use:
//
//	c.Init(&cfg, pool, now)
//	loop: write c.Out() and tell c.Sent; for every read call Next until NeedMore,
//	act on its events; after that let the streams of Writable write.
//
// The owner should read no more while it cannot write Out: that is the
// back-pressure of control frames.
type Conn struct {
	cfg  Config
	pool *Pool
	err  *Error
	now  int64

	// input
	preface int    // bytes of the client's preface that came
	stash   []byte // the begin of a frame
	body    body
	block   block
	dec     hpack.Decoder
	reading reading
	// settled: the peer's first SETTINGS came; acked: it acknowledged ours.
	settled, acked bool

	// output
	out  []byte
	sent int
	owed replies
	enc  hpack.Encoder

	// streams
	streams   streamTable
	held      uint32 // streams that the owner has not released
	peerLast  uint32 // the highest id the peer opened
	nextID    uint32 // the next id we open
	resets    ring   // ids that we reset lately
	ready     queue  // blocked streams that may write when connection and Out let them
	lost      *Stream
	goingAway uint32 // the last id in the GOAWAY that we sent; goneNot: none
	peerLimit uint32 // the last id in the GOAWAY that we received
	peerGone  bool
	draining  bool

	// flow control
	recvWindow int64
	unacked    uint32
	recvInit   int32 // of a new stream
	sendWindow int32
	sendInit   int32

	// what the peer said
	peerStreams uint32
	peerFrame   uint32
	peerHead    uint32
	peerConnect bool

	control, abuse budget
}

// keptStash is how much memory for cut frames an idle connection keeps.
const keptStash = 1024

const goneNot = ^uint32(0)

// drainPing is the content of the PING after the first GOAWAY of Drain.
const drainPing = 0x6d6f697265647261

// Init makes c a new connection and writes the preface and SETTINGS to Out. A
// used Conn keeps its memory. The pool may be shared by the connections of one
// worker; nil: c has its own. Now is the time in nanoseconds, from any epoch.
func (c *Conn) Init(cfg *Config, pool *Pool, now int64) {
	if pool == nil {
		pool = new(Pool)
	}
	clear(c.streams.slots)
	*c = Conn{
		cfg: cfg.filled(), pool: pool, now: now,
		stash: c.stash[:0], dec: c.dec, enc: c.enc,
		block: block{buf: c.block.buf[:0]}, reading: reading{crumbs: c.reading.crumbs[:0]},
		streams: streamTable{slots: c.streams.slots}, resets: ring{ids: c.resets.ids[:0]},
		nextID: 1, goingAway: goneNot, peerLimit: maxWindow,
		recvInit: defaultWindow, sendWindow: defaultWindow, sendInit: defaultWindow,
		peerStreams: 100, peerFrame: defaultFrame, peerHead: ^uint32(0),
	}
	c.dec.Init()
	c.enc.Init(uint32(c.cfg.HeaderTable))
	c.control = newBudget(c.cfg.ControlBurst, now)
	c.abuse = newBudget(c.cfg.ResetBurst, now)
	c.recvWindow = int64(c.cfg.ConnWindow)
	if c.cfg.Client {
		c.reserve(len(Preface))
		c.out = append(c.out, Preface...)
		c.preface = len(Preface)
	}
	c.writeSettings()
	if more := c.cfg.ConnWindow - defaultWindow; more > 0 {
		c.writeWindow(0, more)
	}
}

// Out is what the owner has to write to the peer. It is valid until the next
// call of any method.
func (c *Conn) Out() []byte { return c.out[c.sent:] }

// Sent says that n bytes of Out were written. Streams that waited for room may
// be Writable then.
func (c *Conn) Sent(n int) {
	c.sent += n
	c.owed.sent(n)
	if c.sent == len(c.out) {
		c.pool.putBuffer(c.out)
		c.out, c.sent = nil, 0
	} else if c.sent > len(c.out)/2 && c.sent > c.cfg.MaxOut {
		c.out = append(c.out[:0], c.out[c.sent:]...)
		c.sent = 0
	}
}

// SwapOut gives Out another buffer while it is empty, and returns the one it had.
// An empty Out needs none: it takes one from the pool when there is something to
// write.
func (c *Conn) SwapOut(buf []byte) []byte {
	if c.sent != len(c.out) {
		return buf
	}
	old := c.out
	c.out, c.sent = buf[:0], 0
	return old
}

// reserve makes room for n more bytes in Out, with a buffer of the pool.
func (c *Conn) reserve(n int) {
	if cap(c.out)-len(c.out) >= n {
		return
	}
	pending := c.out[c.sent:]
	buf := append(c.pool.buffer(len(pending)+n), pending...)
	c.pool.putBuffer(c.out)
	c.out, c.sent = buf, 0
}

// frame appends the head of a frame to Out.
func (c *Conn) frame(length int, kind frameType, flags uint8, id uint32) {
	c.reserve(frameHead + length)
	c.out = appendFrame(c.out, length, kind, flags, id)
}

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

// Err is the error that ended the connection; nil: none did.
func (c *Conn) Err() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// Active is how many streams the owner has not released.
func (c *Conn) Active() int { return int(c.held) }

// Partial says whether a frame or a field block is incomplete: the owner may
// bound how long that lasts.
func (c *Conn) Partial() bool {
	return len(c.stash) > 0 || c.block.id != 0 || c.preface < len(Preface)
}
