package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const firstPort = 21000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/proxy:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if err := manyFiles(); err != nil {
		return err
	}
	// The first two are what it starts itself; bench/mesh uses all three.
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) > 0 && args[0] == "load":
		return loadMain(args[1:])
	case len(args) == 2 && args[0] == "certificates":
		return makeCertificates(args[1])
	}
	f := flag.NewFlagSet("proxy", flag.ContinueOnError)
	proxies := f.String("proxies", "moire nginx haproxy envoy caddy", "whom to measure; name@path is one with another binary")
	rounds := f.Int("rounds", 5, "interleaved rounds; tables show medians")
	work := f.String("work", "", "of the lines of on and off, those with this in their name")
	quick := f.Bool("quick", false, "few lines, two rounds, short spans: about three minutes")
	only := f.String("only", "", "sections, of: check on off tcp latency memory handshakes mesh balancers routes telemetry; empty: all")
	if err := f.Parse(args); err != nil {
		return err
	}
	b := &bench{proxies: strings.Fields(*proxies), rounds: *rounds, warm: 500 * time.Millisecond, span: 2 * time.Second, quick: *quick, work: *work, next: firstPort}
	if *quick {
		b.rounds, b.warm, b.span = min(2, *rounds), 200*time.Millisecond, 600*time.Millisecond
	}
	return b.all(ctx, strings.Fields(*only))
}

// section is one table.
type section struct {
	name, title string
	print       func(ctx context.Context) error
}

func (b *bench) sections() []section {
	return []section{
		{"check", "What each listener answers", b.check},
		{"on", "Requests per CPU-second: 100 routes, metrics and records on", func(ctx context.Context) error { return b.speed(ctx, everything) }},
		{"off", "Requests per CPU-second: everything off", func(ctx context.Context) error { return b.speed(ctx, nothing) }},
		{"tcp", "TCP passed through: answers of one size on kept connections", b.tcp},
		// P1b, both local hops on a sockmap, is the data path's and gets its table beside these.
		{"latency", "Latency added at a fixed rate: HTTP/1.1, 128 B, 64 connections, Poisson arrivals, from when a request was due", b.latency},
		{"memory", "Memory, with 100 routes", b.memory},
		{"handshakes", "Handshakes per CPU-second", b.handshakes},
		{"mesh", "Mesh hop", b.mesh},
		{"balancers", fmt.Sprintf("One slow endpoint of three (%v, the others %v) at 1,000 requests per second", slowAnswer, fastAnswer), b.balancers},
		{"routes", "Number of routes: HTTP/1.1, 128 B, 64 connections, all routes in turn", b.routes},
		{"telemetry", "Telemetry: HTTP/1.1, 128 B, 64 connections, 100 routes", b.telemetry},
	}
}

func (b *bench) all(ctx context.Context, only []string) (err error) {
	// The same ports and cores cannot be measured twice at a time.
	alone, err := net.Listen("unix", "@moire-bench-proxy")
	if err != nil {
		return fmt.Errorf("another run goes on: %w", err)
	}
	defer alone.Close()
	// In memory if possible: what disks do is not what is measured.
	root := "/dev/shm"
	if _, err := os.Stat(root); err != nil {
		root = ""
	}
	if b.dir, err = os.MkdirTemp(root, "moire-bench-proxy"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	b.certs = filepath.Join(b.dir, "certs")
	if err := os.Mkdir(b.certs, 0o755); err != nil {
		return err
	}
	if err := makeCertificates(b.certs); err != nil {
		return err
	}
	if slices.ContainsFunc([]int{upstreamHTTP1, upstreamHTTP2, upstreamGRPC, upstreamFast1, upstreamFast2, upstreamSlow}, taken) {
		return fmt.Errorf("somebody listens on a port from %d to %d", upstreamHTTP1, upstreamSlow)
	}
	if b.upstream, err = start(ctx, coreLoad, b.certs, "upstream", self(), "serve", loopback); err != nil {
		return err
	}
	defer b.upstream.stop()
	if err := b.upstream.listening(ctx, upstreamHTTP1, upstreamHTTP2, upstreamGRPC, upstreamFast1, upstreamFast2, upstreamSlow); err != nil {
		return err
	}
	b.preface(ctx)
	for _, s := range b.sections() {
		if len(only) > 0 && !slices.Contains(only, s.name) || s.name == "telemetry" && !slices.Contains(b.proxies, "moire") {
			continue
		}
		fmt.Printf("\n### %s\n\n", s.title)
		err := s.print(ctx)
		if b.sweep(); err != nil {
			return err
		}
	}
	if b.failures > 0 {
		return fmt.Errorf("%d failures, said above; their cells say \"fails\"", b.failures)
	}
	return nil
}

// preface says what was measured and where.
func (b *bench) preface(ctx context.Context) {
	load, _ := os.ReadFile("/proc/loadavg")
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	average, _, _ := strings.Cut(string(load), " ")
	fmt.Printf("Medians of %d interleaved rounds of %v each; Linux %s; load average before the run %s. One core for the proxy, one for load and upstream.\n",
		b.rounds, b.span, strings.TrimSpace(string(release)), average)
	if busy, err := strconv.ParseFloat(average, 64); err == nil && busy > 0.5 {
		fmt.Println("**The machine had other work: ratios differ from round to round, and latencies are those of the other work.**")
	}
	var versions []string
	for _, name := range b.proxies {
		version, err := versionOf(ctx, name)
		if err != nil {
			version = name + " " + err.Error()
		}
		versions = append(versions, version)
	}
	fmt.Println(strings.Join(versions, "; ") + ".")
}

// versionOf asks a proxy which one it is.
func versionOf(ctx context.Context, name string) (string, error) {
	bin, err := executable(name)
	if err != nil {
		return "", err
	}
	if info, err := buildinfo.ReadFile(bin); err == nil { // of Go, whatever it says of itself
		return name + " " + strings.TrimPrefix(info.Main.Version, "v"), nil
	}
	flag := map[string]string{"nginx": "-v", "haproxy": "-v", "envoy": "--version"}[name]
	out, err := exec.CommandContext(ctx, bin, flag).CombinedOutput()
	for field := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return strings.ContainsRune(" /\n-+", r) }) {
		if field = strings.TrimPrefix(field, "v"); strings.Count(field, ".") == 2 && field[0] >= '0' && field[0] <= '9' {
			return name + " " + field, nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("says %q", out))
}
