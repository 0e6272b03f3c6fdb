package l7

import (
	"strings"
)

// filters checks the filters of a rule, or of one of its backends.
func (v *validator) filters(field string, kind Kind, all []Filter, rule *Rule, forwards bool) {
	seen := map[string]int{}
	for i := range all {
		c, f := &all[i], at(field, i)
		if !v.oneOf(f, "requestHeaders, responseHeaders, redirect, rewrite, mirror and cors", c.RequestHeaders != nil, c.ResponseHeaders != nil,
			c.Redirect != nil, c.Rewrite != nil, c.Mirror != nil, c.CORS != nil) {
			continue
		}
		part := c.part()
		if first, twice := seen[part]; twice && part != "mirror" {
			v.bad(f+"."+part, "put all of it into one", "there already is one in %s", at(field, first))
		} else {
			seen[part] = i
		}
		if kind == GRPCRoute && (part == "redirect" || part == "rewrite" || part == "cors") {
			v.bad(f+"."+part, "remove it, or use an http route", "grpc routes have no %s", part)
			continue
		}
		v.filter(f+"."+part, c, rule)
	}
	n, redirects := seen["redirect"]
	if _, also := seen["rewrite"]; redirects && also {
		v.bad(at(field, n)+".redirect", "keep one of them", "redirect and rewrite cannot be combined: a redirected request does not go on")
	}
	if redirects && forwards {
		v.bad(at(field, n)+".redirect", "remove the backends or the redirect", "the rule redirects and has backends, which would get nothing")
	}
}

func (c *Filter) part() string {
	switch {
	case c.RequestHeaders != nil:
		return "requestHeaders"
	case c.ResponseHeaders != nil:
		return "responseHeaders"
	case c.Redirect != nil:
		return "redirect"
	case c.Rewrite != nil:
		return "rewrite"
	case c.Mirror != nil:
		return "mirror"
	}
	return "cors"
}

func (v *validator) filter(field string, c *Filter, rule *Rule) {
	switch {
	case c.RequestHeaders != nil:
		v.headerChange(field, c.RequestHeaders)
	case c.ResponseHeaders != nil:
		v.headerChange(field, c.ResponseHeaders)
	case c.Redirect != nil:
		r := c.Redirect
		choice(v, field+".scheme", r.Scheme, "http", "https")
		if r.Hostname != "" {
			v.hostname(field+".hostname", r.Hostname, false)
		}
		v.span(field+".port", r.Port, 0, 65535)
		switch r.Status {
		case 0, 301, 302, 303, 307, 308:
		default:
			v.bad(field+".status", "use 301, 302, 303, 307 or 308", "%d is no status of a redirect", r.Status)
		}
		v.pathChange(field+".path", r.Path, rule)
	case c.Rewrite != nil:
		if c.Rewrite.Hostname != "" {
			v.hostname(field+".hostname", c.Rewrite.Hostname, false)
		}
		if c.Rewrite.Hostname == "" && c.Rewrite.Path == nil {
			v.bad(field, "write hostname, path or both", "the rewrite changes nothing")
		}
		v.pathChange(field+".path", c.Rewrite.Path, rule)
	case c.Mirror != nil:
		v.mirror(field, c.Mirror)
	case c.CORS != nil:
		v.cors(field, c.CORS)
	}
}

func (v *validator) headerChange(field string, c *HeaderChange) {
	seen := map[string]string{}
	name := func(f, n string) {
		if !v.headerName(f, n, untouchable) {
			return
		}
		n = strings.ToLower(n)
		if first, twice := seen[n]; twice {
			v.bad(f, "keep one of them; several values are written in one, with commas", "%s already is changed by %s", n, first)
			return
		}
		seen[n] = f
	}
	for i := range c.Set {
		f := at(field+".set", i)
		name(f+".name", c.Set[i].Name)
		v.headerValue(f+".value", c.Set[i].Value)
	}
	for i := range c.Add {
		f := at(field+".add", i)
		name(f+".name", c.Add[i].Name)
		v.headerValue(f+".value", c.Add[i].Value)
	}
	for i := range c.Remove {
		name(at(field+".remove", i), c.Remove[i])
	}
	if len(seen) == 0 && len(c.Set)+len(c.Add)+len(c.Remove) == 0 {
		v.bad(field, "write set, add or remove", "it changes nothing")
	}
}

