package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/mesh:", err)
		os.Exit(1)
	}
}

// bench is what all sections share.
type bench struct {
	bin, envoy string
	rounds     int
	warm, span time.Duration
	*world
}

// section is one table.
type section struct {
	name, title string
	print       func(ctx context.Context) error
}

func (b *bench) sections() []section {
	return []section{
		{"edges", "What those pay who are not in the mesh", b.edges},
		{"memory", "Memory of the proxies of a mesh hop", b.memory},
		{"speed", "Requests: HTTP/1.1, 128 B, 64 connections", func(ctx context.Context) error { return b.speed(ctx, 128) }},
		{"large", "Requests: HTTP/1.1, 16 KiB, 64 connections", func(ctx context.Context) error { return b.speed(ctx, 16<<10) }},
		{"latency", fmt.Sprintf("Latency added at %d requests per second: HTTP/1.1, 128 B, 64 connections, Poisson arrivals, from when a request was due", rate), b.latency},
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("mesh", flag.ContinueOnError)
	b := &bench{}
	f.StringVar(&b.bin, "bin", "bin", "where the binaries are")
	f.StringVar(&b.envoy, "envoy", "envoy", "Envoy's binary")
	f.IntVar(&b.rounds, "rounds", 3, "interleaved rounds; tables show medians")
	f.DurationVar(&b.warm, "warm", 500*time.Millisecond, "time before a measurement counts")
	f.DurationVar(&b.span, "span", 2*time.Second, "time that counts")
	only := f.String("only", "", "sections, of: edges memory speed large latency demo; empty: all")
	stay := f.Duration("stay", 0, "keep mesh and load for so long after the tables, for a profile")
	if err := f.Parse(args); err != nil {
		return err
	}
	var err error
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.envoy, err = filepath.Abs(b.envoy); err != nil {
		return err
	}
	unwanted := func(name string) bool { return *only != "" && !slices.Contains(strings.Fields(*only), name) }
	b.preface()
	if !unwanted("demo") {
		if err := b.demo(ctx); err != nil {
			return err
		}
	}
	sections := slices.DeleteFunc(b.sections(), func(s section) bool { return unwanted(s.name) })
	if len(sections) == 0 && *stay == 0 {
		return nil
	}
	return b.inWorld(ctx, func() error {
		for _, s := range sections {
			fmt.Printf("\n### %s\n\n", s.title)
			if err := s.print(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		if *stay > 0 {
			return b.stay(ctx, *stay)
		}
		return nil
	})
}

// preface says what was measured and where.
func (b *bench) preface() {
	load, _ := os.ReadFile("/proc/loadavg")
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	average, _, _ := strings.Cut(string(load), " ")
	fmt.Printf("Medians of %d interleaved rounds of %v each; Linux %s; load average before the run %s. Proxies on core 0, all else on core 1.\n",
		b.rounds, b.span, strings.TrimSpace(string(release)), average)
}

// inWorld makes the world, does something in it, and removes it.
func (b *bench) inWorld(ctx context.Context, do func() error) (err error) {
	b.world, err = newWorld(b.bin)
	if err != nil {
		return err
	}
	down := func() error {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return b.down(bounded)
	}
	if err := down(); err != nil { // what a killed run left
		return err
	}
	defer func() { err = errors.Join(err, down()) }()
	if err := b.up(ctx); err != nil {
		return err
	}
	return do()
}

// stay keeps load on the mesh between two nodes, and says where.
func (b *bench) stay(ctx context.Context, how time.Duration) error {
	p, err := b.meshed(ctx, far)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s for %v: proxies %v\n", p.name, how, p.proxies)
	r, err := b.load(ctx, p, "-kind", "http1", "-conns", "64", "-warm", b.warm.String(), "-span", how.String())
	if err == nil {
		fmt.Fprintf(os.Stderr, "%.0f requests per proxy-CPU-second\n", r.perCPU())
	}
	return err
}
