package proxy

import (
	"errors"
	"slices"

	"moire.dev/moire/proxy/engine"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/proxy/tls"
)

var (
	errNoCertificate = errors.New("the Workload has no certificate that is good")
	errNoHome        = errors.New("the Workload's network namespace is no more")
)

// meshed says whether some endpoints may agree on HTTP/2 by the TLS of the mesh.
func (p *pool) meshed() bool { return p.speaker.work != nil && p.speaker.work.Meshed && !p.tcp }

// speaksTwo: HTTP/2 is spoken to e without being agreed on.
func (p *pool) speaksTwo(e *endpoint) bool { return p.two || e.h2 }

// agrees: ALPN says whether HTTP/2 is spoken to e.
func (p *pool) agrees(e *endpoint) bool {
	if e.spiffe != "" {
		return p.offers()
	}
	return p.auto
}

// offers says whether requests in HTTP/2 are offered to a proxy of the mesh.
func (p *pool) offers() bool { return !p.tcp }

// carries is what connections of p to a proxy of the mesh are for.
func (p *pool) carries(passing bool) tls.Carries {
	switch {
	case passing || !p.offers():
		return tls.Bytes
	case p.two || p.auto:
		return tls.Requests
	}
	return tls.Requests1
}

// origin is where connections to e come from.
func (p *pool) origin(e *endpoint) (engine.Origin, error) {
	s := p.speaker
	if s.work == nil {
		return engine.Origin{}, nil
	}
	h := s.w.homes[s.work.Namespace]
	if h == nil {
		return engine.Origin{}, errNoHome
	}
	o := engine.Origin{Namespace: h.namespace, Address: e.from}
	if p == s.app {
		// Who calls itself needs no disguise, and its application's answers to an own
		// address would not come by lo, which a disguise is bound to.
		if o.Mark = s.plan.mesh.mark; o.Mark == 0 || slices.Contains(s.work.Addresses, e.from) {
			o.Mark, o.Address = 0, e.addr.Addr()
		}
	}
	return o, nil
}

// end is an endpoint of the pool, as it was or new.
func (p *pool) end(key endKey) *endpoint {
	e := p.ends[key]
	if e == nil {
		e = &endpoint{endKey: key, streams: 100, gone: p.speaker.over}
		p.ends[key] = e
	}
	return e
}

// roaming is the pool of the application, or of what is called where no Listener is.
func (s *speaker) roaming(side telemetry.Side) *pool {
	at, c := &s.away, s.work.away
	if side == telemetry.In {
		at, c = &s.app, s.work.app
	}
	if *at == nil {
		*at = s.newPool(c, nil)
	}
	return *at
}

// speakerOf a Workload of the plan that is served.
func (w *worker) speakerOf(k *workload) *speaker {
	if w.speakers[k.Index] == nil {
		w.speakers[k.Index] = &speaker{w: w, plan: w.plan, work: k}
	}
	return w.speakers[k.Index]
}

// two2 says whether HTTP/2 is spoken on u when nothing was agreed on.
func (u *upConn) two2() bool {
	return (u.user == nil || u.user.x.passing == nil) && u.p.speaksTwo(u.e)
}

// handshakeMesh begins TLS with the proxy of who has to answer.
func (u *upConn) handshakeMesh() {
	work := u.p.speaker.work
	if work == nil || work.mutual == nil {
		u.fail(errNoCertificate)
		return
	}
	passing := u.user != nil && u.user.x.passing != nil
	config, err := work.mutual.Client(u.e.spiffe, u.p.carries(passing))
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
			u.w.p.log.Warn("TLS handshake of the mesh failed", "workload", work.String(), "endpoint", u.e.addr, "wanted", u.e.spiffe, "error", err)
			u.fail(err)
			return
		}
		u.w.tel.AddCluster(u.p.table, u.p.id, telemetry.UpstreamHandshakes, 1)
		if u.p.conf.ProxyProtocol != 0 {
			u.announce()
		}
		agreed := u.layer.Facts().Protocol
		u.ready(agreed == tls.Streams || agreed == tls.Streams1 || u.two2())
	})
}
