package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// size of a fleet.
type size struct{ Nodes, Services, Endpoints int }

// figures of one run.
type figures struct {
	// Milliseconds from a change to the last node that needs it; over the API,
	// from its answer.
	P50, P99 float64
	// The same from the request to the API; 0: there is no API.
	Asked50, Asked99 float64
	// CPU milliseconds of the server for each change, and its resident memory.
	CPU float64
	MiB float64
	// KiB received by all nodes together for each change.
	Bytes float64
	// First: KiB of the first snapshot of a node, on average.
	First float64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("fleet", flag.ContinueOnError)
	role := f.String("role", "", "server or nodes; used by fleet itself")
	push := f.String("push", "", "delta, full or moired: compile and discovery alone, with less or everything sent, or the real control plane over its API (default: delta and full)")
	dir := f.String("dir", "", "where server and nodes meet; used by fleet itself")
	var s size
	f.IntVar(&s.Nodes, "nodes", 100, "simulated nodes")
	f.IntVar(&s.Services, "services", 0, "Services (default: 100, 300 and 1,000)")
	f.IntVar(&s.Endpoints, "endpoints", 0, "endpoints (default: ten for each Service)")
	changes := f.Int("changes", 100, "changes measured")
	binary := f.String("moired", "bin/moired", "the control plane that -push moired starts")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch *role {
	case "server":
		return serve(ctx, s, *push == "full", *changes, *dir)
	case "nodes":
		return nodes(ctx, s, *dir)
	}
	sizes := []size{{s.Nodes, 100, 1000}, {s.Nodes, 300, 3000}, {s.Nodes, 1000, 10000}}
	if s.Services > 0 {
		if s.Endpoints == 0 {
			s.Endpoints = 10 * s.Services
		}
		sizes = []size{s}
	}
	pushes := []string{"delta", "full"}
	if *push != "" {
		pushes = []string{*push}
	}
	return compare(ctx, sizes, pushes, *binary, *changes)
}

// compare runs every size with every push, one after the other.
func compare(ctx context.Context, sizes []size, pushes []string, binary string, changes int) error {
	fmt.Println("| services / endpoints / nodes | push | to the last node p50, p99 (ms) | from the request to the API (ms) | server CPU per change (ms) | server memory (MiB) | sent per change (KiB) | first snapshot of a node (KiB) |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, s := range sizes {
		for _, p := range pushes {
			fmt.Fprintf(os.Stderr, "%d services, %d endpoints, %d nodes, %s\n", s.Services, s.Endpoints, s.Nodes, p)
			measure := func() (figures, error) { return one(ctx, s, p, changes) }
			if p == "moired" {
				measure = func() (figures, error) { return whole(ctx, s, binary, changes) }
			}
			r, err := measure()
			if err != nil {
				return err
			}
			asked := "-"
			if r.Asked99 > 0 {
				asked = fmt.Sprintf("%.0f, %.0f", r.Asked50, r.Asked99)
			}
			fmt.Printf("| %d / %d / %d | %s | %.0f, %.0f | %s | %.1f | %.0f | %.0f | %.0f |\n",
				s.Services, s.Endpoints, s.Nodes, p, r.P50, r.P99, asked, r.CPU, r.MiB, r.Bytes, r.First)
		}
	}
	return nil
}

// one starts server and nodes and reads the figures that the server says at its
// end.
func one(ctx context.Context, s size, push string, changes int) (r figures, err error) {
	dir, err := os.MkdirTemp("", "moire-fleet-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	child := func(role string) *exec.Cmd {
		c := exec.CommandContext(ctx, "/proc/self/exe", "-role", role, "-push", push, "-dir", dir, "-nodes", strconv.Itoa(s.Nodes),
			"-services", strconv.Itoa(s.Services), "-endpoints", strconv.Itoa(s.Endpoints), "-changes", strconv.Itoa(changes))
		c.Stderr = os.Stderr
		c.WaitDelay = 5 * time.Second
		return c
	}
	server, clients := child("server"), child("nodes")
	var out bytes.Buffer
	server.Stdout = &out
	if err := server.Start(); err != nil {
		return r, err
	}
	if err := clients.Start(); err != nil {
		cancel()
		return r, errors.Join(err, server.Wait())
	}
	err = server.Wait()
	_ = clients.Process.Kill() // it has no end of its own
	_ = clients.Wait()
	if err != nil {
		return r, fmt.Errorf("the server: %w", err)
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// meeting is how the nodes find the server.
type meeting struct {
	Addr, Token, CAHash string
}

func meetingFile(dir string) string { return filepath.Join(dir, "meeting.json") }
