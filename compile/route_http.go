package compile

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

// httpRoute reads an HTTPRoute.
func httpRoute(o *gateway.HTTPRoute) *route {
	m := newRoute(KindHTTPRoute, l7.HTTPRoute, o, &o.Spec.CommonRouteSpec, o.Spec.Hostnames)
	for i := range o.Spec.Rules {
		m.httpRule(&o.Spec.Rules[i])
	}
	if len(o.Spec.Rules) == 0 {
		m.begin(nil) // the standard's default: all requests, to nobody
	}
	return m.route
}

func (m *routeMaker) httpRule(r *gateway.HTTPRouteRule) {
	field := m.begin(r.Name)
	for i := range r.Matches {
		m.rule.Matches = append(m.rule.Matches, httpMatch(&r.Matches[i]))
	}
	m.rule.Filters = m.httpFilters(field+".filters", r.Filters)
	for i := range r.BackendRefs {
		at := fmt.Sprintf("%s.backendRefs[%d]", field, i)
		m.backend(at, &r.BackendRefs[i].BackendRef, m.httpFilters(at+".filters", r.BackendRefs[i].Filters))
	}
	if t := r.Timeouts; t != nil {
		m.rule.Timeouts = l7.Timeouts{Request: m.duration(field+".timeouts.request", t.Request), Backend: m.duration(field+".timeouts.backendRequest", t.BackendRequest)}
	}
	if t := r.Retry; t != nil {
		retry := &l7.Retry{Attempts: min(deref(t.Attempts), maxAttempts), Backoff: m.duration(field+".retry.backoff", t.Backoff)}
		for _, c := range t.Codes {
			retry.Codes = append(retry.Codes, int(c))
		}
		m.rule.Retry = retry
	}
	if r.SessionPersistence != nil {
		m.cannot(field+".sessionPersistence", "remove it, or use a BackendPolicy with balancer RingHash and hash", "sessions that the proxy begins by itself are not supported")
	}
}

// maxAttempts is the most retries that a proxy does.
const maxAttempts = 10

// duration reads a time of the Gateway API (GEP-2257).
func (m *routeMaker) duration(field string, d *gateway.Duration) l7.Duration {
	if d == nil {
		return 0
	}
	t := v1alpha1.Duration(*d).Time()
	if t == 0 && strings.Trim(string(*d), "0hms") != "" {
		m.cannot(field, "write for example 250ms, 10s or 1h30m", fmt.Sprintf("%q is not a time", string(*d)))
	}
	return l7.Duration(t)
}

func httpMatch(in *gateway.HTTPRouteMatch) l7.Match {
	out := l7.Match{Method: string(deref(in.Method))}
	if p := in.Path; p != nil && (p.Value != nil || p.Type != nil) {
		out.Path = &l7.PathMatch{Kind: l7.MatchKind(cmp.Or(deref(p.Type), gateway.PathMatchPathPrefix)), Value: cmp.Or(deref(p.Value), "/")}
		if out.Path.Kind != l7.Regex {
			out.Path.Value = normalTriplets(out.Path.Value)
		}
		if *out.Path == (l7.PathMatch{Kind: l7.Prefix, Value: "/"}) {
			out.Path = nil // it matches every request
		}
	}
	for _, h := range in.Headers {
		out.Headers = valueMatch(out.Headers, string(deref(h.Type)), string(h.Name), h.Value, true)
	}
	for _, q := range in.QueryParams {
		out.Query = valueMatch(out.Query, string(deref(q.Type)), string(q.Name), q.Value, false)
	}
	return out
}

// valueMatch adds a match of a header or query parameter. Of several with one
// name only the first counts.
func valueMatch(all []l7.ValueMatch, kind, name, value string, header bool) []l7.ValueMatch {
	for _, m := range all {
		if m.Name == name || header && strings.EqualFold(m.Name, name) {
			return all
		}
	}
	v := l7.ValueMatch{Name: name, Value: value}
	if kind == string(l7.Regex) {
		v.Kind = l7.Regex
	}
	return append(all, v)
}

