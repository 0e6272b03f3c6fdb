package http2

import (
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

const second = int64(1e9)

// flood repeats a step until the connection ends, and says how often that was;
// after most it is no flood to us.
func (p *peer) flood(most int, step func(i int)) (steps int, e *Error) {
	p.t.Helper()
	for i := range most {
		step(i)
		if _, err := p.try(); err != nil {
			return i + 1, err.(*Error)
		}
		p.out.Reset()
	}
	return most, nil
}

// TestRapidReset is CVE-2023-44487: requests that are reset at once.
func TestRapidReset(t *testing.T) {
	p := newPeer(t, Config{})
	n, e := p.flood(10000, func(i int) {
		id := uint32(2*i + 1)
		p.head(id, true, plain...)
		p.WriteRSTStream(id, xhttp2.ErrCodeCancel)
	})
	if e == nil || e.Code != EnhanceYourCalm || n != 201 {
		t.Errorf("ended after %d by %v", n, e)
	}
}

// TestHonestResets: callers that give up after a while, or once they have their
// answer, may do so as often as they like.
func TestHonestResets(t *testing.T) {
	p := newPeer(t, Config{})
	n, e := p.flood(3000, func(i int) {
		id := uint32(2*i + 1)
		p.head(id, false, plain...)
		s := p.one(Head).Stream
		if i%2 == 0 {
			p.now += second
		} else {
			p.c.WriteHead(s, answer(200), true)
		}
		p.WriteRSTStream(id, xhttp2.ErrCodeCancel)
		p.one(Reset)
		p.c.Release(s)
	})
	if e != nil {
		t.Errorf("ended after %d by %v", n, e)
	}
	// Ten cancelled at once among many that end well.
	p = newPeer(t, Config{})
	n, e = p.flood(3000, func(i int) {
		id := uint32(2*i + 1)
		p.head(id, true, plain...)
		s := p.one(Head).Stream
		if i%3 == 0 {
			p.WriteRSTStream(id, xhttp2.ErrCodeCancel)
			p.one(Reset)
		} else {
			p.c.WriteHead(s, answer(200), true)
		}
		p.c.Release(s)
	})
	if e != nil {
		t.Errorf("ended after %d by %v", n, e)
	}
}

// TestProvokedResets is CVE-2025-8671: frames that make us reset.
func TestProvokedResets(t *testing.T) {
	for name, provoke := range map[string]func(p *peer, id uint32){
		"window by zero":   func(p *peer, id uint32) { p.WriteRawFrame(8, 0, id, []byte{0, 0, 0, 0}) },
		"window overflow":  func(p *peer, id uint32) { p.WriteRawFrame(8, 0, id, []byte{0x7f, 255, 255, 255}) },
		"priority size":    func(p *peer, id uint32) { p.WriteRawFrame(2, 0, id, []byte{0}) },
		"priority on self": func(p *peer, id uint32) { p.WritePriority(id, xhttp2.PriorityParam{StreamDep: id}) },
		"data after end":   func(p *peer, id uint32) { p.WriteData(id, true, []byte("x")) },
		"head after end":   func(p *peer, id uint32) { p.head(id, true, "x-a", "b") },
	} {
		p := newPeer(t, Config{})
		n, e := p.flood(10000, func(i int) {
			id := uint32(2*i + 1)
			p.head(id, true, plain...)
			s := p.one(Head).Stream
			provoke(p, id)
			events, err := p.try()
			if err == nil && (len(events) != 1 || events[0].Kind != Reset || !events[0].Local) {
				t.Fatalf("%s: %+v", name, events)
			}
			p.c.Release(s)
		})
		if e == nil || e.Code != EnhanceYourCalm || n != 201 {
			t.Errorf("%s: ended after %d by %v", name, n, e)
		}
	}
}

// TestRefusals count like resets; heads that are too large like twenty.
func TestRefusals(t *testing.T) {
	want := map[string]int{"malformed": 201, "expectation": 201, "large": 11}
	for name, fields := range map[string][]string{
		"malformed": with(plain, "connection", "close"), "expectation": with(plain, "expect", "x"),
		"large": with(plain, "x-a", strings.Repeat("x", 5000)),
	} {
		p := newPeer(t, Config{MaxHead: 4096})
		n, e := p.flood(10000, func(i int) { p.head(uint32(2*i+1), true, fields...) })
		if e == nil || e.Code != EnhanceYourCalm || n != want[name] {
			t.Errorf("%s: ended after %d by %v", name, n, e)
		}
	}
}

// TestStreamsThatTheOwnerHolds: a peer that resets and opens cannot pile up work.
func TestStreamsThatTheOwnerHolds(t *testing.T) {
	p := newPeer(t, Config{MaxStreams: 10, ResetBurst: 10000})
	refused := 0
	for i := range 50 {
		id := uint32(2*i + 1)
		p.head(id, true, plain...)
		for _, ev := range p.give() {
			if ev.Kind == Refused && ev.Code == RefusedStream {
				refused++
			}
		}
		p.WriteRSTStream(id, xhttp2.ErrCodeCancel)
		p.give()
	}
	if p.c.Active() != 20 || refused != 30 {
		t.Errorf("%d streams are held, %d were refused", p.c.Active(), refused)
	}
}

func TestMaxStreams(t *testing.T) {
	p := newPeer(t, Config{MaxStreams: 3})
	for range 3 {
		p.open(false)
	}
	p.head(7, true, plain...)
	if ev := p.one(Refused); ev.Code != RefusedStream {
		t.Errorf("%+v", ev)
	}
	wantFrames(t, p.take(), "RST_STREAM 7 REFUSED_STREAM")
}

// TestMaxHeads: many heads that are each small enough.
func TestMaxHeads(t *testing.T) {
	p := newPeer(t, Config{MaxHeads: 5000})
	large := with(plain, "x-a", strings.Repeat("x", 2000))
	var held []*Stream
	for _, id := range []uint32{1, 3} {
		p.head(id, true, large...)
		held = append(held, p.one(Head).Stream)
	}
	p.head(5, true, large...)
	if ev := p.one(Refused); ev.Code != RefusedStream {
		t.Errorf("%+v", ev)
	}
	p.c.Release(held[0])
	p.head(7, true, large...)
	held[0] = p.one(Head).Stream
	for _, s := range held {
		p.c.Release(s)
	}
	if p.c.heads != 0 {
		t.Errorf("%d bytes of heads are left", p.c.heads)
	}
}

func TestFloods(t *testing.T) {
	for name, frame := range map[string]func(p *peer, i int){
		"SETTINGS":               func(p *peer, _ int) { p.WriteSettings() },
		"SETTINGS of windows":    func(p *peer, i int) { p.WriteSettings(setting(settingWindow, uint32(i))) },
		"SETTINGS acks":          func(p *peer, _ int) { p.WriteSettingsAck() },
		"PING":                   func(p *peer, _ int) { p.WritePing(false, [8]byte{}) },
		"PING acks":              func(p *peer, _ int) { p.WritePing(true, [8]byte{}) },
		"PRIORITY":               func(p *peer, _ int) { p.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3}) },
		"PRIORITY of idle":       func(p *peer, i int) { p.WritePriority(uint32(2*i+5), xhttp2.PriorityParam{}) },
		"PRIORITY_UPDATE":        func(p *peer, _ int) { p.WriteRawFrame(16, 0, 0, []byte{0, 0, 0, 1, 'u'}) },
		"WINDOW_UPDATE":          func(p *peer, _ int) { p.WriteWindowUpdate(0, 1) },
		"WINDOW_UPDATE (stream)": func(p *peer, _ int) { p.WriteWindowUpdate(1, 1) },
		"empty DATA":             func(p *peer, _ int) { p.WriteData(1, false, nil) },
		"padding alone":          func(p *peer, _ int) { p.WriteDataPadded(1, false, nil, make([]byte, 200)) },
		"unknown":                func(p *peer, _ int) { p.WriteRawFrame(0xbe, 0, 1, nil) },
		"RST_STREAM on closed":   func(p *peer, _ int) { p.WriteRSTStream(3, 0) },
		"DATA on reset":          func(p *peer, _ int) { p.WriteData(3, false, []byte("x")) },
		"HEADERS on reset":       func(p *peer, _ int) { p.head(3, true, plain...) },
		"GOAWAY":                 func(p *peer, _ int) { p.WriteGoAway(0, 0, nil) },
	} {
		p := newPeer(t, Config{})
		p.open(false)
		p.c.Release(p.open(false))
		n, e := p.flood(3000, func(i int) { frame(p, i) })
		if e == nil || e.Code != EnhanceYourCalm || n > 1010 {
			t.Errorf("%s: ended after %d by %v", name, n, e)
		}
		// At an honest pace it may go on for ever.
		p = newPeer(t, Config{})
		p.open(false)
		p.c.Release(p.open(false))
		if n, e = p.flood(3000, func(i int) { frame(p, i); p.now += second / 40 }); e != nil {
			t.Errorf("%s, slowly: ended after %d by %v", name, n, e)
		}
	}
}

