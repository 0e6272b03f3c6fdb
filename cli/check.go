package cli

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/check"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

// Where things are by default, and on which ports.
const (
	defaultRunDir   = "/run/moire"
	defaultStateDir = "/var/lib/moire"
	apiPort         = 7443
	discoveryPort   = 7444
	vxlanPort       = 4789
	maxSkew         = 30 * time.Second
)

func (a *app) checkCommand() *cobra.Command {
	var pre bool
	var output, runDir, stateDir string
	c := &cobra.Command{
		Use:   "check",
		Short: "Look whether this machine can run Moiré, and whether it runs well",
		Long: `Look whether this machine can run Moiré (kernel, privileges, ports, clock,
space, limits, binaries) and, without --pre, whether the control plane answers
and every node is Ready. Each failing check says what to do. Exit code 1: a
check failed; warnings do not count.`,
		Example: "  moire check --pre      # before the first start\n  moire check -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.check(c.Context(), pre, output, runDir, stateDir)
		},
	}
	c.Flags().BoolVar(&pre, "pre", false, "only what can be known before the first start")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	c.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "directory of sockets and pins")
	c.Flags().StringVar(&stateDir, "dir", defaultStateDir, "directory of lasting state")
	return c
}

func (a *app) check(ctx context.Context, pre bool, output, runDir, stateDir string) error {
	format, err := show.ParseFormat(output, show.JSON, show.YAML)
	if err != nil {
		return err
	}
	running := exists(filepath.Join(runDir, "join.json"))
	results := check.Machine(check.Config{
		StateDir: stateDir, RunDir: runDir, API: apiPort, Discovery: discoveryPort, VXLAN: vxlanPort, Running: running,
	})
	results = append(results, check.Binaries()...)
	results = append(results, check.Kernel(ctx)...)
	if !pre {
		results = append(results, a.checkRunning(ctx)...)
	}
	if err := a.showChecks(results, format); err != nil {
		return err
	}
	if check.Bad(results) {
		return fault.Exit(fault.Failed)
	}
	return nil
}

// checkRunning asks the control plane.
func (a *app) checkRunning(ctx context.Context) []check.Result {
	const id = "control-plane"
	bad := func(err error) []check.Result { return []check.Result{failing(id, err)} }
	client, err := a.client()
	if err != nil {
		return bad(err)
	}
	answer, err := client.Do(ctx, remote.Request{Path: "/readyz"})
	if err != nil {
		return bad(err)
	}
	results := []check.Result{{ID: id, State: check.OK, Cause: client.Server + " is ready"}}
	results = append(results, skew(answer.Header.Get("Date"), time.Now()))
	nodes, err := nodesOf(ctx, client)
	if err != nil {
		return append(results, failing("nodes", err))
	}
	if len(nodes) == 0 {
		results = append(results, check.Result{ID: "nodes", State: check.Failed, Cause: "no node has joined", Fix: "start an agent with `moire up` or `moire-node run`"})
	}
	for _, s := range statusLines(nodes) {
		r := check.Result{ID: "node-" + s.Node, State: check.OK, Cause: s.State + ", version " + short(s.Applied)}
		if s.State != v1alpha1.NodeReady && s.State != v1alpha1.NodeExternal {
			r = check.Result{ID: r.ID, State: check.Failed, Cause: s.State + ": " + orNone(s.LastError), Fix: "see `moire status`, and the log of moire-node on " + s.Node}
		}
		results = append(results, r)
	}
	return results
}

// failing is an error as a Result.
func failing(id string, err error) check.Result {
	cause, fix := fault.Parts(err)
	if fix == "" {
		fix = "look at the log of moired"
	}
	return check.Result{ID: id, State: check.Failed, Cause: cause, Fix: fix}
}

// skew compares the server's clock, which has a resolution of one second, with
// ours.
func skew(date string, now time.Time) check.Result {
	const id = "clock-skew"
	server, err := http.ParseTime(date)
	if err != nil {
		return check.Result{ID: id, State: check.Warning, Cause: "the server did not say what time it is", Fix: "compare the clocks: date -u"}
	}
	difference := now.Sub(server).Abs().Truncate(time.Second)
	if difference > maxSkew {
		return check.Result{ID: id, State: check.Failed, Cause: fmt.Sprintf("the clocks of server and client differ by %s", difference),
			Fix: "set both by a time service, such as systemd-timesyncd; certificates are refused when clocks differ"}
	}
	return check.Result{ID: id, State: check.OK, Cause: "the clocks of server and client agree"}
}

func (a *app) showChecks(results []check.Result, format show.Format) error {
	if format.Kind != show.AsTable {
		return writeValue(a.out, format, map[string]any{"ok": !check.Bad(results), "checks": results})
	}
	paint := a.paint()
	width := 0
	for _, r := range results {
		width = max(width, len(r.ID))
	}
	for _, r := range results {
		pad := fmt.Sprintf("%*s", 9-len(r.State), "")
		if err := a.print("%s%s%-*s  %s", paint.Cell("", string(r.State)), pad, width, r.ID, show.Plain(r.Cause)); err != nil {
			return err
		}
		if r.Fix != "" {
			if err := a.print("         %-*s  fix: %s", width, "", show.Plain(r.Fix)); err != nil {
				return err
			}
		}
	}
	return nil
}
