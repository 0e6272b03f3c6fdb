package wire

import (
	"cmp"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
	"pgregory.net/rapid"
)

func textMatch(t *rapid.T, kinds []policy.MatchKind) policy.TextMatch {
	return policy.TextMatch{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Value: name(t)}
}

func textMatches(t *rapid.T, kinds []policy.MatchKind) []policy.TextMatch {
	return list(t, "texts", func(t *rapid.T) policy.TextMatch { return textMatch(t, kinds) })
}

func namedMatches(t *rapid.T) []policy.NamedMatch {
	return list(t, "named", func(t *rapid.T) policy.NamedMatch {
		return policy.NamedMatch{Name: name(t), TextMatch: textMatch(t, namedKinds), Not: rapid.Bool().Draw(t, "not")}
	})
}

func requestMatch(t *rapid.T, action policy.Action) policy.RequestMatch {
	m := policy.RequestMatch{
		Methods: list(t, "methods", name), Paths: textMatches(t, pathKinds), Hosts: textMatches(t, hostKinds), Headers: namedMatches(t),
		GRPC: list(t, "calls", func(t *rapid.T) policy.Call { return policy.Call{Service: name(t), Method: name(t)} }),
	}
	if rapid.Bool().Draw(t, "token") {
		m.Token = &policy.Token{Issuer: name(t), Audiences: list(t, "audiences", name), Keys: name(t), Claims: namedMatches(t)}
	}
	if action == policy.Allow && rapid.Bool().Draw(t, "external") {
		m.External = &policy.External{Cluster: name(t), Timeout: rapid.Uint32().Draw(t, "timeout"), Status: 503, Open: rapid.Bool().Draw(t, "open")}
	}
	return m
}

func serviceKey(t *rapid.T) snapshot.ServiceKey {
	return snapshot.ServiceKey{Addr: at(t), Protocol: 6, Port: rapid.Uint16().Draw(t, "port")}
}

func route(t *rapid.T) l7.Route {
	weight := rapid.Uint32Range(0, 100).Draw(t, "weight")
	r := l7.Route{Name: name(t), Kind: l7.HTTPRoute, Created: rapid.Int64().Draw(t, "created")}
	r.Rules = append(r.Rules, l7.Rule{
		Name:     "all",
		Matches:  []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/" + name(t)}, Headers: []l7.ValueMatch{{Name: "x-" + name(t), Value: name(t)}}}},
		Filters:  []l7.Filter{{RequestHeaders: &l7.HeaderChange{Set: []l7.Header{{Name: "x-" + name(t), Value: name(t)}}}}},
		Backends: []l7.Backend{{Cluster: name(t), Weight: &weight}},
		Timeouts: l7.Timeouts{Request: l7.Duration(span(t))},
	})
	return r
}

// mesh fills the tables of the mesh.
func mesh(t *rapid.T, s *snapshot.Snapshot) {
	s.Trusts = fill(t, "trusts", func(t *rapid.T) (string, snapshot.Trust) {
		v := snapshot.Trust{Name: name(t), TrustDomain: name(t), Domain: name(t), Federates: some(t, "federates", name, cmp.Compare[string])}
		if rapid.Bool().Draw(t, "rotates") {
			v.Roots, v.Keys = [][]byte{{1}, {2}}, []byte(`{"keys":[]}`)
		}
		return v.Name, v
	})
	s.Frontends = fill(t, "frontends", func(t *rapid.T) (snapshot.FrontendKey, snapshot.Frontend) {
		f := snapshot.Frontend{FrontendKey: snapshot.FrontendKey{ServiceKey: serviceKey(t), Project: name(t)}, Service: name(t),
			Protocol: l7.HTTP1, Cluster: name(t), Routes: some(t, "routes", name, cmp.Compare[string]), Why: "HTTPRoute " + name(t)}
		return f.FrontendKey, f
	})
	s.Routes = fill(t, "routes", func(t *rapid.T) (string, l7.Route) {
		r := route(t)
		return r.Name, r
	})
	s.Clusters = fill(t, "clusters", func(t *rapid.T) (string, snapshot.Cluster) {
		c := snapshot.Cluster{Cluster: l7.Cluster{Name: name(t), Protocol: l7.HTTP2, Connect: l7.Duration(span(t))}, Service: serviceKey(t), Asked: rapid.Bool().Draw(t, "asked")}
		if rapid.Bool().Draw(t, "two families") {
			c.Second = serviceKey(t)
		}
		return c.Name, c
	})
	s.Gateways = fill(t, "gateways", func(t *rapid.T) (snapshot.GatewayKey, snapshot.Gateway) {
		g := snapshot.Gateway{GatewayKey: snapshot.GatewayKey{Project: name(t), Name: name(t)}, Account: name(t), Labels: []snapshot.Label{{Key: "a", Value: name(t)}}}
		g.Attachment = snapshot.AttachmentKey{Project: g.Project, Workload: "gateway-" + g.Name, Network: name(t)}
		if rapid.Bool().Draw(t, "listens") {
			g.Certificates = []l7.Certificate{{Name: "c", Chain: "chain", Key: "key"}}
			g.Listeners = []snapshot.GatewayListener{{Listener: l7.Listener{Name: "a", Address: ":443", Protocol: l7.AutoHTTP, TLS: &l7.ServerTLS{Certificates: []string{"c"}}}, Routes: some(t, "routes", name, cmp.Compare[string])}}
		}
		return g.GatewayKey, g
	})
	s.KeySets = fill(t, "key sets", func(t *rapid.T) (string, l7.KeySet) {
		k := l7.KeySet{URI: "https://" + name(t), JSON: rapid.SampledFrom([]string{"", `{"keys":[]}`}).Draw(t, "json"), Until: rapid.Int64Min(0).Draw(t, "until")}
		return k.URI, k
	})
}
