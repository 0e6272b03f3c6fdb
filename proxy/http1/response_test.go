package http1

import (
	"testing"

	"moire.dev/moire/proxy/message"
)

const ok11 = "HTTP/1.1 200 OK\r\n"

var goodAnswers = []struct{ method, in, want string }{
	{"GET", ok11, "200 until-close close"},
	{"GET", "HTTP/1.1 200\r\nContent-Length: 3\r\n", "200 sized:3"},
	{"GET", "HTTP/1.1 200 \r\nContent-Length: 3\r\n", "200 sized:3"},
	{"GET", "HTTP/1.1 299 n\xc3\xa9\tx\r\nContent-Length: 3\r\n", "299 sized:3"},
	{"GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n", "200 sized:3 close"},
	{"GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n", "200 sized:3"},
	{"GET", ok11 + "Transfer-Encoding: chunked\r\nConnection: close\r\n", "200 chunked close"},
	{"HEAD", ok11 + "Content-Length: 3\r\n", "200"},
	{"HEAD", ok11 + "Transfer-Encoding: chunked\r\n", "200"},
	{"HEAD", ok11, "200"},
	{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: x\r\n", "304 etag=x"},
	{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", "204"},
	{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n", "204 close"},
	{"GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", "204 close"},
	{"GET", "HTTP/1.1 100 Continue\r\n", "100"},
	{"GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n", "103 link=x"},
	{"GET", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", "101 upgrade:websocket"},
	{"GET", "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: foo/1\r\nContent-Length: 0\r\n", "426 sized:0 upgrade:foo/1"},
	{"GET", ok11 + "Connection: upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 0\r\n", "200 sized:0"},
	{"CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", "200"},
	{"CONNECT", "HTTP/1.1 407 No\r\nContent-Length: 3\r\n", "407 sized:3"},
	{"GET", ok11 + "Content-Length: 0\r\nConnection: x-hop, set-cookie\r\nX-Hop: 1\r\nSet-Cookie: a\r\nExpect: y\r\nHost: z\r\n",
		"200 set-cookie=a expect=y host=z sized:0"},
}

func TestGoodAnswers(t *testing.T) {
	var h message.Head
	for _, c := range goodAnswers {
		if err := ParseResponse([]byte(c.in+"\r\n"), &h, &typicalLimits, []byte(c.method)); err != nil {
			t.Errorf("%q: %v", c.in, err)
		} else if got := say(&h); got != c.want {
			t.Errorf("%s: %q\nis   %s\nwant %s", c.method, c.in, got, c.want)
		}
	}
	_ = ParseResponse([]byte(ok11+"Content-Length: 3\r\n\r\n"), &h, &typicalLimits, []byte("HEAD"))
	if h.Length != 3 || h.Framing != message.None {
		t.Errorf("an answer to HEAD has length %d and framing %d, want 3 and none", h.Length, h.Framing)
	}
}

func TestBadAnswers(t *testing.T) {
	var h message.Head
	for _, c := range []struct {
		in   string
		want *Error
	}{
		{"HTTP/1.1 20 OK\r\n", ErrStatusLine},
		{"HTTP/1.1 2000 OK\r\n", ErrStatusLine},
		{"HTTP/1.1  200 OK\r\n", ErrStatusLine},
		{"HTTP/1.1 200\tOK\r\n", ErrStatusLine},
		{"HTTP/1.1 200 O\x00K\r\n", ErrStatusLine},
		{"HTTP/1.1 200 OK\n", ErrStatusLine},
		{"HTTP/1.1 099 No\r\n", ErrStatus},
		{"HTTP/1.1 600 No\r\n", ErrStatus},
		{"HTTP/2.0 200 OK\r\n", ErrVersion},
		{"ICY 200 OK\r\n", ErrStatusLine},
		{"\r\n" + ok11, ErrStatusLine},
		{ok11 + "Content-Length: 1\r\nContent-Length: 1\r\n", ErrLengthTwice},
		{ok11 + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", ErrCodingAndLength},
		{ok11 + "Transfer-Encoding: gzip, chunked\r\n", ErrCodingUnsupported},
		{ok11 + "Transfer-Encoding: chunked, chunked\r\n", ErrCoding},
		{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", ErrCodingVersion},
		{"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n", ErrInterim},
		{"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n", ErrInterim},
		{"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n", ErrInterim},
		{"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n", ErrInterim},
		{ok11 + "X: a\r\n b\r\n", ErrFold},
		{ok11 + "X : a\r\n", ErrFieldName},
	} {
		if err := ParseResponse([]byte(c.in+"\r\n"), &h, &typicalLimits, []byte("GET")); err != c.want {
			t.Errorf("%q: %v, want %v; taken as %s", c.in, err, c.want, say(&h))
		}
	}
}

func TestWriteResponse(t *testing.T) {
	field := message.Field{Name: []byte("x"), Value: []byte("y")}
	for _, c := range []struct {
		h    message.Head
		want string
	}{
		{message.Head{Status: 200, Minor: 1, Framing: message.Sized, Length: 5, Fields: []message.Field{field}}, "200 OK\r\nx: y\r\ncontent-length: 5\r\n"},
		{message.Head{Status: 200, Framing: message.Sized}, "200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n"},
		{message.Head{Status: 200, Framing: message.Sized, Close: true}, "200 OK\r\ncontent-length: 0\r\nconnection: close\r\n"},
		{message.Head{Status: 200, Minor: 1, Framing: message.UntilClose}, "200 OK\r\nconnection: close\r\n"},
		{message.Head{Status: 299, Minor: 1, Framing: message.Chunked}, "299 \r\ntransfer-encoding: chunked\r\n"},
		{message.Head{Status: 304, Minor: 1, Length: 7}, "304 Not Modified\r\ncontent-length: 7\r\n"},
		{message.Head{Status: 304, Minor: 1, Length: -1}, "304 Not Modified\r\n"},
		{message.Head{Status: 204, Minor: 1, Length: 7}, "204 No Content\r\n"},
		{message.Head{Status: 103, Minor: 1, Length: 7, Fields: []message.Field{field}, Close: true}, "103 Early Hints\r\nx: y\r\n"},
		{message.Head{Status: 101, Minor: 1, Length: -1, Upgrade: []byte("websocket")}, "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"},
	} {
		if got, want := string(AppendResponse(nil, &c.h)), "HTTP/1.1 "+c.want+"\r\n"; got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	}
}
