package http2

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"moire.dev/moire/proxy/message"
)

// duo is a client and a server that talk to each other over two pipes, with the
// owners of both; what arrives is compared with what was sent.
type duo struct {
	t              *rapid.T
	client, server end
	now            int64
	sent           int // requests
	exchanges      map[uint32]*exchange
}

// end is one Conn with its owner.
type end struct {
	c       Conn
	streams []*Stream
}

// exchange is what one request and its answer should be.
type exchange struct {
	request, answer transfer
	reset           bool
}

// transfer is one direction of an exchange.
type transfer struct {
	body     []byte // all of it
	sent     int
	got      []byte
	trailers bool
	ended    bool // for the receiver
	headSeen bool
	consumed int
}

// note is what an owner keeps of a stream.
type note struct {
	x        *exchange
	out, in  *transfer
	answered bool
}

func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + seed)
	}
	return b
}

func TestScripts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &duo{t: t, now: 1, exchanges: map[uint32]*exchange{}}
		window := func(name string) uint32 { return uint32(rapid.IntRange(500, 100000).Draw(t, name)) }
		d.client.c.Init(&Config{Client: true, InitialWindow: window("client window"), MaxStreams: 20}, nil, 1)
		d.server.c.Init(&Config{InitialWindow: window("server window"), MaxStreams: 20, MaxOut: rapid.IntRange(100, 100000).Draw(t, "out"),
			ResetBurst: 1 << 20, ControlBurst: 1 << 20}, nil, 1)
		t.Repeat(map[string]func(*rapid.T){
			"open":    d.open,
			"write":   d.write,
			"answer":  d.answer,
			"reset":   d.reset,
			"consume": d.consume,
			"deliver": d.deliver,
			"":        func(*rapid.T) {},
		})
		d.finish()
	})
}

func (d *duo) open(t *rapid.T) {
	s, err := d.client.c.Open()
	if err != nil {
		t.Skip(err)
	}
	x := &exchange{}
	x.request = transfer{body: pattern(rapid.IntRange(0, 70000).Draw(t, "request"), d.sent), trailers: rapid.Bool().Draw(t, "trailers")}
	x.answer = transfer{body: pattern(rapid.IntRange(0, 70000).Draw(t, "answer"), d.sent+1), trailers: rapid.Bool().Draw(t, "trailers")}
	d.sent++
	h := request("POST")
	h.Framing = message.Chunked
	if rapid.Bool().Draw(t, "sized") {
		h.Framing, h.Length = message.Sized, int64(len(x.request.body))
	}
	h.Add([]byte("x-seed"), bytes.Repeat([]byte("s"), rapid.IntRange(0, 300).Draw(t, "field")))
	empty := len(x.request.body) == 0 && !x.request.trailers
	if err := d.client.c.WriteHead(s, h, empty); err != nil {
		t.Fatal(err)
	}
	d.exchanges[s.ID] = x
	s.Owner = &note{x: x, out: &x.request, in: &x.answer, answered: true}
	d.client.streams = append(d.client.streams, s)
}

// pick draws an end and one of its streams.
func (d *duo) pick(t *rapid.T, want func(*end, *Stream, *note) bool) (*end, *Stream, *note) {
	type choice struct {
		e *end
		s *Stream
	}
	var all []choice
	for _, e := range []*end{&d.client, &d.server} {
		for _, s := range e.streams {
			if want(e, s, s.Owner.(*note)) {
				all = append(all, choice{e, s})
			}
		}
	}
	if len(all) == 0 {
		t.Skip("no such stream")
	}
	c := all[rapid.IntRange(0, len(all)-1).Draw(t, "stream")]
	return c.e, c.s, c.s.Owner.(*note)
}

func (d *duo) write(t *rapid.T) {
	e, s, n := d.pick(t, func(_ *end, s *Stream, n *note) bool { return n.answered && !s.LocalDone() })
	d.push(e, s, n, rapid.IntRange(0, 40000).Draw(t, "size"))
}

// push writes up to size bytes, and the end behind the last.
func (d *duo) push(e *end, s *Stream, n *note, size int) {
	rest := n.out.body[n.out.sent:]
	p := rest[:min(size, len(rest))]
	room := e.c.Room(s)
	wrote := e.c.WriteData(s, p, len(p) == len(rest) && !n.out.trailers, d.now)
	if wrote != min(room, len(p)) {
		d.t.Fatalf("wrote %d of %d with room for %d", wrote, len(p), room)
	}
	if n.out.sent += wrote; n.out.sent == len(n.out.body) && n.out.trailers && !s.LocalDone() {
		if err := e.c.WriteTrailers(s, []message.Field{{Name: []byte("x-sum"), Value: []byte("1")}}); err != nil {
			d.t.Fatal(err)
		}
	}
	d.settle(e, s)
}

func (d *duo) answer(t *rapid.T) {
	_, s, n := d.pick(t, func(e *end, s *Stream, n *note) bool { return !n.answered && !s.LocalDone() })
	if err := d.server.c.WriteHead(s, answer(200), false); err != nil {
		t.Fatal(err)
	}
	n.answered = true
}

func (d *duo) reset(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "seldom") != 0 {
		t.Skip("not now")
	}
	e, s, n := d.pick(t, func(*end, *Stream, *note) bool { return true })
	n.x.reset = true
	e.drop(s)
}

