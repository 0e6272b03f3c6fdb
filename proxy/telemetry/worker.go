package telemetry

import "math/rand/v2"

// Worker is where one worker of the proxy tells what it does. It must be used
// by one goroutine at a time.
type Worker struct {
	index int
	ring  *ring
	wake  chan<- struct{}
	rand  *rand.ChaCha8
	_     [64]byte
}

// RequestStarted: an exchange has its route, or None. RequestDone must follow.
func (w *Worker) RequestStarted(t *Table, route int32) {
	if t.metrics {
		at(t.routes, route).of(w.index).started.add(1)
	}
}

// RequestDone: an exchange that was told of by RequestStarted is over, with the
// same Table and Route.
func (w *Worker) RequestDone(r *Request) {
	t := r.Table
	if t.metrics {
		w.count(t, r)
	}
	if t.records {
		w.record(r)
	}
}

func (w *Worker) count(t *Table, r *Request) {
	s := at(t.routes, r.Route).of(w.index)
	s.class[classOf(r.Status)].add(1)
	s.duration.observe(r.End - r.Start)
	if r.In != 0 {
		s.in.add(r.In)
	}
	if r.Out != 0 {
		s.out.add(r.Out)
	}
	if r.GRPC >= 0 {
		s.grpc[min(r.GRPC, statuses-1)].add(1)
	}
	if r.Mesh.Side != NoSide {
		w.decided(t, r)
	}
	if f := r.Flags; f != 0 {
		for i := range s.flags {
			if f>>i&1 != 0 {
				s.flags[i].add(1)
			}
		}
	}
}

// decided counts what a policy decided.
func (w *Worker) decided(t *Table, r *Request) {
	m := &r.Mesh
	if m.Drop != NoDrop {
		at(t.listeners, r.Listener).of(w.index).drops[m.Drop].add(1)
	}
	e := t.rules[m.Rule]
	if e == nil {
		return
	}
	s := e.of(w.index)
	switch {
	case r.Flags&Denied != 0:
		s.denied.add(1)
	default:
		s.allowed.add(1)
	}
	if m.Shadow.ID != "" {
		if e := t.rules[m.Shadow.ID]; e != nil && !m.Shadow.Allow {
			e.of(w.index).shadowed.add(1)
		}
	}
}

func (w *Worker) record(r *Request) {
	e := w.ring.next()
	if e == nil {
		return
	}
	e.fill(r)
	if w.ring.publish() {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// TryStarted: a request, or a connection that is passed through, goes to an
// endpoint of a cluster. TryDone must follow.
func (w *Worker) TryStarted(t *Table, cluster int32) {
	if t.metrics {
		at(t.clusters, cluster).of(w.index).started.add(1)
	}
}

// TryDone: the endpoint answered with this status, 0 when it did not; nanos
// after TryStarted.
func (w *Worker) TryDone(t *Table, cluster int32, status int, nanos int64) {
	if t.metrics {
		s := at(t.clusters, cluster).of(w.index)
		s.class[classOf(status)].add(1)
		s.duration.observe(nanos)
	}
}

// ConnOpened: a caller's connection was accepted. ConnClosed must follow.
func (w *Worker) ConnOpened(t *Table, listener int32) {
	if t.metrics {
		at(t.listeners, listener).of(w.index).opened.add(1)
	}
}

// ConnClosed: a caller's connection is no more.
func (w *Worker) ConnClosed(t *Table, listener int32) {
	if t.metrics {
		at(t.listeners, listener).of(w.index).closed.add(1)
	}
}

// UpstreamOpened: a connection to an endpoint was made. UpstreamClosed must follow.
func (w *Worker) UpstreamOpened(t *Table, cluster int32) {
	if t.metrics {
		at(t.clusters, cluster).of(w.index).opened.add(1)
	}
}

// UpstreamClosed: a connection to an endpoint is no more.
func (w *Worker) UpstreamClosed(t *Table, cluster int32) {
	if t.metrics {
		at(t.clusters, cluster).of(w.index).closed.add(1)
	}
}

// AddRoute adds n to a counter of a rule.
func (w *Worker) AddRoute(t *Table, route int32, c RouteCounter, n uint64) {
	if t.metrics {
		at(t.routes, route).of(w.index).counts[c].add(n)
	}
}

// AddCluster adds n to a counter of a cluster.
func (w *Worker) AddCluster(t *Table, cluster int32, c ClusterCounter, n uint64) {
	if t.metrics {
		at(t.clusters, cluster).of(w.index).counts[c].add(n)
	}
}

// AddListener adds n to a counter of a listener.
func (w *Worker) AddListener(t *Table, listener int32, c ListenerCounter, n uint64) {
	if t.metrics {
		at(t.listeners, listener).of(w.index).counts[c].add(n)
	}
}
