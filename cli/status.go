package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether every node has what it should have",
		Long: `Show, for each node, which version the control plane wants it to have, which it
has acknowledged and which it has applied, its last error, since when it is
stale, and how many records it lost. Exit code 1: a node is not Ready.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.status(c.Context(), watch, output) },
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on and show every change")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return c
}

func (a *app) status(ctx context.Context, watch bool, output string) error {
	format, err := show.ParseFormat(output, show.JSON, show.YAML)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	last := ""
	for {
		nodes, err := nodesOf(ctx, client)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		text, err := a.statusText(nodes, format, time.Now())
		if err != nil {
			return err
		}
		if !watch {
			if _, err := fmt.Fprint(a.out, text); err != nil {
				return err
			}
			return a.judge(nodes)
		}
		if text != last {
			if last != "" {
				text = "\n" + text
			}
			if _, err := fmt.Fprint(a.out, text); err != nil {
				return err
			}
			last = strings.TrimPrefix(text, "\n")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// nodesOf lists the nodes by name.
func nodesOf(ctx context.Context, client *remote.Client) ([]v1alpha1.Node, error) {
	answer, err := client.Do(ctx, remote.Request{Path: ownAPI + "/nodes"})
	if err != nil {
		return nil, err
	}
	var list v1alpha1.NodeList
	if err := json.Unmarshal(answer.Body, &list); err != nil {
		return nil, fmt.Errorf("the list of nodes cannot be read: %w", err)
	}
	slices.SortFunc(list.Items, func(x, y v1alpha1.Node) int { return strings.Compare(x.Name, y.Name) })
	return list.Items, nil
}

// statusOf is one line of `moire status -o json`.
type statusOf struct {
	Node        string     `json:"node"`
	Address     string     `json:"address"`
	State       string     `json:"state"`
	Wanted      string     `json:"wanted,omitempty"`
	Acked       string     `json:"acked,omitempty"`
	Applied     string     `json:"applied,omitempty"`
	StaleSince  *time.Time `json:"staleSince,omitempty"`
	RecordsLost int64      `json:"recordsLost"`
	Workloads   int32      `json:"workloads"`
	LastError   string     `json:"lastError,omitempty"`
	Held        string     `json:"held,omitempty"`
	Repairs     int64      `json:"repairs,omitempty"`
	LastRepair  string     `json:"lastRepair,omitempty"`
	Proxies     string     `json:"proxies,omitempty"`
	Agent       string     `json:"agent,omitempty"`
	Kernel      string     `json:"kernel,omitempty"`
}

func statusLines(nodes []v1alpha1.Node) []statusOf {
	lines := make([]statusOf, 0, len(nodes))
	for _, n := range nodes {
		s := statusOf{
			Node: n.Name, Address: n.Spec.Address, State: n.Status.State,
			Wanted: n.Status.Wanted, Acked: n.Status.Acked, Applied: n.Status.Applied,
			RecordsLost: n.Status.RecordsLost, Workloads: n.Status.Workloads, LastError: n.Status.LastError,
			Held: n.Status.Held, Repairs: n.Status.Repairs, LastRepair: n.Status.LastRepair, Proxies: n.Status.Proxies, Agent: n.Status.Agent, Kernel: n.Status.Kernel,
		}
		if s.State == "" && n.Spec.External {
			s.State = v1alpha1.NodeExternal
		}
		if s.State == "" {
			s.State = "Unknown"
		}
		if s.State == v1alpha1.NodeStale && n.Status.LastSeen != nil {
			s.StaleSince = &n.Status.LastSeen.Time
		}
		lines = append(lines, s)
	}
	return lines
}

func (a *app) statusText(nodes []v1alpha1.Node, format show.Format, now time.Time) (string, error) {
	var b strings.Builder
	lines := statusLines(nodes)
	if format.Kind != show.AsTable {
		err := writeValue(&b, format, map[string]any{"nodes": lines})
		return b.String(), err
	}
	if len(lines) == 0 {
		return "", nil
	}
	grid := show.Grid{Header: []string{"NODE", "ADDRESS", "STATE", "WANTED", "ACKED", "APPLIED", "STALE SINCE", "WORKLOADS", "LOST", "LAST ERROR"}}
	for _, s := range lines {
		stale := "-"
		if s.StaleSince != nil {
			stale = s.StaleSince.Local().Format("15:04:05") + " (" + age(now.Sub(*s.StaleSince)) + ")"
		}
		grid.Rows = append(grid.Rows, []string{
			s.Node, s.Address, s.State, short(s.Wanted), short(s.Acked), short(s.Applied), stale,
			strconv.Itoa(int(s.Workloads)), strconv.FormatInt(s.RecordsLost, 10), show.Plain(orNone(cmp.Or(s.LastError, s.Proxies))),
		})
	}
	err := grid.Write(&b, true, a.paint().Cell)
	return b.String(), err
}

// judge says what is wrong with nodes that are not Ready.
func (a *app) judge(nodes []v1alpha1.Node) error {
	if len(nodes) == 0 {
		a.say("no node has joined yet; start an agent with `moire up` or `moire-node run`")
		return fault.Exit(fault.Failed)
	}
	bad := 0
	for _, s := range statusLines(nodes) {
		switch s.State {
		case v1alpha1.NodeReady, v1alpha1.NodeExternal:
			continue
		case v1alpha1.NodeUpdating:
			a.say("%s is applying %s; look again in a moment with `moire status -w`", s.Node, short(s.Wanted))
		case v1alpha1.NodeFailing:
			if s.LastError == "" {
				a.say("%s refuses what needs its proxies, or serves it as before: %s; look there with `moire proxy`", s.Node, s.Proxies)
			} else {
				a.say("%s cannot apply %s: %s", s.Node, short(s.Wanted), s.LastError)
			}
		case v1alpha1.NodeHeld:
			a.say("%s waits for consent: %s", s.Node, s.Held)
		case v1alpha1.NodeStale:
			a.say("%s is away and goes on with what it has; look at its agent there with `moire check`", s.Node)
		default:
			a.say("%s has not been heard of", s.Node)
		}
		bad++
	}
	if bad > 0 {
		return fault.Exit(fault.Failed)
	}
	return nil
}

// short is enough of a version to tell it from others.
func short(version string) string {
	if len(version) > 12 {
		return version[:12]
	}
	return orNone(version)
}

// age is a duration in the words of kubectl: 5s, 3m, 2h, 4d.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
