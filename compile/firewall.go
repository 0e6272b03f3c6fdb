package compile

import (
	"net/netip"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// firewallOf is the firewall of the node itself; nil: off. One that would lock
// everybody out, which nobody accepted, only counts.
func firewallOf(n *v1alpha1.Node) *snapshot.Firewall {
	f := n.Spec.Firewall
	if f == nil || f.Mode != v1alpha1.FirewallAudit && f.Mode != v1alpha1.FirewallEnforce {
		return nil
	}
	out := &snapshot.Firewall{Audit: f.Mode == v1alpha1.FirewallAudit || n.LocksOut(), AcceptLockOut: n.AcceptsRisk(v1alpha1.RiskLockOut)}
	for _, r := range f.Allow {
		row := snapshot.FirewallRule{Name: r.Name}
		broken := false
		for _, text := range r.From {
			p, err := netip.ParsePrefix(text)
			broken = broken || err != nil
			row.From = append(row.From, p.Masked())
		}
		for _, p := range r.Ports {
			pr := portRange(p)
			row.Ports = append(row.Ports, snapshot.HostPort{Protocol: pr.Protocol, First: pr.First, Last: pr.Last})
		}
		if !broken { // it would allow more than it says
			out.Allow = append(out.Allow, row)
		}
	}
	return out
}

// firewallProblems says which Nodes would lock everybody out.
func firewallProblems(in *Input) []v1alpha1.Problem {
	var out []v1alpha1.Problem
	for name, n := range in.Nodes {
		if n.LocksOut() {
			out = append(out, about(codeLockOut, "Node "+name, "spec.firewall", "no rule allows SSH (tcp/22), so the firewall only counts what it would drop",
				"allow it, or annotate the Node with "+v1alpha1.AcceptRisk+"="+v1alpha1.RiskLockOut))
		}
	}
	return out
}
