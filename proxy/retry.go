package proxy

import (
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/proxy/telemetry"
)

// try is a failure in the words of resilience.
func (x *exchange) tryOf(why *failure) resilience.Try {
	t := resilience.Try{GRPC: -1, Sent: !why.unseen, BodyKept: x.bodyKept(), Begun: x.answered, Status: why.status}
	switch {
	case why.answered:
		t.Sent = true
	case why.flags&telemetry.UpstreamTimeout != 0:
		t.Failure = resilience.TimedOut
	case why.flags&telemetry.UpstreamReset != 0 && why.unseen:
		t.Failure = resilience.Refused
	case why.unseen:
		t.Failure = resilience.NotConnected
	default:
		t.Failure = resilience.Reset
	}
	return t
}

// mayRetry says whether a retry is allowed and there is still time for it. It
// takes from the budget when it says yes: again has to follow.
func (x *exchange) mayRetry(why *failure) bool {
	r := x.rule.retry
	tried := x.tried
	if x.resent {
		tried-- // which was free
	}
	if r == nil || tried > r.Attempts || why.status == 499 || why.denied || why.flags&(telemetry.NoHealthyUpstream|telemetry.UpstreamOverflow) != 0 {
		return false
	}
	if !why.answered && !r.Retriable(x.req.Method, x.tryOf(why)) {
		return false
	}
	after := int64(0)
	if why.answered {
		after = x.retryAfter()
	}
	wait, ok := r.Wait(tried, x.w.random(), x.w.loop.Now, x.by, after)
	if !ok {
		return false
	}
	if !x.pool.limits.AcquireRetry() {
		x.w.tel.AddCluster(x.pool.table, x.pool.id, telemetry.RetriesRefused, 1)
		return false
	}
	x.backoff = wait
	x.budgeted++
	return true
}

func (x *exchange) retryAfter() int64 {
	for i := range x.resp.Fields {
		if f := &x.resp.Fields[i]; f.ID == message.Other && string(f.Name) == "retry-after" {
			if d, ok := resilience.RetryAfter(f.Value, x.w.wall()); ok {
				return d
			}
		}
	}
	return 0
}

// again waits before another try; false: there will be none.
func (x *exchange) again(why *failure) bool {
	if x.mayResend(why) {
		return true
	}
	if !why.answered && !x.mayRetry(why) {
		if x.rule.retry != nil && x.tried > x.rule.retry.Attempts && x.tried > 1 {
			x.rec.Flags |= telemetry.RetriesExhausted
		}
		return false
	}
	x.w.tel.AddCluster(x.pool.table, x.pool.id, telemetry.Retried, 1)
	if !x.pause(x.w.loop.Now + x.backoff) {
		return false
	}
	x.resp.Reset()
	return true
}

// mayResend says whether the request is sent once more without any policy,
// because what happened says nothing about it or the endpoint: a connection
// that was kept was closed just when we used it, which an idempotent request
// survives; or the endpoint says that it did not begin with it, as it goes away.
func (x *exchange) mayResend(why *failure) bool {
	refused := why.unseen && why.flags&telemetry.UpstreamReset != 0
	if x.resent || why.denied || why.answered || !x.bodyKept() || !refused && !(why.reused && idempotent(x.req.Method)) {
		return false
	}
	x.resent = true
	return true
}

func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// hedgeAt is when another try is due beside those under way; 0: none is. There is
// none any more after a retry.
func (x *exchange) hedgeAt() int64 {
	if x.rule == nil || x.rule.hedge.Delay == 0 || x.won != nil || x.live == 0 || x.tried != 1+x.hedged || x.alone || !x.down.ended {
		return 0
	}
	at, ok := x.rule.hedge.At(x.tries[x.live-1].began, x.by, x.tried, idempotent(x.req.Method), x.bodyKept())
	if !ok {
		return 0
	}
	return at
}

// hedge begins another try when those under way take long.
func (x *exchange) hedge() bool {
	at := x.hedgeAt()
	if at == 0 || x.w.loop.Now < at {
		return false
	}
	if !x.pool.limits.AcquireRetry() {
		x.alone = true
		x.w.tel.AddCluster(x.pool.table, x.pool.id, telemetry.RetriesRefused, 1)
		return false
	}
	x.budgeted++
	x.hedged++
	x.w.tel.AddRoute(x.rec.Table, x.rec.Route, telemetry.Hedged, 1)
	_, why := x.start(false)
	x.alone = why != nil
	return !x.alone
}

// hedges makes room for so many tries at a time.
func (x *exchange) hedges(most int) {
	if most > len(x.pair) {
		if cap(x.more) < most {
			x.more = make([]attempt, most)
		}
		x.tries = x.more[:most]
	}
}
