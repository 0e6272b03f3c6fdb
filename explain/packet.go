package explain

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Ids of verdicts that no Policy made: something needed is missing.
const (
	NoRoute    policy.RuleID = "closed/no-route"
	NoSnapshot policy.RuleID = "closed/no-snapshot"
)

// Packet says what happens to the packet, from the snapshots alone.
func Packet(q Query, snaps map[string]*snapshot.Snapshot) Answer {
	w := &walk{q: &q, snaps: snaps}
	w.Steps = []Step{}
	from, to, protocol, err := q.parse()
	if err != nil {
		return w.fail("%s", err)
	}
	w.Protocol, w.Port = strings.ToLower(cmp.Or(q.Protocol, "tcp")), q.Port
	w.protocol = protocol
	if !w.findEnds(from, to) {
		return w.Answer
	}
	if w.route() {
		w.decide()
	}
	w.steps(Step{Name: StepVerdict, Result: result(w.Allow), Rule: w.Rule, Tier: w.Tier, Text: w.Reason})
	return w.Answer
}

// walk is one packet on its way.
type walk struct {
	Answer
	q        *Query
	snaps    map[string]*snapshot.Snapshot
	protocol uint8
	src      snapshot.Endpoint
	dstAddr  netip.Addr
	dstWho   end // what was asked for
	dst      snapshot.Endpoint
}

func (w *walk) fail(format string, args ...any) Answer {
	w.Error = fmt.Sprintf(format, args...)
	return w.Answer
}

func (w *walk) steps(s Step) {
	s.Object = ObjectOf(s.Rule)
	if w.q.Origin != nil && s.Rule != "" {
		s.File, s.Line = w.q.Origin(s.Rule)
	}
	w.Answer.Steps = append(w.Answer.Steps, s)
}

// deny ends the walk for want of something.
func (w *walk) deny(id policy.RuleID, reason string) bool {
	w.Rule, w.Reason = id, reason
	return false
}

func result(allow bool) string {
	if allow {
		return ResultAllow
	}
	return ResultDeny
}

// decide asks the Policies of both ends, each as its own node knows them.
func (w *walk) decide() {
	if w.src.Addr == w.dst.Addr {
		w.Allow, w.Reason = true, "source and destination are the same interface: the packet never leaves the Workload and no Policy is asked"
		return
	}
	egress, eOK := w.side(policy.Egress, w.src, w.dst)
	if egress.Allow {
		ingress, iOK := w.side(policy.Ingress, w.dst, w.src)
		w.finish(egress, ingress, eOK, iOK)
		return
	}
	w.finish(egress, policy.Verdict{}, eOK, false)
	if egress.Shadow.Allow {
		// Only the trial would let it out; ask the other end what then.
		taken := w.Answer.Steps
		ingress, _ := w.side(policy.Ingress, w.dst, w.src)
		w.Answer.Steps = taken
		w.shadow(egress, ingress)
	}
}

// side asks one end. ok: somebody was there to ask.
func (w *walk) side(d policy.Direction, own, peer snapshot.Endpoint) (v policy.Verdict, ok bool) {
	name := StepEgress
	if d == policy.Ingress {
		name = StepIngress
	}
	if w.node(own.Node).External {
		w.steps(Step{Name: name, Result: ResultNone, Node: own.Node, Text: "node " + own.Node + " is external: it has no agent that enforces Policies"})
		return policy.Verdict{Allow: true}, false
	}
	s := w.snaps[own.Node]
	if s == nil {
		w.steps(Step{Name: name, Result: ResultDeny, Node: own.Node, Rule: NoSnapshot, Text: "node " + own.Node + " has no snapshot"})
		return policy.Verdict{Rule: NoSnapshot}, true
	}
	seen, known := s.Endpoints[own.Addr]
	if !known {
		seen = own
	}
	// The peer is who this node takes it for; unknown is identity 0.
	p := policy.Packet{Peer: s.Endpoints[peer.Addr].Identity, PeerAddr: peer.Addr.IP, Protocol: w.protocol, Port: w.Port}
	set := s.Policies[snapshot.PolicyKey{VNI: own.Addr.VNI, Identity: seen.Identity, Direction: d}]
	v, walked := set.Walk(p)
	for _, st := range walked {
		w.policyStep(name, own.Node, st)
	}
	return v, true
}

func (w *walk) policyStep(name, node string, st policy.Step) {
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
	w.steps(s)
}

// finish makes one answer of the verdicts of both ends.
func (w *walk) finish(e, i policy.Verdict, eOK, iOK bool) {
	w.EgressRule, w.IngressRule = e.Rule, i.Rule
	w.Allow = e.Allow && i.Allow
	v, d := e, policy.Egress
	switch {
	case !e.Allow:
	case !i.Allow:
		v, d = i, policy.Ingress
	case !iOK:
	case !eOK || e.Tier == policy.Default:
		v, d = i, policy.Ingress
	}
	w.Rule = v.Rule
	if v.Rule != "" {
		w.Direction, w.Tier = d.String(), v.Tier.String()
	}
	w.Reason = sentence(w.Allow, v, d)
	w.shadow(e, i)
}

func sentence(allow bool, v policy.Verdict, d policy.Direction) string {
	word := "denied"
	if allow {
		word = "allowed"
	}
	switch {
	case v.Rule == "":
		return word + ": no agent enforces Policies at either end"
	case strings.HasPrefix(string(v.Rule), "closed/"):
		return fmt.Sprintf("%s by %s (%s): something needed is missing", word, v.Rule, d)
	}
	return fmt.Sprintf("%s by %s (%s, tier %s)", word, v.Rule, d, v.Tier)
}

// shadow is the verdict of both ends with every audit Policy enforced.
func (w *walk) shadow(e, i policy.Verdict) {
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
	w.Shadow = s
}

// node finds the row of a node in any snapshot.
func (w *walk) node(name string) snapshot.Node {
	if s := w.snaps[name]; s != nil {
		return s.Nodes[name]
	}
	for _, k := range slices.Sorted(maps.Keys(w.snaps)) {
		if n, ok := w.snaps[k].Nodes[name]; ok {
			return n
		}
	}
	return snapshot.Node{Name: name}
}
