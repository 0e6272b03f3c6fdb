package compile

import (
	"maps"
	"slices"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
)

// traffic is what memory knows of routes, of policies that are attached to
// Services and routes, and of who may refer to whom.
type traffic struct {
	http     map[Key]*gateway.HTTPRoute
	grpc     map[Key]*gateway.GRPCRoute
	tls      map[Key]*gateway.TLSRoute
	tcp      map[Key]*gateway.TCPRoute
	grants   map[Key]*gateway.ReferenceGrant
	backends map[Key]*v1alpha1.BackendPolicy
	faults   map[Key]*v1alpha1.FaultPolicy
	gateways map[Key]*gateway.Gateway
	classes  map[string]*gateway.GatewayClass
	secrets  map[Key]*Secret
	unread   bool                         // nobody knows secrets
	labels   map[string]map[string]string // of projects
	// edges are where Gateways of ours stand, stands the Workloads that they are.
	edges  map[Key]*edge
	stands map[Key]*v1alpha1.Workload
	gates  map[Key]*gate

	routes map[RouteKey]*route
	// attached are the routes that name a Service or Gateway as parent.
	attached map[targetKey]map[RouteKey]*route
	// targeted are the policies that are attached to a Service or route.
	targeted map[targetKey]*policies
	// users are the Services and Gateways whose routes have sent requests to a
	// Service so far, and the Gateways that have named a Secret.
	users  map[Key]map[targetKey]bool
	fronts map[Key]*front

	// Of the running compile: Services and Gateways whose fronts may be different;
	// something of a policy or of what it is attached to came, went or is different.
	stale map[targetKey]bool
	moved bool

	// What followed from the last Input.
	unseen   map[unseenRef]Key
	fates    map[string]*trafficFate // by "<Kind> <project>/<name>"
	problems []v1alpha1.Problem
}

// targetKey names a Service, Gateway or route that something is attached to.
type targetKey struct {
	kind string
	key  Key
}

func newTraffic() traffic {
	return traffic{
		http: map[Key]*gateway.HTTPRoute{}, grpc: map[Key]*gateway.GRPCRoute{}, tls: map[Key]*gateway.TLSRoute{}, tcp: map[Key]*gateway.TCPRoute{},
		grants: map[Key]*gateway.ReferenceGrant{}, backends: map[Key]*v1alpha1.BackendPolicy{}, faults: map[Key]*v1alpha1.FaultPolicy{},
		routes: map[RouteKey]*route{}, attached: map[targetKey]map[RouteKey]*route{}, targeted: map[targetKey]*policies{}, users: map[Key]map[targetKey]bool{},
		gateways: map[Key]*gateway.Gateway{}, secrets: map[Key]*Secret{}, edges: map[Key]*edge{}, stands: map[Key]*v1alpha1.Workload{}, gates: map[Key]*gate{},
		fronts: map[Key]*front{}, stale: map[targetKey]bool{}, moved: true,
	}
}

// learn brings it to the Input and marks what is different.
func (t *traffic) learn(in *Input) {
	learnRoutes(t, KindHTTPRoute, t.http, in.HTTPRoutes, httpRoute)
	learnRoutes(t, KindGRPCRoute, t.grpc, in.GRPCRoutes, grpcRoute)
	learnRoutes(t, KindTLSRoute, t.tls, in.TLSRoutes, tlsRoute)
	learnRoutes(t, KindTCPRoute, t.tcp, in.TCPRoutes, tcpRoute)
	t.learnGateways(in)
	diff(t.grants, in.Grants, func(k Key, _, _ *gateway.ReferenceGrant) {
		for used, by := range t.users {
			if used.Project == k.Project {
				t.restart(by)
			}
		}
	})
	diff(t.backends, in.BackendPolicies, func(k Key, old, p *v1alpha1.BackendPolicy) {
		if old != nil {
			t.retarget(k, old.Spec.TargetRefs, func(all *policies) { all.backends = without(all.backends, k) })
		}
		if p != nil {
			read := readBackendPolicy(p)
			t.retarget(k, p.Spec.TargetRefs, func(all *policies) { all.backends = with(all.backends, read) })
		}
	})
	diff(t.faults, in.FaultPolicies, func(k Key, old, p *v1alpha1.FaultPolicy) {
		if old != nil {
			t.retarget(k, old.Spec.TargetRefs, func(all *policies) { all.faults = without(all.faults, k) })
		}
		if p != nil {
			read := readFaultPolicy(p)
			t.retarget(k, p.Spec.TargetRefs, func(all *policies) { all.faults = with(all.faults, read) })
		}
	})
}

// learnRoutes is learn for the routes of one kind.
func learnRoutes[T any](t *traffic, kind string, last, now map[Key]*T, read func(*T) *route) {
	diff(last, now, func(k Key, _, o *T) {
		var r *route
		if o != nil {
			r = read(o)
		}
		t.exchange(RouteKey{kind, k}, r)
	})
}

