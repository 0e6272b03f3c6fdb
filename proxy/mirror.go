package proxy

import (
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
)

// mirrorMost is how much of a body is held for a mirror that is slower than the
// exchange it copies; one that falls further behind is given up.
const mirrorMost = 1 << 20

// mirror is a copy of a request whose answer nobody waits for. It is an
// exchange of its own, whose caller is the memory here.
type mirror struct {
	x    *exchange
	data []byte // body that came, from r on not yet taken
	r    int
	done bool // all of it came
	lost bool // it will never be whole
}

// nothing is the rule of mirrors: no retries, no time.
var nothing = &rule{Rule: &route.Rule{Route: &route.Route{}}}

// mirror sends copies of the request as it now is.
func (x *exchange) mirror(all []route.Mirror) {
	if x.req.Upgrade != nil || x.req.IsMethod("CONNECT") {
		return // what is said in a tunnel is for one ear
	}
	for i := range all {
		m := &all[i]
		if !m.Takes(x.w.random()) || m.Cluster == route.Invalid {
			continue
		}
		x.w.tel.AddRoute(x.rec.Table, x.rec.Route, telemetry.Mirrored, 1)
		y := x.w.newExchange(x.from)
		c := &mirror{x: y, done: x.down.ended}
		y.copyOf, y.down.copy = c, c
		y.plan, y.pool, y.rule, y.grpc = x.plan, x.speaker.pool(m.Cluster), nothing, x.grpc
		y.heads = copyHead(&y.req, &x.req, y.heads[:0])
		y.down.expect(&y.req, &y.reqTrailers, nil)
		y.down.framing, y.down.ended = y.req.Framing, y.req.Framing == message.None
		y.moved = x.w.loop.Now
		y.t = x.w.loop.Go(y)
		if !x.down.ended {
			x.mirrors = append(x.mirrors, c)
			x.down.tees = x.mirrors
		}
	}
}

// copyHead copies a request's head, with its bytes in memory.
func copyHead(to, from *message.Head, memory []byte) []byte {
	n := len(from.Method) + len(from.Scheme) + len(from.Authority) + len(from.Path) + len(from.Upgrade)
	for i := range from.Fields {
		n += len(from.Fields[i].Name) + len(from.Fields[i].Value)
	}
	if cap(memory) < n {
		memory = make([]byte, 0, n)
	}
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		start := len(memory)
		memory = append(memory, b...)
		return memory[start:len(memory):len(memory)]
	}
	fields := to.Fields[:0]
	*to = *from
	to.Method, to.Scheme, to.Authority, to.Path, to.Upgrade = keep(from.Method), keep(from.Scheme), keep(from.Authority), keep(from.Path), keep(from.Upgrade)
	for _, f := range from.Fields {
		f.Name, f.Value = keep(f.Name), keep(f.Value)
		fields = append(fields, f)
	}
	to.Fields = fields
	return memory
}

// add gives a mirror bytes of the body.
func (m *mirror) add(b []byte) {
	if m.lost || m.x == nil {
		return
	}
	if len(m.data)-m.r+len(b) > mirrorMost {
		m.lost = true
	} else {
		m.data = append(m.data, b...)
	}
	m.x.wake()
}

// end: the exchange that is copied is over.
func (m *mirror) end(whole bool) {
	if m.x == nil {
		return
	}
	m.done, m.lost = true, m.lost || !whole
	m.x.wake()
}

func (m *mirror) peek(s *stream) ([]byte, error) {
	if m.lost {
		return nil, errShort
	}
	if b := m.data[m.r:]; len(b) > 0 {
		return b, nil
	}
	s.ended = m.done
	return nil, nil
}

func (m *mirror) take(n int) {
	if m.r += n; m.r == len(m.data) {
		m.data, m.r = m.data[:0], 0
	}
}

// runMirror sends the copy and reads its answer to nowhere.
func (x *exchange) runMirror() {
	defer func() { x.copyOf.x = nil }()
	if _, why := x.start(false); why != nil {
		return
	}
	if x.ask() != nil {
		return
	}
	a := x.won
	result := balance.OfStatus(x.resp.Status)
	for !a.up.ended {
		data, err := a.up.peek()
		if err != nil || x.resp.Status == 101 {
			result = balance.Reset
			break
		}
		if len(data) > 0 {
			a.up.take(len(data))
			x.moved = x.w.loop.Now
			continue
		}
		if a.up.ended {
			break
		}
		if _, err := a.pumpRequest(); err != nil {
			break
		}
		if x.wait() != nil {
			break
		}
	}
	a.finish(result, x.resp.Status, a.up.ended && a.up.finished && !x.resp.Close && a.up.framing != message.UntilClose)
	x.live = 0
}
