package smuggle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Try2 sends one Case2 on a connection of HTTP/2 to address, and judges as Try
// does; the questions on new connections are asked over HTTP/1.
func (r *Range) Try2(address string, c Case2) Finding {
	f := Finding{Case: c.Case}
	r.Tap.Reset()
	id := r.mark()
	got, err := r.send2(address, c.Stream, id)
	if err != nil {
		f.Desync = err.Error()
		return f
	}
	passed := r.settle()
	f.Sent = cut(passed.Up)
	f.Desync = outOfStep(got, passed, r.Stamp, id)
	f.Differs, f.Normal = decidedOnOther(passed.Views, r.Stamp, asReceived), decidedOnOther(passed.Views, r.Stamp, asUsed)
	f.Strict = unlike(c.Case, got, passed)
	if err := r.probe(); err != nil && f.Desync == "" {
		f.Desync = "the next request on another connection: " + err.Error()
	}
	if s := outOfStep(got, r.settle(), r.Stamp, id); s != "" && f.Desync == "" {
		f.Desync = "afterwards, " + s
	}
	return f
}

// client2 is a client of HTTP/2 that checks nothing of what it sends.
type client2 struct {
	conn  net.Conn
	frame *http2.Framer
	block bytes.Buffer
	coder *hpack.Encoder
}

func dial2(address string) (*client2, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("the proxy takes no connection: %w", err)
	}
	c := &client2{conn: conn, frame: http2.NewFramer(conn, conn)}
	c.frame.AllowIllegalWrites = true
	c.frame.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.coder = hpack.NewEncoder(&c.block)
	if err := conn.SetDeadline(time.Now().Add(8 * time.Second)); err != nil {
		return nil, err
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	return c, errors.Join(err, c.frame.WriteSettings())
}

// head writes HEADERS, and CONTINUATION where it is long.
func (c *client2) head(stream uint32, fields []Field, id string, end bool) error {
	c.block.Reset()
	for _, f := range fields {
		name, value := strings.ReplaceAll(f.Name, "{id}", id), strings.ReplaceAll(f.Value, "{id}", id)
		if err := c.coder.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			return err
		}
	}
	b := c.block.Bytes()
	n := min(len(b), 16384)
	err := c.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b[:n], EndStream: end, EndHeaders: n == len(b)})
	for b = b[n:]; len(b) > 0 && err == nil; b = b[n:] {
		n = min(len(b), 16384)
		err = c.frame.WriteContinuation(stream, n == len(b), b[:n])
	}
	return err
}

func (r *Range) send2(address string, s Stream, id string) (answers, error) {
	var a answers
	c, err := dial2(address)
	if err != nil {
		return a, err
	}
	defer c.conn.Close()
	err = c.head(1, s.Fields, id, s.Body == "" && s.Trailers == nil)
	if err == nil && s.Body != "" {
		err = c.frame.WriteData(1, s.Trailers == nil, []byte(strings.ReplaceAll(s.Body, "{id}", id)))
	}
	if err == nil && s.Trailers != nil {
		err = c.head(1, s.Trailers, id, !s.OpenTrailers)
	}
	if err != nil {
		a.closed = true // it need not read to the end
	}
	if !a.read2(c, 1) || a.closed {
		return a, nil
	}
	a.probed = true
	probe := "/p/" + id
	if err := c.head(3, with("GET", ":path", probe), id, true); err != nil {
		a.closed = true
		return a, nil
	}
	n := len(a.views)
	if a.read2(c, 3) && len(a.views) > n {
		a.answered = a.isProbe(probe, id)
	}
	return a, nil
}

// read2 takes the answer on one stream; false when the connection is over or
// silent. A stream that was reset counts as refused: status 400, closed.
func (a *answers) read2(c *client2, stream uint32) bool {
	if err := c.conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return false
	}
	for range 10000 {
		f, err := c.frame.ReadFrame()
		if err != nil {
			a.closed = a.closed || !errors.Is(err, os.ErrDeadlineExceeded)
			return false
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.frame.WriteSettingsAck() // a connection that is over is seen when reading
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				a.closed = true
				a.refuse(stream)
				return false
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				a.refuse(stream)
				return true
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				a.answer(f, stream)
			}
		}
		if h := f.Header(); h.StreamID == stream && (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) && h.Flags.Has(http2.FlagDataEndStream) {
			return true
		}
	}
	return false
}

func (a *answers) refuse(stream uint32) {
	if stream == 1 && len(a.status) == 0 {
		a.status = append(a.status, 400)
		a.refused = true
	}
}

func (a *answers) answer(f *http2.MetaHeadersFrame, stream uint32) {
	status, err := strconv.Atoi(f.PseudoValue("status"))
	if err != nil || status < 200 {
		return
	}
	if stream == 1 {
		a.status = append(a.status, status)
		a.refused = a.refused || status >= 400 // a stream is closed by its answer
	}
	for _, h := range f.RegularFields() {
		if h.Name == strings.ToLower(viewName) {
			a.views = append(a.views, parseView(h.Value))
		}
	}
}
