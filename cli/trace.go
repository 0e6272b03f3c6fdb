package cli

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
)

// traceFlags are the flags of `moire trace`: those of explain, and live.
type traceFlags struct {
	explainFlags
	live bool
	wait time.Duration
}

// traced is the answer of `moire trace`. Its JSON field names are stable.
type traced struct {
	Expected explain.Answer `json:"expected"`
	// Seen are the hops that the probe was seen at; nil without --live.
	Seen []seenHop `json:"seen,omitempty"`
	// Agrees: what was seen has the verdict and the rule that were expected.
	Agrees *bool `json:"agrees,omitempty"`
}

type seenHop struct {
	Time    time.Time `json:"time"`
	Node    string    `json:"node"`
	Where   string    `json:"where"`
	Verdict string    `json:"verdict,omitempty"`
	Rule    string    `json:"rule,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Packet  string    `json:"packet,omitempty"`
}

func (a *app) traceCommand() *cobra.Command {
	f := traceFlags{}
	c := &cobra.Command{
		Use:   "trace --from P/W --to P/W|ADDRESS --port N [--live]",
		Short: "Follow a packet: what should happen, and with --live what does",
		Long: `Follow a packet on its way: every step that it should take and, with --live,
every place that a real probe was seen at, side by side. The probe is one packet
that the node of the source sends exactly as the Workload would; Policies decide
about it as about every other. Exit code 1 when what was seen differs.`,
		Example: `  moire trace --from shop/web --to shop/db --port 5432
  moire trace --from shop/web --to shop/db --port 5432 --live`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.trace(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "source: PROJECT/WORKLOAD, or WORKLOAD of the project")
	fl.StringVar(&f.to, "to", "", "destination: a workload, a service or an address")
	fl.IntVar(&f.port, "port", 0, "destination port; icmp has none")
	fl.StringVar(&f.protocol, "proto", "tcp", "tcp, udp, sctp or icmp")
	fl.StringVar(&f.network, "network", "", "network, where both ends share several")
	fl.BoolVarP(&f.ipv6, "ipv6", "6", false, "use the IPv6 addresses of workloads that have both families")
	fl.BoolVar(&f.live, "live", false, "send a probe and show where it was seen")
	fl.DurationVar(&f.wait, "wait", 2*time.Second, "with --live: how long to look for the probe, at most 30s")
	fl.StringVarP(&f.output, "output", "o", "", "json or yaml")
	return c
}

func (a *app) trace(ctx context.Context, f traceFlags) error {
	format, err := show.ParseFormat(f.output, show.JSON, show.YAML)
	if err != nil {
		return err
	}
	if f.wait < time.Second || f.wait > 30*time.Second {
		return fault.Usagef("use a length from 1s to 30s", "--wait %s is too short or too long", f.wait)
	}
	var out traced
	if out.Expected, err = a.explainServer(ctx, f.explainFlags); err != nil {
		return err
	}
	if out.Expected.Error != "" {
		return fault.Usagef("`moire get workloads -A` shows what there is", "cannot tell: %s", out.Expected.Error)
	}
	if f.live {
		if err := a.probe(ctx, f, &out); err != nil {
			return err
		}
	}
	if format.Kind != show.AsTable {
		err = writeValue(a.out, format, out)
	} else {
		_, err = fmt.Fprint(a.out, out.text())
	}
	if err == nil && out.Agrees != nil && !*out.Agrees {
		return fault.Exit(fault.Failed)
	}
	return err
}

// probe sends a packet and collects the hops that it was seen at.
func (a *app) probe(ctx context.Context, f traceFlags, out *traced) error {
	e := &out.Expected
	if e.Source == nil || e.Source.Workload == "" {
		return fault.Usagef("name a workload with --from", "a probe is sent in the name of a workload, and %s is none", f.from)
	}
	to := e.Sent
	if a, err := netip.ParseAddrPort(to); err == nil {
		to = a.Addr().String()
	}
	if to == "" && e.Destination != nil {
		to = e.Destination.Address.String()
	}
	q := url.Values{"trace": {"1"}, "probe": {"1"}, "from": {e.Source.Workload}, "to": {to}, "protocol": {e.Protocol}, "seconds": {strconv.Itoa(int(f.wait.Seconds()))}}
	if e.Source.Network != "" {
		q.Set("network", e.Source.Network)
	}
	if e.Port != 0 {
		q.Set("port", strconv.Itoa(int(e.Port)))
	}
	err := a.openCaptures(ctx, e.Source.Project, q, func() {}, func(p snapshot.Captured) error {
		out.Seen = append(out.Seen, seenHop{Time: p.Time, Node: p.Node, Where: p.Where, Verdict: p.Verdict, Rule: p.Rule, Reason: p.Reason, Packet: p.Text})
		return nil
	})
	if err != nil {
		return err
	}
	if len(out.Seen) == 0 {
		return &fault.Fault{Code: fault.Failed, Text: "the probe was seen nowhere", Fix: "is the node of " + f.from + " connected? `moire get nodes` tells"}
	}
	slices.SortStableFunc(out.Seen, func(a, b seenHop) int { return a.Time.Compare(b.Time) })
	agrees := out.agrees()
	out.Agrees = &agrees
	return nil
}

// notProxy is the reason for which the kernel refuses what only a proxy may say.
const notProxy = "needs-proxy"

// proxied: only the proxy of the source may say this. The probe is not from it, so
// the kernel has to refuse it, if Policies have not.
func (t *traced) proxied() bool {
	m := t.Expected.Mesh
	return m != nil && slices.ContainsFunc(m.Proxies, func(p explain.Proxy) bool { return p.Side == explain.AtSource })
}

// agrees compares the last word of what was seen with what was expected. The
// answer to the probe may have been seen too: the first denial counts.
func (t *traced) agrees() bool {
	h, denied := t.denial()
	want := string(t.Expected.Rule)
	switch {
	case !denied: // where rules about requests decide, a packet alone passes
		return !t.proxied() && (t.Expected.Allow || t.Expected.Proxy)
	case h.Reason == notProxy:
		return t.proxied()
	}
	return !t.Expected.Allow && (h.Rule == "" || want == h.Rule || strings.TrimPrefix(want, "closed/") == h.Reason)
}

// denial is the first one that was seen.
func (t *traced) denial() (seenHop, bool) {
	i := slices.IndexFunc(t.Seen, func(h seenHop) bool { return h.Verdict == "deny" })
	if i < 0 {
		return seenHop{}, false
	}
	return t.Seen[i], true
}

// text is for people: the steps that were expected, then the hops.
func (t *traced) text() string {
	var b strings.Builder
	t.Expected.Text(&b)
	if t.Seen == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "\nseen of a probe:\n")
	first := t.Seen[0].Time
	for _, h := range t.Seen {
		what := h.Verdict
		if h.Rule != "" {
			what += " by " + h.Rule
		}
		if h.Reason != "" {
			what += ": " + h.Reason
		}
		fmt.Fprintf(&b, "  %+7.3f ms  %-12s %-14s %s  %s\n", float64(h.Time.Sub(first).Microseconds())/1000, h.Node, h.Where, h.Packet, what)
	}
	h, _ := t.denial()
	switch {
	case !*t.Agrees:
		fmt.Fprintln(&b, "NOT as expected")
	case h.Reason == notProxy:
		fmt.Fprintln(&b, "as expected: only the proxy of the source may say this, and the kernel refuses everybody else, as it did the probe; what the proxy does is told above")
	default:
		fmt.Fprintln(&b, "as expected")
	}
	return b.String()
}
