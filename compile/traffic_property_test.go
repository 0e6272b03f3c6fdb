package compile

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// changeTraffic makes one random change of routes and what is attached to them.
func (w world) changeTraffic(t *rapid.T) {
	k := Key{pick(t, projects[:3]), pick(t, names)}
	meta := metav1.ObjectMeta{Namespace: k.Project, Name: k.Name}
	if !often(t) {
		meta.CreationTimestamp = metav1.Unix(int64(rapid.IntRange(1, 2).Draw(t, "age")), 0)
	}
	parents := gateway.CommonRouteSpec{ParentRefs: []gateway.ParentReference{drawParent(t), drawParent(t)}}
	switch rapid.IntRange(0, 9).Draw(t, "traffic") {
	case 0, 1, 2:
		o := &gateway.HTTPRoute{ObjectMeta: meta, Spec: gateway.HTTPRouteSpec{CommonRouteSpec: parents}}
		if !often(t) {
			o.Spec.Hostnames = []gateway.Hostname{pick(t, hosts)}
		}
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			o.Spec.Rules = append(o.Spec.Rules, drawHTTPRule(t))
		}
		w.HTTPRoutes[k] = o
	case 3:
		w.GRPCRoutes[k] = &gateway.GRPCRoute{ObjectMeta: meta, Spec: gateway.GRPCRouteSpec{CommonRouteSpec: parents, Rules: []gateway.GRPCRouteRule{{BackendRefs: []gateway.GRPCBackendRef{{BackendRef: drawBackend(t)}}}}}}
	case 4:
		w.TLSRoutes[k] = &gateway.TLSRoute{ObjectMeta: meta, Spec: gateway.TLSRouteSpec{CommonRouteSpec: parents, Hostnames: []gateway.Hostname{pick(t, []gateway.Hostname{"a.example.com", "b.example.com"})},
			Rules: []gateway.TLSRouteRule{{BackendRefs: []gateway.BackendRef{drawBackend(t)}}}}}
	case 5:
		w.TCPRoutes[k] = &gateway.TCPRoute{ObjectMeta: meta, Spec: gateway.TCPRouteSpec{CommonRouteSpec: parents, Rules: []gateway.TCPRouteRule{{BackendRefs: []gateway.BackendRef{drawBackend(t), drawBackend(t)}}}}}
	case 6:
		w.Grants[k] = &gateway.ReferenceGrant{ObjectMeta: meta, Spec: gateway.ReferenceGrantSpec{
			From: []gateway.ReferenceGrantFrom{{Group: gateway.GroupName, Kind: gateway.Kind(pick(t, []string{KindHTTPRoute, KindTCPRoute})), Namespace: gateway.Namespace(pick(t, projects[:3]))}},
			To:   []gateway.ReferenceGrantTo{{Kind: KindService}}}}
	case 7:
		p := &v1alpha1.BackendPolicy{ObjectMeta: meta, Spec: v1alpha1.BackendPolicySpec{TargetRefs: []v1alpha1.PolicyTarget{drawTarget(t), drawTarget(t)}, Balancer: &v1alpha1.Balancer{Kind: pick(t, []string{"RoundRobin", "Maglev"})}}}
		switch rapid.IntRange(0, 3).Draw(t, "says") {
		case 0:
			p.Spec.Retry = &v1alpha1.Retry{Attempts: 2}
		case 1:
			p.Spec.TLS = &v1alpha1.BackendTLS{Hostname: "a.example.com", CA: pick(t, []string{"", "broken"})}
		case 2:
			p.Spec.Locality = &v1alpha1.BackendLocality{OverprovisionPercent: 140}
		}
		w.BackendPolicies[k] = p
	case 8:
		w.FaultPolicies[k] = &v1alpha1.FaultPolicy{ObjectMeta: meta, Spec: v1alpha1.FaultPolicySpec{TargetRefs: []v1alpha1.PolicyTarget{drawTarget(t)}, Abort: &v1alpha1.FaultAbort{Status: 503, Share: v1alpha1.Share{Percent: 1}}}}
	case 9:
		delete(w.HTTPRoutes, k)
		delete(w.TCPRoutes, k)
		delete(w.Grants, k)
		delete(w.BackendPolicies, k)
		delete(w.FaultPolicies, k)
	}
}

