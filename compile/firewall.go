package compile

import (
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Risks that the annotation v1alpha1.AcceptRisk accepts.
const (
	RiskMassDelete = "mass-delete"
	RiskLockOut    = "lock-out"
)

// accepts reports whether the Node accepts a risk.
func accepts(n *v1alpha1.Node, risk string) bool {
	for r := range strings.SplitSeq(n.Annotations[v1alpha1.AcceptRisk], ",") {
		if strings.TrimSpace(r) == risk {
			return true
		}
	}
	return false
}

// firewallOf is the firewall of the node itself; nil: off. One that would lock
// everybody out, which nobody accepted, only counts.
func firewallOf(n *v1alpha1.Node) *snapshot.Firewall {
	f := n.Spec.Firewall
	if f == nil || f.Mode != v1alpha1.FirewallAudit && f.Mode != v1alpha1.FirewallEnforce {
		return nil
	}
	out := &snapshot.Firewall{Audit: f.Mode == v1alpha1.FirewallAudit || locksOut(n), AcceptLockOut: accepts(n, RiskLockOut)}
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

// locksOut: the firewall is to be enforced, nothing allows SSH and nobody
// accepted that.
func locksOut(n *v1alpha1.Node) bool {
	f := n.Spec.Firewall
	if f == nil || f.Mode != v1alpha1.FirewallEnforce || accepts(n, RiskLockOut) {
		return false
	}
	return !slices.ContainsFunc(f.Allow, func(r v1alpha1.FirewallRule) bool {
		return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p v1alpha1.Port) bool {
			pr := portRange(p)
			return pr.Protocol == policy.TCP && pr.First <= 22 && 22 <= pr.Last
		})
	})
}

// firewallProblems says which Nodes would lock everybody out.
func firewallProblems(in *Input) []v1alpha1.Problem {
	var out []v1alpha1.Problem
	for name, n := range in.Nodes {
		if locksOut(n) {
			out = append(out, about(codeLockOut, "Node "+name, "spec.firewall", "no rule allows SSH (tcp/22), so the firewall only counts what it would drop",
				"allow it, or annotate the Node with "+v1alpha1.AcceptRisk+"="+RiskLockOut))
		}
	}
	return out
}
