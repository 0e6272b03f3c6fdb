package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"moire.dev/moire/snapshot/l7"
)

// The upstream and the load makers without a proxy between them: what one says
// the other understands, and figures are what they should be.
func TestUpstreamAndLoad(t *testing.T) {
	go serve(loopback)
	for tries := 0; !taken(upstreamSlow) && tries < 200; tries++ {
		time.Sleep(10 * time.Millisecond)
	}
	up := &instance{port: ports{HTTP1: upstreamHTTP1, HTTP2: upstreamHTTP2, Both2: upstreamHTTP2, GRPC: upstreamGRPC, Even: upstreamSlow}}
	for _, p := range []probe{
		{name: "HTTP/1.1", port: plain, proto: "HTTP/1.1"},
		{name: "HTTP/2", port: func(p ports) int { return p.HTTP2 }, proto: "HTTP/2.0"},
		{name: "gRPC", port: func(p ports) int { return p.GRPC }, proto: "HTTP/2.0", grpc: true},
		{name: "late", port: func(p ports) int { return p.Even }, proto: "HTTP/1.1"},
	} {
		if err := p.ask(context.Background(), up); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
	j := &job{addr: address(upstreamHTTP1), conns: 8, size: 16 << 10, hosts: 2, paths: 2, warm: 20 * time.Millisecond, span: 200 * time.Millisecond, upstream: os.Getpid()}
	r, err := loadHTTP1(j)
	if err != nil || r.Requests == 0 || r.P50 <= 0 || r.P999 < r.P99 || r.P99 < r.P50 {
		t.Errorf("at will: %+v, %v", r, err)
	}
	// 100 requests a second that take 50 ms each.
	j.addr, j.size, j.rate, j.span = address(upstreamSlow), 128, 100, time.Second
	r, err = loadHTTP1(j)
	if err != nil || r.Requests < 50 || r.Requests > 150 || r.P50 < slowAnswer || r.Slow < 0.9 {
		t.Errorf("at a rate: %+v, %v", r, err)
	}
	// One connection answers 20 times a second: the others wait, and that counts.
	j.conns = 1
	r, err = loadHTTP1(j)
	if err != nil || r.P99 < 5*slowAnswer {
		t.Errorf("more than it takes: %+v, %v", r, err)
	}
}

func TestHTTP1InPieces(t *testing.T) {
	whole := []byte("POST /p1/128 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
	for i := range whole {
		if used, _, _, err := (&http1{}).take(whole[:i]); used != 0 || err != nil {
			t.Fatalf("after %d bytes it has used %d, %v", i, used, err)
		}
	}
	used, answer, _, err := (&http1{}).take(append(whole, "GET "...))
	if used != len(whole) || !bytes.HasSuffix(answer, bytes.Repeat([]byte("x"), 128)) || err != nil {
		t.Errorf("used %d of %d, %v", used, len(whole), err)
	}
	if _, _, _, err := (&http1{}).take([]byte("GET /p1/7 HTTP/1.1\r\n\r\n")); err == nil {
		t.Error("a size that there is not is answered")
	}
}

// Every template makes something for both sides of the comparison; ours is what
// moire-proxy reads.
func TestTemplates(t *testing.T) {
	b := &bench{certs: t.TempDir()}
	if err := makeCertificates(b.certs); err != nil {
		t.Fatal(err)
	}
	for _, v := range []variant{everything, nothing} {
		for name, k := range kinds {
			file := filepath.Join(t.TempDir(), k.template)
			p := portsFrom(firstPort)
			if err := b.render(file, k.template, v, p, p.MTLS); err != nil {
				t.Fatal(err)
			}
			made, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(file) != ".yaml" {
				continue
			}
			var any map[string]any
			if err := yaml.UnmarshalStrict(made, &any); err != nil {
				t.Errorf("%s, %s: %v", name, v.name, err)
			}
			if name != "moire" {
				continue
			}
			var cfg l7.Config
			if err := yaml.UnmarshalStrict(made, &cfg); err != nil {
				t.Errorf("ours, %s: %v", v.name, err)
			}
			if want := map[string]int{"on": 4 + 4*100, "off": 4 + 4}[v.name]; len(cfg.Routes) != want || len(cfg.Listeners) != len(p.listens()) {
				t.Errorf("ours, %s: %d routes, not %d; %d listeners, not %d", v.name, len(cfg.Routes), want, len(cfg.Listeners), len(p.listens()))
			}
		}
	}
}

func TestReached(t *testing.T) {
	for _, c := range []struct {
		name   string
		ratios map[string]float64
		want   string
	}{
		{"all", map[string]float64{"nginx": 1.6, "envoy": 3}, "yes"},
		{"one too few", map[string]float64{"nginx": 1.4, "envoy": 3}, "no"},
		{"one not measured", map[string]float64{"nginx": 1.6}, "-"},
		{"one not measured, one too few", map[string]float64{"envoy": 1}, "no"},
	} {
		if got := reached(c.ratios, map[string]float64{"nginx": 1.5, "envoy": 3}); got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
}
