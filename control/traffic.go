package control

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

// controller is our name in the status of routes, and in GatewayClasses.
const controller gateway.GatewayController = v1alpha1.GatewayController

// traffic are the shelves of routes, of what is attached to them, and of Gateways.
type traffic struct {
	http, grpc, tls, tcp, grants, backends, faults *shelf
	gateways, classes, secrets                     *shelf
}

// newestTraffic are those with a status that we write, as they are on the server.
type newestTraffic struct {
	http     map[compile.Key]*gateway.HTTPRoute
	grpc     map[compile.Key]*gateway.GRPCRoute
	tls      map[compile.Key]*gateway.TLSRoute
	tcp      map[compile.Key]*gateway.TCPRoute
	backends map[compile.Key]*v1alpha1.BackendPolicy
	faults   map[compile.Key]*v1alpha1.FaultPolicy
	gateways map[compile.Key]*gateway.Gateway
	classes  map[string]*gateway.GatewayClass
}

// read puts them into next; see intent.read.
func (t *traffic) read(read func(s *shelf, keep, anew func()), now *newestTraffic, last, next *compile.Input) {
	read(t.http, func() { next.HTTPRoutes = last.HTTPRoutes }, func() {
		now.http = keyed[*gateway.HTTPRoute](t.http)
		next.HTTPRoutes = declared(last.HTTPRoutes, now.http, nil)
	})
	read(t.grpc, func() { next.GRPCRoutes = last.GRPCRoutes }, func() {
		now.grpc = keyed[*gateway.GRPCRoute](t.grpc)
		next.GRPCRoutes = declared(last.GRPCRoutes, now.grpc, nil)
	})
	read(t.tls, func() { next.TLSRoutes = last.TLSRoutes }, func() {
		now.tls = keyed[*gateway.TLSRoute](t.tls)
		next.TLSRoutes = declared(last.TLSRoutes, now.tls, nil)
	})
	read(t.tcp, func() { next.TCPRoutes = last.TCPRoutes }, func() {
		now.tcp = keyed[*gateway.TCPRoute](t.tcp)
		next.TCPRoutes = declared(last.TCPRoutes, now.tcp, nil)
	})
	read(t.grants, func() { next.Grants = last.Grants }, func() { next.Grants = keyed[*gateway.ReferenceGrant](t.grants) })
	read(t.backends, func() { next.BackendPolicies = last.BackendPolicies }, func() {
		now.backends = keyed[*v1alpha1.BackendPolicy](t.backends)
		next.BackendPolicies = declared(last.BackendPolicies, now.backends, nil)
	})
	read(t.faults, func() { next.FaultPolicies = last.FaultPolicies }, func() {
		now.faults = keyed[*v1alpha1.FaultPolicy](t.faults)
		next.FaultPolicies = declared(last.FaultPolicies, now.faults, nil)
	})
	t.readGateways(read, now, last, next)
}

// trafficSaying is what the status of a route, BackendPolicy, FaultPolicy, Gateway
// or GatewayClass shall say.
type trafficSaying struct {
	// generation that it is about; a newer one is left alone.
	generation int64
	parents    []compile.ParentStatus // of a route
	accepted   compile.Condition      // of a policy or class
	gateway    compile.GatewayStatus
}

// judgeTraffic says which of them shall say something new.
func judgeTraffic(out map[subject]saying, now *newestTraffic, statuses compile.Statuses) {
	route := func(o metav1.Object, kind, resource string, have *gateway.RouteStatus) {
		k := compile.Key{Project: o.GetNamespace(), Name: o.GetName()}
		parents, known := statuses.Routes[compile.RouteKey{Kind: kind, Key: k}]
		if !known || o.GetDeletionTimestamp() != nil {
			return
		}
		s := &trafficSaying{generation: o.GetGeneration(), parents: parents}
		if trial := have.DeepCopy(); s.setRoute(trial, s.generation) {
			out[subject{resource, k}] = saying{traffic: s}
		}
	}
	for _, o := range now.http {
		route(o, compile.KindHTTPRoute, "httproutes", &o.Status.RouteStatus)
	}
	for _, o := range now.grpc {
		route(o, compile.KindGRPCRoute, "grpcroutes", &o.Status.RouteStatus)
	}
	for _, o := range now.tls {
		route(o, compile.KindTLSRoute, "tlsroutes", &o.Status.RouteStatus)
	}
	for _, o := range now.tcp {
		route(o, compile.KindTCPRoute, "tcproutes", &o.Status.RouteStatus)
	}
	policy := func(o metav1.Object, resource string, have []metav1.Condition, all map[compile.Key]compile.Condition) {
		k := compile.Key{Project: o.GetNamespace(), Name: o.GetName()}
		c, known := all[k]
		if !known || o.GetDeletionTimestamp() != nil {
			return
		}
		s := &trafficSaying{generation: o.GetGeneration(), accepted: c}
		if trial := slices.Clone(have); s.setPolicy(&trial, s.generation) {
			out[subject{resource, k}] = saying{traffic: s}
		}
	}
	for _, o := range now.backends {
		policy(o, "backendpolicies", o.Status.Conditions, statuses.BackendPolicies)
	}
	for _, o := range now.faults {
		policy(o, "faultpolicies", o.Status.Conditions, statuses.FaultPolicies)
	}
	judgeGateways(out, now, statuses)
}

