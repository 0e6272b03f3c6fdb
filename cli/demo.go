package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/lab/demo"
	"moire.dev/moire/lab/shop"
)

func (a *app) demoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show two tenants with the same addresses on two nodes of this machine",
		Long: `Show two tenants with the same addresses on two nodes, which are network
namespaces of this machine. It stays until Ctrl-C and then removes every trace;
'moire demo down' does so after a crash.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.demo()
			if err != nil {
				return err
			}
			return d.Run(c.Context())
		},
	}
	a.add(c, "", a.demoDownCommand(), a.demoServeCommand(), a.demoFetchCommand())
	return c
}

func (a *app) demo() (*demo.Demo, error) {
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Forbidden, "run it with sudo", "the demo makes network namespaces and loads eBPF programs, which needs root")
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return demo.New(demo.Config{Exe: exe, Out: a.out, Progress: a.err})
}

func (a *app) demoDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove every trace of a demo, also after a crash",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.demo()
			if err != nil {
				return err
			}
			return d.Down(c.Context())
		},
	}
}

func (a *app) demoServeCommand() *cobra.Command {
	var s shop.Server
	c := &cobra.Command{
		Use:    "serve",
		Short:  "Serve one process of the demo's shop over HTTP",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(c *cobra.Command, _ []string) error { return s.Run(c.Context()) },
	}
	c.Flags().StringVar(&s.Listen, "listen", "[::]:8080", "host:port")
	c.Flags().StringVar(&s.Say, "say", "hello", "the answer")
	c.Flags().StringArrayVar(&s.Ask, "ask", nil, "URL of a neighbour whose answer is added")
	c.Flags().DurationVar(&s.Delay, "delay", 0, "wait before each answer")
	return c
}

func (a *app) demoFetchCommand() *cobra.Command {
	var client shop.Client
	var times int
	c := &cobra.Command{
		Use:   "fetch URL",
		Short: "Get a URL over HTTP, as a client of the demo's shop",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if times > 1 {
				_, err := fmt.Fprint(a.out, client.Tally(c.Context(), args[0], times))
				return err
			}
			got, err := client.Fetch(c.Context(), args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.out, got)
			return err
		},
	}
	c.Flags().DurationVar(&client.Limit, "limit", 3*time.Second, "how long to wait")
	c.Flags().StringArrayVar(&client.Header, "header", nil, "header of the request, 'name: value'")
	c.Flags().IntVar(&times, "times", 1, "fetch it so many times and count equal answers")
	return c
}
