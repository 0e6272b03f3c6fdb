package proxy

import (
	"errors"

	"moire.dev/moire/proxy/telemetry"
)

// Why waiting ended without what was waited for.
var (
	errRequestTime = errors.New("the request took too long")
	errTryTime     = errors.New("the endpoint took too long")
	errSlow        = errors.New("the caller is too slow")
	errCaller      = errors.New("the caller is gone")
)

// rateWindow is the time over which the minimum rate is measured.
const rateWindow = int64(10e9)

// patience is how long a caller that has ended its side (HTTP/1) is worked for
// while nothing moves: most that do so are gone, but nobody can tell.
const patience = int64(10e9)

// mayBeGone: the caller sends no more.
func (x *exchange) mayBeGone() bool {
	return x.down.c != nil && x.down.c.EOF && !x.tunnel && x.passing == nil
}

// wait parks until something happens. An error says that it makes no sense to
// wait on: the time of the request or of all tries is up, nothing moves, or the
// caller is gone.
func (x *exchange) wait() error {
	limits := &x.ln.limits
	by := x.moved + limits.stall
	if limits.stall <= 0 {
		by = x.w.loop.Now + 1<<60
	}
	if x.by != 0 {
		by = min(by, x.by)
	}
	for i := range x.tries[:x.live] {
		if a := &x.tries[i]; a.by != 0 {
			by = min(by, a.by)
		}
	}
	if at := x.hedgeAt(); at != 0 {
		by = min(by, at)
	}
	if x.callerOwes() {
		by = min(by, x.w.loop.Now+rateWindow)
	}
	if x.mayBeGone() {
		by = min(by, x.moved+patience)
	}
	x.t.Within(by)
	x.t.Park()
	if x.down.gone() || x.down2 != nil && x.down2.wasReset() {
		x.rec.Flags |= telemetry.CallerClosed
		return errCaller
	}
	if !x.t.Expired {
		return nil
	}
	x.t.Deadline(0)
	now := x.w.loop.Now
	switch {
	case x.by != 0 && now >= x.by:
		return errRequestTime
	case limits.stall > 0 && now >= x.moved+limits.stall:
		x.rec.Flags |= telemetry.StreamIdle
		return errStall
	case x.mayBeGone() && now >= x.moved+patience:
		x.rec.Flags |= telemetry.CallerClosed
		return errCaller
	case x.tooSlow(now):
		x.slow = true
		x.w.tel.AddListener(x.plan.table, x.ln.id, telemetry.SlowCallers, 1)
		return errSlow
	}
	return nil
}

// pause waits until when. False: the caller left meanwhile.
func (x *exchange) pause(when int64) bool {
	for {
		if x.down.gone() || x.down2 != nil && x.down2.wasReset() {
			x.rec.Flags |= telemetry.CallerClosed
			return false
		}
		now, by := x.w.loop.Now, when
		if x.mayBeGone() {
			if by = min(by, x.moved+patience); now >= x.moved+patience && now < when {
				x.rec.Flags |= telemetry.CallerClosed
				return false
			}
		}
		if now >= when {
			x.t.Deadline(0)
			return true
		}
		x.t.Deadline(by)
		x.t.Park()
	}
}

// callerOwes: a body is on its way and it is the caller who keeps it waiting.
func (x *exchange) callerOwes() bool {
	return x.ln.limits.minRate > 0 && !x.tunnel && (!x.down.ended && x.down.framing != 0 || x.down.blockedAt() != 0)
}

// tooSlow measures the minimum rate, once a window in which the caller owes us.
func (x *exchange) tooSlow(now int64) bool {
	if !x.callerOwes() {
		x.rateSince = 0
		return false
	}
	moved, wire := x.movedDown()
	if x.rateSince == 0 || wire != x.rateWire {
		x.rateSince, x.rateBytes, x.rateWire = now, moved, wire
		return false
	}
	if now-x.rateSince < rateWindow {
		return false
	}
	slow := !x.waitsForEndpoint() && moved-x.rateBytes < uint64(x.ln.limits.minRate)*uint64((now-x.rateSince)/1e9)
	x.rateSince, x.rateBytes = now, moved
	return slow
}

// waitsForEndpoint: what keeps the request body is the endpoint, not the caller.
func (x *exchange) waitsForEndpoint() bool {
	if x.down.blockedAt() != 0 {
		return false
	}
	data, err := x.down.peek()
	return err == nil && len(data) > 0
}

// movedDown is how many bytes of the bodies the caller sent and took. What it took
// is measured on the wire, but for a stream that waits for a window: others of its
// connection may move.
func (x *exchange) movedDown() (bytes uint64, wire bool) {
	c := x.down.c
	if t := x.down2; t != nil {
		if t.k.h.Shut(t.s) {
			return x.down.read + x.down.wrote, false
		}
		c = t.k.c
	}
	if c == nil { // a copy
		return x.down.read + x.down.wrote, false
	}
	return x.down.read + c.Acked(), true
}
