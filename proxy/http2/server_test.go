package http2

import (
	"bytes"
	"net"
	"testing"
	"time"

	"moire.dev/moire/proxy/message"
)

// server puts a Conn on a real connection. It answers each request when it has
// all of it: 200 with the body it got, or "hello". A gRPC call is answered at
// once, its messages go back as they come, and status 0 follows.
type server struct {
	nc     net.Conn
	c      Conn
	bodies map[*Stream][]byte
	err    error
}

// listen runs servers on a loopback port until the test ends.
func listen(t testing.TB, cfg *Config) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s := &server{nc: nc, bodies: map[*Stream][]byte{}}
			s.c.Init(cfg, nil, time.Now().UnixNano())
			go s.run()
		}
	}()
	return l.Addr().String()
}

func (v *server) run() {
	defer v.close()
	buf := make([]byte, 5000)
	for v.flush() {
		n, err := v.nc.Read(buf)
		if err != nil {
			return
		}
		if !v.read(buf[:n]) {
			v.flush()
			return
		}
		for s := v.c.Writable(); s != nil; s = v.c.Writable() {
			v.body(s)
			if !v.flush() {
				return
			}
		}
	}
}

// close lets the peer read what it was sent, as closing with bytes unread would
// reset the connection.
func (v *server) close() {
	v.nc.(*net.TCPConn).CloseWrite()
	v.nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buf := make([]byte, 4096)
	for {
		if _, err := v.nc.Read(buf); err != nil {
			break
		}
	}
	v.nc.Close()
}

func (v *server) flush() bool {
	for out := v.c.Out(); len(out) > 0; out = v.c.Out() {
		n, err := v.nc.Write(out)
		if err != nil {
			return false
		}
		v.c.Sent(n)
	}
	return !v.c.Drained()
}

func (v *server) read(in []byte) bool {
	for {
		ev, n, err := v.c.Next(in, time.Now().UnixNano())
		in = in[n:]
		switch {
		case err != nil:
			v.err = err
			return false
		case ev.Kind == NeedMore:
			return true
		case ev.Kind == Head && isGRPC(ev.Stream):
			h := answer(200)
			h.Add([]byte("content-type"), []byte("application/grpc"))
			v.c.WriteHead(ev.Stream, h, false)
		case ev.Kind == Data:
			v.bodies[ev.Stream] = append(v.bodies[ev.Stream], ev.Data...)
			if isGRPC(ev.Stream) {
				v.body(ev.Stream)
				continue
			}
			v.c.Consumed(ev.Stream, len(ev.Data))
		case ev.Kind == Reset:
			v.release(ev.Stream)
			continue
		}
		if ev.End && isGRPC(ev.Stream) {
			v.body(ev.Stream)
		} else if ev.End {
			v.answer(ev.Stream)
		}
	}
}

func (v *server) answer(s *Stream) {
	if len(v.bodies[s]) == 0 {
		v.bodies[s] = []byte("hello")
	}
	h := &message.Head{Status: 200, Framing: message.Chunked}
	h.Add([]byte("x-path"), s.Head.Path)
	if s.Head.IsMethod("HEAD") {
		v.bodies[s] = nil
	}
	if v.c.WriteHead(s, h, false) == nil {
		v.body(s)
	}
}

func isGRPC(s *Stream) bool {
	v, _ := s.Head.Get(message.ContentType)
	return bytes.HasPrefix(v, []byte("application/grpc"))
}

var statusOK = []message.Field{{Name: []byte("grpc-status"), Value: []byte("0"), ID: message.GRPCStatus}}

func (v *server) body(s *Stream) {
	grpc := isGRPC(s)
	n := v.c.WriteData(s, v.bodies[s], !grpc, time.Now().UnixNano())
	v.bodies[s] = v.bodies[s][n:]
	if grpc {
		v.c.Consumed(s, n)
		if s.RemoteDone() && len(v.bodies[s]) == 0 {
			v.c.WriteTrailers(s, statusOK)
		}
	}
	if s.LocalDone() {
		v.release(s)
	}
}

func (v *server) release(s *Stream) {
	delete(v.bodies, s)
	v.c.Release(s)
}
