package proxy

import (
	"moire.dev/moire/proxy/balance"
	"moire.dev/moire/proxy/message"
	"moire.dev/moire/proxy/resilience"
	"moire.dev/moire/proxy/route"
	"moire.dev/moire/proxy/telemetry"
)

// match finds the rule of the request, on exactly what the endpoint will get.
func (x *exchange) match() bool {
	w := x.w
	if x.from.flow != nil {
		x.sanitizeMesh()
	}
	if !x.ln.trusted {
		x.sanitize()
	}
	x.grpc = route.IsGRPC(&x.req)
	f := x.plan.routes.Match(x.ln.index, &x.req, &w.routing, &x.arena)
	x.found = f
	x.rec.Path = x.req.Path
	r := &x.rec
	if f.Rule != nil {
		x.rule = x.plan.rules[f.Rule.ID]
		r.Route = x.rule.tel
	}
	w.tel.RequestStarted(r.Table, r.Route)
	w.tel.Extract(r.Table, &x.req, &r.Trace)
	r.Agent, _ = x.req.Get(message.UserAgent)
	if x.plan.conf.Telemetry.Tracing != nil {
		r.RequestID, x.ids = w.tel.RequestID(&x.req, x.ids[:0])
	} else if x.ln.trusted {
		r.RequestID, _ = x.req.Get(message.XRequestID)
	}
	switch {
	case f.Status == 400:
		r.Flags |= telemetry.CallerProtocolError
		x.reply(400, f.Why)
		return false
	case !x.letIn():
		return false
	case x.from.secure && f.Listener != x.ln.index && f.Rule != nil && !x.serves(f.Listener):
		r.Flags |= telemetry.NoRoute
		x.reply(421, "this connection is not for this host")
		return false
	case x.rule == nil:
		r.Flags |= telemetry.NoRoute
		x.reply(404, "no route")
		return false
	}
	return true
}

// serves says whether the TLS of the connection is also that of another listener.
func (x *exchange) serves(index int) bool {
	other := x.plan.listeners[index]
	return other.tls == nil || other.tls == x.ln.tls
}

// admit does what a rule does to requests before all else: faults and limits.
func (x *exchange) admit() bool {
	w, rule := x.w, x.rule
	if x.req.Framing == message.Sized && x.req.Length > 0 && x.down.tooLong(int(x.req.Length)) {
		x.rec.Flags |= telemetry.CallerProtocolError
		x.reply(413, errTooLong.Error())
		return false
	}
	callers, ok := x.callersTimeout()
	if !ok {
		x.rec.Flags |= telemetry.CallerProtocolError
		x.reply(400, "malformed grpc-timeout")
		return false
	}
	x.by = rule.deadlines.Whole(w.loop.Now, callers)
	if rule.fault != nil {
		in := rule.fault.Inject(&x.req, w.random())
		if in.Delay > 0 {
			x.rec.Flags |= telemetry.DelayInjected
			if !x.pause(w.loop.Now + in.Delay) {
				x.fail(&failure{flags: telemetry.CallerClosed, status: 499, reason: errCaller.Error()})
				return false
			}
		}
		if in.Abort {
			x.rec.Flags |= telemetry.FaultInjected
			x.abort(in)
			return false
		}
	}
	for i, l := range rule.limiters {
		a := l.Take(w.loop.Now, rule.LimitKey(i, l.Seed(), &x.req, x.from.peer.Addr(), x.from.identity, &w.routing))
		if !a.OK {
			for j := range i {
				rule.limiters[j].GiveBack(w.loop.Now, rule.LimitKey(j, rule.limiters[j].Seed(), &x.req, x.from.peer.Addr(), x.from.identity, &w.routing))
			}
			x.rec.Flags |= telemetry.RateLimited
			v := resilience.AppendSeconds(nil, a.After)
			x.resp.Reset()
			x.resp.Add([]byte("retry-after"), v)
			x.reply(429, "rate limit exceeded")
			return false
		}
	}
	return true
}

func (x *exchange) abort(in resilience.Injected) {
	if x.grpc && in.GRPC > 0 {
		x.resp.Reset()
		x.replyGRPC(in.GRPC, "fault injected")
		return
	}
	status := in.Status
	if status == 0 {
		status = 503
	}
	x.resp.Reset()
	x.reply(status, "fault injected")
}

// callersTimeout is what the caller itself allows, by grpc-timeout; 0: nothing
// said. False: nobody can tell what it says.
func (x *exchange) callersTimeout() (nanos int64, ok bool) {
	if !x.grpc {
		return 0, true
	}
	said := false
	for i := range x.req.Fields {
		if f := &x.req.Fields[i]; f.ID == message.GRPCTimeout {
			if nanos, ok = resilience.ParseGRPCTimeout(f.Value); !ok || said {
				return 0, false
			}
			said = true
		}
	}
	return nanos, true
}

