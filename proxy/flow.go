package proxy

import (
	"net/netip"

	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/mesh"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// flow is what is known of a connection that came by the sockets of a Workload.
type flow struct {
	side telemetry.Side
	home *home
	work *workload
	// peer is who calls (In), or who is at the address that is called (Out); nil:
	// unknown.
	peer *mesh.Peer
	// leg is what the Set of work says about who calls (In), or who is called at an
	// address where no Listener is (Out).
	leg mesh.Leg
	// routed: a Listener takes it (Out, and what comes to a Gateway).
	routed bool
	// one: its caller says that the application is spoken to in HTTP/1 (In).
	one bool
	// barred: nothing more is let through, and why.
	barred telemetry.Drop
}

// meet takes a connection of a socket in a namespace.
func (w *worker) meet(h *home, side telemetry.Side, fd int, peer netip.AddrPort) {
	local := engine.LocalAddr(fd)
	own := local.Addr()
	if side == telemetry.Out {
		own = peer.Addr()
	}
	work := w.plan.workload(h.name, own)
	g := &greeting{caller: caller{w: w, plan: w.plan, peer: peer, local: local, open: &h.open}}
	c, err := w.loop.Adopt(fd, local, peer, g)
	if err != nil {
		return
	}
	g.c = c
	if work == nil { // it is not known here, or no more: the agent is about to say more
		c.Abort()
		w.p.log.Debug("a connection of no Workload", "namespace", h.name, "local", local, "peer", peer)
		return
	}
	g.flow = &flow{side: side, home: h, work: work}
	g.speaker = w.speakerOf(work)
	g.ln = work.in
	if side == telemetry.Out {
		g.ln = work.out
	}
	if g.flow.gate() && !g.knock() {
		c.Abort()
		w.p.log.Debug("a connection to no Listener of a Gateway", "namespace", h.name, "local", local, "peer", peer)
		return
	}
	h.open++
	g.opened = true
	if most := g.ln.limits.connections; h.open > most {
		w.tel.AddListener(w.plan.table, g.ln.id, telemetry.Refused, 1)
		g.opened = false
		h.open--
		c.Abort()
		return
	}
	if side == telemetry.In {
		g.enter()
	} else {
		g.depart()
	}
}

// admitted counts the connection and lets it wait for what its caller says, for
// so long (nanoseconds; 0: for ever).
func (g *greeting) admitted(patience int64) {
	w := g.w
	w.tel.ConnOpened(g.plan.table, g.ln.id)
	w.conns.enter(g)
	if patience > 0 {
		w.loop.Arm(&g.timer, w.loop.Now+patience, g)
	}
}

// depart is for a connection that a Workload makes: to a Listener of its View, or
// through to where it was made to.
func (g *greeting) depart() {
	w, f := g.w, g.flow
	if i := g.plan.mesh.Frontend(f.work.Workload, g.local); i >= 0 {
		f.routed = true
		g.ln = g.plan.listeners[i]
		if g.protocol = g.ln.conf.Protocol; g.plan.mesh.Bytes(f.work.Workload, i) {
			g.protocol = l7.TCP
		}
		g.admitted(g.ln.limits.handshake)
		g.advance()
		return
	}
	f.peer = g.plan.mesh.Peer(f.work.VNI, g.local.Addr())
	f.leg = f.work.Leave(f.peer, g.local)
	if !f.leg.Open() {
		g.refuse(f.leg.Verdict, telemetry.NoDrop)
		return
	}
	g.admitted(0)
	g.protocol = l7.TCP
	if f.leg.Session != nil {
		g.protocol = l7.AutoHTTP
	} else if to := w.crossing(f.work, f.peer); to != nil {
		// The other side is ours, too: what it has to see is seen here.
		g.protocol = to.spoken(g.local.Port(), to.Enter(w.plan.mesh.Peer(f.work.VNI, g.peer.Addr()), g.peer.Addr(), g.local.Port()))
	}
	g.speak("")
}

// spoken is what has to be read on a port of w: TCP where nobody has to.
func (w *workload) spoken(port uint16, leg mesh.Leg) l7.Protocol {
	switch declared := w.Port(port); {
	case declared == l7.HTTP1 || declared == l7.AutoHTTP:
		return l7.AutoHTTP // callers may speak HTTP/2 all the same
	case declared == l7.HTTP2:
		return declared
	case leg.Session != nil:
		return l7.AutoHTTP
	}
	return l7.TCP
}

// refuse ends a connection that is not let through, and tells of it.
func (g *greeting) refuse(v policy.Verdict, drop telemetry.Drop) {
	g.w.denied(&g.caller, v, drop)
	g.w.loop.Disarm(&g.timer)
	if g.at > 0 {
		g.w.conns.leave(g)
		g.caller.close()
	} else {
		g.opened = false
		*g.open--
	}
	g.c.Abort()
}

// denied tells of a connection that was refused.
func (w *worker) denied(from *caller, v policy.Verdict, drop telemetry.Drop) {
	r := from.turnedAway()
	r.Flags, r.Protocol = telemetry.Denied, telemetry.TCP
	r.Mesh.Rule, r.Mesh.Tier, r.Mesh.Shadow, r.Mesh.Drop = v.Rule, v.Tier, v.Shadow, drop
	if drop != telemetry.NoDrop && drop != telemetry.NotHTTP {
		r.Mesh.Rule = ""
	}
	w.tell(r)
}

// tell puts into m who takes part.
func (f *flow) tell(m *telemetry.Mesh) {
	m.Side, m.VNI = f.side, f.work.VNI
	m.Source, m.Destination = f.work.Number, number(f.peer)
	if f.side == telemetry.In {
		m.Source, m.Destination = number(f.peer), f.work.Number
	}
}

func number(p *mesh.Peer) policy.Identity {
	if p == nil {
		return 0
	}
	return p.Number
}

// way is what counts requests that no route takes.
func (f *flow) way() int32 {
	if f.side == telemetry.In {
		return f.work.enter.tel
	}
	return f.work.leave.tel
}

// unrouted: no Listener takes it.
func (f *flow) unrouted() bool { return f != nil && !f.routed }

// flowing is the flow of a connection; nil: it came by a socket of the proxy.
func (f *caller) flowing() *flow { return f.flow }
