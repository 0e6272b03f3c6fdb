package balance

import "math"

// noHistory is what an endpoint costs that has work but never answered
// (Finagle's penalty): nobody else is sent there before it has.
const noHistory = float64(math.MaxInt64 >> 16)

// failedAtLeast is what a try that found nobody costs at least, in nanoseconds:
// a refusal is quick, and must not make its endpoint attractive.
const failedAtLeast = 10e6

// decay brings cost up to date: it falls towards 0 with the mean life tau.
// That is Finagle's observe(0).
func (l *local) decay(now int64, tau float64) float64 {
	if elapsed := now - l.stamp; elapsed > 0 {
		l.cost *= expNeg(float64(elapsed) / tau)
		l.stamp = now
	}
	return l.cost
}

// observe takes a round trip in: a peak at once, anything lower with the
// weight of the time since the last look.
func (l *local) observe(now int64, rtt, tau float64) {
	elapsed := max(now-l.stamp, 0)
	if rtt > l.cost {
		l.cost = rtt
	} else {
		w := expNeg(float64(elapsed) / tau)
		l.cost = l.cost*w + rtt*(1-w)
	}
	l.stamp = now
}

// expNeg is exp(-x) for x >= 0; by its series where that is exact to 1e-9,
// which is everywhere on a busy proxy.
func expNeg(x float64) float64 {
	if x < 1.0/1024 {
		return 1 - x*(1-x*0.5)
	}
	return math.Exp(-x)
}

// load is the cost of one more request.
func (l *local) load(now int64, tau float64) float64 {
	cost := l.decay(now, tau)
	if cost == 0 && l.pending != 0 {
		return noHistory + float64(l.pending)
	}
	return cost * float64(l.pending+1)
}

// learn takes the end of a try into cost. A failure never makes an endpoint
// look better than its last answer: an error that came quickly counts as long
// as that. When it did not work at all, or never has, it doubles the cost, up to
// tau.
func (l *local) learn(now int64, o Outcome, tau float64) {
	rtt := float64(max(o.Latency, 0))
	switch {
	case o.Result == Success:
		l.good = rtt
		l.observe(now, rtt, tau)
	case o.Result == ServerError && l.good > 0:
		l.observe(now, max(rtt, l.good), tau)
	case o.Result != Canceled:
		l.observe(now, max(rtt, l.cost, min(2*max(l.cost, failedAtLeast/2), tau)), tau)
	case rtt > l.cost:
		l.observe(now, rtt, tau)
	}
}
