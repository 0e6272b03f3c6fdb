package proxy

import (
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/message"

	"golang.org/x/sys/unix"
)

// down1 is an HTTP/1 connection of a caller. Between requests it holds neither
// a coroutine nor a buffer.
type down1 struct {
	caller
	c       *engine.Conn
	x       *exchange // that goes on; nil: none
	scanned int       // bytes of In without the end of a head
	began   int64     // when the first byte of the head came that is not whole yet
	served  int
	timer   engine.Timer
}

// serve1 takes over a connection that speaks HTTP/1.
func serve1(from caller, c *engine.Conn) {
	d := &down1{caller: from, c: c}
	c.SetOwner(d)
	d.w.conns.enter(d)
	d.next()
}

// Ready implements engine.Owner.
func (d *down1) Ready(*engine.Conn) {
	if d.x != nil {
		d.x.wake()
		return
	}
	d.next()
}

// next begins the next exchange if its head is there.
func (d *down1) next() {
	c, limits := d.c, &d.ln.limits
	if c.Pending() > c.Room() && !c.Broken() { // it asks on and on, and does not read
		c.Starved = true
		d.wait(limits.stall)
		return
	}
	b := c.In.Bytes()
	if len(b) == 0 {
		if c.EOF || c.Broken() || d.leaving() {
			d.close()
			return
		}
		d.scanned, d.began = 0, 0
		c.Rest()
		d.wait(limits.idle)
		return
	}
	n := http1.HeadEnd(b, d.scanned)
	if n < 0 {
		switch {
		case c.EOF || c.Broken():
			d.close()
		case len(b) >= limits.head.Head:
			d.refuse(http1.TooLarge(b))
		default:
			d.scanned = len(b)
			if d.began == 0 {
				d.began = d.w.loop.Now
				d.wait(limits.headTime)
			}
		}
		return
	}
	d.w.loop.Disarm(&d.timer)
	d.scanned, d.began = 0, 0
	x := d.w.newExchange(&d.caller)
	x.heads = append(x.heads[:0], b[:n]...)
	c.Consume(n)
	if err := http1.ParseRequest(x.heads, &x.req, &limits.head); err != nil {
		d.w.freeExchange(x)
		d.refuse(err)
		return
	}
	if len(x.req.Authority) == 0 { // HTTP/1.0 without Host: what it connected to
		x.req.Authority = d.local.AppendTo(nil)
	}
	d.served++
	d.x = x
	x.down1 = d
	x.down.c = c
	x.down.expect(&x.req, &x.reqTrailers, &limits.head)
	x.begin()
}

// wait closes the connection after so long, unless something happens before.
func (d *down1) wait(nanos int64) {
	if nanos > 0 {
		d.w.loop.Arm(&d.timer, d.w.loop.Now+nanos, d)
	} else {
		d.w.loop.Disarm(&d.timer)
	}
}

// Expire implements engine.Expirer: idle for too long, or a head that does not end.
func (d *down1) Expire(*engine.Timer) {
	switch {
	case d.x != nil:
	case d.began != 0:
		d.refuse(errHeadTime)
	default:
		d.close()
	}
}

// errHeadTime is the answer to a head that did not come whole in time.
var errHeadTime = &http1.Error{Status: 408, Reason: "request head took too long"}

// refuse answers what cannot be read, and closes.
func (d *down1) refuse(err error) {
	status, why := 400, err.Error()
	if e, ok := err.(*http1.Error); ok {
		status, why = e.Status, e.Reason
	}
	d.w.refused(&d.caller, status)
	var h message.Head
	h.Status, h.Close, h.Framing, h.Minor = status, true, message.Sized, 1
	h.Add([]byte("content-type"), []byte("text/plain; charset=utf-8"))
	body := append([]byte(why), '\n')
	h.Length = int64(len(body))
	d.c.Write(append(http1.AppendResponse(nil, &h), body...))
	d.close()
}

// done ends the exchange that went on; the connection stays when keep.
func (d *down1) done(keep bool) {
	d.x = nil
	if !keep || d.c.Broken() {
		d.close()
		return
	}
	d.next()
}

// leaving: the proxy drains, or the connection had as many requests as it may.
func (d *down1) leaving() bool {
	return d.w.draining || d.leaves || d.ln.limits.requests > 0 && d.served >= d.ln.limits.requests
}

// drain implements conn: an idle connection stays for one more request, which
// is answered with Connection: close, so that none is lost.
func (d *down1) drain(last bool) {
	if last && d.x == nil {
		d.close()
	}
}

// sweep implements conn: who asks and asks and reads no answer is not waited for.
func (d *down1) sweep(now int64) {
	if d.x == nil {
		d.c.Rest() // what TLS held while the last answer was written
	}
	if (d.x == nil || !d.x.tunnel) && d.stuck(d.c, now) {
		d.c.Err = unix.ETIMEDOUT
		d.Ready(d.c)
	}
}

// cut implements conn.
func (d *down1) cut() {
	d.c.Err = unix.ESHUTDOWN
	d.Ready(d.c)
}

// close ends the connection after what was written.
func (d *down1) close() {
	d.w.loop.Disarm(&d.timer)
	d.w.conns.leave(d)
	d.caller.close()
	d.c.CloseSoon()
}
