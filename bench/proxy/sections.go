package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// rates of the section on latency, requests per second.
var rates = []float64{2000, 5000}

// latency that each proxy adds at a fixed rate, against none at all.
func (b *bench) latency(ctx context.Context) error {
	all, stop := b.launchAll(ctx, everything)
	defer stop()
	fmt.Println("| requests per second | proxy | p50 | p99 | p99.9 | proxy's core | lowest p99 |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, rate := range rates {
		if b.quick && rate != rates[1] {
			continue
		}
		at := func(j *job) *job {
			j.rate, j.span = rate, 2*b.span
			return j
		}
		subjects := append(b.subjects(all, nil, func(ctx context.Context, in *instance) (result, error) {
			return load(ctx, at(b.job(in, "http1", in.port.HTTP1, 64, 128)))
		}), subject{"none", func(ctx context.Context) (result, error) {
			return load(ctx, at(&job{kind: "http1", addr: address(upstreamHTTP1), conns: 64, size: 128, hosts: 10, paths: 10,
				dir: b.certs, warm: b.warm, upstream: b.upstream.cmd.Process.Pid}))
		}})
		out, err := b.interleave(ctx, fmt.Sprintf("latency at %g/s", rate), subjects)
		if err != nil {
			return err
		}
		b.latencyLines(rate, subjects, out)
	}
	fmt.Printf("\n%s\n", markMeans)
	return nil
}

func (b *bench) latencyLines(rate float64, subjects []subject, out []outcome) {
	none := out[len(out)-1]
	added := func(o outcome, of func(result) time.Duration) float64 {
		var all []float64
		for i := range min(len(o.rounds), len(none.rounds)) {
			all = append(all, float64(of(o.rounds[i])-of(none.rounds[i]))/1e3)
		}
		return median(all)
	}
	p99 := func(r result) time.Duration { return r.P99 }
	lowest := math.Inf(1)
	for _, o := range out[:len(out)-1] {
		if o.ok() {
			lowest = min(lowest, added(o, p99))
		}
	}
	for i, o := range out[:len(out)-1] {
		if !o.ok() {
			fmt.Printf("| %g | %s | fails | | | | |\n", rate, subjects[i].name)
			continue
		}
		best := ""
		if added(o, p99) == lowest {
			best = "yes"
		}
		fmt.Printf("| %g | %s | %s | %s | %s | %.0f %% | %s |\n", rate, subjects[i].name,
			o.cell("%.0f µs", added(o, func(r result) time.Duration { return r.P50 })), o.cell("%.0f µs", added(o, p99)),
			o.cell("%.0f µs", added(o, func(r result) time.Duration { return r.P999 })),
			100*o.median(func(r result) float64 { return r.Proxy / r.Seconds }), best)
	}
	us := func(of func(result) time.Duration) float64 {
		return none.median(func(r result) float64 { return float64(of(r)) / 1e3 })
	}
	fmt.Printf("| %g | none (not added: all of it) | %.0f µs | %.0f µs | %.0f µs | | |\n", rate,
		us(func(r result) time.Duration { return r.P50 }), us(p99), us(func(r result) time.Duration { return r.P999 }))
}

// memory of a fresh proxy, idle and with idle connections that had one request.
func (b *bench) memory(ctx context.Context) error {
	fmt.Println("| proxy | idle | per connection of 1,000 | per connection of 10,000 | wanted | reached |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, name := range b.proxies {
		cells := []string{name}
		var worst, idle float64
		for i, conns := range []int{1000, 10000} {
			if b.quick && i > 0 {
				cells = append(cells, "")
				break
			}
			r, err := b.memoryOf(ctx, name, conns)
			if err != nil {
				b.fail("memory", name, err)
				cells = append(cells, "fails")
				continue
			}
			if i == 0 {
				idle = r.Idle / 1e6
				cells = append(cells, fmt.Sprintf("%.1f MB", idle))
			}
			worst = max(worst, r.PerConn/1024)
			cells = append(cells, fmt.Sprintf("%.1f KiB", r.PerConn/1024))
		}
		if name == "moire" {
			cells = append(cells, "15 MB, 4 KiB", map[bool]string{true: "yes", false: "no"}[idle <= 15 && worst <= 4])
		} else {
			cells = append(cells, "", "")
		}
		fmt.Printf("| %s |\n", strings.Join(cells, " | "))
	}
	return nil
}

