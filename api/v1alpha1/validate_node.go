package v1alpha1

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ssh is the port that a Firewall must let in somewhere.
const ssh = 22

// ValidateNode says what is wrong with a Node.
func ValidateNode(n *Node) []Problem {
	j := newJudge("Node", n.Namespace, n.Name, false)
	if n.Spec.Address == "" {
		j.add(CodeMissing, "spec.address", "write the underlay address, such as 192.0.2.7", "the address is missing")
	} else if _, err := parseIP(n.Spec.Address); err != nil {
		j.add(CodeAddress, "spec.address", "write an IP address without a prefix length, such as 192.0.2.7", "%s", err)
	}
	j.length("spec.zone", n.Spec.Zone, 63)
	j.firewall(n.Spec.Firewall)
	if n.LocksOut() {
		j.add(CodeLockOut, "spec.firewall", "allow TCP port 22 from somewhere, or annotate the Node with "+AcceptRisk+"="+RiskLockOut,
			"no rule lets SSH in, so nobody could reach the node any more")
	}
	return j.problems
}

// AcceptsRisk reports whether the annotation AcceptRisk of the Node consents to
// a risk.
func (n *Node) AcceptsRisk(risk string) bool {
	for r := range strings.SplitSeq(n.Annotations[AcceptRisk], ",") {
		if strings.TrimSpace(r) == risk {
			return true
		}
	}
	return false
}

// LocksOut reports whether the Firewall is to be enforced, no rule lets SSH in
// and nobody accepted that.
func (n *Node) LocksOut() bool {
	f := n.Spec.Firewall
	return f != nil && f.Mode == FirewallEnforce && !n.AcceptsRisk(RiskLockOut) && !slices.ContainsFunc(f.Allow, FirewallRule.lets)
}

func (j *judge) firewall(f *Firewall) {
	if f == nil {
		return
	}
	if f.Mode != "" {
		j.choice("spec.firewall.mode", f.Mode, FirewallOff, FirewallAudit, FirewallEnforce)
	}
	if !j.count("spec.firewall.allow", len(f.Allow), 128) {
		return
	}
	for i := range f.Allow {
		r := &f.Allow[i]
		field := fmt.Sprintf("spec.firewall.allow[%d]", i)
		if r.Name != "" {
			j.ruleName(field+".name", r.Name)
		}
		if j.count(field+".from", len(r.From), 64) {
			for k, c := range r.From {
				if p, err := netip.ParsePrefix(c); err != nil || p.Addr().Is4In6() {
					j.add(CodeCIDR, fmt.Sprintf("%s.from[%d]", field, k), "write a CIDR, such as 192.0.2.0/24", "%q is not a CIDR", c)
				}
			}
		}
		j.ports(field+".ports", r.Ports, 64)
	}
}

// lets reports whether the rule lets SSH in from somewhere.
func (r FirewallRule) lets() bool {
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p Port) bool {
		tcp := p.Protocol == "TCP" || p.Protocol == ""
		return tcp && (p.Port == 0 || p.Port <= ssh && max(p.Port, p.EndPort) >= ssh)
	})
}
