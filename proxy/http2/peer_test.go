package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"

	"moire.dev/moire/proxy/message"
)

// peer is the other end of a Conn, made of x/net's frames.
type peer struct {
	*xhttp2.Framer // writes to in
	t              testing.TB
	c              Conn
	now            int64
	in             bytes.Buffer
	out            bytes.Buffer // what c wrote and nobody looked at
	block          bytes.Buffer
	enc            *xhpack.Encoder
	dec            *xhpack.Decoder
	next           uint32
	deaf           bool // does not read what c writes
}

// newPeer is the peer of a new connection after preface and settings.
func newPeer(t testing.TB, cfg Config) *peer {
	t.Helper()
	p := mutePeer(t, cfg)
	p.WriteSettings()
	p.WriteSettingsAck()
	if events := p.give(); len(events) != 1 || events[0].Kind != Settings {
		t.Fatalf("settings make %v", events)
	}
	p.take()
	return p
}

// mutePeer has sent no more than its preface.
func mutePeer(t testing.TB, cfg Config) *peer {
	p := &peer{t: t, next: 1, now: 1e9}
	p.Framer = xhttp2.NewFramer(&p.in, &p.out)
	p.AllowIllegalWrites = true
	p.enc = xhpack.NewEncoder(&p.block)
	p.dec = xhpack.NewDecoder(4096, nil)
	p.c.Init(&cfg, nil, p.now)
	if cfg.Client {
		out := p.c.Out()
		if !bytes.HasPrefix(out, []byte(Preface)) {
			t.Fatalf("a client begins with %q", out)
		}
		p.c.Sent(len(Preface))
	} else {
		p.in.WriteString(Preface)
	}
	return p
}

// try gives c what was written, and returns events and the error.
func (p *peer) try() ([]Event, error) {
	p.t.Helper()
	in := p.in.Bytes()
	defer p.in.Reset()
	var events []Event
	for i := 0; ; i++ {
		if i > 100000 {
			p.t.Fatal("Next does not come to an end")
		}
		ev, n, err := p.c.Next(in, p.now)
		in = in[n:]
		if !p.deaf {
			p.out.Write(p.c.Out())
			p.c.Sent(len(p.c.Out()))
		}
		if err != nil {
			return events, err
		}
		if ev.Kind == NeedMore {
			if len(in) > 0 {
				p.t.Fatalf("NeedMore with %d bytes left", len(in))
			}
			return events, nil
		}
		ev.Data = bytes.Clone(ev.Data)
		events = append(events, ev)
	}
}

// give is try without an error.
func (p *peer) give() []Event {
	p.t.Helper()
	events, err := p.try()
	if err != nil {
		p.t.Fatal(err)
	}
	return events
}

// one is give with exactly one event of a kind.
func (p *peer) one(kind Kind) Event {
	p.t.Helper()
	events := p.give()
	if len(events) != 1 || events[0].Kind != kind {
		p.t.Fatalf("events %+v, want one of kind %d", events, kind)
	}
	return events[0]
}

// fails wants the connection to end with a code and its GOAWAY.
func (p *peer) fails(code Code) *Error {
	p.t.Helper()
	_, err := p.try()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		p.t.Fatalf("error %v, want %v", err, code)
	}
	p.deaf = false
	p.out.Write(p.c.Out())
	p.c.Sent(len(p.c.Out()))
	frames := p.take()
	if last := frames[len(frames)-1]; !strings.HasPrefix(last, "GOAWAY") || !strings.Contains(last, code.String()) {
		p.t.Errorf("the last frame is %s", last)
	}
	return e
}

// take is what c wrote, as text.
func (p *peer) take() []string {
	p.t.Helper()
	p.out.Write(p.c.Out())
	p.c.Sent(len(p.c.Out()))
	var all []string
	for {
		f, err := p.ReadFrame()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			p.t.Fatalf("c wrote a wrong frame: %v", err)
		}
		all = append(all, p.text(f))
	}
}

