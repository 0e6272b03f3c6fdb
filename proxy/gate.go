package proxy

import (
	"net/netip"

	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/proxy/tls"
	"moire.dev/moire/snapshot/l7"
)

// A Gateway is a Workload without an application. What comes to it is let in like
// what comes to any Workload, by its ingress Set, and then is for a Listener; from
// there on it is the Gateway that calls, from its own address and by its own
// egress Set.

// gate: it came to a Gateway.
func (f *flow) gate() bool {
	return f != nil && f.side == telemetry.In && f.work.IsGateway()
}

// knock finds the Listener for what comes to a Gateway; false: there is none.
func (g *greeting) knock() bool {
	i := g.plan.mesh.Gate(g.flow.work.Workload, g.local)
	if i < 0 {
		return false
	}
	g.ln, g.flow.routed = g.plan.listeners[i], true
	return true
}

// pass goes on with what was let in as its Listener says, within the TLS of the
// mesh where the caller speaks that.
func (g *greeting) pass() {
	if !g.ln.conf.HTTP() && !g.flow.leg.Allow { // a rule asks for requests
		g.refuse(g.flow.leg.Verdict, telemetry.NotHTTP)
		return
	}
	g.outer, g.layer, g.shook, g.passed = g.layer, nil, false, true
	g.protocol = g.ln.conf.Protocol
	if t := g.ln.limits.handshake; t > 0 {
		g.w.loop.Arm(&g.timer, g.w.loop.Now+t, g)
	}
	g.advance()
}

// carries says what may come in the TLS of the mesh.
func (g *greeting) carries() tls.Carries {
	if g.flow.gate() {
		if g.ln.tls == nil && g.ln.conf.HTTP() {
			return tls.Requests
		}
		return tls.Bytes
	}
	switch g.flow.work.Port(g.local.Port()) {
	case l7.HTTP1, l7.HTTP2:
		return tls.Requests
	case l7.AutoHTTP: // the application may speak either: the caller has to say
		return tls.Requests1
	}
	return tls.Bytes
}

// origin is the address that endpoints are spoken to from: the application's, of a
// Gateway its own.
func (f *caller) origin() netip.AddrPort {
	if f.flow.gate() {
		return netip.AddrPortFrom(f.local.Addr(), 0)
	}
	return f.peer
}

// letIn asks the ingress Set of a Gateway about a request that its Listener has a
// meaning for; false: it was answered.
func (x *exchange) letIn() bool {
	f := x.from.flow
	return !f.gate() || x.admitIn()
}

// callOn: from here on it is the Gateway that calls. What came to it has a record
// of its own.
func (x *exchange) callOn() {
	if x.came.Side != telemetry.NoSide {
		return
	}
	m := &x.rec.Mesh
	x.came = *m
	m.Side, m.Source = telemetry.Out, x.from.flow.work.Number
	x.rec.Source, x.rec.Caller = x.from.origin(), nil
}

// tellCame tells of what came to a Gateway that called on.
func (x *exchange) tellCame() {
	work := x.from.flow.work
	r := x.rec
	r.Mesh, r.Source, r.Caller, r.Upstream, r.Retries = x.came, x.from.peer, x.from.identity, netip.AddrPort{}, 0
	r.Route, r.Cluster = work.enter.tel, work.app.id
	r.Flags &^= telemetry.Denied // that was said about the other side
	x.w.tel.RequestStarted(r.Table, r.Route)
	x.w.tel.RequestDone(&r)
}

// followGate is followMesh for what came to a Gateway.
func (f *caller) followGate(n *plan) bool {
	fl, work := f.flow, f.flow.work
	fl.peer = n.mesh.Peer(work.VNI, f.peer.Addr())
	fl.leg = work.Enter(fl.peer, f.peer.Addr(), f.local.Port())
	switch proven := len(f.identity) > 0; {
	case proven && fl.peer != nil && fl.peer.SPIFFE != string(f.identity):
		fl.barred = telemetry.WrongIdentity
	case !proven && work.Strict:
		fl.barred = telemetry.NotInMesh
	}
	l := n.sameListener(f.ln)
	if l == nil || n.mesh.Gate(work.Workload, f.local) < 0 || fl.barred != telemetry.NoDrop {
		f.leaves = true
		return false
	}
	f.ln, f.plan, f.speaker = l, n, f.w.speakerOf(work)
	return true
}
