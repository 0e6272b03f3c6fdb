package l7

import (
	"cmp"
	"fmt"
	"strings"
)

// attachments checks that every Route is taken by a Listener.
func (v *validator) attachments() {
	c := v.config
	taken := make([]bool, len(c.Routes))
	for _, a := range c.Attachments() {
		taken[a.Route] = true
		if a.Other < 0 {
			continue
		}
		r, o := &c.Routes[a.Route], &c.Routes[a.Other]
		v.soft(at("routes", a.Route)+".hostnames", "give them hostnames that do not overlap, or attach them to different listeners",
			"%s route %s shares a host of listener %s with %s route %s, which is older or sorts first; the Gateway API lets only one of them have it",
			cmp.Or(r.Kind, HTTPRoute), quote(r.Name), quote(c.Listeners[a.Listener].Name), cmp.Or(o.Kind, HTTPRoute), quote(o.Name))
	}
	for i := range c.Routes {
		if !taken[i] {
			v.unattached(at("routes", i), &c.Routes[i])
		}
	}
}

// unattached says why no Listener takes a Route.
func (v *validator) unattached(field string, r *Route) {
	kind := cmp.Or(r.Kind, HTTPRoute)
	some, fit := len(r.Listeners) == 0, false
	for _, name := range r.Listeners {
		if i, ok := v.listeners[name]; ok {
			some = true
			fit = fit || v.config.Listeners[i].Takes(kind)
		}
	}
	if len(r.Listeners) == 0 {
		for i := range v.config.Listeners {
			fit = fit || v.config.Listeners[i].Takes(kind)
		}
	}
	switch {
	case !some || len(v.config.Listeners) == 0 || kindFix[kind] == "" || !fit && len(r.Listeners) > 0: // told elsewhere
	case fit && len(r.Hostnames) > 0:
		v.soft(field+".hostnames", "use hostnames that the listener serves", "none of the hostnames is one of its listeners'")
	case !fit:
		v.soft(field+".kind", kindFix[kind], "no listener takes %s routes", kind)
	}
}

var kindFix = map[Kind]string{
	HTTPRoute: "add a listener with protocol http, http1 or http2",
	GRPCRoute: "add a listener with protocol http or http2",
	TLSRoute:  "add a listener with protocol tls, or tcp with tls",
	TCPRoute:  "add a listener with protocol tcp",
}

func (v *validator) route(field string, r *Route) {
	if !choice(v, field+".kind", r.Kind, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute) {
		return
	}
	for i, name := range r.Listeners {
		n, ok := v.reference(at(field+".listeners", i), "listener", name, v.listeners)
		if ok && !v.config.Listeners[n].Takes(r.Kind) {
			v.soft(at(field+".listeners", i), "name a listener that fits, or change the kind of the route",
				"listener %s speaks %s and takes no %s routes", quote(name), cmp.Or(v.config.Listeners[n].Protocol, AutoHTTP), cmp.Or(r.Kind, HTTPRoute))
		}
	}
	seen := map[string]bool{}
	for i, h := range r.Hostnames {
		f := at(field+".hostnames", i)
		if v.hostname(f, h, true) && seen[h] {
			v.bad(f, "remove it", "%s is here twice", quote(h))
		}
		seen[h] = true
	}
	if r.Kind == TCPRoute && len(r.Hostnames) > 0 {
		v.bad(field+".hostnames", "remove them, or use kind: tls", "TCP connections have no host that could be looked at")
	}
	if r.Kind == TLSRoute && len(r.Hostnames) == 0 {
		v.bad(field+".hostnames", "write the names that clients ask for (SNI), or use kind: tcp", "a tls route needs hostnames")
	}
	if len(r.Rules) == 0 {
		v.bad(field+".rules", "write at least one with backends", "there is no rule")
	}
	if len(r.Rules) > 1 && (r.Kind == TCPRoute || r.Kind == TLSRoute) {
		v.bad(at(field+".rules", 1), "keep one rule", "%s routes have one rule, because nothing tells their connections apart", r.Kind)
	}
	names := map[string]int{}
	for i := range r.Rules {
		rule, f := &r.Rules[i], at(field+".rules", i)
		if first, twice := names[rule.Name]; twice && rule.Name != "" {
			v.bad(f+".name", "give each its own name", "%s already is the name of %s", quote(rule.Name), at(field+".rules", first))
		} else {
			names[rule.Name] = i
		}
		if r.Kind == TCPRoute || r.Kind == TLSRoute {
			v.connections(f, r.Kind, rule)
		} else {
			v.rule(f, cmp.Or(r.Kind, HTTPRoute), rule)
		}
	}
}

