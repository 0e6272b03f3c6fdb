package proxy

import (
	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
)

// exchange is one request and its answer. Its code runs on a coroutine: serve
// reads from top to bottom what happens to a request.
type exchange struct {
	w *worker
	keeping
	passage
}

// keeping is the memory that an exchange has for the next one.
type keeping struct {
	req, resp                 message.Head
	reqTrailers, respTrailers message.Head
	heads                     []byte // of req
	answers                   []byte // of resp
	arena                     route.Arena
	ids                       []byte // of trace context
	body                      kept   // request body that may be sent again
	mirrors                   []*mirror
	more                      []attempt // for rules with more hedges than one
	rec                       telemetry.Request
	cases                     [decisions]authz.Case
	host                      []byte // that is decided about
}

// passage is what is of one request only.
type passage struct {
	t       *engine.Task
	from    *caller
	plan    *plan // the configuration that it began with, with its
	speaker *speaker
	ln      *listener

	down1   *down1   // whose request it is, over HTTP/1
	down2   *stream2 // or over HTTP/2
	down    stream
	passing *passing // a connection that is passed through
	copyOf  *mirror  // a copy of another request
	inquiry *inquiry // a question about another request

	found    route.Found
	rule     *rule
	backend  *route.Backend
	pool     *pool // of the backend's cluster
	subset   int
	hash     uint64
	visited  balance.Tried
	origins  [2]route.Origin // for CORS: of the rule, of the backend
	pair     [2]attempt      // most exchanges need no more than one
	tries    []attempt       // pair, or more of them for hedges
	live     int             // how many of tries are under way
	won      *attempt        // whose answer is taken
	tried    int             // attempts begun
	budgeted int             // of these, taken from the budget of retries
	backoff  int64           // before the next
	resent   bool            // once more, because a kept connection was closed
	hedged   int             // hedges begun
	alone    bool            // there will be no more

	grpc     bool     // content-type application/grpc
	close    bool     // the caller's connection ends with this answer
	answered bool     // the head of an answer went to the caller
	broken   bool     // the answer that began cannot be ended
	slow     bool     // it was ended because the caller was too slow
	tunnel   bool     // after a 101 or a CONNECT: bytes both ways
	extended bool     // an extended CONNECT went on as an Upgrade
	keyed    bool     // with a Sec-WebSocket-Key of its caller
	upgrade  []byte   // an Upgrade went on as an extended CONNECT to this
	accept   []byte   // and this is its Sec-WebSocket-Accept
	timeout  [16]byte // memory of grpc-timeout

	// In the mesh.
	toKey    endKey               // where to, when no route says it
	crossed  *target              // both sides are ours: the last one that it crossed to
	crossing telemetry.Mesh       // of the record of that side
	judged   [decisions]judgement // those that stand
	came     telemetry.Mesh       // of the record of what came to a Gateway that calls on
	refusal  refusal              // why it is denied
	asker    *speaker             // who asks services about it

	moved     int64 // when something moved last
	by        int64 // when the request's time is up; 0: never
	rateSince int64 // of the measure of the minimum rate
	rateBytes uint64
	rateWire  bool
}

// newExchange is an exchange for a caller, with the memory of an earlier one.
func (w *worker) newExchange(from *caller) *exchange {
	var x *exchange
	if n := len(w.exchanges); n > 0 {
		x = w.exchanges[n-1]
		w.exchanges = w.exchanges[:n-1]
		w.leastExchanges = min(w.leastExchanges, n-1)
	} else {
		x = &exchange{w: w}
		x.req.Fields = make([]message.Field, 0, 16)
		x.resp.Fields = make([]message.Field, 0, 16)
		x.rec.Reset()
	}
	x.from, x.plan, x.speaker, x.ln = from, from.plan, from.speaker, from.ln
	x.tries = x.pair[:]
	return x
}

// freeExchange keeps x and its memory for another request.
func (w *worker) freeExchange(x *exchange) {
	if cap(x.heads) > keepHeads {
		x.heads = nil
	}
	if cap(x.answers) > keepHeads {
		x.answers = nil
	}
	x.req.Reset()
	x.resp.Reset()
	x.reqTrailers.Reset()
	x.respTrailers.Reset()
	x.arena.Reset()
	x.arena.Trim(keepHeads)
	x.rec.Reset()
	for i := range x.cases {
		if x.cases[i].Head != nil {
			x.cases[i].Reset()
		}
	}
	x.body.free()
	clear(x.more)
	x.heads, x.answers, x.ids, x.mirrors = x.heads[:0], x.answers[:0], x.ids[:0], x.mirrors[:0]
	x.passage = passage{}
	if len(w.exchanges) < spare {
		w.exchanges = append(w.exchanges, x)
	}
}

