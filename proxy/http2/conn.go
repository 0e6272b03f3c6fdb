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
// The owner reads on while it cannot write Out, or two peers could wait for each
// other for ever: DATA stops at MaxOut, and a peer that asks for more than
// MaxReplies without reading loses its connection.
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
	decoded uint64 // see Decoded
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
	heads     int    // bytes in their arenas, in the role of a server
	peerLast  uint32 // the highest id the peer opened
	nextID    uint32 // the next id we open
	resets    ring   // ids that we reset lately
	waiting   int    // streams that are blocked
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

// Err is the error that ended the connection; nil: none did.
func (c *Conn) Err() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// Active is how many streams the owner has not released.
func (c *Conn) Active() int { return int(c.held) }

// Decoded is how many bytes of heads and trailers came, decompressed and with 32
// for each field: what the peer may make many of by few.
func (c *Conn) Decoded() uint64 { return c.decoded }

// Partial says whether a frame or a field block is incomplete: the owner may
// bound how long that lasts.
func (c *Conn) Partial() bool {
	return len(c.stash) > 0 || c.block.id != 0 || c.preface < len(Preface)
}
