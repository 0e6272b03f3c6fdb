package http2

import "testing"

// TestEarlyAndLate: frames in the role of a client that come too early, or late.
func TestEarlyAndLate(t *testing.T) {
	p := newPeer(t, Config{Client: true})
	s := p.ask(false)
	p.WriteData(1, false, []byte("x"))
	if ev := p.one(Reset); ev.Code != ProtocolError || ev.Stream != s || p.c.unacked != 1 {
		t.Errorf("%+v", ev)
	}
	p.c.Release(s)
	s = p.ask(false)
	p.head(3, true, ":status", "200")
	p.one(Head)
	p.head(3, true, "x-a", "b") // after the end, while we still send
	if ev := p.one(Reset); ev.Code != StreamClosed {
		t.Errorf("%+v", ev)
	}
	p.c.Release(s)
	s = p.ask(true)
	p.head(5, true, ":status", "200")
	p.one(Head)
	p.c.Release(s)
	p.WriteRSTStream(5, 0) // after both ends
	p.WriteWindowUpdate(5, 1)
	if events := p.give(); len(events) != 0 {
		t.Errorf("%+v", events)
	}
	p.head(2, true, ":status", "200")
	p.fails(ProtocolError)
	for name, step := range map[string]func(p *peer){
		"push":      func(p *peer) { p.WriteRawFrame(5, 4, 1, []byte{0, 0, 0, 2, 0x88}) },
		"push on":   func(p *peer) { p.WriteSettings(setting(settingPush, 1)) },
		"idle":      func(p *peer) { p.head(9, true, ":status", "200") },
		"idle data": func(p *peer) { p.WriteData(9, true, nil) },
	} {
		p := newPeer(t, Config{Client: true})
		p.ask(true)
		step(p)
		if e := p.fails(ProtocolError); e.Error() == "" {
			t.Error(name)
		}
	}
}

// TestAfterTheEnd: an endpoint that goes on with a stream that has ended on both
// sides is broken; on one that we reset it may not know yet, however many those
// are.
func TestAfterTheEnd(t *testing.T) {
	for name, step := range map[string]func(p *peer, id uint32){
		"head": func(p *peer, id uint32) { p.head(id, true, ":status", "200") },
		"data": func(p *peer, id uint32) { p.WriteData(id, true, []byte("x")) },
	} {
		p := newPeer(t, Config{Client: true})
		s := p.ask(true)
		p.head(1, true, ":status", "200")
		p.one(Head)
		p.c.Release(s)
		step(p, 1)
		if e := p.fails(StreamClosed); e.Error() == "" {
			t.Error(name)
		}
		p = newPeer(t, Config{Client: true, MaxStreams: 2})
		for range 10 { // more than are remembered
			p.c.Release(p.ask(true))
		}
		for i := range uint32(10) {
			step(p, 2*i+1)
			if events := p.give(); len(events) != 0 {
				t.Errorf("%s: %+v", name, events)
			}
		}
		s = p.ask(true)
		p.head(21, true, ":status", "200")
		p.one(Head)
		p.c.Release(s)
		step(p, 21)
		if e := p.fails(StreamClosed); e.Error() == "" {
			t.Error(name)
		}
	}
}

// TestBadBlocks: compression errors end the connection wherever the block is.
func TestBadBlocks(t *testing.T) {
	bad := []byte{0xff, 0xff, 0xff}
	for name, step := range map[string]func(p *peer){
		"request":    func(p *peer) {},
		"trailers":   func(p *peer) { p.open(false); p.next = 1 },
		"after end":  func(p *peer) { p.open(true); p.next = 1 },
		"reset":      func(p *peer) { p.c.Release(p.open(false)); p.next = 1 },
		"too many":   func(p *peer) { p.open(false); p.open(false) },
		"after gone": func(p *peer) { p.c.GoAway(NoError, "") },
	} {
		p := newPeer(t, Config{MaxStreams: 2})
		step(p)
		p.WriteRawFrame(1, 5, p.next, bad)
		if e := p.fails(CompressionError); e.Error() == "" {
			t.Error(name)
		}
	}
	p := newPeer(t, Config{Client: true})
	p.ask(true)
	p.WriteRawFrame(1, 5, 1, bad)
	p.fails(CompressionError)
	// A block that ends with a size update, and one that is nothing else.
	p = newPeer(t, Config{})
	p.WriteRawFrame(1, 5, 1, []byte{0x20})
	if ev := p.one(Refused); ev.Code != ProtocolError {
		t.Errorf("%+v", ev)
	}
}

