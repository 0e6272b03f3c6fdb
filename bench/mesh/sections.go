package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/lab"
)

// rate of the section on latency: what a pair of Envoys on one core still takes
// with room to spare.
const rate = 2000

// speed is P1 and P4 through the whole system, with answers of a size.
func (b *bench) speed(ctx context.Context, size int) error {
	paths, err := b.paths(ctx)
	if err != nil {
		return err
	}
	out, err := b.interleave(ctx, paths, b.busily(size)...)
	if err != nil {
		return err
	}
	head("path", "requests per second", "proxies' core", "requests per CPU-second of the proxies", "a request: µs of the proxies", "of the whole machine", "of that neither proxies, client nor server", "the machine, to no proxy")
	for i, o := range out {
		without := out[baseline(paths[i])]
		cells := []string{paths[i].name, fmt.Sprintf("%.0f", o.median(func(r result) float64 { return float64(r.Requests) / r.Seconds })), "-", "-", "-",
			fmt.Sprintf("%.1f µs", o.median(result.each)), fmt.Sprintf("%.1f µs", o.median(result.rest)),
			fmt.Sprintf("%.2f", o.against(without, func(mine, its result) float64 { return mine.each() / its.each() }))}
		if len(paths[i].proxies) > 0 {
			cells[2] = fmt.Sprintf("%.0f %%", 100*o.median(result.core))
			cells[3], cells[4] = fmt.Sprintf("%.0f", o.median(result.perCPU)), fmt.Sprintf("%.1f µs", o.median(func(r result) float64 { return 1e6 / r.perCPU() }))
		}
		row(cells...)
	}
	fmt.Println()
	head("requests per CPU-second of the proxies", "to Envoys with HTTP/1.1 between them", "to Envoys with HTTP/2", "wanted (P4)", "reached")
	times := func(o, its outcome) float64 {
		return o.against(its, func(mine, its result) float64 { return mine.perCPU() / its.perCPU() })
	}
	one := times(out[meshNear], out[envoyNear])
	row("one node: in memory", fmt.Sprintf("%.2f", one), "-", "2", yes(one >= 2))
	two, streams := times(out[meshFar], out[envoyFar]), times(out[meshFar], out[envoyStreams])
	row("two nodes: two proxies", fmt.Sprintf("%.2f", two), fmt.Sprintf("%.2f", streams), "2", yes(min(two, streams) >= 2))
	return nil
}

// busily are the arguments of a load maker that has a request on each of 64
// connections all the time.
func (b *bench) busily(size int) []string {
	return []string{"-kind", "http1", "-conns", "64", "-size", strconv.Itoa(size), "-warm", b.warm.String(), "-span", b.span.String()}
}

// Indexes of paths.
const (
	plainNear = iota + 1
	plainFar
	envoyNear
	envoyFar
	envoyStreams
	meshNear
	meshFar
)

// baseline is the path without a proxy between the same nodes.
func baseline(p path) int {
	switch {
	case len(p.proxies) == 0 && strings.HasPrefix(p.name, "raw"):
		return 0
	case strings.Contains(p.name, told[near]):
		return plainNear
	}
	return plainFar
}

// latency is P2 through the whole system.
func (b *bench) latency(ctx context.Context) error {
	paths, err := b.paths(ctx)
	if err != nil {
		return err
	}
	out, err := b.interleave(ctx, paths, "-kind", "http1", "-conns", "64", "-size", "128", "-rate", strconv.Itoa(rate), "-warm", b.warm.String(), "-span", (2 * b.span).String())
	if err != nil {
		return err
	}
	head("path", "p50", "p99", "p99.9", "proxies' core")
	for i, o := range out {
		p := paths[i]
		us := func(of func(result) time.Duration) string {
			if len(p.proxies) == 0 {
				return fmt.Sprintf("%.0f µs", o.median(func(r result) float64 { return float64(of(r)) / 1e3 }))
			}
			return fmt.Sprintf("+ %.0f µs", o.against(out[baseline(p)], func(mine, its result) float64 { return float64(of(mine)-of(its)) / 1e3 }))
		}
		row(p.name, us(func(r result) time.Duration { return r.P50 }), us(func(r result) time.Duration { return r.P99 }), us(func(r result) time.Duration { return r.P999 }),
			fmt.Sprintf("%.0f %%", 100*o.median(result.core)))
	}
	fmt.Println("\nWithout a proxy: all of it; with proxies: what is added to the same two nodes without.")
	return nil
}

// held are the connections of the section on memory.
const held = 1000

// memory is P6 of the two proxies of a hop: fresh, after load, and for each connection of
// the client that is idle after one request.
func (b *bench) memory(ctx context.Context) error {
	paths, err := b.paths(ctx)
	if err != nil {
		return err
	}
	head("path", "processes", "fresh, together", "after load", fmt.Sprintf("for each idle connection of %d", held), "wanted (P6)", "reached")
	for _, i := range []int{envoyNear, meshFar} { // two that are fresh
		p := paths[i]
		fresh := resident(p.proxies)
		if _, err := b.load(ctx, p, b.busily(128)...); err != nil {
			return err
		}
		wait(ctx, 2*time.Second)
		used := resident(p.proxies)
		release, err := b.hold(ctx, p)
		if err != nil {
			return err
		}
		wait(ctx, 2*time.Second)
		each := (resident(p.proxies) - used) / held
		release()
		cells := []string{p.name, strconv.Itoa(len(p.proxies)), fmt.Sprintf("%.1f MB", fresh/1e6), fmt.Sprintf("%.1f MB", used/1e6), fmt.Sprintf("%.1f KiB", each/1024), "", ""}
		if i == meshFar {
			cells[5], cells[6] = "15 MB each, 4 KiB", yes(fresh/float64(len(p.proxies)) <= 15e6 && each <= 4<<10)
		}
		row(cells...)
	}
	return nil
}

// hold makes connections and keeps them until they are released.
func (b *bench) hold(ctx context.Context, p path) (release func(), err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "bench-proxy"), "load", "-kind", "hold", "-addr", p.addr, "-paths", "10", "-conns", strconv.Itoa(held), "-upstream", strconv.Itoa(p.upstream))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := lab.InNetns(netns(p.client), cmd.Start); err != nil {
		return nil, err
	}
	release = func() {
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		release()
		return nil, fmt.Errorf("%s: connections are not held: %q %w", p.name, line, err)
	}
	return release, nil
}

// resident is the memory of processes together in bytes; what they share counts once.
func resident(pids []int) float64 {
	var sum float64
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		_, rest, _ := strings.Cut(string(b), "\nPss:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			kib, _ := strconv.ParseFloat(fields[0], 64)
			sum += 1024 * kib
		}
	}
	return sum
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
