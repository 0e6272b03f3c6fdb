package proxy

import (
	"bytes"
	stdtls "crypto/tls"
	"errors"
	"reflect"

	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/proxy/tls"
	"moire.dev/moire/snapshot/l7"
)

// secrets is what a proxy has for TLS. It belongs to Apply, but for the store
// and what was verified, which all may read.
type secrets struct {
	store   tls.Store
	known   *tls.Verified
	servers map[string]*serverTLS // by name of the listener
	clients map[string]*clientTLS // by name of the cluster
}

// serverTLS is how a listener speaks TLS.
type serverTLS struct {
	conf     l7.ServerTLS
	protocol l7.Protocol
	config   *stdtls.Config
}

// clientTLS is how a cluster is spoken to.
type clientTLS struct {
	conf     l7.ClientTLS
	protocol l7.Protocol
	*tls.Client
	// perHost: the server is verified by the name that the request asks for, so a
	// connection serves requests for that name only.
	perHost bool
}

// try says whether the certificates of a configuration can be loaded.
func (s *secrets) try(cfg *l7.Config) error {
	if s.known == nil {
		s.known = tls.NewVerified(4096)
		s.servers, s.clients = map[string]*serverTLS{}, map[string]*clientTLS{}
	}
	return s.store.Try(cfg.Certificates)
}

// serverTLS of a listener; the same one while nothing about it changes, so that
// sessions can be resumed.
func (p *Proxy) serverTLS(l *l7.Listener) (*serverTLS, error) {
	s := &p.secrets
	if had := s.servers[l.Name]; had != nil && reflect.DeepEqual(had.conf, *l.TLS) && had.protocol == l.Protocol {
		return had, nil
	}
	config, err := tls.ServerConfig(l.TLS, l.Protocol, &s.store, s.known)
	if err != nil {
		return nil, err
	}
	out := &serverTLS{conf: *l.TLS, protocol: l.Protocol, config: config}
	s.servers[l.Name] = out
	return out, nil
}

func (p *Proxy) clientTLS(c *l7.Cluster) (*clientTLS, error) {
	if c.TLS == nil {
		return nil, nil
	}
	s := &p.secrets
	protocol := c.Protocol
	if protocol == "" {
		protocol = l7.HTTP1
	}
	if had := s.clients[c.Name]; had != nil && reflect.DeepEqual(had.conf, *c.TLS) && had.protocol == protocol {
		return had, nil
	}
	client, err := tls.NewClient(c.TLS, protocol, &s.store, s.known)
	if err != nil {
		return nil, err
	}
	out := &clientTLS{conf: *c.TLS, protocol: protocol, Client: client,
		perHost: c.TLS.ServerName == "" && len(c.TLS.Servers) == 0 && !c.TLS.Insecure}
	s.clients[c.Name] = out
	return out, nil
}

// secretsChanged loads certificates anew whose files changed.
func (p *Proxy) secretsChanged() {
	changed := p.secrets.store.Changed()
	if len(changed) == 0 {
		return
	}
	if err := p.secrets.store.Reload(); err != nil {
		p.log.Error("certificates that changed cannot be loaded; the old ones stay", "error", err)
		return
	}
	p.log.Info("certificates loaded anew", "names", changed)
}

// tlsLayer runs the handshake of a connection on a task of its own. After that
// it is the connection's layer and needs none.
type tlsLayer struct {
	*tls.Filter
	c    *engine.Conn
	t    *engine.Task
	done func(err error)
}

// shake puts a layer into c and begins the handshake; done is told how it ended.
func shake(c *engine.Conn, f *tls.Filter, done func(err error)) *tlsLayer {
	y := &tlsLayer{Filter: f, c: c, done: done}
	c.Shaking = true
	c.SetLayer(y)
	y.t = c.Loop().Go(y)
	return y
}

// shakeWithin is shake for TLS inside of the TLS of the mesh, which is up.
func shakeWithin(c *engine.Conn, outer, f *tls.Filter, done func(err error)) *tlsLayer {
	y := &tlsLayer{Filter: f, c: c, done: done}
	c.Shaking = true
	f.Feed(c.In.Bytes())
	c.In.Consume(c.In.Len())
	c.SetLayer(tls.NewNested(outer, f))
	y.t = c.Loop().Go(y)
	return y
}

func (y *tlsLayer) wake() {
	if y.t != nil {
		y.t.Wake()
	}
}

var errGone = errors.New("the connection ended in the handshake")

// Run implements engine.Runner.
func (y *tlsLayer) Run(t *engine.Task) {
	err := y.Handshake(func() error {
		y.c.Kick()
		t.Park()
		if y.c.Broken() {
			return errGone
		}
		return nil
	})
	y.t = nil
	y.c.Kick()
	if err == nil {
		y.c.Shaking = false
		y.c.Decrypt()
	}
	y.end(err)
}

// Abort implements engine.Runner.
func (y *tlsLayer) Abort() {
	y.t = nil
	y.end(errGone)
}

