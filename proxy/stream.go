package proxy

import (
	"errors"
	"math"

	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/message"
)

// What can end a message before its end.
var (
	errShort = errors.New("connection ended inside a message")
	errReset = errors.New("stream was reset by its peer")
	errStall = errors.New("nothing moved for too long")
)

// raw is the framing of a tunnel: bytes until either side ends.
const raw = message.UntilClose

// stream is one side of an exchange: the caller's or an endpoint's, over
// HTTP/1 (its connection) or HTTP/2 (a stream of one). What comes is read by
// peek and take, what goes is written by head, put and finish.
type stream struct {
	c    *engine.Conn
	two  *stream2  // nil: HTTP/1
	copy *mirror   // not nil: neither; a copy in memory
	tees []*mirror // that get what is taken, too

	framing  message.Framing // of the body that comes
	left     int64           // of a Sized one
	chunks   http1.Chunked
	avail    int           // bytes of the current chunk at the front of c.In
	trailers *message.Head // that came
	ended    bool          // all of the body has been taken
	read     uint64        // body bytes taken
	most     uint64        // that may be taken; 0: no limit
	tunnel   bool          // the end of one direction is told, and the other goes on
	pipe     *engine.Pipe  // what comes goes through it; nil: through c.In

	out      message.Framing // of the body that goes
	finished bool            // all of the body has been put
	wrote    uint64
}

// expect begins to read the body that h announced; trailers is where the fields
// after it go.
func (s *stream) expect(h, trailers *message.Head, lim *http1.Limits) {
	s.framing, s.left, s.avail, s.ended = h.Framing, h.Length, 0, false
	switch {
	case s.two != nil:
		s.ended = s.two.bodyEnded()
	case h.Framing == message.None || h.Framing == message.Sized && h.Length == 0:
		s.ended = true
	case h.Framing == message.Chunked:
		s.chunks.Reset(trailers, lim)
		s.trailers = trailers
	}
}

// peek is what can be read of the body now. No bytes: wait, or ended is set.
func (s *stream) peek() ([]byte, error) {
	if s.ended {
		return nil, nil
	}
	switch {
	case s.two != nil:
		return s.two.peek(s)
	case s.copy != nil:
		return s.copy.peek(s)
	}
	b := s.c.In.Bytes()
	if len(b) == 0 && s.pipe != nil && s.pipe.Held() > 0 {
		return nil, nil
	}
	switch s.framing {
	case message.Sized:
		if int64(len(b)) > s.left {
			b = b[:s.left]
		}
	case message.Chunked:
		var err error
		if b, err = s.peekChunk(); err != nil || s.ended {
			return nil, err
		}
	default:
		if len(b) == 0 && s.c.EOF && s.c.Err == 0 && s.c.Fault == nil {
			s.ended = true
			return nil, nil
		}
	}
	if len(b) == 0 && (s.c.EOF || s.c.Broken()) {
		return nil, errShort
	}
	return b, nil
}

// peekChunk is what there is of the current chunk.
func (s *stream) peekChunk() ([]byte, error) {
	for s.avail == 0 {
		b := s.c.In.Bytes()
		if len(b) == 0 {
			return nil, nil
		}
		data, n, err := s.chunks.Next(b)
		if err != nil {
			return nil, err
		}
		s.avail = len(data)
		s.c.Consume(n - len(data)) // data is the last of what was read
		if s.chunks.Done() {
			s.ended = true
			return nil, nil
		}
		if n == 0 {
			return nil, nil
		}
	}
	return s.c.In.Bytes()[:s.avail], nil
}

// tooLong says whether n bytes more are more than may come.
func (s *stream) tooLong(n int) bool { return s.most > 0 && s.read+uint64(n) > s.most }

// all says whether n bytes are known to be all that is left.
func (s *stream) all(n int) bool {
	switch {
	case s.two != nil:
		return s.two.all(n)
	case s.copy != nil:
		return false
	}
	return s.framing == message.Sized && int64(n) == s.left
}

// take removes n bytes of what peek gave.
func (s *stream) take(n int) {
	s.read += uint64(n)
	for _, m := range s.tees {
		m.add(s.front(n))
	}
	switch {
	case s.two != nil:
		s.two.take(n)
		s.ended = s.two.bodyEnded()
		return
	case s.copy != nil:
		s.copy.take(n)
		return
	}
	s.c.Consume(n)
	switch s.framing {
	case message.Sized:
		if s.left -= int64(n); s.left == 0 {
			s.ended = true
		}
	case message.Chunked:
		s.avail -= n
	}
}

// front is the next n bytes of what peek gave.
func (s *stream) front(n int) []byte {
	if s.two != nil {
		return s.two.in[s.two.r:][:n]
	}
	return s.c.In.Bytes()[:n]
}

// put writes as much of p as there is room for; last: nothing comes after p.
func (s *stream) put(w *worker, p []byte, last bool) int {
	var n int
	switch {
	case s.two != nil:
		n = s.two.put(p, last)
		s.finished = last && n == len(p)
	case s.out == message.Chunked:
		n = min(len(p), s.c.Room()-http1.MaxChunkHeader-len(http1.ChunkEnd))
		if n <= 0 {
			return 0
		}
		w.scratch = http1.AppendChunk(w.scratch[:0], p[:n])
		s.c.Write(w.scratch)
	default:
		n = s.c.Offer(p)
	}
	s.wrote += uint64(n)
	return n
}

