package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"moire.dev/moire/proxy/message"
)

// say is a head in one line, for tables.
func say(h *message.Head) string {
	var b strings.Builder
	if h.Status != 0 {
		fmt.Fprintf(&b, "%d", h.Status)
	} else {
		fmt.Fprintf(&b, "%s %s|%s|%s", h.Method, h.Scheme, h.Authority, h.Path)
	}
	for _, f := range h.Fields {
		fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
	}
	switch h.Framing {
	case message.Sized:
		fmt.Fprintf(&b, " sized:%d", h.Length)
	case message.Chunked:
		b.WriteString(" chunked")
	case message.UntilClose:
		b.WriteString(" until-close")
	}
	for _, flag := range []struct {
		on   bool
		name string
	}{{h.Close, "close"}, {h.Expect, "expect"}, {h.Trailers, "trailers"}, {h.Upgrade != nil, "upgrade:" + string(h.Upgrade)}} {
		if flag.on {
			b.WriteString(" " + flag.name)
		}
	}
	return b.String()
}

const get11 = "GET / HTTP/1.1\r\nHost: a\r\n"

// Requests that are taken, and how. Where the head does not end with an empty
// line one is added.
var goodRequests = []struct{ in, want string }{
	{"GET /x?y=1 HTTP/1.1\r\nHost: a.b:80\r\nX-A: 1 \r\n", "GET |a.b:80|/x?y=1 x-a=1"},
	{"\r\n" + get11, "GET |a|/"},
	{"get / HTTP/1.1\r\nhOST:a\r\n", "get |a|/"},
	{get11 + "Empty:\r\nTabs:\t a\tb \t\r\n", "GET |a|/ empty= tabs=a\tb"},
	{get11 + "Obs: \xff\xc3\xa9\r\n", "GET |a|/ obs=\xff\xc3\xa9"},
	{"GET / HTTP/1.0\r\n", "GET ||/ close"},
	{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", "GET ||/"},
	{"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", "GET ||/ close"},
	{"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n", "POST ||/ sized:2 close"},
	{get11 + "Connection: close, keep-alive\r\n", "GET |a|/ close"},
	{get11 + "Content-Length: 0\r\n", "GET |a|/ sized:0"},
	{get11 + "Content-Length: 007\r\n", "GET |a|/ sized:7"},
	{get11 + "Content-Length: 9223372036854775807\r\n", "GET |a|/ sized:9223372036854775807"},
	{get11 + "Transfer-Encoding: Chunked\r\nTrailer: x\r\n", "GET |a|/ trailer=x chunked"},
	{get11 + "Expect: 100-Continue\r\nTE: gzip;q=0.1, Trailers\r\nConnection: te\r\n", "GET |a|/ expect trailers"},
	// Forms of the target.
	{"GET http://a.b/c?d HTTP/1.1\r\nHost: a.b\r\n", "GET http|a.b|/c?d"},
	{"GET HTTPS://A.b:443 HTTP/1.1\r\nHost: a.B\r\n", "GET https|A.b:443|/"},
	{"GET http://a.b?c HTTP/1.1\r\nHost: a.b\r\n", "GET http|a.b|/?c"},
	{"OPTIONS http://a.b HTTP/1.1\r\nHost: a.b\r\n", "OPTIONS http|a.b|*"},
	{"OPTIONS * HTTP/1.1\r\nHost: a\r\n", "OPTIONS |a|*"},
	{"GET //x/http://y HTTP/1.1\r\nHost: a\r\n", "GET |a|//x/http://y"},
	{"CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n", "CONNECT |a:443|"},
	{"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n", "GET |[2001:db8::1]:8080|/"},
	// Upgrade.
	{get11 + "Connection: Upgrade\r\nUpgrade: websocket\r\n", "GET |a|/ upgrade:websocket"},
	{get11 + "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n", "GET |a|/ upgrade:websocket"},
	{get11 + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", "GET |a|/"},
	{get11 + "Upgrade: websocket\r\n", "GET |a|/"},
	// What belongs to the connection goes; what the end relies on stays.
	{get11 + "Keep-Alive: 5\r\nProxy-Connection: close\r\n", "GET |a|/"},
	{get11 + "X-Mine: 1\r\nConnection: X-Mine , ,x-theirs\r\nX-Theirs: 2\r\nX-Other: 3\r\n", "GET |a|/ x-other=3"},
	{get11 + "Connection: x-b\r\nX-B: 1\r\nConnection: x-c, close\r\nX-C: 2\r\nX-b: 3\r\n", "GET |a|/ close"},
	{get11 + "Connection: authorization, cookie, x-forwarded-for, x-moire-caller\r\nCookie: c\r\nAuthorization: b\r\nX-Forwarded-For: 1\r\nX-Moire-Caller: 2\r\n",
		"GET |a|/ cookie=c authorization=b x-forwarded-for=1 x-moire-caller=2"},
}

func TestGoodRequests(t *testing.T) {
	var h message.Head
	for _, c := range goodRequests {
		b := []byte(c.in + "\r\n")
		if n := HeadEnd(b, 0); n != len(b) {
			t.Errorf("%q ends at %d, want %d", c.in, n, len(b))
		}
		if err := ParseRequest(b, &h, &typicalLimits); err != nil {
			t.Errorf("%q: %v", c.in, err)
		} else if got := say(&h); got != c.want {
			t.Errorf("%q\nis   %s\nwant %s", c.in, got, c.want)
		}
	}
}

// Requests that are refused. Most are, or may be, read in two ways.
var badRequests = []struct {
	in   string
	want *Error
}{
	// Request line.
	{"GET /\r\n", ErrSimpleRequest},
	{"GET / HTTP/2.0\r\nHost: a\r\n", ErrVersion},
	{"GET / HTTP/1.2\r\nHost: a\r\n", ErrVersion},
	{"GET / HTTP/0.9\r\n", ErrVersion},
	{"GET / http/1.1\r\nHost: a\r\n", ErrRequestLine},
	{"GET / HTTP/1.1 \r\nHost: a\r\n", ErrRequestLine},
	{"GET / HTTP/1.10\r\nHost: a\r\n", ErrRequestLine},
	{"GET / HTTP/01.1\r\nHost: a\r\n", ErrRequestLine},
	{"GET  / HTTP/1.1\r\nHost: a\r\n", ErrRequestLine},
	{"GET /  HTTP/1.1\r\nHost: a\r\n", ErrRequestLine},
	{"GET\t/ HTTP/1.1\r\nHost: a\r\n", ErrMethod},
	{" GET / HTTP/1.1\r\nHost: a\r\n", ErrMethod},
	{"G\x00T / HTTP/1.1\r\nHost: a\r\n", ErrMethod},
	{"GE(T / HTTP/1.1\r\nHost: a\r\n", ErrMethod},
	{"\r\n\r\n" + get11, ErrMethod},
	{"\n" + get11, ErrMethod},
	{"\r" + get11, ErrMethod},
	{"GET / HTTP/1.1\nHost: a\r\n", ErrRequestLine},
	{"GET / HTTP/1.1\r\r\nHost: a\r\n", ErrRequestLine},
	// Targets.
	{"GET /a#b HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET /a\x7f HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET /a\tb HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET a HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET a:80 HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET * HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"OPTIONS ** HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET ://a/ HTTP/1.1\r\nHost: a\r\n", ErrTarget},
	{"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n", ErrScheme},
	{"GET http:///a HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"GET http://b/ HTTP/1.1\r\nHost: a\r\n", ErrHostDiffers},
	{"GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n", ErrHostDiffers},
	{"CONNECT a HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"CONNECT a: HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"CONNECT /x HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"CONNECT http://a:1/ HTTP/1.1\r\nHost: a\r\n", ErrAuthority},
	{"CONNECT a:443 HTTP/1.1\r\nHost: b\r\n", ErrHostDiffers},
	{"CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n", ErrConnectBody},
	// Host.
	{"GET / HTTP/1.1\r\n", ErrHostMissing},
	{get11 + "Host: a\r\n", ErrHostTwice},
	{get11 + "host: b\r\n", ErrHostTwice},
	{"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n", ErrHostTwice},
	{"GET / HTTP/1.1\r\nHost:\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a b\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a,b\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a@b\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a/b\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a%41\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a:\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a:65536\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a:8o\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: a:80:80\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: :80\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: ::1\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: [::1\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: [::1]x\r\n", ErrAuthority},
	{"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n", ErrAuthority},
	// Field lines.
	{get11 + "X : 1\r\n", ErrFieldName},
	{get11 + "X\t: 1\r\n", ErrFieldName},
	{get11 + "X\r\n", ErrFieldName},
	{get11 + ": 1\r\n", ErrFieldName},
	{get11 + "X\x00: 1\r\n", ErrFieldName},
	{get11 + "X\xff: 1\r\n", ErrFieldName},
	{get11 + "(X): 1\r\n", ErrFieldName},
	{get11 + "X: 1\r\n folded\r\n", ErrFold},
	{get11 + "X: 1\r\n\tfolded\r\n", ErrFold},
	{"GET / HTTP/1.1\r\n Host: a\r\n", ErrFold},
	{get11 + "X: a\x00b\r\n", ErrFieldValue},
	{get11 + "X: a\x01\r\n", ErrFieldValue},
	{get11 + "X: a\x7f\r\n", ErrFieldValue},
	{get11 + "X: a\nY: b\r\n", ErrFieldValue},
	{get11 + "X: a\rY: b\r\n", ErrFieldValue},
	{get11 + "X: a\r\r\n", ErrFieldValue},
	{get11 + "\rTransfer-Encoding: chunked\r\n", ErrFieldName},
	{get11 + "Transfer_Encoding: chunked\r\n", ErrLookalike},
	{get11 + "CONTENT_LENGTH: 3\r\n", ErrLookalike},
	// Content-Length.
	{get11 + "Content-Length: 1\r\nContent-Length: 1\r\n", ErrLengthTwice},
	{get11 + "Content-Length: 1\r\nContent-Length: 2\r\n", ErrLengthTwice},
	{get11 + "Content-Length: 1, 1\r\n", ErrLength},
	{get11 + "Content-Length:\r\n", ErrLength},
	{get11 + "Content-Length: +1\r\n", ErrLength},
	{get11 + "Content-Length: -1\r\n", ErrLength},
	{get11 + "Content-Length: 1 2\r\n", ErrLength},
	{get11 + "Content-Length: 0x1\r\n", ErrLength},
	{get11 + "Content-Length: 1_0\r\n", ErrLength},
	{get11 + "Content-Length: 9223372036854775808\r\n", ErrLength},
	{get11 + "Content-Length: 18446744073709551617\r\n", ErrLength},
	// Transfer-Encoding.
	{get11 + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", ErrCodingAndLength},
	{get11 + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", ErrCodingAndLength},
	{"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", ErrCodingVersion},
	{get11 + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: chunked, chunked\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: chunked, x\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: chunked,\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: ,chunked\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: chunked;q=1\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: \"chunked\"\r\n", ErrCoding},
	{get11 + "Transfer-Encoding:\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: chunked\x0b\r\n", ErrFieldValue},
	{get11 + "Transfer-Encoding: chun\xeb\r\n", ErrCoding},
	{get11 + "Transfer-Encoding: xchunked\r\n", ErrCodingUnsupported},
	{get11 + "Transfer-Encoding: identity\r\n", ErrCodingUnsupported},
	{get11 + "Transfer-Encoding: gzip, chunked\r\n", ErrCodingUnsupported},
	// Others.
	{get11 + "Expect: 200-ok\r\n", ErrExpect},
	{get11 + "Connection: close, transfer-encoding\r\nTransfer-Encoding: chunked\r\n", ErrConnection},
	{get11 + "Connection: Content-Length\r\nContent-Length: 3\r\n", ErrConnection},
	{get11 + "Connection: host\r\n", ErrConnection},
	{get11 + "Connection: a b\r\n", ErrConnection},
	{get11 + "Connection: \"close\"\r\n", ErrConnection},
	{get11 + "Connection: a" + strings.Repeat(",a", maxOptions) + "\r\n", ErrConnection},
	{get11 + strings.Repeat("X: y\r\n", 100), ErrTooManyFields},
	{get11 + "X: " + strings.Repeat("y", 64<<10) + "\r\n", ErrHeadTooLarge},
}

func TestBadRequests(t *testing.T) {
	var h message.Head
	for _, c := range badRequests {
		b := []byte(c.in + "\r\n")
		if err := ParseRequest(b, &h, &typicalLimits); err != c.want {
			t.Errorf("%.200q: %v, want %v; taken as %s", c.in, err, c.want, say(&h))
		}
	}
}

func TestHeadEnd(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int
	}{
		{"", -1}, {"GET", -1}, {get11, -1}, {get11 + "\r", -1}, {get11 + "\r\nrest", len(get11) + 2},
		{"GET / HTTP/1.1\n\n", 16}, {"GET / HTTP/1.1\n\r\nx", 17}, {"\r\n" + get11 + "\r\n", len(get11) + 4}, {"\r\n\r\n", 4},
	} {
		if got := HeadEnd([]byte(c.in), 0); got != c.want {
			t.Errorf("HeadEnd(%q) = %d, want %d", c.in, got, c.want)
		}
		// The same when the bytes come one by one.
		got := -1
		for n := 0; n <= len(c.in) && got < 0; n++ {
			got = HeadEnd([]byte(c.in[:n]), max(n-1, 0))
		}
		if got != c.want {
			t.Errorf("HeadEnd(%q) = %d byte by byte, want %d", c.in, got, c.want)
		}
	}
	if err := TooLarge([]byte("\r\nGET /" + strings.Repeat("a", 99))); err != ErrTargetTooLong {
		t.Error(err)
	}
	if err := TooLarge([]byte(get11)); err != ErrHeadTooLarge {
		t.Error(err)
	}
}

// TestWriteRequest: what is written reads as it was.
func TestWriteRequest(t *testing.T) {
	for _, c := range goodRequests {
		var h, again message.Head
		if err := ParseRequest([]byte(c.in+"\r\n"), &h, &typicalLimits); err != nil {
			t.Fatal(err)
		}
		if len(h.Authority) == 0 {
			h.Authority = []byte("made.up")
		}
		w := AppendRequest(nil, &h)
		if !bytes.Contains(w, []byte(" HTTP/1.1\r\nhost: ")) {
			t.Errorf("Host is not first in %q", w)
		}
		h.Scheme = nil
		if err := ParseRequest(w, &again, &typicalLimits); err != nil || say(&h) != say(&again) {
			t.Errorf("%q: %v\nis   %s\nwant %s", w, err, say(&again), say(&h))
		}
	}
}

// TestCheck: what another codec or a filter leaves in a head does not pass when
// it could be read in two ways.
func TestCheck(t *testing.T) {
	whole := func() *message.Head {
		var h message.Head
		if err := ParseRequest([]byte(get11+"X: y\r\n\r\n"), &h, &typicalLimits); err != nil {
			t.Fatal(err)
		}
		return &h
	}
	if err := Check(whole()); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(h *message.Head){
		"a line in a value":     func(h *message.Head) { h.Fields[0].Value = []byte("a\r\nb: c") },
		"LF in a value":         func(h *message.Head) { h.Fields[0].Value = []byte("a\nb") },
		"a name in upper case":  func(h *message.Head) { h.Fields[0].Name = []byte("X") },
		"a colon in a name":     func(h *message.Head) { h.Fields[0].Name = []byte("a:b") },
		"NUL in a name":         func(h *message.Head) { h.Fields[0].Name = []byte("a\x00") },
		"no name":               func(h *message.Head) { h.Fields[0].Name = nil },
		"a Host beside":         func(h *message.Head) { h.Add([]byte("host"), []byte("b")) },
		"transfer-encoding":     func(h *message.Head) { h.Fields[0].Name = []byte("transfer-encoding") },
		"content_length":        func(h *message.Head) { h.Fields[0].Name = []byte("content_length") },
		"a space in the path":   func(h *message.Head) { h.Path = []byte("/ HTTP/1.1\r\nx: y") },
		"a fragment":            func(h *message.Head) { h.Path = []byte("/#a") },
		"no path":               func(h *message.Head) { h.Path = nil },
		"another form":          func(h *message.Head) { h.Path = []byte("http://b/") },
		"a space in the method": func(h *message.Head) { h.Method = []byte("GET /x") },
		"a line in the host":    func(h *message.Head) { h.Authority = []byte("a\r\nb: c") },
		"a user":                func(h *message.Head) { h.Authority = []byte("u@a") },
		"a line in the upgrade": func(h *message.Head) { h.Upgrade = []byte("a\r\nb: c") },
	} {
		h := whole()
		if change(h); Check(h) == nil {
			t.Errorf("%s passes", what)
		}
	}
}