// normalTriplets writes what is encoded in a path as requests are compared: in
// upper case, and not at all where nothing has to be encoded.
func normalTriplets(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		n, err := strconv.ParseUint(p[min(i+1, len(p)):min(i+3, len(p))], 16, 8)
		if p[i] != '%' || i+3 > len(p) || err != nil {
			b.WriteByte(p[i])
			continue
		}
		if c := byte(n); c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		i += 2
	}
	return b.String()
}

// httpFilters reads filters. Each stays at its index; one that cannot be done
// is nothing, and its rule answers with an error.
func (m *routeMaker) httpFilters(field string, in []gateway.HTTPRouteFilter) []l7.Filter {
	var out []l7.Filter
	for i := range in {
		f, at := &in[i], fmt.Sprintf("%s[%d]", field, i)
		var x l7.Filter
		switch {
		case f.Type == gateway.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			x.RequestHeaders = headerChange(f.RequestHeaderModifier)
		case f.Type == gateway.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			x.ResponseHeaders = headerChange(f.ResponseHeaderModifier)
		case f.Type == gateway.HTTPRouteFilterRequestMirror && f.RequestMirror != nil:
			x.Mirror = m.mirror(at, f.RequestMirror)
		case f.Type == gateway.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
			r := f.RequestRedirect
			x.Redirect = &l7.Redirect{Scheme: deref(r.Scheme), Hostname: string(deref(r.Hostname)), Path: pathChange(r.Path), Port: int(deref(r.Port)), Status: deref(r.StatusCode)}
		case f.Type == gateway.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
			x.Rewrite = &l7.Rewrite{Hostname: string(deref(f.URLRewrite.Hostname)), Path: pathChange(f.URLRewrite.Path)}
		case f.Type == gateway.HTTPRouteFilterCORS && f.CORS != nil:
			x.CORS = cors(f.CORS)
		default:
			m.cannot(at, "use one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite and CORS", fmt.Sprintf("filters of type %s are not supported", f.Type))
		}
		out = append(out, x)
	}
	return out
}

func headerChange(in *gateway.HTTPHeaderFilter) *l7.HeaderChange {
	out := &l7.HeaderChange{Remove: in.Remove}
	headers := func(list []gateway.HTTPHeader) (all []l7.Header) {
		for _, h := range list {
			all = append(all, l7.Header{Name: string(h.Name), Value: h.Value})
		}
		return all
	}
	out.Set, out.Add = headers(in.Set), headers(in.Add)
	return out
}

func (m *routeMaker) mirror(field string, in *gateway.HTTPRequestMirrorFilter) *l7.Mirror {
	out := &l7.Mirror{Cluster: m.ref(field+".requestMirror.backendRef", &in.BackendRef)}
	switch {
	case in.Percent != nil:
		out.Fraction = &l7.Fraction{Numerator: uint32(max(*in.Percent, 0)), Denominator: 100}
	case in.Fraction != nil:
		out.Fraction = &l7.Fraction{Numerator: uint32(max(in.Fraction.Numerator, 0)), Denominator: uint32(max(deref(in.Fraction.Denominator), 0))}
	}
	return out
}

func pathChange(in *gateway.HTTPPathModifier) *l7.PathChange {
	if in == nil {
		return nil
	}
	out := &l7.PathChange{Full: in.ReplaceFullPath, Prefix: in.ReplacePrefixMatch}
	if p := out.Full; p != nil {
		s := normalTriplets(*p)
		out.Full = &s
	}
	if p := out.Prefix; p != nil {
		s := normalTriplets(*p)
		out.Prefix = &s
	}
	return out
}

func cors(in *gateway.HTTPCORSFilter) *l7.CORS {
	out := &l7.CORS{AllowCredentials: deref(in.AllowCredentials), MaxAge: int(in.MaxAge)}
	for _, s := range in.AllowOrigins {
		out.AllowOrigins = append(out.AllowOrigins, string(s))
	}
	for _, s := range in.AllowMethods {
		out.AllowMethods = append(out.AllowMethods, string(s))
	}
	for _, s := range in.AllowHeaders {
		out.AllowHeaders = append(out.AllowHeaders, string(s))
	}
	for _, s := range in.ExposeHeaders {
		out.ExposeHeaders = append(out.ExposeHeaders, string(s))
	}
	return out
}