func pointer[T any](v T) *T { return &v }

func drawParent(t *rapid.T) gateway.ParentReference {
	p := gateway.ParentReference{Group: pointer(gateway.Group("moire.dev")), Kind: pointer(gateway.Kind(KindService)), Name: gateway.ObjectName(pick(t, names[:2]))}
	if !often(t) {
		p.Group, p.Kind = nil, nil
	}
	if !often(t) {
		p.Namespace = pointer(gateway.Namespace(pick(t, projects[:3])))
	}
	if !often(t) {
		p.Port = pointer(int32(rapid.IntRange(1, 3).Draw(t, "port")))
	}
	return p
}

func drawBackend(t *rapid.T) gateway.BackendRef {
	b := gateway.BackendRef{BackendObjectReference: gateway.BackendObjectReference{Name: gateway.ObjectName(pick(t, names[:2])), Port: pointer(int32(rapid.IntRange(1, 3).Draw(t, "port")))}}
	if !often(t) {
		b.Namespace = pointer(gateway.Namespace(pick(t, projects[:3])))
	}
	return b
}

func drawHTTPRule(t *rapid.T) gateway.HTTPRouteRule {
	r := gateway.HTTPRouteRule{BackendRefs: []gateway.HTTPBackendRef{{BackendRef: drawBackend(t)}}, Matches: []gateway.HTTPRouteMatch{{Path: &gateway.HTTPPathMatch{Value: pointer(pick(t, []string{"/a", "/b", "bad"}))}}}}
	switch rapid.IntRange(0, 5).Draw(t, "filter") {
	case 0:
		r.Filters = []gateway.HTTPRouteFilter{{Type: gateway.HTTPRouteFilterRequestMirror, RequestMirror: &gateway.HTTPRequestMirrorFilter{BackendRef: drawBackend(t).BackendObjectReference}}}
	case 1:
		r.Filters = []gateway.HTTPRouteFilter{{Type: gateway.HTTPRouteFilterExtensionRef}}
	}
	return r
}

func drawTarget(t *rapid.T) v1alpha1.PolicyTarget {
	target := v1alpha1.PolicyTarget{Kind: pick(t, []string{v1alpha1.TargetService, v1alpha1.TargetService, v1alpha1.TargetHTTPRoute}), Name: pick(t, names[:2])}
	switch {
	case often(t):
	case target.Kind == v1alpha1.TargetService:
		target.Port = int32(rapid.IntRange(1, 3).Draw(t, "port"))
	default:
		target.SectionName = "0"
	}
	return target
}

// checkTraffic: a proxy can have every row, and what they say of each other is
// there.
func checkTraffic(t *rapid.T, s *snapshot.Snapshot) {
	for name, r := range s.Routes {
		if bad := r.Validate(); len(bad) > 0 || r.Name != name {
			t.Fatalf("route %s: %v", name, bad)
		}
		for _, rule := range r.Rules {
			for _, b := range rule.Backends {
				c, known := s.Clusters[b.Cluster]
				if !known && b.Cluster != nowhere || known && (r.Kind == l7.TCPRoute || r.Kind == l7.TLSRoute) != (c.Protocol == l7.TCP) {
					t.Fatalf("route %s sends to %s, which is %+v", name, b.Cluster, c)
				}
			}
		}
	}
	for name, c := range s.Clusters {
		_, known := s.Services[c.Service]
		if bad := c.Validate(); len(bad) > 0 || c.Name != name || !known {
			t.Fatalf("cluster %s of %v: %v", name, c.Service, bad)
		}
	}
	for k, f := range s.Frontends {
		service, known := s.Services[k.ServiceKey]
		if !known || f.FrontendKey != k || f.Service != service.Project+"/"+service.Name {
			t.Fatalf("frontend %+v of %+v", f, service)
		}
		if c, known := s.Clusters[f.Cluster]; f.Cluster != "" && f.Cluster != nowhere && (!known || (f.Protocol == l7.TCP) != (c.Protocol == l7.TCP)) {
			t.Fatalf("frontend %+v goes to %+v", f, c)
		}
		for _, r := range f.Routes {
			if _, known := s.Routes[r]; !known {
				t.Fatalf("frontend %+v has a route that is not there", f)
			}
		}
	}
}
