package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// work is one line of the tables of speed.
type work struct {
	name  string
	port  func(ports) int
	conns int
	// active is how many of the connections have a request at a time; 0: all.
	active int
	size   int
	// how: http1 (also over TCP), tls, h2, h2 over TLS or gRPC.
	how    string
	mutual bool
	// without names proxies that cannot do it.
	without []string
	// target: P1, P3 or nothing.
	target string
	quick  bool // part of the quick run
}

var (
	plain   = func(p ports) int { return p.HTTP1 }
	secure  = func(p ports) int { return p.TLS }
	mutual  = func(p ports) int { return p.MTLS }
	through = func(p ports) int { return p.TCP }
)

var works = []work{
	{name: "HTTP/1.1, 128 B, 10 connections", port: plain, conns: 10, size: 128, how: "http1"},
	{name: "HTTP/1.1, 128 B, 64 connections", port: plain, conns: 64, size: 128, how: "http1", target: "P1", quick: true},
	{name: "HTTP/1.1, 128 B, 1,000 connections", port: plain, conns: 1000, size: 128, how: "http1"},
	{name: "HTTP/1.1, 128 B, 10,000 connections, 1,000 at a time", port: plain, conns: 10000, active: 1000, size: 128, how: "http1"},
	{name: "HTTP/1.1, 16 KiB, 64 connections", port: plain, conns: 64, size: 16 << 10, how: "http1", quick: true},
	{name: "HTTP/1.1, 1 MiB, 10 connections", port: plain, conns: 10, size: 1 << 20, how: "http1"},
	{name: "TLS 1.3, HTTP/1.1, 128 B, 64 connections", port: secure, conns: 64, size: 128, how: "tls", quick: true},
	{name: "TLS 1.3, HTTP/1.1, 16 KiB, 64 connections", port: secure, conns: 64, size: 16 << 10, how: "tls"},
	{name: "TLS 1.3, HTTP/1.1, 1 MiB, 10 connections", port: secure, conns: 10, size: 1 << 20, how: "tls"},
	{name: "mutual TLS 1.3, HTTP/1.1, 128 B, 64 connections", port: mutual, conns: 64, size: 128, how: "tls", mutual: true},
	{name: "HTTP/2 to HTTP/1.1, 128 B, 10 × 100 streams", port: func(p ports) int { return p.HTTP2 }, conns: 10, size: 128, how: "h2", target: "P3", quick: true},
	{name: "HTTP/2 to HTTP/1.1, 16 KiB, 10 × 100 streams", port: func(p ports) int { return p.HTTP2 }, conns: 10, size: 16 << 10, how: "h2"},
	{name: "HTTP/2 over TLS to HTTP/1.1, 128 B, 10 × 100 streams", port: secure, conns: 10, size: 128, how: "h2s"},
	{name: "HTTP/2 to HTTP/2, 128 B, 10 × 100 streams", port: func(p ports) int { return p.Both2 }, conns: 10, size: 128, how: "h2", without: []string{"nginx"}, target: "P3"},
	{name: "gRPC unary, 128 B both ways, 10 × 100 streams", port: func(p ports) int { return p.GRPC }, conns: 10, size: 128, how: "grpc", target: "P3", quick: true},
	{name: "TCP, HTTP/1.1 in it, 128 B, 64 connections", port: through, conns: 64, size: 128, how: "http1", without: []string{"caddy"}, quick: true},
	{name: "TCP, HTTP/1.1 in it, 1 MiB, 10 connections", port: through, conns: 10, size: 1 << 20, how: "http1", without: []string{"caddy"}},
}

// job of a work against a running proxy.
func (b *bench) job(in *instance, kind string, port, conns, size int) *job {
	return &job{kind: kind, addr: address(port), conns: conns, size: size, hosts: max(1, in.of.Hosts), paths: max(1, in.of.Paths),
		dir: b.certs, warm: b.warm, span: b.span, watch: in.pids, upstream: in.up}
}

func (b *bench) do(ctx context.Context, in *instance, w work) (result, error) {
	j := b.job(in, w.how, w.port(in.port), w.conns, w.size)
	j.mutual, j.active = w.mutual, w.active
	if w.conns > 1000 {
		j.warm += 2 * time.Second
	}
	switch w.how {
	case "h2", "h2s", "grpc":
		j.paths = min(j.paths, 10)
		// Once to warm up (connections to the upstream stay) and to know how many
		// requests take as long as the span.
		n := 10 * w.conns * streams / 2
		secure, grpc := w.how == "h2s", w.how == "grpc"
		r, err := h2load(ctx, j, n, secure, grpc)
		if err != nil {
			return r, err
		}
		return h2load(ctx, j, max(n, int(float64(r.Requests)/r.Seconds*j.span.Seconds())), secure, grpc)
	}
	return load(ctx, j)
}

