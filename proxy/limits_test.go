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

	"moire.dev/moire/snapshot/l7"
)

// overflow sends n requests at once to an endpoint that holds them, and says how
// many were answered 503 and 200.
func overflow(t *testing.T, n int, two bool, circuit l7.Circuit) (refused, served int32) {
	t.Helper()
	address := free(t)
	let := make(chan struct{})
	var inside, no, yes atomic.Int32
	cfg := one(address, server2(t, func(w http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		<-let
	}))
	if two {
		cfg.Clusters[0].Protocol = l7.HTTP2
	}
	cfg.Clusters[0].Circuit = circuit
	start(t, cfg)
	c := client(t, false)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			switch status, _, _ := get(t, c, "http://"+address+"/"); status {
			case 503:
				no.Add(1)
			case 200:
				yes.Add(1)
			default:
				t.Errorf("status %d", status)
			}
		})
	}
	eventually(t, "all are inside or refused", func() bool { return inside.Load()+no.Load() == int32(n) })
	close(let)
	wg.Wait()
	if status, _, _ := get(t, c, "http://"+address+"/"); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
	return no.Load(), yes.Load()
}

func TestCircuits(t *testing.T) {
	for _, c := range []struct {
		name    string
		two     bool
		circuit l7.Circuit
		refused int32
	}{
		{"requests", false, l7.Circuit{Requests: 3}, 7},
		{"connections", false, l7.Circuit{Connections: 4}, 6},
		{"requests over HTTP/2", true, l7.Circuit{Requests: 3}, 7},
		{"connections over HTTP/2", true, l7.Circuit{Connections: 1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if no, yes := overflow(t, 10, c.two, c.circuit); no != c.refused || yes != 10-c.refused {
				t.Errorf("%d refused, %d served", no, yes)
			}
		})
	}
}

// TestPendingCircuit: the endpoint accepts and does not finish TLS, so requests
// wait for connections.
func TestPendingCircuit(t *testing.T) {
	address := free(t)
	silent, connections := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	cfg := one(address, silent)
	cfg.Clusters[0].TLS = &l7.ClientTLS{Insecure: true}
	cfg.Clusters[0].Circuit.Pending = 2
	cfg.Clusters[0].Connect = l7.Duration(time.Second)
	p := start(t, cfg)
	c := client(t, false)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { get(t, c, "http://"+address+"/") })
	}
	eventually(t, "two wait", func() bool { return connections.Load() == 2 })
	began := time.Now()
	if status, _, _ := get(t, c, "http://"+address+"/"); status != 503 || time.Since(began) > 800*time.Millisecond {
		t.Errorf("%d after %v", status, time.Since(began))
	}
	wg.Wait()
	if cs := p.State().Clusters[0]; cs.Pending != 0 || cs.Active != 0 || cs.Connections != 0 {
		t.Errorf("left: %+v", cs)
	}
}

// TestEjection: an endpoint that fails is left out, and comes back.
func TestEjection(t *testing.T) {
	address := free(t)
	var good, bad atomic.Int32
	var broken atomic.Bool
	broken.Store(true)
	cfg := one(address, server(t, numbered("good", &good, always(200))), server(t, numbered("bad", &bad, func(int32) int {
		if broken.Load() {
			return 500
		}
		return 200
	})))
	cfg.Clusters[0].Balancer.Kind = l7.RoundRobin
	three, half := uint32(3), uint32(50)
	cfg.Clusters[0].Outlier = &l7.Outlier{Consecutive5xx: &three, MaxEjectionPercent: &half, Interval: l7.Duration(100 * time.Millisecond),
		BaseEjection: l7.Duration(time.Second), MaxEjection: l7.Duration(time.Second)}
	start(t, cfg)
	c := client(t, false)
	for range 30 {
		get(t, c, "http://"+address+"/")
	}
	if bad.Load() > 4 {
		t.Errorf("%d requests came to the one that fails", bad.Load())
	}
	broken.Store(false)
	before := bad.Load()
	eventually(t, "it comes back", func() bool {
		get(t, c, "http://"+address+"/")
		return bad.Load() > before
	})
}

