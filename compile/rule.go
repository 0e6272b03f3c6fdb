package compile

import (
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// parsedPolicy is a Policy with everything parsed that does not depend on a
// Network. It is made once per object.
type parsedPolicy struct {
	key      Key
	tier     policy.Tier
	audit    bool
	subject  parsedSelector
	networks []string
	projects []string
	// selects: the Policy speaks of the direction at all.
	selects [2]bool
	rules   [2][]parsedRule
	// keys are the JWK sets that the rules need, by URI; those to fetch have no JSON.
	keys     map[string]l7.KeySet
	problems []v1alpha1.Problem
}

type parsedRule struct {
	id     policy.RuleID
	field  string
	action policy.Action
	peers  []parsedPeer
	ports  []policy.PortRange
	// equal are the label keys that both ends must share.
	equal    []string
	requests parsedRequests
}

type parsedPeer struct {
	selector parsedSelector
	// project is the one named, "" for the default.
	project, network string
	// labelled: labels are given, if only to select everybody.
	labelled      bool
	service, name string
	cidr          netip.Prefix
	except        []netip.Prefix
}

// parsedSelector is a label selector; a broken one matches nobody, and who
// uses it has to take the closed side.
type parsedSelector struct {
	selector labels.Selector // nil: everybody
	broken   bool
}

func parsePolicy(p *v1alpha1.Policy) *parsedPolicy {
	out := &parsedPolicy{key: Key{p.Namespace, p.Name}, tier: tierOf(p), audit: p.Spec.Mode == v1alpha1.ModeAudit, keys: map[string]l7.KeySet{}}
	if s := p.Spec.Subject; s != nil {
		out.subject = out.parseSelector(p, s.Labels, "spec.subject.labels")
		out.networks, out.projects = s.Networks, s.Projects
	}
	for _, wrong := range v1alpha1.ValidatePolicy(p) {
		// The API server cannot see all of it, such as a path that no request has.
		if wrong.Code == v1alpha1.CodeRequest && !wrong.Warning {
			out.problems = append(out.problems, wrong)
		}
	}
	for d, rules := range [2][]v1alpha1.Rule{policy.Ingress: p.Spec.Ingress, policy.Egress: p.Spec.Egress} {
		dir := policy.Direction(d)
		out.selects[d] = rules != nil
		names := map[string]bool{}
		for i := range rules {
			out.rules[d] = append(out.rules[d], out.parseRule(p, dir, i, names))
		}
	}
	return out
}

func (out *parsedPolicy) parseRule(p *v1alpha1.Policy, dir policy.Direction, i int, names map[string]bool) parsedRule {
	rules, peers := p.Spec.Ingress, []v1alpha1.Peer(nil)
	if dir == policy.Egress {
		rules = p.Spec.Egress
	}
	r := &rules[i]
	name := strconv.Itoa(i)
	if r.Name != "" && !names[r.Name] {
		name, names[r.Name] = r.Name, true
	}
	parsed := parsedRule{
		id:    policy.RuleID("policy/" + p.Namespace + "/" + p.Name + "/" + dir.String() + "/" + name),
		field: "spec." + dir.String() + "[" + strconv.Itoa(i) + "]", action: actionOf(r.Action), equal: r.MatchEqual,
		requests: parseRequests(r, out.keys),
	}
	if parsed.requests.broken {
		out.problems = append(out.problems, about(codeSelector, policyName(p), parsed.field, "a regular expression of the rule is not valid",
			"until it is corrected, what it denies is denied to all and what it allows is allowed to nobody"))
	}
	list := ".from"
	peers = r.From
	if dir == policy.Egress {
		list, peers = ".to", r.To
	}
	for j := range peers {
		parsed.peers = append(parsed.peers, out.parsePeer(p, &peers[j], parsed.field+list+"["+strconv.Itoa(j)+"]"))
	}
	for _, port := range r.Ports {
		parsed.ports = append(parsed.ports, portRange(port))
	}
	return parsed
}

func (out *parsedPolicy) parsePeer(p *v1alpha1.Policy, peer *v1alpha1.Peer, field string) parsedPeer {
	parsed := parsedPeer{project: peer.Project, network: peer.Network, labelled: peer.Labels != nil, service: peer.Service,
		name: strings.ToLower(strings.TrimSuffix(peer.Name, ".")), selector: out.parseSelector(p, peer.Labels, field+".labels")}
	if peer.CIDR == "" {
		return parsed
	}
	cidr, err := netip.ParsePrefix(peer.CIDR)
	if err != nil {
		parsed.selector.broken = true
		return parsed
	}
	parsed.cidr = cidr.Masked()
	for _, text := range peer.Except {
		e, err := netip.ParsePrefix(text)
		if err != nil {
			parsed.selector.broken = true
			continue
		}
		parsed.except = append(parsed.except, e.Masked())
	}
	return parsed
}

func (out *parsedPolicy) parseSelector(p *v1alpha1.Policy, s *metav1.LabelSelector, field string) parsedSelector {
	if s == nil || len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return parsedSelector{}
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		out.problems = append(out.problems, about(codeSelector, policyName(p), field, "the label selector is not valid: "+err.Error(),
			"until it is corrected, what it denies is denied to all and what it allows is allowed to nobody"))
		return parsedSelector{broken: true}
	}
	return parsedSelector{selector: sel}
}

func (s parsedSelector) matches(l labels.Set) bool {
	return !s.broken && (s.selector == nil || s.selector.Matches(l))
}

func actionOf(a string) policy.Action {
	switch a {
	case v1alpha1.ActionAllow, v1alpha1.ActionAccept:
		return policy.Allow
	case v1alpha1.ActionPass:
		return policy.Pass
	}
	return policy.Deny
}

func portRange(p v1alpha1.Port) policy.PortRange {
	out := policy.PortRange{Protocol: policy.TCP, Last: 65535}
	switch p.Protocol {
	case "UDP":
		out.Protocol = policy.UDP
	case "SCTP":
		out.Protocol = policy.SCTP
	case "ICMP":
		out.Protocol = policy.ICMP
	}
	if p.Port > 0 && p.Port <= 65535 {
		out.First, out.Last = uint16(p.Port), uint16(p.Port)
		if p.EndPort > p.Port && p.EndPort <= 65535 {
			out.Last = uint16(p.EndPort)
		}
	}
	return out
}
