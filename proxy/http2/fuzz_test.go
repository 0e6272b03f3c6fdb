package http2

import (
	"bytes"
	"errors"
	"io"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// fuzzed is an owner that does what owners do, as the input says.
type fuzzed struct {
	t     *testing.T
	c     Conn
	held  []*Stream
	moves []byte
	out   bytes.Buffer
}

func (f *fuzzed) move() int {
	if len(f.moves) == 0 {
		return 0
	}
	m := f.moves[0]
	f.moves = append(f.moves[1:], m)
	return int(m)
}

// FuzzNext feeds bytes in pieces to a Conn of either role. Whatever comes: no
// panic, an end, bounded memory, and frames of ours that others can read.
func FuzzNext(f *testing.F) {
	p := mutePeer(f, Config{})
	p.in.Reset()
	p.WriteSettings(setting(settingWindow, 100))
	p.head(1, false, with(plain, "cookie", "a", "cookie", "b", "content-length", "4")...)
	p.WriteDataPadded(1, true, []byte("body"), []byte{0, 0})
	block := p.encode(plain...)
	p.WriteHeaders(headersParam(3, true, block))
	p.WriteContinuation(3, true, block)
	p.WriteWindowUpdate(1, 7)
	p.WritePing(false, [8]byte{})
	p.WriteRSTStream(3, 8)
	p.WriteGoAway(0, 0, nil)
	f.Add(false, false, bytes.Clone(p.in.Bytes()), []byte{200, 3, 9, 1, 77})
	p.in.Reset()
	p.WriteSettings(setting(settingConnect, 1), setting(settingStreams, 3))
	p.head(1, false, ":status", "103")
	p.head(1, false, ":status", "200", "grpc-status", "0")
	p.WriteData(1, false, []byte("body"))
	p.head(1, true, "grpc-status", "0")
	p.WriteGoAway(1, 0, nil)
	f.Add(true, false, bytes.Clone(p.in.Bytes()), []byte{5, 60, 7})
	f.Add(false, true, []byte{4, 0, 0, 0, 1, 5, 1, 0, 0, 0, 1, 3, 'a', 'b', 'c', 8, 0, 1, 4, 0, 0, 0, 9, 1, 4, 3, 1, 3, 0, 3, 0, 1, 1, 3, 6}, []byte{9, 8, 7, 6, 5})
	f.Add(true, true, []byte{4, 0, 0, 0, 1, 4, 1, 2, 1, 4, 1, 1, 0, 0, 1, 3, 'a', 'b', 'c', 1, 5, 1, 3, 7, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0}, []byte{16, 0, 0, 0, 4, 0, 8})
	f.Fuzz(func(t *testing.T, client, framed bool, in, moves []byte) {
		if framed {
			in = fuzzFrames(p, in)
		}
		z := &fuzzed{t: t, moves: moves}
		z.c.Init(&Config{Client: client, EnableConnect: true, MaxStreams: 10, MaxHead: 8192}, nil, 0)
		if client {
			z.out.Write(z.c.Out()[len(Preface):])
			z.c.Sent(len(z.c.Out()))
		} else {
			in = append([]byte(Preface), in...)
		}
		for len(in) > 0 && z.c.Err() == nil {
			n := min(len(in), 1+z.move()*z.move()/16)
			z.feed(bytes.Clone(in[:n]))
			in = in[n:]
			z.act()
			z.flush()
		}
		z.c.End("the input ended")
		z.feed(nil)
		for _, s := range z.held {
			z.c.Release(s)
		}
		z.flush()
		z.check()
	})
}

// fuzzFrames makes whole frames of bytes that say type, flags, stream and length,
// or which block.
func fuzzFrames(p *peer, in []byte) []byte {
	blocks := [][]string{plain, with(plain, "content-length", "3"), {":status", "200"}, {":status", "100"}, {"grpc-status", "0"},
		with(plain, "x-a", "b", "x-a", "b"), method("HEAD"), {":status", "304", "content-length", "9"}}
	p.in.Reset()
	p.enc.SetMaxDynamicTableSize(0)
	for len(in) >= 4 {
		kind, flags, id, size := in[0], in[1], in[2], int(in[3])
		in = in[4:]
		if kind == 1 || kind == 9 {
			p.WriteRawFrame(xhttp2.FrameType(kind), xhttp2.Flags(flags), uint32(id), p.encode(blocks[size%len(blocks)]...))
			continue
		}
		size = min(size, len(in))
		payload := in[:size]
		in = in[size:]
		p.WriteRawFrame(xhttp2.FrameType(kind), xhttp2.Flags(flags), uint32(id), payload)
	}
	return bytes.Clone(p.in.Bytes())
}

func (f *fuzzed) feed(in []byte) {
	for i := 0; ; i++ {
		ev, n, err := f.c.Next(in, int64(i)*1e6)
		in = in[n:]
		if err != nil {
			return
		}
		if ev.Kind == NeedMore {
			if len(in) > 0 {
				f.t.Fatal("NeedMore with bytes left")
			}
			return
		}
		if i > 100000 {
			f.t.Fatal("no end")
		}
		if ev.Kind == Head && !f.c.cfg.Client {
			f.held = append(f.held, ev.Stream)
			if len(ev.Stream.Head.Authority) == 0 || bytes.ContainsAny(ev.Stream.Head.Path, " \r\n\x00#") {
				f.t.Fatalf("a wrong head: %s", textOf(&ev.Stream.Head))
			}
		}
		if ev.Kind == Data && f.move()%3 > 0 {
			f.c.Consumed(ev.Stream, len(ev.Data))
		}
		for range f.move() % 4 {
			f.act()
		}
	}
}

// act does one thing that owners do.
func (f *fuzzed) act() {
	m := f.move()
	if f.c.cfg.Client && m%4 == 0 {
		if s, err := f.c.Open(); err == nil {
			f.held = append(f.held, s)
		}
	}
	if len(f.held) == 0 {
		return
	}
	i := m / 4 % len(f.held)
	s := f.held[i]
	switch f.move() % 7 {
	case 0:
		if f.c.cfg.Client {
			f.c.WriteHead(s, request("POST"), m%8 == 0)
		} else {
			f.c.WriteHead(s, answer(200), m%8 == 0)
		}
	case 1, 2:
		f.c.WriteData(s, make([]byte, m*m), m%3 == 0, 1)
	case 3:
		f.c.WriteTrailers(s, nil)
	case 4:
		f.c.Reset(s, Cancel)
	case 5:
		f.held = append(f.held[:i], f.held[i+1:]...)
		f.c.Release(s)
	case 6:
		if m == 6 {
			f.c.Drain()
		}
		if w := f.c.Writable(); w != nil && f.c.WriteData(w, make([]byte, m), false, 2) == 0 && m > 0 {
			f.t.Fatal("a writable stream has no room")
		}
	}
}

func (f *fuzzed) flush() {
	n := len(f.c.Out())
	if n > f.c.cfg.MaxOut+f.c.cfg.MaxReplies+100000 {
		f.t.Fatalf("%d bytes are waiting", n)
	}
	f.out.Write(f.c.Out())
	f.c.Sent(n)
}

// check reads all that was written.
func (f *fuzzed) check() {
	if f.c.Active() != 0 || f.c.streams.count != 0 || f.c.ready.first != nil || f.c.lost != nil {
		f.t.Fatalf("%d streams are left", f.c.Active())
	}
	reader := xhttp2.NewFramer(nil, &f.out)
	for {
		_, err := reader.ReadFrame()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			f.t.Fatalf("we wrote a wrong frame: %v", err)
		}
	}
}
