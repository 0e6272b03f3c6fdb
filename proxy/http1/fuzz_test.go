package http1

import (
	"bytes"
	"testing"

	"moire.dev/moire/proxy/message"
)

// FuzzRequest: no input makes the parser panic or keep more than its limits,
// and what it takes is understood again as the same after it was written.
func FuzzRequest(f *testing.F) {
	for _, c := range goodRequests {
		f.Add([]byte(c.in + "\r\n"))
	}
	for _, c := range badRequests {
		if len(c.in) < 1000 {
			f.Add([]byte(c.in + "\r\n"))
		}
	}
	f.Add([]byte(typical))
	f.Fuzz(func(t *testing.T, in []byte) {
		n := HeadEnd(in, 0)
		if n < 0 {
			n = len(in)
		}
		in = bytes.Clone(in[:n])
		before := bytes.Clone(in)
		var h, again message.Head
		if ParseRequest(in, &h, &typicalLimits) != nil {
			return
		}
		if !bytes.Equal(in[n-2:], []byte("\r\n")) || !bytes.EqualFold(before[:min(3, n)], in[:min(3, n)]) {
			t.Fatalf("%q became %q", before, in)
		}
		checkHead(t, &h)
		if len(h.Authority) == 0 {
			return
		}
		w := AppendRequest(nil, &h)
		h.Scheme = nil
		if err := ParseRequest(bytes.Clone(w), &again, &Limits{}); err != nil || say(&h) != say(&again) {
			t.Fatalf("%q: %v\nwas %s\nis  %s", w, err, say(&h), say(&again))
		}
	})
}

// FuzzResponse is the same for answers.
func FuzzResponse(f *testing.F) {
	for _, c := range goodAnswers {
		f.Add([]byte(c.in+"\r\n"), c.method)
	}
	f.Fuzz(func(t *testing.T, in []byte, method string) {
		n := HeadEnd(in, 0)
		if n < 0 {
			n = len(in)
		}
		var h, again message.Head
		if ParseResponse(in[:n], &h, &typicalLimits, []byte(method)) != nil {
			return
		}
		checkHead(t, &h)
		h.Minor = 1
		w := AppendResponse(nil, &h)
		if h.Status < 200 && h.Status != 101 {
			h.Close = false // said of an answer that is not interim only
		}
		err := ParseResponse(bytes.Clone(w), &again, &Limits{}, []byte(method))
		if err != nil || say(&h) != say(&again) || h.Length != again.Length {
			t.Fatalf("%q: %v\nwas %s\nis  %s", w, err, say(&h), say(&again))
		}
	})
}

// checkHead: nothing in h can start a line of its own or frame a message.
func checkHead(t *testing.T, h *message.Head) {
	t.Helper()
	if err := Check(h); err != nil {
		t.Fatal(err)
	}
	if len(h.Fields) > typicalLimits.Fields {
		t.Fatalf("%d fields", len(h.Fields))
	}
	for _, f := range h.Fields {
		if !token(f.Name) || text(f.Value, 0) != len(f.Value) || !bytes.Equal(bytes.ToLower(f.Name), f.Name) {
			t.Fatalf("field %q: %q", f.Name, f.Value)
		}
		switch f.ID {
		case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding,
			message.ContentLength, message.TE, message.Upgrade, message.HTTP2Settings:
			t.Fatalf("%s is among the fields", f.Name)
		}
		if f.ID != message.Identify(f.Name) {
			t.Fatalf("%s has id %d", f.Name, f.ID)
		}
	}
}

// FuzzChunked: the same body whatever the pieces are in which it comes, and no
// more of it than came.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), uint8(1))
	f.Add([]byte("1;a=\"b\"\r\nx\r\n0\r\nX: y\r\n\r\nrest"), uint8(3))
	f.Add([]byte("ffffffffffffffff\r\n"), uint8(9))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var h, pieces message.Head
		body, rest, done, err := unchunk(string(in), len(in)+1, &h)
		body2, rest2, done2, err2 := unchunk(string(in), int(step)+1, &pieces)
		if done != done2 || done && (body != body2 || rest != rest2 || say(&h) != say(&pieces)) || len(body) > len(in) {
			t.Fatalf("%q whole: %v %v, in steps of %d: %v %v", in, done, err, step+1, done2, err2)
		}
		if !done {
			return
		}
		w := AppendLastChunk(AppendChunk(nil, []byte(body)), &h)
		body2, rest2, done2, err2 = unchunk(string(w), len(w), &pieces)
		if !done2 || err2 != nil || body2 != body || rest2 != "" || say(&h) != say(&pieces) {
			t.Fatalf("%q written as %q: %v", in, w, err2)
		}
	})
}
