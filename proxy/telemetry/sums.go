package telemetry

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// mostShown names of one sort have time series of their own, those with the
// most requests; the rest is shown together as "others".
const (
	mostShown = 1000
	others    = "others"
)

// sum is what all workers counted for a name, or for several.
type sum struct {
	name
	started, done  uint64
	class          [classes]uint64
	duration       reading
	in, out        uint64
	flags          [lastFlag]uint64
	grpc           [statuses]uint64
	opened, closed uint64
	drops          [lastDrop]uint64
	decided        [3]uint64 // allowed, denied, shadowed
	counts         [max(int(lastRouteCounter), int(lastClusterCounter), int(lastListenerCounter))]uint64
}

func (s *sum) active() uint64      { return lessOr0(s.started, s.done) }
func (s *sum) connections() uint64 { return lessOr0(s.opened, s.closed) }

// lessOr0: the end of something may be read before its begin.
func lessOr0(begun, ended uint64) uint64 {
	if ended > begun {
		return 0
	}
	return begun - ended
}

func (s *sum) add(o *sum) {
	s.started += o.started
	s.done += o.done
	s.in += o.in
	s.out += o.out
	s.opened += o.opened
	s.closed += o.closed
	s.duration.count += o.duration.count
	s.duration.sum += o.duration.sum
	addAll(s.class[:], o.class[:])
	addAll(s.duration.bucket[:], o.duration.bucket[:])
	addAll(s.flags[:], o.flags[:])
	addAll(s.grpc[:], o.grpc[:])
	addAll(s.counts[:], o.counts[:])
	addAll(s.drops[:], o.drops[:])
	addAll(s.decided[:], o.decided[:])
}

func addAll(to, from []uint64) {
	for i := range from {
		to[i] += from[i]
	}
}

func read(to []uint64, from []counter) {
	for i := range from {
		to[i] += from[i].get()
	}
}

func (s *sum) route(r *routeSeries) {
	// What is over is read before what began, so that nothing seems to go on for
	// ever.
	read(s.class[:], r.class[:])
	s.duration.add(&r.duration)
	s.started += r.started.get()
	s.in += r.in.get()
	s.out += r.out.get()
	read(s.flags[:], r.flags[:])
	read(s.grpc[:], r.grpc[:])
	read(s.counts[:], r.counts[:])
}

func (s *sum) cluster(c *clusterSeries) {
	read(s.class[:], c.class[:])
	s.duration.add(&c.duration)
	s.started += c.started.get()
	s.closed += c.closed.get()
	s.opened += c.opened.get()
	read(s.counts[:], c.counts[:])
}

func (s *sum) listener(l *listenerSeries) {
	s.closed += l.closed.get()
	s.opened += l.opened.get()
	read(s.counts[:], l.counts[:])
	read(s.drops[:], l.drops[:])
}

func (s *sum) decision(r *ruleSeries) {
	for i, c := range [...]*counter{&r.allowed, &r.denied, &r.shadowed} {
		s.decided[i] += c.get()
		s.opened += c.get() // by which those that are shown are chosen
	}
}

// sums reads all of one sort that anything was counted for, sorted by name, at
// most mostShown and others.
func sums[T any](entries iter.Seq[*entry[T]], add func(*sum, *T)) []sum {
	var all []sum
	for e := range entries {
		s := sum{name: e.name}
		used := false
		for i := range e.workers {
			if series := e.workers[i].Load(); series != nil {
				add(&s, series)
				used = true
			}
		}
		for _, n := range s.class {
			s.done += n
		}
		if used {
			all = append(all, s)
		}
	}
	if len(all) > mostShown {
		slices.SortFunc(all, func(a, b sum) int {
			return cmp.Or(-cmp.Compare(a.done+a.opened, b.done+b.opened), compareNames(a, b))
		})
		rest := sum{name: name{others, others}}
		for i := range all[mostShown:] {
			rest.add(&all[mostShown+i])
		}
		all = append(all[:mostShown:mostShown], rest)
	}
	slices.SortFunc(all, compareNames)
	return all
}

func compareNames(a, b sum) int {
	return cmp.Or(strings.Compare(a.name.name, b.name.name), strings.Compare(a.rule, b.rule))
}

// entries of a directory, in no order. Caller holds Telemetry.mu until it has
// them all.
func (d *directory[T]) entries() []*entry[T] {
	out := make([]*entry[T], 0, len(d.byName))
	for _, e := range d.byName {
		out = append(out, e)
	}
	return out
}

// figures is everything that was counted, read once.
type figures struct{ routes, clusters, listeners, rules []sum }

func (t *Telemetry) figures() figures {
	t.mu.Lock()
	routes, clusters, listeners, rules := t.routes.entries(), t.clusters.entries(), t.listeners.entries(), t.rules.entries()
	t.mu.Unlock()
	return figures{
		routes:    sums(slices.Values(routes), (*sum).route),
		clusters:  sums(slices.Values(clusters), (*sum).cluster),
		listeners: sums(slices.Values(listeners), (*sum).listener),
		rules:     sums(slices.Values(rules), (*sum).decision),
	}
}

// lost events, because rings were full.
func (t *Telemetry) lost() (n uint64) {
	for _, w := range t.workers {
		n += w.ring.lost.get()
	}
	return n
}
