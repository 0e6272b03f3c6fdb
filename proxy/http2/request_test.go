package http2

import (
	"strings"
	"testing"
)

// get is a request's pseudo-header fields but those that are named, followed by more.
func get(without string, more ...string) []string {
	var fields []string
	for i := 0; i < len(plain); i += 2 {
		if !strings.Contains(without, plain[i]) {
			fields = append(fields, plain[i], plain[i+1])
		}
	}
	return append(fields, more...)
}

func method(m string, more ...string) []string {
	return append([]string{":method", m}, get(":method", more...)...)
}

func path(p string, more ...string) []string {
	return append([]string{":path", p}, get(":path", more...)...)
}

func authority(a string, more ...string) []string {
	return append([]string{":authority", a}, get(":authority", more...)...)
}

var requests = []struct {
	end    bool
	fields []string
	want   string // the head, or nothing when it is refused
}{
	{true, plain, "GET http a / none"},
	{true, get("", "x-b", "c", "x-b", "d\te", "accept", ""), "GET http a / x-b=c x-b=d\te accept= none"},
	{true, get("", "x-b", "\x80\xff"), "GET http a / x-b=\x80\xff none"},
	{true, []string{":method", "GET", ":scheme", "https", ":path", "/a?b=c%20|{}^`\"<>\\", ":authority", "a.b-c_d~e:65535"}, "GET https a.b-c_d~e:65535 /a?b=c%20|{}^`\"<>\\ none"},
	{true, method("OPTIONS"), "OPTIONS http a / none"},
	{true, append([]string{":path", "*", ":method", "OPTIONS"}, get(":path:method")...), "OPTIONS http a * none"},
	// authority and host
	{true, get(":authority", "host", "b:80"), "GET http b:80 / none"},
	{true, get("", "host", "A"), "GET http a / none"},
	{true, authority("[::1]:8080"), "GET http [::1]:8080 / none"},
	{true, authority("127.0.0.1"), "GET http 127.0.0.1 / none"},
	{true, get(":authority"), ""},
	{true, get(":authority", "host", ""), ""},
	{true, get("", "host", "b"), ""},
	{true, get("", "host", "a:80"), ""},
	{true, get("", "host", "a", "host", "a"), ""},
	{true, authority(""), ""}, {true, authority("a b"), ""}, {true, authority("a/b"), ""}, {true, authority("u@a"), ""},
	{true, authority("a:"), ""}, {true, authority(":80"), ""}, {true, authority("a:65536"), ""}, {true, authority("a:8x"), ""},
	{true, authority("a%2eb"), ""}, {true, authority("a,b"), ""}, {true, authority("[::1"), ""}, {true, authority("[]"), ""},
	{true, authority("[1]"), ""}, {true, authority("[::1]x"), ""}, {true, authority("[::g]"), ""}, {true, authority("a\r\nb"), ""},
	{true, authority("[::" + strings.Repeat("0", 60) + "]"), ""}, {true, authority("::1"), ""}, {true, authority("a\x00"), ""},
	// pseudo-header fields
	{true, get(":method"), ""}, {true, get(":scheme"), ""}, {true, get(":path"), ""},
	{true, get("", ":method", "GET"), ""}, {true, get("", ":path", "/"), ""}, {true, get("", ":scheme", "http"), ""}, {true, get("", ":authority", "a"), ""},
	{true, get("", ":status", "200"), ""}, {true, get("", ":other", "1"), ""}, {true, get("", ":", "1"), ""},
	{true, append([]string{"x-a", "b"}, plain...), ""},
	{true, method(""), ""}, {true, method("G T"), ""}, {true, method("GET\r\n"), ""}, {true, method("GET /x HTTP/1.1\r\n"), ""}, {true, method("G:T"), ""}, {true, method("G\x00"), ""},
	{true, append([]string{":scheme", "ftp"}, get(":scheme")...), ""}, {true, append([]string{":scheme", "HTTP"}, get(":scheme")...), ""},
	{true, append([]string{":scheme", "http://x/"}, get(":scheme")...), ""}, {true, append([]string{":scheme", ""}, get(":scheme")...), ""},
	{true, path(""), ""}, {true, path("a"), ""}, {true, path("*"), ""}, {true, path("/a b"), ""}, {true, path("/a\r\nb"), ""}, {true, path("/#a"), ""}, {true, path("/\x00"), ""},
	{true, path("/\x7f"), ""}, {true, path("/\xe4"), ""}, {true, path("http://a/"), ""}, {true, path("/ HTTP/1.1\r\nhost: b"), ""}, {true, path("\t/"), ""}, {true, path("/\t"), ""},
	// names and values
	{true, get("", "X-a", "b"), ""}, {true, get("", "x a", "b"), ""}, {true, get("", "x:a", "b"), ""}, {true, get("", "", "b"), ""}, {true, get("", "x\r\n", "b"), ""},
	{true, get("", "x-a", "b\r\nc"), ""}, {true, get("", "x-a", "b\nc"), ""}, {true, get("", "x-a", "b\x00"), ""}, {true, get("", "x-a", " b"), ""}, {true, get("", "x-a", "b "), ""},
	{true, get("", "x-a", "\x01"), ""}, {true, get("", "x-a", "b\x7f"), ""}, {true, get("", "x\xff", "b"), ""},
	// fields of HTTP/1 connections
	{true, get("", "connection", "close"), ""}, {true, get("", "connection", "x-a"), ""}, {true, get("", "keep-alive", "timeout=1"), ""}, {true, get("", "proxy-connection", "close"), ""},
	{true, get("", "transfer-encoding", "chunked"), ""}, {true, get("", "transfer-encoding", "identity"), ""}, {true, get("", "upgrade", "h2c"), ""},
	{true, get("", "transfer_encoding", "chunked"), ""}, {true, get("", "content_length", "0"), ""},
	{true, get("", "te", "gzip"), ""}, {true, get("", "te", "trailers, gzip"), ""}, {true, get("", "te", ""), ""},
	{true, get("", "te", "Trailers"), "GET http a / none trailers"}, {true, get("", "http2-settings", "x"), "GET http a / none"},
	// bodies
	{false, plain, "GET http a / chunked"}, {false, get("", "content-length", "5"), "GET http a / sized:5"}, {true, get("", "content-length", "0"), "GET http a / sized:0"},
	{false, get("", "content-length", "9223372036854775807"), "GET http a / sized:9223372036854775807"},
	{true, get("", "content-length", "5"), ""}, {false, get("", "content-length", "5", "content-length", "5"), ""}, {false, get("", "content-length", "5, 5"), ""},
	{false, get("", "content-length", "+5"), ""}, {false, get("", "content-length", "0x5"), ""}, {false, get("", "content-length", ""), ""}, {false, get("", "content-length", "-1"), ""},
	{false, get("", "content-length", "9223372036854775808"), ""}, {false, get("", "content-length", "99999999999999999999"), ""},
	{false, get("", "expect", "100-Continue"), "GET http a / chunked expect"},
	// cookies
	{true, get("", "cookie", "a=b"), "GET http a / cookie=a=b none"},
	{true, get("", "cookie", "a=b", "x-c", "d", "cookie", "c=d", "cookie", "e"), "GET http a / cookie=a=b; c=d; e x-c=d none"},
	// CONNECT
	{false, []string{":method", "CONNECT", ":authority", "b:443"}, "CONNECT  b:443  none"},
	{false, []string{":method", "CONNECT", ":authority", "b"}, ""}, {false, []string{":method", "CONNECT"}, ""}, {false, method("CONNECT"), ""},
	{false, []string{":method", "CONNECT", ":authority", "b:443", ":path", "/"}, ""}, {false, []string{":method", "CONNECT", ":authority", "b:443", ":scheme", "http"}, ""},
	{false, []string{":method", "CONNECT", ":authority", "b:443", "content-length", "3"}, ""}, {false, []string{":method", "CONNECT", "host", "b:443"}, ""},
	{false, append([]string{":protocol", "websocket"}, method("CONNECT")...), "CONNECT http a / none upgrade:websocket"},
	{false, append([]string{":protocol", "websocket"}, method("GET")...), ""}, {false, append([]string{":protocol", "a b"}, method("CONNECT")...), ""},
	{false, append([]string{":protocol", ""}, method("CONNECT")...), ""}, {false, []string{":protocol", "websocket", ":method", "CONNECT", ":authority", "b:443"}, ""},
}

