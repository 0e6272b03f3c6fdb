package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"moire.dev/moire/datapath"
	"moire.dev/moire/node"
	"moire.dev/moire/node/local"
	"moire.dev/moire/node/proxies"
)

// place is what finds a node: its name and directories.
type place struct{ name, dir, runDir string }

func (p *place) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.name, "name", "", "name of the node (default: the host name)")
	c.Flags().StringVar(&p.dir, "dir", "", "directory for state (default "+node.DefaultStateDir+"/NAME)")
	c.Flags().StringVar(&p.runDir, "run-dir", node.DefaultRunDir, "directory for sockets and pins")
}

func runCommand() *cobra.Command {
	var (
		p            place
		address, log string
		cfg          node.Config
	)
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent until SIGTERM; the kernel side goes on without it",
		Args:  cobra.NoArgs,
		Example: `  moire-node run --server 192.0.2.10:7444 --token ID.SECRET --ca-hash sha256:HEX
  moire-node run        # beside a moired on the same machine`,
		RunE: func(c *cobra.Command, _ []string) error {
			var level slog.Level
			if err := level.UnmarshalText([]byte(log)); err != nil {
				return fmt.Errorf("--log-level %q is none of debug, info, warn, error; %w", log, errUsage)
			}
			if address != "" {
				a, err := netip.ParseAddr(address)
				if err != nil {
					return fmt.Errorf("--address %q is not an address; %w", address, errUsage)
				}
				cfg.Address = a
			}
			cfg.Name, cfg.Dir, cfg.RunDir, cfg.Version = p.name, p.dir, p.runDir, version
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			agent, err := node.New(cfg)
			if err != nil {
				return err
			}
			return agent.Run(c.Context())
		},
	}
	p.flags(c)
	c.Flags().StringVar(&address, "address", "", "address in the underlay (default: of the interface with the default route)")
	c.Flags().StringVar(&cfg.Uplink, "uplink", "", "interface towards the other nodes (default: the one that has the address)")
	c.Flags().StringArrayVar(&cfg.Servers, "server", nil, "host:port of the control plane's discovery; may be repeated (default: what RUN-DIR/join.json says)")
	c.Flags().StringVar(&cfg.Token, "token", "", "token to join with, only needed the first time")
	c.Flags().StringVar(&cfg.CAHash, "ca-hash", "", "sha256:HEX of the control plane's root certificate, only needed the first time")
	c.Flags().IntVar(&cfg.ConntrackMax, "conntrack-max", 0, "connections to remember at most (default: chosen by the kernel side)")
	c.Flags().DurationVar(&cfg.Wait, "wait", node.DefaultWait, "how long an attachment waits for the control plane")
	c.Flags().StringVar(&cfg.Metrics, "metrics", "", "host:port to serve Prometheus metrics at, such as 127.0.0.1:9464 (default: nowhere)")
	c.Flags().StringVar((*string)(&cfg.Proxy), "proxy", string(proxies.Node), "how many proxies: node (one for all), project or workload (one for each), off (what needs one is refused)")
	c.Flags().StringVar(&cfg.ProxyProgram, "proxy-program", "", "path of moire-proxy (default: beside this program)")
	c.Flags().StringVar(&log, "log-level", "info", "debug, info, warn or error")
	return c
}

func cleanupCommand() *cobra.Command {
	var (
		p     place
		purge bool
	)
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of the node from the kernel; stop the agent first",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return node.Cleanup(node.Config{Name: p.name, Dir: p.dir, RunDir: p.runDir}, purge)
		},
	}
	p.flags(c)
	c.Flags().BoolVar(&purge, "purge", false, "remove its state on disk too: certificate, addresses, attachments")
	return c
}

func checkCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "check",
		Short: "Say whether this kernel has what a node needs, and what to do if not",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found := node.Check()
			switch output {
			case "":
				return printChecks(c.OutOrStdout(), found)
			case "json":
				return json.NewEncoder(c.OutOrStdout()).Encode(found)
			}
			return fmt.Errorf("-o %q is not known; leave it out or write json; %w", output, errUsage)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, whose exit code does not tell whether all is well")
	return c
}

// printChecks writes a table; an error says that some failed.
func printChecks(out io.Writer, found []datapath.Check) error {
	bad := 0
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, k := range found {
		if k.OK {
			fmt.Fprintf(w, "ok\t%s\n", k.Name)
			continue
		}
		bad++
		fmt.Fprintf(w, "FAIL\t%s\t%s; %s\n", k.Name, k.Why, k.Fix)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d checks failed", bad)
	}
	return nil
}

func dumpCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "dump",
		Short: "Print everything that the running agent knows and has in the kernel",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return node.Dump(c.Context(), node.Config{Name: p.name, RunDir: p.runDir}, c.OutOrStdout())
		},
	}
	p.flags(c)
	return c
}

func consentCommand() *cobra.Command {
	var p place
	var risk string
	c := &cobra.Command{
		Use:   "consent --accept-risk=mass-delete [VERSION] | --accept-risk=lock-out",
		Short: "Accept a risk that the agent does not take by itself; 'moire-node dump' and 'moire status' say which",
		Long: `Accept a risk that the agent does not take by itself:
  mass-delete  let the snapshot through that is held back because it would remove
               much of what the node is; with VERSION only that one
  lock-out     enforce the firewall of the node although it lets no SSH in`,
		RunE: func(c *cobra.Command, args []string) error {
			if risk != local.RiskMassDelete && risk != local.RiskLockOut {
				return fmt.Errorf("say which risk you accept: --accept-risk=%s or --accept-risk=%s; %w", local.RiskMassDelete, local.RiskLockOut, errUsage)
			}
			if len(args) > 1 || len(args) == 1 && risk != local.RiskMassDelete {
				return fmt.Errorf("give at most the version that the agent names; %w", errUsage)
			}
			in := local.Consent{Risk: risk}
			if len(args) == 1 {
				in.Version = args[0]
			}
			return node.Consent(c.Context(), node.Config{Name: p.name, RunDir: p.runDir}, in)
		},
	}
	p.flags(c)
	c.Flags().StringVar(&risk, "accept-risk", "", "mass-delete or lock-out")
	return c
}
