package proxy

import (
	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/message"
)

const codeInternal = http2.InternalError

// stream2 is one side of an exchange over HTTP/2.
type stream2 struct {
	k     *conn2
	place int // in k.streams
	s     *http2.Stream
	x     *exchange // that reads and writes it; nil: it did not begin yet
	// try that asked, on the side of an endpoint.
	try *attempt

	in          []byte // received and not yet taken, from r on
	r           int
	trailers    message.Head
	hasTrailers bool
	hasHead     bool // an answer came
	gotEnd      bool
	isReset     bool
	unprocessed bool
	starved     bool
}

// newStream2 is a stream of k for s, with the memory of an earlier one.
func (k *conn2) newStream2(s *http2.Stream, x *exchange) *stream2 {
	w := k.w
	var t *stream2
	if n := len(w.twos); n > 0 {
		t = w.twos[n-1]
		w.twos = w.twos[:n-1]
		w.leastTwos = min(w.leastTwos, n-1)
	} else {
		t = &stream2{}
	}
	t.k, t.s, t.x = k, s, x
	s.Owner = t
	t.place = len(k.streams)
	k.streams = append(k.streams, t)
	return t
}

// free gives the stream back to its connection.
func (t *stream2) free() {
	k := t.k
	t.s.Owner = nil
	k.h.Release(t.s)
	last := k.streams[len(k.streams)-1]
	last.place = t.place
	k.streams[t.place] = last
	k.streams[len(k.streams)-1] = nil
	k.streams = k.streams[:len(k.streams)-1]
	k.since = k.w.loop.Now
	k.touch()
	in := t.in[:0]
	if cap(in) > keepHeads {
		in = nil
	}
	*t = stream2{in: in, trailers: message.Head{Fields: t.trailers.Fields[:0]}}
	if len(k.w.twos) < spare {
		k.w.twos = append(k.w.twos, t)
	}
}

func (t *stream2) wake() {
	if t.x != nil && t.x.t != nil {
		t.x.wake()
	}
}

// receive takes bytes of a body.
func (t *stream2) receive(ev *http2.Event) {
	t.in = append(t.in, ev.Data...)
	if ev.End {
		t.gotEnd = true
	}
	t.wake()
}

// lost: the stream was reset, or its connection is gone.
func (t *stream2) lost(_ http2.Code, unprocessed bool) {
	t.isReset, t.unprocessed = true, unprocessed
	t.wake()
}

func (t *stream2) bodyEnded() bool { return t.gotEnd && t.r == len(t.in) && !t.hasTrailers }

// peek: see stream.peek.
func (t *stream2) peek(s *stream) ([]byte, error) {
	if b := t.in[t.r:]; len(b) > 0 {
		return b, nil
	}
	switch {
	case t.gotEnd:
		s.ended = true
		if t.hasTrailers {
			s.trailers = &t.trailers
		}
	case t.isReset:
		return nil, errReset
	}
	return nil, nil
}

// all says whether n bytes are the rest of the body, without trailers.
func (t *stream2) all(n int) bool { return t.gotEnd && !t.hasTrailers && t.r+n == len(t.in) }

func (t *stream2) take(n int) {
	t.r += n
	if t.r == len(t.in) {
		t.in, t.r = t.in[:0], 0
	}
	if !t.isReset {
		t.k.h.Consumed(t.s, n)
		t.k.touch()
	}
}

func (t *stream2) room() int {
	if t.isReset || t.k.over {
		return crumbs
	}
	return t.k.h.Room(t.s)
}

func (t *stream2) put(p []byte, last bool) int {
	if t.isReset || t.k.over {
		return len(p) // the reader of errors finds out by gone
	}
	n := t.k.h.WriteData(t.s, p, last, t.k.w.loop.Now)
	t.k.touch()
	return n
}

func (t *stream2) finish(trailers *message.Head) {
	if t.isReset || t.k.over {
		return
	}
	if trailers != nil && len(trailers.Fields) > 0 {
		if err := t.k.h.WriteTrailers(t.s, trailers.Fields); err != nil {
			t.reset(codeInternal)
		}
	} else {
		t.k.h.WriteData(t.s, nil, true, t.k.w.loop.Now)
	}
	t.k.touch()
}

// reset ends the stream at once.
func (t *stream2) reset(code http2.Code) {
	if !t.isReset && !t.k.over {
		t.k.h.Reset(t.s, code)
		t.k.touch()
	}
	t.isReset = true
}

func (t *stream2) gone() bool     { return t.isReset || t.k.over || t.k.c.Broken() }
func (t *stream2) wasReset() bool { return t.isReset || t.k.over }
func (t *stream2) refused() bool  { return t.unprocessed }

func (t *stream2) blockedAt() int64 {
	if at := t.s.Stalled(); at != 0 {
		return at
	}
	return t.k.c.BlockedAt
}
