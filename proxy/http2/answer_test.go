package http2

import (
	"strings"
	"testing"

	"moire.dev/moire/proxy/message"
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		method string
		end    bool
		fields []string
		want   string
	}{
		{"GET", false, []string{":status", "200", "content-length", "5", "x-a", "b"}, "200 x-a=b sized:5"},
		{"GET", false, []string{":status", "200"}, "200 chunked"}, {"GET", true, []string{":status", "200"}, "200 sized:0"}, {"GET", true, []string{":status", "200", "content-length", "0"}, "200 sized:0"},
		{"GET", false, []string{":status", "200", "set-cookie", "a", "set-cookie", "b", "cookie", "c", "cookie", "d"}, "200 set-cookie=a set-cookie=b cookie=c cookie=d chunked"},
		{"HEAD", true, []string{":status", "200", "content-length", "5"}, "200 none:5"}, {"HEAD", true, []string{":status", "200"}, "200 none"},
		{"GET", true, []string{":status", "304", "content-length", "5"}, "304 none:5"}, {"GET", true, []string{":status", "204"}, "204 none"}, {"GET", true, []string{":status", "599"}, "599 sized:0"},
		{"CONNECT", false, []string{":status", "200", "content-length", "7"}, "200 none"}, {"CONNECT", false, []string{":status", "407"}, "407 chunked"},
		{"GET", false, []string{":status", "103", "link", "x"}, "103 link=x none"},
		{"GET", false, []string{":status", "200", "host", "a", "expect", "b"}, "200 host=a expect=b chunked"},
		{"GET", true, []string{":status", "200", "content-length", "5"}, ""}, {"GET", true, []string{":status", "103"}, ""}, {"GET", false, []string{":status", "100", "content-length", "1"}, ""},
		{"GET", false, []string{":status", "101"}, ""}, {"GET", false, []string{":status", "99"}, ""}, {"GET", false, []string{":status", "600"}, ""}, {"GET", false, []string{":status", "2000"}, ""},
		{"GET", false, []string{":status", "20x"}, ""}, {"GET", false, []string{":status", ""}, ""}, {"GET", false, nil, ""}, {"GET", false, []string{":status", "200", ":status", "200"}, ""},
		{"GET", false, []string{":status", "200", ":path", "/"}, ""}, {"GET", false, []string{"x-a", "b", ":status", "200"}, ""}, {"GET", false, []string{":status", "200", "connection", "close"}, ""},
		{"GET", false, []string{":status", "200", "X-A", "b"}, ""}, {"GET", false, []string{":status", "200", "x-a", "b\r\n"}, ""}, {"GET", false, []string{":status", "200", "content-length", "1", "content-length", "1"}, ""},
		{"GET", false, []string{":status", "200", "x-a", strings.Repeat("x", 70000)}, ""},
	} {
		p := newPeer(t, Config{Client: true})
		s, err := p.c.Open()
		if err != nil {
			t.Fatal(err)
		}
		h := request(c.method)
		if c.method == "CONNECT" {
			h.Path, h.Authority = nil, []byte("a:443")
		}
		if err := p.c.WriteHead(s, h, c.method != "CONNECT"); err != nil {
			t.Fatal(err)
		}
		p.take()
		block := p.encode(c.fields...)
		p.WriteHeaders(headersParam(1, c.end, block))
		for len(block) > 0 {
			n := min(len(block), 16384)
			p.WriteContinuation(1, n == len(block), block[:n])
			block = block[n:]
		}
		ev := p.give()[0]
		if c.want == "" {
			if ev.Kind != Reset || !ev.Local || ev.Code != ProtocolError {
				t.Errorf("%q: %+v", c.fields, ev)
			}
			wantFrames(t, p.take(), "RST_STREAM 1 PROTOCOL_ERROR")
			continue
		}
		if ev.Kind != Head || ev.Stream != s || ev.End != c.end || textOf(&s.Head) != c.want {
			t.Errorf("%q: %+v\n%s\n%s", c.fields, ev, textOf(&s.Head), c.want)
		}
	}
}

// TestInterim: heads below 200 come before the answer, in both roles.
func TestInterim(t *testing.T) {
	p := newPeer(t, Config{Client: true})
	s := p.ask(true)
	for _, status := range []string{"100", "103", "200"} {
		p.head(1, status == "200", ":status", status, "x-a", status)
		if ev := p.one(Head); ev.End != (status == "200") || !strings.HasPrefix(textOf(&s.Head), status+" x-a="+status) {
			t.Errorf("%+v %s", ev, textOf(&s.Head))
		}
	}
	p = newPeer(t, Config{Client: true})
	p.ask(true)
	for range maxInterim {
		p.head(1, false, ":status", "103")
		p.one(Head)
	}
	p.head(1, false, ":status", "103")
	if ev := p.one(Reset); ev.Code != ProtocolError {
		t.Errorf("%+v", ev)
	}

	p = newPeer(t, Config{})
	s = p.open(true)
	for _, status := range []int{100, 103, 200} {
		if err := p.c.WriteHead(s, answer(status), status == 200); err != nil {
			t.Fatal(err)
		}
	}
	wantFrames(t, p.take(), "HEADERS 1 :status=100", "HEADERS 1 :status=103", "HEADERS 1 :status=200 end")
	if err := p.c.WriteHead(s, answer(200), true); err != ErrStreamClosed {
		t.Errorf("a second answer: %v", err)
	}
}

