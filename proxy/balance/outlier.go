package balance

import (
	"math"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// outlier is l7.Outlier with its defaults, which are Envoy's.
type outlier struct {
	errors, gateways    uint32 // in a row; 0: off
	interval            int64
	base, most          int64 // of an ejection
	percent             int32 // of endpoints ejected at a time
	rateHosts, rateWork uint64
	rateFactor          float64 // 0: off
	failPercent         float64 // 0: off
	failHosts, failWork uint64
	latency             float64 // 0: off
	latencyHosts        uint64
}

func or(p *uint32, otherwise uint32) uint32 {
	if p == nil {
		return otherwise
	}
	return *p
}

func newOutlier(c *l7.Outlier) *outlier {
	o := &outlier{
		errors: or(c.Consecutive5xx, 5), gateways: or(c.ConsecutiveGateway, 0),
		interval: int64(c.Interval.Or(10 * time.Second)), base: int64(c.BaseEjection.Or(30 * time.Second)),
		percent:   int32(min(100, or(c.MaxEjectionPercent, 10))),
		rateHosts: uint64(or(c.SuccessRateHosts, 5)), rateWork: uint64(or(c.SuccessRateVolume, 100)),
		rateFactor:  float64(or(c.SuccessRateFactor, 1900)) / 1000,
		failPercent: float64(or(c.FailurePercent, 0)),
		failHosts:   uint64(or(c.FailureHosts, 5)), failWork: uint64(or(c.FailureVolume, 50)),
		latency: c.LatencyFactor, latencyHosts: 3,
	}
	o.interval, o.base = max(o.interval, int64(time.Millisecond)), max(o.base, int64(time.Millisecond))
	o.most = max(o.base, int64(c.MaxEjection.Or(300*time.Second)))
	return o
}

const failedOne = 1 << 32

// judge counts one outcome, and ejects when it was one failure too many in a row.
func (p *Plan) judge(l *local, now int64, o Outcome) Event {
	h, out := l.host, p.outlier
	if out.latency > 0 && !o.Result.local() {
		l.answers.Add(1)
		l.latency.Add(max(o.Latency, 0))
	}
	if o.Result == Success {
		l.counts.Add(1)
		// Writing only when there is something to write keeps the line shared.
		if h.errors.Load() != 0 {
			h.errors.Store(0)
		}
		if h.gateways.Load() != 0 {
			h.gateways.Store(0)
		}
		return Event{}
	}
	l.counts.Add(failedOne | 1)
	if o.Result == ServerError {
		h.gateways.Store(0)
	} else if out.gateways > 0 && h.gateways.Add(1) == out.gateways {
		h.gateways.Store(0)
		n := float64(out.gateways)
		if e := p.shared.eject(h, out, now, ConsecutiveGateway, n, n); e.Reason != NoReason {
			return e
		}
	}
	if out.errors > 0 && h.errors.Add(1) == out.errors {
		h.errors.Store(0)
		n := float64(out.errors)
		return p.shared.eject(h, out, now, Consecutive5xx, n, n)
	}
	return Event{}
}

// take a place among the ejected: the first always, more while they are at most
// percent of all.
func (s *Shared) take(percent int32) bool {
	for {
		n := s.ejected.Load()
		if n > 0 && int64(n+1)*100 > int64(percent)*int64(s.size.Load()) {
			return false
		}
		if s.ejected.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// eject a host, when it is not, and as many may be.
func (s *Shared) eject(h *host, o *outlier, now int64, why Reason, value, threshold float64) Event {
	if h.flags.Load()&(ejected|gone) != 0 || !s.take(o.percent) {
		return Event{}
	}
	if h.set(ejected, 0)&ejected != 0 {
		s.ejected.Add(-1) // somebody else was first
		return Event{}
	}
	backoff := h.backoff.Load()
	if int64(backoff)*o.base < o.most+o.base {
		backoff++
		h.backoff.Store(backoff)
	}
	times := h.times.Add(1)
	until := now + o.lasts(backoff)
	h.reason.Store(uint32(why))
	h.until.Store(until)
	if h.flags.Load()&gone != 0 || !s.judging.Load() {
		s.release(h)
		return Event{}
	}
	s.version.Add(1)
	return Event{Address: h.address, Reason: why, Until: until, Times: times, Value: value, Threshold: threshold}
}

// lasts is how long an ejection takes that is the backoff-th of a run.
func (o *outlier) lasts(backoff uint32) int64 {
	if int64(backoff) > math.MaxInt64/o.base {
		return o.most
	}
	return min(int64(backoff)*o.base, o.most)
}

// release ends an ejection, and says whether there was one.
func (s *Shared) release(h *host) bool {
	if h.flags.Load()&ejected == 0 {
		return false
	}
	h.errors.Store(0)
	h.gateways.Store(0)
	h.until.Store(0)
	if h.set(0, ejected)&ejected == 0 {
		return false
	}
	s.ejected.Add(-1)
	s.version.Add(1)
	return true
}
