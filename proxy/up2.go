package proxy

import (
	"slices"

	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/telemetry"
)

// begin2 makes u an HTTP/2 connection.
func (u *upConn) begin2() {
	w := u.w
	u.two = &conn2{w: w, c: u.c, up: u, since: w.loop.Now}
	u.two.h.Init(&http2.Config{Client: true, TLS: u.p.tls != nil && u.e.spiffe == "", MaxStreams: 1000, MaxFields: 200, ConnWindow: 4 << 20, InitialWindow: 256 << 10}, &w.streams, w.loop.Now)
	u.two.touch()
	if u.p.conf.ProxyProtocol == 0 && !slices.Contains(u.e.two, u) {
		u.e.two = append(u.e.two, u)
	}
	u.wakeWaiting()
}

// wakeWaiting has those who wait for the connection or for a stream look again.
func (u *upConn) wakeWaiting() {
	if u.user != nil {
		u.user.x.wake()
	}
	for _, a := range u.waiting {
		a.x.wake()
	}
}

// mayOpen says whether a stream may be opened now. The first one need not wait
// for the settings of the endpoint; others do, as it may take one only, and
// those that depend on what it can.
func (k *conn2) mayOpen(h *message.Head) bool {
	return k.h.Ready() || len(k.streams) == 0 && h.Upgrade == nil || !k.h.Usable()
}

// shareable is a connection that takes, or will take, another stream.
func (e *endpoint) shareable(a *attempt) *upConn {
	for _, u := range e.two {
		if u.p.tls != nil && u.p.tls.perHost && u.e.spiffe == "" && u.host != string(a.x.req.Authority) {
			continue
		}
		free := e.streams - 1                // one is for the user
		if u.two != nil && u.two.h.Ready() { // before that it is not known what it takes
			free = u.two.h.Free()
			if u.user != nil {
				free-- // who has not opened his yet
			}
		}
		if free > len(u.waiting) && (u.state == upDialing || u.two != nil && !u.two.over && u.two.h.Usable()) {
			u.waiting = append(u.waiting, a)
			return u
		}
	}
	return nil
}

// closeSoon ends an HTTP/2 connection after what was written.
func (u *upConn) closeSoon() {
	if u.state == upDead {
		return
	}
	u.wakeWaiting()
	u.state = upDead
	u.w.loop.Disarm(&u.by)
	u.untwo()
	u.e.conns--
	u.p.limits.ReleaseConnection()
	u.closed()
	u.user, u.waiting = nil, nil
	u.c.CloseSoon()
}

// send2 opens a stream and writes the head of the request.
func (a *attempt) send2() step {
	x, u := a.x, a.u
	s, err := u.two.h.Open()
	if err != nil {
		return a.elsewhere()
	}
	u.leaveWaiting(a)
	t := u.two.newStream2(s, x)
	t.try = a
	a.up.two = t
	h := &x.req
	if h.Upgrade != nil && x.down2 == nil {
		if !u.two.h.PeerConnect() {
			return a.fail(failure{flags: telemetry.UpstreamProtocolError, result: balance.Canceled, status: 501, reason: "the endpoint takes no upgrade over HTTP/2"})
		}
		x.askConnect(h)
	}
	tunnel := h.Upgrade != nil || h.IsMethod("CONNECT")
	end := !tunnel && (h.Framing == message.None || h.Framing == message.Sized && h.Length == 0)
	expect := h.Expect
	if err := u.two.h.WriteHead(s, h, end); err != nil {
		return a.fail(failure{err: err, flags: telemetry.UpstreamFailed, result: balance.Canceled, status: 502, reason: "the request cannot be sent over HTTP/2"})
	}
	h.Expect = expect
	a.up.out = h.Framing
	a.up.finished = end || tunnel // what a tunnel carries comes after the answer
	u.two.touch()
	return stepMoved
}

// elsewhere looks for another connection when this one takes no stream.
func (a *attempt) elsewhere() step {
	if a.hops++; a.hops > 3 {
		return a.fail(failure{flags: telemetry.UpstreamOverflow, status: 503, reason: "no stream to the endpoint", unseen: true})
	}
	a.u.forget(a)
	if a.u.user == a {
		a.u.user = nil
	}
	if a.u = a.via.conn(a, false); a.u == nil {
		return a.fail(failure{flags: telemetry.UpstreamOverflow, status: 503, reason: "too many connections to this cluster", unseen: true})
	}
	return a.send()
}

// leaveWaiting: a has its stream.
func (u *upConn) leaveWaiting(a *attempt) {
	u.forget(a)
	if u.user == a {
		u.user = nil
	}
}

// answered takes the head of an answer, interim ones too.
func (t *stream2) answered(ev *http2.Event) {
	x := t.x
	if x == nil || t.try == nil {
		return
	}
	if ev.Stream.Head.Status < 200 {
		if x.won == nil && x.live == 1 {
			head := ev.Stream.Head
			head.Fields = append(x.resp.Fields[:0], head.Fields...)
			x.resp = head
			x.interim()
		}
		return
	}
	t.hasHead, t.gotEnd = true, ev.End
	t.wake()
}

// readHead2 looks for the head of the answer.
func (a *attempt) readHead2() step {
	t, x := a.up.two, a.x
	switch {
	case t.hasHead:
	case t.isReset:
		return a.lost(errReset)
	default:
		return stepNone
	}
	head := t.s.Head
	head.Fields = append(x.resp.Fields[:0], head.Fields...)
	x.resp = head
	if t.gotEnd && len(t.in) == 0 && !t.hasTrailers {
		x.resp.Framing = message.None
		if x.resp.Length < 0 && !x.req.IsMethod("HEAD") {
			x.resp.Length = 0
		}
	}
	a.up.expect(&x.resp, &x.respTrailers, nil)
	return stepAnswer
}

// leave ends the try's stream.
func (t *stream2) leave() {
	over, k := t.k.over, t.k
	t.free()
	if over || k.up.state != upReady {
		return
	}
	if k.up.e.gone { // nobody else will look after it
		k.retire()
		return
	}
	k.up.wakeWaiting()
}
