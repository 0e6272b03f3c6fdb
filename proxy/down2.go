package proxy

import (
	"slices"

	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/telemetry"
)

// down2 is an HTTP/2 connection of a caller.
type down2 struct {
	caller
	k       conn2
	timer   engine.Timer
	partial int64 // since when a frame or head is not whole
	served  int
	slow    int // streams that were ended because they were not read or sent on
	closed  bool
}

// serve2 takes over a connection that speaks HTTP/2.
func serve2(from caller, c *engine.Conn) {
	w, ln := from.w, from.ln
	d := &down2{caller: from}
	d.k = conn2{w: w, c: c, down: d, since: w.loop.Now}
	d.k.h.Init(&http2.Config{TLS: from.secure, MaxStreams: uint32(ln.limits.streams), MaxHead: ln.limits.head.Head,
		MaxFields: ln.limits.head.Fields, EnableConnect: true}, &w.streams, w.loop.Now)
	c.SetOwner(&d.k)
	w.conns.enter(d)
	if w.draining || d.leaves {
		d.k.h.Drain()
	}
	d.arm(ln.limits.idle)
	d.k.touch()
	d.k.ready()
}

// request begins an exchange for a request that came, or holds it back.
func (d *down2) request(ev *http2.Event) {
	k := &d.k
	t := k.newStream2(ev.Stream, nil)
	t.gotEnd = ev.End
	d.served++
	if most := d.ln.limits.requests; most > 0 && d.served >= most && !d.w.draining && !d.leaves {
		k.h.Drain()
	}
	if len(k.held) > 0 || k.crowds() || k.throngs() {
		k.held = append(k.held, t)
		return
	}
	d.begin(t)
}

// begin begins the exchange of a request.
func (d *down2) begin(t *stream2) {
	x := d.w.newExchange(&d.caller)
	d.w.streaming++
	t.x = x
	x.down2 = t
	x.down.two = t
	head := t.s.Head
	head.Fields = append(x.req.Fields[:0], head.Fields...)
	x.req = head
	x.down.expect(&x.req, &x.reqTrailers, nil)
	if x.down.ended {
		x.req.Framing = message.None
	}
	x.begin()
}

const (
	// mostWaiting answers of a connection may wait for their caller in a crowd.
	mostWaiting = 8
	// throng is how many requests of a worker over HTTP/2 go on at a time until a
	// connection that was not seen to take answers may have modest of them.
	throng = 1024
	modest = 16
	// taken bytes in a second say that it does.
	taken = 1 << 10
)

// crowds says whether the connection takes too little of what it asked for to ask
// for more: many answers of it wait, and many of everybody. It is a caller's.
func (k *conn2) crowds() bool { return k.w.loop.Crowded() && k.h.Waiting() >= mostWaiting }

// throngs says whether it asks for much while others do, too, and it is not known
// how it takes the answers.
func (k *conn2) throngs() bool {
	return k.w.streaming >= throng && !k.takes && len(k.streams)-len(k.held) >= modest
}

// admit begins what was held back, some at a time, and so many even in a throng.
func (k *conn2) admit(anyhow int) {
	for i := range maxHeads {
		if len(k.held) == 0 || k.over || k.crowds() || i >= anyhow && k.throngs() {
			return
		}
		t := k.held[0]
		k.held = slices.Delete(k.held, 0, 1)
		k.down.begin(t)
	}
	if len(k.held) > 0 {
		k.c.Again()
	}
}

// seep is admit once a second: also of what was asked for before nothing may come
// for long.
func (k *conn2) seep() {
	if len(k.held) == 0 {
		return
	}
	acked := k.c.Acked()
	k.takes = acked-k.acked > taken && k.c.BlockedAt == 0 && k.h.Waiting() < mostWaiting
	k.acked = acked
	k.admit(1)
}

// unhold forgets a request that did not begin, and never will.
func (k *conn2) unhold(t *stream2) {
	k.held = slices.DeleteFunc(k.held, func(o *stream2) bool { return o == t })
	t.free()
}

