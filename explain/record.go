package explain

import (
	"fmt"
	"strings"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// OfRecord is the question about the session or request of a record.
func OfRecord(r *record.Record) (Query, error) {
	q := Query{From: endOf(&r.Source), To: r.Destination.Address.String(), Protocol: r.Protocol, Port: r.Destination.Port, Network: r.Source.Network,
		IPv6: r.Source.Address.Is6()}
	if _, known := protocols[r.Protocol]; !known {
		return q, fmt.Errorf("record %s is of protocol %s, about which nothing can be said but what the record says", r.ID, r.Protocol)
	}
	if q.Network != "" && !strings.Contains(q.Network, "/") {
		q.Network = r.Source.Project + "/" + q.Network
	}
	if host, port, ok := cutPort(r.ServiceAddress); ok {
		q.To, q.Port = host, port
	}
	if r.Protocol == "icmp" {
		q.Port = 0
	}
	if x := r.Request; x != nil && x.Method != "" {
		q.Request = &Request{Method: x.Method, Target: x.Path, Host: x.Host}
		if x.Agent != "" {
			q.Request.Fields = append(q.Request.Fields, Field{"user-agent", x.Agent})
		}
		if x.GRPCStatus != nil {
			q.Request.Fields = append(q.Request.Fields, Field{"content-type", "application/grpc"})
		}
	}
	return q, nil
}

// endOf names an end of a record.
func endOf(e *record.End) string {
	if e.Workload != "" && e.Project != "" && e.VNI != uint32(snapshot.Outside) {
		return "workload " + e.Project + "/" + e.Workload
	}
	return e.Address.String()
}

func cutPort(at string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(at, ':')
	if i < 0 {
		return "", 0, false
	}
	if _, err := fmt.Sscanf(at[i+1:], "%d", &port); err != nil {
		return "", 0, false
	}
	return strings.Trim(at[:i], "[]"), port, true
}

// Happened explains what a record tells, from the snapshots of now. sees and
// origin are as in a Query.
func Happened(r *record.Record, sees func(project string) bool, origin func(policy.RuleID) (string, int), snaps map[string]*snapshot.Snapshot) Answer {
	q, err := OfRecord(r)
	if err != nil {
		return Answer{Error: err.Error(), Steps: []Step{}}
	}
	q.Sees, q.Origin = sees, origin
	a := Packet(q, snaps)
	a.Record = r
	a.Then = then(r)
	a.Differs = differs(&a, r)
	if a.Error != "" {
		a.Error = "what would happen now: " + a.Error + "; what happened: " + a.Then
	}
	return a
}

// then says what happened, in one sentence.
func then(r *record.Record) string {
	text := "allowed"
	if r.Verdict == record.Deny {
		text = "denied"
	}
	if r.Rule != "" {
		text += " by " + r.Rule
	}
	if r.IngressRule != "" && r.IngressRule != r.Rule {
		text += " and " + r.IngressRule
	}
	if r.Drop != "" {
		text += " (" + r.Drop + ")"
	}
	if x := r.Request; x != nil && x.Status != 0 {
		text += fmt.Sprintf(", status %d", x.Status)
	}
	if r.Route != "" {
		text += ", route " + r.Route
	}
	return text
}

// differs says how the answer of now is another one; "": it is not.
func differs(a *Answer, r *record.Record) string {
	allowed := r.Verdict == record.Allow
	switch {
	case a.Error != "", a.Depends:
		return ""
	case a.Proxy:
		return "the record is of a session; rules about requests decide about each of its requests, which have records of their own"
	case a.Allow != allowed && r.Request != nil:
		return "now it is another verdict: intent or world changed since, or rules ask for what a record does not keep, such as headers and tokens"
	case a.Allow != allowed:
		return "now it is another verdict: intent or world changed since"
	case !allowed && r.Rule != "" && string(a.Rule) != r.Rule && string(a.Rule) != r.IngressRule && strings.TrimPrefix(string(a.Rule), "closed/") != r.Drop:
		return "now another rule decides: intent or world changed since"
	}
	return ""
}
