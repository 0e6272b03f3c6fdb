package cli

import (
	"net"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/cli/show"
	"moire.dev/moire/flow/record"
)

func flowHeader(wide bool) []string {
	h := []string{"TIME", "FROM", "TO", "PROTO/PORT", "VERDICT", "RULE", "REASON", "BYTES"}
	if wide {
		h = append(h, "KIND", "NODE", "SOURCE", "DESTINATION", "ID")
	}
	return h
}

func flowRow(r *record.Record, wide bool) []string {
	row := []string{
		r.Time.Local().Format("15:04:05.000"),
		flowEnd(r.Source),
		flowEnd(r.Destination),
		flowPort(r),
		r.Verdict,
		orNone(decider(r)),
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
	if r.Request != nil {
		why = append(why, requestText(r.Request))
	}
	if r.Drop != "" {
		why = append(why, r.Drop)
	} else if r.Tier != "" && r.Request == nil {
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

// decider is the rule that decided.
func decider(r *record.Record) string {
	if r.Verdict == record.Deny && r.Direction == "ingress" && r.IngressRule != "" {
		return r.IngressRule
	}
	return r.Rule
}

func requestHeader(wide bool) []string {
	h := []string{"TIME", "FROM", "TO", "METHOD", "PATH", "STATUS", "LATENCY", "ROUTE", "VERDICT", "RULE"}
	if wide {
		h = append(h, "NODE", "HOST", "CLUSTER", "RETRIES", "FLAGS", "ID")
	}
	return h
}

// longestPath of a request in a table that is not wide.
const longestPath = 60

// shortPath is a path that fits there.
func shortPath(path string) string {
	if len(path) > longestPath {
		return path[:longestPath-1] + "…"
	}
	return path
}

func requestRow(r *record.Record, wide bool) []string {
	q := r.Request
	if q == nil {
		q = &record.Request{}
	}
	path := q.Path
	if !wide {
		path = shortPath(path)
	}
	row := []string{
		r.Time.Local().Format("15:04:05.000"),
		flowEnd(r.Source),
		flowEnd(r.Destination),
		orNone(q.Method),
		orNone(path),
		requestStatus(q),
		r.Latency.Round(10 * time.Microsecond).String(),
		orNone(r.Route),
		r.Verdict,
		orNone(decider(r)),
	}
	if wide {
		row[0] = r.Time.Local().Format("2006-01-02T15:04:05.000Z07:00")
		row = append(row, r.Node, orNone(q.Host), orNone(q.Cluster), strconv.Itoa(q.Retries), orNone(strings.Join(q.Flags, ",")), r.ID)
	}
	for i := range row {
		row[i] = show.Plain(row[i])
	}
	return row
}

// requestStatus is the status that the caller got, for gRPC its own one.
func requestStatus(q *record.Request) string {
	switch {
	case q.Status == 0:
		return "-"
	case q.GRPCStatus != nil:
		return "grpc " + strconv.Itoa(*q.GRPCStatus)
	}
	return strconv.Itoa(q.Status)
}

// requestText is a request in the place of a reason.
func requestText(q *record.Request) string {
	path, _, _ := strings.Cut(q.Path, "?")
	words := append([]string{q.Method, shortPath(path), requestStatus(q)}, q.Flags...)
	if q.Method == "" {
		words[0] = q.Protocol
	}
	return strings.Join(words, " ")
}
