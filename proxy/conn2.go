package proxy

import (
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/http2"
	"moire.dev/moire/proxy/telemetry"
)

// conn2 is an HTTP/2 connection, of a caller (down) or to an endpoint (up). It
// holds no coroutine: what it reads goes to the streams, whose exchanges run on
// coroutines of their own.
type conn2 struct {
	w       *worker
	c       *engine.Conn
	h       http2.Conn
	down    *down2  // exactly one of these
	up      *upConn // is set
	streams []*stream2
	held    []*stream2 // of these, requests that did not begin: see crowds
	since   int64      // there is no stream
	acked   uint64     // bytes of the wire when it was last swept
	takes   bool       // answers, as it seemed then
	touched bool       // in worker.touched
	over    bool
}

// touch has what is in the Out of k written in this turn.
func (k *conn2) touch() {
	if !k.touched {
		k.touched = true
		k.w.touched = append(k.w.touched, k)
	}
}

// flushTouched is called by the loop before it writes.
func (w *worker) flushTouched() {
	for i := 0; i < len(w.touched); i++ {
		k := w.touched[i]
		w.touched[i] = nil
		k.touched = false
		k.flush()
	}
	w.touched = w.touched[:0]
}

// flush moves Out to the socket's buffer and wakes the streams that waited.
func (k *conn2) flush() {
	if k.over {
		return
	}
	for out := k.h.Out(); len(out) > 0; out = k.h.Out() {
		n := k.c.Offer(out)
		k.h.Sent(n)
		if n < len(out) {
			k.c.Starved = true
			break
		}
	}
	for s := k.h.Writable(); s != nil; s = k.h.Writable() {
		s.Owner.(*stream2).wake()
	}
	k.admit(0)
	switch {
	case len(k.streams) > 0:
	case k.h.Drained():
		k.end()
	default:
		k.rest()
	}
}

// Ready implements engine.Owner, for a caller's connection.
func (k *conn2) Ready(*engine.Conn) { k.ready() }

// ready reads what came and lets waiting streams go on.
func (k *conn2) ready() {
	if k.over {
		return
	}
	c := k.c
	heads, decoded := 0, k.h.Decoded()
	for !k.over { // also when nothing came: what follows a frame are events, too
		ev, n, err := k.h.Next(c.In.Bytes(), k.w.loop.Now)
		k.event(&ev)
		c.Consume(n)
		if err != nil {
			k.failed(err)
			break
		}
		if ev.Kind == http2.NeedMore {
			break
		}
		if k.down != nil && (ev.Kind == http2.Head || ev.Kind == http2.Refused) {
			if heads++; (heads == maxHeads || k.h.Decoded()-decoded >= maxDecoded) && !k.over {
				c.Again()
				k.touch()
				return
			}
		}
	}
	if k.over {
		return
	}
	if c.EOF || c.Broken() {
		k.gone()
		return
	}
	k.touch()
	if k.down != nil {
		k.down.watch()
	}
}

// maxHeads of one connection are taken in a turn, and fewer when they are as large
// as maxDecoded together: others want to go on, too.
const (
	maxHeads   = 16
	maxDecoded = 64 << 10
)

// failed: the peer broke the protocol; what it gets is in Out.
func (k *conn2) failed(err error) {
	if k.down != nil {
		k.w.tel.AddListener(k.down.plan.table, k.down.ln.id, telemetry.Malformed, 1)
		k.w.p.log.Debug("HTTP/2 connection ended", "peer", k.c.Peer, "why", err)
	}
	k.gone()
}

// gone: the connection is no more; its streams are told, then it ends.
func (k *conn2) gone() {
	if k.over {
		return
	}
	for out := k.h.Out(); len(out) > 0; out = k.h.Out() {
		n := k.c.Offer(out)
		k.h.Sent(n)
		if n == 0 {
			break
		}
	}
	k.over = true
	for _, t := range k.streams {
		t.lost(http2.Cancel, false)
	}
	for _, t := range k.held {
		t.free()
	}
	k.held = nil
	k.shut()
}

// end closes a connection that has nothing left to do.
func (k *conn2) end() {
	if !k.over {
		k.over = true
		k.shut()
	}
}

func (k *conn2) shut() {
	if k.down != nil {
		k.down.close()
	} else {
		k.up.closeSoon()
	}
}

// event is what the peer said.
func (k *conn2) event(ev *http2.Event) {
	switch ev.Kind {
	case http2.NeedMore:
	case http2.Head:
		if k.down != nil {
			k.down.request(ev)
			return
		}
		if t, ok := ev.Stream.Owner.(*stream2); ok {
			t.answered(ev)
		}
	case http2.Data:
		if t, ok := ev.Stream.Owner.(*stream2); ok {
			t.receive(ev)
		}
	case http2.Trailers:
		if t, ok := ev.Stream.Owner.(*stream2); ok {
			t.trailers.Reset()
			t.trailers.Fields = append(t.trailers.Fields[:0], ev.Stream.Trailers...)
			t.hasTrailers, t.gotEnd = true, true
			t.wake()
		}
	case http2.Reset:
		if t, ok := ev.Stream.Owner.(*stream2); ok {
			if t.lost(ev.Code, ev.Unprocessed); t.x == nil {
				k.unhold(t)
			}
		} else {
			k.h.Release(ev.Stream)
		}
	case http2.Refused:
		if k.down != nil {
			k.w.refused(&k.down.caller, 400)
		}
	case http2.Settings:
		if k.up != nil {
			k.up.e.streams = int(min(k.h.PeerMaxStreams(), 1000))
			k.up.wakeWaiting()
		}
	case http2.GoAway:
		if k.up != nil {
			k.up.untwo()
		}
	}
}

// idleFor is how long the connection has had no stream.
func (k *conn2) idleFor(now int64) int64 {
	if len(k.streams) > 0 {
		return 0
	}
	return now - k.since
}

// rest gives the buffers of a connection back that has no stream.
func (k *conn2) rest() {
	if !k.over && len(k.h.Out()) == 0 && !k.h.Partial() {
		k.c.Rest()
	}
}

// tidy is called once a second: what is idle for that long needs less.
func (k *conn2) tidy(now int64) {
	if k.idleFor(now) > 1e9 {
		k.rest()
		k.h.Rest()
	}
}

// bye says farewell on an idle connection to an endpoint.
func (k *conn2) bye() {
	k.h.GoAway(http2.NoError, "")
	k.flush()
}

// retire lets what goes on end, and takes nothing new.
func (k *conn2) retire() {
	if k.up != nil {
		k.up.untwo()
	}
	k.h.Drain()
	k.touch()
}