// connections checks a rule that sees no requests.
func (v *validator) connections(field string, kind Kind, r *Rule) {
	for _, part := range []struct {
		name string
		set  bool
	}{
		{"matches", len(r.Matches) > 0}, {"filters", len(r.Filters) > 0}, {"timeouts", r.Timeouts != Timeouts{}}, {"retry", r.Retry != nil},
		{"hedge", r.Hedge != nil}, {"fault", r.Fault != nil}, {"rateLimits", len(r.RateLimits) > 0},
	} {
		if part.set {
			v.bad(field+"."+part.name, "remove them", "%s routes see no requests", kind)
		}
	}
	for i := range r.Hash {
		if !r.Hash[i].Address {
			v.bad(at(field+".hash", i), "use address: true", "%s routes see no requests", kind)
		}
	}
	v.backends(field, kind, r)
}

// rule checks a rule of an HTTPRoute or GRPCRoute.
func (v *validator) rule(field string, kind Kind, r *Rule) {
	for i := range r.Matches {
		v.match(at(field+".matches", i), kind, &r.Matches[i])
	}
	v.filters(field+".filters", kind, r.Filters, r, len(r.Backends) > 0)
	v.backends(field, kind, r)
	v.notNegative(field+".timeouts.request", r.Timeouts.Request)
	v.notNegative(field+".timeouts.backend", r.Timeouts.Backend)
	if r.Timeouts.Request > 0 && r.Timeouts.Backend > r.Timeouts.Request {
		v.bad(field+".timeouts.backend", "make it at most the request timeout", "one try would be given longer than the whole request")
	}
	if r.Retry != nil {
		v.retry(field+".retry", r.Retry)
	}
	if h := r.Hedge; h != nil {
		if h.Delay <= 0 {
			v.bad(field+".hedge.delay", "write how long to wait before a second try, such as 50ms", "the delay is missing")
		}
		v.span(field+".hedge.most", h.Most, 0, 10)
	}
	if r.Fault != nil {
		v.fault(field+".fault", r.Fault)
	}
	for i := range r.RateLimits {
		v.rateLimit(at(field+".rateLimits", i), &r.RateLimits[i])
	}
	for i := range r.Hash {
		v.hash(at(field+".hash", i), &r.Hash[i])
	}
}

func (v *validator) backends(field string, kind Kind, r *Rule) {
	for name := range r.Subset {
		if name == "" {
			v.bad(field+".subset", "write label: value", "a label has no name")
		}
	}
	for i := range r.Backends {
		b, f := &r.Backends[i], at(field+".backends", i)
		n, ok := v.clusters[b.Cluster]
		if !ok {
			reason, fix := missing("cluster", b.Cluster, v.clusters)
			v.soft(f+".cluster", fix, "%s", reason)
		} else {
			v.speaks(f+".cluster", kind, &v.config.Clusters[n])
		}
		if b.Weight != nil && *b.Weight > 1_000_000 {
			v.bad(f+".weight", "write a weight from 0 to 1000000", "%d is out of range", *b.Weight)
		}
		if kind == TLSRoute || kind == TCPRoute {
			if len(b.Filters) > 0 {
				v.bad(f+".filters", "remove them", "%s routes see no requests", kind)
			}
			continue
		}
		v.filters(f+".filters", kind, b.Filters, r, false)
		if moves(b.Filters, true) && moves(r.Filters, false) {
			v.bad(f+".filters", "change the path in one place", "the rule rewrites the path already, so there is nothing left that its matches have seen")
		}
	}
}

// moves says whether filters change the path, or redirect.
func moves(all []Filter, redirects bool) bool {
	for i := range all {
		if r := all[i].Rewrite; r != nil && r.Path != nil || redirects && all[i].Redirect != nil {
			return true
		}
	}
	return false
}