// launchAll starts every proxy; who does not start is nil.
func (b *bench) launchAll(ctx context.Context, v variant) (all []*instance, stop func()) {
	for _, name := range b.proxies {
		in, err := b.launch(ctx, name, v, 0)
		if err != nil {
			b.fail(v.name, name, err)
		}
		all = append(all, in)
	}
	return all, func() {
		for _, in := range all {
			if in != nil {
				in.stop()
			}
		}
	}
}

// subjects makes one of each proxy that runs.
func (b *bench) subjects(all []*instance, without []string, run func(ctx context.Context, in *instance) (result, error)) []subject {
	var subjects []subject
	for i, in := range all {
		s := subject{name: b.proxies[i]}
		if in != nil && !slices.Contains(without, s.name) {
			s.run = func(ctx context.Context) (result, error) { return run(ctx, in) }
		}
		subjects = append(subjects, s)
	}
	return subjects
}

// speed is requests per second of the proxy's CPU, with everything on or off.
func (b *bench) speed(ctx context.Context, v variant) error {
	all, stop := b.launchAll(ctx, v)
	defer stop()
	b.compareHead("requests per proxy-CPU-second, thousands")
	for _, w := range works {
		if b.quick && !w.quick || !strings.Contains(w.name, b.work) {
			continue
		}
		out, err := b.interleave(ctx, v.name+": "+w.name, b.subjects(all, w.without, func(ctx context.Context, in *instance) (result, error) {
			return b.do(ctx, in, w)
		}))
		if err != nil {
			return err
		}
		b.compareLine(w.name, out, result.perCPU, "%.1f", 1e-3, b.wanted(w.target, v, out))
	}
	fmt.Printf("\n%s\n", markMeans)
	return nil
}

// wanted is how many times each peer a target asks for.
func (b *bench) wanted(target string, v variant, out []outcome) map[string]float64 {
	switch {
	case target == "P1" && v.name == everything.name:
		return map[string]float64{"nginx": 1.5, "haproxy": 1.5, "envoy": 3}
	case target == "P1":
		return map[string]float64{"nginx": 1.8, "haproxy": 1.8, "envoy": 1.8}
	case target == "P3":
		return b.ofEach(1.3, out)
	}
	return nil
}

// ofEach peer that can do it, the same.
func (b *bench) ofEach(times float64, out []outcome) map[string]float64 {
	all := map[string]float64{}
	for i, name := range b.proxies {
		if name != "moire" && !out[i].absent {
			all[name] = times
		}
	}
	return all
}

// compareHead begins a table with a column for each proxy, and, if we are among
// them, one for each ratio of ours to a peer.
func (b *bench) compareHead(unit string) {
	head, line := "| "+unit, "|---"
	for _, name := range b.proxies {
		head, line = head+" | "+name, line+"|---"
	}
	if slices.Contains(b.proxies, "moire") {
		for _, name := range b.proxies {
			if name != "moire" {
				head, line = head+" | to "+name, line+"|---"
			}
		}
		head, line = head+" | wanted | reached", line+"|---|---"
	}
	fmt.Println(head + " |")
	fmt.Println(line + "|")
}

func (b *bench) compareLine(name string, out []outcome, of func(result) float64, format string, scale float64, wanted map[string]float64) {
	cells := []string{name}
	for _, o := range out {
		cells = append(cells, o.cell(format, o.median(of)*scale))
	}
	if us := slices.Index(b.proxies, "moire"); us >= 0 {
		ratios := map[string]float64{}
		for i, name := range b.proxies {
			if i != us {
				ratios[name] = out[us].ratio(out[i], of)
				cells = append(cells, times(ratios[name]))
			}
		}
		cells = append(cells, b.wish(wanted), reached(ratios, wanted))
	}
	fmt.Printf("| %s |\n", strings.Join(cells, " | "))
}

// wish shows what is wanted in the order of the columns.
func (b *bench) wish(wanted map[string]float64) string {
	var all []string
	low, high := math.Inf(1), 0.0
	for _, name := range b.proxies {
		if w, ok := wanted[name]; ok {
			all = append(all, fmt.Sprintf("%g", w))
			low, high = min(low, w), max(high, w)
		}
	}
	if low == high {
		return all[0]
	}
	return strings.Join(all, ", ")
}