// end tells of the end of the handshake, and holds on to nobody who waited for it.
func (y *tlsLayer) end(err error) {
	done := y.done
	y.done = nil
	done(err)
}

// handshake begins TLS with a caller.
func (g *greeting) handshake() {
	if g.layer != nil {
		g.layer.wake()
		return
	}
	if g.plan.shared[g.ln.spot()] > 1 && !g.chooseByName() {
		return
	}
	f := tls.ServerFilter(g.ln.tls.config, g.peer.String())
	if g.outer != nil {
		g.layer = shakeWithin(g.c, g.outer.Filter, f, g.shaken)
	} else {
		g.layer = shake(g.c, f, g.shaken)
	}
}

// chooseByName is for an address that several listeners share: the name that is
// asked for chooses among them. It looks at the ClientHello before TLS begins, so
// that each listener has its own trust and its own sessions. False: more bytes
// are needed, or nobody has the name.
func (g *greeting) chooseByName() bool {
	hello, err := tls.PeekHello(g.c.In.Bytes())
	if err == tls.ErrMore && !g.c.EOF && !g.c.Broken() {
		return false
	}
	if err != nil {
		return true // the handshake says what is wrong
	}
	i := g.plan.routes.Listener(g.ln.index, []byte(hello.ServerName), &g.w.routing)
	if i < 0 || g.plan.listeners[i].tls == nil {
		g.w.tel.AddListener(g.plan.table, g.ln.id, telemetry.TLSFailures, 1)
		g.end()
		return false
	}
	g.ln = g.plan.listeners[i]
	return true
}

// shaken goes on after the handshake.
func (g *greeting) shaken(err error) {
	if g.c.Closed() {
		return
	}
	if err != nil {
		g.w.tel.AddListener(g.plan.table, g.ln.id, telemetry.TLSFailures, 1)
		g.refuseTLS(err)
		return
	}
	g.w.tel.AddListener(g.plan.table, g.ln.id, telemetry.Handshakes, 1)
	f := g.layer.Facts()
	if f.Resumed {
		g.w.tel.AddListener(g.plan.table, g.ln.id, telemetry.Resumptions, 1)
	}
	g.secure, g.shook = true, true
	if f.Peer != "" {
		g.identity = []byte(f.Peer)
	}
	g.alpn = f.Protocol
	if g.alpn == "" {
		g.alpn = "http/1.1"
	}
	g.speak(g.alpn)
}

// refuseTLS ends a connection whose handshake failed; who spoke HTTP gets told so.
func (g *greeting) refuseTLS(err error) {
	g.w.p.log.Debug("TLS handshake failed", "listener", g.ln.conf.Name, "peer", g.peer, "error", err)
	g.leave()
	g.caller.close()
	if first, plain := tls.Plain(err); plain && looksLikeHTTP(first[:]) {
		g.c.RemoveLayer()
		if g.outer != nil {
			g.c.SetLayer(g.outer)
		}
		g.c.Write([]byte("HTTP/1.1 400 Bad Request\r\ncontent-length: 27\r\nconnection: close\r\n\r\nthis port speaks TLS only.\n"))
	}
	g.c.CloseSoon()
}

func looksLikeHTTP(b []byte) bool {
	for _, m := range []string{"GET ", "POST", "PUT ", "HEAD", "OPTI", "DELE", "PATC", "CONN", "PRI "} {
		if bytes.HasPrefix(b, []byte(m)) {
			return true
		}
	}
	return false
}

// peekTLS passes a TLS connection on by the name it asks for, unopened.
func (g *greeting) peekTLS() {
	hello, err := tls.PeekHello(g.c.In.Bytes())
	if err == tls.ErrMore && !g.c.EOF && !g.c.Broken() {
		return
	}
	if err != nil {
		g.w.tel.AddListener(g.plan.table, g.ln.id, telemetry.Malformed, 1)
		g.end()
		return
	}
	g.leave()
	name := []byte(hello.ServerName)
	serveRule(g.caller, g.c, g.plan.routes.MatchTLS(g.ln.index, name, &g.w.routing), telemetry.TLSPassed, name)
}

// handshake begins TLS with an endpoint.
func (u *upConn) handshake() {
	host := ""
	if u.user != nil {
		host = string(u.user.x.req.Authority)
		if u.user.x.passing != nil {
			host = string(u.user.x.rec.Host)
		}
	}
	config, err := u.p.tls.Config(host)
	if err != nil {
		u.fail(err)
		return
	}
	u.layer = shake(u.c, tls.ClientFilter(config, u.e.addr.String()), func(err error) {
		if u.state != upDialing {
			return
		}
		if err != nil {
			u.w.tel.AddCluster(u.p.table, u.p.id, telemetry.UpstreamTLSFailures, 1)
			u.w.p.log.Warn("TLS handshake with an endpoint failed", "cluster", u.p.name, "endpoint", u.e.addr, "error", err)
			u.fail(err)
			return
		}
		u.w.tel.AddCluster(u.p.table, u.p.id, telemetry.UpstreamHandshakes, 1)
		u.ready(u.p.two || u.layer.Facts().Protocol == "h2")
	})
}