// TestWhatHeadsBecome: heads as they are written.
func TestWhatHeadsBecome(t *testing.T) {
	field := func(h *message.Head, name, value string) *message.Head {
		h.Add([]byte(name), []byte(value))
		return h
	}
	post := request("POST")
	post.Framing, post.Length, post.Scheme, post.Expect, post.Trailers = message.Sized, 12, []byte("https"), true, true
	for _, name := range []string{"connection", "host", "transfer-encoding", "te", "upgrade", "keep-alive", "content-length", "expect", "proxy-connection"} {
		field(post, name, "x")
	}
	field(post, "x-a", "b")
	upgrade := request("GET")
	upgrade.Upgrade = []byte("websocket")
	connect := request("CONNECT")
	connect.Path, connect.Authority = nil, []byte("a:443")
	for _, c := range []struct {
		h    *message.Head
		want string
	}{
		{request("GET"), ":method=GET :scheme=http :path=/ :authority=a"},
		{post, ":method=POST :scheme=https :path=/ :authority=a te=trailers content-length=12 x-a=b expect=100-continue"},
		{upgrade, ":method=CONNECT :scheme=http :path=/ :authority=a :protocol=websocket"}, {connect, ":method=CONNECT :authority=a:443"},
	} {
		p := newPeer(t, Config{Client: true})
		p.WriteSettings(setting(settingConnect, 1))
		p.one(Settings)
		p.take()
		s, _ := p.c.Open()
		if err := p.c.WriteHead(s, c.h, false); err != nil {
			t.Fatal(err)
		}
		wantFrames(t, p.take(), "HEADERS 1 "+c.want)
	}
	sized := func(status int, length int64) *message.Head {
		return &message.Head{Status: status, Framing: message.Sized, Length: length}
	}
	for _, c := range []struct {
		method string
		h      *message.Head
		end    bool
		want   string
	}{
		{"GET", answer(200), false, ":status=200"}, {"GET", sized(200, 5), false, ":status=200 content-length=5"}, {"GET", sized(200, 0), false, ":status=200 content-length=0"},
		{"GET", sized(200, 0), true, ":status=200 end"}, {"HEAD", &message.Head{Status: 200, Length: 7}, true, ":status=200 content-length=7 end"},
		{"GET", &message.Head{Status: 304, Length: 7}, true, ":status=304 content-length=7 end"}, {"GET", sized(204, 0), true, ":status=204 end"},
		{"GET", &message.Head{Status: 404, Framing: message.UntilClose, Close: true, Length: -1}, false, ":status=404"},
	} {
		p := newPeer(t, Config{})
		p.head(1, true, method(c.method)...)
		s := p.one(Head).Stream
		if err := p.c.WriteHead(s, c.h, c.end); err != nil {
			t.Fatal(err)
		}
		wantFrames(t, p.take(), "HEADERS 1 "+c.want)
	}
}

// TestTunnels: CONNECT and extended CONNECT, both roles.
func TestTunnels(t *testing.T) {
	p := newPeer(t, Config{EnableConnect: true})
	p.head(1, false, append([]string{":protocol", "websocket"}, method("CONNECT", "sec-websocket-version", "13")...)...)
	s := p.one(Head).Stream
	switching := answer(101)
	switching.Upgrade = []byte("websocket")
	if err := p.c.WriteHead(s, switching, false); err != nil {
		t.Fatal(err)
	}
	p.WriteData(1, false, []byte("ping"))
	p.one(Data)
	p.c.WriteData(s, []byte("pong"), false, 0)
	wantFrames(t, p.take(), "HEADERS 1 :status=200", `DATA 1 "pong"`)

	p = newPeer(t, Config{Client: true})
	s, _ = p.c.Open()
	h := request("GET")
	h.Upgrade = []byte("websocket")
	if err := p.c.WriteHead(s, h, false); err != ErrNoConnectProtocol {
		t.Fatal(err)
	}
	p.WriteSettings(setting(settingConnect, 1))
	p.one(Settings)
	if err := p.c.WriteHead(s, h, false); err != nil {
		t.Fatal(err)
	}
	p.head(1, false, ":status", "200", "content-length", "0")
	p.one(Head)
	p.WriteData(1, false, []byte("more than the length says"))
	p.one(Data)
}

// TestLargeHeads are cut into CONTINUATION, in both directions.
func TestLargeHeads(t *testing.T) {
	for _, size := range []int{100, 16300, 16384, 16400, 32768, 50000} {
		p := newPeer(t, Config{Client: true, MaxHead: 1 << 20})
		s, _ := p.c.Open()
		h := request("GET")
		value := strings.Repeat("~", size) // longer in Huffman code
		h.Add([]byte("x-a"), []byte(value))
		if err := p.c.WriteHead(s, h, true); err != nil {
			t.Fatal(err)
		}
		server := newPeer(t, Config{MaxHead: 1 << 20})
		server.in.Write(p.c.Out())
		ev := server.one(Head)
		if got, _ := ev.Stream.Head.Lookup("x-a"); string(got) != value || !ev.End {
			t.Errorf("%d: %d bytes came", size, len(got))
		}
	}
	p := newPeer(t, Config{Client: true})
	p.WriteSettings(setting(settingHead, 300))
	p.one(Settings)
	s, _ := p.c.Open()
	h := request("GET")
	h.Add([]byte("x-a"), []byte(strings.Repeat("x", 300)))
	if err := p.c.WriteHead(s, h, true); err != ErrHeadTooLarge {
		t.Error(err)
	}
}