func (e *end) drop(s *Stream) {
	for i, other := range e.streams {
		if other == s {
			e.streams = append(e.streams[:i], e.streams[i+1:]...)
		}
	}
	e.c.Release(s)
}

func (d *duo) consume(t *rapid.T) {
	e, s, n := d.pick(t, func(_ *end, s *Stream, n *note) bool { return len(n.in.got) > n.in.consumed })
	size := rapid.IntRange(1, len(n.in.got)-n.in.consumed).Draw(t, "size")
	n.in.consumed += size
	e.c.Consumed(s, size)
	d.settle(e, s)
}

// settle releases a stream that is complete and consumed.
func (d *duo) settle(e *end, s *Stream) {
	n := s.Owner.(*note)
	if s.LocalDone() && n.in.ended && n.in.consumed == len(n.in.got) {
		e.drop(s)
	}
}

// deliver moves a piece of what one end wrote to the other.
func (d *duo) deliver(t *rapid.T) {
	from, to := &d.client, &d.server
	if rapid.Bool().Draw(t, "to the client") {
		from, to = to, from
	}
	d.move(from, to, rapid.IntRange(1, 50000).Draw(t, "bytes"))
}

func (d *duo) move(from, to *end, size int) bool {
	d.now++
	out := from.c.Out()
	size = min(size, len(out))
	in := bytes.Clone(out[:size])
	from.c.Sent(size)
	for {
		ev, n, err := to.c.Next(in, d.now)
		if err != nil {
			d.t.Fatal(err)
		}
		if in = in[n:]; ev.Kind == NeedMore {
			break
		}
		d.event(to, &ev)
	}
	for _, e := range []*end{from, to} {
		for s := e.c.Writable(); s != nil; s = e.c.Writable() {
			if e.c.Room(s) == 0 {
				d.t.Fatal("a writable stream has no room")
			}
			d.push(e, s, s.Owner.(*note), 30000)
		}
	}
	return size > 0
}

func (d *duo) event(e *end, ev *Event) {
	s := ev.Stream
	if ev.Kind == Head && e == &d.server {
		x := d.exchanges[s.ID]
		s.Owner = &note{x: x, out: &x.answer, in: &x.request}
		e.streams = append(e.streams, s)
	}
	if s == nil {
		return
	}
	n := s.Owner.(*note)
	switch ev.Kind {
	case Head:
		if n.in.headSeen {
			d.t.Fatal("two heads")
		}
		n.in.headSeen = true
	case Data:
		n.in.got = append(n.in.got, ev.Data...)
		if len(n.in.got)-n.in.consumed > int(e.c.cfg.InitialWindow) && e.c.acked && int(e.c.cfg.InitialWindow) > defaultWindow {
			d.t.Fatal("more than a window is waiting")
		}
	case Trailers:
		if !n.in.trailers || len(s.Trailers) != 1 {
			d.t.Fatal("unexpected trailers")
		}
	case Reset:
		if !n.x.reset {
			d.t.Fatalf("stream %d: %v %s", s.ID, ev.Code, ev.Reason)
		}
		e.drop(s)
		return
	}
	if ev.End {
		n.in.ended = true
		if !bytes.Equal(n.in.got, n.in.body) {
			d.t.Fatalf("stream %d: %d bytes came, %d were sent", s.ID, len(n.in.got), len(n.in.body))
		}
	}
	d.settle(e, s)
}

// finish lets all that is open end, and looks at what is left.
func (d *duo) finish() {
	for range 100000 {
		busy := d.move(&d.client, &d.server, 1<<20)
		busy = d.move(&d.server, &d.client, 1<<20) || busy
		for _, e := range []*end{&d.client, &d.server} {
			for _, s := range append([]*Stream(nil), e.streams...) {
				n := s.Owner.(*note)
				if !n.answered {
					if err := e.c.WriteHead(s, answer(200), false); err != nil {
						d.t.Fatal(err)
					}
					n.answered, busy = true, true
				}
				if size := len(n.in.got) - n.in.consumed; size > 0 {
					n.in.consumed += size
					e.c.Consumed(s, size)
					busy = true
				}
				if !s.LocalDone() {
					d.push(e, s, n, 1<<20)
				} else {
					d.settle(e, s)
				}
			}
		}
		if !busy && len(d.client.streams)+len(d.server.streams) == 0 {
			break
		}
	}
	for _, e := range []*end{&d.client, &d.server} {
		c := &e.c
		if len(e.streams) != 0 || c.Active() != 0 || c.streams.count != 0 || c.ready.first != nil || c.lost != nil {
			d.t.Fatalf("%d streams are left (%d in the table)", c.Active(), c.streams.count)
		}
		if left := c.recvWindow + int64(c.unacked); left != int64(c.cfg.ConnWindow) {
			d.t.Fatalf("the window of the connection is %d, want %d", left, c.cfg.ConnWindow)
		}
	}
	if got, want := int64(d.client.c.sendWindow)+int64(d.server.c.unacked), int64(d.server.c.cfg.ConnWindow); got != want {
		d.t.Fatalf("the client has a window of %d, the server left it %d", got, want)
	}
}
