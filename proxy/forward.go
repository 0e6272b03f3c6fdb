package proxy

import (
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/telemetry"
)

// forward sends the request to an endpoint, to another one if that failed and
// it is safe, and the answer back.
func (x *exchange) forward() {
	for {
		_, why := x.start(x.tried > 0)
		if why == nil {
			why = x.ask()
		}
		if why == nil {
			x.answer()
			return
		}
		if x.again(why) {
			continue
		}
		x.fail(why)
		return
	}
}

// ask drives the tries that are under way until one is answered.
func (x *exchange) ask() *failure {
	for {
		var last *failure
		for i := 0; i < x.live; i++ {
			a := &x.tries[i]
			switch a.step() {
			case stepMoved:
				x.moved = x.w.loop.Now
			case stepAnswer:
				x.rec.FirstByte = x.w.loop.Now
				if why := x.unwanted(a); why != nil && x.mayRetry(why) {
					a.finish(why.result, x.resp.Status, false)
					last = why
					x.retire(i)
					i--
					continue
				}
				x.win(i)
				return nil
			case stepFailed:
				why := a.why
				a.finish(why.result, 0, false)
				last = &why
				x.retire(i)
				i--
			}
		}
		if x.live == 0 {
			return last
		}
		if x.hedge() {
			continue
		}
		if err := x.wait(); err != nil {
			return x.giveUp(err)
		}
	}
}

// retire removes a try that is over.
func (x *exchange) retire(i int) {
	for x.live--; i < x.live; i++ {
		x.moveTry(i+1, i)
	}
}

// win makes try i the one whose answer is taken; the others are ended.
func (x *exchange) win(i int) {
	for j := range x.tries[:x.live] {
		if j != i {
			x.tries[j].drop()
		}
	}
	if i > 0 {
		x.moveTry(i, 0)
	}
	x.live = 1
	x.won = &x.tries[0]
	x.rec.Upstream = x.won.u.e.addr
	x.body.on = false // nothing is sent again from here on
	x.won.by = 0      // from here on only the whole request's time counts
}

// moveTry puts a try into another place.
func (x *exchange) moveTry(from, to int) {
	x.tries[to] = x.tries[from]
	a, was := &x.tries[to], &x.tries[from]
	if a.u != nil && a.u.user == was {
		a.u.user = a
	}
	if a.u != nil {
		for k, o := range a.u.waiting {
			if o == was {
				a.u.waiting[k] = a
			}
		}
	}
	if a.up.two != nil {
		a.up.two.try = a
	}
}

// giveUp ends all tries because waiting makes no sense any more.
func (x *exchange) giveUp(err error) *failure {
	f := &failure{err: err, flags: telemetry.StreamIdle, result: balance.TimedOut, status: 504, reason: err.Error()}
	switch err {
	case errRequestTime:
		f.flags = telemetry.UpstreamTimeout
		f.reason = "request timeout"
	case errCaller:
		f.flags, f.result, f.status = telemetry.CallerClosed, balance.Canceled, 499
	case errSlow:
		f.flags, f.result, f.status = telemetry.CallerClosed, balance.Canceled, 408
	case errStall:
		if x.callerOwes() {
			f.result, f.status = balance.Canceled, 408
		}
	}
	for i := range x.tries[:x.live] {
		x.tries[i].finish(f.result, 0, false)
	}
	x.live = 0
	return f
}

// fail answers that the request came to nothing.
func (x *exchange) fail(why *failure) {
	x.rec.Flags |= why.flags
	x.rec.UpstreamEnd = x.w.loop.Now
	if x.down.gone() || x.down2 != nil && x.down2.wasReset() {
		x.broken = true
		x.rec.Status = 0
		return
	}
	if why.denied {
		x.deny()
		return
	}
	x.resp.Reset() // it may hold what an endpoint said before it failed
	x.reply(why.status, why.reason)
}

// answer passes the answer on.
func (x *exchange) answer() {
	a, w := x.won, x.w
	result := x.result()
	x.sendHead()
	err := x.bodies(a)
	x.rec.UpstreamEnd = w.loop.Now
	if x.grpc {
		x.grpcStatus()
		if result == balance.Success && x.rec.GRPC > 0 {
			result = balance.OfGRPC(x.rec.GRPC)
		}
	}
	keep := err == nil && a.up.ended && a.up.finished && !x.tunnel && !x.resp.Close && a.up.framing != message.UntilClose
	switch {
	case err == nil:
	case x.down.gone() || err == errCaller || err == errSlow:
		x.rec.Flags |= telemetry.CallerClosed
		result, x.broken = balance.Canceled, true
	default:
		x.rec.Flags |= telemetry.UpstreamClosed
		x.broken = !x.down.finished
		if result == balance.Success {
			result = balance.Reset
		}
	}
	a.finish(result, x.resp.Status, keep)
	x.live = 0
}

// bodies moves both bodies until the answer is whole.
func (x *exchange) bodies(a *attempt) error {
	w := x.w
	for {
		moved, err := pump(w, &a.up, &x.down)
		if err != nil {
			return err
		}
		if x.down.finished && (!x.tunnel || a.up.finished || a.up.gone()) {
			return nil
		}
		if !a.up.finished && !a.up.gone() {
			sent, err := a.pumpRequest()
			if err != nil {
				return errCaller
			}
			moved = moved || sent
			if x.tunnel && x.down.finished && (a.up.finished || x.hungUp()) {
				return nil
			}
		}
		if moved {
			x.moved = w.loop.Now
		}
		if err := x.wait(); err != nil {
			return err
		}
	}
}

// hungUp: of a WebSocket the endpoint ends first, always. Its caller waits for the
// connection's end (RFC 6455, 7.1.1), which is, over HTTP/2, the stream's: there
// the end of one direction does not tell it. Other protocols may still speak.
func (x *exchange) hungUp() bool {
	return x.down2 != nil && string(x.req.Upgrade) == "websocket"
}
