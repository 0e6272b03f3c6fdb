package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot/l7"
)

// proxyDoors are the subcommands that hand on what a proxy says.
var proxyDoors = []struct{ name, short string }{
	{"listeners", "Show where callers come in"},
	{"clusters", "Show endpoints: health, ejections, load, latency"},
	{"certs", "Show certificates: names and expiry, never keys"},
	{"stats", "Show figures"},
	{"config", "Show the configuration that is served, without its secrets"},
}

func (a *app) proxyCommand() *cobra.Command {
	var f localFlags
	var output string
	c := &cobra.Command{
		Use:   "proxy",
		Short: "Show the proxies of a node of this machine, and what is in them",
		Long: `Show the proxies of a node of this machine: whether they take connections, how
many interfaces they speak for, and why they do not serve what they must be.
Root only: a proxy knows all tenants of its node.`,
		Example: `  sudo moire proxy
  sudo moire proxy routes
  sudo moire proxy clusters --node n1
  sudo moire proxy upgrade`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.proxies(c.Context(), f, output) },
	}
	f.bind(c)
	c.Flags().StringVarP(&output, "output", "o", "", "wide or json")
	a.add(c, "", a.proxyRoutesCommand(), a.proxyUpgradeCommand())
	for _, d := range proxyDoors {
		a.add(c, "", a.proxyDoorCommand(d.name, d.short))
	}
	return c
}

func (a *app) proxies(ctx context.Context, f localFlags, output string) error {
	format, err := show.ParseFormat(output, show.Wide, show.JSON)
	if err != nil {
		return err
	}
	socket, err := f.socket()
	if err != nil {
		return err
	}
	all, err := local.NewClient(socket).Proxies(ctx)
	if err != nil {
		return err
	}
	if format.Kind == show.JSON {
		return json.NewEncoder(a.out).Encode(all)
	}
	if len(all) == 0 {
		a.say("No proxy is needed on this node, so none runs")
		return nil
	}
	grid := show.Grid{Header: []string{"PROXY", "STATE", "PID", "INTERFACES", "STARTS", "MESSAGE"}}
	wide := format.Kind == show.Wide
	if wide {
		grid.Header = append(grid.Header, "LOG")
	}
	for _, p := range all {
		state, message := "ready", p.Error
		if !p.Up || p.Error != "" {
			state = "failing"
		}
		if len(p.LeftOut) > 0 {
			message = strings.TrimPrefix(message+"; left out: "+strings.Join(p.LeftOut, "; "), "; ")
		}
		row := []string{p.Name, state, strconv.Itoa(p.PID), strconv.Itoa(p.Interfaces), strconv.Itoa(p.Starts), orNone(show.Plain(message))}
		if wide {
			row = append(row, p.Log)
		}
		grid.Rows = append(grid.Rows, row)
	}
	if err := grid.Write(a.out, true, a.paint().Cell); err != nil || !wide {
		return err
	}
	for _, p := range all {
		for _, who := range slices.Sorted(maps.Keys(p.Why)) {
			fmt.Fprintf(a.out, "%s needs %s because of %s\n", who, p.Name, show.Plain(p.Why[who]))
		}
	}
	return nil
}

// eachProxy asks the proxies of the node, or the one of that name, for a door.
func (a *app) eachProxy(ctx context.Context, f localFlags, name, door, format string, each func(name string, answer []byte) error) error {
	socket, err := f.socket()
	if err != nil {
		return err
	}
	client := local.NewClient(socket)
	all, err := client.Proxies(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, p := range all {
		if name != "" && p.Name != name {
			continue
		}
		found = true
		var b bytes.Buffer
		if err := client.Proxy(ctx, p.Name, door, format, &b); err != nil {
			return err
		}
		if err := each(p.Name, b.Bytes()); err != nil {
			return err
		}
	}
	switch {
	case name != "" && !found:
		return fault.New(fault.Failed, "`moire proxy` lists them", "there is no proxy %q on this node", name)
	case !found:
		a.say("No proxy is needed on this node, so none runs")
	}
	return nil
}

func (a *app) proxyDoorCommand(door, short string) *cobra.Command {
	var f localFlags
	var output string
	c := &cobra.Command{
		Use:   door + " [PROXY]",
		Short: short,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			format, err := show.ParseFormat(output, show.JSON)
			if err != nil {
				return err
			}
			wanted := "text"
			if format.Kind == show.JSON || door == "config" {
				wanted = "json"
			}
			return a.eachProxy(c.Context(), f, strings.Join(args, ""), door, wanted, func(_ string, answer []byte) error {
				_, err := a.out.Write(answer)
				return err
			})
		},
	}
	f.bind(c)
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

func (a *app) proxyRoutesCommand() *cobra.Command {
	var f localFlags
	var output string
	c := &cobra.Command{
		Use:   "routes [PROXY]",
		Short: "Show the routes of a proxy: whose requests they take, and where these go",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			format, err := show.ParseFormat(output, show.JSON)
			if err != nil {
				return err
			}
			grid := show.Grid{Header: []string{"PROXY", "ROUTE", "KIND", "LISTENERS", "HOSTNAMES", "RULE", "BACKENDS"}}
			err = a.eachProxy(c.Context(), f, strings.Join(args, ""), "config", "json", func(name string, answer []byte) error {
				var cfg l7.Config
				if err := json.Unmarshal(answer, &cfg); err != nil {
					return fmt.Errorf("the configuration of %s cannot be read: %w", name, err)
				}
				if format.Kind == show.JSON {
					return json.NewEncoder(a.out).Encode(cfg.Routes)
				}
				for i := range cfg.Routes {
					grid.Rows = append(grid.Rows, routeRows(name, &cfg.Routes[i])...)
				}
				return nil
			})
			if err != nil || format.Kind == show.JSON || len(grid.Rows) == 0 {
				return err
			}
			return grid.Write(a.out, true, a.paint().Cell)
		},
	}
	f.bind(c)
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

// routeRows is one row for each rule.
func routeRows(proxy string, r *l7.Route) (rows [][]string) {
	kind := r.Kind
	if kind == "" {
		kind = l7.HTTPRoute
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		var to []string
		for _, b := range rule.Backends {
			weight := uint32(1)
			if b.Weight != nil {
				weight = *b.Weight
			}
			to = append(to, fmt.Sprintf("%s=%d", b.Cluster, weight))
		}
		name := rule.Name
		if name == "" {
			name = strconv.Itoa(i)
		}
		rows = append(rows, []string{proxy, show.Plain(r.Name), string(kind), orNone(strings.Join(r.Listeners, ",")), orNone(strings.Join(r.Hostnames, ",")), show.Plain(name), orNone(strings.Join(to, ","))})
	}
	return rows
}

func (a *app) proxyUpgradeCommand() *cobra.Command {
	var f localFlags
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace every proxy of a node by a new process, without a connection that is refused",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			socket, err := f.socket()
			if err != nil {
				return err
			}
			return local.NewClient(socket).ReplaceProxies(c.Context())
		},
	}
	f.bind(c)
	return c
}
