package v1alpha1

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ValidatePolicy says what is wrong with a Policy.
func ValidatePolicy(p *Policy) []Problem {
	j := newJudge("Policy", p.Namespace, p.Name, true)
	spec := &p.Spec
	tier := spec.Tier
	if tier == "" {
		tier = TierProject
	}
	j.choice("spec.tier", tier, TierAdmin, TierProject, TierBaseline)
	j.number("spec.priority", spec.Priority, 0, 1000)
	if spec.Mode != "" {
		j.choice("spec.mode", spec.Mode, ModeEnforce, ModeAudit)
	}
	j.subject(spec.Subject, tier)
	if spec.Ingress == nil && spec.Egress == nil {
		j.add(CodeEmptyPolicy, "spec", "write ingress: [] to deny everything that comes in", "a Policy without ingress and egress does nothing")
	}
	j.rules("ingress", spec.Ingress, tier)
	j.rules("egress", spec.Egress, tier)
	return j.problems
}

func (j *judge) subject(s *Subject, tier string) {
	if s == nil {
		return
	}
	j.selector("spec.subject.labels", s.Labels)
	if j.count("spec.subject.networks", len(s.Networks), 32) {
		j.set("spec.subject.networks", s.Networks)
	}
	if j.count("spec.subject.projects", len(s.Projects), 64) {
		j.set("spec.subject.projects", s.Projects)
	}
	for i, n := range s.Networks {
		j.length(fmt.Sprintf("spec.subject.networks[%d]", i), n, 253)
	}
	for i, n := range s.Projects {
		j.length(fmt.Sprintf("spec.subject.projects[%d]", i), n, 63)
	}
	if tier == TierProject && len(s.Projects) > 0 {
		j.add(CodeProjects, "spec.subject.projects", "remove it or use tier admin", "a project Policy selects Workloads of its own project only")
	}
}

func (j *judge) selector(field string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		j.add(CodeSelector, field, "matchExpressions have the operators In, NotIn, Exists and DoesNotExist; labels are plain names and values", "the label selector is not valid: %v", err)
	}
}

// peerName is a DNS name, or "*." and one.
var peerName = regexp.MustCompile(`^(\*\.)?([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\.?$`)

var ruleName = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)

func (j *judge) rules(direction string, rules []Rule, tier string) {
	list := "spec." + direction
	if !j.count(list, len(rules), 128) {
		return
	}
	names := map[string]bool{}
	for i := range rules {
		r := &rules[i]
		field := fmt.Sprintf("%s[%d]", list, i)
		if r.Name != "" {
			j.ruleName(field+".name", r.Name)
			if names[r.Name] {
				j.warn(CodeRuleName, field+".name", "give each rule a name of its own", "another rule has the name %q too, so this one is known by its index", r.Name)
			}
			names[r.Name] = true
		}
		j.action(field+".action", r.Action, tier)
		if direction == "ingress" && r.To != nil {
			j.add(CodeDirection, field+".to", "move the peers to from, or the rule to egress", "an ingress rule has from, not to")
		}
		if direction == "egress" && r.From != nil {
			j.add(CodeDirection, field+".from", "move the peers to to, or the rule to ingress", "an egress rule has to, not from")
		}
		j.peers(field+".from", r.From, direction)
		j.peers(field+".to", r.To, direction)
		j.matchEqual(field+".matchEqual", r.MatchEqual)
		j.ports(field+".ports", r.Ports, 64)
		j.requests(field, r)
	}
}

func (j *judge) ruleName(field, name string) {
	j.length(field, name, 63)
	if !ruleName.MatchString(name) {
		j.add(CodeName, field, "use lower case letters, digits and '-', beginning with a letter", "%q is not the name of a rule", name)
	}
}

func (j *judge) ports(field string, list []Port, limit int) {
	if !j.count(field, len(list), limit) {
		return
	}
	for i := range list {
		j.port(fmt.Sprintf("%s[%d]", field, i), &list[i])
	}
}

func (j *judge) action(field, action, tier string) {
	switch {
	case action == "":
		j.add(CodeMissing, field, "write allow or deny; in tier admin accept, deny or pass", "the action is missing")
	case !slices.Contains([]string{ActionAllow, ActionDeny, ActionAccept, ActionPass}, action):
		j.choice(field, action, ActionAllow, ActionDeny, ActionAccept, ActionPass)
	case tier == TierAdmin && action == ActionAllow:
		j.add(CodeAction, field, "use accept instead of allow", "tier admin has the actions accept, deny and pass")
	case tier != TierAdmin && (action == ActionAccept || action == ActionPass):
		j.add(CodeAction, field, "use allow or deny, or tier admin", "%s exists only in tier admin", action)
	}
}

