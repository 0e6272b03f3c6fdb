package proxy

import "moire.dev/moire/proxy/telemetry"

// followMesh is follow for a connection that came by a Workload's socket: it goes
// by what the network says now. False: it is to leave.
func (f *caller) followMesh(n *plan) bool {
	fl := f.flow
	work := n.same(fl.work.Workload)
	if work == nil {
		f.leaves = true
		return false
	}
	was := fl.work
	fl.work = work
	if fl.gate() {
		return f.followGate(n)
	}
	if fl.side == telemetry.In {
		return f.followIn(n, was)
	}
	at := n.mesh.Frontend(work.Workload, f.local)
	switch {
	case fl.routed && at < 0, !fl.routed && at >= 0:
		f.leaves = true
		return false
	case fl.routed:
		l := n.sameListener(f.ln)
		if l == nil || l.index != at {
			f.leaves = true
			return false
		}
		f.ln = l
	default:
		fl.peer = n.mesh.Peer(work.VNI, f.local.Addr())
		fl.leg = work.Leave(fl.peer, f.local)
		f.ln = work.out
	}
	f.plan, f.speaker = n, f.w.speakerOf(work)
	return true
}

// followIn: who calls has to be who called before, and may speak as it does.
func (f *caller) followIn(n *plan, was *workload) bool {
	fl, work := f.flow, f.flow.work
	before := fl.peer
	fl.peer = n.mesh.Peer(work.VNI, f.peer.Addr())
	fl.leg = work.Enter(fl.peer, f.peer.Addr(), f.local.Port())
	f.ln, f.plan, f.speaker = work.in, n, f.w.speakerOf(work)
	port := f.local.Port()
	switch {
	case f.secure && fl.peer != nil && fl.peer.SPIFFE != string(f.identity):
		fl.barred = telemetry.WrongIdentity
	case !f.secure && work.Strict:
		fl.barred = telemetry.NotInMesh
	case was.spoken(port, fl.leg) == work.spoken(port, fl.leg) && (f.secure || fl.peer == nil || !fl.peer.Mesh || before != nil && before.Mesh):
		return true
	}
	f.leaves = true
	return false
}

// follow implements conn. One that came in and has not shown how it speaks yet is
// judged by what is true when it has: there is nothing yet to compare it with.
func (g *greeting) follow() bool {
	f, n := g.flow, g.w.plan
	if f == nil || f.side != telemetry.In || g.passed || g.manner == plainly || g.shook || g.plan == n {
		return g.caller.follow()
	}
	work := n.same(f.work.Workload)
	if work == nil {
		g.leaves = true
		return false
	}
	f.work, f.peer = work, n.mesh.Peer(work.VNI, g.peer.Addr())
	f.leg = work.Enter(f.peer, g.peer.Addr(), g.local.Port())
	g.ln, g.plan, g.speaker = work.in, n, g.w.speakerOf(work)
	if f.gate() && !g.knock() {
		g.leaves = true
		return false
	}
	return true
}

// stillAllowed asks the Sets of today about a connection that is passed through.
func (x *exchange) stillAllowed() bool {
	f := x.from.flow
	n := x.w.plan
	if f.side == telemetry.In && (!f.gate() || !f.leg.Allow) {
		return f.leg.Allow
	}
	if x.won == nil || x.won.e == nil { // it is asked when it is connected
		return true
	}
	work := n.same(f.work.Workload)
	if work == nil {
		return false
	}
	at := x.won.e.addr
	peer := n.mesh.Peer(work.VNI, at.Addr())
	if leg := work.Leave(peer, at); !leg.Allow {
		return false
	}
	if x.crossed == nil {
		return true
	}
	to := n.same(x.crossed.own.Workload)
	if to == nil {
		return false
	}
	from := work.of(at.Addr(), x.from.origin().Addr())
	leg := to.Enter(n.mesh.Peer(work.VNI, from), from, at.Port())
	return leg.Allow
}

// tellCrossing tells of the other side of a request that crossed in memory.
func (x *exchange) tellCrossing() {
	t := x.crossed
	r := x.rec
	r.Mesh = x.crossing
	r.Route, r.Listener, r.Cluster, r.Local, r.Retries = t.own.enter.tel, t.own.in.id, t.own.app.id, t.at, 0
	if x.refusal.over {
		r.Flags, r.Mesh.Drop = r.Flags|telemetry.Denied, x.refusal.drop
	}
	if t.own.Meshed && t.callerID != nil {
		r.Caller, r.Secure = t.callerID, true
	}
	x.w.tel.RequestStarted(r.Table, r.Route)
	x.w.tel.RequestDone(&r)
}
