package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"moire.dev/moire/lab"
)

// output runs a command in a namespace and returns what it prints.
func output(cmd *exec.Cmd, netns string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := lab.InNetns(netns, cmd.Start); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// settling is how long records of the mesh may be on their way after a load.
const settling = 2 * time.Second

// outcome is all rounds of a path.
type outcome []result

// interleave measures every path once a round, so that what the machine does
// meanwhile happens to all of them.
func (b *bench) interleave(ctx context.Context, paths []path, args ...string) ([]outcome, error) {
	all := make([]outcome, len(paths))
	for round := range b.rounds {
		for i, p := range paths {
			r, err := b.load(ctx, p, args...)
			if err != nil {
				return nil, err
			}
			if i >= meshNear { // its records are still on their way, on the core of who comes next
				wait(ctx, settling)
			}
			fmt.Fprintf(os.Stderr, "round %d, %s: %d requests in %.1f s; cores: proxies %.2f, load %.2f, upstream %.2f, machine %.2f\n", round+1, p.name,
				r.Requests, r.Seconds, r.Proxy/r.Seconds, r.Load/r.Seconds, r.Upstream/r.Seconds, r.Machine/r.Seconds)
			all[i] = append(all[i], r)
		}
	}
	return all, nil
}

// median of something over the rounds.
func (o outcome) median(of func(result) float64) float64 {
	var all []float64
	for _, r := range o {
		all = append(all, of(r))
	}
	return median(all)
}

// against is the median over the rounds of how far o is from another path.
func (o outcome) against(other outcome, of func(mine, its result) float64) float64 {
	var all []float64
	for i := range o {
		all = append(all, of(o[i], other[i]))
	}
	return median(all)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// row prints one line of a table.
func row(cells ...string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

// head prints the first two lines of a table.
func head(cells ...string) {
	row(cells...)
	fmt.Println(strings.Repeat("|---", len(cells)) + "|")
}

// yes says whether something was reached.
func yes(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }
