package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/snapshot/l7"
)

// TestAnEndpointThatBreaksOff: the caller never takes what came for all there is.
func TestAnEndpointThatBreaksOff(t *testing.T) {
	for name, answer := range map[string]string{
		"by length": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello",
		"in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"bad chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
	} {
		for _, reset := range []bool{false, true} {
			up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
				readHead1(r)
				io.WriteString(c, answer)
				if reset {
					time.Sleep(5 * time.Millisecond)
					c.(*net.TCPConn).SetLinger(0)
				}
			})
			brokenOff(t, fmt.Sprint(name, " reset=", reset), one(free(t), up))
		}
	}
	up := endpoint2(t, http2.Config{}, func(_ int, w *wire2) {
		for {
			ev := w.next()
			if ev.Kind == http2.NeedMore {
				return
			}
			if ev.Kind == http2.Head {
				w.h.WriteHead(ev.Stream, answer2(200), false)
				w.h.WriteData(ev.Stream, []byte("hello"), false, 1)
				w.flush()
				w.h.Reset(ev.Stream, http2.InternalError)
				w.flush()
			}
		}
	})
	cfg := one(free(t), up)
	cfg.Clusters[0].Protocol = l7.HTTP2
	brokenOff(t, "HTTP/2", cfg)
}

func brokenOff(t *testing.T, name string, cfg *l7.Config) {
	t.Helper()
	start(t, cfg)
	for _, two := range []bool{false, true} {
		resp, err := client(t, two).Get("http://" + cfg.Listeners[0].Address + "/")
		if err != nil {
			continue // so early is good, too
		}
		if resp.StatusCode != 200 {
			resp.Body.Close()
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s, caller two=%v: %q looks whole", name, two, b)
		}
	}
}

// TestACallerThatVanishes: the connection to the endpoint ends, and is not used
// again; nothing is left.
func TestACallerThatVanishes(t *testing.T) {
	for _, up2 := range []bool{false, true} {
		for _, path := range []string{"/upload", "/download", "/silent"} {
			var began, ended, whole atomic.Int32
			address := free(t)
			cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
				began.Add(1)
				defer ended.Add(1)
				switch r.URL.Path {
				case "/upload":
					if _, err := io.Copy(io.Discard, r.Body); err == nil {
						whole.Add(1)
					}
				case "/download":
					for b := make([]byte, 1<<16); r.Context().Err() == nil; {
						if _, err := w.Write(b); err != nil {
							return
						}
					}
				case "/silent":
					<-r.Context().Done()
				}
			}))
			if up2 {
				cfg.Clusters[0].Protocol = l7.HTTP2
			}
			p := start(t, cfg)
			for _, two := range []bool{false, true} {
				vanish(t, address, path, two, func() bool { return began.Load() > 0 })
				eventually(t, fmt.Sprint(path, " ends at the endpoint, up2=", up2, " two=", two), func() bool { return ended.Load() == began.Load() && began.Load() > 0 })
				eventually(t, "nothing is left", func() bool {
					s := p.State()
					return s.Clusters[0].Active == 0 && s.Listeners[0].Connections == 0 && (up2 || s.Clusters[0].Connections == 0)
				})
				began.Store(0)
				ended.Store(0)
			}
			if whole.Load() > 0 {
				t.Errorf("up2=%v: half an upload looks whole", up2)
			}
			if status, _, _ := get(t, client(t, false), "http://"+address+"/else"); status != 200 {
				t.Errorf("afterwards: %d", status)
			}
		}
	}
}

// vanish sends half a request, or reads half an answer, and resets the connection.
func vanish(t *testing.T, address, path string, two bool, arrived func() bool) {
	c := dial(t, address)
	c.(*net.TCPConn).SetLinger(0)
	if two {
		w := newWire2(t, c, http2.Config{Client: true})
		s := w.ask(request2(map[bool]string{true: "POST", false: "GET"}[path == "/upload"], path), path != "/upload")
		if path == "/upload" {
			w.write(s, "half", false)
		}
		if path == "/download" {
			w.until(http2.Data, s)
		}
	} else {
		body := ""
		if path == "/upload" {
			body = "Content-Length: 1000\r\n"
		}
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n", map[bool]string{true: "POST", false: "GET"}[path == "/upload"], path, body)
		if path == "/upload" {
			io.WriteString(c, "half")
		}
		if path == "/download" {
			io.ReadFull(c, make([]byte, 1000))
		}
	}
	eventually(t, path+" comes to the endpoint", arrived)
	c.Close()
}