// spare is how many exchanges or streams a worker keeps at most; those that
// nobody needs are given up soon (worker.trim).
const spare = 4096

// keepHeads is the largest memory of heads that an exchange keeps when it is over.
const keepHeads = 16 << 10

// begin starts the coroutine of x; req and down are set.
func (x *exchange) begin() {
	w := x.w
	x.moved = w.loop.Now
	x.close = x.req.Close
	if x.passing == nil {
		x.down.most = uint64(max(x.ln.limits.body, 0))
	}
	r := &x.rec
	r.Table, r.Listener, r.Start = x.plan.table, x.ln.id, w.loop.Now
	r.Source, r.Local, r.Secure, r.Caller = x.from.peer, x.from.local, x.from.secure, x.from.identity
	r.Method, r.Host, r.Path = x.req.Method, x.req.Authority, x.req.Path
	if f := x.from.flow; f != nil {
		f.tell(&r.Mesh)
	}
	switch {
	case x.passing != nil:
	case x.down2 != nil:
		r.Protocol = telemetry.HTTP2
	case x.req.Minor == 1:
		r.Protocol = telemetry.HTTP11
	default:
		r.Protocol = telemetry.HTTP10
	}
	x.t = w.loop.Go(x)
}

// wake has the coroutine look again.
func (x *exchange) wake() { x.t.Wake() }

// Run implements engine.Runner.
func (x *exchange) Run(*engine.Task) {
	switch {
	case x.inquiry != nil:
		x.inquiry.end(x.inquire())
		x.w.freeExchange(x)
		return
	case x.copyOf != nil:
		x.runMirror()
		x.w.freeExchange(x)
		return
	case x.passing != nil:
		x.pass()
	default:
		x.serve()
	}
	x.end()
}

// Abort implements engine.Runner: the code of x panicked. Nothing that it held
// is used again.
func (x *exchange) Abort() {
	for i := range x.tries[:x.live] {
		x.tries[i].drop()
	}
	if x.inquiry != nil {
		x.inquiry.end(errService)
		return
	}
	if x.copyOf != nil {
		x.copyOf.x = nil
		return
	}
	x.live, x.broken = 0, true
	x.end()
}

// serve is what happens to a request, in order.
func (x *exchange) serve() {
	if x.from.flow.unrouted() {
		if x.receive() { // by a socket of a Workload: may it, and how does it go on
			x.forward()
		}
		return
	}
	if !x.match() { // which rule
		return
	}
	if !x.admit() { // may it: size, rate limits, faults
		return
	}
	if !x.filter(&x.rule.Filters, &x.origins[0]) { // what the rule changes, or answers itself
		return
	}
	if !x.choose() { // which backend of the rule
		return
	}
	x.forward() // to an endpoint, and its answer back
}

// end tells what happened and gives the connection back.
func (x *exchange) end() {
	w := x.w
	x.down.unpipe()
	r := &x.rec
	r.End = w.loop.Now
	r.In, r.Out = x.down.read, x.down.wrote
	if !x.answered && r.Status == 0 && x.down.gone() {
		r.Flags |= telemetry.CallerClosed
	}
	w.tel.RequestDone(r)
	if x.crossed != nil {
		x.tellCrossing()
	}
	if x.came.Side != telemetry.NoSide {
		x.tellCame()
	}
	for i, m := range x.mirrors {
		m.end(x.down.ended)
		x.mirrors[i] = nil
	}
	for range x.budgeted {
		x.pool.limits.ReleaseRetry()
	}
	switch {
	case x.passing != nil:
		x.passing.end(x)
	case x.down1 != nil:
		x.end1()
	default:
		x.end2()
	}
}

// end1 ends x on an HTTP/1 connection, which goes on when both messages are
// whole.
func (x *exchange) end1() {
	d := x.down1
	keep := x.answered && !x.close && !x.broken && x.down.finished && !x.tunnel
	if keep && !x.down.ended {
		keep = x.skipBody()
	}
	if x.broken {
		d.c.Abort()
	}
	x.w.freeExchange(x)
	d.done(keep)
}

// skipBody takes what is left of a request body when it is here already.
func (x *exchange) skipBody() bool {
	for {
		data, err := x.down.peek()
		if err != nil {
			return false
		}
		if x.down.ended {
			return true
		}
		if len(data) == 0 {
			return false
		}
		x.down.take(len(data))
	}
}
