package proxy

import (
	"bytes"
	"net/netip"

	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
)

// caller is who is at the other end of a connection that we accepted.
type caller struct {
	w        *worker
	ln       *listener
	plan     *plan          // that ln is of, with its
	speaker  *speaker       // who makes connections for it
	leaves   bool           // its listener is no more, or another one now
	peer     netip.AddrPort // from the PROXY header, when there is one
	local    netip.AddrPort
	address  []byte // text of peer's address
	secure   bool
	identity []byte // URI SAN
	at       int    // place in the roll; 0: it is not there
	open     *int   // connections of the listening address, to be counted down
	opened   bool
	flow     *flow // of the mesh; nil: it came by a socket of the proxy itself
	// Since when it takes what waits too slowly, maybe, and what it had taken then.
	owesSince int64
	acked     uint64
}

// preface begins every HTTP/2 connection (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// greeting is a connection of which it is not known yet what it speaks: PROXY
// header, TLS, protocol.
type greeting struct {
	caller
	c      *engine.Conn
	header bool // the PROXY header is still to come
	layer  *tlsLayer
	outer  *tlsLayer // TLS of the mesh, around layer, of what comes to a Gateway
	passed bool      // a Gateway let it in
	shook  bool      // TLS is up
	begun  bool      // some of the preface came
	alpn   string
	timer  engine.Timer

	protocol l7.Protocol // that is spoken, as far as it is known
	manner   manner
}

// accept takes a connection that the kernel has.
func (w *worker) accept(a *accepting, fd int, peer netip.AddrPort) {
	ln := a.ln
	g := &greeting{caller: caller{w: w, ln: ln, plan: w.plan, speaker: w.own, peer: peer, local: ln.addr, open: &a.open}}
	if ln.addr.Addr().IsUnspecified() {
		g.local = engine.LocalAddr(fd)
	}
	c, err := w.loop.Adopt(fd, g.local, peer, g)
	if err != nil {
		return
	}
	g.c, g.protocol = c, ln.conf.Protocol
	a.open++
	g.opened = true
	if most := ln.limits.connections; most > 0 && a.open > most {
		w.tel.AddListener(w.plan.table, ln.id, telemetry.Refused, 1)
		a.open--
		c.Abort()
		return
	}
	w.tel.ConnOpened(w.plan.table, ln.id)
	w.conns.enter(g)
	g.header = ln.conf.ProxyProtocol
	if t := ln.limits.handshake; t > 0 {
		w.loop.Arm(&g.timer, w.loop.Now+t, g)
	}
	g.advance()
}

// Ready implements engine.Owner.
func (g *greeting) Ready(*engine.Conn) { g.advance() }

// Expire implements engine.Expirer: the caller says nothing, or too slowly.
func (g *greeting) Expire(*engine.Timer) {
	if g.manner == either {
		g.takePlain()
		return
	}
	g.end()
}

// drain implements conn.
func (g *greeting) drain(last bool) {
	if last {
		g.end()
	}
}

// sweep implements conn: its timer is all it needs.
func (g *greeting) sweep(int64) {}

// advance goes on as far as the bytes that came allow.
func (g *greeting) advance() {
	c := g.c
	if c.Closed() {
		return
	}
	if g.flow != nil && g.flow.side == telemetry.In && !g.passed {
		g.arrive()
		return
	}
	if g.header {
		if done := g.readHeader(); !done {
			return
		}
	}
	if g.protocol == l7.TLS {
		g.peekTLS()
		return
	}
	if g.ln.tls != nil && !g.shook {
		g.handshake()
		return
	}
	g.speak(g.alpn)
}

// speak chooses the protocol: by ALPN, by configuration, or by the preface of
// HTTP/2, which no HTTP/1 request begins with.
func (g *greeting) speak(alpn string) {
	c := g.c
	if g.protocol == l7.TCP {
		g.leave()
		r, name := g.ruleOf()
		serveRule(g.caller, c, r, telemetry.TCP, name)
		return
	}
	two := alpn == "h2" || alpn == "" && g.protocol == l7.HTTP2
	if alpn == "" && (g.protocol == l7.AutoHTTP || g.protocol == "") {
		b := c.In.Bytes()
		n := min(len(b), len(preface))
		switch {
		case n == 0 && !c.EOF && !c.Broken():
			if g.ln.tls == nil {
				// Nothing came yet: an idle connection needs no state of its own but this.
				g.idle()
			}
			return
		case bytes.Equal(b[:n], []byte(preface[:n])) && n > 0:
			if n < len(preface) && !c.EOF && !c.Broken() {
				g.hurry()
				return
			}
			two = n == len(preface)
		}
	}
	g.leave()
	if two {
		serve2(g.caller, c)
	} else {
		serve1(g.caller, c)
	}
}

