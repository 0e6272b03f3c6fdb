package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// side asks one end. The peer is who the end's node takes peerRow for, at the
// address and port that the end sees. ok: somebody was there to ask.
func (p *path) side(d policy.Direction, own snapshot.Endpoint, peerRow snapshot.Addr, peer netip.Addr, port uint16) (v policy.Verdict, ok bool) {
	name := StepEgress
	if d == policy.Ingress {
		name = StepIngress
	}
	if p.node(own.Node).External {
		p.step(Step{Name: name, Result: ResultNone, Node: own.Node, Text: "node " + own.Node + " is external: it has no agent that enforces Policies"})
		return policy.Verdict{Allow: true}, false
	}
	s := p.snaps[own.Node]
	if s == nil {
		p.step(Step{Name: name, Result: ResultDeny, Node: own.Node, Rule: NoSnapshot, Text: "node " + own.Node + " has no snapshot"})
		return policy.Verdict{Rule: NoSnapshot}, true
	}
	seen, known := s.Endpoints[own.Addr]
	if !known {
		seen = own
	}
	packet := policy.Packet{Peer: s.Endpoints[peerRow].Identity, PeerAddr: peer, Protocol: p.protocol, Port: port}
	if d == policy.Egress {
		packet.Name = p.name
	}
	set := s.Policies[snapshot.PolicyKey{VNI: own.Addr.VNI, Identity: seen.Identity, Direction: d}]
	v, walked := set.Walk(packet)
	if !p.sees(own.Project) {
		p.step(Step{Name: name, Result: result(v.Allow), Text: "the other side decides; its project is not yours to see"})
		return policy.Verdict{Allow: v.Allow, Tier: v.Tier, Rule: unseen}, true
	}
	for _, st := range walked {
		p.policyStep(name, own.Node, st)
	}
	return v, true
}

// unseen stands for the rule of somebody whose project is not to be seen.
const unseen policy.RuleID = "unseen"

func (p *path) policyStep(name, node string, st policy.Step) {
	s := Step{Name: name, Node: node, Tier: st.Tier.String(), Rule: st.Rule, Result: st.Action.String()}
	switch {
	case st.Rule == "":
		s.Result, s.Text = ResultPass, "no rule matches"
	case st.Audit:
		s.Result, s.Text = ResultAudit, fmt.Sprintf("%s would %s, but its Policy is in mode audit", st.Rule, st.Action)
	case st.Tier == policy.Project && strings.HasPrefix(string(st.Rule), "isolated/"):
		s.Text = fmt.Sprintf("%s: the Policy selects the Workload, and no rule of the project matches", st.Rule)
	case st.Rule == policy.NoPolicy:
		s.Text = string(st.Rule) + ": the node has no Policies for this Workload yet"
	default:
		s.Text = string(st.Rule)
	}
	p.step(s)
}

// finish makes one answer of the verdicts of both ends.
func (p *path) finish(e, i policy.Verdict, eOK, iOK bool) {
	p.EgressRule, p.IngressRule = e.Rule, i.Rule
	p.Allow = e.Allow && i.Allow
	v, d := e, policy.Egress
	switch {
	case !e.Allow:
	case !i.Allow:
		v, d = i, policy.Ingress
	case !iOK:
	case !eOK || e.Tier == policy.Default:
		v, d = i, policy.Ingress
	}
	p.Rule = v.Rule
	if v.Rule != "" {
		p.Direction, p.Tier = d.String(), v.Tier.String()
	}
	if v.Rule == unseen {
		p.Tier = ""
	}
	p.Reason = sentence(p.Allow, v, d)
	p.shadow(e, i)
}

func sentence(allow bool, v policy.Verdict, d policy.Direction) string {
	word := "denied"
	if allow {
		word = "allowed"
	}
	switch {
	case v.Rule == "":
		return word + ": no agent enforces Policies at either end"
	case v.Rule == unseen:
		return word + " by the other side (" + d.String() + "), whose Policies are not yours to see"
	case strings.HasPrefix(string(v.Rule), "closed/"):
		return fmt.Sprintf("%s by %s (%s): something needed is missing", word, v.Rule, d)
	}
	return fmt.Sprintf("%s by %s (%s, tier %s)", word, v.Rule, d, v.Tier)
}

// shadow is the verdict of both ends with every audit Policy enforced.
func (p *path) shadow(e, i policy.Verdict) {
	if e.Shadow.ID == "" && i.Shadow.ID == "" {
		return
	}
	es, is := policy.DefaultRule{ID: e.Rule, Allow: e.Allow}, policy.DefaultRule{ID: i.Rule, Allow: i.Allow}
	if e.Shadow.ID != "" {
		es = e.Shadow
	}
	if i.Shadow.ID != "" {
		is = i.Shadow
	}
	s := &Shadow{Allow: es.Allow && is.Allow, Rule: es.ID, Direction: policy.Egress.String()}
	if es.Allow && (!is.Allow || e.Shadow.ID == "") {
		s.Rule, s.Direction = is.ID, policy.Ingress.String()
	}
	p.Shadow = s
}
