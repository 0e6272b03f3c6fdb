package proxy

// roll is the connections of a worker's callers. Each knows its place, from 1 on,
// so that one leaves without a search; then the last takes its place.
type roll []conn

func (r *roll) enter(c conn) {
	*r = append(*r, c)
	*c.place() = len(*r)
}

// leave takes c out, if it is there.
func (r *roll) leave(c conn) {
	at := c.place()
	if *at == 0 {
		return
	}
	end := len(*r) - 1
	last := (*r)[end]
	(*r)[*at-1], *last.place() = last, *at
	(*r)[end] = nil
	*r = (*r)[:end]
	*at = 0
}

// all visits everybody, from the last to the first: who takes the place of one
// that leaves meanwhile was visited.
func (r *roll) all(visit func(conn)) {
	for i := len(*r); i > 0; {
		if i = min(i, len(*r)) - 1; i >= 0 {
			visit((*r)[i])
		}
	}
}

// stride is how many connections are visited in one turn.
const stride = 256

// round visits all of a worker's connections, some in each turn, so that no turn
// is long because there are many. Who enters meanwhile is left out.
type round struct {
	w     *worker
	visit func(conn)
	left  int
	goes  bool
}

// begin begins it, anew if it goes on.
func (k *round) begin() {
	k.left = len(k.w.conns)
	if !k.goes {
		k.goes = true
		k.step()
	}
}

func (k *round) step() {
	for range stride {
		if k.left = min(k.left, len(k.w.conns)); k.left == 0 {
			k.goes = false
			return
		}
		k.left--
		k.visit(k.w.conns[k.left])
	}
	k.w.loop.Post(k.step)
}

// place implements conn.
func (f *caller) place() *int { return &f.at }
