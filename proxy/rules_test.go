package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// eachWay runs a test over HTTP/1 and over HTTP/2, on both sides.
func eachWay(t *testing.T, handler http.HandlerFunc, change func(*l7.Config), test func(t *testing.T, c *http.Client, url string)) {
	t.Helper()
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/", map[bool]int{false: 1, true: 2}[two]), func(t *testing.T) {
			address := free(t)
			cfg := one(address, server2(t, handler))
			if two {
				cfg.Clusters[0].Protocol = l7.HTTP2
			}
			change(cfg)
			start(t, cfg)
			test(t, client(t, two), "http://"+address)
		})
	}
}

func TestFiltersThroughTheProxy(t *testing.T) {
	prefix := "/new"
	eachWay(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Gone", "1")
		w.Header().Set("X-Path", r.URL.RequestURI())
		w.Header().Set("X-Host", r.Host)
		for _, k := range []string{"X-Set", "X-Added", "X-Removed", "X-Moire-Secret", "X-Forwarded-For", "X-Forwarded-Proto"} {
			w.Header().Set("Saw-"+k, strings.Join(r.Header.Values(k), "|"))
		}
	}, func(cfg *l7.Config) {
		cfg.Routes[0].Rules = []l7.Rule{
			{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/old"}}}, Backends: []l7.Backend{{Cluster: "c"}},
				Filters: []l7.Filter{
					{RequestHeaders: &l7.HeaderChange{Set: []l7.Header{{Name: "X-Set", Value: "s"}}, Add: []l7.Header{{Name: "X-Added", Value: "a"}}, Remove: []string{"X-Removed"}}},
					{ResponseHeaders: &l7.HeaderChange{Set: []l7.Header{{Name: "X-Answer", Value: "yes"}}, Remove: []string{"X-Gone"}}},
					{Rewrite: &l7.Rewrite{Hostname: "inside.example", Path: &l7.PathChange{Prefix: &prefix}}}}},
			{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/moved"}}},
				Filters: []l7.Filter{{Redirect: &l7.Redirect{Scheme: "https", Hostname: "other.example", Path: &l7.PathChange{Prefix: &prefix}, Status: 301}}}},
			{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/nobody"}}}},
		}
	}, func(t *testing.T, c *http.Client, url string) {
		status, _, h := send(t, c, "GET", url+"/old/x?q=1", "", "Host", "shop.example", "X-Set", "old", "X-Added", "old", "X-Removed", "1", "X-Moire-Secret", "1", "X-Forwarded-For", "9.9.9.9")
		want := map[string]string{"X-Path": "/new/x?q=1", "X-Host": "inside.example", "X-Answer": "yes", "X-Gone": "", "Saw-X-Set": "s", "Saw-X-Added": "old|a",
			"Saw-X-Removed": "", "Saw-X-Moire-Secret": "", "Saw-X-Forwarded-For": "127.0.0.1", "Saw-X-Forwarded-Proto": "http"}
		for k, v := range want {
			if h.Get(k) != v {
				t.Errorf("%d: %s is %q, want %q", status, k, h.Get(k), v)
			}
		}
		if status, _, h := send(t, c, "GET", url+"/moved/a?b=c", "", "Host", "shop.example"); status != 301 || h.Get("Location") != "https://other.example/new/a?b=c" {
			t.Errorf("redirect: %d %q", status, h.Get("Location"))
		}
		if status, _, _ := get(t, c, url+"/nobody"); status != 500 {
			t.Errorf("a rule without backends: %d", status)
		}
		if status, _, _ := get(t, c, url+"/elsewhere"); status != 404 {
			t.Errorf("no route: %d", status)
		}
	})
}

func TestCORSThroughTheProxy(t *testing.T) {
	var asked atomic.Int32
	eachWay(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }, func(cfg *l7.Config) {
		onlyRule(cfg).Filters = []l7.Filter{{CORS: &l7.CORS{AllowOrigins: []string{"https://shop.example"}, AllowMethods: []string{"PUT"}, AllowCredentials: true}}}
	}, func(t *testing.T, c *http.Client, url string) {
		asked.Store(0)
		status, _, h := send(t, c, "OPTIONS", url+"/", "", "Origin", "https://shop.example", "Access-Control-Request-Method", "PUT")
		if status/100 != 2 || h.Get("Access-Control-Allow-Origin") != "https://shop.example" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") || asked.Load() != 0 {
			t.Errorf("preflight: %d %v, %d came", status, h, asked.Load())
		}
		if _, _, h := send(t, c, "PUT", url+"/", "x", "Origin", "https://shop.example"); h.Get("Access-Control-Allow-Origin") != "https://shop.example" || h.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("%v", h)
		}
		if _, _, h := send(t, c, "PUT", url+"/", "x", "Origin", "https://evil.example"); h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("a stranger is allowed: %v", h)
		}
	})
}

