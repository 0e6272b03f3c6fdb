package proxy

import (
	"errors"

	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/proxy/telemetry"
)

// attempt is one try to have a request answered by one endpoint.
type attempt struct {
	x     *exchange
	p     *pool
	i     int   // index of the endpoint
	via   *pool // whose connections are used, to
	e     *endpoint
	u     *upConn
	up    stream
	began int64
	by    int64 // when this try's time is up; 0: never
	// offset of the kept body that was sent.
	offset   int
	scanned  int
	sent     bool // the endpoint may have seen some of it
	counted  bool // among the pending
	interims int  // interim answers that came
	hops     int  // connections that took no stream
	why      failure
}

// failure is why a try, or the whole exchange, came to nothing.
type failure struct {
	err    error
	flags  telemetry.Flags
	result balance.Result
	status int // to answer
	reason string
	// unseen: the endpoint cannot have begun with the request.
	unseen bool
	// answered: there is an answer, which another try may better.
	answered bool
	// reused: it was on a connection that had answered others before.
	reused bool
	// denied: policy says no; x.refusal says more.
	denied bool
}

// maxInterim answers come before the answer.
const maxInterim = 32

// What a step of an attempt came to.
type step uint8

const (
	stepNone   step = iota
	stepMoved       // something moved, go on
	stepAnswer      // the head of the answer is in x.resp
	stepFailed      // why says why
)

var (
	errConnectTime = errors.New("connecting took too long")
	// errUpgrade: a 101 that nobody asked for; or a 2xx to an Upgrade, which an
	// HTTP/2 caller would take for an open tunnel.
	errInterim = errors.New("too many interim answers")
	errUpgrade = errors.New("upstream switched protocols when it was not asked to, or did not when it was")
)

// start begins a try at an endpoint; nil: there is none, see why.
func (x *exchange) start(fresh bool) (*attempt, *failure) {
	w, p := x.w, x.pool
	a := &x.tries[x.live]
	*a = attempt{x: x, p: p, began: w.loop.Now}
	i, ok := p.pick.Pick(w.loop.Now, x.subset, w.random(), x.hash, &x.visited)
	if !ok {
		return nil, &failure{flags: telemetry.NoHealthyUpstream, status: 503, reason: "no healthy upstream", unseen: true}
	}
	a.i, a.via, a.e = i, p, p.at[i]
	if p.roams {
		a.e = p.end(x.toKey)
	}
	if why := x.permit(a); why != nil {
		return nil, why
	}
	if !p.limits.AcquireRequest() {
		w.tel.AddCluster(p.table, p.id, telemetry.OverflowRequests, 1)
		return nil, &failure{flags: telemetry.UpstreamOverflow, status: 503, reason: "too many requests to this cluster", unseen: true}
	}
	x.visited.Add(i)
	a.by = x.rule.deadlines.Try(w.loop.Now, 0)
	p.pick.Begin(i)
	w.tel.TryStarted(x.plan.table, p.id)
	if x.rec.UpstreamStart = w.loop.Now; x.tried > 0 {
		x.rec.Retries++
	}
	x.tried++
	x.live++
	if a.u = a.via.conn(a, fresh); a.u == nil {
		a.why = failure{flags: telemetry.UpstreamOverflow, status: 503, reason: "too many connections to this cluster", unseen: true}
		return a, nil
	}
	x.rec.Upstream = a.u.e.addr
	return a, nil
}

// step does what can be done now.
func (a *attempt) step() step {
	if a.why.status != 0 {
		return stepFailed
	}
	if !a.sent {
		if s := a.send(); s != stepMoved {
			return a.inTime(s)
		}
	}
	moved, err := a.pumpRequest()
	if err != nil {
		return a.callerLost(err)
	}
	s := a.inTime(a.readHead())
	if s == stepNone && moved {
		return stepMoved
	}
	return s
}

// inTime is s, unless nothing happened and the time of the try is up.
func (a *attempt) inTime(s step) step {
	if s == stepNone && a.by != 0 && a.x.w.loop.Now >= a.by {
		return a.fail(failure{err: errTryTime, flags: telemetry.UpstreamTimeout, result: balance.TimedOut, status: 504, reason: "upstream request timeout", unseen: !a.sent})
	}
	return s
}

