package proxy

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/http1"
	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
)

// worker serves on one core. All that it has belongs to its loop.
type worker struct {
	p     *Proxy
	index int
	loop  *engine.Loop
	tel   *telemetry.Worker

	plan      *plan
	own       *speaker         // for the proxy itself
	speakers  []*speaker       // for Workloads, as in the plan; nil: not needed yet
	homes     map[string]*home // by key of the namespace
	memory    authz.Memory
	pickers   []*balance.Picker // by cluster of the plan; nil: not needed yet
	listeners map[netip.AddrPort]*accepting
	conns     roll
	// The rounds of those who learn of a change, and of the sweeper.
	changing, sweeping round

	exchanges []*exchange // to be used again
	// So many of them were not needed since the last trim.
	leastExchanges, leastTwos int
	streams                   http2.Pool
	twos                      []*stream2 // to be used again
	touched                   []*conn2   // with something in Out
	streaming                 int        // requests over HTTP/2 that go on
	sheds                     []*upConn  // to be closed
	scratch                   []byte
	crumbs                    []byte
	routing                   route.Scratch
	rand                      *rand.PCG

	answerLimits http1.Limits
	draining     bool
	closing      bool // the last connections are being ended
	sweeper      engine.Timer
}

// conn is a connection of a caller.
type conn interface {
	// drain is told when the proxy is to end: finish what goes on, and begin
	// nothing new. Last: now.
	drain(last bool)
	// follow is told when the configuration changed; false: drain.
	follow() bool
	// sweep is called once a second: end what does not move, shrink what rests.
	sweep(now int64)
	// cut ends the connection at once, whatever goes on.
	cut()
	// place in the roll; 0: it is not there.
	place() *int
	// flowing is what the mesh knows of it; nil: it is not of the mesh.
	flowing() *flow
}

// accepting is a listening socket.
type accepting struct {
	ln    *listener
	socks []*engine.Listener
	open  int
}

func newWorker(p *Proxy, index int) (*worker, error) {
	loop, err := engine.New(engine.Options{Ring: p.ring})
	if err != nil {
		return nil, err
	}
	w := &worker{p: p, index: index, loop: loop, tel: p.tel.Worker(index),
		homes: map[string]*home{}, listeners: map[netip.AddrPort]*accepting{},
		rand: rand.NewPCG(rand.Uint64(), rand.Uint64()), answerLimits: http1.Limits{Head: 64 << 10, Fields: 200}}
	w.changing = round{w: w, visit: w.changed}
	w.sweeping = round{w: w, visit: func(c conn) { c.sweep(w.loop.Now) }}
	loop.OnPanic = func(v any, stack []byte) {
		p.log.Error("a request ended in a panic", "panic", v, "stack", string(stack))
	}
	loop.BeforeFlush = w.flushTouched
	return w, nil
}

// run serves until ctx ends.
func (w *worker) run(ctx context.Context) error {
	w.loop.Post(func() { w.loop.Arm(&w.sweeper, w.loop.Now+1e9, w) })
	return w.loop.Run(ctx)
}

// random is 64 random bits, not for secrets.
func (w *worker) random() uint64 { return w.rand.Uint64() }

// wall is the time of day.
func (w *worker) wall() time.Time { return time.Now() }

// Expire implements engine.Expirer: once a second what was idle for too long is closed.
func (w *worker) Expire(*engine.Timer) {
	w.own.sweep(w.loop.Now)
	for _, s := range w.speakers {
		s.sweep(w.loop.Now)
	}
	w.sweeping.begin()
	w.p.trimmed.Add(int64(w.loop.Trim() + w.trim()))
	w.loop.Arm(&w.sweeper, w.loop.Now+1e9, w)
}