// watch bounds how long a frame or a head may take, and how long nothing may happen.
func (d *down2) watch() {
	if !d.k.h.Partial() {
		d.partial = 0
		return
	}
	if d.partial == 0 {
		d.partial = d.w.loop.Now
		d.arm(d.ln.limits.headTime)
	}
}

// sweep is called once a second.
func (d *down2) sweep(now int64) {
	if d.stuck(d.k.c, now) { // whatever its windows say
		d.cut()
		return
	}
	d.k.tidy(now)
	d.k.seep()
}

// cut implements conn.
func (d *down2) cut() {
	d.k.gone()
	d.k.c.Abort()
}

func (d *down2) arm(nanos int64) {
	if nanos > 0 {
		d.w.loop.Arm(&d.timer, d.w.loop.Now+nanos, d)
	}
}

// Expire implements engine.Expirer.
func (d *down2) Expire(*engine.Timer) {
	now, limits := d.w.loop.Now, &d.ln.limits
	if d.partial != 0 && limits.headTime > 0 && now-d.partial >= limits.headTime {
		d.w.tel.AddListener(d.plan.table, d.ln.id, telemetry.SlowCallers, 1)
		d.k.h.GoAway(http2.NoError, "a frame took too long")
		d.k.gone()
		return
	}
	if idle := d.k.idleFor(now); limits.idle > 0 && idle >= limits.idle {
		d.k.h.GoAway(http2.NoError, "idle")
		d.k.gone()
		return
	} else if limits.idle > 0 {
		d.arm(limits.idle - idle)
	}
}

// drain implements conn.
func (d *down2) drain(last bool) {
	if last {
		d.k.h.GoAway(http2.NoError, "shutting down")
		d.k.gone()
		return
	}
	d.k.h.Drain()
	d.k.touch()
}

// close ends the connection; streams that are still held end by themselves.
func (d *down2) close() {
	if d.closed {
		return
	}
	d.closed = true
	d.w.loop.Disarm(&d.timer)
	d.w.conns.leave(d)
	d.caller.close()
	d.k.c.CloseSoon()
}

// interim passes on a 1xx answer; HTTP/2 has no 101.
func (t *stream2) interim(h *message.Head) {
	if t.wasReset() || h.Status == 101 {
		return
	}
	if err := t.k.h.WriteHead(t.s, h, false); err != nil {
		t.reset(codeInternal)
	}
	t.k.touch()
}

// writeHead2 writes the head of an answer on an HTTP/2 stream.
func (x *exchange) writeHead2() {
	t, h := x.down2, &x.resp
	if t.wasReset() {
		x.down.finished = !x.tunnel
		return
	}
	if x.tunnel && h.Status == 101 {
		x.acceptConnect(h)
	}
	end := !x.tunnel && (h.Framing == message.None || h.Framing == message.Sized && h.Length == 0 || x.req.IsMethod("HEAD"))
	h.Upgrade = nil
	if err := t.k.h.WriteHead(t.s, h, end); err != nil {
		x.w.p.log.Debug("an answer cannot be written in HTTP/2", "why", err)
		t.reset(codeInternal)
		x.broken = true
	}
	x.down.finished = end
	t.k.touch()
}

// end2 ends an exchange on an HTTP/2 stream.
func (x *exchange) end2() {
	t := x.down2
	d := t.k.down
	if x.slow {
		d.slow++
	}
	if x.broken || !x.down.finished {
		if x.rec.Status == 499 || x.rec.Flags&telemetry.CallerClosed != 0 {
			t.reset(http2.Cancel)
		} else {
			t.reset(codeInternal)
		}
	}
	t.free()
	x.w.freeExchange(x)
	d.w.streaming--
	if d.slow >= maxSlow && !d.closed {
		d.k.h.GoAway(http2.EnhanceYourCalm, "streams that do not move")
		d.k.gone()
	}
}

// maxSlow streams of one connection may be ended for not moving; then it ends.
const maxSlow = 5
