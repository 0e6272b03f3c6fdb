package proxy

import (
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"

	"golang.org/x/sys/unix"
)

// passing owns a connection that is passed through: TCP, or TLS that is not
// opened. It is served as an exchange whose both messages are bytes until the
// end of their side.
type passing struct {
	caller
	c *engine.Conn
	x *exchange
}

// serveRule passes a connection to a rule; nil closes it.
func serveRule(from caller, c *engine.Conn, r *route.Rule, protocol telemetry.Protocol, name []byte) {
	w := from.w
	t := &passing{caller: from, c: c}
	c.SetOwner(t)
	w.conns.enter(t)
	x := w.newExchange(&t.caller)
	t.x = x
	x.passing = t
	x.down.c = c
	x.down.tunnel = true
	x.down.framing, x.down.out = raw, raw
	x.req.Framing = raw
	if r != nil {
		x.rule = x.plan.rules[r.ID]
		x.rec.Route = x.rule.tel
	}
	x.rec.Host = name
	x.rec.Protocol = protocol
	x.begin()
}

// Ready implements engine.Owner.
func (t *passing) Ready(*engine.Conn) { t.x.wake() }

// drain implements conn: a connection that is passed through ends when its ends
// want, or when the proxy's time is up.
func (t *passing) drain(last bool) {
	if last {
		t.c.Err = unix.ESHUTDOWN
		t.x.wake()
	}
}

// follow implements conn: what is not allowed any more ends, as in the kernel.
func (t *passing) follow() bool {
	if t.flow == nil || t.plan == t.w.plan {
		return t.caller.follow()
	}
	if !t.caller.follow() && t.flow.barred != telemetry.NoDrop || !t.x.stillAllowed() {
		t.x.rec.Flags |= telemetry.Denied
		t.drain(true)
	}
	return true
}

// sweep implements conn: what is passed through has the times of its exchange.
func (t *passing) sweep(int64) {}

// cut implements conn.
func (t *passing) cut() { t.drain(true) }

// end closes both sides, at once when something broke.
func (t *passing) end(x *exchange) {
	w := t.w
	w.conns.leave(t)
	t.caller.close()
	if x.broken {
		t.c.Abort()
	} else {
		t.c.CloseSoon()
	}
	w.freeExchange(x)
}

// endPassing ends the connection to the endpoint.
func (x *exchange) endPassing(err error) {
	result := balance.Success
	if err != nil {
		x.broken = true
		switch {
		case x.down.gone() || err == errCaller:
			x.rec.Flags |= telemetry.CallerClosed
		case err == errStall:
			x.rec.Flags |= telemetry.StreamIdle
		default:
			x.rec.Flags |= telemetry.UpstreamClosed
		}
	}
	x.rec.UpstreamEnd = x.w.loop.Now
	x.won.finish(result, 0, false)
	x.live = 0
}

// pass is serve for a connection that is passed through.
func (x *exchange) pass() {
	w := x.w
	if !x.direct() {
		x.broken = true
		return
	}
	for {
		_, why := x.start(false)
		if why == nil {
			why = x.connectOnly()
		}
		if why == nil {
			break
		}
		if why.unseen && x.tried < 3 && why.status != 499 && why.flags&telemetry.UpstreamFailed != 0 {
			continue // another endpoint: nothing was sent yet
		}
		x.rec.Flags |= why.flags
		if why.denied && !x.refusal.over {
			x.rec.Mesh.Drop = x.refusal.drop
		}
		x.broken = true
		return
	}
	x.rec.FirstByte = w.loop.Now
	x.tunnel, x.answered = true, true
	x.won = &x.tries[0]
	x.endPassing(x.bodies(x.won))
}

// direct finds where a connection goes that is passed through.
func (x *exchange) direct() bool {
	w, f := x.w, x.from.flow
	if f.unrouted() {
		x.aim()
		w.tel.RequestStarted(x.rec.Table, x.rec.Route)
		if m := &x.rec.Mesh; f.side == telemetry.In { // it was let in when it came
			m.Rule, m.Tier, m.Shadow = f.leg.Rule, f.leg.Tier, f.leg.Shadow
		}
		return true
	}
	w.tel.RequestStarted(x.rec.Table, x.rec.Route)
	if m := &x.rec.Mesh; f.gate() { // as what comes to an application
		m.Rule, m.Tier, m.Shadow = f.leg.Rule, f.leg.Tier, f.leg.Shadow
	}
	if x.rule == nil {
		x.rec.Flags |= telemetry.NoRoute
		return false
	}
	i := x.rule.Pick(w.random())
	if i == route.None || x.rule.Backends[i].Cluster == route.Invalid {
		x.rec.Flags |= telemetry.NoCluster
		return false
	}
	x.backend = &x.rule.Backends[i]
	x.pool = x.speaker.pool(x.backend.Cluster)
	x.rec.Cluster = x.pool.id
	x.subset = x.rule.subsets[i]
	if x.pool.hashed {
		x.hash = x.rule.HashOf(&x.req, x.from.peer.Addr(), &w.routing)
	}
	return true
}

// connectOnly waits until the connection to the endpoint is there.
func (x *exchange) connectOnly() *failure {
	for {
		a := &x.tries[0]
		switch a.send() {
		case stepMoved:
			return nil
		case stepFailed:
			why := a.why
			a.finish(why.result, 0, false)
			x.live = 0
			return &why
		}
		if err := x.wait(); err != nil {
			return x.giveUp(err)
		}
	}
}

// sendRaw begins a connection to an endpoint that is passed through.
func (a *attempt) sendRaw() {
	a.up.c = a.u.c
	a.up.tunnel = true
	a.up.framing, a.up.out = message.UntilClose, message.UntilClose
}