func TestFaults(t *testing.T) {
	var asked atomic.Int32
	eachWay(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }, func(cfg *l7.Config) {
		onlyRule(cfg).Fault = &l7.Fault{Abort: 418, AbortPercent: 100, AbortGRPC: 7, Headers: []l7.ValueMatch{{Name: "x-fault", Value: "abort"}}}
		slow := l7.Rule{Name: "slow", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/slow"}}}, Backends: []l7.Backend{{Cluster: "c"}},
			Fault: &l7.Fault{Delay: l7.Duration(100 * time.Millisecond), DelayPercent: 100}}
		cfg.Routes[0].Rules = append(cfg.Routes[0].Rules, slow)
	}, func(t *testing.T, c *http.Client, url string) {
		asked.Store(0)
		if status, _, _ := send(t, c, "GET", url+"/", "", "X-Fault", "abort"); status != 418 || asked.Load() != 0 {
			t.Errorf("abort: %d, %d came", status, asked.Load())
		}
		began := time.Now()
		if status, _, _ := get(t, c, url+"/slow"); status != 200 || time.Since(began) < 100*time.Millisecond || asked.Load() != 1 {
			t.Errorf("delay: %d after %v", status, time.Since(began))
		}
		if status, _, _ := get(t, c, url+"/"); status != 200 {
			t.Errorf("without the header: %d", status)
		}
		if !strings.HasPrefix(t.Name(), "TestFaults/HTTP/2") {
			return
		}
		if status, h, _ := grpcCall(t, c, strings.TrimPrefix(url, "http://"), "X-Fault", "abort"); status != 200 || h.Get("Grpc-Status") != "7" {
			t.Errorf("gRPC abort: %d %v", status, h)
		}
	})
}

func TestRateLimits(t *testing.T) {
	eachWay(t, func(w http.ResponseWriter, r *http.Request) {}, func(cfg *l7.Config) {
		onlyRule(cfg).RateLimits = []l7.RateLimit{{Requests: 2, Per: l7.Duration(time.Hour), By: "header:x-key"}}
		all := l7.Rule{Name: "all", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/all"}}}, Backends: []l7.Backend{{Cluster: "c"}},
			RateLimits: []l7.RateLimit{{Requests: 1, Per: l7.Duration(time.Minute), By: "address"}}}
		cfg.Routes[0].Rules = append(cfg.Routes[0].Rules, all)
	}, func(t *testing.T, c *http.Client, url string) {
		for i, want := range []int{200, 200, 429, 429} {
			status, _, h := send(t, c, "GET", url+"/", "", "X-Key", "a")
			if status != want || status == 429 && h.Get("Retry-After") == "" {
				t.Errorf("request %d: %d %v", i, status, h)
			}
		}
		if status, _, _ := send(t, c, "GET", url+"/", "", "X-Key", "b"); status != 200 {
			t.Errorf("another caller: %d", status)
		}
		get(t, c, url+"/all")
		if status, _, _ := get(t, c, url+"/all"); status != 429 {
			t.Errorf("by address: %d", status)
		}
		if strings.HasPrefix(t.Name(), "TestRateLimits/HTTP/2") {
			status, h, _ := grpcCall(t, c, strings.TrimPrefix(url, "http://"), "X-Key", "a")
			if status != 200 || h.Get("Grpc-Status") != "8" || h.Get("Content-Type") != "application/grpc" {
				t.Errorf("gRPC: %d %v", status, h)
			}
		}
	})
}

// TestLocalAnswersToCalls: what the proxy answers a gRPC call itself is HTTP 200
// and a grpc-status.
func TestLocalAnswersToCalls(t *testing.T) {
	address := free(t)
	cfg := one(address, refused(t))
	cfg.Clusters[0].Protocol = l7.HTTP2
	cfg.Routes[0].Hostnames = []string{"here.example"}
	start(t, cfg)
	c := client(t, true)
	if status, h, _ := grpcCall(t, c, address); status != 200 || h.Get("Grpc-Status") != "12" {
		t.Errorf("no route: %d %v", status, h)
	}
	req, _ := http.NewRequest("POST", "http://"+address+"/a.B/C", strings.NewReader("\x00\x00\x00\x00\x00"))
	req.Host = "here.example"
	req.Header.Set("Content-Type", "application/grpc+proto")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "14" || resp.Header.Get("Grpc-Message") == "" {
		t.Errorf("nobody there: %d %v", resp.StatusCode, resp.Header)
	}
}

