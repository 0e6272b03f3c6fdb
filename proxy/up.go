package proxy

import (
	"net/netip"

	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/telemetry"
)

// pool is a worker's side of a cluster: whom to choose, and the connections.
type pool struct {
	*settings
	speaker *speaker
	w       *worker
	table   *telemetry.Table
	pick    *balance.Picker
	ends    map[endKey]*endpoint
	at      []*endpoint // by endpoint index
}

// endKey tells connections apart that must not serve each other's requests.
type endKey struct {
	addr netip.AddrPort
	// from is where they come from, when that is not for the kernel to say.
	from netip.Addr
	// spiffe is who has to answer, in the TLS of the mesh; empty: nobody is asked.
	spiffe string
	// h2: HTTP/2 is spoken without being agreed on, where the pool does not say it.
	h2 bool
}

// endpoint has a worker's connections to one address.
type endpoint struct {
	endKey
	idle []*upConn // HTTP/1, the last used is the last
	two  []*upConn // HTTP/2, all that take streams or will
	gone bool      // the configuration has it no more
	// streams that an HTTP/2 connection took at a time, when last we asked.
	streams int
	target  *target // who is there
	conns   int     // connections that are or are being made
	agreed2 bool    // the last one agreed on HTTP/2
}

// upConn is one connection to an endpoint.
type upConn struct {
	w    *worker
	p    *pool
	e    *endpoint
	c    *engine.Conn
	two  *conn2 // HTTP/2
	user *attempt
	// waiting for the connection to be ready, beside user.
	waiting []*attempt
	state   upState
	err     error // why it failed
	reused  bool
	opened  bool // told of as opened
	served  int
	since   int64 // it is idle, or when it was dialled
	by      engine.Timer
	layer   *tlsLayer
	host    string // that its server was verified for; empty: for all
}

type upState uint8

const (
	upDialing upState = iota // also PROXY header and TLS handshake
	upReady                  // in use
	upIdle
	upDead
)

// conn is a connection for an attempt: an idle one, a stream of one that is
// there, or a new one that is still being made. Nil: a circuit limit.
func (p *pool) conn(a *attempt, fresh bool) *upConn {
	e := a.e
	if p.conf.ProxyProtocol != 0 { // it says who the caller is: nobody shares it
		return p.dial(a, e)
	}
	if a.x.passing != nil && p.roams {
		return p.dial(a, e)
	}
	if p.speaksTwo(e) || p.agrees(e) {
		if u := e.shareable(a); u != nil {
			return u
		}
	}
	if p.tls != nil && p.tls.perHost && e.spiffe == "" {
		return p.connFor(a, e)
	}
	for n := len(e.idle); n > 0 && !fresh; n = len(e.idle) {
		u := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		if u.c.Closed() || u.c.EOF || u.c.Broken() {
			u.close()
			continue
		}
		u.state, u.user, u.reused, u.p = upReady, a, true, p
		return u
	}
	return p.dial(a, e)
}

// connFor is conn where a connection serves requests for one host only.
func (p *pool) connFor(a *attempt, e *endpoint) *upConn {
	host := string(a.x.req.Authority)
	for n := len(e.idle) - 1; n >= 0; n-- {
		if u := e.idle[n]; u.host == host && !u.c.Closed() && !u.c.EOF && !u.c.Broken() {
			e.idle = append(e.idle[:n], e.idle[n+1:]...)
			u.state, u.user, u.reused, u.p = upReady, a, true, p
			return u
		}
	}
	u := p.dial(a, e)
	if u != nil {
		u.host = host
	}
	return u
}

// dial begins a new connection.
func (p *pool) dial(a *attempt, e *endpoint) *upConn {
	if !p.limits.AcquireConnection() {
		p.w.tel.AddCluster(p.table, p.id, telemetry.OverflowConnections, 1)
		return nil
	}
	u := &upConn{w: p.w, p: p, e: e, user: a, since: p.w.loop.Now}
	e.conns++
	from, err := p.origin(e)
	var c *engine.Conn
	if err == nil {
		c, err = p.w.loop.DialFrom(from, e.addr, u)
	}
	if err != nil {
		p.limits.ReleaseConnection()
		e.conns--
		u.state, u.err = upDead, err
		return u
	}
	u.c = c
	if p.connect > 0 {
		p.w.loop.Arm(&u.by, p.w.loop.Now+p.connect, u)
	}
	if a.x.passing == nil && (p.speaksTwo(e) || e.agreed2) && p.conf.ProxyProtocol == 0 && (p.tls == nil || !p.tls.perHost) {
		e.two = append(e.two, u) // others may wait for it, too
	}
	if !c.Connecting {
		u.connected()
	}
	return u
}

