package compile

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/snapshot/l7"
)

// parents finds which parents of the routes mean this Gateway, and whether they
// mean a listener of it.
func (d *draftGate) parents() {
	for _, r := range d.f.routes {
		for i := range r.parents {
			if p, is := r.parentObject(i); !is || p != (targetKey{KindGateway, d.f.key}) {
				continue
			}
			v := &parentVerdict{parent: &r.parents[i], field: fmt.Sprintf("spec.parentRefs[%d]", i), broken: map[int]bool{}}
			d.verdicts[parentKey{r.RouteKey, i}] = v
			d.references(r, v)
			switch e := d.f.edge; {
			case e == nil:
				v.refuse(reasonNoParent, d.name()+" does not exist", "create it, or correct the name")
			case e.flaw != nil:
				v.refuse(reasonNoParent, d.name()+" is not accepted: "+e.flaw.text, "see its status")
			case !slices.ContainsFunc(d.listeners, func(l gateListener) bool { return v.selects(l.Name, l.spec.Port) }):
				v.refuse(reasonNoParent, d.name()+" has no such listener", "name a listener that it has")
			}
		}
	}
}

// attach gives a listener the routes that it takes. The others are told why not.
func (d *draftGate) attach(l *gateListener) {
	where := "listener " + l.Name + " of " + d.name()
	allowed, why := d.allowed(l)
	taken := hostsTaken{platform: d.f.key.Project}
	for _, a := range d.candidates(l) {
		r := a.route
		if !l.takes(r.Kind) {
			a.refuse(reasonNotAllowed, where+" takes no "+r.Kind, "attach it to another listener")
			continue
		}
		if !allowed(r.Project) {
			a.refuse(reasonNotAllowed, where+" takes no routes of project "+r.Project+why, "its owner would allow it in allowedRoutes.namespaces")
			continue
		}
		hosts := hostsAt(r, l.Hostname)
		if len(hosts) == 0 {
			a.refuse(reasonNoHostname, where+" is for "+l.Hostname+", and none of the hostnames is", "write a hostname that it is for")
			continue
		}
		if d.rules(a, inForce{}); len(a.rules) == 0 {
			continue
		}
		if hosts = d.claim(l, &taken, a, hosts); len(hosts) == 0 {
			continue
		}
		a.take()
		l.attached++
		if l.closed {
			a.refuse(reasonNoParent, where+" takes no connections: "+l.flaws[0].text, "see the status of the Gateway")
		}
		if slices.Equal(hosts, []string{""}) {
			hosts = nil
		}
		l.routes = append(l.routes, l7.Route{Name: r.Kind + "/" + r.Key.String() + "@" + KindGateway + "/" + d.f.key.String() + "/" + l.Name,
			Kind: r.kind, Created: r.created, Hostnames: hosts, Rules: a.rules})
	}
	slices.SortFunc(l.routes, func(a, b l7.Route) int { return strings.Compare(a.Name, b.Name) })
}

// candidates are the routes that mean a listener, the oldest first; those that see
// no SNI come after those that do.
func (d *draftGate) candidates(l *gateListener) []*attachment {
	var out []*attachment
	for i, r := range d.f.routes {
		a := &attachment{route: r, policies: d.f.ofRoute[i]}
		for n := range r.parents {
			if v := d.verdicts[parentKey{r.RouteKey, n}]; v != nil && v.selects(l.Name, l.spec.Port) {
				a.verdicts = append(a.verdicts, v)
			}
		}
		if len(a.verdicts) > 0 {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b *attachment) int {
		return boolOrder(a.route.kind == l7.TCPRoute, b.route.kind == l7.TCPRoute)
	})
	return out
}

// claim takes hosts of a listener for a route, and returns those that it got.
func (d *draftGate) claim(l *gateListener, taken *hostsTaken, a *attachment, hosts []string) []string {
	var out []string
	for _, h := range hosts {
		owner := taken.claim(h, a.route)
		if owner == nil {
			out = append(out, h)
			continue
		}
		what := ""
		if h != "" {
			what = "host " + h + " of "
		}
		a.refuse(reasonConflicted, what+"listener "+l.Name+" of "+d.name()+" is taken by "+owner.String(), "use another hostname or listener, or ask its owner")
	}
	return out
}

