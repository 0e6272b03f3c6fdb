package proxy

import (
	"moire.dev/moire/proxy/proxyproto"
	"moire.dev/moire/proxy/telemetry"
)

// readHeader takes the PROXY header off the front of a connection. It says
// whether that is done; a connection without one ends.
func (g *greeting) readHeader() bool {
	h, n, err := proxyproto.Parse(g.c.In.Bytes())
	switch {
	case err == proxyproto.ErrMore && !g.c.EOF && !g.c.Broken():
		return false
	case err != nil:
		g.w.tel.AddListener(g.plan.table, g.ln.id, telemetry.Malformed, 1)
		g.end()
		return false
	}
	g.c.Consume(n)
	g.header = false
	if h.Source.IsValid() {
		g.peer, g.local = h.Source, h.Destination
	}
	return true
}

// announce writes the PROXY header to an endpoint: of the caller whose request
// the connection is made for. Such a connection serves that caller only.
func (u *upConn) announce() {
	from := u.user.x.from
	if u.p.conf.ProxyProtocol == 1 {
		u.c.Write(proxyproto.AppendV1(nil, from.peer, from.local))
		return
	}
	u.c.Write(proxyproto.AppendV2(nil, from.peer, from.local))
}
