package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"moire.dev/moire/cli/fault"
	"moire.dev/moire/cli/remote"
	"moire.dev/moire/cli/show"
	"moire.dev/moire/flow/record"
)

const ownAPI = "/apis/moire.dev/v1alpha1"

// flowsFlags are the flags of `moire flows`.
type flowsFlags struct {
	follow    bool
	from, to  string
	verdict   string
	since     string
	rule      string
	limit     int
	output    string
	noHeaders bool
}

func (a *app) flowsCommand() *cobra.Command {
	var f flowsFlags
	c := &cobra.Command{
		Use:   "flows",
		Short: "Show who talked to whom, what was denied, and by which rule",
		Long: `Show records of sessions: who talked to whom, what was denied, and by which
rule. Without -p the records of every project that you may see are shown.`,
		Example: `  moire flows -p shop --verdict deny
  moire flows -f --from shop/web --to shop/db
  moire flows --since 5m --rule policy/shop/db -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.flows(c.Context(), f) },
	}
	fl := c.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on and show new records as they come")
	fl.StringVar(&f.from, "from", "", "source: PROJECT, PROJECT/WORKLOAD, an address or a prefix")
	fl.StringVar(&f.to, "to", "", "destination, written like --from")
	fl.StringVar(&f.verdict, "verdict", "", "allow or deny")
	fl.StringVar(&f.since, "since", "", "an age such as 5m, or a time such as 2026-01-31T15:04:05Z")
	fl.StringVar(&f.rule, "rule", "", "id of the rule that decided, or its beginning, such as policy/shop/db")
	fl.IntVar(&f.limit, "limit", 0, "only the newest ones (default: 100 when following, otherwise all that are kept)")
	fl.StringVarP(&f.output, "output", "o", "", "wide or json (one record a line)")
	fl.BoolVar(&f.noHeaders, "no-headers", false, "no header line")
	return c
}

func (f *flowsFlags) query() (url.Values, error) {
	q := url.Values{}
	for k, v := range map[string]string{"from": f.from, "to": f.to, "verdict": f.verdict, "since": f.since, "rule": f.rule} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if f.verdict != "" && f.verdict != record.Allow && f.verdict != record.Deny {
		return nil, fault.Usagef("use allow or deny", "--verdict %q is unknown", f.verdict)
	}
	if f.limit < 0 {
		return nil, fault.Usagef("use a number such as 100", "--limit %d is negative", f.limit)
	}
	limit := f.limit
	if f.follow {
		q.Set("follow", "true")
		if limit == 0 {
			limit = 100
		}
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q, nil
}

func (a *app) flows(ctx context.Context, f flowsFlags) error {
	format, err := show.ParseFormat(f.output, show.Wide, show.JSON)
	if err != nil {
		return err
	}
	q, err := f.query()
	if err != nil {
		return err
	}
	project, err := a.workspace()
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	path := ownAPI + "/flows"
	if project != "" {
		path = ownAPI + "/namespaces/" + project + "/flows"
		q.Set("project", project)
	}
	body, header, err := client.Stream(ctx, remote.Request{Path: path, Query: q})
	if err != nil {
		var refused *remote.Refused
		if errors.As(err, &refused) && refused.HTTP == 403 && project == "" {
			return &fault.Fault{Code: fault.Forbidden, Text: refused.Message, Cause: err,
				Fix: "ask for the records of a project that you may see: moire flows -p PROJECT"}
		}
		return err
	}
	defer body.Close()
	p := &flowPrinter{app: a, format: format, follow: f.follow, header: !f.noHeaders}
	p.losses(header.Get("X-Moire-Records-Lost"))
	err = p.read(body)
	if ctx.Err() != nil {
		return p.flush() // interrupted: what there was has been shown
	}
	return errors.Join(err, p.flush())
}

// flowPrinter prints records as they come when following, aligned at the end
// otherwise.
type flowPrinter struct {
	app    *app
	format show.Format
	follow bool
	header bool
	grid   show.Grid
	count  int
}

// flowLine is one line of the answer: a record, or a note on losses.
type flowLine struct {
	record.Record
	// Missed counts records that were overwritten before they could be sent.
	Missed uint64 `json:"missed"`
}

func (p *flowPrinter) read(r io.Reader) error {
	d := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("the records broke off: %w", err)
		}
		var line flowLine
		if err := json.Unmarshal(raw, &line); err != nil {
			return fmt.Errorf("the server sent a record that cannot be read: %w", err)
		}
		if line.Missed > 0 {
			p.app.say("warning: %d records came faster than they could be sent, and are missing here; narrow the question", line.Missed)
			continue
		}
		if err := p.one(&line.Record, raw); err != nil {
			return err
		}
	}
}

// losses tells about records that nobody will see.
func (p *flowPrinter) losses(text string) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > 0 {
		p.app.say("warning: %d records were lost, because they came faster than they could be kept; the list has gaps", n)
	}
}

func (p *flowPrinter) one(r *record.Record, raw []byte) error {
	p.count++
	if p.format.Kind == show.JSON {
		_, err := p.app.out.Write(append(raw, '\n'))
		return err
	}
	if p.grid.Header == nil {
		p.grid.Header = flowHeader(p.format.Kind == show.Wide)
	}
	p.grid.Rows = append(p.grid.Rows, flowRow(r, p.format.Kind == show.Wide))
	if !p.follow {
		return nil
	}
	// Lines that come one by one cannot be measured first.
	widths := []int{15, 26, 26, 12, 10, 34, 22, 10, 10, 14, 24, 24, 16}
	err := p.grid.WriteAt(p.app.out, widths, p.header, p.app.paint().Cell)
	p.grid.Rows, p.header = nil, false
	return err
}

func (p *flowPrinter) flush() error {
	if p.format.Kind != show.JSON && !p.follow && p.count > 0 {
		if err := p.grid.Write(p.app.out, p.header, p.app.paint().Cell); err != nil {
			return err
		}
	}
	if p.count == 0 && !p.follow {
		p.app.say("No records found")
	}
	return nil
}

func flowHeader(wide bool) []string {
	h := []string{"TIME", "FROM", "TO", "PROTO/PORT", "VERDICT", "RULE", "REASON", "BYTES"}
	if wide {
		h = append(h, "KIND", "NODE", "SOURCE", "DESTINATION", "ID")
	}
	return h
}

func flowRow(r *record.Record, wide bool) []string {
	rule := r.Rule
	if r.Verdict == record.Deny && r.Direction == "ingress" && r.IngressRule != "" {
		rule = r.IngressRule
	}
	row := []string{
		r.Time.Local().Format("15:04:05.000"),
		flowEnd(r.Source),
		flowEnd(r.Destination),
		flowPort(r),
		r.Verdict,
		orNone(rule),
		flowReason(r),
		byteCount(r.ForwardBytes + r.ReplyBytes),
	}
	if wide {
		row[0] = r.Time.Local().Format("2006-01-02T15:04:05.000Z07:00")
		row = append(row, string(r.Kind), r.Node, flowAddress(r.Source), flowAddress(r.Destination), r.ID)
	}
	for i := range row {
		row[i] = show.Plain(row[i])
	}
	return row
}

// flowEnd is project/workload, or the address where no Workload is known.
func flowEnd(e record.End) string {
	if e.Workload != "" {
		return e.Project + "/" + e.Workload
	}
	return e.Address.String()
}

func flowAddress(e record.End) string {
	address := e.Address.String()
	if e.Port != 0 {
		address = net.JoinHostPort(address, strconv.Itoa(int(e.Port)))
	}
	if e.Network != "" {
		address += "@" + e.Network
	}
	return address
}

func flowPort(r *record.Record) string {
	if r.Destination.Port == 0 {
		return r.Protocol
	}
	return r.Protocol + "/" + strconv.Itoa(int(r.Destination.Port))
}

func flowReason(r *record.Record) string {
	var why []string
	if r.Drop != "" {
		why = append(why, r.Drop)
	} else if r.Tier != "" {
		why = append(why, strings.TrimSpace(r.Direction+" "+r.Tier))
	}
	if r.ShadowVerdict != "" {
		why = append(why, "audit: would "+r.ShadowVerdict+" by "+orNone(r.ShadowRule))
	}
	return orNone(strings.Join(why, "; "))
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// byteCount is n with a binary unit, at most 6 characters.
func byteCount(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatUint(n, 10)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + units[unit:unit+1]
}
