package wire

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"moire.dev/moire/snapshot"
)

// FromReport leaves the node's name out: the receiver knows it from the
// certificate.
func FromReport(r *snapshot.Report) *Report {
	out := &Report{Address: r.Address.AsSlice(), Agent: r.Agent, Kernel: r.Kernel, RecordsLost: r.RecordsLost,
		Repairs: r.Repairs, LastRepair: r.LastRepair, Held: r.Held, Trusts: fromTrustMarks(r.Trusts), Proxies: r.Proxies}
	for _, a := range r.Attachments {
		out.Attachments = append(out.Attachments, &Attachment{
			Project: a.Project, Workload: a.Workload, Network: a.Network,
			Account: a.Account, Labels: fromLabels(a.Labels),
			Addresses: fromAddrs(a.Addresses), Mac: fromMAC(a.MAC), Vni: uint32(a.VNI),
			Since: nanos(a.Since), Tap: a.Tap,
		})
	}
	for _, b := range r.Blocks {
		out.Blocks = append(out.Blocks, fromBlock(&b))
	}
	for _, h := range r.Health {
		out.Health = append(out.Health, &Health{Key: fromCheckKey(h.CheckKey), Healthy: h.Healthy, Since: nanos(h.Since), Error: h.Error})
	}
	return out
}

// nanos keeps the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// moment is the time of nanos, in UTC.
func (c *check) moment(field string, n int64) time.Time {
	if n < 0 {
		c.failf(field, "%d is before 1970", n)
	}
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// ToReport checks what a node says and makes the words of it. node is who it
// really is. Times come back in UTC.
func ToReport(node string, in *Report) (snapshot.Report, error) {
	c := check{row: "report"}
	out := snapshot.Report{
		Node:        node,
		Address:     c.addr("address", in.GetAddress()),
		Agent:       c.text("agent", in.GetAgent(), maxName),
		Kernel:      c.text("kernel", in.GetKernel(), maxName),
		RecordsLost: in.GetRecordsLost(),
		Repairs:     in.GetRepairs(),
		LastRepair:  c.lines("last_repair", in.GetLastRepair()),
		Held:        c.lines("held", in.GetHeld()),
		Trusts:      c.trustMarks(in.GetTrusts()),
		Proxies:     c.lines("proxies", in.GetProxies()),
	}
	c.count("attachments", len(in.GetAttachments()), maxReports)
	c.count("blocks", len(in.GetBlocks()), maxReports)
	c.count("health", len(in.GetHealth()), maxReports)
	if c.err != nil {
		return snapshot.Report{}, c.err
	}
	for i, a := range in.GetAttachments() {
		c.row = fmt.Sprintf("report: attachment %d", i)
		out.Attachments = append(out.Attachments, c.attachment(a))
		if c.err != nil {
			return snapshot.Report{}, c.err
		}
	}
	for i, b := range in.GetBlocks() {
		c.row = fmt.Sprintf("report: block %d", i)
		out.Blocks = append(out.Blocks, c.block(b))
		if c.err != nil {
			return snapshot.Report{}, c.err
		}
	}
	for i, h := range in.GetHealth() {
		c.row = fmt.Sprintf("report: health %d", i)
		out.Health = append(out.Health, c.health(h))
		if c.err != nil {
			return snapshot.Report{}, c.err
		}
	}
	c.row = "report"
	ascending(&c, "attachments", out.Attachments, func(a, b snapshot.Attachment) int {
		return a.AttachmentKey.Compare(b.AttachmentKey)
	})
	if c.err != nil {
		return snapshot.Report{}, c.err
	}
	return out, nil
}

func (c *check) attachment(in *Attachment) snapshot.Attachment {
	out := snapshot.Attachment{
		AttachmentKey: snapshot.AttachmentKey{
			Project:  c.name("project", in.GetProject()),
			Workload: c.name("workload", in.GetWorkload()),
			Network:  c.name("network", in.GetNetwork()),
		},
		Account:   c.text("account", in.GetAccount(), maxName),
		Labels:    c.labels("labels", in.GetLabels()),
		Addresses: c.reported(in.GetAddresses()),
		MAC:       c.mac("mac", in.GetMac()),
		Since:     c.moment("since", in.GetSince()),
		Tap:       in.GetTap(),
	}
	// A waiting attachment has no network id yet.
	if in.GetVni() != 0 || len(out.Addresses) > 0 {
		out.VNI = c.vni("vni", in.GetVni())
	}
	return out
}

// reported addresses may be in any order: the node lists them as they were
// taken.
func (c *check) reported(in [][]byte) (out []netip.Addr) {
	if !c.count("addresses", len(in), maxItems) {
		return nil
	}
	for _, b := range in {
		out = append(out, c.addr("addresses", b))
	}
	return out
}

func fromTrustMarks(in []snapshot.TrustMark) []*TrustMark {
	var out []*TrustMark
	for _, m := range in {
		out = append(out, &TrustMark{Name: m.Name, Mark: m.Mark})
	}
	return out
}

func (c *check) trustMarks(in []*TrustMark) []snapshot.TrustMark {
	if !c.count("trusts", len(in), maxReports) {
		return nil
	}
	var out []snapshot.TrustMark
	for _, m := range in {
		out = append(out, snapshot.TrustMark{Name: c.trustName("trusts.name", m.GetName()), Mark: c.name("trusts.mark", m.GetMark())})
	}
	ascending(c, "trusts", out, func(a, b snapshot.TrustMark) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
