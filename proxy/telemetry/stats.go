package telemetry

import (
	"iter"
	"time"
)

// Stats are the figures that a person looks at first, each with its name, in
// the order of names. Quantiles are in milliseconds, at most half of the way
// from 1 to 2 too large.
func (t *Telemetry) Stats() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		f := t.figures()
		say := sayStat{yield: yield, more: true}
		for i := range f.listeners {
			s := &f.listeners[i]
			prefix := "listener." + s.name.name + "."
			say.of(prefix+"connections", s.opened)
			say.of(prefix+"connections_active", s.connections())
			say.counters(prefix, s, listenerFamilies[:])
		}
		for i := range f.routes {
			s := &f.routes[i]
			prefix := "route." + s.name.name + "/" + orNone(s.rule) + "."
			say.requests(prefix, s)
			for c, n := range s.flags {
				if n > 0 {
					say.of(prefix+"flag_"+flagNames[c], n)
				}
			}
			say.counters(prefix, s, routeFamilies[:])
		}
		for i := range f.clusters {
			s := &f.clusters[i]
			prefix := "cluster." + s.name.name + "."
			say.requests(prefix, s)
			say.of(prefix+"connections", s.opened)
			say.of(prefix+"connections_active", s.connections())
			say.counters(prefix, s, clusterFamilies[:])
		}
		say.of("records", t.collected.Load())
		say.of("records_lost", t.lost())
		for i := range t.outletCounts {
			say.of("outlet."+outletNames[i]+".delivered", t.outletCounts[i].delivered.Load())
			say.of("outlet."+outletNames[i]+".lost", t.outletCounts[i].lost.Load())
		}
		say.figure("uptime_seconds", time.Since(t.start).Truncate(time.Second).Seconds())
		if p, ok := readProcess(); ok {
			say.figure("cpu_seconds", p.cpu)
			say.figure("resident_bytes", p.resident)
		}
	}
}

// sayStat stops when nobody listens any more.
type sayStat struct {
	yield func(string, float64) bool
	more  bool
}

func (y *sayStat) figure(name string, v float64) { y.more = y.more && y.yield(name, v) }
func (y *sayStat) of(name string, n uint64)      { y.figure(name, float64(n)) }

func (y *sayStat) requests(prefix string, s *sum) {
	y.of(prefix+"requests", s.done)
	y.of(prefix+"requests_active", s.active())
	for c, n := range s.class {
		if n > 0 {
			y.of(prefix+"code_"+classNames[c], n)
		}
	}
	if s.duration.count > 0 {
		for _, q := range []struct {
			name string
			q    float64
		}{{"p50_ms", 0.5}, {"p99_ms", 0.99}, {"p999_ms", 0.999}} {
			y.figure(prefix+q.name, float64(s.duration.quantile(q.q))/1e6)
		}
	}
}

// counters that are not zero.
func (y *sayStat) counters(prefix string, s *sum, families []family) {
	for c, f := range families {
		if n := s.counts[c]; n > 0 {
			y.of(prefix+f.short(), n)
		}
	}
}
