package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"moire.dev/moire/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "echo" {
		return echo()
	}
	if len(args) == 2 {
		if one, ok := map[string]func() (float64, error){
			"trips": func() (float64, error) { return roundTrips("tcp", args[1]) },
			"udp":   func() (float64, error) { return roundTrips("udp", args[1]) },
			"conns": func() (float64, error) { return connections(args[1]) },
		}[args[0]]; ok {
			n, err := one()
			fmt.Println(n)
			return err
		}
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "interleaved rounds; the table shows medians")
	bin := flags.String("bin", "bin", "where the binaries are")
	of := flags.String("of", "packets", "what to measure: packets, services")
	alone := flags.Bool("peers", false, "measure the peers alone, without Moiré")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch *of {
	case "packets":
		return compare(ctx, *rounds, *bin, *alone)
	case "services":
		return services(ctx, *rounds)
	}
	return fmt.Errorf("-of %s: packets or services", *of)
}

func compare(ctx context.Context, rounds int, bin string, alone bool) (err error) {
	paths, err := peers()
	defer func() { err = errors.Join(err, removePeers()) }()
	if err != nil {
		return err
	}
	if !alone {
		var l *lab.Lab
		var more []path
		l, more, err = ours(ctx, bin)
		if l != nil {
			defer func() {
				bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				defer cancel()
				err = errors.Join(err, l.Down(bounded))
			}()
		}
		if err != nil {
			return err
		}
		paths = append(paths, more...)
	}
	all := make([][]result, len(paths))
	for round := range rounds {
		for i, p := range paths {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, p.name)
			r, err := measure(ctx, p)
			if err != nil {
				return err
			}
			all[i] = append(all[i], r)
		}
	}
	table(paths, all)
	return nil
}

// table prints the medians of the per-round ratios to the first path.
func table(paths []path, all [][]result) {
	fmt.Println("| path | TCP stream | CPU per GB | round trips | connection rate | UDP round trips |")
	fmt.Println("|---|---|---|---|---|---|")
	for i, p := range paths {
		ratio := func(of func(result) float64) float64 {
			var rs []float64
			for round := range all[i] {
				rs = append(rs, of(all[i][round])/of(all[0][round]))
			}
			slices.Sort(rs)
			return rs[len(rs)/2]
		}
		fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", p.name,
			ratio(func(r result) float64 { return r.stream }), ratio(func(r result) float64 { return r.cpu }),
			ratio(func(r result) float64 { return r.trips }), ratio(func(r result) float64 { return r.conns }),
			ratio(func(r result) float64 { return r.udp }))
	}
}

// firstAddress reads the answer of `moire attach -o json`.
func firstAddress(b []byte) (string, error) {
	var a struct {
		Interfaces []struct{ Addresses []string }
		Addresses  []string
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return "", fmt.Errorf("attach answered %q: %w", b, err)
	}
	if len(a.Addresses) == 0 && len(a.Interfaces) > 0 {
		a.Addresses = a.Interfaces[0].Addresses
	}
	if len(a.Addresses) == 0 {
		return "", fmt.Errorf("attach answered %q, without an address", b)
	}
	return a.Addresses[0], nil
}