// finish ends the body that goes.
func (s *stream) finish(w *worker, trailers *message.Head) {
	if s.finished {
		return
	}
	s.finished = true
	switch {
	case s.two != nil:
		s.two.finish(trailers)
	case s.out == message.Chunked:
		w.scratch = http1.AppendLastChunk(w.scratch[:0], trailers)
		s.c.Write(w.scratch)
	case s.tunnel:
		s.c.CloseWrite()
	}
}

// starved has the task woken when there is room to write again.
func (s *stream) starved() {
	if s.two != nil {
		s.two.starved = true
		return
	}
	s.c.Starved = true
}

// gone: nothing can be written to this side any more.
func (s *stream) gone() bool {
	switch {
	case s.two != nil:
		return s.two.gone()
	case s.copy != nil:
		return s.copy.lost
	}
	return s.c == nil || s.c.Broken()
}

// blockedAt is since when this side takes nothing of what waits; 0: it takes.
func (s *stream) blockedAt() int64 {
	switch {
	case s.two != nil:
		return s.two.blockedAt()
	case s.copy != nil:
		return 0
	}
	return s.c.BlockedAt
}

// pump moves the body from one side to the other as far as there are bytes and
// room, and says whether anything moved. It is over when to is finished.
func pump(w *worker, from, to *stream) (moved bool, err error) {
	if !to.finished && from.plain(to) {
		moved = from.carry(to)
	}
	for swept := 0; !to.finished; {
		data, err := from.peek()
		if err != nil {
			return moved, err
		}
		if len(data) == 0 {
			if from.ended {
				to.finish(w, from.trailers)
				moved = true
			}
			return moved, nil
		}
		if from.tooLong(len(data)) {
			return moved, errTooLong
		}
		if len(data) < crumb && from.framing == message.Chunked && from.two == nil && from.c != nil && len(from.tees) == 0 {
			n, err := from.sweepCrumbs(w, to, data)
			moved = moved || n > 0
			if err != nil {
				return moved, err
			}
			if swept += n; swept >= mostCrumbs {
				from.c.Again() // others want to go on, too
				return moved, nil
			}
			if n > 0 {
				continue
			}
		}
		n := to.put(w, data, from.all(len(data)))
		if n == 0 {
			to.starved()
			return moved, nil
		}
		from.take(n)
		moved = true
	}
	return moved, nil
}

// worthy is the least that has to be left of a body for a pipe. It is known to
// come, so nobody has to wait and see.
const worthy = 256 << 10

// plain says whether what comes is for the other side as it is: bytes of two
// connections. Much of a body has to be left, or a pipe is no use.
func (s *stream) plain(to *stream) bool {
	if s.two != nil || to.two != nil || s.copy != nil || to.copy != nil || len(s.tees) > 0 {
		return false
	}
	return s.tunnel || s.framing == message.Sized && to.out == message.Sized && !s.ended && (s.pipe != nil || s.left >= worthy)
}

// carry moves what comes through a pipe, if much comes and both sides are not
// encrypted. What was read before goes first.
func (s *stream) carry(to *stream) (moved bool) {
	if s.pipe == nil {
		if s.pipe = s.c.PipeTo(to.c, !s.tunnel); s.pipe == nil {
			return false
		}
	}
	if s.c.In.Len() == 0 && to.c.Pending() > 0 {
		to.starved()
		return false
	}
	most := math.MaxInt
	if !s.tunnel {
		most = int(s.left) - s.c.In.Len()
	}
	in, out := s.pipe.Move(most)
	s.read += uint64(in)
	to.wrote += uint64(out)
	if !s.tunnel {
		s.left -= int64(in)
		s.ended = s.left == 0 && s.pipe.Held() == 0
	}
	if s.ended || s.pipe.Scarce() {
		s.unpipe()
	}
	return in+out > 0
}

// unpipe gives the pipe back, if there is one.
func (s *stream) unpipe() {
	if s.pipe != nil {
		s.pipe.Close()
		s.pipe = nil
	}
}

// crumb is the size of chunks below which several are passed on as one; together
// they are fewer than a write without a copy (engine.Conn.Offer). Each costs as
// much as a large one: mostCrumbs of one message in a turn.
const (
	crumb      = 256
	crumbs     = 4 << 10
	mostCrumbs = 512
)

// sweepCrumbs passes on many tiny chunks as one, of which data is the first, and
// says how many; 0: there is no room.
func (s *stream) sweepCrumbs(w *worker, to *stream, data []byte) (n int, err error) {
	room := min(to.room(), crumbs)
	if room < len(data) {
		return 0, nil
	}
	w.crumbs = w.crumbs[:0]
	for ; n < mostCrumbs && len(data) > 0 && len(w.crumbs)+len(data) <= room && !s.tooLong(len(data)); n++ {
		w.crumbs = append(w.crumbs, data...)
		s.take(len(data))
		if data, err = s.peek(); err != nil {
			break
		}
	}
	to.put(w, w.crumbs, false)
	return n, err
}

// room is how much put takes for certain.
func (s *stream) room() int {
	switch {
	case s.two != nil:
		return s.two.room()
	case s.copy != nil:
		return crumbs
	case s.out == message.Chunked:
		return s.c.Room() - http1.MaxChunkHeader - len(http1.ChunkEnd)
	}
	return s.c.Room()
}
