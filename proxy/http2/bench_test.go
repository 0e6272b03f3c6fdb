package http2

import (
	"fmt"
	"testing"

	"moire.dev/moire/proxy/message"
)

// unary is a gRPC call as a client and a server see it, without sockets.
type unary struct {
	client, server Conn
	request        message.Head
	head           message.Head
	trailers       []message.Field
	body           []byte
	calls          int
	change         []byte // a value that is new in each call
}

func newUnary() *unary {
	u := &unary{body: make([]byte, 133), change: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")}
	pool := new(Pool)
	u.client.Init(&Config{Client: true}, pool, 0)
	u.server.Init(&Config{}, pool, 0)
	u.request = message.Head{Method: []byte("POST"), Path: []byte("/helloworld.Greeter/SayHello"), Authority: []byte("greeter.default.svc:50051"),
		Scheme: []byte("http"), Trailers: true, Framing: message.Chunked, Length: -1}
	u.request.Add([]byte("content-type"), []byte("application/grpc"))
	u.request.Add([]byte("user-agent"), []byte("grpc-go/1.85.0"))
	u.request.Add([]byte("grpc-timeout"), []byte("4998m"))
	u.request.Add([]byte("traceparent"), u.change)
	u.head = message.Head{Status: 200, Framing: message.Chunked, Length: -1}
	u.head.Add([]byte("content-type"), []byte("application/grpc"))
	u.trailers = []message.Field{{Name: []byte("grpc-status"), Value: []byte("0"), ID: message.GRPCStatus}}
	u.move(&u.client, &u.server)
	u.move(&u.server, &u.client)
	return u
}

// move lets one Conn read what the other wrote, and acts for the owner.
func (u *unary) move(from, to *Conn) {
	in := from.Out()
	for {
		ev, n, err := to.Next(in, 1)
		if err != nil {
			panic(err)
		}
		in = in[n:]
		s := ev.Stream
		switch ev.Kind {
		case NeedMore:
			from.Sent(len(from.Out()))
			return
		case Data:
			to.Consumed(s, len(ev.Data))
		case Trailers:
			to.Release(s)
			u.calls++
		}
		if to == &u.server && ev.End {
			to.WriteHead(s, &u.head, false)
			to.WriteData(s, u.body, false, 1)
			to.WriteTrailers(s, u.trailers)
			to.Release(s)
		}
	}
}

func (u *unary) call(n int) {
	for range n {
		s, err := u.client.Open()
		if err != nil {
			panic(err)
		}
		for i := range 8 {
			u.change[40+i] = 'a' + (u.change[40+i]+byte(i)+1)%6
		}
		u.client.WriteHead(s, &u.request, false)
		u.client.WriteData(s, u.body, true, 1)
	}
	u.move(&u.client, &u.server)
	u.move(&u.server, &u.client)
}

// TestNoAllocations: a warm connection allocates nothing for a call.
func TestNoAllocations(t *testing.T) {
	u := newUnary()
	for range 100 {
		u.call(10)
	}
	u.calls = 0
	if n := testing.AllocsPerRun(200, func() { u.call(10) }); n != 0 {
		t.Errorf("ten calls allocate %v times", n)
	}
	if u.calls != 2010 {
		t.Errorf("%d calls ended", u.calls)
	}
}

// BenchmarkUnary is a whole gRPC call: four heads and two messages, written and
// read.
func BenchmarkUnary(b *testing.B) {
	for _, streams := range []int{1, 100} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			u := newUnary()
			u.call(streams)
			b.ReportAllocs()
			for i := 0; i < b.N; i += streams {
				u.call(streams)
			}
		})
	}
}

// BenchmarkReadHead is the first request of a connection: all literals.
func BenchmarkReadHead(b *testing.B) {
	u := newUnary()
	u.client.Sent(len(u.client.Out()))
	s, _ := u.client.Open()
	u.client.WriteHead(s, &u.request, true)
	frame := u.client.Out()
	var c Conn
	c.Init(&Config{}, nil, 0)
	c.Next(append([]byte(Preface), 0, 0, 0, 4, 0, 0, 0, 0, 0), 0)
	b.ReportAllocs()
	id := uint32(1)
	for b.Loop() {
		frame[5], frame[6], frame[7], frame[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		id += 2
		ev, _, err := c.Next(frame[:9+int(frame[2])], 0)
		if err != nil || ev.Kind != Head {
			b.Fatal(err, ev)
		}
		c.streams.remove(ev.Stream)
		ev.Stream.flags = owned
		c.Release(ev.Stream)
	}
}

func BenchmarkWriteHead(b *testing.B) {
	u := newUnary()
	b.ReportAllocs()
	for b.Loop() {
		start := u.client.beginBlock()
		u.client.writeTarget(&u.request)
		u.client.writeFields(&u.request, false)
		u.client.endBlock(start, 1, false)
		u.client.Sent(len(u.client.Out()))
	}
}

func BenchmarkData(b *testing.B) {
	u := newUnary()
	s, _ := u.client.Open()
	u.client.WriteHead(s, &u.request, false)
	u.move(&u.client, &u.server)
	body := make([]byte, 16384)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		for p := body; len(p) > 0; {
			p = p[u.client.WriteData(s, p, false, 1):]
			u.move(&u.client, &u.server)
			u.move(&u.server, &u.client)
		}
	}
}
