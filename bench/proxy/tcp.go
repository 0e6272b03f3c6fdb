package main

import (
	"context"
	"fmt"
)

// transfers are the lines of the section on TCP.
var transfers = []struct {
	name        string
	size, conns int
	quick       bool
}{
	{"1 KiB", 1 << 10, 64, false},
	{"16 KiB", 16 << 10, 64, true},
	{"128 KiB", 128 << 10, 16, false},
	{"1 MiB", 1 << 20, 10, true},
	{"16 MiB", 16 << 20, 4, false},
	{"256 MiB", 256 << 20, 4, true},
	{"1 GiB", 1 << 30, 1, false},
}

// tcp is what bytes that are passed through cost: the proxy's CPU for a
// gigabyte, and how many come in a second.
func (b *bench) tcp(ctx context.Context) error {
	all, stop := b.launchAll(ctx, everything)
	defer stop()
	head, line := "| each answer, connections", "|---"
	for _, name := range b.proxies {
		head, line = head+" | "+name, line+"|---"
	}
	fmt.Println(head + " |\n" + line + "|")
	for _, t := range transfers {
		if b.quick && !t.quick {
			continue
		}
		out, err := b.interleave(ctx, "TCP, "+t.name, b.subjects(all, []string{"caddy"}, func(ctx context.Context, in *instance) (result, error) {
			return load(ctx, b.job(in, "http1", in.port.TCP, t.conns, t.size))
		}))
		if err != nil {
			return err
		}
		cells := fmt.Sprintf("| %s, %d", t.name, t.conns)
		for _, o := range out {
			cells += " | " + o.cell("%.0f ms", 1e3*o.median(result.perGB))
			if o.ok() {
				cells += fmt.Sprintf("; %.2f GB/s", o.median(func(r result) float64 { return float64(r.Bytes) / r.Seconds })/1e9)
			}
		}
		fmt.Println(cells + " |")
	}
	fmt.Printf("\nThe proxy's CPU time for a gigabyte; gigabytes a second. %s\n", markMeans)
	return nil
}