// TestLostAndReleased: a stream that the owner releases before its Reset event.
func TestLostAndReleased(t *testing.T) {
	p := newPeer(t, Config{Client: true})
	a, b, c := p.ask(true), p.ask(true), p.ask(true)
	p.WriteGoAway(0, 0, nil)
	ev, n, err := p.c.Next(p.in.Bytes(), 0)
	if err != nil || ev.Kind != GoAway {
		t.Fatal(ev, err)
	}
	p.c.Release(b)
	p.c.Release(a)
	in := p.in.Bytes()[n:]
	if ev, _, err = p.c.Next(in, 0); err != nil || ev.Kind != Reset || ev.Stream != c {
		t.Errorf("%+v, %v", ev, err)
	}
	if ev, _, err = p.c.Next(in, 0); err != nil || ev.Kind != NeedMore {
		t.Errorf("%+v, %v", ev, err)
	}
	if p.c.Release(c); p.c.Active() != 0 {
		t.Error("a stream is left")
	}
}

// TestMemory: what a large head needs once is not kept for ever.
func TestMemory(t *testing.T) {
	p := newPeer(t, Config{})
	crumbs := plain
	for i := range 1000 {
		crumbs = with(crumbs, "cookie", string(rune('a'+i%26)))
	}
	block := p.encode(crumbs...)
	third := len(block) / 3
	p.WriteRawFrame(1, 1, 1, block[:third])
	p.WriteContinuation(1, false, block[third:2*third])
	p.WriteContinuation(1, true, block[2*third:])
	for in := p.in.Bytes(); len(in) > 0; {
		ev, n, err := p.c.Next(in[:min(99, len(in))], 0)
		if err != nil {
			t.Fatal(err)
		}
		if in = in[n:]; ev.Kind == Head {
			if v, _ := ev.Stream.Head.Lookup("cookie"); len(v) != 1000+2*999 {
				t.Errorf("a cookie of %d bytes", len(v))
			}
			p.c.Release(ev.Stream)
		}
	}
	if n := cap(p.c.stash) + cap(p.c.block.buf) + 24*cap(p.c.reading.crumbs); n > 4<<10 {
		t.Errorf("%d bytes are kept", n)
	}
}

// TestRest: what only frames and streams need is given back between them, and no
// more than that.
func TestRest(t *testing.T) {
	p := newPeer(t, Config{})
	fields := with(plain, "x-kept", "in the table")
	for id := uint32(1); id < 8; id += 2 {
		block := p.encode(fields...)
		p.WriteHeaders(headersParam(id, false, block))
		p.give()
		p.c.Rest() // in the middle of a head: no
		p.WriteContinuation(id, true, block)
		s := p.one(Head).Stream
		if v, _ := s.Head.Lookup("x-kept"); string(v) != "in the table" {
			t.Errorf("%q", v)
		}
		p.c.Rest() // with a stream: no
		if p.c.streams.find(id) != s {
			t.Fatal("the stream is lost")
		}
		p.c.Release(s)
		p.c.Rest()
		if n := cap(p.c.stash) + cap(p.c.block.buf) + cap(p.c.reading.crumbs) + cap(p.c.streams.slots); n > 0 {
			t.Errorf("%d are kept", n)
		}
	}
}