// ruleOf is the rule for a connection whose bytes are passed on; nil: no route has
// it. Where TLS ends here the name that was asked for may choose.
func (g *greeting) ruleOf() (r *route.Rule, name []byte) {
	if g.flow.unrouted() {
		return nil, nil
	}
	if g.ln.tls != nil {
		name = []byte(g.layer.Facts().ServerName)
		r = g.plan.routes.MatchTLS(g.ln.index, name, &g.w.routing)
	}
	if r == nil {
		r = g.plan.routes.MatchTCP(g.ln.index)
	}
	return r, name
}

// idle lets a plain connection wait for its first request as long as for the next.
func (g *greeting) idle() {
	if t := g.ln.limits.idle; t > 0 {
		g.w.loop.Arm(&g.timer, g.w.loop.Now+t, g)
	} else {
		g.w.loop.Disarm(&g.timer)
	}
	if g.c.EOF || g.c.Broken() {
		g.end()
	}
}

// hurry bounds the time of a preface that has begun, as that of a head.
func (g *greeting) hurry() {
	if t := g.ln.limits.headTime; t > 0 && !g.begun {
		g.begun = true
		g.w.loop.Arm(&g.timer, g.w.loop.Now+t, g)
	}
}

// leave: another owner takes over.
func (g *greeting) leave() {
	g.w.loop.Disarm(&g.timer)
	g.w.conns.leave(g)
	g.follow()
	if g.peer.IsValid() {
		g.address = g.peer.Addr().AppendTo(nil)
	}
}

// end closes a connection that came to nothing.
func (g *greeting) end() {
	g.w.loop.Disarm(&g.timer)
	g.w.conns.leave(g)
	g.caller.close()
	g.c.Close()
}

// follow makes the configuration that is served now that of the caller, whose
// next request goes by it. False: it has no such listener any more, or one with
// another trust; then the caller goes by the old one, and is to leave.
func (f *caller) follow() bool {
	n := f.w.plan
	if f.plan == n {
		return true
	}
	if f.flow != nil {
		return f.followMesh(n)
	}
	if l := n.sameListener(f.ln); l != nil {
		f.ln, f.plan, f.speaker = l, n, f.w.own
		return true
	}
	f.leaves = true
	return false
}

// sameListener is what a listener of an older plan is in this one; nil: it is not
// there any more, or is spoken to in another way.
func (n *plan) sameListener(was *listener) *listener {
	i, ok := n.doors[was.conf.Name]
	if !ok {
		return nil
	}
	l := n.listeners[i]
	if l.addr == was.addr && l.conf.View == was.conf.View && l.tls == was.tls &&
		l.conf.Protocol == was.conf.Protocol && l.conf.ProxyProtocol == was.conf.ProxyProtocol {
		return l
	}
	return nil
}

// stuck: the caller took less than it has to of what waits for it, for so long
// that it will not. What it took is what its kernel acknowledged: ours may
// have no room for minutes for one that reads slowly but well.
func (f *caller) stuck(c *engine.Conn, now int64) bool {
	if c.BlockedAt == 0 || f.ln.limits.minRate <= 0 {
		f.owesSince = 0
		return false
	}
	if f.owesSince == 0 {
		f.owesSince, f.acked = c.BlockedAt, c.Acked()
		return false
	}
	if now-f.owesSince < 2*rateWindow {
		return false
	}
	acked := c.Acked()
	slow := acked-f.acked < uint64(f.ln.limits.minRate)*uint64((now-f.owesSince)/1e9)
	f.owesSince, f.acked = now, acked
	if slow {
		f.w.tel.AddListener(f.plan.table, f.ln.id, telemetry.SlowCallers, 1)
	}
	return slow
}

// cut implements conn.
func (g *greeting) cut() { g.end() }

// close counts the connection down.
func (f *caller) close() {
	if f.opened {
		f.opened = false
		*f.open--
		f.w.tel.ConnClosed(f.plan.table, f.ln.id)
	}
}

// listen makes the worker accept on sockets, one for each address.
func (w *worker) listen(addr netip.AddrPort, ln *listener, fds []int) error {
	a := w.listeners[addr]
	if a == nil {
		a = &accepting{}
		w.listeners[addr] = a
	}
	a.ln = ln
	for _, fd := range fds {
		s, err := w.loop.Accept(fd, func(fd int, peer netip.AddrPort) { w.accept(a, fd, peer) })
		if err != nil {
			return err
		}
		a.socks = append(a.socks, s)
	}
	return nil
}