func TestRequests(t *testing.T) {
	for _, c := range requests {
		p := newPeer(t, Config{EnableConnect: true})
		for _, id := range []uint32{1, 3, 5} { // later heads come from the table
			p.head(id, c.end, c.fields...)
			ev := p.give()[0]
			if c.want == "" {
				if ev.Kind != Refused || ev.Code != ProtocolError || ev.Reason == "" || ev.ID != id {
					t.Fatalf("%q: %+v, want a refusal", c.fields, ev)
				}
				if out := p.take(); len(out) != 1 || !strings.HasPrefix(out[0], "RST_STREAM") {
					t.Errorf("%q: %v", c.fields, out)
				}
				continue
			}
			if ev.Kind != Head || ev.End != c.end || ev.Stream.ID != id {
				t.Fatalf("%q: %+v", c.fields, ev)
			}
			if got := textOf(&ev.Stream.Head); got != c.want {
				t.Errorf("%q\n%s\n%s", c.fields, got, c.want)
			}
			p.c.Release(ev.Stream)
			p.take()
		}
		if p.c.Active() != 0 {
			t.Errorf("%q: a stream is left", c.fields)
		}
	}
}

func TestNoExtendedConnectUnlessEnabled(t *testing.T) {
	p := newPeer(t, Config{})
	p.head(1, false, append([]string{":protocol", "websocket"}, method("CONNECT")...)...)
	p.one(Refused)
}

