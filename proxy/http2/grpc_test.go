package http2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"moire.dev/moire/proxy/message"
)

// raw is a codec of bytes.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(b mem.BufferSlice, v any) error { *v.(*[]byte) = b.Materialize(); return nil }
func (raw) Name() string                             { return "raw" }

// TestGRPCClient has grpc-go call a server of ours.
func TestGRPCClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := grpc.NewClient("passthrough:///"+listen(t, &Config{}), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(1<<24)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for _, size := range []int{0, 10, 70000, 1 << 20} {
				sent, got := bytes.Repeat([]byte{byte(i)}, size), []byte(nil)
				if err := client.Invoke(ctx, "/a.B/C", &sent, &got); err != nil || !bytes.Equal(sent, got) {
					t.Errorf("unary of %d: %v, %d came", size, status.Code(err), len(got))
				}
			}
			stream(ctx, t, client)
		})
	}
	all.Wait()
}

// stream is a bidirectional call whose messages are answered one by one, and one
// that is cancelled.
func stream(ctx context.Context, t *testing.T, client *grpc.ClientConn) {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := client.NewStream(ctx, desc, "/a.B/D")
	if err != nil {
		t.Error(err)
		return
	}
	for i := range 50 {
		sent, got := fmt.Append(nil, "message ", i), []byte(nil)
		if err := s.SendMsg(&sent); err != nil {
			t.Error(err)
			return
		}
		if err := s.RecvMsg(&got); err != nil || !bytes.Equal(sent, got) {
			t.Errorf("%v, %q came", err, got)
			return
		}
	}
	s.CloseSend()
	var got []byte
	if err := s.RecvMsg(&got); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
	short, cancel := context.WithCancel(ctx)
	if s, err = client.NewStream(short, desc, "/a.B/D"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := s.RecvMsg(&got); status.Code(err) != codes.Canceled {
		t.Errorf("a cancelled call ends with %v", err)
	}
}

// TestGRPCServer has us call a server of grpc-go's.
func TestGRPCServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	echo := func(_ any, s grpc.ServerStream) error {
		for {
			var m []byte
			if err := s.RecvMsg(&m); err != nil {
				return nil
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(echo), grpc.MaxRecvMsgSize(1<<24))
	go server.Serve(l)
	defer server.Stop()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	callGRPC(t, nc)
}

// call is one call of the test as it goes on.
type call struct {
	body, got []byte
	sent      int
	head      string
	status    string
}

func callGRPC(t *testing.T, nc net.Conn) {
	var c Conn
	c.Init(&Config{Client: true, MaxStreams: 50}, nil, 0)
	left := 0
	for i := range 50 {
		s, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		message := bytes.Repeat([]byte{byte(i)}, i*i*40)
		n := len(message)
		k := &call{body: append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)}
		s.Owner = k
		h := request("POST")
		h.Path, h.Trailers = []byte("/a.B/C"), true
		h.Add([]byte("content-type"), []byte("application/grpc"))
		if err := c.WriteHead(s, h, false); err != nil {
			t.Fatal(err)
		}
		k.sent = c.WriteData(s, k.body, true, 0)
		left++
	}
	buf := make([]byte, 9000)
	for left > 0 {
		for s := c.Writable(); s != nil; s = c.Writable() {
			k := s.Owner.(*call)
			k.sent += c.WriteData(s, k.body[k.sent:], true, 0)
		}
		if len(c.Out()) > 0 {
			n, err := nc.Write(c.Out())
			if err != nil {
				t.Fatal(err)
			}
			c.Sent(n)
			continue
		}
		n, err := nc.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		left -= readGRPC(t, &c, buf[:n])
	}
}

// readGRPC says how many calls ended.
func readGRPC(t *testing.T, c *Conn, in []byte) (ended int) {
	for {
		ev, n, err := c.Next(in, time.Now().UnixNano())
		if err != nil {
			t.Fatal(err)
		}
		in = in[n:]
		s := ev.Stream
		switch ev.Kind {
		case NeedMore:
			return ended
		case Head:
			s.Owner.(*call).head = textOf(&s.Head)
		case Data:
			k := s.Owner.(*call)
			k.got = append(k.got, ev.Data...)
			c.Consumed(s, len(ev.Data))
		case Trailers:
			k := s.Owner.(*call)
			for _, f := range s.Trailers {
				if f.ID == message.GRPCStatus {
					k.status = string(f.Value)
				}
			}
		case Reset:
			t.Fatalf("%v: %s", ev.Code, ev.Reason)
		}
		if ev.End {
			k := s.Owner.(*call)
			if !bytes.Equal(k.got, k.body) || k.status != "0" || k.head != "200 content-type=application/grpc chunked" {
				t.Errorf("stream %d: %q, status %q, %d of %d bytes", s.ID, k.head, k.status, len(k.got), len(k.body))
			}
			c.Release(s)
			ended++
		}
	}
}