func (b *bench) memoryOf(ctx context.Context, name string, conns int) (result, error) {
	in, err := b.launch(ctx, name, everything, 0)
	if err != nil {
		return result{}, err
	}
	defer in.stop()
	settle(ctx)
	r := result{Idle: resident(in.pids)}
	// The first requests take what is no connection's: code, logs, what is remembered.
	if _, err := load(ctx, b.job(in, "http1", in.port.HTTP1, 10, 128)); err != nil {
		return r, err
	}
	settle(ctx)
	before := resident(in.pids)
	release, err := holding(ctx, b.job(in, "hold", in.port.HTTP1, conns, 128))
	if err != nil {
		return r, err
	}
	defer release()
	settle(ctx)
	r.PerConn = (resident(in.pids) - before) / float64(conns)
	return r, nil
}

// settle waits until what a beginning or a burst needed is given back.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(12 * time.Second):
	}
}

// handshakes per second of the proxy's CPU, mutual TLS 1.3 with ECDSA P-256.
func (b *bench) handshakes(ctx context.Context) error {
	all, stop := b.launchAll(ctx, everything)
	defer stop()
	b.compareHead("handshakes per proxy-CPU-second, one redirect each")
	for _, resume := range []bool{false, true} {
		what := map[bool]string{false: "mutual TLS 1.3, full", true: "mutual TLS 1.3, resumed"}[resume]
		out, err := b.interleave(ctx, what, b.subjects(all, nil, func(ctx context.Context, in *instance) (result, error) {
			j := b.job(in, "handshake", in.port.Shake, 16, 0)
			j.mutual, j.resume = true, resume
			j.warm = max(j.warm, time.Second) // the first of each caller are full
			r, err := load(ctx, j)
			if share := float64(r.Resumed) / float64(r.Requests); err == nil && (share > 0.8) != resume {
				err = fmt.Errorf("%.0f %% of sessions are resumed", 100*share)
			}
			return r, err
		}))
		if err != nil {
			return err
		}
		wanted := b.ofEach(1, out)
		delete(wanted, "envoy") // the target is about OpenSSL
		b.compareLine(what, out, result.perCPU, "%.0f", 1, wanted)
	}
	return nil
}

// mesh: two proxies of each kind, between them mutual TLS 1.3.
func (b *bench) mesh(ctx context.Context) error {
	var subjects []subject
	for _, name := range b.proxies {
		far, err := b.launch(ctx, name, everything, 0)
		if err == nil {
			defer far.stop()
			var near *instance
			if near, err = b.launch(ctx, name, everything, far.port.MTLS); err == nil {
				defer near.stop()
				subjects = append(subjects, subject{name, func(ctx context.Context) (result, error) {
					j := b.job(near, "http1", near.port.Mesh, 64, 128)
					j.watch = append(slices.Clone(near.pids), far.pids...)
					return load(ctx, j)
				}})
				continue
			}
		}
		b.fail("mesh", name, err)
		subjects = append(subjects, subject{name: name})
	}
	b.compareHead("requests per CPU-second of both proxies, thousands")
	out, err := b.interleave(ctx, "mesh", subjects)
	if err != nil {
		return err
	}
	b.compareLine("HTTP/1.1, mutual TLS 1.3 between two proxies, HTTP/1.1; 128 B, 64 connections", out, result.perCPU, "%.1f", 1e-3, map[string]float64{"envoy": 2})
	fmt.Printf("\n%s\n", markMeans)
	return nil
}