// TestUpdatesOfDownloads: two WINDOW_UPDATE for each frame of DATA are no flood.
func TestUpdatesOfDownloads(t *testing.T) {
	p := newPeer(t, Config{})
	s := p.open(true)
	p.c.WriteHead(s, answer(200), false)
	n, e := p.flood(20000, func(int) {
		p.c.WriteData(s, make([]byte, 100), false, p.now)
		p.WriteWindowUpdate(0, 100)
		p.WriteWindowUpdate(1, 100)
		p.WritePing(false, [8]byte{})
	})
	if e != nil {
		t.Errorf("ended after %d by %v", n, e)
	}
}

// TestContinuationFlood is CVE-2024-27316 and its like: blocks without end.
func TestContinuationFlood(t *testing.T) {
	for name, piece := range map[string]string{"empty": "", "small": "\x40\x01a\x01b", "large": strings.Repeat("\x40\x01a\x01b", 2000)} {
		p := newPeer(t, Config{MaxHead: 32 << 10})
		p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1})
		n, e := p.flood(1000, func(int) { p.WriteContinuation(1, false, []byte(piece)) })
		if e == nil || e.Code != EnhanceYourCalm || n > 16 || name == "large" && n > 4 {
			t.Errorf("%s: ended after %d by %v", name, n, e)
		}
		if kept := cap(p.c.block.buf); kept > 128<<10 {
			t.Errorf("%s: %d bytes are kept", name, kept)
		}
	}
}

