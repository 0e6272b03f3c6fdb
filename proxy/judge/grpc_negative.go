package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"moire.dev/moire/snapshot/l7"
)

// negative are the cases of gRPC's negative suite.
var negative = []string{"goaway", "rst_after_header", "rst_during_data", "rst_after_data", "ping", "max_streams"}

// grpcNegative runs gRPC's client for servers of HTTP/2 that end streams and
// connections early, through the proxy. The suite's own servers are in no
// registry; ours do what its description says. A case that the client does not
// pass without a proxy is none.
func grpcNegative(ctx context.Context, h *hall) ([]verdict, error) {
	v := verdict{judge: "grpc-negative"}
	for _, name := range negative {
		bad, err := newBadServer(h.Address(), name)
		if err != nil {
			return nil, err
		}
		defer bad.listener.Close()
		address := bad.listener.Addr().String()
		if err := h.negativeCase(ctx, name, address); err != nil {
			v.notes = append(v.notes, fmt.Sprintf("%s: left out, fails without a proxy too: %v", name, err))
			continue
		}
		if wrong := bad.verdict(); wrong != "" {
			v.notes = append(v.notes, fmt.Sprintf("%s: left out, our server is not content without a proxy: %s", name, wrong))
			continue
		}
		c, plain, _ := h.plain(address)
		c.Listeners[0].Protocol, c.Clusters[0].Protocol = l7.HTTP2, l7.HTTP2
		p, err := h.Proxy(ctx, h.kind, c, nil)
		if err != nil {
			return nil, err
		}
		err = h.negativeCase(ctx, name, plain)
		if wrong := bad.verdict(); err == nil && wrong != "" {
			err = errors.New(wrong)
		}
		v.pass(name, err)
		p.Stop()
	}
	return []verdict{v}, nil
}

func (h *hall) negativeCase(ctx context.Context, name, address string) error {
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(bounded, h.Tool("grpc-http2"), "-server_host", host, "-server_port", port, "-test_case", name).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return nil
}

// badServer answers one method of gRPC's test service, badly.
type badServer struct {
	listener net.Listener
	name     string

	mu    sync.Mutex
	wrong []string
}

func newBadServer(address, name string) (*badServer, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &badServer{listener: l, name: name}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

// complain notes what the peer did wrong.
func (s *badServer) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// verdict is what was wrong since it was last asked.
func (s *badServer) verdict() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := strings.Join(s.wrong, "; ")
	s.wrong = nil
	return w
}

// badConn is one connection to a badServer.
type badConn struct {
	*http2.Framer
	s            *badServer
	open, pinged int
	acked        int
	away         bool
	// agreed: the peer has acknowledged our settings.
	agreed bool
	// asked are the streams of requests that are whole.
	asked   []uint32
	refused map[uint32]bool
	// What the peer lets us send: in all, on the stream that is answered, and on a
	// new one.
	whole, one, fresh int
	block             bytes.Buffer
	coder             *hpack.Encoder
}

func (s *badServer) serve(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	c := &badConn{Framer: http2.NewFramer(conn, conn), s: s, refused: map[uint32]bool{}, whole: 65535, fresh: 65535}
	c.coder = hpack.NewEncoder(&c.block)
	// Windows as large as can be, so that nothing but the case is tested.
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}}
	if s.name == "max_streams" {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	}
	if errors.Join(c.WriteSettings(settings...), c.WriteWindowUpdate(0, 1<<30)) != nil {
		return
	}
	for range 1_000_000 {
		f, err := c.ReadFrame()
		if err != nil || c.take(f) != nil || c.answerAll() != nil {
			break
		}
	}
	if s.name == "ping" && c.acked < c.pinged {
		s.complain("%d of %d pings were answered", c.acked, c.pinged)
	}
}

func (c *badConn) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.agreed = true
			return nil
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			c.one += int(v) - c.fresh
			c.fresh = int(v)
		}
		return c.WriteSettingsAck()
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.whole += int(f.Increment)
		} else {
			c.one += int(f.Increment) // one stream is answered at a time
		}
	case *http2.PingFrame:
		if f.IsAck() {
			c.acked++
			return nil
		}
		return c.WritePing(true, f.Data)
	case *http2.HeadersFrame:
		return c.begin(f)
	case *http2.DataFrame:
		if f.StreamEnded() && !c.refused[f.StreamID] {
			c.asked = append(c.asked, f.StreamID)
		}
	}
	return nil
}

// begin takes a request, or refuses it where it is one too many, which is right
// of the peer only before it has seen our settings.
func (c *badConn) begin(f *http2.HeadersFrame) error {
	if c.away {
		c.s.complain("a request after GOAWAY on the same connection")
	}
	if c.s.name == "max_streams" && c.open > 0 {
		if c.agreed {
			c.s.complain("%d streams at a time, where 1 is allowed", c.open+1)
		}
		c.refused[f.StreamID] = true
		return c.WriteRSTStream(f.StreamID, http2.ErrCodeRefusedStream)
	}
	c.open++
	if f.StreamEnded() {
		c.asked = append(c.asked, f.StreamID)
	}
	return nil
}

func (c *badConn) answerAll() error {
	for len(c.asked) > 0 {
		stream := c.asked[0]
		c.asked = c.asked[1:]
		if err := c.answer(stream); err != nil {
			return err
		}
		c.open--
	}
	return nil
}

// answerSize is what the client asks for.
const answerSize = 314159

// largeReply is a SimpleResponse with answerSize zeros, framed as gRPC does.
func largeReply() []byte {
	varint := func(n int) []byte {
		var b []byte
		for ; n >= 128; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		return append(b, byte(n))
	}
	payload := append(append([]byte{2<<3 | 2}, varint(answerSize)...), make([]byte, answerSize)...)
	message := append(append([]byte{1<<3 | 2}, varint(len(payload))...), payload...)
	n := len(message)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)
}

// answer does to a request what the case says.
func (c *badConn) answer(stream uint32) error {
	c.one = c.fresh
	err := c.fields(stream, false, hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	if c.s.name == "rst_after_header" {
		return errors.Join(err, c.WriteRSTStream(stream, http2.ErrCodeNo))
	}
	reply := largeReply()
	if c.s.name == "rst_during_data" {
		reply = reply[:len(reply)/2]
	}
	for len(reply) > 0 && err == nil {
		if c.s.name == "ping" {
			c.pinged++
			err = c.WritePing(false, [8]byte{byte(c.pinged)})
		}
		n := min(len(reply), 16384)
		for err == nil && min(c.whole, c.one) < n {
			var f http2.Frame
			if f, err = c.ReadFrame(); err == nil {
				err = c.take(f)
			}
		}
		c.whole, c.one = c.whole-n, c.one-n
		err = errors.Join(err, c.WriteData(stream, false, reply[:n]))
		reply = reply[n:]
	}
	if strings.HasPrefix(c.s.name, "rst_") {
		return errors.Join(err, c.WriteRSTStream(stream, http2.ErrCodeNo))
	}
	err = errors.Join(err, c.fields(stream, true, hpack.HeaderField{Name: "grpc-status", Value: "0"}))
	if c.s.name == "goaway" && !c.away {
		c.away = true
		err = errors.Join(err, c.WriteGoAway(stream, http2.ErrCodeNo, nil))
	}
	return err
}

func (c *badConn) fields(stream uint32, end bool, fields ...hpack.HeaderField) error {
	c.block.Reset()
	for _, f := range fields {
		if err := c.coder.WriteField(f); err != nil {
			return err
		}
	}
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}
