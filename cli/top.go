package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/flow/record"
)

// topFlags are the flags of `moire top`.
type topFlags struct {
	flowsFlags
	by            string
	every, window time.Duration
	rounds        int
}

// groupings say by what requests are put together.
var groupings = map[string]func(*record.Record) string{
	"route":    func(r *record.Record) string { return orNone(r.Route) },
	"workload": func(r *record.Record) string { return flowEnd(r.Destination) },
	"caller":   func(r *record.Record) string { return flowEnd(r.Source) },
	"path": func(r *record.Record) string {
		path, _, _ := strings.Cut(r.Request.Path, "?")
		return r.Request.Method + " " + orNone(path)
	},
}

func (a *app) topCommand() *cobra.Command {
	f := topFlags{flowsFlags: flowsFlags{follow: true, since: "0s", requestFlags: requestFlags{kind: ofRequests}}}
	c := &cobra.Command{
		Use:   "top",
		Short: "Show where requests go now, how many succeed and how long they take",
		Long: `Show requests per second, the share that succeeds and latencies of the last
seconds, by route, Workload, caller or path, the busiest first. Success is an
answer below 500, or a gRPC status of 0.`,
		Example: `  moire top -p shop
  moire top --by workload --to shop --every 5s
  moire top --by path --rounds 1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.top(c.Context(), f) },
	}
	f.requestFlags.add(c.Flags())
	f.ends(c.Flags())
	fl := c.Flags()
	fl.StringVar(&f.by, "by", "route", "route, workload, caller or path")
	fl.DurationVar(&f.every, "every", 2*time.Second, "time between two tables")
	fl.DurationVar(&f.window, "window", 10*time.Second, "how far back the figures go")
	fl.IntVar(&f.rounds, "rounds", 0, "end after so many tables (default: go on)")
	return c
}

func (a *app) top(ctx context.Context, f topFlags) error {
	format, err := show.ParseFormat(f.output, show.JSON)
	if err != nil {
		return err
	}
	group := groupings[f.by]
	if group == nil {
		return fault.Usagef("use route, workload, caller or path", "--by %q is unknown", f.by)
	}
	if f.every < 100*time.Millisecond || f.window < f.every {
		return fault.Usagef("use for example --every 2s --window 10s", "--every %s and --window %s do not go together", f.every, f.window)
	}
	q, err := f.query()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	body, lost, err := a.openRecords(ctx, q)
	if err != nil {
		return err
	}
	defer body.Close()
	a.losses(lost)
	seen := make(chan topRequest, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- a.readRecords(body, func(r *record.Record, _ []byte) (bool, error) {
			if r.Request == nil {
				return true, nil
			}
			select {
			case seen <- requestOf(group(r), r):
			case <-ctx.Done():
			}
			return ctx.Err() == nil, nil
		})
	}()
	return a.rounds(ctx, f, format, seen, ended)
}

// topRequest is what is kept of a request.
type topRequest struct {
	at      time.Time
	group   string
	latency time.Duration
	failed  bool
	bytes   uint64
}

func requestOf(group string, r *record.Record) topRequest {
	q := r.Request
	failed := q.Status == 0 || q.Status >= 500 || q.GRPCStatus != nil && *q.GRPCStatus != 0
	return topRequest{time.Now(), group, r.Latency, failed, r.ForwardBytes + r.ReplyBytes}
}

// rounds shows a table again and again.
func (a *app) rounds(ctx context.Context, f topFlags, format show.Format, seen <-chan topRequest, ended <-chan error) error {
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	var kept []topRequest
	var last error
	begin := time.Now()
	for round := 1; ; {
		select {
		case r := <-seen:
			kept = append(kept, r)
			continue
		case last = <-ended:
			for len(seen) > 0 {
				kept = append(kept, <-seen)
			}
			last = cmp.Or(last, errors.New("the server sends no more records"))
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		first := slices.IndexFunc(kept, func(r topRequest) bool { return now.Sub(r.at) < f.window })
		if first < 0 {
			first = len(kept)
		}
		kept = slices.Delete(kept, 0, first)
		rows := topRows(kept, min(f.window, now.Sub(begin)))
		if err := a.showTop(f, format, rows); err != nil || last != nil {
			return cmp.Or(err, last)
		}
		if round++; f.rounds > 0 && round > f.rounds {
			return nil
		}
	}
}

// topRow is one line of the table.
type topRow struct {
	Name    string        `json:"name"`
	Rate    float64       `json:"requestsPerSecond"`
	Success float64       `json:"successPercent"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Bytes   float64       `json:"bytesPerSecond"`
}

// topRows puts requests of a time together, the most first.
func topRows(all []topRequest, in time.Duration) []topRow {
	groups := map[string][]topRequest{}
	for _, r := range all {
		groups[r.group] = append(groups[r.group], r)
	}
	rows := []topRow{}
	for name, rs := range groups {
		slices.SortFunc(rs, func(a, b topRequest) int { return int(a.latency - b.latency) })
		row := topRow{Name: name, Rate: float64(len(rs)) / in.Seconds(), P50: rs[(len(rs)-1)/2].latency, P99: rs[(len(rs)-1)*99/100].latency}
		good := 0
		for _, r := range rs {
			row.Bytes += float64(r.bytes) / in.Seconds()
			if !r.failed {
				good++
			}
		}
		row.Success = 100 * float64(good) / float64(len(rs))
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b topRow) int {
		if a.Rate != b.Rate {
			return int(b.Rate*1000) - int(a.Rate*1000)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return rows
}

// clearScreen is for a terminal alone.
const clearScreen = "\x1b[H\x1b[2J"

func (a *app) showTop(f topFlags, format show.Format, rows []topRow) error {
	if format.Kind == show.JSON {
		for _, r := range rows {
			b, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if _, err := a.out.Write(append(b, '\n')); err != nil {
				return err
			}
		}
		return nil
	}
	grid := show.Grid{Header: []string{strings.ToUpper(f.by), "REQ/S", "SUCCESS", "P50", "P99", "BYTES/S"}}
	for _, r := range rows {
		grid.Rows = append(grid.Rows, []string{show.Plain(r.Name), fmt.Sprintf("%.1f", r.Rate), fmt.Sprintf("%.2f%%", r.Success),
			r.P50.Round(10 * time.Microsecond).String(), r.P99.Round(10 * time.Microsecond).String(), byteCount(uint64(r.Bytes))})
	}
	if show.IsTerminal(a.out) {
		if _, err := fmt.Fprint(a.out, clearScreen); err != nil {
			return err
		}
	}
	return grid.Write(a.out, !f.noHeaders, a.paint().Cell)
}
