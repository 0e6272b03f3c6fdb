package http2

import (
	"bytes"
	"strings"
	"testing"
)

func TestWritingWaitsForTheStreamsWindow(t *testing.T) {
	p := newPeer(t, Config{})
	p.WriteSettings(setting(settingWindow, 10))
	p.one(Settings)
	s := p.open(true)
	if err := p.c.WriteHead(s, answer(200), false); err != nil {
		t.Fatal(err)
	}
	if n := p.c.WriteData(s, []byte("0123456789abcdef"), true, 77); n != 10 || s.Stalled() != 77 || p.c.Room(s) != 0 {
		t.Fatalf("%d bytes written, stalled since %d", n, s.Stalled())
	}
	if p.c.WriteData(s, []byte("abcdef"), true, 99); s.Stalled() != 77 {
		t.Errorf("stalled since %d", s.Stalled())
	}
	if p.c.Writable() != nil {
		t.Error("writable without a window")
	}
	p.WriteWindowUpdate(1, 3)
	p.one(Window)
	if got := p.c.Writable(); got != s || p.c.Writable() != nil {
		t.Fatalf("writable is %v", got)
	}
	if n := p.c.WriteData(s, []byte("abcdef"), true, 78); n != 3 {
		t.Errorf("%d bytes written", n)
	}
	// A larger initial window counts for open streams.
	p.WriteSettings(setting(settingWindow, 13))
	p.one(Settings)
	if p.c.Writable() != s {
		t.Error("not writable after SETTINGS")
	}
	if n := p.c.WriteData(s, []byte("def"), true, 79); n != 3 || s.Stalled() != 0 || !s.LocalDone() {
		t.Errorf("%d bytes written", n)
	}
	wantFrames(t, p.take(), "SETTINGS ack=true", "HEADERS 1 :status=200", `DATA 1 "0123456789"`, `DATA 1 "abc"`, "SETTINGS ack=true", `DATA 1 "def" end`)
}

// TestWindowBelowZero: SETTINGS may take more than there was (RFC 9113, 6.9.2).
func TestWindowBelowZero(t *testing.T) {
	p := newPeer(t, Config{})
	s := p.open(true)
	p.c.WriteHead(s, answer(200), false)
	p.c.WriteData(s, make([]byte, 50000), false, 0)
	p.c.Sent(len(p.c.Out()))
	p.WriteSettings(setting(settingWindow, 100))
	p.one(Settings)
	if p.c.WriteData(s, []byte("x"), false, 5) != 0 || s.sendWindow != 100-50000 {
		t.Fatalf("the window is %d", s.sendWindow)
	}
	p.WriteWindowUpdate(1, 50000-100)
	if p.give(); p.c.Writable() != nil {
		t.Fatal("writable at zero")
	}
	p.WriteWindowUpdate(1, 1)
	p.one(Window)
	if p.c.Writable() != s || p.c.Room(s) != 1 {
		t.Fatal("not writable at one")
	}
}

// TestFairness: streams that wait for the connection take turns.
func TestFairness(t *testing.T) {
	p := newPeer(t, Config{MaxOut: 1 << 30})
	var streams []*Stream
	for range 4 {
		s := p.open(true)
		p.c.WriteHead(s, answer(200), false)
		streams = append(streams, s)
	}
	for _, s := range streams {
		p.c.WriteData(s, make([]byte, 60000), false, 1)
	}
	if s := streams[1]; s.Stalled() != 1 || p.c.Writable() != nil {
		t.Fatal("the window of the connection does not hold")
	}
	var order []uint32
	for range 6 {
		p.WriteWindowUpdate(0, 100)
		p.one(Window)
		s := p.c.Writable()
		order = append(order, s.ID)
		p.c.WriteData(s, make([]byte, 10000), false, 1)
	}
	if want := []uint32{3, 5, 7, 3, 5, 7}; !equal(order, want) {
		t.Errorf("turns %v, want %v", order, want)
	}
	// One that goes away is not named any more.
	p.c.Release(streams[1])
	p.WriteWindowUpdate(0, 100)
	p.give()
	if s := p.c.Writable(); s != streams[2] {
		t.Errorf("writable is %v", s)
	}
}

