// Command moired is the control plane: `moired --help` says how to run it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"moire.dev/moire/control"
)

// Exit codes: 0 ok, 1 failed, 2 wrong usage.
const (
	failed = 1
	usage  = 2
)

// usageError is a mistake of the caller.
type usageError struct{ error }

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	err := root().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "moired:", err)
	if _, wrong := err.(usageError); wrong {
		os.Exit(usage)
	}
	os.Exit(failed)
}

func root() *cobra.Command {
	var cfg control.Config
	level := "info"
	cmd := &cobra.Command{
		Use:   "moired",
		Short: "Run the control plane of Moiré",
		Long: `moired runs the control plane: an API server with its database, discovery for
the nodes, and everything between. It stops on SIGINT or SIGTERM; nodes go on
with what they have.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage.`,
		Example: `  moired                                             # this machine only
  moired --advertise 192.0.2.10 --discovery-listen 0.0.0.0:7444 --api-listen 0.0.0.0:7443
  moired token create                                # lets nodes join`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; see moired --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return usageError{fmt.Errorf("--log-level %q is not debug, info, warn or error", level)}
			}
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
			slog.SetDefault(cfg.Log)
			c, err := control.New(cfg)
			if err != nil {
				return usageError{err}
			}
			return c.Run(cmd.Context())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{fmt.Errorf("%w; see moired --help", err)} })
	all := cmd.PersistentFlags()
	all.SortFlags = false
	all.StringVar(&cfg.Dir, "dir", control.DefaultDir, "directory for state: keys, certificates, database")
	all.StringSliceVar(&cfg.EtcdServers, "etcd-servers", nil, "URLs of an external etcd (default: one inside this process)")
	all.StringVar(&cfg.EtcdCA, "etcd-ca", "", "PEM file with the CA of the external etcd")
	all.StringVar(&cfg.EtcdCert, "etcd-cert", "", "PEM file with our certificate for the external etcd")
	all.StringVar(&cfg.EtcdKey, "etcd-key", "", "PEM file with our key for the external etcd")
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&cfg.APIListen, "api-listen", control.DefaultAPIListen, "host:port of the API; port 0 picks a free one")
	f.StringVar(&cfg.DiscoveryListen, "discovery-listen", control.DefaultDiscoveryListen, "host:port for nodes; the default serves this machine only")
	f.StringSliceVar(&cfg.AdvertiseAddresses, "advertise", nil, "addresses or names under which nodes and users reach this machine (default: those that are listened on)")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "where the administrator's kubeconfig is written (default <run-dir>/kubeconfig)")
	f.StringVar(&cfg.RunDir, "run-dir", control.DefaultRunDir, "directory for kubeconfig and join.json")
	f.StringSliceVar(&cfg.FetchInside, "fetch-inside", nil, "prefixes of private addresses that may be asked for the keys of JWT issuers, which Policies name (default: none)")
	f.StringSliceVar(&cfg.NameServers, "name-servers", nil, "host:port of who resolves the external names of Services (default: those of /etc/resolv.conf)")
	f.DurationVar(&cfg.AwayAfter, "away-after", control.DefaultAwayAfter, "how long a node may be silent before new sessions avoid what is on it")
	f.StringVar(&cfg.DomainCAs, "domain-cas", "", "directory with CAs for Domains, <Domain>/ca.crt, ca.key and roots.crt (default: each Domain gets a CA of its own making)")
	f.StringVar(&cfg.IPFIX, "ipfix", "", "collector of records by IPFIX: udp://host:port or tcp://host:port (default: none)")
	f.StringVar(&cfg.Metrics, "metrics", "", "host:port to serve Prometheus metrics at, such as 127.0.0.1:9465 (default: nowhere)")
	f.StringVar(&level, "log-level", level, "debug, info, warn or error")
	cmd.AddCommand(tokenCommand(&cfg), hashCommand(&cfg))
	return cmd
}

func hashCommand(cfg *control.Config) *cobra.Command {
	return &cobra.Command{
		Use:   "ca-hash",
		Short: "Print the hash of the root certificate that nodes must expect",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hash, err := control.CAHash(*cfg)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), hash)
			}
			return err
		},
	}
}

// none refuses arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}