// trim gives up half of the memory that no exchange needed for a while, and says
// how much that is, about.
func (w *worker) trim() (bytes int) {
	n := len(w.exchanges) - (w.leastExchanges+1)/2
	bytes = (len(w.exchanges) - n) * (8 << 10)
	clear(w.exchanges[n:])
	w.exchanges = w.exchanges[:n]
	w.leastExchanges = n
	n = len(w.twos) - (w.leastTwos+1)/2
	clear(w.twos[n:])
	w.twos = w.twos[:n]
	w.leastTwos = n
	return bytes
}

// use switches to a plan: new requests go by it.
func (w *worker) use(n *plan) {
	w.plan = n
	w.pickers = make([]*balance.Picker, len(n.clusters))
	w.own = w.own.succeed(&speaker{w: w, plan: n})
	old := w.speakers
	w.speakers = nil
	if n.mesh != nil {
		w.speakers = make([]*speaker, len(n.mesh.workloads))
	}
	for _, s := range old {
		if s == nil {
			continue
		}
		if now := n.same(s.work.Workload); now != nil {
			w.speakers[now.Index] = s.succeed(&speaker{w: w, plan: n, work: now})
		} else {
			s.end()
		}
	}
	w.changing.begin()
}

// changed tells a connection that the configuration changed, or that the proxy
// is to end.
func (w *worker) changed(c conn) {
	if follows := c.follow(); !follows || w.draining {
		c.drain(false)
	}
}

// judged is what the balancer found out about an endpoint.
func (w *worker) judged(p *pool, ev balance.Event) {
	if ev.Reason != balance.NoReason {
		w.tel.AddCluster(p.table, p.id, telemetry.Ejections, 1)
		w.p.log.Info("endpoint ejected", "cluster", p.name, "endpoint", ev.Address, "reason", ev.Reason.String(), "value", ev.Value, "threshold", ev.Threshold)
	}
}

// refused counts a message that could not be read.
func (w *worker) refused(from *caller, status int) {
	w.tel.AddListener(from.plan.table, from.ln.id, telemetry.Malformed, 1)
	r := from.turnedAway()
	r.Status, r.Flags, r.Protocol = status, telemetry.CallerProtocolError, telemetry.HTTP11
	if from.flow != nil {
		w.unread(from, r)
	}
	w.tell(r)
}

// turnedAway begins the record of what came from a caller and became no exchange.
func (from *caller) turnedAway() *telemetry.Request {
	r := &telemetry.Request{}
	r.Reset()
	r.Table, r.Listener = from.plan.table, from.ln.id
	r.Secure, r.Source, r.Local, r.Caller = from.secure, from.peer, from.local, from.identity
	r.Start, r.End = from.w.loop.Now, from.w.loop.Now
	if f := from.flow; f != nil {
		f.tell(&r.Mesh)
		if f.unrouted() {
			r.Route = f.way()
		}
	}
	return r
}

// tell tells of something that is over as soon as it is known.
func (w *worker) tell(r *telemetry.Request) {
	w.tel.RequestStarted(r.Table, r.Route)
	w.tel.RequestDone(r)
}

// unread tells of what could not be read that who has to see requests lets nothing
// else through: the one that speaks here, or the one that is met in memory.
func (w *worker) unread(from *caller, r *telemetry.Request) {
	f, m := from.flow, &r.Mesh
	leg := f.leg
	if leg.Session == nil && f.unrouted() && f.side == telemetry.Out {
		if to := w.crossing(f.work, f.peer); to != nil {
			if leg = to.Enter(from.plan.mesh.Peer(f.work.VNI, from.peer.Addr()), from.peer.Addr(), from.local.Port()); leg.Session != nil {
				m.Side, m.VNI = telemetry.In, to.VNI
			}
		}
	}
	asks := f.routed && slices.Contains(from.ln.conf.Asking, f.work.Name)
	if leg.Session == nil && !asks {
		return
	}
	r.Flags |= telemetry.Denied
	m.Rule, m.Tier, m.Drop = leg.Rule, leg.Tier, telemetry.NotHTTP
	if asks { // which rule depends on who would have been chosen
		m.Rule, m.Tier = "", 0
	}
}
