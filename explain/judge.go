package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// leg is what one end says.
type leg struct {
	policy.Verdict
	// Proxy of the Verdict is about the packet: a proxy decides here. asks is the
	// rule for which it does; ruled: the Verdict is what it says about the request.
	asks  policy.RuleID
	ruled bool
}

// allowed is what an end says that is not asked.
var allowed = leg{Verdict: policy.Verdict{Allow: true}}

// open: it lets the packet or request through, or some requests.
func (l *leg) open() bool { return l.Allow || l.Proxy && !l.ruled }

// side asks one end. The peer is who the end's node takes peerRow for, at the
// address and port that the end sees. ok: somebody was there to ask.
func (p *path) side(d policy.Direction, own snapshot.Endpoint, peerRow snapshot.Addr, peer netip.Addr, port uint16) (v leg, ok bool) {
	name := StepEgress
	if d == policy.Ingress {
		name = StepIngress
	}
	if p.node(own.Node).External {
		p.step(Step{Name: name, Result: ResultNone, Node: own.Node, Text: "node " + own.Node + " is external: it has no agent that enforces Policies"})
		return allowed, false
	}
	s := p.snaps[own.Node]
	if s == nil {
		p.step(Step{Name: name, Result: ResultDeny, Node: own.Node, Rule: NoSnapshot, Text: "node " + own.Node + " has no snapshot"})
		return leg{Verdict: policy.Verdict{Rule: NoSnapshot}}, true
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
	var walked []policy.Step
	v.Verdict, walked = set.Walk(packet)
	switch opaque := p.opaque && (d == policy.Egress || p.sender(own)); {
	case v.Proxy && opaque:
		v.asks, v.ruled = v.Rule, true
		why := "the port is said not to be HTTP"
		if d == policy.Ingress {
			why = "it is passed on as bytes, and does not leave the proxy, as it comes back to its sender"
		}
		p.step(Step{Name: name, Result: ResultDeny, Node: p.hide(own), Rule: v.Rule, Text: why + ", and a rule has to see requests: the proxy lets nothing through"})
	case v.Proxy && p.exchange != nil:
		v.asks, v.ruled = v.Rule, true
		if walked = p.request(&v, set.Decider().Session(packet)); walked == nil {
			p.step(Step{Name: name, Result: ResultDeny, Node: p.hide(own), Rule: BadRequest, Text: "the proxy refuses the request: " + p.exchange.refused})
		}
	case v.Proxy:
		v.asks = v.Rule
	}
	if !p.sees(own.Project) {
		p.step(Step{Name: name, Result: result(v.Allow), Text: "the other side decides; its project is not yours to see"})
		v.Rule, v.asks, v.Shadow = unseen, unseen, policy.DefaultRule{}
		return v, true
	}
	for _, st := range walked {
		p.policyStep(name, own.Node, st)
	}
	return v, true
}

// sender: e is an address of who sends, in the Network that it sends in.
func (p *path) sender(e snapshot.Endpoint) bool {
	return e.Addr.VNI == p.src.Addr.VNI && e.Project == p.src.Project && e.Workload == p.src.Workload
}

// request lets the proxy of an end decide about the request. No steps: it does
// not take it at all.
func (p *path) request(v *leg, s *policy.Session) []policy.Step {
	r := p.exchange.asked()
	if p.exchange.refused != "" {
		v.Verdict = policy.Verdict{Proxy: true, Rule: BadRequest}
		return nil
	}
	verdict, walked := s.Walk(r)
	verdict.Proxy = true
	v.Verdict = verdict
	if !p.private {
		m := p.mesh()
		m.Path, m.Host = string(r.Path), string(r.Host)
	}
	return walked
}

// unseen stands for the rule of somebody whose project is not to be seen.
const unseen policy.RuleID = "unseen"

func (p *path) policyStep(name, node string, st policy.Step) {
	s := Step{Name: name, Node: node, Tier: st.Tier.String(), Rule: st.Rule, Result: st.Action.String()}
	switch {
	case st.Rule == "":
		s.Result, s.Text = ResultPass, "no rule matches"
	case st.Audit && st.Proxy:
		s.Result, s.Text = ResultAudit, fmt.Sprintf("%s would %s some requests, but its Policy is in mode audit", st.Rule, st.Action)
	case st.Proxy:
		s.Result, s.Text = ResultProxy, fmt.Sprintf("%s: a rule about requests; a proxy decides about each", st.Rule)
	case st.Unknown:
		s.Text = fmt.Sprintf("%s: it cannot be known whether the request is what it denies", st.Rule)
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
func (p *path) finish(e, i leg, eOK, iOK bool) {
	p.EgressRule, p.IngressRule = e.Rule, i.Rule
	p.Allow = e.Allow && i.Allow
	v, d := e, policy.Egress
	switch {
	case !e.open():
	case !i.open():
		v, d = i, policy.Ingress
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
	p.Answer.Proxy = !p.Allow && v.open()
	p.Decides = ByKernel
	if v.Proxy {
		p.Decides = ByProxy
	}
	p.Reason = sentence(p.Allow, v, d)
	if p.exchange != nil {
		p.Unknown = p.exchange.unknown
	}
	p.shadow(e, i)
}

func sentence(allow bool, v leg, d policy.Direction) string {
	word := "denied"
	if allow {
		word = "allowed"
	}
	switch {
	case v.Rule == BadRequest:
		return fmt.Sprintf("denied by %s (%s): the proxy refuses the request with 400", v.Rule, d)
	case v.open() && !v.Allow && v.Rule == unseen:
		return "a proxy of the other side decides about each request (" + d.String() + "), by Policies that are not yours to see"
	case v.open() && !v.Allow:
		return fmt.Sprintf("a proxy decides about each request: %s is about requests (%s, tier %s)", v.Rule, d, v.Tier)
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
func (p *path) shadow(e, i leg) {
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
