package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// free is an address of loopback that nobody listens on, with a port that no
// connection is given by the kernel.
func free(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+(os.Getpid()*61+int(ports.Add(1)))%12_000)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

var ports atomic.Uint32 // that were given out

// start runs a Proxy until the test ends.
func start(t testing.TB, cfg *l7.Config) *Proxy {
	t.Helper()
	p, err := New(Options{Workers: 1, Ring: ring, Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	runProxy(t, p)
	return p
}

// runProxy runs p until the test ends.
func runProxy(t testing.TB, p *Proxy) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// one is a Config with one listener, one route to one cluster of endpoints.
func one(address string, endpoints ...string) *l7.Config {
	c := l7.Cluster{Name: "c"}
	for _, e := range endpoints {
		c.Endpoints = append(c.Endpoints, l7.Endpoint{Address: e})
	}
	return &l7.Config{Name: "test", Listeners: []l7.Listener{{Name: "web", Address: address}},
		Routes:   []l7.Route{{Name: "r", Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: "c"}}}}}},
		Clusters: []l7.Cluster{c}}
}

// server is an endpoint.
func server(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// server2 is an endpoint that speaks HTTP/2 without TLS, and HTTP/1.
func server2(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols.SetHTTP1(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// client speaks HTTP/1 or, two, HTTP/2 without TLS.
func client(t testing.TB, two bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!two)
	tr.Protocols.SetUnencryptedHTTP2(two)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Method", r.Method)
	w.Header().Set("X-Proto", r.Proto)
	w.Header().Set("Trailer", "X-Sum")
	if r.Method == "HEAD" {
		w.Header().Set("Content-Length", "1234")
		return
	}
	http.NewResponseController(w).EnableFullDuplex()
	n, _ := io.Copy(w, r.Body)
	w.Header().Set("X-Sum", fmt.Sprint(n)+fmt.Sprint(r.Trailer.Get("X-Sent")))
}

// TestAllWaysThrough sends bodies of several sizes, with and without a known
// length, through every pair of protocols.
func TestAllWaysThrough(t *testing.T) {
	for _, up2 := range []bool{false, true} {
		address := free(t)
		cfg := one(address, server2(t, echo))
		if up2 {
			cfg.Clusters[0].Protocol = l7.HTTP2
		}
		start(t, cfg)
		for _, down2 := range []bool{false, true} {
			c := client(t, down2)
			for _, size := range []int{0, 1, 1000, 70_000, 3 << 20} {
				for _, chunked := range []bool{false, true} {
					t.Run(fmt.Sprintf("down2=%v,up2=%v,size=%d,chunked=%v", down2, up2, size, chunked), func(t *testing.T) {
						roundTrip(t, c, address, size, chunked)
					})
				}
			}
			resp, err := c.Head("http://" + address + "/")
			if err != nil || resp.ContentLength != 1234 || resp.StatusCode != 200 {
				t.Errorf("HEAD: %v %v", resp, err)
			}
		}
	}
}

func roundTrip(t *testing.T, c *http.Client, address string, size int, chunked bool) {
	body := make([]byte, size)
	rand.Read(body)
	var r io.Reader = bytes.NewReader(body)
	if chunked {
		r = struct{ io.Reader }{r}
	}
	req, err := http.NewRequest("POST", "http://"+address+"/echo?a=b", r)
	if err != nil {
		t.Fatal(err)
	}
	if chunked {
		req.Trailer = http.Header{"X-Sent": {"sent"}}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), size, err)
	}
	want := fmt.Sprint(size)
	if chunked && size > 0 {
		want = fmt.Sprint(size) + "sent"
	}
	if got := resp.Trailer.Get("X-Sum"); got != want && size > 0 {
		t.Errorf("trailer %q, want %q", got, want)
	}
}

// raw1 sends bytes and reads until the other side closes or says nothing for a while.
func raw1(t testing.TB, address, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	io.WriteString(c, request)
	b, err := io.ReadAll(c)
	var ne net.Error
	if err != nil && !(errors.As(err, &ne) && ne.Timeout()) {
		t.Logf("read: %v", err)
	}
	return string(b)
}

func TestHTTP1OnTheWire(t *testing.T) {
	address := free(t)
	start(t, one(address, server(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q;", r.Method, r.URL, b)
	})))
	for _, c := range []struct{ name, request, want string }{
		{"pipelined", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", `GET /1 "";|GET /2 "";|GET /3 "";`},
		{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "connection: close"},
		{"1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", `GET / "";`},
		{"expect", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", `HTTP/1.1 100 |POST / "abc";`},
		{"both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 "},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n", `POST / "abc";`},
		{"bad chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 400 "},
		{"dots", "GET /a/../b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", `GET /b "";`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, at := raw1(t, address, c.request), 0
			for want := range strings.SplitSeq(c.want, "|") {
				i := strings.Index(got[at:], want)
				if i < 0 {
					t.Fatalf("no %q in order in %q", want, got)
				}
				at += i + len(want)
			}
		})
	}
}