// TestBombs: small blocks that would be large heads.
func TestBombs(t *testing.T) {
	p := newPeer(t, Config{})
	entry := p.encode("x-bomb", strings.Repeat("y", 3900))
	for name, fill := range map[string][]byte{
		"references": []byte(strings.Repeat("\xbe", 16000)),
		"cookies":    []byte(strings.Repeat("\x60\x00", 8000)),
		"empty":      []byte(strings.Repeat("\x00\x01a\x00", 4000)),
	} {
		p := newPeer(t, Config{})
		p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: append(newPeer(t, Config{}).encode(plain...), entry...), EndHeaders: true, EndStream: true})
		s := p.one(Head).Stream
		p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: fill, EndHeaders: true, EndStream: true})
		if ev := p.one(Refused); ev.Status != 431 {
			t.Errorf("%s: %+v", name, ev)
		}
		p.c.Release(s)
		for f := p.c.pool.free; f != nil; f = f.next {
			if cap(f.arena) > 100<<10 {
				t.Errorf("%s: an arena of %d bytes is left", name, cap(f.arena))
			}
		}
	}
}

// TestPeerThatDoesNotRead: what we owe it is bounded, at any pace.
func TestPeerThatDoesNotRead(t *testing.T) {
	for name, frame := range map[string]func(p *peer, i int){
		"PING":     func(p *peer, _ int) { p.WritePing(false, [8]byte{}) },
		"SETTINGS": func(p *peer, _ int) { p.WriteSettings() },
		"refusals": func(p *peer, i int) { p.head(uint32(2*i+1), true, "x", "y") },
	} {
		p := newPeer(t, Config{})
		p.deaf = true
		n, e := p.flood(100000, func(i int) { frame(p, i); p.now += second })
		if e == nil || e.Code != EnhanceYourCalm || len(p.c.Out()) > 20<<10 {
			t.Errorf("%s: ended after %d by %v, %d bytes are kept", name, n, e, len(p.c.Out()))
		}
		// One that reads, be it late, is no such peer.
		p = newPeer(t, Config{})
		p.deaf = true
		n, e = p.flood(10000, func(i int) {
			frame(p, i)
			p.now += second
			if out := len(p.c.Out()); out > 5000 {
				p.c.Sent(out - 100)
			}
		})
		if e != nil {
			t.Errorf("%s, read late: ended after %d by %v", name, n, e)
		}
	}
}

// TestDecoded: what heads came to is known, also where few bytes made many of them.
func TestDecoded(t *testing.T) {
	p := newPeer(t, Config{})
	long := strings.Repeat("v", 1000)
	fields := with(plain, "x-long", long)
	want := uint64(0)
	for i := 0; i < len(fields); i += 2 {
		want += uint64(len(fields[i]) + len(fields[i+1]) + 32)
	}
	for id := uint32(1); id < 6; id += 2 {
		before, came := p.c.Decoded(), p.in.Len()
		p.head(id, true, fields...)
		came = p.in.Len() - came
		p.c.Release(p.one(Head).Stream)
		if got := p.c.Decoded() - before; got != want {
			t.Errorf("stream %d: %d bytes, want %d", id, got, want)
		}
		if id > 1 && came > 50 {
			t.Errorf("%d bytes came", came)
		}
	}
}
