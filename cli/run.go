package cli

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/node/local"
	"moire.dev/moire/node/run"
)

func (a *app) runCommand() *cobra.Command {
	var f memberFlags
	var wait time.Duration
	var dir string
	var quiet bool
	c := &cobra.Command{
		Use:   "run --project P --network N [flags] -- CMD [ARG...]",
		Short: "Run a process as a workload, in a network namespace of its own",
		Long: `Run a process as a workload: in a network namespace of its own with an interface
in one or more networks, for as long as it lives. Signals go to the process and
its exit code comes back. The workload is gone when it ends, however it ends.`,
		Example: `  sudo moire run -p shop --network front --label app=web -- python3 -m http.server 8080
  sudo moire run -p shop --network front --name db -- postgres -D /srv/db`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.run(c.Context(), f, wait, dir, quiet, args)
		},
	}
	f.bind(c)
	fl := c.Flags()
	// What follows the command belongs to it, also without --.
	fl.SetInterspersed(false)
	fl.StringVar(&f.name, "name", "", "name of the workload (default: of the command, with a random end)")
	fl.DurationVar(&wait, "wait", 10*time.Second, "how long to wait until the interface is there and policy is in force")
	fl.StringVar(&dir, "cwd", "", "working directory of the process (default: this one)")
	fl.BoolVarP(&quiet, "quiet", "q", false, "do not print the addresses on standard error")
	return c
}

func (a *app) run(ctx context.Context, f memberFlags, wait time.Duration, dir string, quiet bool, args []string) error {
	if len(args) == 0 {
		return fault.Usagef("write it after --, such as: moire run -p shop --network front -- ip address", "there is no command to run")
	}
	project, err := a.workspace()
	if err != nil {
		return err
	}
	request, err := f.request(project)
	if err != nil {
		return err
	}
	if wait <= 0 {
		return fault.Usagef("use a duration such as 10s", "--wait %s is not positive", wait)
	}
	socket, err := f.socket()
	if err != nil {
		return err
	}
	own, attached, end := untilAttached(ctx)
	defer end()
	code, err := run.Run(own, run.Config{
		Socket: socket, RunDir: f.runDir,
		Project: project, Workload: request.Workload, Networks: request.Networks,
		IfName: request.IfName, IfNames: request.IfNames, DefaultRoute: request.DefaultRoute, Account: request.Account, Labels: request.Labels, Wait: wait,
		Command: args, Dir: dir,
		Attached: func(workload string, got local.Attached) {
			attached()
			for _, w := range got.Warnings {
				a.say("warning: %s", w)
			}
			for _, i := range got.Interfaces {
				if !quiet {
					a.say("%s/%s: %s is %s in %s", project, workload, i.IfName, joinAddresses(i.Addresses), i.Network)
				}
			}
		},
		Warn: func(err error) { a.say("warning: %v", err) },
	})
	if err == nil {
		if code == 0 {
			return nil
		}
		return fault.Exit(code)
	}
	if code == run.CodeNotFound || code == run.CodeNotExecutable {
		return &fault.Fault{Code: code, Text: err.Error(), Cause: err, Fix: "give the path of an executable file"}
	}
	return fromAgent(err)
}

// untilAttached is a context that a signal ends only until the workload is
// attached: from then on signals go to the process, which may catch them. A
// signal in the moment between the two ends the context too, so that none is
// lost.
func untilAttached(ctx context.Context) (own context.Context, attached func(), end func()) {
	const moment = 200 * time.Millisecond
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var since atomic.Pointer[time.Time]
	stop := context.AfterFunc(ctx, func() {
		if at := since.Load(); at == nil || time.Since(*at) < moment {
			cancel(errors.New("interrupted"))
		}
	})
	attached = func() {
		now := time.Now()
		since.Store(&now)
	}
	return own, attached, func() { stop(); cancel(nil) }
}
