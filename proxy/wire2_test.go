package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/message"
)

// wire2 is one end of an HTTP/2 connection, moved by hand.
type wire2 struct {
	t   testing.TB
	c   net.Conn
	h   http2.Conn
	buf []byte
	in  []byte
}

func newWire2(t testing.TB, c net.Conn, cfg http2.Config) *wire2 {
	w := &wire2{t: t, c: c, buf: make([]byte, 64<<10)}
	w.h.Init(&cfg, nil, 1)
	w.flush()
	return w
}

// caller2 is a caller that speaks HTTP/2 to the proxy.
func caller2(t testing.TB, address string) *wire2 {
	w := newWire2(t, dial(t, address), http2.Config{Client: true})
	for w.h.PeerMaxStreams(); !w.h.Ready(); {
		w.next()
	}
	return w
}

func (w *wire2) flush() {
	for out := w.h.Out(); len(out) > 0; out = w.h.Out() {
		n, err := w.c.Write(out)
		if err != nil {
			w.t.Logf("write: %v", err)
		}
		w.h.Sent(max(n, 1))
	}
}

// next waits for an event; its data is a copy. NeedMore: the connection ended.
func (w *wire2) next() http2.Event {
	for {
		ev, n, err := w.h.Next(w.in, time.Now().UnixNano())
		ev.Data = bytes.Clone(ev.Data)
		w.in = w.in[n:]
		w.flush()
		if err != nil {
			w.t.Logf("HTTP/2: %v", err)
			return http2.Event{}
		}
		if ev.Kind != http2.NeedMore {
			if ev.Kind == http2.Data {
				w.h.Consumed(ev.Stream, len(ev.Data))
				w.flush()
			}
			return ev
		}
		n, err = w.c.Read(w.buf)
		if err != nil {
			return http2.Event{}
		}
		w.in = w.buf[:n]
	}
}

// until waits for an event of a kind on a stream; nil: on any.
func (w *wire2) until(kind http2.Kind, s *http2.Stream) http2.Event {
	w.t.Helper()
	for {
		ev := w.next()
		if ev.Kind == kind && (s == nil || ev.Stream == s) {
			return ev
		}
		if ev.Kind == http2.NeedMore || ev.Kind == http2.Reset && ev.Stream == s {
			w.t.Fatalf("instead of an event of kind %d came %+v", kind, ev)
		}
	}
}

// ask opens a stream with a request; end: it has no body.
func (w *wire2) ask(h *message.Head, end bool) *http2.Stream {
	w.t.Helper()
	s, err := w.h.Open()
	if err == nil {
		err = w.h.WriteHead(s, h, end)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.flush()
	return s
}

// write sends bytes on a stream.
func (w *wire2) write(s *http2.Stream, b string, end bool) {
	w.t.Helper()
	if n := w.h.WriteData(s, []byte(b), end, 1); n < len(b) {
		w.t.Errorf("%d of %d bytes taken", n, len(b))
	}
	w.flush()
}

// read collects the body of s until its end or n bytes.
func (w *wire2) read(s *http2.Stream, n int) string {
	w.t.Helper()
	var b []byte
	for len(b) < n {
		ev := w.until(http2.Data, s)
		b = append(b, ev.Data...)
		if ev.End {
			break
		}
	}
	return string(b)
}

// request2 is the head of a request.
func request2(method, path string) *message.Head {
	h := &message.Head{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("shop.example"), Path: []byte(path), Minor: 1, Length: -1}
	if method == "CONNECT" {
		h.Scheme, h.Path, h.Authority = nil, nil, []byte("shop.example:80")
	}
	return h
}

// endpoint2 is an endpoint of which each connection is moved by hand.
func endpoint2(t testing.TB, cfg http2.Config, serve func(n int, w *wire2)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			go func() {
				defer c.Close()
				serve(n, newWire2(t, c, cfg))
			}()
		}
	}()
	return l.Addr().String()
}

// respond answers a stream with 200 and a body.
func (w *wire2) respond(s *http2.Stream, body string) {
	h := &message.Head{Status: 200, Framing: message.Sized, Length: int64(len(body)), Minor: 1}
	if err := w.h.WriteHead(s, h, false); err != nil {
		w.t.Error(err)
	}
	w.h.WriteData(s, []byte(body), true, 1)
	w.flush()
}

// echoUpgrade is an endpoint of HTTP/1 that takes every Upgrade and sends back
// what comes.
func echoUpgrade(t testing.TB) string {
	address, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, err := readHead1(r)
		if err != nil || !bytes.Contains([]byte(head), []byte("upgrade: websocket")) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		io.Copy(c, r)
	})
	return address
}

// answer2 is the head of an answer with a body.
func answer2(status int) *message.Head {
	return &message.Head{Status: status, Framing: message.Chunked, Length: -1, Minor: 1}
}
