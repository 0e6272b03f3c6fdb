package compile

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/snapshot/l7"
)

// Kinds of routes.
const (
	KindHTTPRoute = "HTTPRoute"
	KindGRPCRoute = "GRPCRoute"
	KindTLSRoute  = "TLSRoute"
	KindTCPRoute  = "TCPRoute"
)

// KindGateway is the kind of parents that are Gateways.
const KindGateway = "Gateway"

// RouteKey names a route object of one of these kinds.
type RouteKey struct {
	Kind string
	Key
}

// String is "<Kind> <project>/<name>".
func (k RouteKey) String() string { return k.Kind + " " + k.Key.String() }

func compareRouteKeys(a, b RouteKey) int {
	return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind))
}

// route is a route object of any kind in one form. It follows from the object
// alone, and is never changed.
type route struct {
	RouteKey
	kind      l7.Kind
	created   int64
	hostnames []string
	parents   []gateway.ParentReference
	rules     []routeRule
	// refs are what its rules send requests to, by the name that stands for it as
	// a cluster in the rules.
	refs map[string]backendRef
}

// routeRule is one rule. The clusters in it are names of route.refs.
type routeRule struct {
	l7.Rule
	// uses are the places where one of the refs stands.
	uses []refUse
	// flaws are what cannot be done.
	flaws []flaw
}

// refUse is a place in the object where a ref stands.
type refUse struct{ name, field string }

// backendRef is what an object refers to as the destination of requests.
type backendRef struct {
	group, kind string
	key         Key
	port        int32 // 0: none
}

// flaw is one thing that is wrong with a route.
type flaw struct {
	condition, reason string // of the Gateway API
	field, text, fix  string
}

// older orders by age, then project and name, then kind: the order in which
// routes and policies go before each other.
func older(a, b *route) int {
	return cmp.Or(cmp.Compare(a.created, b.created), compareRouteKeys(a.RouteKey, b.RouteKey))
}

// routeMaker makes a route of an object.
type routeMaker struct {
	*route
	rule *routeRule
}

func newRoute(kind string, of l7.Kind, o metav1.Object, spec *gateway.CommonRouteSpec, hostnames []gateway.Hostname) *routeMaker {
	r := &route{RouteKey: RouteKey{kind, Key{o.GetNamespace(), o.GetName()}}, kind: of, parents: spec.ParentRefs, refs: map[string]backendRef{}}
	if t := o.GetCreationTimestamp(); !t.IsZero() {
		r.created = t.Unix()
	}
	for _, h := range hostnames {
		r.hostnames = append(r.hostnames, string(h))
	}
	return &routeMaker{route: r}
}

// begin begins a rule. One without a name is called by its index.
func (m *routeMaker) begin(name *gateway.SectionName) string {
	i := len(m.rules)
	called := cmp.Or(string(deref(name)), strconv.Itoa(i))
	if slices.ContainsFunc(m.rules, func(r routeRule) bool { return r.Name == called }) {
		called = "" // the first one keeps it
	}
	m.rules = append(m.rules, routeRule{Rule: l7.Rule{Name: called}})
	m.rule = &m.rules[i]
	return "spec.rules[" + strconv.Itoa(i) + "]"
}

// ref notes that a place refers to something, and returns the name that stands
// for it.
func (m *routeMaker) ref(field string, r *gateway.BackendObjectReference) string {
	b := backendRef{group: string(deref(r.Group)), kind: cmp.Or(string(deref(r.Kind)), KindService), key: Key{cmp.Or(string(deref(r.Namespace)), m.Project), string(r.Name)}, port: deref(r.Port)}
	name := strings.Join([]string{b.group, b.kind, b.key.Project, b.key.Name, strconv.Itoa(int(b.port))}, "|")
	m.refs[name] = b
	m.rule.uses = append(m.rule.uses, refUse{name, field})
	return name
}

// backend adds a destination.
func (m *routeMaker) backend(field string, r *gateway.BackendRef, filters []l7.Filter) {
	b := l7.Backend{Cluster: m.ref(field, &r.BackendObjectReference), Filters: filters}
	if r.Weight != nil && *r.Weight != 1 {
		w := uint32(max(*r.Weight, 0))
		b.Weight = &w
	}
	m.rule.Backends = append(m.rule.Backends, b)
}

// cannot notes that a part of the rule cannot be done.
func (m *routeMaker) cannot(field, fix, text string) {
	m.rule.flaws = append(m.rule.flaws, flaw{conditionAccepted, reasonUnsupported, field, text, fix})
}

// deref is what p points to, or nothing.
func deref[T any](p *T) T {
	var none T
	if p == nil {
		return none
	}
	return *p
}

// withClusters is the rule with other names in the place of its clusters.
func withClusters(r l7.Rule, name func(string) string) l7.Rule {
	r.Filters = filtersWith(r.Filters, name)
	if len(r.Backends) > 0 {
		backends := make([]l7.Backend, len(r.Backends))
		for i, b := range r.Backends {
			b.Cluster, b.Filters = name(b.Cluster), filtersWith(b.Filters, name)
			backends[i] = b
		}
		r.Backends = backends
	}
	return r
}

func filtersWith(filters []l7.Filter, name func(string) string) []l7.Filter {
	var out []l7.Filter
	for i, f := range filters {
		if f.Mirror == nil {
			continue
		}
		if out == nil {
			out = append([]l7.Filter(nil), filters...)
		}
		m := *f.Mirror
		m.Cluster = name(m.Cluster)
		out[i].Mirror = &m
	}
	if out == nil {
		return filters
	}
	return out
}
