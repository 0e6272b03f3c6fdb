package compile

import (
	"fmt"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/snapshot/l7"
)

// grpcRoute reads a GRPCRoute.
func grpcRoute(o *gateway.GRPCRoute) *route {
	m := newRoute(KindGRPCRoute, l7.GRPCRoute, o, &o.Spec.CommonRouteSpec, o.Spec.Hostnames)
	for i := range o.Spec.Rules {
		r := &o.Spec.Rules[i]
		field := m.begin(r.Name)
		for j := range r.Matches {
			m.rule.Matches = append(m.rule.Matches, grpcMatch(&r.Matches[j]))
		}
		m.rule.Filters = m.grpcFilters(field+".filters", r.Filters)
		for j := range r.BackendRefs {
			at := fmt.Sprintf("%s.backendRefs[%d]", field, j)
			m.backend(at, &r.BackendRefs[j].BackendRef, m.grpcFilters(at+".filters", r.BackendRefs[j].Filters))
		}
		if r.SessionPersistence != nil {
			m.cannot(field+".sessionPersistence", "remove it, or use a BackendPolicy with balancer RingHash and hash", "sessions that the proxy begins by itself are not supported")
		}
	}
	return m.route
}

func grpcMatch(in *gateway.GRPCRouteMatch) l7.Match {
	var out l7.Match
	if g := in.Method; g != nil && (deref(g.Service) != "" || deref(g.Method) != "") {
		out.GRPC = &l7.GRPCMatch{Service: deref(g.Service), Method: deref(g.Method)}
		if g.Type != nil && *g.Type != gateway.GRPCMethodMatchExact {
			out.GRPC.Kind = l7.MatchKind(*g.Type)
		}
	}
	for _, h := range in.Headers {
		out.Headers = valueMatch(out.Headers, string(deref(h.Type)), string(h.Name), h.Value, true)
	}
	return out
}

func (m *routeMaker) grpcFilters(field string, in []gateway.GRPCRouteFilter) []l7.Filter {
	var out []l7.Filter
	for i := range in {
		f, at := &in[i], fmt.Sprintf("%s[%d]", field, i)
		var x l7.Filter
		switch {
		case f.Type == gateway.GRPCRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			x.RequestHeaders = headerChange(f.RequestHeaderModifier)
		case f.Type == gateway.GRPCRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			x.ResponseHeaders = headerChange(f.ResponseHeaderModifier)
		case f.Type == gateway.GRPCRouteFilterRequestMirror && f.RequestMirror != nil:
			x.Mirror = m.mirror(at, f.RequestMirror)
		default:
			m.cannot(at, "use one of RequestHeaderModifier, ResponseHeaderModifier and RequestMirror", fmt.Sprintf("filters of type %s are not supported", f.Type))
		}
		out = append(out, x)
	}
	return out
}

// tlsRoute reads a TLSRoute.
func tlsRoute(o *gateway.TLSRoute) *route {
	m := newRoute(KindTLSRoute, l7.TLSRoute, o, &o.Spec.CommonRouteSpec, o.Spec.Hostnames)
	for i := range o.Spec.Rules {
		m.connections(o.Spec.Rules[i].Name, o.Spec.Rules[i].BackendRefs)
	}
	return m.route
}

// tcpRoute reads a TCPRoute.
func tcpRoute(o *gateway.TCPRoute) *route {
	m := newRoute(KindTCPRoute, l7.TCPRoute, o, &o.Spec.CommonRouteSpec, nil)
	for i := range o.Spec.Rules {
		m.connections(o.Spec.Rules[i].Name, o.Spec.Rules[i].BackendRefs)
	}
	return m.route
}

// connections reads a rule that sees no requests.
func (m *routeMaker) connections(name *gateway.SectionName, refs []gateway.BackendRef) {
	field := m.begin(name)
	for i := range refs {
		m.backend(fmt.Sprintf("%s.backendRefs[%d]", field, i), &refs[i], nil)
	}
}
