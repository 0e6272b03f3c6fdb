package http2

import (
	"bytes"
	"testing"

	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/message"
)

// downgrade writes an accepted request as HTTP/1 and reads it back: it has to be
// one request, and the same. Whatever it could smuggle would show here.
func downgrade(t *testing.T, h *message.Head) {
	t.Helper()
	b := http1.AppendRequest(nil, h)
	if end := http1.HeadEnd(b, 0); end != len(b) {
		t.Fatalf("%q: the head ends after %d of %d bytes", b, end, len(b))
	}
	var got message.Head
	if err := http1.ParseRequest(bytes.Clone(b), &got, &http1.Limits{}); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	want := *h
	want.Scheme = nil // HTTP/1 does not say
	if textOf(&got) != textOf(&want) {
		t.Fatalf("%q\n%s\n%s", b, textOf(&got), textOf(&want))
	}
}

func TestDowngrade(t *testing.T) {
	taken := 0
	for _, c := range requests {
		p := newPeer(t, Config{})
		p.head(1, c.end, c.fields...)
		if ev := p.give()[0]; ev.Kind == Head {
			downgrade(t, &ev.Stream.Head)
			taken++
		}
	}
	if taken < 20 {
		t.Errorf("only %d requests were taken", taken)
	}
}

// FuzzDowngrade puts any bytes into a request over HTTP/2.
func FuzzDowngrade(f *testing.F) {
	f.Add("GET", "/a?b", "a:80", "x-a", "b", "cookie", "c", true)
	f.Add("POST", "/", "[::1]", "content-length", "5", "host", "[::1]", false)
	f.Add("CONNECT", "", "a:443", "te", "trailers", "expect", "100-continue", false)
	f.Add("OPTIONS", "*", "a", "transfer-encoding", "chunked", "x-b", "c\r\nd: e", false)
	f.Fuzz(func(t *testing.T, method, path, authority, name1, value1, name2, value2 string, end bool) {
		fields := []string{":method", method, ":authority", authority}
		if path != "" || method != "CONNECT" {
			fields = append(fields, ":scheme", "http", ":path", path)
		}
		p := newPeer(t, Config{})
		block := p.encode(append(fields, name1, value1, name2, value2)...)
		if len(block) > 16000 {
			return
		}
		p.WriteRawFrame(1, 4, 1, block)
		if end {
			p.in.Reset()
			p.WriteRawFrame(1, 5, 1, block)
		}
		if events := p.give(); len(events) == 1 && events[0].Kind == Head {
			downgrade(t, &events[0].Stream.Head)
		}
	})
}
