package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
)

// subject is one column or line of a table: something that is run once a round.
type subject struct {
	name string
	run  func(ctx context.Context) (result, error)
}

// outcome is all rounds of a subject, or why there are none.
type outcome struct {
	rounds []result
	err    error
	absent bool // this proxy cannot do it
}

// interleave runs all subjects once a round, so that what the machine does
// meanwhile happens to all of them. Who fails twice in a round is left out.
func (b *bench) interleave(ctx context.Context, what string, subjects []subject) ([]outcome, error) {
	all := make([]outcome, len(subjects))
	for round := range b.rounds {
		for i, s := range subjects {
			if all[i].err != nil || all[i].absent {
				continue
			}
			if s.run == nil {
				all[i].absent = true
				continue
			}
			r, err := s.run(ctx)
			if err != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "%s, round %d, %s: once more, as %v\n", what, round+1, s.name, err)
				r, err = s.run(ctx)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				b.fail(what, s.name, err)
				all[i].err = err
				continue
			}
			fmt.Fprintf(os.Stderr, "%s, round %d, %s: %d requests in %.1f s; cores: proxy %.2f, load %.2f, upstream %.2f\n", what, round+1, s.name,
				r.Requests, r.Seconds, r.Proxy/r.Seconds, r.Load/r.Seconds, r.Upstream/r.Seconds)
			all[i].rounds = append(all[i].rounds, r)
		}
	}
	return all, nil
}

func (b *bench) fail(what, name string, err error) {
	b.failures++
	fmt.Fprintf(os.Stderr, "%s: %s FAILS: %v\n", what, name, err)
}

func (o outcome) ok() bool { return o.err == nil && len(o.rounds) > 0 }

// median of something over the rounds.
func (o outcome) median(of func(result) float64) float64 {
	all := make([]float64, 0, len(o.rounds))
	for _, r := range o.rounds {
		all = append(all, of(r))
	}
	return median(all)
}

// ratio is the median of the ratios of each round; NaN if one of both has none.
func (o outcome) ratio(to outcome, of func(result) float64) float64 {
	if !o.ok() || !to.ok() {
		return math.NaN()
	}
	var all []float64
	for i := range min(len(o.rounds), len(to.rounds)) {
		all = append(all, of(o.rounds[i])/of(to.rounds[i]))
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

// full says whether core 1 had nothing left in most rounds.
func (o outcome) full() bool {
	return o.median(func(r result) float64 {
		if r.full() {
			return 1
		}
		return 0
	}) > 0.5
}

// busy: the proxy had its core to the full.
func (o outcome) busy() bool {
	return o.median(func(r result) float64 { return r.Proxy / r.Seconds }) > 0.95
}

// cell shows a figure, with a mark if load or upstream held the proxy up.
func (o outcome) cell(format string, v float64) string {
	switch {
	case o.absent:
		return "-"
	case !o.ok():
		return "fails"
	case o.full() && !o.busy():
		return fmt.Sprintf(format, v) + " °"
	}
	return fmt.Sprintf(format, v)
}

const markMeans = "°: core 1, where load and upstream are, was full (over 95 %) and the proxy's core was not, so throughput and latency are not the proxy's; CPU per request still is, if with smaller batches."

// times shows a ratio.
func times(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

// reached says whether ours is at least as many times each peer as wanted;
// peers without a wish do not matter.
func reached(ratios map[string]float64, wanted map[string]float64) string {
	if len(wanted) == 0 {
		return ""
	}
	verdict := "yes"
	for name, least := range wanted {
		switch got, there := ratios[name]; {
		case !there || math.IsNaN(got):
			if verdict == "yes" {
				verdict = "-"
			}
		case got < least:
			verdict = "no"
		}
	}
	return verdict
}
