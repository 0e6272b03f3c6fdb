package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/snapshot/l7"
)

// firstThen is 503 for the first n, then 200.
func firstThen(n int32) func(int32) int {
	return func(k int32) int {
		if k <= n {
			return 503
		}
		return 200
	}
}

func retrying(address string, r l7.Retry, endpoints ...string) *l7.Config {
	cfg := one(address, endpoints...)
	if r.Backoff == 0 {
		r.Backoff = l7.Duration(time.Millisecond)
	}
	onlyRule(cfg).Retry = &r
	return cfg
}

func TestRefusedConnectionsAreTriedElsewhere(t *testing.T) {
	address := free(t)
	var n atomic.Int32
	cfg := retrying(address, l7.Retry{}, refused(t), server(t, numbered("b", &n, always(200))))
	cfg.Clusters[0].Balancer.Kind = l7.RoundRobin
	start(t, cfg)
	c := client(t, false)
	for range 10 { // POST, too: nothing was sent
		if status, _, _ := send(t, c, "POST", "http://"+address+"/", "body"); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	if n.Load() != 10 {
		t.Errorf("%d requests came", n.Load())
	}
}

func TestRetriesByStatus(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		name, method, body string
		retry              l7.Retry
		fails              int32
		status             int
		came               int32
	}{
		{"GET", "GET", "", l7.Retry{}, 1, 200, 2},
		{"POST is sent once", "POST", "b", l7.Retry{}, 1, 503, 1},
		{"POST that is said to be safe", "POST", "b", l7.Retry{Methods: []string{"POST"}}, 1, 200, 2},
		{"PUT with its body", "PUT", "body", l7.Retry{}, 1, 200, 2},
		{"PUT too large to be kept", "PUT", long, l7.Retry{}, 1, 503, 1},
		{"PUT that may be larger", "PUT", long, l7.Retry{Body: 200_000}, 1, 200, 2},
		{"attempts", "GET", "", l7.Retry{Attempts: 3}, 3, 200, 4},
		{"attempts are over", "GET", "", l7.Retry{Attempts: 3}, 9, 503, 4},
		{"another code", "GET", "", l7.Retry{Codes: []int{500}}, 1, 503, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, two := range []bool{false, true} {
				address := free(t)
				var n atomic.Int32
				cfg := retrying(address, c.retry, server2(t, numbered("a", &n, firstThen(c.fails))))
				if two {
					cfg.Clusters[0].Protocol = l7.HTTP2
				}
				start(t, cfg)
				status, body, _ := send(t, client(t, two), c.method, "http://"+address+"/", c.body)
				if status != c.status || n.Load() != c.came {
					t.Errorf("two=%v: status %d after %d requests", two, status, n.Load())
				}
				if status == 200 && !strings.HasSuffix(body, " "+itoa(len(c.body))) {
					t.Errorf("two=%v: the endpoint got another body: %q", two, body)
				}
			}
		})
	}
}

// TestRetriesOfCalls: a gRPC call is tried again for the codes that the rule lists.
func TestRetriesOfCalls(t *testing.T) {
	for _, listed := range []bool{false, true} {
		address := free(t)
		var n atomic.Int32
		cfg := retrying(address, l7.Retry{}, server2(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/grpc")
			if n.Add(1) == 1 {
				w.Header().Set("Grpc-Status", "14")
				return
			}
			w.Write(b)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}))
		cfg.Clusters[0].Protocol = l7.HTTP2
		if listed {
			onlyRule(cfg).Retry.GRPC = []int{14}
		}
		start(t, cfg)
		_, h, tr := grpcCall(t, client(t, true), address)
		code, want := h.Get("Grpc-Status")+tr.Get("Grpc-Status"), "14"
		if listed {
			want = "0"
		}
		if code != want {
			t.Errorf("listed=%v: grpc-status %q after %d calls", listed, code, n.Load())
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for _, c := range []struct {
		after  string
		status int
		least  time.Duration
	}{{"1", 200, time.Second}, {"60", 503, 0}} {
		address := free(t)
		var n atomic.Int32
		start(t, retrying(address, l7.Retry{}, server(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				w.Header().Set("Retry-After", c.after)
				w.WriteHeader(503)
			}
		})))
		began := time.Now()
		if status, _, _ := get(t, client(t, false), "http://"+address+"/"); status != c.status || time.Since(began) < c.least {
			t.Errorf("retry-after %s: %d after %v", c.after, status, time.Since(began))
		}
	}
}

