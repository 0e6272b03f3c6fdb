package compile

import (
	"cmp"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

// frontFacts are everything that the front of one Service depends on.
type frontFacts struct {
	key     Key
	service *v1alpha1.Service // nil: there is none
	routes  []*route          // that name it as parent, the oldest first
	// policies of the Service, and of each route; nil: none.
	policies *policies
	ofRoute  []*policies
	// refs say what the routes may do with what they refer to, sorted.
	refs []judgedRef
}

func (f *frontFacts) equal(o *frontFacts) bool {
	return f.service == o.service && f.policies == o.policies && slices.Equal(f.routes, o.routes) && slices.Equal(f.ofRoute, o.ofRoute) && slices.Equal(f.refs, o.refs)
}

// front is a Service as those see it who call it: what the routes that have it
// as parent and the policies that are attached to it make of its ports. It says
// nothing of Networks, and is never changed after compileFront returned it.
type front struct {
	facts *frontFacts
	ports []frontPort
	// refs are the destinations that rules name.
	refs map[string]clusterRef
	// verdicts of its routes, by route and index of the parent.
	verdicts map[parentKey]*parentVerdict
}

// frontPort is one TCP port.
type frontPort struct {
	port int32
	// views: what all callers see (project ""), then what those of one project see.
	views []frontView
}

// frontView is a port as some callers see it.
type frontView struct {
	project  string
	protocol l7.Protocol
	// whole is the destination of what no route takes; "": none.
	whole  string
	routes []l7.Route // clusters are names of refs
	why    string
}

// refreshFronts computes the fronts that may be different, and returns the
// Services whose fronts are.
func (m *memory) refreshFronts() []Key {
	t := &m.traffic
	if m.all {
		t.everything()
	}
	var out []Key
	for p := range t.stale {
		if p.kind != KindService {
			continue
		}
		delete(t.stale, p)
		k := p.key
		old := t.fronts[k]
		f := m.frontFacts(k)
		switch {
		case len(f.routes) == 0 && f.policies == nil:
			if old == nil {
				continue
			}
			delete(t.fronts, k)
		case old != nil && old.facts.equal(f):
			continue
		default:
			t.fronts[k] = compileFront(f)
		}
		t.moved = true
		out = append(out, k)
	}
	return out
}

// frontFacts gathers what the front of a Service depends on.
func (m *memory) frontFacts(k Key) *frontFacts {
	t := &m.traffic
	self := targetKey{KindService, k}
	f := &frontFacts{key: k, service: m.services[k], policies: t.targeted[self]}
	f.routes, f.ofRoute, f.refs = m.routesAt(self)
	return f
}

// draftFront is a front in the making.
type draftFront struct {
	*front
	router
	f *frontFacts
}

func compileFront(f *frontFacts) *front {
	d := &draftFront{f: f, router: newRouter(f.refs), front: &front{facts: f, verdicts: map[parentKey]*parentVerdict{}}}
	d.refs = d.known
	d.parents()
	if f.service == nil {
		return d.front
	}
	for i := range f.service.Spec.Ports {
		if p := &f.service.Spec.Ports[i]; isTCPPort(p) {
			d.port(p)
		}
	}
	return d.front
}

// port makes the views of one port.
func (d *draftFront) port(p *v1alpha1.ServicePort) {
	out := frontPort{port: p.Port}
	attached := map[string][]*attachment{"": nil} // by the project of the callers
	for i, r := range d.f.routes {
		a := &attachment{route: r, policies: d.f.ofRoute[i]}
		for n := range r.parents {
			if v := d.verdicts[parentKey{r.RouteKey, n}]; v != nil && v.selects(p.Name, p.Port) {
				a.verdicts = append(a.verdicts, v)
			}
		}
		callers := r.Project
		if callers == d.f.key.Project {
			callers = ""
		}
		if len(a.verdicts) > 0 {
			attached[callers] = append(attached[callers], a)
		}
	}
	for _, callers := range sortedNames(attached) {
		if v, ok := d.view(p, callers, attached[callers]); ok {
			out.views = append(out.views, v)
		}
	}
	if len(out.views) > 0 {
		d.ports = append(d.ports, out)
	}
}

// view makes what some callers see of a port.
func (d *draftFront) view(p *v1alpha1.ServicePort, callers string, all []*attachment) (frontView, bool) {
	v := frontView{project: callers}
	own := d.f.policies.ofPort(p)
	for _, a := range d.accepted(p, own, all) {
		r := l7.Route{Name: a.route.Kind + "/" + a.route.Key.String() + d.variant(a.route, p, own), Kind: a.route.kind, Created: a.route.created, Rules: a.rules}
		if a.route.kind == l7.TLSRoute {
			r.Hostnames = a.route.hostnames
		}
		v.routes = append(v.routes, r)
		if v.why == "" {
			v.why, v.protocol = a.route.String(), frontProtocol(a.route.kind)
		}
	}
	if len(v.routes) == 0 {
		return v, callers == "" && d.plain(&v, p, own)
	}
	slices.SortFunc(v.routes, func(a, b l7.Route) int { return cmp.Compare(a.Name, b.Name) })
	return v, true
}

// plain makes the view of a port that has policies and no route.
func (d *draftFront) plain(v *frontView, p *v1alpha1.ServicePort, own inForce) bool {
	app := appOf(p)
	http := app != "" && app != l7.TCP
	v.protocol = l7.TCP
	if http {
		v.protocol = l7.AutoHTTP
	} else {
		own.requests, own.faults = nil, nil // nobody sees requests
	}
	if v.why = own.why(); v.why == "" {
		return false
	}
	protocol, ok := natural(app), true
	if http {
		protocol, ok = spoken(l7.HTTPRoute, app, own.tls())
	}
	to := nowhere
	if ok && own.closed == nil {
		to = d.destination(clusterRef{d.f.key, p.Port, protocol, natural(app)})
	}
	if len(own.requests)+len(own.faults) == 0 {
		v.whole = to
		return true
	}
	rule := l7.Rule{Name: "0", Backends: []l7.Backend{{Cluster: to}}}
	own.apply(&rule)
	v.routes = []l7.Route{{Name: "Service/" + to, Rules: []l7.Rule{rule}}}
	return true
}

// variant tells apart what is made of one route where it has to do with the
// Service, so that it is not the same for all of its parents.
func (d *draftFront) variant(r *route, p *v1alpha1.ServicePort, own inForce) string {
	if len(r.parentObjects()) < 2 && len(own.requests)+len(own.faults) == 0 {
		return ""
	}
	if d.f.policies.namePorts() {
		return "@" + portName(d.f.key, p.Port)
	}
	return "@" + d.f.key.String()
}
