package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/node/local"
	"moire.dev/moire/node/run"
)

func (a *app) execCommand() *cobra.Command {
	var f localFlags
	c := &cobra.Command{
		Use:   "exec PROJECT/WORKLOAD -- CMD [ARG...]",
		Short: "Run a command where a workload of this machine is: with its addresses and names",
		Long: `Run a command in the network namespace of a workload of this machine: with its
addresses, its Networks, its names and under its Policies. Files and users are
those of this machine.`,
		Example: `  sudo moire exec shop/web -- ip address
  sudo moire exec shop/web -- curl http://db.shop.moire.internal:8080/`,
		RunE: func(c *cobra.Command, args []string) error { return a.exec(c.Context(), f, args) },
	}
	f.bind(c)
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) exec(ctx context.Context, f localFlags, args []string) error {
	if len(args) > 1 && args[1] == "--" {
		args = slices.Delete(args, 1, 2)
	}
	const example = "moire exec shop/web -- ip address"
	if len(args) < 2 {
		return fault.Usagef("write it like: "+example, "a workload and a command are needed")
	}
	project, name, err := a.workload(args[0], example)
	if err != nil {
		return err
	}
	sockets, err := f.agents()
	if err != nil {
		return err
	}
	var away error // an agent that does not answer hides no workload of another
	for _, socket := range sockets {
		agent := local.NewClient(socket)
		all, err := agent.Attachments(ctx)
		if err != nil {
			away = errors.Join(away, err)
			continue
		}
		var own []local.Interface
		netns := ""
		for _, at := range all {
			if at.Workload == name && at.Project == project && !at.Tap {
				own, netns = append(own, at.Interface), at.Netns
			}
		}
		if netns == "" {
			continue
		}
		status, err := agent.Status(ctx)
		if err != nil {
			return fromAgent(err)
		}
		code, err := run.Enter(netns, local.ResolvConf(own), status.WorkloadAPI, args[1:])
		return &fault.Fault{Code: code, Text: err.Error(), Cause: err}
	}
	if away != nil {
		return fromAgent(away)
	}
	return &fault.Fault{Code: fault.Failed, Text: "no workload " + args[0] + " with a namespace is on this machine",
		Fix: "`moire get workloads -A` shows on which node it is"}
}