// TestRetriesAreLimited: the circuit of retries is taken up by one that waits.
func TestRetriesAreLimited(t *testing.T) {
	address := free(t)
	var n atomic.Int32
	cfg := retrying(address, l7.Retry{Attempts: 1}, server(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(503)
	}))
	cfg.Clusters[0].Circuit.Retries = 1
	start(t, cfg)
	done := make(chan int)
	go func() {
		status, _, _ := get(t, client(t, false), "http://"+address+"/first")
		done <- status
	}()
	eventually(t, "the first request comes", func() bool { return n.Load() == 1 })
	if status, _, _ := get(t, client(t, false), "http://"+address+"/second"); status != 503 || n.Load() != 2 {
		t.Errorf("%d after %d requests: the second was retried beyond the limit", status, n.Load())
	}
	<-done
	if n.Load() != 3 {
		t.Errorf("%d requests came", n.Load())
	}
}

// TestAKeptConnectionThatCloses: the endpoint closes each kept connection when
// the second request comes on it. GET goes through without a policy; POST is
// answered with an error, and never comes twice.
func TestAKeptConnectionThatCloses(t *testing.T) {
	address := free(t)
	var posts atomic.Int32
	up, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for i := range 2 {
			head, err := readHead1(r)
			if err != nil {
				return
			}
			if strings.HasPrefix(head, "POST") {
				posts.Add(1)
			}
			if i == 1 {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	start(t, one(address, up))
	c := client(t, false)
	for i := range 20 {
		if status, body, _ := get(t, c, "http://"+address+"/"); status != 200 || body != "ok" {
			t.Fatalf("request %d: %d %q", i, status, body)
		}
	}
	before := posts.Load()
	failed := int32(0)
	for range 4 {
		if status, _, _ := send(t, c, "POST", "http://"+address+"/", ""); status == 503 {
			failed++
		}
	}
	if came := posts.Load() - before; came != 4 || failed == 0 {
		t.Errorf("%d of 4 POST came, %d failed", came, failed)
	}
}

func TestTimeouts(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			w.Write(make([]byte, 100))
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}
	t.Run("of a try, then another endpoint", func(t *testing.T) {
		address := free(t)
		var n atomic.Int32
		cfg := retrying(address, l7.Retry{}, server(t, slow), server(t, numbered("b", &n, always(200))))
		cfg.Clusters[0].Balancer.Kind = l7.RoundRobin
		onlyRule(cfg).Timeouts.Backend = l7.Duration(50 * time.Millisecond)
		start(t, cfg)
		c := client(t, false)
		for range 4 {
			if status, _, _ := get(t, c, "http://"+address+"/"); status != 200 {
				t.Errorf("status %d", status)
			}
		}
	})
	for _, two := range []bool{false, true} {
		t.Run("of the request", func(t *testing.T) {
			address := free(t)
			cfg := one(address, server2(t, slow))
			if two {
				cfg.Clusters[0].Protocol = l7.HTTP2
			}
			onlyRule(cfg).Timeouts.Request = l7.Duration(60 * time.Millisecond)
			start(t, cfg)
			c := client(t, two)
			began := time.Now()
			if status, _, _ := get(t, c, "http://"+address+"/"); status != 504 || time.Since(began) > 2*time.Second {
				t.Errorf("two=%v: %d after %v", two, status, time.Since(began))
			}
			resp, err := c.Get("http://" + address + "/half")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("two=%v: an answer that was cut off after %d bytes looks whole", two, len(b))
			}
		})
	}
}

func TestGRPCTimeout(t *testing.T) {
	address := free(t)
	var got atomic.Value
	cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Grpc-Timeout"))
		if r.Header.Get("X-Slow") != "" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer:Grpc-Status", "0")
	}))
	cfg.Clusters[0].Protocol = l7.HTTP2
	onlyRule(cfg).Timeouts.Request = l7.Duration(2 * time.Second)
	start(t, cfg)
	c := client(t, true)
	for sent, most := range map[string]time.Duration{"500m": 500 * time.Millisecond, "5S": 2 * time.Second, "": 2 * time.Second} {
		fields := []string{"Grpc-Timeout", sent}
		if sent == "" {
			fields = nil
		}
		grpcCall(t, c, address, fields...)
		value := got.Load().(string)
		if left, ok := parseTimeout(value); !ok || left > most || left < most/2 {
			t.Errorf("a call with %q of %v reached the endpoint with %q", sent, most, value)
		}
	}
	got.Store("")
	for _, wrong := range [][]string{{"Grpc-Timeout", "5"}, {"Grpc-Timeout", "-5S"}, {"Grpc-Timeout", "123456789S"}, {"Grpc-Timeout", "1S", "Grpc-Timeout", "2S"}} {
		if status, h, tr := grpcCall(t, c, address, wrong...); status != 200 || h.Get("Grpc-Status")+tr.Get("Grpc-Status") != "13" || got.Load() != "" {
			t.Errorf("%q: %d, grpc-status %v %v, the endpoint got %q", wrong, status, h, tr, got.Load())
		}
	}
	began := time.Now()
	status, h, tr := grpcCall(t, c, address, "Grpc-Timeout", "50m", "X-Slow", "1")
	if code := h.Get("Grpc-Status") + tr.Get("Grpc-Status"); status != 200 || code != "4" || time.Since(began) > time.Second {
		t.Errorf("%d, grpc-status %q after %v", status, code, time.Since(began))
	}
}

