package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"moire.dev/moire/flow/record"
)

// FromRecords makes batches of records that fit into messages; lost is how
// many the node has dropped since its agent started. There is always one
// batch, so that lost is told even without records.
func FromRecords(in []record.Record, lost uint64) ([]*RecordBatch, error) {
	out := []*RecordBatch{{Lost: lost}}
	size := 0
	for i := range in {
		b, err := json.Marshal(&in[i])
		if err != nil {
			return nil, fmt.Errorf("record %d (%s): %w", i, in[i].ID, err)
		}
		if len(b) > MaxRecord {
			return nil, fmt.Errorf("record %d (%s): %d bytes; at most %d", i, in[i].ID, len(b), MaxRecord)
		}
		last := out[len(out)-1]
		if len(last.Records) > 0 && (size+len(b) > ChunkBytes || len(last.Records) == MaxRecords) {
			last, size = &RecordBatch{Lost: lost}, 0
			out = append(out, last)
		}
		last.Records = append(last.Records, b)
		size += len(b)
	}
	return out, nil
}

// ToRecords checks a batch. node is who really sent it and becomes the Node of
// every record, whatever the record says.
func ToRecords(node string, in *RecordBatch) (out []record.Record, lost uint64, err error) {
	if n := len(in.GetRecords()); n > MaxRecords {
		return nil, 0, fmt.Errorf("%d records in one batch; at most %d", n, MaxRecords)
	}
	for i, b := range in.GetRecords() {
		r, err := toRecord(b)
		if err != nil {
			return nil, 0, fmt.Errorf("record %d: %w", i, err)
		}
		r.Node = node
		out = append(out, r)
	}
	return out, in.GetLost(), nil
}

func toRecord(b []byte) (record.Record, error) {
	var r record.Record
	if len(b) > MaxRecord {
		return r, fmt.Errorf("%d bytes; at most %d", len(b), MaxRecord)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	c := check{row: "record"}
	switch r.Kind {
	case record.Started, record.Update, record.Ended, record.Denied:
	default:
		c.failf("kind", "%.20q is not known", r.Kind)
	}
	switch r.Observer {
	case record.AtSource, record.AtDestination, record.AtBoth, record.AtProxy:
	default:
		c.failf("observer", "%.20q is not known", r.Observer)
	}
	if r.Verdict != record.Allow && r.Verdict != record.Deny {
		c.failf("verdict", "%.20q is not known", r.Verdict)
	}
	c.name("id", r.ID)
	if r.Latency < 0 {
		c.failf("latency", "%s is negative", r.Latency)
	}
	for _, s := range []string{r.Protocol, r.Rule, r.IngressRule, r.Tier, r.Direction, r.ShadowVerdict, r.ShadowRule, r.Drop, r.Service, r.ServiceAddress, r.TranslatedSource, r.TranslatedDestination, r.Via, r.Route, r.TraceID} {
		c.text("texts", s, maxRuleID)
	}
	c.end("source", &r.Source)
	c.end("destination", &r.Destination)
	if r.Request != nil {
		c.request(r.Request)
	}
	return r, c.err
}

func (c *check) request(r *record.Request) {
	for _, s := range []string{r.ID, r.Protocol, r.Method, r.Host, r.Path, r.Listener, r.Rule, r.Cluster, r.SpanID, r.ParentID, r.Agent, r.Forwarded} {
		c.text("request", s, maxRuleID)
	}
	c.texts("request.flags", r.Flags)
	c.texts("request.cut", r.Cut)
	if r.FirstByte < 0 || r.Upstream < 0 {
		c.failf("request", "a negative duration")
	}
	if r.Status < 0 || r.Status > 999 || r.Retries < 0 {
		c.failf("request", "status %d or retries %d", r.Status, r.Retries)
	}
}

// end: an address that never became known is the zero address, and a network
// id that is not known is 0.
func (c *check) end(field string, e *record.End) {
	if e.VNI > maxVNI {
		c.failf(field+".vni", "network id %d is larger than %d", e.VNI, maxVNI)
	}
	if e.Address != (netip.Addr{}) && (e.Address.Zone() != "" || e.Address.Is4In6()) {
		c.failf(field+".address", "%s has a zone or is an IPv4 address in IPv6 form", e.Address)
	}
	for _, s := range []string{e.Domain, e.Project, e.Network, e.Workload, e.Identity, e.Node} {
		c.text(field, s, maxSPIFFE)
	}
	for k, v := range e.Labels {
		c.text(field+".labels", k, maxLabel)
		c.text(field+".labels", v, maxName)
	}
}