// hostsAt are the hostnames of a route as far as a listener is for them.
func hostsAt(r *route, listener string) []string {
	if len(r.hostnames) == 0 || r.kind == l7.TCPRoute {
		return []string{listener}
	}
	var out []string
	for _, h := range r.hostnames {
		if both, meet := l7.Meet(h, listener); meet && !slices.Contains(out, both) {
			out = append(out, both)
		}
	}
	return out
}

// namespacesOf says from where a listener takes routes.
func namespacesOf(l *gateway.Listener) gateway.RouteNamespaces {
	if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil {
		return gateway.RouteNamespaces{}
	}
	return *l.AllowedRoutes.Namespaces
}

// checkNamespaces looks at how a listener chooses projects.
func (l *gateListener) checkNamespaces(field string) {
	n := namespacesOf(l.spec)
	field += ".allowedRoutes.namespaces"
	switch from := deref(n.From); from {
	case "", gateway.NamespacesFromSame, gateway.NamespacesFromAll, gateway.NamespacesFromNone:
	case gateway.NamespacesFromSelector:
		if _, err := selectorOf(n.Selector); err != nil {
			l.bad(false, conditionAccepted, reasonUnsupported, field+".selector", "the label selector is not valid: "+err.Error(), "correct it; no route is taken until then")
		}
	default:
		l.bad(false, conditionAccepted, reasonUnsupported, field+".from", fmt.Sprintf("%q is not known", from), "use Same, All or Selector")
	}
}

// selectorOf reads a selector; without one nothing is selected.
func selectorOf(s *metav1.LabelSelector) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(s)
}

// allowed says from which projects a listener takes routes, and, for those that
// are refused, which it takes.
func (d *draftGate) allowed(l *gateListener) (allowed func(project string) bool, why string) {
	switch n := namespacesOf(l.spec); deref(n.From) {
	case gateway.NamespacesFromAll:
		return func(string) bool { return true }, ""
	case gateway.NamespacesFromSelector:
		s, err := selectorOf(n.Selector)
		return func(project string) bool { return err == nil && s.Matches(labels.Set(d.f.labels[project])) }, ", which its selector does not choose"
	case "", gateway.NamespacesFromSame:
		return func(project string) bool { return project == d.f.key.Project }, ", only of its own"
	}
	return func(string) bool { return false }, ""
}

// settle forgets, where a route is taken, which other listeners are not for it.
func (v *parentVerdict) settle() {
	if v.taken {
		v.refused = slices.DeleteFunc(v.refused, func(f flaw) bool { return f.reason == reasonNotAllowed || f.reason == reasonNoHostname })
	}
}

// hostsTaken are the hosts of a listener with the routes that were first. A host
// is one project's, and so is all that a wildcard covers, unless the Gateway's own
// project wrote it: there it is for what nobody else has.
type hostsTaken struct {
	platform string
	at       map[string]*route // by hostname; "" is all hosts
	below    map[string][]*route
}

// claim takes a host for a route, unless another has it: then it returns that one.
func (t *hostsTaken) claim(host string, r *route) (owner *route) {
	name, wild := l7.TrimWildcard(host)
	wild = wild || host == ""
	if o := t.at[host]; o != nil && (o.Project != r.Project || o.kind != r.kind || r.kind == l7.TLSRoute || r.kind == l7.TCPRoute) {
		return o
	}
	for at := name; at != ""; {
		_, at, _ = strings.Cut(at, ".")
		wider := ""
		if at != "" {
			wider = "*." + at
		}
		if o := t.at[wider]; o != nil && (o.kind != r.kind || o.Project != r.Project && o.Project != t.platform) {
			return o
		}
	}
	if wild {
		for _, o := range t.below[name] {
			if o.kind != r.kind {
				return o
			}
		}
	}
	t.note(host, name, wild, r)
	return nil
}

// note remembers the first route of a host, and for each name the first of each
// kind that is below it.
func (t *hostsTaken) note(host, name string, wild bool, r *route) {
	if t.at[host] == nil {
		set(&t.at, host, r)
	}
	for at := name; ; _, at, _ = strings.Cut(at, ".") {
		if (wild || at != name) && !slices.ContainsFunc(t.below[at], func(o *route) bool { return o.kind == r.kind }) {
			set(&t.below, at, append(t.below[at], r))
		}
		if at == "" {
			return
		}
	}
}