func equal(a, b []uint32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestOutIsBounded: who cannot write Out gets no more DATA to write.
func TestOutIsBounded(t *testing.T) {
	p := newPeer(t, Config{MaxOut: 1000})
	p.deaf = true
	s := p.open(true)
	p.c.WriteHead(s, answer(200), false)
	if n := p.c.WriteData(s, make([]byte, 5000), false, 0); n > 1000 || p.c.Writable() != nil {
		t.Fatalf("%d bytes taken", n)
	}
	for len(p.c.Out()) > 0 {
		p.c.Sent(min(100, len(p.c.Out())))
	}
	if p.c.Writable() != s || p.c.Room(s) != 1000 {
		t.Fatal("not writable after Out was written")
	}
}

func TestWindowsAreGivenBack(t *testing.T) {
	p := newPeer(t, Config{InitialWindow: 100000, ConnWindow: 200000})
	s := p.open(false)
	for range 3 {
		p.WriteData(1, false, make([]byte, 16000))
		if ev := p.one(Data); len(ev.Data) != 16000 {
			t.Fatalf("%d bytes came", len(ev.Data))
		}
	}
	if out := p.take(); len(out) != 0 {
		t.Errorf("windows opened before anything was consumed: %v", out)
	}
	p.c.Consumed(s, 40000)
	wantFrames(t, p.take())
	p.c.Consumed(s, 8000)
	p.WriteData(1, false, make([]byte, 4000))
	p.one(Data)
	p.c.Consumed(s, 4000)
	wantFrames(t, p.take(), "WINDOW_UPDATE 1 52000")
	// What is never consumed comes back to the connection with Release.
	for range 3 {
		p.WriteData(1, false, make([]byte, 16000))
		p.one(Data)
	}
	p.c.Release(s)
	wantFrames(t, p.take(), "RST_STREAM 1 CANCEL", "WINDOW_UPDATE 0 100000")
	// So does what comes after that.
	for range 7 {
		p.WriteData(1, false, make([]byte, 16000))
	}
	if events := p.give(); len(events) != 0 {
		t.Errorf("%+v", events)
	}
	wantFrames(t, p.take(), "WINDOW_UPDATE 0 112000")
}

// TestPadding counts and never waits for the owner.
func TestPadding(t *testing.T) {
	p := newPeer(t, Config{})
	s := p.open(false)
	for range 260 {
		p.WriteDataPadded(1, false, []byte("x"), make([]byte, 255))
	}
	if events := p.give(); len(events) != 260 || s.held != 260 {
		t.Fatalf("%d events, %d held", len(events), s.held)
	}
	wantFrames(t, p.take(), "WINDOW_UPDATE 1 32768", "WINDOW_UPDATE 1 32768")
	p.WriteDataPadded(1, true, nil, make([]byte, 9))
	if ev := p.one(Data); !ev.End || len(ev.Data) != 0 {
		t.Errorf("%+v", ev)
	}
}

// TestPeersOverrun: DATA beyond a window.
func TestPeersOverrun(t *testing.T) {
	p := newPeer(t, Config{InitialWindow: 20000})
	p.open(false)
	p.WriteData(1, false, make([]byte, 16000))
	p.one(Data)
	p.WriteData(1, false, make([]byte, 4001))
	if ev := p.one(Reset); ev.Code != FlowControlError || !ev.Local {
		t.Errorf("%+v", ev)
	}
	p = newPeer(t, Config{InitialWindow: 1 << 20, ConnWindow: 70000})
	p.open(false)
	for range 5 {
		p.WriteData(1, false, make([]byte, 16000))
	}
	p.fails(FlowControlError)
}

// TestSmallWindowBeforeAck: until the peer acknowledged our smaller window it
// may use the protocol's.
func TestSmallWindowBeforeAck(t *testing.T) {
	p := mutePeer(t, Config{InitialWindow: 1000})
	p.WriteSettings()
	p.give()
	s := p.open(false)
	p.WriteData(1, false, make([]byte, 1500))
	p.one(Data)
	p.WriteSettingsAck()
	p.give()
	if s.recvWindow != 1000-1500 {
		t.Fatalf("the window is %d", s.recvWindow)
	}
	p.c.Consumed(s, 1500)
	p.WriteData(1, false, make([]byte, 1000))
	p.one(Data)
	p.WriteData(1, false, make([]byte, 1))
	p.one(Reset)
}

func TestPeersWindowUpdates(t *testing.T) {
	p := newPeer(t, Config{})
	p.open(true)
	p.WriteRawFrame(8, 0, 1, []byte{0, 0, 0, 0})
	if ev := p.one(Reset); ev.Code != ProtocolError {
		t.Errorf("%+v", ev)
	}
	p.open(true)
	p.WriteRawFrame(8, 0, 3, []byte{0x7f, 0xff, 0xff, 0xff})
	if ev := p.one(Reset); ev.Code != FlowControlError {
		t.Errorf("%+v", ev)
	}
	p.WriteRawFrame(8, 0, 3, []byte{0, 0, 0, 0}) // closed: ignored
	if events := p.give(); len(events) != 0 {
		t.Errorf("%+v", events)
	}
	p.WriteRawFrame(8, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff})
	p.fails(FlowControlError)
	p = newPeer(t, Config{})
	p.WriteRawFrame(8, 0, 0, []byte{0, 0, 0, 0})
	p.fails(ProtocolError)
	p = newPeer(t, Config{})
	s := p.open(true)
	p.WriteRawFrame(8, 0, 1, []byte{0x7f, 0, 0, 0})
	p.give()
	p.WriteSettings(setting(settingWindow, maxWindow))
	p.fails(FlowControlError)
	if _, _, yes := s.Aborted(); !yes {
		t.Error("the stream lives on")
	}
}

