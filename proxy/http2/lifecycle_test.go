package http2

import (
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// TestConnectionErrors: what ends a connection, and with which code.
func TestConnectionErrors(t *testing.T) {
	raw := func(kind xhttp2.FrameType, flags xhttp2.Flags, id uint32, payload string) func(p *peer) {
		return func(p *peer) { p.WriteRawFrame(kind, flags, id, []byte(payload)) }
	}
	for name, c := range map[string]struct {
		code  Code
		frame func(p *peer)
	}{
		"DATA on 0":              {ProtocolError, raw(0, 0, 0, "x")},
		"DATA on idle":           {ProtocolError, raw(0, 0, 7, "x")},
		"DATA on an even stream": {ProtocolError, raw(0, 0, 2, "x")},
		"DATA padded too far":    {ProtocolError, raw(0, 8, 1, "\x05xx")},
		"DATA without padding":   {FrameSizeError, raw(0, 8, 1, "")},
		"HEADERS on 0":           {ProtocolError, raw(1, 4, 0, "\x82")},
		"HEADERS on even":        {ProtocolError, raw(1, 4, 2, "\x82")},
		"HEADERS padded too far": {ProtocolError, raw(1, 12, 5, "\x05\x82")},
		"HEADERS cut (padding)":  {FrameSizeError, raw(1, 12, 5, "")},
		"HEADERS cut (priority)": {FrameSizeError, raw(1, 36, 5, "\x00\x00\x00\x00")},
		"bad block":              {CompressionError, raw(1, 4, 5, "\x80")},
		"PRIORITY on 0":          {ProtocolError, raw(2, 0, 0, "\x00\x00\x00\x00\x00")},
		"RST_STREAM on 0":        {ProtocolError, raw(3, 0, 0, "\x00\x00\x00\x00")},
		"RST_STREAM on idle":     {ProtocolError, raw(3, 0, 9, "\x00\x00\x00\x00")},
		"RST_STREAM of 3":        {FrameSizeError, raw(3, 0, 1, "\x00\x00\x00")},
		"SETTINGS on 1":          {ProtocolError, raw(4, 0, 1, "")},
		"SETTINGS of 5":          {FrameSizeError, raw(4, 0, 0, "\x00\x00\x00\x00\x00")},
		"SETTINGS ack of 6":      {FrameSizeError, raw(4, 1, 0, "\x00\x01\x00\x00\x00\x00")},
		"push 2":                 {ProtocolError, raw(4, 0, 0, "\x00\x02\x00\x00\x00\x02")},
		"window 2^31":            {FlowControlError, raw(4, 0, 0, "\x00\x04\x80\x00\x00\x00")},
		"frame 100":              {ProtocolError, raw(4, 0, 0, "\x00\x05\x00\x00\x00\x64")},
		"frame 2^24":             {ProtocolError, raw(4, 0, 0, "\x00\x05\x01\x00\x00\x00")},
		"connect 2":              {ProtocolError, raw(4, 0, 0, "\x00\x08\x00\x00\x00\x02")},
		"connect back":           {ProtocolError, raw(4, 0, 0, "\x00\x08\x00\x00\x00\x01\x00\x08\x00\x00\x00\x00")},
		"no priorities 2":        {ProtocolError, raw(4, 0, 0, "\x00\x09\x00\x00\x00\x02")},
		"PUSH_PROMISE":           {ProtocolError, raw(5, 4, 1, "\x00\x00\x00\x02\x82")},
		"PING on 1":              {ProtocolError, raw(6, 0, 1, "12345678")},
		"PING of 7":              {FrameSizeError, raw(6, 0, 0, "1234567")},
		"GOAWAY on 1":            {ProtocolError, raw(7, 0, 1, "12345678")},
		"GOAWAY of 7":            {FrameSizeError, raw(7, 0, 0, "1234567")},
		"WINDOW_UPDATE of 3":     {FrameSizeError, raw(8, 0, 0, "\x00\x00\x01")},
		"WINDOW_UPDATE on idle":  {ProtocolError, raw(8, 0, 9, "\x00\x00\x00\x01")},
		"CONTINUATION":           {ProtocolError, raw(9, 4, 1, "\x82")},
		"a large frame":          {FrameSizeError, raw(0, 0, 1, string(make([]byte, 16385)))},
		"a large unknown frame":  {FrameSizeError, raw(99, 0, 1, string(make([]byte, 16385)))},
		"a block interrupted":    {ProtocolError, func(p *peer) { raw(1, 0, 5, "\x82")(p); raw(6, 0, 0, "12345678")(p) }},
		"a block and another":    {ProtocolError, func(p *peer) { raw(1, 0, 5, "\x82")(p); raw(9, 4, 7, "\x84")(p) }},
		"a block and unknown":    {ProtocolError, func(p *peer) { raw(1, 0, 5, "\x82")(p); raw(99, 4, 5, "\x84")(p) }},
		"DATA on closed":         {StreamClosed, func(p *peer) { closed(p); raw(0, 0, 3, "x")(p) }},
		"HEADERS on closed":      {StreamClosed, func(p *peer) { closed(p); p.head(3, true, plain...) }},
	} {
		p := newPeer(t, Config{})
		s := p.open(false)
		c := c
		c.frame(p)
		e := p.fails(c.code)
		if e.Reason == "" || p.c.Err() != e || !s.LocalDone() {
			t.Errorf("%s: %v", name, e)
		}
		if n := p.c.WriteData(s, []byte("x"), true, 0); n != 0 || p.c.WriteHead(s, answer(200), true) == nil {
			t.Errorf("%s: writes go on", name)
		}
		if _, n, err := p.c.Next([]byte("more"), 0); n != 0 || err == nil {
			t.Errorf("%s: reading goes on", name)
		}
	}
}

// closed opens stream 3 and lets it end well.
func closed(p *peer) {
	s := p.open(true)
	p.c.WriteHead(s, answer(200), true)
	p.c.Release(s)
	p.take()
}

func TestBeginnings(t *testing.T) {
	p := mutePeer(t, Config{})
	p.in.Reset()
	p.in.WriteString("GET / HTTP/1.1\r\n\r\n")
	p.fails(ProtocolError)
	p = mutePeer(t, Config{})
	if p.give(); p.c.Ready() || p.c.Partial() {
		t.Error("ready, or in the middle of something, after the preface")
	}
	p.WritePing(false, [8]byte{})
	p.fails(ProtocolError)
	p = mutePeer(t, Config{})
	p.WriteSettingsAck()
	p.fails(ProtocolError)
	p = mutePeer(t, Config{Client: true})
	p.head(1, true, ":status", "200")
	p.fails(ProtocolError)
	// A client does not speak before it knows the server, but may.
	p = mutePeer(t, Config{Client: true})
	if p.ask(true); p.c.Ready() {
		t.Error("ready without settings")
	}
}

// TestResetStreams: what is on its way when we reset is ignored, and counted.
func TestResetStreams(t *testing.T) {
	p := newPeer(t, Config{})
	s := p.open(false)
	p.c.Reset(s, InternalError)
	if _, _, yes := s.Aborted(); !yes || p.c.Active() != 1 {
		t.Fatal("not reset, or not held")
	}
	p.c.Release(s)
	p.WriteData(1, false, make([]byte, 100))
	p.head(1, true, "x-new", "in the table", "x-new", "in the table")
	p.WriteWindowUpdate(1, 5)
	p.WriteRSTStream(1, 8)
	if events := p.give(); len(events) != 0 || p.c.unacked != 100 {
		t.Errorf("%+v, %d bytes to give back", events, p.c.unacked)
	}
	p.head(3, true, with(plain, "x-new", "in the table")...)
	if ev := p.one(Head); textOf(&ev.Stream.Head) != "GET http a / x-new=in the table none" {
		t.Errorf("%s", textOf(&ev.Stream.Head))
	}
	wantFrames(t, p.take(), "RST_STREAM 1 INTERNAL_ERROR")
}

// TestRelease: what the owner's leaving tells the peer.
func TestRelease(t *testing.T) {
	p := newPeer(t, Config{})
	p.c.Release(p.open(true)) // no answer
	s := p.open(false)
	p.c.WriteHead(s, answer(200), true) // the rest is not wanted
	p.c.Release(s)
	p.c.Release(s) // once is enough
	wantFrames(t, p.take(), "RST_STREAM 1 CANCEL", "HEADERS 3 :status=200 end", "RST_STREAM 3 NO_ERROR")
	// In the middle of a frame.
	s = p.open(false)
	p.WriteData(5, true, []byte("0123456789"))
	in := p.in.Bytes()
	ev, n, err := p.c.Next(in[:14], 0)
	if err != nil || n != 14 || string(ev.Data) != "01234" {
		t.Fatal(ev, n, err)
	}
	p.c.Release(s)
	if ev, n, err = p.c.Next(in[14:], 0); err != nil || n != 5 || ev.Kind != NeedMore || p.c.unacked != 10 {
		t.Errorf("%+v, %d, %v, %d bytes to give back", ev, n, err, p.c.unacked)
	}
	p.in.Reset()
	// A client's, before and after its head.
	p = newPeer(t, Config{Client: true})
	s, _ = p.c.Open()
	p.c.Release(s)
	p.c.Release(p.ask(true))
	wantFrames(t, p.take(), "HEADERS 1 :method=GET :scheme=http :path=/ :authority=a end", "RST_STREAM 1 CANCEL")
	if p.c.Active() != 0 {
		t.Error("a stream is left")
	}
}

func TestOpen(t *testing.T) {
	p := newPeer(t, Config{Client: true, MaxStreams: 5})
	p.WriteSettings(setting(settingStreams, 2))
	p.one(Settings)
	a, b := p.ask(true), p.ask(true)
	if _, err := p.c.Open(); err != ErrTooManyStreams || p.c.Free() != 0 {
		t.Errorf("%v, %d free", err, p.c.Free())
	}
	p.c.Release(a)
	p.WriteSettings(setting(settingStreams, 9))
	p.one(Settings)
	if p.c.Free() != 4 || p.c.PeerMaxStreams() != 9 {
		t.Errorf("%d free", p.c.Free())
	}
	p.c.Release(b)
	// Ids come to an end.
	p.c.nextID = maxWindow
	s, _ := p.c.Open()
	late, _ := p.c.Open()
	if err := p.c.WriteHead(s, request("GET"), true); err != nil || s.ID != maxWindow || p.c.Usable() {
		t.Errorf("%v, id %d", err, s.ID)
	}
	if err := p.c.WriteHead(late, request("GET"), true); err != ErrGoingAway {
		t.Error(err)
	}
	if _, err := p.c.Open(); err != ErrGoingAway {
		t.Error(err)
	}
}

// TestGoAwayToClient: streams beyond the last may be sent again elsewhere.
func TestGoAwayToClient(t *testing.T) {
	p := newPeer(t, Config{Client: true})
	var streams []*Stream
	for range 5 {
		streams = append(streams, p.ask(true))
	}
	early, _ := p.c.Open()
	p.WriteGoAway(maxWindow, 0, nil)
	if ev := p.one(GoAway); ev.Last != maxWindow || p.c.Usable() {
		t.Errorf("%+v", ev)
	}
	p.WriteGoAway(5, xhttp2.ErrCodeEnhanceYourCalm, []byte("why"))
	events := p.give()
	if len(events) != 3 || events[0].Code != EnhanceYourCalm || string(events[0].Data) != "why" {
		t.Fatalf("%+v", events)
	}
	for _, ev := range events[1:] {
		if ev.Kind != Reset || !ev.Unprocessed || ev.Stream != streams[3] && ev.Stream != streams[4] {
			t.Errorf("%+v", ev)
		}
		p.c.Release(ev.Stream)
	}
	if err := p.c.WriteHead(early, request("GET"), true); err != ErrGoingAway {
		t.Error(err)
	}
	p.c.Release(early)
	for _, s := range streams[:2] {
		p.head(s.ID, true, ":status", "200")
		p.one(Head)
		p.c.Release(s)
	}
	p.WriteRSTStream(5, xhttp2.ErrCodeRefusedStream)
	if ev := p.one(Reset); !ev.Unprocessed || ev.Local || ev.Stream != streams[2] || p.c.Drained() {
		t.Errorf("%+v", ev)
	}
	if p.c.Release(streams[2]); !p.c.Drained() {
		t.Error("not drained")
	}
	p.WriteGoAway(7, 0, nil)
	p.fails(ProtocolError)
}

func TestDrain(t *testing.T) {
	p := newPeer(t, Config{})
	s := p.open(true)
	p.c.Drain()
	wantFrames(t, p.take(), `GOAWAY 2147483647 NO_ERROR ""`, "PING 6d6f697265647261 ack=false")
	s2 := p.open(true) // it was on its way
	p.WritePing(true, [8]byte{'m', 'o', 'i', 'r', 'e', 'd', 'r', 'a'})
	p.give()
	wantFrames(t, p.take(), `GOAWAY 3 NO_ERROR ""`)
	p.head(5, false, plain...) // too late: ignored
	p.WriteData(5, true, []byte("x"))
	if events := p.give(); len(events) != 0 || p.c.Drained() {
		t.Errorf("%+v", events)
	}
	for _, s := range []*Stream{s, s2} {
		p.c.WriteHead(s, answer(200), true)
		p.c.Release(s)
	}
	if p.take(); !p.c.Drained() {
		t.Error("not drained")
	}
	// A peer that does not answer the PING.
	p = newPeer(t, Config{})
	p.c.Drain()
	p.c.Drain()
	p.c.Drain()
	wantFrames(t, p.take(), `GOAWAY 2147483647 NO_ERROR ""`, "PING 6d6f697265647261 ack=false", `GOAWAY 0 NO_ERROR ""`)
	if !p.c.Drained() {
		t.Error("not drained")
	}
	p = newPeer(t, Config{Client: true})
	s = p.ask(true)
	p.c.Drain()
	if _, err := p.c.Open(); err != ErrGoingAway || p.c.Drained() {
		t.Error(err)
	}
	p.c.Release(s)
	if !p.c.Drained() {
		t.Error("not drained")
	}
}

// TestEnd: when the transport is gone every open stream is told.
func TestEnd(t *testing.T) {
	p := newPeer(t, Config{Client: true})
	for range 20 {
		p.ask(true)
	}
	p.c.End("the socket was closed")
	resets := 0
	for {
		ev, _, err := p.c.Next(nil, 0)
		if err != nil {
			break
		}
		if ev.Kind != Reset || ev.Unprocessed || ev.Reason != "the socket was closed" {
			t.Fatalf("%+v", ev)
		}
		resets++
		p.c.Release(ev.Stream)
	}
	if resets != 20 || p.c.Active() != 0 || !p.c.Drained() {
		t.Errorf("%d streams were told, %d are left", resets, p.c.Active())
	}
}

func TestPing(t *testing.T) {
	p := newPeer(t, Config{})
	p.c.Ping(7)
	wantFrames(t, p.take(), "PING 0000000000000007 ack=false")
	p.WritePing(true, [8]byte{7: 7})
	if ev := p.one(Pong); ev.Ping != 7 {
		t.Errorf("%+v", ev)
	}
	p.WritePing(false, [8]byte{1, 2, 3})
	p.give()
	wantFrames(t, p.take(), "PING 0102030000000000 ack=true")
}