// TestGoAway: an endpoint over HTTP/2 goes away with streams in flight. Those
// that it did begin with end, the others are sent elsewhere, POST too.
func TestGoAway(t *testing.T) {
	address := free(t)
	var connections atomic.Int32
	cfg := one(address, endpoint2(t, http2.Config{}, func(n int, w *wire2) {
		connections.Add(1)
		var held []*http2.Stream
		for {
			ev := w.next()
			switch {
			case ev.Kind == http2.NeedMore:
				return
			case !ev.End:
			case n > 1:
				w.respond(ev.Stream, "second")
			default:
				if held = append(held, ev.Stream); len(held) < 4 {
					continue
				}
				// The last stream that it says it took is the second.
				w.c.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, byte(held[1].ID), 0, 0, 0, 0})
				w.respond(held[0], "first")
				w.respond(held[1], "first")
			}
		}
	}))
	cfg.Clusters[0].Protocol = l7.HTTP2
	start(t, cfg)
	c := client(t, false)
	answers := make(chan string, 4)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			status, body, _ := send(t, c, "POST", "http://"+address+"/", "body")
			answers <- fmt.Sprint(status, body)
		})
	}
	wg.Wait()
	close(answers)
	got := map[string]int{}
	for a := range answers {
		got[a]++
	}
	if got["200first"] != 2 || got["200second"] != 2 || connections.Load() != 2 {
		t.Errorf("%v over %d connections", got, connections.Load())
	}
}

// TestLimitsOfTime: a head that does not end, a connection that says nothing, a
// body that stalls, an endpoint that stalls.
func TestLimitsOfTime(t *testing.T) {
	address := free(t)
	cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/half" {
			w.Write([]byte("half"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	ms := func(n int) l7.Duration { return l7.Duration(time.Duration(n) * time.Millisecond) }
	cfg.Listeners[0].Limits = l7.Limits{HeadTime: ms(100), Idle: ms(200), Stall: ms(150), Handshake: ms(100)}
	start(t, cfg)
	var wg sync.WaitGroup
	for _, c := range []struct {
		say, want string
		least     time.Duration
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 408 ", 100},
		{"", "", 200},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", 200},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 408 ", 150},
		{"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 504 ", 150},
		{"GET /half HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", 150},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06", "\x00\x00", 100},
	} {
		began := time.Now() // its time begins when it is accepted
		conn := dial(t, address)
		wg.Go(func() {
			io.WriteString(conn, c.say)
			b, _ := io.ReadAll(conn)
			took := time.Since(began)
			if !strings.HasPrefix(string(b), c.want) || took < c.least*time.Millisecond || took > 2*time.Second {
				t.Errorf("%q: %q after %v", c.say, b, took)
			}
		})
	}
	wg.Wait()
}

// TestDrain: long answers end whole, and HTTP/2 callers are told to go.
func TestDrain(t *testing.T) {
	address := free(t)
	let := make(chan struct{})
	cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("begin "))
		w.(http.Flusher).Flush()
		<-let
		io.WriteString(w, "end")
	}))
	p := start(t, cfg)
	var answers [2]*http.Response
	for i := range answers {
		resp, err := client(t, i == 1).Get("http://" + address + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answers[i] = resp
	}
	ctx, cancel := contextOf(5 * time.Second)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		p.Drain(ctx)
		close(drained)
	}()
	eventually(t, "nobody listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case <-drained:
		t.Error("the drain did not wait")
	case <-time.After(30 * time.Millisecond):
	}
	close(let)
	for i, resp := range answers {
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "begin end" {
			t.Errorf("answer %d: %q %v", i, b, err)
		}
	}
	select {
	case <-drained:
	case <-time.After(3 * time.Second):
		t.Errorf("the drain does not end: %+v", p.State())
	}
}

// TestACallerThatEndedItsSide still gets its answer, but is not worked for without
// end: most that do so are gone.
func TestACallerThatEndedItsSide(t *testing.T) {
	address := free(t)
	var began, ended atomic.Int32
	start(t, one(address, server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			began.Add(1)
			<-r.Context().Done()
			ended.Add(1)
			return
		}
		time.Sleep(50 * time.Millisecond)
		io.WriteString(w, "here")
	})))
	ask := func(path string) net.Conn {
		c := dial(t, address)
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
		c.(*net.TCPConn).CloseWrite()
		return c
	}
	if b, err := io.ReadAll(ask("/")); err != nil || !strings.HasSuffix(string(b), "here") {
		t.Errorf("%q %v", b, err)
	}
	if !long() {
		return
	}
	c := ask("/silent")
	eventually(t, "it comes", func() bool { return began.Load() == 1 })
	c.Close()
	time.Sleep(7 * time.Second)
	eventually(t, "the endpoint is told", func() bool { return ended.Load() == 1 })
}