func (v *validator) pathChange(field string, c *PathChange, rule *Rule) {
	if c == nil || !v.oneOf(field, "full and prefix", c.Full != nil, c.Prefix != nil) {
		return
	}
	if c.Full != nil {
		v.normalPath(field+".full", *c.Full)
		return
	}
	if *c.Prefix != "" {
		v.normalPath(field+".prefix", *c.Prefix)
	}
	prefixes := len(rule.Matches) > 0
	for i := range rule.Matches {
		p := rule.Matches[i].Path
		prefixes = prefixes && p != nil && p.Kind == Prefix
	}
	if !prefixes {
		v.bad(field+".prefix", "give every match of the rule a path of kind PathPrefix, or use full", "there is no prefix to replace: the rule matches otherwise than by PathPrefix")
	}
}

func (v *validator) mirror(field string, c *Mirror) {
	if _, ok := v.clusters[c.Cluster]; !ok {
		reason, fix := missing("cluster", c.Cluster, v.clusters)
		v.soft(field+".cluster", fix, "%s", reason)
	} else if n := v.clusters[c.Cluster]; v.config.Clusters[n].Protocol == TCP {
		v.bad(field+".cluster", "give the cluster an HTTP protocol", "cluster %s speaks tcp, which carries no requests", quote(c.Cluster))
	}
	f := c.Fraction
	if f == nil {
		return
	}
	of := f.Denominator
	if of == 0 {
		of = 100
	}
	if f.Numerator > of {
		v.bad(field+".fraction.numerator", "write at most the denominator", "%d of %d is more than all", f.Numerator, of)
	}
}

func (v *validator) cors(field string, c *CORS) {
	if len(c.AllowOrigins) == 0 {
		v.bad(field+".allowOrigins", `write the origins, such as https://shop.example.com, or "*"`, "no origin is allowed, so the filter would do nothing")
	}
	for i, o := range c.AllowOrigins {
		v.origin(at(field+".allowOrigins", i), o)
	}
	for i, m := range c.AllowMethods {
		if m != "*" {
			v.method(at(field+".allowMethods", i), m)
		}
	}
	for i, h := range c.AllowHeaders {
		v.corsName(at(field+".allowHeaders", i), h)
	}
	for i, h := range c.ExposeHeaders {
		v.corsName(at(field+".exposeHeaders", i), h)
	}
	v.span(field+".maxAge", c.MaxAge, 0, 1<<31-1)
}

func (v *validator) corsName(field, name string) {
	if name != "*" {
		v.headerName(field, name, nil)
	}
}

// origin checks scheme://host, perhaps with a port, the host perhaps with a
// wildcard as first label.
func (v *validator) origin(field, s string) {
	const fix = `write for example https://shop.example.com, https://*.example.com:8443 or "*"`
	if s == "*" {
		return
	}
	scheme, rest, ok := strings.Cut(s, "://")
	host, port, ported := strings.Cut(rest, ":")
	name, _ := TrimWildcard(host)
	switch {
	case !ok || scheme != "http" && scheme != "https":
		v.bad(field, fix, "%s does not begin with http:// or https://", quote(s))
	case ported && !portNumber(port):
		v.bad(field, fix, "%s has no valid port", quote(s))
	case host != "*" && !dnsName(strings.ToLower(name)):
		v.bad(field, fix, "%s is no origin", quote(s))
	}
}

func portNumber(s string) bool {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || len(s) > 5 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n > 0 && n < 65536
}
