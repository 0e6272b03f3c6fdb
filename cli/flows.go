package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	requestFlags
	// count ends it after so many records; 0: not.
	count int
}

// ofRequests is the kind of records of requests.
const ofRequests = "request"

// requestFlags say which requests are wanted.
type requestFlags struct{ kind, method, path, status, route string }

func (f *requestFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.method, "method", "", "only requests with this method")
	fl.StringVar(&f.path, "path", "", "only requests whose path begins so")
	fl.StringVar(&f.status, "status", "", "only requests with this status, such as 503, or of this class, such as 5xx")
	fl.StringVar(&f.route, "route", "", "only requests of this route, [KIND ]PROJECT/NAME, or of a project's")
}

func (a *app) flowsCommand() *cobra.Command {
	var f flowsFlags
	c := &cobra.Command{
		Use:   "flows",
		Short: "Show who talked to whom, what was denied, and by which rule",
		Long: `Show records of sessions and of requests: who talked to whom, what was denied,
and by which rule. Without -p the records of every project that you may see are
shown.`,
		Example: `  moire flows -p shop --verdict deny
  moire flows -f --from shop/web --to shop/db
  moire flows --kind request --status 5xx --route shop/cart
  moire flows --since 5m --rule policy/shop/db -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.flows(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.kind, "kind", "", "session or request (default: both)")
	f.requestFlags.add(fl)
	f.ends(fl)
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on and show new records as they come")
	fl.IntVar(&f.limit, "limit", 0, "only the newest ones (default: 100 when following, otherwise all that are kept)")
	fl.StringVar(&f.since, "since", "", "an age such as 5m, or a time such as 2026-01-31T15:04:05Z")
	return c
}

// ends are the flags that every look at records has.
func (f *flowsFlags) ends(fl *pflag.FlagSet) {
	fl.StringVar(&f.from, "from", "", "source: PROJECT, PROJECT/WORKLOAD, an address or a prefix")
	fl.StringVar(&f.to, "to", "", "destination, written like --from")
	fl.StringVar(&f.verdict, "verdict", "", "allow or deny")
	fl.StringVar(&f.rule, "rule", "", "id of the rule that decided, or its beginning, such as policy/shop/db")
	fl.StringVarP(&f.output, "output", "o", "", "wide or json (one record a line)")
	fl.BoolVar(&f.noHeaders, "no-headers", false, "no header line")
}

func (f *flowsFlags) query() (url.Values, error) {
	q := url.Values{}
	for k, v := range map[string]string{"from": f.from, "to": f.to, "verdict": f.verdict, "since": f.since, "rule": f.rule,
		"kind": f.kind, "method": f.method, "path": f.path, "status": f.status, "route": f.route} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if f.verdict != "" && f.verdict != record.Allow && f.verdict != record.Deny {
		return nil, fault.Usagef("use allow or deny", "--verdict %q is unknown", f.verdict)
	}
	if f.kind != "" && f.kind != "session" && f.kind != ofRequests {
		return nil, fault.Usagef("use session or request", "--kind %q is unknown", f.kind)
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
	body, lost, err := a.openRecords(ctx, q)
	if err != nil {
		return err
	}
	defer body.Close()
	p := &flowPrinter{app: a, format: format, follow: f.follow, header: !f.noHeaders, requests: f.kind == ofRequests}
	a.losses(lost)
	err = a.readRecords(body, func(r *record.Record, raw []byte) (bool, error) {
		err := p.one(r, raw)
		return p.count != f.count, err
	})
	if ctx.Err() != nil {
		return p.flush() // interrupted: what there was has been shown
	}
	return errors.Join(err, p.flush())
}

// openRecords asks for records of the project, or of all; lost is how many nobody
// will see.
func (a *app) openRecords(ctx context.Context, q url.Values) (body io.ReadCloser, lost string, err error) {
	project, err := a.workspace()
	if err != nil {
		return nil, "", err
	}
	client, err := a.client()
	if err != nil {
		return nil, "", err
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
			return nil, "", &fault.Fault{Code: fault.Forbidden, Text: refused.Message, Cause: err,
				Fix: "ask for the records of a project that you may see, with -p PROJECT"}
		}
		return nil, "", err
	}
	return body, header.Get("X-Moire-Records-Lost"), nil
}

// flowLine is one line of the answer: a record, or a note on losses.
type flowLine struct {
	record.Record
	// Missed counts records that were overwritten before they could be sent.
	Missed uint64 `json:"missed"`
}

// readRecords hands out every record until there are no more, or each wants none.
func (a *app) readRecords(r io.Reader, each func(r *record.Record, raw []byte) (more bool, err error)) error {
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
			a.say("warning: %d records came faster than they could be sent, and are missing here; narrow the question", line.Missed)
			continue
		}
		if more, err := each(&line.Record, raw); err != nil || !more {
			return err
		}
	}
}

// losses tells about records that nobody will see.
func (a *app) losses(text string) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > 0 {
		a.say("warning: %d records were lost, because they came faster than they could be kept; the list has gaps", n)
	}
}

// flowPrinter prints records as they come when following, aligned at the end
// otherwise.
type flowPrinter struct {
	app    *app
	format show.Format
	follow bool
	header bool
	// requests: there is nothing else.
	requests bool
	grid     show.Grid
	count    int
}

func (p *flowPrinter) one(r *record.Record, raw []byte) error {
	p.count++
	if p.format.Kind == show.JSON {
		_, err := p.app.out.Write(append(raw, '\n'))
		return err
	}
	// Lines that come one by one cannot be measured first.
	header, row, widths := flowHeader, flowRow, []int{15, 26, 26, 12, 10, 34, 22, 10, 10, 14, 24, 24, 16}
	if p.requests {
		header, row, widths = requestHeader, requestRow, []int{15, 26, 26, 8, 30, 8, 10, 26, 10, 34, 14, 24, 34, 8, 8, 16}
	}
	if p.grid.Header == nil {
		p.grid.Header = header(p.format.Kind == show.Wide)
	}
	p.grid.Rows = append(p.grid.Rows, row(r, p.format.Kind == show.Wide))
	if !p.follow {
		return nil
	}
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
