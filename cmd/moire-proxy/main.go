// Command moire-proxy is the L7 data plane as a process: see the room proxy.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"moire.dev/moire/proxy/config"
)

// version is set by the linker.
var version = "dev"

// Exit codes beside 0.
const (
	failed   = 1
	badUsage = 2
)

// errUsage marks what is wrong with the command line or the configuration.
var errUsage = errors.New("see --help")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "moire-proxy:", err)
		stop()
		if errors.Is(err, errUsage) {
			os.Exit(badUsage)
		}
		os.Exit(failed)
	}
}

func root() *cobra.Command {
	var s setup
	c := &cobra.Command{
		Use:   "moire-proxy",
		Short: "The L7 proxy of Moiré: HTTP/1.1, HTTP/2, gRPC, TLS and TCP",
		Long: `Serves what a configuration file says. SIGHUP reads the file again; one that
is wrong changes nothing. SIGTERM and SIGINT drain: no new connections, what
goes on may end, then the process does.

With --handover a new process takes the listening sockets of the one that runs,
and that one drains: an upgrade without a connection that is refused.

With --agent it serves what the agent of its node says, in place of a file: the
agent owns the listening sockets, and has an older process drain itself.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; %w", args[0], errUsage)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, errUsage) })
	f := c.Flags()
	f.StringVarP(&s.config, "config", "c", "", "configuration file, YAML or JSON (required, unless there is an agent)")
	f.StringVar(&s.agent, "agent", "", "unix socket of the agent that says what is served")
	f.IntVar(&s.workers, "workers", 0, "workers that serve; 0: what the configuration says, or one for each core")
	f.StringVar(&s.admin, "admin", "", "unix socket of the administrator's door; empty: none")
	f.StringVar(&s.handover, "handover", "", "unix socket at which a successor takes the listening sockets; empty: none")
	f.StringVar(&s.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.ring, "io-uring", "auto", "talk to the kernel through io_uring: auto (if it has all that is needed and allows it, else epoll), on or off")
	f.BoolVar(&s.watch, "watch", false, "read the configuration again when its file changes")
	f.BoolVar(&s.profile, "profile", false, "profiles at the administrator's door")
	c.AddCommand(checkCommand())
	return c
}

func checkCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check",
		Short: "Says what is wrong with a configuration file; serves nothing",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return fmt.Errorf("--config is required; %w", errUsage)
			}
			cfg, err := config.Load(file)
			if err != nil {
				return fmt.Errorf("%w\n%w", err, errUsage)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is good: %d listeners, %d routes, %d clusters\n", file, len(cfg.Listeners), len(cfg.Routes), len(cfg.Clusters))
			return nil
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "configuration file, YAML or JSON (required)")
	return c
}