// setPolicy writes the condition of a policy or class of a generation, and reports
// whether that changed anything.
func (s *trafficSaying) setPolicy(have *[]metav1.Condition, generation int64) bool {
	return s.generation == generation && setConditions(have, []compile.Condition{s.accepted}, generation)
}

// setRoute writes our part of the status of a route of a generation, in the order
// of its parents behind what others wrote, and reports whether that changed
// anything.
func (s *trafficSaying) setRoute(have *gateway.RouteStatus, generation int64) bool {
	if s.generation != generation {
		return false
	}
	var out []gateway.RouteParentStatus
	for _, p := range have.Parents {
		if p.ControllerName != controller {
			out = append(out, p)
		}
	}
	changed := false
	for _, want := range s.parents {
		p := gateway.RouteParentStatus{ParentRef: want.Parent, ControllerName: controller}
		i := slices.IndexFunc(have.Parents, func(h gateway.RouteParentStatus) bool {
			return h.ControllerName == controller && reflect.DeepEqual(h.ParentRef, want.Parent)
		})
		if i >= 0 {
			p.Conditions = slices.Clone(have.Parents[i].Conditions)
		}
		changed = setConditions(&p.Conditions, want.Conditions, generation) || changed
		out = append(out, p)
	}
	if len(out) != len(have.Parents) {
		changed = true
	}
	if out == nil {
		out = []gateway.RouteParentStatus{} // the field is required
	}
	have.Parents = out
	return changed
}

// setConditions writes all conditions of a list that is ours, and reports whether
// that changed anything.
func setConditions(have *[]metav1.Condition, want []compile.Condition, generation int64) bool {
	changed := false
	list := slices.DeleteFunc(slices.Clone(*have), func(h metav1.Condition) bool {
		gone := !slices.ContainsFunc(want, func(w compile.Condition) bool { return w.Type == h.Type })
		changed = changed || gone
		return gone
	})
	for _, w := range want {
		c := metav1.Condition{Type: w.Type, Status: metav1.ConditionFalse, Reason: w.Reason, Message: w.Message, ObservedGeneration: generation}
		if w.True {
			c.Status = metav1.ConditionTrue
		}
		if len(c.Message) > maxMessage {
			c.Message = c.Message[:maxMessage]
		}
		changed = meta.SetStatusCondition(&list, c) || changed
	}
	*have = list
	return changed
}

// trafficTarget is an empty object of a resource and how its status is set; see
// target.
func trafficTarget(resource string, s *trafficSaying) (object runtime.Object, set func() bool) {
	switch resource {
	case "httproutes":
		o := &gateway.HTTPRoute{}
		return o, func() bool { return s.setRoute(&o.Status.RouteStatus, o.Generation) }
	case "grpcroutes":
		o := &gateway.GRPCRoute{}
		return o, func() bool { return s.setRoute(&o.Status.RouteStatus, o.Generation) }
	case "tlsroutes":
		o := &gateway.TLSRoute{}
		return o, func() bool { return s.setRoute(&o.Status.RouteStatus, o.Generation) }
	case "tcproutes":
		o := &gateway.TCPRoute{}
		return o, func() bool { return s.setRoute(&o.Status.RouteStatus, o.Generation) }
	case "gateways":
		o := &gateway.Gateway{}
		return o, func() bool { return s.setGateway(&o.Status, o.Generation) }
	case "gatewayclasses":
		o := &gateway.GatewayClass{}
		return o, func() bool { return s.setPolicy(&o.Status.Conditions, o.Generation) }
	case "backendpolicies":
		o := &v1alpha1.BackendPolicy{}
		return o, func() bool { return s.setPolicy(&o.Status.Conditions, o.Generation) }
	default:
		o := &v1alpha1.FaultPolicy{}
		return o, func() bool { return s.setPolicy(&o.Status.Conditions, o.Generation) }
	}
}