// balancers: one of three endpoints is slow.
func (b *bench) balancers(ctx context.Context) error {
	all, stop := b.launchAll(ctx, nothing)
	defer stop()
	names := map[string][2]string{"moire": {"RoundRobin", "PeakEWMA"}, "nginx": {"round robin", "least_conn"},
		"haproxy": {"roundrobin", "leastconn"}, "envoy": {"ROUND_ROBIN", "LEAST_REQUEST"}}
	var subjects []subject
	for i, in := range all {
		for k, balancer := range names[b.proxies[i]] {
			s := subject{name: b.proxies[i] + " | " + balancer}
			if in != nil {
				s.run = func(ctx context.Context) (result, error) {
					j := b.job(in, "http1", []int{in.port.Even, in.port.Clever}[k], 256, 128)
					j.rate, j.warm, j.span = 1000, j.warm+time.Second, 2*b.span
					return load(ctx, j)
				}
			}
			subjects = append(subjects, s)
		}
	}
	out, err := b.interleave(ctx, "one slow endpoint", subjects)
	if err != nil {
		return err
	}
	fmt.Println("| proxy | balancer | p50 | p99 | p99.9 | to the slow one |")
	fmt.Println("|---|---|---|---|---|---|")
	for i, o := range out {
		ms := func(of func(result) time.Duration) string {
			return o.cell("%.1f ms", o.median(func(r result) float64 { return float64(of(r)) / 1e6 }))
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", subjects[i].name, ms(func(r result) time.Duration { return r.P50 }),
			ms(func(r result) time.Duration { return r.P99 }), ms(func(r result) time.Duration { return r.P999 }),
			o.cell("%.1f %%", 100*o.median(func(r result) float64 { return r.Slow })))
	}
	return nil
}

// variants measures each proxy that is asked in several variants, all at once.
func (b *bench) variants(ctx context.Context, what string, names []string, all []variant) error {
	fmt.Printf("| %s | proxy | µs of CPU per request | to the first |\n|---|---|---|---|\n", what)
	for _, name := range names {
		if err := b.variantsOf(ctx, what, name, all); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) variantsOf(ctx context.Context, what, name string, all []variant) error {
	var subjects []subject
	for _, v := range all {
		s := subject{name: v.name}
		in, err := b.launch(ctx, name, v, 0)
		if err != nil {
			b.fail(what, name+" "+v.name, err)
		} else {
			defer in.stop()
			s.run = func(ctx context.Context) (result, error) {
				return load(ctx, b.job(in, "http1", in.port.HTTP1, 64, 128))
			}
		}
		subjects = append(subjects, s)
	}
	out, err := b.interleave(ctx, what+", "+name, subjects)
	if err != nil {
		return err
	}
	cost := func(r result) float64 { return 1e6 / r.perCPU() }
	for i, o := range out {
		fmt.Printf("| %s | %s | %s | %s |\n", subjects[i].name, name, o.cell("%.1f", o.median(cost)), times(o.ratio(out[0], cost)))
	}
	return nil
}

func (b *bench) routes(ctx context.Context) error {
	var all []variant
	for _, n := range []int{10, 100, 1000, 10000} {
		if b.quick && (n == 100 || n == 1000) {
			continue
		}
		v := everything
		v.name, v.Hosts, v.Paths = fmt.Sprint(n), max(1, n/100), min(n, 100)
		all = append(all, v)
	}
	return b.variants(ctx, "routes", b.proxies, all)
}

func (b *bench) telemetry(ctx context.Context) error {
	with := func(name string, change func(*variant)) variant {
		v := everything
		v.Metrics, v.Records, v.RecordsFile = false, false, false
		v.name = name
		change(&v)
		return v
	}
	return b.variants(ctx, "telemetry", []string{"moire"}, []variant{
		with("none", func(*variant) {}),
		with("metrics", func(v *variant) { v.Metrics = true }),
		with("records, in memory", func(v *variant) { v.Records = true }),
		with("records, to a file", func(v *variant) { v.Records, v.RecordsFile = true, true }),
		with("access log", func(v *variant) { v.AccessLog = true }),
		with("tracing, one in a hundred", func(v *variant) { v.Sample = 0.01 }),
		with("tracing, all", func(v *variant) { v.Sample = 1 }),
		with("all of it, tracing one in a hundred", func(v *variant) {
			v.Metrics, v.Records, v.RecordsFile, v.AccessLog, v.Sample = true, true, true, true, 0.01
		}),
	})
}

// sweep removes what the proxies of a section have written.
func (b *bench) sweep() {
	dirs, _ := filepath.Glob(filepath.Join(b.dir, "*-*-*"))
	for _, d := range dirs {
		os.RemoveAll(d)
	}
}