// learnGateways learns what Gateways are made of.
func (t *traffic) learnGateways(in *Input) {
	t.classes = maps.Clone(in.Classes)
	diff(t.gateways, in.Gateways, func(k Key, _, _ *gateway.Gateway) { t.stale[targetKey{KindGateway, k}] = true })
	diff(t.secrets, in.Secrets, func(k Key, _, _ *Secret) { t.restart(t.users[k]) })
	if unread := in.Secrets == nil; unread != t.unread || !maps.EqualFunc(t.labels, in.Labels, maps.Equal) {
		t.unread, t.labels = unread, maps.Clone(in.Labels)
		for k := range t.gateways {
			t.stale[targetKey{KindGateway, k}] = true
		}
	}
}

// exchange puts a route in the place of the one of its name; nil: there is none
// any more.
func (t *traffic) exchange(k RouteKey, r *route) {
	t.moved = true
	if old := t.routes[k]; old != nil {
		for _, p := range old.parentObjects() {
			delete(t.attached[p], k)
			t.stale[p] = true
		}
		delete(t.routes, k)
	}
	if r == nil {
		return
	}
	t.routes[k] = r
	for _, p := range r.parentObjects() {
		if t.attached[p] == nil {
			t.attached[p] = map[RouteKey]*route{}
		}
		t.attached[p][k] = r
		t.stale[p] = true
	}
}

// parentObjects are the parents of the route that are Services or Gateways, each
// once.
func (r *route) parentObjects() []targetKey {
	var out []targetKey
	for i := range r.parents {
		if p, is := r.parentObject(i); is && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// parentObject is the Service or Gateway that a parent is.
func (r *route) parentObject(i int) (targetKey, bool) {
	p := &r.parents[i]
	group, kind := gatewayGroup, KindGateway
	if p.Group != nil {
		group = string(*p.Group)
	}
	if p.Kind != nil {
		kind = string(*p.Kind)
	}
	k := Key{r.Project, string(p.Name)}
	if n := deref(p.Namespace); n != "" {
		k.Project = string(n)
	}
	return targetKey{kind, k}, kind == KindService && isService(group) || kind == KindGateway && group == gatewayGroup
}

// isService says whether the kind Service of a group is ours. The core group
// has none here, so that whoever writes it means ours.
func isService(group string) bool { return group == "" || group == v1alpha1.GroupVersion.Group }

// retarget changes the policies of each target of a policy.
func (t *traffic) retarget(of Key, targets []v1alpha1.PolicyTarget, change func(*policies)) {
	t.moved = true
	for i := range targets {
		k := targetKey{targets[i].Kind, Key{of.Project, targets[i].Name}}
		all := &policies{of: k}
		if old := t.targeted[k]; old != nil {
			*all = *old
		}
		change(all)
		if t.targeted[k] = all; len(all.backends)+len(all.faults) == 0 {
			delete(t.targeted, k)
		}
		t.touch(k)
	}
}

// touch marks the fronts that the policies of a target are about.
func (t *traffic) touch(k targetKey) {
	if k.kind == v1alpha1.TargetService {
		t.stale[k] = true
		t.restart(t.users[k.key]) // a cluster may be there now, or not any more
		return
	}
	if r := t.routes[RouteKey{k.kind, k.key}]; r != nil {
		for _, p := range r.parentObjects() {
			t.stale[p] = true
		}
	}
}

// restart marks fronts.
func (t *traffic) restart(fronts map[targetKey]bool) {
	for k := range fronts {
		t.stale[k] = true
	}
}

// without is the list without the policy of a name.
func without[P attached](list []P, k Key) []P {
	return slices.DeleteFunc(slices.Clone(list), func(p P) bool { return p.GetNamespace() == k.Project && p.GetName() == k.Name })
}

// with is the list with a policy, once, sorted by age.
func with[P attached](list []P, p P) []P {
	list = append(without(list, Key{p.GetNamespace(), p.GetName()}), p)
	slices.SortFunc(list, compareAge[P])
	return list
}

// serviceMoved marks what depends on a Service that came, went or is different.
func (t *traffic) serviceMoved(k Key) {
	t.moved = true
	t.stale[targetKey{KindService, k}] = true
	t.restart(t.users[k])
}

// everything marks every Service and Gateway that has, had or needs a front or
// gate.
func (t *traffic) everything() {
	t.moved = true
	for k := range t.attached {
		t.stale[k] = true
	}
	for k := range t.targeted {
		if k.kind == KindService {
			t.stale[k] = true
		}
	}
	for k := range t.fronts {
		t.stale[targetKey{KindService, k}] = true
	}
	for k := range t.gateways {
		t.stale[targetKey{KindGateway, k}] = true
	}
	for k := range t.gates {
		t.stale[targetKey{KindGateway, k}] = true
	}
}
