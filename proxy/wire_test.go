package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// TestInterimAnswers: 103 comes through every pair of protocols, in front of the
// answer and not in it.
func TestInterimAnswers(t *testing.T) {
	for _, up2 := range []bool{false, true} {
		address := free(t)
		cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(103)
			w.Header().Del("Link")
			io.WriteString(w, "whole")
		}))
		if up2 {
			cfg.Clusters[0].Protocol = l7.HTTP2
		}
		start(t, cfg)
		for _, down2 := range []bool{false, true} {
			var codes []int
			req, _ := http.NewRequest("GET", "http://"+address+"/", nil)
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				codes = append(codes, code)
				if h.Get("Link") == "" {
					t.Error("the 103 has no Link")
				}
				return nil
			}}))
			resp, err := client(t, down2).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(b) != "whole" || len(codes) != 1 || codes[0] != 103 || resp.Header.Get("Link") != "" {
				t.Errorf("down2=%v up2=%v: %q %v, interim %v, %v", down2, up2, b, err, codes, resp.Header)
			}
		}
	}
}

// TestAnInterimAnswerIsNotInALocalOne: what an endpoint said before it failed is
// not in what the proxy says then.
func TestAnInterimAnswerIsNotInALocalOne(t *testing.T) {
	address := free(t)
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead1(r)
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
	})
	start(t, one(address, up))
	got := raw1(t, address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if i := strings.Index(got, "HTTP/1.1 503 "); i < 0 || strings.Contains(got[i:], "link") {
		t.Errorf("%q", got)
	}
}

// TestRefusedExpectation: an endpoint that wants no body says so before it comes.
func TestRefusedExpectation(t *testing.T) {
	for _, status := range []int{413, 417} {
		address := free(t)
		start(t, one(address, answer1(t, fmt.Sprintf("HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno", status))))
		c := dial(t, address)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
		b, err := io.ReadAll(c) // the connection ends: a body may or may not follow
		if err != nil || !strings.HasPrefix(string(b), fmt.Sprint("HTTP/1.1 ", status)) || !strings.Contains(string(b), "connection: close") || strings.Contains(string(b), "100 Continue") {
			t.Errorf("%q %v", b, err)
		}
	}
}

// TestEarlyAnswer: the endpoint answers, and closes, while the caller still
// sends; the caller gets the answer.
func TestEarlyAnswer(t *testing.T) {
	for _, closes := range []bool{false, true} {
		address := free(t)
		up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
			readHead1(r)
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
			if !closes {
				io.Copy(io.Discard, r)
			}
		})
		start(t, one(address, up))
		for range 20 {
			c := dial(t, address)
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
			sent := make(chan error, 1)
			go func() {
				b := make([]byte, 1<<20)
				for range 90 {
					if _, err := c.Write(b); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 413 {
				t.Fatalf("closes=%v: %v %v", closes, resp, err)
			}
			c.Close()
			<-sent
		}
	}
	address := free(t)
	cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(413) }))
	cfg.Clusters[0].Protocol = l7.HTTP2
	start(t, cfg)
	for _, two := range []bool{false, true} {
		r, w := io.Pipe()
		go func() {
			for b := make([]byte, 1<<16); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}()
		resp, err := client(t, two).Post("http://"+address+"/", "text/plain", r)
		if err != nil || resp.StatusCode != 413 {
			t.Errorf("HTTP/2 endpoint, caller two=%v: %v %v", two, resp, err)
		}
		r.Close()
	}
}

// TestFraming is what endpoints of HTTP/1 may answer, and what becomes of it.
func TestFraming(t *testing.T) {
	for _, c := range []struct{ name, request, answer, want, not string }{
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n", "content-length: 77\r\n", ""},
		{"204", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 ", "content-length"},
		{"304", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", "content-length: 99\r\n", ""},
		{"chunks", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n", ""},
		{"chunks to 1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "\r\n\r\nabc", "chunked"},
		{"1.0 keeps", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "connection: keep-alive\r\n", ""},
		{"1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "\r\n\r\nabc", ""},
		{"1.0 endpoint", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "\r\n\r\nabc", "connection: close"},
		{"no length", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "content-length: 0|transfer-encoding: chunked", ""},
		{"garbage", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 502 ", ""},
		{"a 101 that nobody asked for", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 502 ", ""},
		{"both", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 502 ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := free(t)
			up, _ := endpoint1(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				for {
					if _, err := readHead1(r); err != nil {
						return
					}
					io.WriteString(conn, c.answer)
					if strings.Contains(c.answer, "close") {
						return
					}
				}
			})
			start(t, one(address, up))
			conn := dial(t, address)
			io.WriteString(conn, c.request+"GET /404 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			b, _ := io.ReadAll(conn)
			got := string(b)
			found := false
			for want := range strings.SplitSeq(c.want, "|") {
				found = found || strings.Contains(got, want)
			}
			if !found || c.not != "" && strings.Contains(strings.ToLower(got[:strings.Index(got, "\r\n\r\n")]), c.not) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestAnswersUntilClose become chunks, and one that is reset is never whole.
func TestAnswersUntilClose(t *testing.T) {
	for _, reset := range []bool{false, true} {
		for _, two := range []bool{false, true} {
			address := free(t)
			up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
				readHead1(r)
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
				if reset {
					time.Sleep(20 * time.Millisecond) // what came before is read
					c.(*net.TCPConn).SetLinger(0)
				}
			})
			start(t, one(address, up))
			resp, err := client(t, two).Get("http://" + address + "/")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if (err != nil) != reset || !reset && string(b) != "hello" {
				t.Errorf("reset=%v two=%v: %q %v", reset, two, b, err)
			}
		}
	}
}

// TestALimitedBody is refused with 413, whether its length is said or not.
func TestALimitedBody(t *testing.T) {
	address := free(t)
	var whole atomic.Int32
	cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	}))
	cfg.Listeners[0].Limits.Body = 10_000
	start(t, cfg)
	for _, two := range []bool{false, true} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = strings.NewReader(strings.Repeat("x", 20_000))
			if chunked {
				body = struct{ io.Reader }{body}
			}
			resp, err := client(t, two).Post("http://"+address+"/", "text/plain", body)
			if err != nil || resp.StatusCode != 413 {
				t.Errorf("two=%v chunked=%v: %v %v", two, chunked, resp, err)
			}
		}
	}
	if whole.Load() != 0 {
		t.Error("a body that is too large came whole")
	}
}
