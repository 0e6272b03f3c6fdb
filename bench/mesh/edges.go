package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// kinds of figures of an edge, all higher is better, as bench makes them.
var kinds = []struct{ name, title string }{{"trips", "TCP round trips"}, {"conns", "connection rate"}, {"udp", "UDP round trips"}}

// edge is one path of those who are not in the mesh: figures by kind and round,
// while nobody on these nodes is in the mesh, and while somebody is.
type edge struct {
	path
	without, with map[string][]float64
}

// edges shows that who has only rules about packets pays for eBPF alone. In each
// round the tenant in the mesh comes and goes: with its Workloads go the programs
// that look at each connection of the machine.
func (b *bench) edges(ctx context.Context) error {
	var all []*edge
	for _, p := range []path{b.direct("raw veth", "raw", near), b.direct("rules about packets, one node", plain, near), b.direct("rules about packets, two nodes", plain, far)} {
		all = append(all, &edge{p, map[string][]float64{}, map[string][]float64{}})
	}
	stop, err := b.echo()
	defer stop()
	if err != nil {
		return err
	}
	for round := range b.rounds {
		for _, in := range []bool{round%2 == 0, round%2 != 0} { // who is first takes turns
			if in {
				for _, where := range []string{near, far} {
					if _, err := b.meshed(ctx, where); err != nil {
						return err
					}
				}
			}
			wait(ctx, time.Second)
			if err := b.edgesOnce(ctx, all, in); err != nil {
				return err
			}
			if in {
				if err := b.detach(ctx, mesh); err != nil {
					return err
				}
			}
		}
	}
	heads := []string{"path"}
	for _, k := range kinds {
		heads = append(heads, k.title+": to raw veth", "with a mesh beside to without")
	}
	head(heads...)
	for _, e := range all {
		cells := []string{e.name}
		for _, k := range kinds {
			var raw, mesh []float64
			for i := range e.with[k.name] {
				raw = append(raw, e.with[k.name][i]/all[0].with[k.name][i])
				mesh = append(mesh, e.with[k.name][i]/e.without[k.name][i])
			}
			cells = append(cells, fmt.Sprintf("%.2f", median(raw)), fmt.Sprintf("%.2f", median(mesh)))
		}
		row(cells...)
	}
	return nil
}

func (b *bench) edgesOnce(ctx context.Context, all []*edge, in bool) error {
	for _, e := range all {
		to := map[bool]map[string][]float64{true: e.with, false: e.without}[in]
		for _, k := range kinds {
			// Client and server share a core: it is the path that is measured.
			host, _, _ := strings.Cut(e.addr, ":")
			out, err := output(exec.CommandContext(ctx, "taskset", "-c", "0", filepath.Join(b.bin, "bench"), k.name, host), netns(e.client))
			if err != nil {
				return fmt.Errorf("%s, %s: %w", e.name, k.title, err)
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			if err != nil {
				return err
			}
			to[k.name] = append(to[k.name], v)
			fmt.Fprintf(os.Stderr, "mesh beside: %v; %s, %s: %.0f/s\n", in, e.name, k.title, v)
		}
	}
	return nil
}

// echo starts what answers in the namespaces of the servers.
func (b *bench) echo() (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for _, server := range []string{guest("raw", near), guest(plain, near), guest(plain, far)} {
		p, err := b.Start("echo-"+server, netns(server), "taskset", "-c", "0", filepath.Join(b.bin, "bench"), "echo")
		if err != nil {
			return stop, err
		}
		stops = append(stops, func() { p.Stop(time.Second) })
	}
	time.Sleep(300 * time.Millisecond)
	return stop, nil
}