// TestRejected: heads that get an answer and no stream.
func TestRejected(t *testing.T) {
	long := strings.Repeat("x", 3000)
	many := plain
	for range 101 {
		many = with(many, "x-a", "b")
	}
	crumbs := plain
	for range 2000 {
		crumbs = with(crumbs, "cookie", "")
	}
	for _, c := range []struct {
		fields []string
		status string
	}{
		{with(plain, "expect", "a pony"), "417"}, {with(plain, "x-a", long, "x-b", long+"1", "x-c", long+"2"), "431"},
		{many, "431"}, {crumbs, "431"},
	} {
		p := newPeer(t, Config{MaxHead: 8 << 10})
		p.head(1, true, c.fields...)
		p.one(Refused)
		wantFrames(t, p.take(), "HEADERS 1 :status="+c.status+" end")
		p.head(3, false, c.fields...)
		p.one(Refused)
		wantFrames(t, p.take(), "HEADERS 3 :status="+c.status+" end", "RST_STREAM 3 NO_ERROR")
		// The table is still in step.
		p.head(5, true, plain...)
		if ev := p.one(Head); textOf(&ev.Stream.Head) != "GET http a / none" {
			t.Error(textOf(&ev.Stream.Head))
		}
	}
}

// TestBodies: DATA has to be as long as Content-Length says.
func TestBodies(t *testing.T) {
	type data struct {
		bytes string
		end   bool
	}
	for _, c := range []struct {
		length string
		frames []data
		bad    bool
	}{
		{"5", []data{{"ab", false}, {"cde", true}}, false}, {"5", []data{{"abcde", false}, {"", true}}, false}, {"0", []data{{"", true}}, false},
		{"5", []data{{"abcdef", false}}, true}, {"5", []data{{"ab", false}, {"cd", true}}, true}, {"5", []data{{"", true}}, true}, {"0", []data{{"a", false}}, true},
	} {
		p := newPeer(t, Config{})
		s := p.open(false, "content-length", c.length)
		var events []Event
		for _, d := range c.frames {
			p.WriteData(1, d.end, []byte(d.bytes))
			events = append(events, p.give()...)
		}
		last := events[len(events)-1]
		if c.bad && (last.Kind != Reset || !last.Local || last.Code != ProtocolError || last.Stream != s) || !c.bad && !last.End {
			t.Errorf("%s %v: %+v", c.length, c.frames, last)
		}
	}
}

func TestTrailers(t *testing.T) {
	for _, c := range []struct {
		length string
		end    bool
		fields []string
		want   string
	}{
		{"", true, []string{"x-a", "b", "grpc-status", "0"}, "x-a=b grpc-status=0"},
		{"", true, []string{"cookie", "a", "cookie", "b", "x-forwarded-for", "c", "authorization", "d", "x-e", "f"}, "x-e=f"},
		{"2", true, nil, ""}, {"3", true, nil, "bad"},
		{"", false, []string{"x-a", "b"}, "bad"}, {"", true, []string{":path", "/"}, "bad"}, {"", true, []string{"X-a", "b"}, "bad"},
		{"", true, []string{"content-length", "2"}, "bad"}, {"", true, []string{"transfer-encoding", "chunked"}, "bad"}, {"", true, []string{"host", "b"}, "bad"},
		{"", true, []string{"x-a", "b\nc"}, "bad"},
	} {
		p := newPeer(t, Config{})
		var s *Stream
		if s = p.open(false, "cookie", "a"); c.length != "" {
			p = newPeer(t, Config{})
			s = p.open(false, "content-length", c.length)
		}
		p.WriteData(1, false, []byte("ab"))
		p.one(Data)
		p.head(1, c.end, c.fields...)
		ev := p.give()[0]
		if c.want == "bad" {
			if ev.Kind != Reset || ev.Code != ProtocolError {
				t.Errorf("%v: %+v", c.fields, ev)
			}
			continue
		}
		var got []string
		for _, f := range s.Trailers {
			got = append(got, string(f.Name)+"="+string(f.Value))
		}
		if ev.Kind != Trailers || !ev.End || strings.Join(got, " ") != c.want {
			t.Errorf("%v: %+v, %v", c.fields, ev, got)
		}
	}
}