func (a *attempt) fail(f failure) step {
	a.why = f
	return stepFailed
}

// send writes the head of the request once there is a connection.
func (a *attempt) send() step {
	x, u := a.x, a.u
	if u == nil { // ALPN chose HTTP/1 on the connection that it waited for
		if a.u = a.via.dial(a, a.e); a.u == nil {
			return a.fail(failure{flags: telemetry.UpstreamOverflow, status: 503, reason: "too many connections to this cluster", unseen: true})
		}
		u = a.u
	}
	switch u.state {
	case upDead:
		if u.err == errNoCertificate {
			x.rec.Mesh.Drop = telemetry.NoCertificate
		}
		return a.fail(failure{err: u.err, flags: telemetry.UpstreamFailed, result: balance.ConnectFailed, status: 503,
			reason: "upstream connection failure", unseen: true})
	case upDialing:
		return a.pending()
	}
	if u.two != nil && !u.two.mayOpen(&x.req) {
		return a.pending()
	}
	a.unpending()
	a.tellTime()
	switch {
	case x.passing != nil:
		a.sendRaw()
	case u.two != nil:
		if s := a.send2(); s != stepMoved {
			return s
		}
	default:
		a.send1()
	}
	a.sent = true
	return stepMoved
}

// pending counts a that waits for a connection.
func (a *attempt) pending() step {
	if a.counted {
		return stepNone
	}
	if !a.p.limits.AcquirePending() {
		a.p.w.tel.AddCluster(a.p.table, a.p.id, telemetry.OverflowPending, 1)
		return a.fail(failure{flags: telemetry.UpstreamOverflow, status: 503, reason: "too many requests wait for this cluster", unseen: true})
	}
	a.counted = true
	return stepNone
}

func (a *attempt) unpending() {
	if a.counted {
		a.counted = false
		a.p.limits.ReleasePending()
	}
}

// tellTime tells a gRPC endpoint how much time is left (grpc-timeout).
func (a *attempt) tellTime() {
	x := a.x
	by := resilience.Sooner(a.by, x.by)
	if !x.grpc || by == 0 {
		return
	}
	left := resilience.AppendGRPCTimeout(x.timeout[:0], by-x.w.loop.Now)
	for i := range x.req.Fields {
		if f := &x.req.Fields[i]; f.ID == message.GRPCTimeout {
			f.Value = left
			return
		}
	}
	x.req.Fields = append(x.req.Fields, message.Field{Name: grpcTimeout, Value: left, ID: message.GRPCTimeout})
}

// send1 writes the head on an HTTP/1 connection.
func (a *attempt) send1() {
	x, w := a.x, a.x.w
	a.up.c = a.u.c
	h := &x.req
	upgrade := h.Upgrade
	if x.down2 != nil {
		x.toHTTP1(h)
	}
	h.Close = false
	if x.down2 != nil && h.Framing == message.Sized && trails(h) {
		h.Framing = message.Chunked
	}
	if x.down2 != nil {
		a.up.c.Limit(streamLimit)
	}
	w.scratch = http1.AppendRequest(w.scratch[:0], h)
	a.up.c.Write(w.scratch)
	h.Upgrade = upgrade
	a.up.out = h.Framing
	a.up.finished = h.Framing == message.None || h.Framing == message.Sized && h.Length == 0
}

// callerLost: the request cannot be read to its end.
func (a *attempt) callerLost(err error) step {
	switch {
	case err == errTooLong:
		return a.fail(failure{err: err, flags: telemetry.CallerProtocolError, result: balance.Canceled, status: 413, reason: err.Error()})
	case a.x.down.gone() || err == errReset:
		return a.fail(failure{err: err, flags: telemetry.CallerClosed, result: balance.Canceled, status: 499, reason: errCaller.Error()})
	}
	return a.fail(failure{err: err, flags: telemetry.CallerProtocolError, result: balance.Canceled, status: 400, reason: err.Error()})
}