// filter does what filters do to a request; false: one has answered.
func (x *exchange) filter(f *route.Filters, origin *route.Origin) bool {
	x.resp.Reset()
	if f.CORS != nil {
		if f.CORS.Preflight(&x.req, &x.resp, &x.arena) {
			x.reply(x.resp.Status, "")
			return false
		}
		*origin = f.CORS.Origin(&x.req, &x.arena)
	}
	if f.Redirect != nil {
		x.plan.routes.Answer(f.Redirect, x.found, &x.req, &x.resp, &x.arena)
		x.reply(x.resp.Status, "")
		return false
	}
	f.Request(&x.req, x.found.Prefix, &x.arena)
	return true
}

// choose picks a backend of the rule by weight.
func (x *exchange) choose() bool {
	w, rule := x.w, x.rule
	i := rule.Pick(w.random())
	if i == route.None || rule.Backends[i].Cluster == route.Invalid {
		x.rec.Flags |= telemetry.NoCluster
		status := 500
		x.reply(status, "no backend")
		return false
	}
	x.backend = &rule.Backends[i]
	if !x.filter(&x.backend.Filters, &x.origins[1]) {
		return false
	}
	x.pool = x.speaker.pool(x.backend.Cluster)
	x.rec.Cluster = x.pool.id
	x.subset = rule.subsets[i]
	if x.pool.hashed {
		x.hash = rule.HashOf(&x.req, x.from.peer.Addr(), &w.routing)
	}
	switch {
	case rule.retry != nil:
		x.body.keep(rule.retry.Body)
	case rule.hedge.Delay > 0:
		x.body.keep(64 << 10)
	case x.pool.two || x.pool.auto || x.pool.meshed():
		x.body.keep(4 << 10) // for an endpoint that goes away: see mayResend
	}
	x.hedges(rule.hedge.Most)
	x.mirror(rule.Filters.Mirrors)
	x.mirror(x.backend.Filters.Mirrors)
	x.ids = w.tel.Inject(x.rec.Table, &x.req, &x.rec.Trace, x.ids)
	return true
}

// changeAnswer does what the filters do to the head of an endpoint's answer.
func (x *exchange) changeAnswer() {
	for i, f := range [2]*route.Filters{&x.rule.Filters, &x.backend.Filters} {
		if f.CORS != nil {
			f.CORS.Response(&x.resp, x.origins[i], &x.arena)
		}
		f.Response(&x.resp)
	}
	x.changeMeshAnswer()
}

// sanitize removes what only we and those we trust may say, and tells the
// endpoint who the caller is.
func (x *exchange) sanitize() {
	h := &x.req
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		switch f.ID {
		case message.XForwardedFor, message.XForwardedProto, message.XForwardedHost, message.Forwarded, message.XRequestID:
			continue
		case message.Other:
			if internal(f.Name) {
				continue
			}
		}
		kept = append(kept, f)
	}
	h.Fields = kept
	proto := plainText
	if x.from.secure && (x.ln.tls != nil || x.from.flow == nil) { // the TLS of the mesh is not the caller's
		proto = secureText
	}
	h.Fields = append(h.Fields,
		message.Field{Name: xForwardedFor, Value: x.from.address, ID: message.XForwardedFor},
		message.Field{Name: xForwardedProto, Value: proto, ID: message.XForwardedProto})
	x.rec.Forwarded = x.from.address
}

var (
	plainText       = []byte("http")
	secureText      = []byte("https")
	xForwardedFor   = []byte("x-forwarded-for")
	xForwardedProto = []byte("x-forwarded-proto")
)

// internal names begin with x-moire- or l5d-.
func internal(name []byte) bool {
	return len(name) > 4 && (string(name[:4]) == "l5d-" || len(name) > 8 && string(name[:8]) == "x-moire-")
}

// unwanted says why an answer is one that another try may better; nil: it is
// taken.
func (x *exchange) unwanted(a *attempt) *failure {
	r := x.rule.retry
	if r == nil || x.resp.Status == 101 {
		return nil
	}
	t := resilience.Try{Failure: resilience.Answered, Status: x.resp.Status, GRPC: -1, Sent: true, BodyKept: x.bodyKept()}
	if x.grpc {
		if code, ok := grpcCode(&x.resp); ok {
			t.GRPC = code
		}
	}
	if !r.Retriable(x.req.Method, t) {
		return nil
	}
	result := balance.OfStatus(x.resp.Status)
	if t.GRPC >= 0 {
		result = balance.OfGRPC(t.GRPC)
	}
	return &failure{result: result, status: x.resp.Status, reason: "endpoint answered with an error", answered: true}
}
