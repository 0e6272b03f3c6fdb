package proxy

import (
	"net/netip"

	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/mesh"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// target is who is at an endpoint, as one Workload of ours sees it, and what the
// Sets of both sides say. It is found once for each endpoint and configuration.
type target struct {
	plan *plan
	from netip.Addr // the caller's
	peer *mesh.Peer // nil: unknown
	out  mesh.Leg
	// own is set when the other side is ours, too: the request crosses in memory.
	own      *workload
	until    int64 // of the certificates of both, wall clock
	at       netip.AddrPort
	caller   *mesh.Peer // as own sees it
	callerID []byte     // when both are in the mesh
	in       mesh.Leg
}

// targetOf is the target at an endpoint.
func (x *exchange) targetOf(e *endpoint) *target {
	work := x.from.flow.work
	from := work.of(e.addr.Addr(), x.from.origin().Addr())
	if t := e.target; t != nil && t.plan == x.plan && t.from == from {
		return t
	}
	if n := x.plan.same(work.Workload); n != nil { // the plan of an exchange may be newer than its connection's
		work = n
	}
	t := &target{plan: x.plan, from: from, at: e.addr, peer: x.plan.mesh.Peer(work.VNI, e.addr.Addr())}
	t.out = work.Leave(t.peer, e.addr)
	if t.own = x.w.crossing(work, t.peer); t.own != nil && from.IsValid() {
		t.caller = x.plan.mesh.Peer(work.VNI, from)
		t.in = t.own.Enter(t.caller, from, e.addr.Port())
		if work.Meshed && t.own.Meshed {
			t.callerID = []byte(work.SPIFFE)
			t.until = min(work.mutual.Until().UnixNano(), t.own.mutual.Until().UnixNano())
		}
	}
	e.target = t
	return t
}

// of is the address that w calls to from: the one that its application uses, or
// its first of the same family; not valid: it has none.
func (w *workload) of(to, used netip.Addr) netip.Addr {
	if to.Is4() == used.Is4() {
		return used
	}
	for _, a := range w.Addresses {
		if to.Is4() == a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// crossing is the Workload of ours at an address that another one of ours calls,
// when both may meet in memory: where they would speak TLS, each has to believe
// the other. Nil: they meet in the network, where both are checked anyway.
func (w *worker) crossing(from *workload, p *mesh.Peer) *workload {
	if p == nil || p.Own == nil || w.homes[p.Own.Namespace] == nil {
		return nil
	}
	to := w.plan.same(p.Own)
	if to == nil || to.IsGateway() || from.Meshed != to.Meshed && to.Strict {
		return nil
	}
	if from.Meshed && to.Meshed && (from.mutual == nil || to.mutual == nil || from.mutual.Meets(to.mutual) != nil) {
		return nil
	}
	return to
}

// refusal is a decision against a request, and how it came to it.
type refusal struct {
	judged *authz.Case
	leg    *mesh.Leg
	policy.Verdict
	drop telemetry.Drop
	tell bool // the caller is told the rule
	// over: the other side of a crossing says no; this one has let it go.
	over bool
}

// permit asks the Sets about a try: that of the caller, and when the other side
// is ours, that of the called one.
func (x *exchange) permit(a *attempt) *failure {
	f := x.from.flow
	if f == nil || f.side != telemetry.Out && !f.gate() || x.inquiry != nil {
		return nil
	}
	if f.gate() {
		x.callOn()
	}
	t := x.targetOf(a.e)
	m := &x.rec.Mesh
	x.rec.Upstream, m.Destination = a.e.addr, number(t.peer)
	v := x.judge(leaving, &t.out, a.e.addr, t.peer)
	m.Rule, m.Tier, m.Shadow = v.Rule, v.Tier, v.Shadow
	if !v.Allow {
		return x.refused(leaving, &t.out, v, false)
	}
	if t.own == nil || !t.from.IsValid() || t.until != 0 && x.w.wall().UnixNano() > t.until {
		return nil
	}
	itself := t.own.VNI == f.work.VNI && t.own.Name == f.work.Name
	if x.passing != nil && !itself && t.own.spoken(a.e.addr.Port(), t.in) != l7.TCP {
		return nil // read at the other end, to which what a Workload sends itself never comes
	}
	return x.cross(a, t)
}

// cross has a try go to an application of ours: no TLS, no second parse, the
// same checks, and a record of that side.
func (x *exchange) cross(a *attempt, t *target) *failure {
	x.crossed = t
	v := x.judge(entering, &t.in, a.e.addr, t.caller)
	m := &x.crossing
	*m = telemetry.Mesh{Side: telemetry.In, VNI: t.own.VNI, Source: number(t.caller), Destination: t.own.Number, Rule: v.Rule, Tier: v.Tier, Shadow: v.Shadow}
	if !v.Allow {
		return x.refused(entering, &t.in, v, t.own.TellRule)
	}
	s := x.w.speakerOf(t.own)
	two := a.p.two
	switch t.own.Port(a.e.addr.Port()) {
	case l7.HTTP1:
		two = false
	case l7.HTTP2:
		two = true
	case l7.AutoHTTP, "":
		if a.p.roams { // as the caller speaks
			two = x.down2 != nil
		}
	}
	a.via = s.roaming(telemetry.In)
	a.e = a.via.end(endKey{addr: a.e.addr, from: t.from, h2: two && x.passing == nil})
	return nil
}

// Decisions about a request, in the order of exchange.cases and judged.
const (
	leaving  = iota // by the egress Set of who calls
	entering        // by the ingress Set of who is called
	atGate          // by the ingress Set of a Gateway, before it calls
	decisions
)

// refused makes a failure of a verdict.
func (x *exchange) refused(at int, l *mesh.Leg, v policy.Verdict, tell bool) *failure {
	drop := telemetry.NoDrop
	if v.Proxy { // a rule asks for requests, and there are none
		drop = telemetry.NotHTTP
	}
	over := x.crossed != nil && at == entering
	x.refusal = refusal{judged: &x.cases[at], leg: l, Verdict: v, drop: drop, tell: tell, over: over}
	flags := telemetry.Denied
	if over {
		flags = 0
	}
	return &failure{flags: flags, result: balance.Canceled, status: 403, reason: "denied by policy", unseen: true, denied: true}
}

// judge says what a leg makes of the request. It may wait.
func (x *exchange) judge(k int, l *mesh.Leg, at netip.AddrPort, other *mesh.Peer) policy.Verdict {
	if l.Session == nil || x.passing != nil {
		return l.Verdict
	}
	if x.judged[k].session == l.Session { // another try, at the same
		return x.judged[k].Verdict
	}
	c := &x.cases[k]
	if !x.describe(c, k, at, other) {
		return policy.Verdict{Rule: l.Rule, Tier: l.Tier}
	}
	v := c.Decide(l.Session)
	if v.Allow {
		c.Change(l.Session, v)
	}
	x.judged[k] = judgement{l.Session, v}
	return v
}

// judgement is a decision about this request that stands.
type judgement struct {
	session *policy.Session
	policy.Verdict
}

// describe says what is decided about: exactly what is sent. False: it has no
// host that all read in one way.
func (x *exchange) describe(c *authz.Case, k int, at netip.AddrPort, other *mesh.Peer) bool {
	w, work := x.w, x.from.flow.work
	host, ok := w.routing.HostOf(x.req.Authority)
	if !ok {
		return false
	}
	x.host = append(x.host[:0], host...)
	now := w.wall()
	c.About = authz.About{Head: &x.req, Host: x.host, GRPC: x.grpc, Protocol: x.rec.Protocol.String(), ID: x.rec.RequestID,
		Now: now.Unix(), Nanos: int32(now.Nanosecond()), Keys: x.plan.mesh.keys, Memory: &w.memory, Holder: x}
	x.asker = x.speaker
	own := authz.Party{Name: work.Name, Principal: work.SPIFFE, Labels: work.Labels}
	them := authz.Party{Address: at}
	if other != nil {
		them.Name, them.Labels = other.Name, other.Labels
	}
	switch {
	case k == leaving:
		own.Address = x.from.origin()
		c.Source, c.Destination = own, them
		return true
	case x.crossed != nil: // the one that is called decides, and asks
		x.asker = w.speakerOf(x.crossed.own)
		to := x.crossed.own
		c.Source = own
		c.Source.Address = x.from.origin()
		c.Destination = authz.Party{Address: at, Name: to.Name, Principal: to.SPIFFE, Labels: to.Labels}
		return true
	}
	own.Address, them.Address = x.from.local, x.from.peer
	if len(x.from.identity) > 0 && other != nil {
		them.Principal = other.SPIFFE
	}
	c.Source, c.Destination = them, own
	return true
}
