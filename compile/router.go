package compile

import (
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

// router makes rules of what routes say and of what they may refer to. It is the
// same for Services and Gateways as parents.
type router struct {
	// known are the destinations that the rules name.
	known  map[string]clusterRef
	judged map[RouteKey]map[string]*judgedRef
}

func newRouter(refs []judgedRef) router {
	r := router{known: map[string]clusterRef{}, judged: map[RouteKey]map[string]*judgedRef{}}
	for i := range refs {
		j := &refs[i]
		if r.judged[j.from] == nil {
			r.judged[j.from] = map[string]*judgedRef{}
		}
		r.judged[j.from][j.name] = j
	}
	return r
}

// judgedRef is something that a route refers to.
type judgedRef struct {
	from      RouteKey
	name      string            // in route.refs
	service   *v1alpha1.Service // nil: it does not exist, or is none
	policies  *policies         // of that Service
	permitted bool
}

// clusterRef is a port of a Service as a destination.
type clusterRef struct {
	service  Key
	port     int32
	protocol l7.Protocol
	// natural is what is spoken to it by itself: another protocol is in the name.
	natural l7.Protocol
}

// destination notes a destination and returns its name.
func (d *router) destination(r clusterRef) string {
	name := r.String()
	d.known[name] = r
	return name
}

// parentKey is one parent of a route.
type parentKey struct {
	route RouteKey
	index int
}

// routesAt gathers the routes that name a parent, the oldest first, with the
// policies of each and what may be done with what they refer to.
func (m *memory) routesAt(parent targetKey) (routes []*route, of []*policies, refs []judgedRef) {
	t := &m.traffic
	for _, r := range t.attached[parent] {
		routes = append(routes, r)
	}
	slices.SortFunc(routes, older)
	for _, r := range routes {
		of = append(of, t.targeted[targetKey{r.Kind, r.Key}])
		for _, name := range sortedNames(r.refs) {
			b := r.refs[name]
			if t.users[b.key] == nil {
				t.users[b.key] = map[targetKey]bool{}
			}
			t.users[b.key][parent] = true
			// Callers of a Service might go to others of its project by themselves.
			own := b.key.Project == r.Project || parent.kind == KindService && b.key.Project == parent.key.Project
			j := judgedRef{from: r.RouteKey, name: name, permitted: own || t.granted(r.Kind, r.Project, KindService, b.key)}
			if b.isService() {
				j.service, j.policies = m.services[b.key], t.targeted[targetKey{KindService, b.key}]
			}
			refs = append(refs, j)
		}
	}
	return routes, of, refs
}

// granted says whether a ReferenceGrant lets objects of a kind of the Gateway API,
// of one project, refer to a Service or Secret of another.
func (t *traffic) granted(kind, project, toKind string, to Key) bool {
	for k, g := range t.grants {
		if k.Project != to.Project {
			continue
		}
		from, there := false, false
		for _, f := range g.Spec.From {
			from = from || string(f.Group) == gatewayGroup && string(f.Kind) == kind && string(f.Namespace) == project
		}
		for _, o := range g.Spec.To {
			there = there || isService(string(o.Group)) && string(o.Kind) == toKind && (deref(o.Name) == "" || string(*o.Name) == to.Name)
		}
		if from && there {
			return true
		}
	}
	return false
}