// TestChecksAndPanic: who fails his active check gets nothing, until so few are
// well that all get something.
func TestChecksAndPanic(t *testing.T) {
	address := free(t)
	var ill [3]atomic.Bool
	var came [3]atomic.Int32
	cfg := one(address)
	for i := range ill {
		cfg.Clusters[0].Endpoints = append(cfg.Clusters[0].Endpoints, l7.Endpoint{Address: server(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				if ill[i].Load() {
					w.WriteHeader(500)
				}
				return
			}
			came[i].Add(1)
		})})
	}
	cfg.Clusters[0].Check = &l7.Check{Kind: "http", Path: "/healthz", Interval: l7.Duration(30 * time.Millisecond), Timeout: l7.Duration(time.Second), Healthy: 1, Failed: 1}
	p := start(t, cfg)
	c := client(t, false)
	well := func() (n int) {
		for _, e := range p.State().Clusters[0].Endpoints {
			if e.Healthy {
				n++
			}
		}
		return n
	}
	count := func() (out [3]int32) {
		for i := range came {
			came[i].Store(0)
		}
		for range 60 {
			if status, _, _ := get(t, c, "http://"+address+"/"); status != 200 {
				t.Errorf("status %d", status)
			}
		}
		for i := range came {
			out[i] = came[i].Load()
		}
		return out
	}
	eventually(t, "all are well", func() bool { return well() == 3 })
	ill[0].Store(true)
	eventually(t, "one is not well", func() bool { return well() == 2 })
	if n := count(); n[0] != 0 || n[1] == 0 || n[2] == 0 {
		t.Errorf("one is ill: %v", n)
	}
	ill[1].Store(true)
	eventually(t, "two are not well", func() bool { return well() == 1 })
	if n := count(); n[0] == 0 || n[1] == 0 || n[2] == 0 {
		t.Errorf("panic: %v", n)
	}
}

// TestASlowEndpoint gets less by Peak EWMA than by turns.
func TestASlowEndpoint(t *testing.T) {
	share := func(kind l7.BalancerKind) int32 {
		address := free(t)
		var slow, fast atomic.Int32
		cfg := one(address, server(t, func(w http.ResponseWriter, r *http.Request) {
			slow.Add(1)
			time.Sleep(20 * time.Millisecond)
		}), server(t, numbered("b", &fast, always(200))), server(t, numbered("c", &fast, always(200))))
		cfg.Clusters[0].Balancer.Kind = kind
		start(t, cfg)
		c := client(t, false)
		for range 60 {
			get(t, c, "http://"+address+"/")
		}
		return slow.Load()
	}
	if turns, ewma := share(l7.RoundRobin), share(l7.PeakEWMA); turns != 20 || ewma > turns/2 {
		t.Errorf("of 60 requests the slow one got %d by turns, %d by Peak EWMA", turns, ewma)
	}
}

// TestOneStreamAtATime: an endpoint over HTTP/2 that takes one stream for each
// connection serves many requests at once.
func TestOneStreamAtATime(t *testing.T) {
	address := free(t)
	cfg := one(address, http2Endpoint(t, 1, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Millisecond)
		fmt.Fprint(w, r.URL.Path)
	}))
	cfg.Clusters[0].Protocol = l7.HTTP2
	start(t, cfg)
	c := client(t, false)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for k := range 5 {
				path := fmt.Sprintf("/%d/%d", i, k)
				if status, body, _ := send(t, c, "POST", "http://"+address+path, strings.Repeat("x", 100)); status != 200 || body != path {
					t.Errorf("%d %q, want %q", status, body, path)
				}
			}
		})
	}
	wg.Wait()
}

// http2Endpoint speaks HTTP/2 without TLS and takes so many streams at a time.
func http2Endpoint(t testing.TB, streams int, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams}, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