func TestWeightsAndHosts(t *testing.T) {
	address := free(t)
	var came [12]atomic.Int32
	cfg := one(address)
	cfg.Routes = nil
	for i := range came {
		name := itoa(i)
		cfg.Clusters = append(cfg.Clusters, l7.Cluster{Name: name, Endpoints: []l7.Endpoint{{Address: server(t, numbered(name, &came[i], always(200)))}}})
		cfg.Routes = append(cfg.Routes, l7.Route{Name: name, Hostnames: []string{name + ".example"}, Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: name}}}}})
	}
	cfg.Clusters = cfg.Clusters[1:]
	none, three := uint32(0), uint32(3)
	cfg.Routes = append(cfg.Routes, l7.Route{Name: "split", Hostnames: []string{"split.example"}, Rules: []l7.Rule{{Backends: []l7.Backend{
		{Cluster: "10", Weight: &three}, {Cluster: "11"}, {Cluster: "9", Weight: &none}}}}})
	start(t, cfg)
	c := client(t, false)
	for i := range 10 {
		status, body, _ := send(t, c, "GET", "http://"+address+"/", "", "Host", itoa(i)+".example")
		if status != 200 || !strings.HasPrefix(body, itoa(i)+" ") {
			t.Errorf("host %d: %d %q", i, status, body)
		}
	}
	came[9].Store(0)
	for range 400 {
		send(t, c, "GET", "http://"+address+"/", "", "Host", "split.example")
	}
	if a, b := came[10].Load(), came[11].Load(); a+b != 400 || a < 240 || a > 360 || came[9].Load() != 0 {
		t.Errorf("3 to 1 to 0 became %d, %d, %d", a, b, came[9].Load())
	}
}

// TestMirror: copies arrive whole, and what becomes of them changes nothing.
func TestMirror(t *testing.T) {
	var copies, whole atomic.Int32
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	eachWay(t, echo, func(cfg *l7.Config) {
		copies.Store(0)
		whole.Store(0)
		hold := make(chan struct{})
		t.Cleanup(func() { close(hold) })
		good := server(t, func(w http.ResponseWriter, r *http.Request) {
			copies.Add(1)
			if b, err := io.ReadAll(r.Body); err == nil && bytes.Equal(b, big[:len(b)]) && r.Header.Get("X-Own") == "1" {
				whole.Add(1)
			}
		})
		silent, _ := endpoint1(t, func(_ int, c net.Conn, r *bufio.Reader) { <-hold })
		for name, a := range map[string]string{"good": good, "silent": silent, "refused": refused(t)} {
			cfg.Clusters = append(cfg.Clusters, l7.Cluster{Name: name, Endpoints: []l7.Endpoint{{Address: a}}})
			onlyRule(cfg).Filters = append(onlyRule(cfg).Filters, l7.Filter{Mirror: &l7.Mirror{Cluster: name}})
		}
		half := l7.Rule{Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/half"}}}, Backends: []l7.Backend{{Cluster: "c"}},
			Filters: []l7.Filter{{Mirror: &l7.Mirror{Cluster: "good", Fraction: &l7.Fraction{Numerator: 1, Denominator: 2}}}}}
		cfg.Routes[0].Rules = append(cfg.Routes[0].Rules, half)
	}, func(t *testing.T, c *http.Client, url string) {
		for i, size := range []int{0, 10, 50_000, len(big)} {
			status, body, _ := send(t, c, "POST", url+"/", string(big[:size]), "X-Own", "1")
			if status != 200 || body != string(big[:size]) {
				t.Fatalf("%d bytes: %d, %d came back", size, status, len(body))
			}
			if size < 1<<20 { // a larger body is copied as far as the copy keeps up
				eventually(t, "the copy comes whole", func() bool { return whole.Load() == int32(i+1) })
			}
		}
		eventually(t, "the last copy comes", func() bool { return copies.Load() == 4 })
		for range 100 {
			get(t, c, url+"/half")
		}
		eventually(t, "about half is copied", func() bool { n := copies.Load() - 4; return n > 25 && n < 75 })
	})
}

// TestTunnelsAreNotCopied: an Upgrade is for one endpoint.
func TestTunnelsAreNotCopied(t *testing.T) {
	var copies atomic.Int32
	other := server(t, numbered("copy", &copies, always(200)))
	address := free(t)
	cfg := one(address, echoUpgrade(t))
	cfg.Clusters = append(cfg.Clusters, l7.Cluster{Name: "other", Endpoints: []l7.Endpoint{{Address: other}}})
	onlyRule(cfg).Filters = []l7.Filter{{Mirror: &l7.Mirror{Cluster: "other"}}}
	start(t, cfg)
	tunnel1(t, address, upgrade1, "HTTP/1.1 101 ")
	time.Sleep(50 * time.Millisecond)
	if n := copies.Load(); n > 0 {
		t.Errorf("%d copies came", n)
	}
}