func (j *judge) matchEqual(field string, keys []string) {
	if !j.count(field, len(keys), 8) {
		return
	}
	j.set(field, keys)
	for i, k := range keys {
		j.length(fmt.Sprintf("%s[%d]", field, i), k, 317)
	}
}

func (j *judge) peers(field string, peers []Peer, direction string) {
	if !j.count(field, len(peers), 64) {
		return
	}
	for i := range peers {
		p := &peers[i]
		at := fmt.Sprintf("%s[%d]", field, i)
		if p.Labels == nil && p.Network == "" && p.Project == "" && p.CIDR == "" && p.Service == "" && p.Name == "" {
			j.add(CodeEmptyPeer, at, "set labels, network, project, cidr, service or name, or leave the whole list out for everybody", "an empty peer matches nobody")
		}
		j.destination(at, p, direction)
		j.selector(at+".labels", p.Labels)
		j.length(at+".network", p.Network, 253)
		j.length(at+".project", p.Project, 63)
		j.cidr(at, p)
	}
}

// destination checks the two peers that only say where something goes.
func (j *judge) destination(at string, p *Peer, direction string) {
	j.length(at+".service", p.Service, 253)
	j.length(at+".name", p.Name, 253)
	if p.Name != "" && !peerName.MatchString(p.Name) {
		j.add(CodeDNSName, at+".name", "write a name such as api.example.com or *.example.com", "%q is not a DNS name", p.Name)
	}
	for _, f := range []struct{ field, value string }{{"service", p.Service}, {"name", p.Name}} {
		if f.value != "" && direction == "ingress" {
			j.add(CodeDirection, at+"."+f.field, "use labels, network, project or cidr", "%s says where something goes, so it exists only in to of egress rules", f.field)
		}
	}
	others := p.Labels != nil || p.Network != "" || p.CIDR != ""
	switch {
	case p.Name != "" && (others || p.Project != "" || p.Service != ""):
		j.add(CodeAlone, at+".name", "write another peer for the rest", "name stands alone")
	case p.Service != "" && others:
		j.add(CodeAlone, at+".service", "write another peer for the rest", "service stands alone or with project")
	}
}

func (j *judge) cidr(at string, p *Peer) {
	var cidr netip.Prefix
	if p.CIDR != "" {
		var err error
		if cidr, err = ParsePrefix(p.CIDR); err != nil {
			j.add(CodeCIDR, at+".cidr", "write a CIDR without host bits, such as 10.0.0.0/24", "%s", err)
		}
	}
	if p.Except != nil && p.CIDR == "" {
		j.add(CodeExcept, at+".except", "write the cidr from which these are taken away", "except needs cidr")
	}
	if !j.count(at+".except", len(p.Except), 32) {
		return
	}
	for i, text := range p.Except {
		field := fmt.Sprintf("%s.except[%d]", at, i)
		e, err := netip.ParsePrefix(text)
		switch {
		case err != nil || e.Addr().Is4In6():
			j.add(CodeCIDR, field, "write a CIDR, such as 10.0.0.8/32", "%q is not a CIDR", text)
		case cidr.IsValid() && !cidr.Overlaps(e):
			j.warn(CodeExcept, field, "correct or remove it", "%s is not in %s, so it takes nothing away", text, p.CIDR)
		}
	}
}

func (j *judge) port(field string, p *Port) {
	if p.Protocol != "" {
		j.choice(field+".protocol", p.Protocol, "TCP", "UDP", "SCTP", "ICMP")
	}
	if p.Port != 0 {
		j.number(field+".port", p.Port, 1, 65535)
	}
	if p.EndPort != 0 {
		j.number(field+".endPort", p.EndPort, 1, 65535)
	}
	if p.Protocol == "ICMP" && p.Port != 0 {
		j.add(CodeICMPPort, field+".port", "remove port", "ICMP has no ports")
	}
	if p.EndPort != 0 && (p.Port == 0 || p.EndPort < p.Port) {
		j.add(CodeEndPort, field+".endPort", "write port too, and endPort not smaller than it", "a range of ports goes from port to endPort")
	}
}