// lost: the connection or the stream broke before the answer.
func (a *attempt) lost(err error) step {
	f := failure{err: err, flags: telemetry.UpstreamClosed, result: balance.Reset, status: 503, reason: "upstream connection closed before an answer"}
	switch {
	case a.x.down.gone():
		f = failure{err: err, flags: telemetry.CallerClosed, result: balance.Canceled, status: 499, reason: errCaller.Error()}
	case a.up.two != nil:
		f.flags, f.reason = telemetry.UpstreamReset, "upstream reset the stream"
		if a.up.two.refused() {
			f.unseen, f.result = true, balance.Canceled // it says that it did not begin
		}
	case a.u.reused:
		f.reused, f.result = true, balance.Canceled // it may close what is idle: that is no failure
	}
	return a.fail(f)
}

// streamLimit is how much of an HTTP/1 answer waits for one stream of a caller: a
// connection may have many streams that nobody reads.
const streamLimit = 16 << 10

// readHead looks for the head of the answer; interim ones are passed on.
func (a *attempt) readHead() step {
	if a.up.two != nil {
		return a.readHead2()
	}
	x, c := a.x, a.up.c
	limits := &x.w.answerLimits
	for {
		b := c.In.Bytes()
		if len(b) == 0 {
			if c.EOF || c.Broken() {
				return a.lost(errShort)
			}
			return stepNone
		}
		n := http1.HeadEnd(b, a.scanned)
		if n < 0 {
			switch {
			case len(b) >= limits.Head:
				return a.garbled(http1.ErrHeadTooLarge)
			case c.EOF || c.Broken():
				return a.lost(errShort)
			}
			c.Limit(0) // a head may be larger than what waits of a body
			a.scanned = len(b)
			return stepNone
		}
		a.scanned = 0
		x.answers = append(x.answers[:0], b[:n]...)
		c.Consume(n)
		x.resp.Reset()
		if err := http1.ParseResponse(x.answers, &x.resp, limits, x.req.Method); err != nil {
			return a.garbled(err)
		}
		if x.resp.Status == 101 && x.req.Upgrade == nil || x.extended && x.resp.Status/100 == 2 {
			return a.garbled(errUpgrade)
		}
		if x.resp.Status >= 200 || x.resp.Status == 101 {
			break
		}
		if a.interims++; a.interims > maxInterim {
			return a.garbled(errInterim)
		}
		x.interim()
	}
	a.up.expect(&x.resp, &x.respTrailers, limits)
	if x.down2 != nil {
		c.Limit(streamLimit)
	}
	return stepAnswer
}

// garbled: what the endpoint sent is no answer.
func (a *attempt) garbled(err error) step {
	return a.fail(failure{err: err, flags: telemetry.UpstreamProtocolError, result: balance.Gateway, status: 502, reason: "upstream answered with something else than HTTP"})
}

// finish ends the try; keep: its connection can be used again.
func (a *attempt) finish(result balance.Result, status int, keep bool) {
	x, w, p := a.x, a.x.w, a.p
	a.unpending()
	a.up.unpipe()
	a.p = nil
	p.limits.ReleaseRequest()
	at := x.rec.FirstByte
	if at == 0 || result != balance.Success && status == 0 {
		at = w.loop.Now
	}
	w.tel.TryDone(x.plan.table, p.id, status, w.loop.Now-a.began)
	w.judged(p, p.pick.End(a.i, w.loop.Now, balance.Outcome{Result: result, Latency: at - a.began}))
	u := a.u
	a.u = nil
	switch {
	case u == nil:
	case a.up.two != nil:
		a.up.two.leave()
	case a.up.tunnel && result == balance.Success: // its last bytes may be on their way
		u.closeSoon()
	case a.up.tunnel: // what came is not all, and must not look so
		u.c.Abort()
		u.close()
	case u.user == a && u.two == nil && len(u.waiting) == 0:
		u.release(keep)
	case u.user == a: // others wait for it, or have streams on it
		u.user = nil
	default:
		u.forget(a)
	}
}

// forget takes out an attempt that waits for u.
func (u *upConn) forget(a *attempt) {
	for i, o := range u.waiting {
		if o == a {
			u.waiting = append(u.waiting[:i], u.waiting[i+1:]...)
			return
		}
	}
}

// drop ends the try whatever its state.
func (a *attempt) drop() {
	if a.p != nil {
		a.finish(balance.Canceled, 0, false)
	}
}

var _ engine.Owner = (*upConn)(nil)