func (p *peer) text(f xhttp2.Frame) string {
	end := ""
	if f.Header().Flags.Has(xhttp2.FlagDataEndStream) {
		end = " end"
	}
	id := f.Header().StreamID
	switch f := f.(type) {
	case *xhttp2.DataFrame:
		return fmt.Sprintf("DATA %d %q%s", id, f.Data(), end)
	case *xhttp2.HeadersFrame:
		if !f.HeadersEnded() {
			return fmt.Sprintf("HEADERS %d, more follows", id)
		}
		fields, err := p.dec.DecodeFull(f.HeaderBlockFragment())
		if err != nil {
			p.t.Fatal(err)
		}
		var b strings.Builder
		for _, f := range fields {
			b.WriteString(" " + f.Name + "=" + f.Value)
		}
		return fmt.Sprintf("HEADERS %d%s%s", id, b.String(), end)
	case *xhttp2.RSTStreamFrame:
		return fmt.Sprintf("RST_STREAM %d %v", id, Code(f.ErrCode))
	case *xhttp2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v %q", f.LastStreamID, Code(f.ErrCode), f.DebugData())
	case *xhttp2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", id, f.Increment)
	case *xhttp2.PingFrame:
		return fmt.Sprintf("PING %x ack=%t", f.Data, f.IsAck())
	case *xhttp2.SettingsFrame:
		return fmt.Sprintf("SETTINGS ack=%t", f.IsAck())
	}
	return fmt.Sprint(f)
}

// encode makes a block of "name", "value" pairs.
func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.enc.WriteField(xhpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

// head writes HEADERS.
func (p *peer) head(id uint32, end bool, fields ...string) {
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields...), EndStream: end, EndHeaders: true})
}

var plain = []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}

func with(fields []string, more ...string) []string {
	return append(append([]string(nil), fields...), more...)
}

// open sends a request that may have a body, and is the stream that c made of it.
func (p *peer) open(end bool, more ...string) *Stream {
	p.t.Helper()
	p.head(p.next, end, with(plain, more...)...)
	p.next += 2
	return p.one(Head).Stream
}

// ask opens a stream on a client Conn, with a GET.
func (p *peer) ask(end bool) *Stream {
	p.t.Helper()
	s, err := p.c.Open()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.c.WriteHead(s, request("GET"), end); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func request(method string) *message.Head {
	return &message.Head{Method: []byte(method), Path: []byte("/"), Authority: []byte("a"), Length: -1}
}

func answer(status int) *message.Head {
	return &message.Head{Status: status, Framing: message.Chunked, Length: -1}
}

// text of a head, for tables.
func textOf(h *message.Head) string {
	var b strings.Builder
	if h.Status != 0 {
		fmt.Fprint(&b, h.Status)
	} else {
		fmt.Fprintf(&b, "%s %s %s %s", h.Method, h.Scheme, h.Authority, h.Path)
	}
	for _, f := range h.Fields {
		fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
		if message.Identify(f.Name) != f.ID {
			b.WriteString("(wrong id)")
		}
	}
	fmt.Fprintf(&b, " %s", [...]string{"none", "sized", "chunked", "close"}[h.Framing])
	if h.Length >= 0 {
		fmt.Fprintf(&b, ":%d", h.Length)
	}
	for _, f := range []struct {
		is   bool
		name string
	}{{h.Expect, " expect"}, {h.Trailers, " trailers"}, {h.Close, " close"}, {h.Upgrade != nil, " upgrade:" + string(h.Upgrade)}} {
		if f.is {
			b.WriteString(f.name)
		}
	}
	return b.String()
}

func wantFrames(t testing.TB, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("frames\n%s\nwant\n%s", g, w)
	}
}

func headersParam(id uint32, end bool, block []byte) xhttp2.HeadersFrameParam {
	return xhttp2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: len(block) == 0}
}

func setting(id uint16, v uint32) xhttp2.Setting {
	return xhttp2.Setting{ID: xhttp2.SettingID(id), Val: v}
}

// tell adds an event to a text; the pieces of a body are one.
func tell(b *strings.Builder, ev *Event, body *int) {
	switch ev.Kind {
	case Settings:
		b.WriteString("settings ")
	case Head:
		fmt.Fprintf(b, "head %d ", ev.Stream.ID)
	case Data:
		if *body += len(ev.Data); ev.End {
			fmt.Fprintf(b, "body %d:%d ", ev.Stream.ID, *body)
		}
	case Reset:
		fmt.Fprintf(b, "reset %d ", ev.Stream.ID)
	case GoAway:
		b.WriteString("goaway ")
	default:
		fmt.Fprintf(b, "%+v", *ev)
	}
	if ev.End {
		b.WriteString("end ")
	}
}
