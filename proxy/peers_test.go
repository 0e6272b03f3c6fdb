package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/snapshot/l7"
)

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come to it that %s", what)
		}
	}
}

// endpoint1 is an endpoint of which each connection is served by serve, on a
// plain socket. It says how many connections there were.
func endpoint1(t testing.TB, serve func(n int, c net.Conn, r *bufio.Reader)) (address string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(int(connections.Add(1)), c, bufio.NewReader(c))
			}()
		}
	}()
	return l.Addr().String(), connections
}

// readHead1 reads one head.
func readHead1(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// answer1 is an endpoint that reads heads and answers each with the same bytes.
func answer1(t testing.TB, answer string) string {
	address, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readHead1(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
	return address
}

// dial is a connection to the proxy that fails within a few seconds.
func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(8 * time.Second))
	return c
}

// get is a GET whose answer is read whole.
func get(t testing.TB, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	return send(t, c, "GET", url, "")
}

func send(t testing.TB, c *http.Client, method, url, body string, fields ...string) (int, string, http.Header) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "Host" {
			req.Host = fields[i+1]
			continue
		}
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// grpcCall sends an empty gRPC call over HTTP/2.
func grpcCall(t testing.TB, c *http.Client, address string, fields ...string) (int, http.Header, http.Header) {
	t.Helper()
	req, err := http.NewRequest("POST", "http://"+address+"/shop.Cart/Add", strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, resp.Trailer
}

// onlyRule is the rule of the Config of one.
func onlyRule(cfg *l7.Config) *l7.Rule { return &cfg.Routes[0].Rules[0] }

// refused is an address that refuses connections.
func refused(t testing.TB) string { return free(t) }

// numbered answers with its name and counts.
func numbered(name string, n *atomic.Int32, status func(n int32) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		k := n.Add(1)
		b, _ := io.ReadAll(r.Body)
		w.WriteHeader(status(k))
		fmt.Fprintf(w, "%s %d %d", name, k, len(b))
	}
}

func always(status int) func(int32) int { return func(int32) int { return status } }

func itoa(n int) string { return fmt.Sprint(n) }

// parseTimeout reads a grpc-timeout.
func parseTimeout(s string) (time.Duration, bool) {
	d, ok := resilience.ParseGRPCTimeout([]byte(s))
	return time.Duration(d), ok
}

// quiet is for servers that would say what a test expects.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// contextOf is a context that ends after a while.
func contextOf(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// long says whether tests may take long.
func long() bool { return os.Getenv("MOIRE_LONG") != "" }