// TestHedge: a slow endpoint, a fast one.
func TestHedge(t *testing.T) {
	for _, two := range []bool{false, true} {
		address := free(t)
		var slow, fast, canceled atomic.Int32
		cfg := one(address,
			server2(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				slow.Add(1)
				select {
				case <-r.Context().Done():
					canceled.Add(1)
				case <-time.After(300 * time.Millisecond):
				}
			}),
			server2(t, numbered("fast", &fast, always(200))))
		cfg.Clusters[0].Balancer.Kind = l7.RoundRobin
		if two {
			cfg.Clusters[0].Protocol = l7.HTTP2
		}
		onlyRule(cfg).Hedge = &l7.Hedge{Delay: l7.Duration(30 * time.Millisecond)}
		start(t, cfg)
		c := client(t, two)
		for i := range 6 {
			method, body := "GET", ""
			if i >= 4 {
				method, body = "PUT", "0123456789"
			}
			status, got, _ := send(t, c, method, "http://"+address+"/", body)
			if status != 200 || !strings.HasPrefix(got, "fast") || !strings.HasSuffix(got, " "+itoa(len(body))) {
				t.Errorf("two=%v: %s: %d %q", two, method, status, got)
			}
		}
		eventually(t, "those that lost are canceled", func() bool { return canceled.Load() == slow.Load() })
		slow.Store(0)
		fast.Store(0)
		for range 4 {
			send(t, c, "POST", "http://"+address+"/", "x")
		}
		if slow.Load()+fast.Load() != 4 {
			t.Errorf("two=%v: 4 POST came %d times", two, slow.Load()+fast.Load())
		}
	}
}

// TestMoreHedges: of four endpoints three are slow; each wait begins one try more,
// as many as the rule says.
func TestMoreHedges(t *testing.T) {
	for most, want := range map[int]int32{3: 3, 4: 4} {
		for _, two := range []bool{false, true} {
			address := free(t)
			let := make(chan struct{})
			var came atomic.Int32
			slow := server2(t, func(w http.ResponseWriter, r *http.Request) {
				if came.Add(1) == want {
					return // the last one answers
				}
				select {
				case <-let:
				case <-r.Context().Done():
				}
			})
			cfg := one(address, slow)
			if two {
				cfg.Clusters[0].Protocol = l7.HTTP2
			}
			onlyRule(cfg).Hedge = &l7.Hedge{Delay: l7.Duration(20 * time.Millisecond), Most: most}
			p := start(t, cfg)
			began := time.Now()
			if status, _, _ := get(t, client(t, false), "http://"+address+"/"); status != 200 {
				t.Errorf("status %d", status)
			}
			if took := time.Since(began); took < time.Duration(want-1)*20*time.Millisecond || took > 5*time.Second || came.Load() != want {
				t.Errorf("most %d, two=%v: %d tries in %v", most, two, came.Load(), took)
			}
			eventually(t, "all others are ended", func() bool { return p.State().Clusters[0].Active == 0 })
			close(let)
		}
	}
}

// TestCallersThatLeave while a fault delays their request, or before a retry, are
// not waited for.
func TestCallersThatLeave(t *testing.T) {
	for name, change := range map[string]func(*l7.Config){
		"delay": func(cfg *l7.Config) {
			onlyRule(cfg).Fault = &l7.Fault{Delay: l7.Duration(time.Hour), DelayPercent: 100}
		},
		"backoff": func(cfg *l7.Config) {
			onlyRule(cfg).Retry = &l7.Retry{Attempts: 3, Backoff: l7.Duration(time.Hour)}
		},
	} {
		address := free(t)
		cfg := one(address, refused(t))
		change(cfg)
		p := start(t, cfg)
		for _, two := range []bool{false, true} {
			c := dial(t, address)
			if two {
				w := newWire2(t, c, http2.Config{Client: true})
				w.ask(request2("GET", "/"), true)
				w.flush()
			} else {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			eventually(t, "it waits", func() bool { return p.State().Listeners[0].Connections == 1 })
			time.Sleep(50 * time.Millisecond)
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			eventually(t, name+": it is over", func() bool { return p.State().Listeners[0].Connections == 0 && len(p.Telemetry().Last(20)) > 0 })
		}
	}
}
