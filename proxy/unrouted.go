package proxy

import (
	"cmp"

	"moire.dev/moire/proxy/authz"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
	"moire.dev/moire/snapshot/l7"
)

// aside is the backend of what no route routes.
var aside = &route.Backend{}

// receive is match, admit and choose for a request that no route takes: it goes
// to the application, or to where its caller sent it.
func (x *exchange) receive() bool {
	w, f := x.w, x.from.flow
	x.sanitizeMesh()
	x.grpc = route.IsGRPC(&x.req)
	x.aim()
	r := &x.rec
	w.tel.RequestStarted(r.Table, r.Route)
	w.tel.Extract(r.Table, &x.req, &r.Trace)
	r.Agent, _ = x.req.Get(message.UserAgent)
	if x.plan.conf.Telemetry.Tracing != nil {
		r.RequestID, x.ids = w.tel.RequestID(&x.req, x.ids[:0])
	} else {
		r.RequestID, _ = x.req.Get(message.XRequestID)
	}
	if why := x.clean(); why != "" {
		r.Flags |= telemetry.CallerProtocolError
		x.reply(400, why)
		return false
	}
	r.Path = x.req.Path
	if f.side == telemetry.In && !x.admitIn() {
		return false
	}
	if x.pool.two || x.toKey.h2 || x.toKey.spiffe != "" {
		x.body.keep(4 << 10) // for an application that goes away: see mayResend
	}
	x.ids = w.tel.Inject(r.Table, &x.req, &r.Trace, x.ids)
	return true
}

// clean puts the path into its normal form where a rule may compare it, and
// leaves it to the application where none does.
func (x *exchange) clean() (why string) {
	f := x.from.flow
	leg := f.leg
	if f.side == telemetry.Out {
		t := x.targetOf(x.pool.end(x.toKey))
		leg = t.out
		if t.own != nil && leg.Session == nil {
			leg = t.in
		} else if t.own != nil {
			leg.Paths = leg.Paths || t.in.Paths
		}
	}
	if leg.Session == nil {
		return ""
	}
	return x.w.routing.Normal(&x.req, !leg.Paths, &x.arena)
}

// aim sets where to, when no route says it.
func (x *exchange) aim() {
	f := x.from.flow
	x.backend = aside
	x.toKey = endKey{addr: x.from.local, from: x.from.peer.Addr()}
	two := x.down2 != nil
	if f.side == telemetry.In {
		x.rule, two = f.work.enter, x.speaksTwo()
	} else {
		x.rule = f.work.leave
		if f.work.Meshed && f.peer != nil && f.peer.Mesh {
			x.toKey.spiffe = f.peer.SPIFFE
		}
	}
	x.toKey.h2 = two && x.passing == nil
	x.pool = x.speaker.roaming(f.side)
	x.rec.Route, x.rec.Cluster = x.rule.tel, x.pool.id
}

// speaksTwo says whether the application is spoken to in HTTP/2: when it said so,
// or when it said nothing and its caller does, for itself.
func (x *exchange) speaksTwo() bool {
	switch x.from.flow.work.Port(x.from.local.Port()) {
	case l7.HTTP1:
		return false
	case l7.HTTP2:
		return true
	}
	return x.down2 != nil && !x.from.flow.one
}

// admitIn asks the Set of the one who is called.
func (x *exchange) admitIn() bool {
	f, m := x.from.flow, &x.rec.Mesh
	leg := &f.leg
	v := leg.Verdict
	at := entering
	if f.gate() {
		at = atGate
	}
	if f.barred == telemetry.NoDrop {
		v = x.judge(at, leg, x.from.local, f.peer)
	} else {
		v.Allow = false
		x.close = true
	}
	m.Rule, m.Tier, m.Shadow = v.Rule, v.Tier, v.Shadow
	if !v.Allow {
		x.refused(at, leg, v, f.work.TellRule)
		if f.barred != telemetry.NoDrop {
			x.refusal.drop = f.barred
		}
		x.deny()
		return false
	}
	if f.work.TellCaller && len(x.from.identity) > 0 {
		x.tellCaller(f.work.SPIFFE, x.from.identity)
	}
	return true
}

var (
	xForwardedClientCert = []byte("x-forwarded-client-cert")
	xMoireRule           = []byte("x-moire-rule")
)

// tellCaller tells an application who calls it, as Envoy does.
func (x *exchange) tellCaller(own string, caller []byte) {
	v := make([]byte, 0, len(own)+len(caller)+8)
	v = append(append(append(append(v, "By="...), own...), ";URI="...), caller...)
	x.req.Add(xForwardedClientCert, v)
}

// lacks are the reasons in records for what a rule did not get.
var lacks = [...]telemetry.Drop{authz.BadToken: telemetry.BadToken, authz.NoKeys: telemetry.NoKeys, authz.NoAnswer: telemetry.NoAuthorizer}

// deny answers a request that the refusal is about.
func (x *exchange) deny() {
	r := &x.refusal
	x.resp.Reset()
	d := authz.Denial{Status: 403}
	if r.leg.Session != nil && r.judged.Head != nil && !r.Proxy {
		d = r.judged.Denial(r.leg.Session, r.Verdict, &x.resp)
	}
	if r.drop = cmp.Or(r.drop, lacks[d.Lack]); !r.over {
		x.rec.Flags |= telemetry.Denied
		x.rec.Mesh.Drop = r.drop
	}
	if x.grpc { // which has a content type of its own
		x.resp.Remove(string(contentType))
	}
	if r.tell {
		x.resp.Add(xMoireRule, []byte(r.Rule))
	}
	if d.Own && !x.grpc {
		x.replyWith(d.Status, d.Body)
		return
	}
	x.reply(d.Status, "denied by policy")
}

// sanitizeMesh removes from a request what only we may say. What applications
// say to each other about where a request came from first is theirs.
func (x *exchange) sanitizeMesh() { x.req.Fields = withoutOurs(x.req.Fields) }

func withoutOurs(fields []message.Field) []message.Field {
	kept := fields[:0]
	for _, f := range fields {
		if f.ID == message.Other && (internal(f.Name) || string(f.Name) == string(xForwardedClientCert)) {
			continue
		}
		kept = append(kept, f)
	}
	return kept
}

// changeMeshAnswer is what the mesh does to the head of an endpoint's answer.
func (x *exchange) changeMeshAnswer() {
	f := x.from.flow
	if f == nil || x.passing != nil {
		return
	}
	in := f.side == telemetry.In || x.crossed != nil
	if in || x.won.e.spiffe == "" { // who answers is no proxy of the mesh
		x.resp.Fields = withoutOurs(x.resp.Fields)
	}
	for k := range x.judged {
		if j := &x.judged[k]; j.session != nil && j.Allow {
			x.cases[k].ChangeAnswer(&x.resp, j.session, j.Verdict)
		}
	}
	switch {
	case x.crossed != nil && x.crossed.own.TellRule:
		x.resp.Add(xMoireRule, []byte(x.crossing.Rule))
	case f.gate() && f.work.TellRule:
		x.resp.Add(xMoireRule, []byte(x.came.Rule))
	case f.side == telemetry.In && f.work.TellRule:
		x.resp.Add(xMoireRule, []byte(x.rec.Mesh.Rule))
	}
}
