package balance

import (
	"cmp"
	"math"
	"slices"
)

// tally is what an endpoint did in one interval, at all workers.
type tally struct {
	total, failed, answers uint64
	latency                int64
}

func (t tally) rate() float64 { return float64(t.total-t.failed) * 100 / float64(t.total) }

func (t tally) mean() float64 {
	if t.answers == 0 {
		return 0
	}
	return float64(t.latency) / float64(t.answers)
}

// collect empties the counters of all workers.
func (h *host) collect() (t tally) {
	for _, l := range h.locals {
		if l == nil {
			continue
		}
		c := l.counts.Swap(0)
		t.total += c & (failedOne - 1)
		t.failed += c / failedOne
		t.answers += l.answers.Swap(0)
		t.latency += l.latency.Swap(0)
	}
	return t
}

// Tick is called by the owner of the cluster, about once a second: endpoints
// whose ejection is over return, and once an interval success rates, failure
// percentages and latencies are judged. Events are appended to events.
func (s *Shared) Tick(now int64, events []Event) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan == nil || s.plan.outlier == nil {
		return events
	}
	o := s.plan.outlier
	for _, h := range s.hosts {
		until := h.until.Load()
		if until == 0 || now < until {
			continue
		}
		if h.flags.Load()&ejected == 0 {
			h.until.CompareAndSwap(until, 0) // a configuration ended it while it began
			continue
		}
		e := Event{Address: h.address, Reason: Reason(h.reason.Load()), Returned: true, Until: until, Times: h.times.Load()}
		// A new begin: slow start, when the cluster has one.
		h.since.Store(now)
		if s.release(h) {
			h.returned = now
			events = append(events, e)
		}
	}
	if now-s.swept < o.interval {
		return events
	}
	s.swept = now
	var judged []*host
	for _, h := range s.hosts {
		h.last = h.collect()
		if h.flags.Load()&ejected == 0 {
			judged = append(judged, h)
		}
	}
	// The order of a map must not decide who goes when not all may.
	slices.SortFunc(judged, func(a, b *host) int { return cmp.Compare(a.address, b.address) })
	events = s.judgeRates(o, judged, now, events)
	events = s.judgeLatency(o, judged, now, events)
	for _, h := range judged {
		if b := h.backoff.Load(); b > 0 && h.flags.Load()&ejected == 0 && now-h.returned >= o.interval {
			h.backoff.Store(b - 1)
		}
	}
	return events
}

// judgeRates ejects whose success rate is below mean - factor*stdev of all, or
// whose failures are too many; the worst first.
func (s *Shared) judgeRates(o *outlier, judged []*host, now int64, events []Event) []Event {
	judged = slices.Clone(judged)
	judged = slices.DeleteFunc(judged, func(h *host) bool { return h.last.total == 0 })
	slices.SortStableFunc(judged, func(a, b *host) int { return cmp.Compare(a.last.rate(), b.last.rate()) })
	var n uint64
	var sum, squares float64
	for _, h := range judged {
		if h.last.total >= o.rateWork {
			n++
			sum += h.last.rate()
		}
	}
	if o.rateFactor > 0 && n > 0 && n >= o.rateHosts {
		mean := sum / float64(n)
		for _, h := range judged {
			if h.last.total >= o.rateWork {
				squares += (h.last.rate() - mean) * (h.last.rate() - mean)
			}
		}
		threshold := mean - o.rateFactor*math.Sqrt(squares/float64(n))
		for _, h := range judged {
			if h.last.total >= o.rateWork && h.last.rate() < threshold {
				events = s.ejectTo(events, h, o, now, SuccessRate, h.last.rate(), threshold)
			}
		}
	}
	n = 0
	for _, h := range judged {
		if h.last.total >= o.failWork {
			n++
		}
	}
	if o.failPercent == 0 || n < o.failHosts {
		return events
	}
	for _, h := range judged {
		if h.last.total >= o.failWork && 100-h.last.rate() >= o.failPercent {
			events = s.ejectTo(events, h, o, now, FailurePercent, 100-h.last.rate(), o.failPercent)
		}
	}
	return events
}

// judgeLatency ejects whose mean latency is above factor times the median of
// all, the slowest first. At least three endpoints must have answered as often
// as a success rate needs.
func (s *Shared) judgeLatency(o *outlier, judged []*host, now int64, events []Event) []Event {
	if o.latency <= 0 {
		return events
	}
	judged = slices.DeleteFunc(slices.Clone(judged), func(h *host) bool { return h.last.answers < max(1, o.rateWork) })
	if uint64(len(judged)) < o.latencyHosts {
		return events
	}
	slices.SortStableFunc(judged, func(a, b *host) int { return cmp.Compare(b.last.mean(), a.last.mean()) })
	// Of an even number the lower one, so that one slow of many never sets it.
	threshold := o.latency * judged[len(judged)/2].last.mean()
	for _, h := range judged {
		if h.last.mean() > threshold {
			events = s.ejectTo(events, h, o, now, Latency, h.last.mean(), threshold)
		}
	}
	return events
}

func (s *Shared) ejectTo(events []Event, h *host, o *outlier, now int64, why Reason, value, threshold float64) []Event {
	if e := s.eject(h, o, now, why, value, threshold); e.Reason != NoReason {
		return append(events, e)
	}
	return events
}
