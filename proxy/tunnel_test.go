package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/snapshot/l7"
)

const upgrade1 = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// tunnel1 talks on a connection that was upgraded.
func tunnel1(t *testing.T, address, ask string, codes ...string) *bufio.Reader {
	t.Helper()
	c := dial(t, address)
	io.WriteString(c, ask+"early") // what follows the head is the tunnel's
	r := bufio.NewReader(c)
	head, err := readHead1(r)
	if err != nil {
		t.Fatal(head, err)
	}
	for _, want := range codes {
		if !strings.Contains(head, want) {
			t.Errorf("no %q in %q", want, head)
		}
	}
	for _, say := range []string{"early", "hello", strings.Repeat("x", 200_000)} {
		if say != "early" {
			go io.WriteString(c, say)
		}
		b := make([]byte, len(say))
		if _, err := io.ReadFull(r, b); err != nil || string(b) != say {
			t.Fatalf("%d bytes: %v", len(say), err)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Errorf("after the end: %q %v", b, err)
	}
	return r
}

func TestUpgrades(t *testing.T) {
	address := free(t)
	cfg := one(address, echoUpgrade(t))
	onlyRule(cfg).Retry = &l7.Retry{} // a tunnel is not kept for another try
	p := start(t, cfg)
	tunnel1(t, address, upgrade1, "HTTP/1.1 101 ", "connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: x\r\n")

	w := caller2(t, address)
	h := request2("GET", "/chat")
	h.Method, h.Upgrade = []byte("CONNECT"), []byte("websocket")
	s := w.ask(h, false)
	if ev := w.until(http2.Head, s); ev.Stream.Head.Status != 200 || ev.End {
		t.Errorf("extended CONNECT: %d", ev.Stream.Head.Status)
	}
	w.write(s, "hello", false)
	if got := w.read(s, 5); got != "hello" {
		t.Errorf("%q", got)
	}
	w.write(s, "bye", true)
	if got := w.read(s, 1<<20); got != "bye" {
		t.Errorf("%q", got)
	}
	eventually(t, "nothing is left", func() bool {
		c := p.State().Clusters[0]
		return c.Connections == 0 && c.Active == 0
	})
	// One that is refused is no tunnel: an endpoint that answers 200 did not upgrade.
	h.Upgrade = []byte("other")
	s = w.ask(h, false)
	if ev := w.until(http2.Head, s); ev.Stream.Head.Status != 502 {
		t.Errorf("200 to an upgrade became %d", ev.Stream.Head.Status)
	}
}

// TestUpgradeToHTTP2: an Upgrade of HTTP/1 goes on as an extended CONNECT.
func TestUpgradeToHTTP2(t *testing.T) {
	address := free(t)
	cfg := one(address, endpoint2(t, http2.Config{EnableConnect: true}, func(_ int, w *wire2) {
		s := w.until(http2.Head, nil).Stream
		if string(s.Head.Upgrade) != "websocket" || string(s.Head.Path) != "/chat" {
			t.Errorf("%+v", s.Head)
		}
		if err := w.h.WriteHead(s, &message.Head{Status: 200, Minor: 1, Length: -1}, false); err != nil {
			t.Error(err)
		}
		w.flush()
		for left := []byte(nil); ; {
			ev := w.next()
			left = append(left, ev.Data...)
			left = left[w.h.WriteData(s, left, ev.End, 1):]
			w.flush()
			if ev.End || ev.Kind == http2.NeedMore {
				return
			}
		}
	}))
	cfg.Clusters[0].Protocol = l7.HTTP2
	start(t, cfg)
	tunnel1(t, address, upgrade1, "HTTP/1.1 101 ", "upgrade: websocket\r\n", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
}

// TestConnect: CONNECT goes to the endpoint of its route, and what follows is a
// tunnel.
func TestConnect(t *testing.T) {
	address := free(t)
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, err := readHead1(r)
		if err != nil || !strings.HasPrefix(head, "CONNECT shop.example:80 HTTP/1.1\r\n") {
			t.Errorf("%q", head)
			return
		}
		io.WriteString(c, "HTTP/1.1 200 Connected\r\n\r\n")
		io.Copy(c, r)
	})
	cfg := one(address, up)
	onlyRule(cfg).Matches = []l7.Match{{Method: "CONNECT"}}
	start(t, cfg)
	tunnel1(t, address, "CONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example:80\r\n\r\n", "HTTP/1.1 200 ")
	w := caller2(t, address)
	s := w.ask(request2("CONNECT", ""), false)
	w.until(http2.Head, s)
	w.write(s, "hello", true)
	if got := w.read(s, 100); got != "hello" {
		t.Errorf("%q", got)
	}
}

