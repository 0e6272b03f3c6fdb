// Command moire-node is the agent of one node: see the room node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

// Exit codes beside 0.
const (
	failed   = 1
	badUsage = 2
)

// errUsage marks what is wrong with the command line.
var errUsage = errors.New("see --help")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "moire-node:", err)
		stop()
		if errors.Is(err, errUsage) {
			os.Exit(badUsage)
		}
		os.Exit(failed)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "moire-node",
		Short:         "The agent of a Moiré node: attaches Workloads and makes the kernel match the snapshot",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; %w", args[0], errUsage)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, errUsage) })
	c.AddCommand(runCommand(), cleanupCommand(), checkCommand(), dumpCommand(), consentCommand())
	return c
}