// Ready implements engine.Owner.
func (u *upConn) Ready(c *engine.Conn) {
	switch {
	case u.two != nil:
		u.two.ready()
	case u.state == upReady:
		if u.user != nil {
			u.user.x.wake()
		}
	case u.state == upIdle:
		if !c.EOF && !c.Broken() && c.In.Len() == 0 {
			return // nothing happened
		}
		u.unidle()
		u.close()
	case u.state == upDialing && u.layer == nil:
		if c.Err != 0 {
			u.fail(c.Err)
		} else if !c.Connecting {
			u.connected()
		}
	case u.layer != nil:
		u.layer.wake()
	}
}

// Expire implements engine.Expirer: connecting took too long.
func (u *upConn) Expire(*engine.Timer) {
	if u.state == upDialing {
		u.fail(errConnectTime)
	}
}

// connected goes on when the TCP connection is there.
func (u *upConn) connected() {
	u.opened = true
	u.w.tel.UpstreamOpened(u.p.table, u.p.id)
	if u.e.spiffe != "" {
		u.handshakeMesh()
		return
	}
	if u.p.conf.ProxyProtocol != 0 {
		u.announce()
	}
	if u.p.tls != nil {
		u.handshake()
		return
	}
	u.ready(u.two2())
}

// ready hands the connection to who waits for it.
func (u *upConn) ready(two bool) {
	u.w.loop.Disarm(&u.by)
	u.state = upReady
	u.e.agreed2 = two
	if two {
		u.begin2()
	} else if u.untwo(); len(u.waiting) > 0 {
		// ALPN chose HTTP/1: each of them needs a connection of its own.
		for _, a := range u.waiting {
			a.u = nil
			a.x.wake()
		}
		u.waiting = nil
	}
	if u.user != nil {
		u.user.x.wake()
	}
}

// fail ends a connection that was not made.
func (u *upConn) fail(err error) {
	u.err = err
	switch {
	case err == errConnectTime:
		u.w.tel.AddCluster(u.p.table, u.p.id, telemetry.ConnectTimeouts, 1)
	case !u.opened:
		u.w.tel.AddCluster(u.p.table, u.p.id, telemetry.ConnectFailures, 1)
	}
	u.close()
}

// release gives back an HTTP/1 connection after an exchange; it is kept when
// the next answer on it can only be that of the next request.
func (u *upConn) release(keep bool) {
	u.user = nil
	c := u.c
	u.served++
	if !keep || c.EOF || c.Broken() || c.In.Len() > 0 || u.e.gone || u.w.closing || u.p.conf.ProxyProtocol != 0 ||
		u.p.conf.Requests > 0 && u.served >= u.p.conf.Requests {
		u.close()
		return
	}
	c.Limit(0)
	c.Rest()
	u.state, u.since = upIdle, u.w.loop.Now
	u.e.idle = append(u.e.idle, u)
}

// unidle takes u out of the idle ones.
func (u *upConn) unidle() {
	for i, o := range u.e.idle {
		if o == u {
			u.e.idle = append(u.e.idle[:i], u.e.idle[i+1:]...)
			return
		}
	}
}

// close ends the connection.
func (u *upConn) close() {
	if u.state == upDead {
		return
	}
	u.state = upDead
	u.w.loop.Disarm(&u.by)
	u.untwo()
	u.e.conns--
	u.p.limits.ReleaseConnection()
	u.w.tel.UpstreamClosed(u.p.table, u.p.id)
	u.wakeWaiting()
	u.user, u.waiting = nil, nil
	u.c.Close()
}

// closed tells that an opened connection is no more.
func (u *upConn) closed() {
	if u.opened {
		u.opened = false
		u.w.tel.UpstreamClosed(u.p.table, u.p.id)
	}
}

// untwo takes u out of the connections that take streams.
func (u *upConn) untwo() {
	for i, o := range u.e.two {
		if o == u {
			u.e.two = append(u.e.two[:i], u.e.two[i+1:]...)
			return
		}
	}
}

// sweep closes connections that were idle for too long.
func (p *pool) sweep(now int64) {
	if p == nil {
		return
	}
	for key, e := range p.ends {
		if p.roams && e.conns == 0 {
			delete(p.ends, key)
			continue
		}
		for len(e.idle) > 0 && now-e.idle[0].since > p.idle {
			u := e.idle[0]
			e.idle = append(e.idle[:0], e.idle[1:]...)
			u.close()
		}
		for i := len(e.two) - 1; i >= 0; i-- {
			u := e.two[i]
			switch {
			case u.two == nil:
			case u.two.idleFor(now) > p.idle:
				u.two.bye()
				u.close()
			default:
				u.two.tidy(now)
			}
		}
	}
}