// speaks checks that a cluster can take what a route of a kind sends.
func (v *validator) speaks(field string, kind Kind, c *Cluster) {
	switch {
	case (kind == HTTPRoute || kind == GRPCRoute) && c.Protocol == TCP:
		v.bad(field, "give the cluster an HTTP protocol, or use a tcp route", "cluster %s speaks tcp, which carries no requests", quote(c.Name))
	case kind == GRPCRoute && (c.Protocol == "" || c.Protocol == HTTP1):
		v.bad(field, "write protocol: http2 in the cluster", "cluster %s speaks HTTP/1.1, which cannot carry gRPC", quote(c.Name))
	case (kind == TLSRoute || kind == TCPRoute) && c.Protocol != TCP:
		v.bad(field, "write protocol: tcp in the cluster", "cluster %s speaks %s, but a %s route sends bytes", quote(c.Name), cmp.Or(c.Protocol, HTTP1), kind)
	}
}

func (v *validator) retry(field string, r *Retry) {
	for i, code := range r.Codes {
		v.span(at(field+".codes", i), code, 400, 599)
	}
	for i, code := range r.GRPC {
		v.span(at(field+".grpc", i), code, 1, 16)
	}
	v.span(field+".attempts", r.Attempts, 0, 10)
	v.notNegative(field+".backoff", r.Backoff)
	for i, m := range r.Methods {
		v.method(at(field+".methods", i), m)
	}
	v.span(field+".body", r.Body, 0, 16<<20)
}

func (v *validator) fault(field string, f *Fault) {
	v.notNegative(field+".delay", f.Delay)
	v.percent(field+".delayPercent", f.DelayPercent)
	v.percent(field+".abortPercent", f.AbortPercent)
	if f.Abort != 0 {
		v.span(field+".abort", f.Abort, 200, 599)
	}
	v.span(field+".abortGRPC", f.AbortGRPC, 0, 16)
	switch {
	case f.Delay == 0 && f.Abort == 0 && f.AbortGRPC == 0:
		v.bad(field, "write delay and delayPercent, or abort and abortPercent", "the fault does nothing")
	case f.Delay > 0 && f.DelayPercent == 0:
		v.bad(field+".delayPercent", "write how many percent of the requests are delayed", "the delay would meet no request")
	case (f.Abort != 0 || f.AbortGRPC != 0) && f.AbortPercent == 0:
		v.bad(field+".abortPercent", "write how many percent of the requests are aborted", "the abort would meet no request")
	}
	v.values(field+".headers", f.Headers, true)
}

func (v *validator) percent(field string, p float64) {
	if !(p >= 0 && p <= 100) {
		v.bad(field, "write a number from 0 to 100", "%v is no percentage", p)
	}
}

func (v *validator) rateLimit(field string, l *RateLimit) {
	v.span(field+".requests", l.Requests, 1, 1_000_000_000)
	if l.Per <= 0 {
		v.bad(field+".per", "write for example 1s or 1m", "the time is missing")
	}
	v.span(field+".burst", l.Burst, 0, 1_000_000_000)
	name, header := strings.CutPrefix(l.By, "header:")
	switch {
	case header:
		v.headerName(field+".by", name, matchless)
	case l.By != "":
		if choice(v, field+".by", l.By, "address", "identity", "header:<name>") && l.By == "header:<name>" {
			v.bad(field+".by", "write for example header:x-api-key", "<name> stands for the name of a header")
		}
	}
}

func (v *validator) hash(field string, h *HashOn) {
	set := 0
	for _, s := range []string{h.Header, h.Cookie, h.Query} {
		if s != "" {
			set++
		}
	}
	if h.Address {
		set++
	}
	if set != 1 {
		v.bad(field, "write exactly one of header, cookie, query and address", "%d of its parts are set", set)
		return
	}
	if h.Header != "" {
		v.headerName(field+".header", h.Header, matchless)
	}
	if h.Cookie != "" && !token(h.Cookie) {
		v.bad(field+".cookie", "write the name of a cookie", "%s is no name of a cookie", quote(h.Cookie))
	}
}

// oneOf says how many parts of a few are set.
func (v *validator) oneOf(field string, names string, set ...bool) bool {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	switch {
	case n == 0:
		v.bad(field, fmt.Sprintf("write one of %s", names), "none of its parts is set")
	case n > 1:
		v.bad(field, fmt.Sprintf("write exactly one of %s, the others in entries of their own", names), "%d of its parts are set", n)
	}
	return n == 1
}