// TestAnyCut: the same bytes, cut anywhere, make the same events.
func TestAnyCut(t *testing.T) {
	w := newPeer(t, Config{})
	w.in.WriteString(Preface)
	w.WriteSettings(setting(settingWindow, 100), setting(settingTable, 100))
	w.head(1, false, with(plain, "content-length", "300", "x-a", strings.Repeat("y", 200))...)
	w.WriteDataPadded(1, false, bytes.Repeat([]byte("z"), 200), make([]byte, 7))
	w.WritePing(false, [8]byte{1, 2})
	w.WriteRawFrame(0x77, 3, 9, []byte("unknown"))
	w.WriteData(1, true, bytes.Repeat([]byte("w"), 100))
	block := w.encode(plain...)
	w.WriteHeaders(headersParam(3, true, block))
	w.WriteContinuation(3, false, block[:3])
	w.WriteContinuation(3, true, block[3:])
	w.WriteRSTStream(3, 8)
	w.WriteGoAway(0, 0, []byte("bye"))
	all := bytes.Clone(w.in.Bytes())
	want := "settings head 1 body 1:300 end head 3 end reset 3 goaway "
	for step := 1; step < len(all); step += 1 + step/9 {
		var c Conn
		c.Init(&Config{}, nil, 0)
		var got strings.Builder
		body := 0
		for at := 0; at < len(all); at += step {
			in := all[at:min(at+step, len(all))]
			for {
				ev, n, err := c.Next(in, 0)
				if err != nil {
					t.Fatal(err)
				}
				if in = in[n:]; ev.Kind == NeedMore {
					break
				}
				tell(&got, &ev, &body)
			}
		}
		if got.String() != want {
			t.Errorf("in steps of %d: %s", step, got.String())
		}
	}
}