// TestHalfClosedEndpoint: the endpoint of a tunnel ends first, and still reads.
func TestHalfClosedEndpoint(t *testing.T) {
	got := make(chan string, 1)
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead1(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nlast words")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(r)
		got <- string(b)
	})
	address := free(t)
	start(t, one(address, up))
	c := dial(t, address)
	io.WriteString(c, upgrade1)
	r := bufio.NewReader(c)
	readHead1(r)
	if b, err := io.ReadAll(r); err != nil || string(b) != "last words" {
		t.Errorf("%q %v", b, err)
	}
	io.WriteString(c, "still here")
	c.Close()
	if b := <-got; b != "still here" {
		t.Errorf("the endpoint got %q", b)
	}
	// Over HTTP/2 the same, but for a WebSocket: its caller waits for us.
	w := caller2(t, address)
	h := request2("GET", "/chat")
	h.Method = []byte("CONNECT")
	for _, protocol := range []string{"telnet", "websocket"} {
		h.Upgrade = []byte(protocol)
		s := w.ask(h, false)
		w.until(http2.Head, s)
		if b := w.read(s, 100); b != "last words" {
			t.Errorf("%s: %q", protocol, b)
		}
		want := ""
		if protocol == "telnet" {
			want = "still here"
			w.write(s, want, true)
		} else if ev := w.until(http2.Reset, s); ev.Code != http2.NoError {
			t.Errorf("ended by %v", ev.Code)
		}
		if b := <-got; b != want {
			t.Errorf("%s: the endpoint got %q", protocol, b)
		}
	}
}

// TestBothEndsOfEndpointGone: an endpoint that ends a tunnel and then resets it
// leaves nobody waiting.
func TestBothEndsOfEndpointGone(t *testing.T) {
	address := free(t)
	cfg := one(address, endpoint2(t, http2.Config{EnableConnect: true}, func(_ int, w *wire2) {
		s := w.until(http2.Head, nil).Stream
		if err := w.h.WriteHead(s, &message.Head{Status: 200, Minor: 1, Length: -1}, false); err != nil {
			t.Error(err)
		}
		w.h.WriteData(s, []byte("bye"), true, 1)
		w.h.Reset(s, http2.NoError)
		w.flush()
		w.next() // until the proxy leaves
	}))
	cfg.Clusters[0].Protocol = l7.HTTP2
	p := start(t, cfg)
	c := dial(t, address)
	io.WriteString(c, upgrade1)
	r := bufio.NewReader(c)
	readHead1(r)
	if b, err := io.ReadAll(r); err != nil || string(b) != "bye" {
		t.Errorf("%q %v", b, err)
	}
	eventually(t, "nothing is left", func() bool { return p.State().Clusters[0].Active == 0 })
}

// TestProxyProtocol: in, out, both versions; who does not say it is shown the door.
func TestProxyProtocol(t *testing.T) {
	for version := 1; version <= 2; version++ {
		inner, outer, plain := free(t), free(t), free(t)
		up := server(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Forwarded-For")) })
		in := one(inner, up)
		in.Listeners[0].ProxyProtocol = true
		p := start(t, in)
		out := one(outer, inner)
		out.Clusters[0].ProxyProtocol = version
		start(t, out)
		start(t, one(plain, inner))
		for _, two := range []bool{false, true} {
			c := client(t, two)
			for range 3 {
				if status, body, _ := get(t, c, "http://"+outer+"/"); status != 200 || body != "127.0.0.1" {
					t.Errorf("version %d: %d %q", version, status, body)
				}
			}
		}
		if status, _, _ := get(t, client(t, false), "http://"+plain+"/"); status != 503 {
			t.Errorf("without a PROXY header: %d", status)
		}
		conn := dial(t, inner)
		for _, part := range []string{"PROXY TCP4 192.0.2.7 ", "192.0.2.8 4000 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConn", "ection: close\r\n\r\n"} {
			io.WriteString(conn, part)
			time.Sleep(2 * time.Millisecond)
		}
		if b, _ := io.ReadAll(conn); !strings.HasSuffix(string(b), "192.0.2.7") {
			t.Errorf("%q", b)
		}
		eventually(t, "the record names the caller", func() bool {
			return strings.Contains(fmt.Sprintf("%+v", p.Telemetry().Last(20)), "192.0.2.7")
		})
	}
}
