package flow

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/flow/record"
)

// Kinds of records that a Filter tells apart.
const (
	Sessions = "session"
	Requests = "request"
)

// MaxLimit bounds how many records one query may ask for.
const MaxLimit = 100_000

// Filter says which records are wanted; all that is set must match. The zero
// Filter matches everything.
type Filter struct {
	// From and To match the source and the destination: a project ("shop"), a
	// Workload ("shop/web"), an address or a prefix ("10.0.0.0/24").
	From, To string
	// Verdict is allow or deny.
	Verdict string
	// Project matches when either end is in it.
	Project string
	// Since: only what was recorded at that time or later.
	Since time.Time
	// Rule matches the rule that decided, the ingress rule or the shadow rule,
	// by the whole id or its first segments ("policy/shop/db").
	Rule string
	// ID of the record, of its request (x-request-id) or of its trace.
	ID string
	// Kind is session or request; "": both.
	Kind string
	// Method, Path, Status and Route match requests only: the method, in upper case,
	// the beginning of the path, the status (503) or its class (5xx), and the route,
	// by its whole name or its first segments.
	Method, Path, Status, Route string
	// Limit: only the newest ones; 0 means all that are kept.
	Limit int
}

// ParseFilter reads a Filter from the query parameters from, to, verdict,
// project, since (a time as in RFC 3339, or an age such as 5m before now),
// rule, id, kind, method, path, status, route and limit. Others are ignored.
func ParseFilter(v url.Values, now time.Time) (Filter, error) {
	f := Filter{
		From: v.Get("from"), To: v.Get("to"), Verdict: v.Get("verdict"),
		Project: v.Get("project"), Rule: v.Get("rule"), ID: v.Get("id"),
		Kind: v.Get("kind"), Method: strings.ToUpper(v.Get("method")), Path: v.Get("path"), Status: strings.ToLower(v.Get("status")), Route: v.Get("route"),
	}
	if err := f.checkRequest(); err != nil {
		return Filter{}, err
	}
	switch f.Verdict {
	case "", record.Allow, record.Deny:
	default:
		return Filter{}, fmt.Errorf("verdict=%q is not a verdict; write allow or deny", f.Verdict)
	}
	for _, side := range []struct{ name, want string }{{"from", f.From}, {"to", f.To}} {
		if strings.Count(side.want, "/") > 1 || strings.HasPrefix(side.want, "/") || strings.HasSuffix(side.want, "/") {
			return Filter{}, fmt.Errorf("%s=%q is not an end; write a project, project/workload, an address or a prefix", side.name, side.want)
		}
	}
	if s := v.Get("since"); s != "" {
		since, err := parseSince(s, now)
		if err != nil {
			return Filter{}, err
		}
		f.Since = since
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > MaxLimit {
			return Filter{}, fmt.Errorf("limit=%q is not a number of records; write 0 to %d", s, MaxLimit)
		}
		f.Limit = n
	}
	return f, nil
}

// checkRequest checks what is asked about requests.
func (f *Filter) checkRequest() error {
	about := f.Method + f.Path + f.Status + f.Route
	switch {
	case f.Kind != "" && f.Kind != Sessions && f.Kind != Requests:
		return fmt.Errorf("kind=%q is not a kind; write session or request", f.Kind)
	case f.Kind == Sessions && about != "":
		return fmt.Errorf("kind=session has no method, path, status or route; write kind=request")
	case f.Status != "" && !statusText.MatchString(f.Status):
		return fmt.Errorf("status=%q is not a status; write one such as 503, or a class such as 5xx", f.Status)
	}
	return nil
}

var statusText = regexp.MustCompile(`^[0-9]([0-9]{2}|xx)$`)

func parseSince(s string, now time.Time) (time.Time, error) {
	if age, err := time.ParseDuration(s); err == nil {
		if age < 0 {
			return time.Time{}, fmt.Errorf("since=%q lies in the future; write an age such as 5m", s)
		}
		return now.Add(-age), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("since=%q is neither an age nor a time; write 5m or 2026-01-31T15:04:05Z", s)
	}
	return t, nil
}

// Values is the inverse of ParseFilter.
func (f Filter) Values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{"from": f.From, "to": f.To, "verdict": f.Verdict, "project": f.Project, "rule": f.Rule, "id": f.ID,
		"kind": f.Kind, "method": f.Method, "path": f.Path, "status": f.Status, "route": f.Route} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if !f.Since.IsZero() {
		v.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	if f.Limit > 0 {
		v.Set("limit", strconv.Itoa(f.Limit))
	}
	return v
}

// Match reports whether the Record is wanted; Limit plays no part.
func (f Filter) Match(r *record.Record) bool {
	m := f.matcher()
	return m.match(r)
}

// matcher is a Filter whose ends are parsed.
type matcher struct {
	Filter
	from, to end
}

func (f Filter) matcher() *matcher {
	return &matcher{Filter: f, from: parseEnd(f.From), to: parseEnd(f.To)}
}

func (f *matcher) match(r *record.Record) bool {
	if !f.Since.IsZero() && r.Time.Before(f.Since) {
		return false
	}
	if f.Verdict != "" && r.Verdict != f.Verdict {
		return false
	}
	if f.ID != "" && r.ID != f.ID && r.TraceID != f.ID && (r.Request == nil || r.Request.ID != f.ID) {
		return false
	}
	if f.Project != "" && r.Source.Project != f.Project && r.Destination.Project != f.Project {
		return false
	}
	if f.Rule != "" && !within(r.Rule, f.Rule) && !within(r.IngressRule, f.Rule) && !within(r.ShadowRule, f.Rule) {
		return false
	}
	return f.matchRequest(r) && f.from.match(&r.Source) && f.to.match(&r.Destination)
}

func (f *matcher) matchRequest(r *record.Record) bool {
	if f.Kind != "" && (f.Kind == Requests) != (r.Request != nil) {
		return false
	}
	if f.Method == "" && f.Path == "" && f.Status == "" && f.Route == "" {
		return true
	}
	q := r.Request
	if q == nil || f.Method != "" && q.Method != f.Method || !strings.HasPrefix(q.Path, f.Path) || f.Route != "" && !ofRoute(r.Route, f.Route) {
		return false
	}
	if f.Status == "" {
		return true
	}
	status := strconv.Itoa(q.Status)
	return status == f.Status || f.Status[1:] == "xx" && len(status) == 3 && status[0] == f.Status[0]
}

// ofRoute says whether a route, "HTTPRoute shop/cart", is the one that is asked
// for, or of the project that is, with or without its kind.
func ofRoute(route, want string) bool {
	_, object, _ := strings.Cut(route, " ")
	return within(route, want) || object != "" && within(object, want)
}

// within: rule is want or lies below it.
func within(rule, want string) bool {
	rest, ok := strings.CutPrefix(rule, strings.TrimSuffix(want, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// end is a parsed From or To: a prefix, or a project and perhaps a Workload;
// the zero end matches everything.
type end struct {
	prefix            netip.Prefix
	project, workload string
}

func parseEnd(s string) end {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return end{prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return end{prefix: p}
	}
	project, workload, _ := strings.Cut(s, "/")
	return end{project: project, workload: workload}
}

func (e *end) match(r *record.End) bool {
	if e.prefix.IsValid() {
		return e.prefix.Contains(r.Address.Unmap())
	}
	return (e.project == "" || r.Project == e.project) && (e.workload == "" || r.Workload == e.workload)
}
