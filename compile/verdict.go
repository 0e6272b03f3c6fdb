package compile

import (
	"cmp"
	"fmt"
	"slices"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

const gatewayGroup = gateway.GroupName

// Conditions of a parent of a route, and their reasons.
const (
	conditionAccepted = string(gateway.RouteConditionAccepted)
	conditionResolved = string(gateway.RouteConditionResolvedRefs)
	conditionPartly   = string(gateway.RouteConditionPartiallyInvalid)

	reasonNoParent        = string(gateway.RouteReasonNoMatchingParent)
	reasonNotAllowed      = string(gateway.RouteReasonNotAllowedByListeners)
	reasonUnsupported     = string(gateway.RouteReasonUnsupportedValue)
	reasonNotPermitted    = string(gateway.RouteReasonRefNotPermitted)
	reasonInvalidKind     = string(gateway.RouteReasonInvalidKind)
	reasonNotFound        = string(gateway.RouteReasonBackendNotFound)
	reasonProtocol        = string(gateway.RouteReasonUnsupportedProtocol)
	reasonConflicted      = "Conflicted" // of GEP-1294
	reasonNoHostname      = string(gateway.RouteReasonNoMatchingListenerHostname)
	reasonInvalid         = string(gateway.PolicyReasonInvalid)
	reasonTargetNotFound  = string(gateway.PolicyReasonTargetNotFound)
	reasonPolicyAccepted  = string(gateway.PolicyReasonAccepted)
	reasonPolicyConflicts = string(gateway.PolicyReasonConflicted)
)

// parentVerdict is how a route is at one of its parents.
type parentVerdict struct {
	parent *gateway.ParentReference
	field  string
	// taken: some port has it.
	taken bool
	// refused is why ports do not have it, the first of all.
	refused []flaw
	// flaws of its rules and references; sorted, each once.
	flaws []flaw
	// broken are the indices of rules that answer with an error or are left out.
	broken map[int]bool
}

// selects says whether the parent means a part of it.
func (v *parentVerdict) selects(section string, port int32) bool {
	return (deref(v.parent.SectionName) == "" || string(*v.parent.SectionName) == section) && (v.parent.Port == nil || *v.parent.Port == port)
}

func (v *parentVerdict) refuse(reason, text, fix string) {
	v.refused = append(v.refused, flaw{conditionAccepted, reason, v.field, text, fix})
}

func (v *parentVerdict) note(f flaw) {
	if !slices.Contains(v.flaws, f) {
		v.flaws = append(v.flaws, f)
	}
}

func isTCPPort(p *v1alpha1.ServicePort) bool { return cmp.Or(p.Protocol, "TCP") == "TCP" }

// tcpPort is the TCP port of a Service with a number; nil: it has none.
func tcpPort(s *v1alpha1.Service, number int32) *v1alpha1.ServicePort {
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Port == number && isTCPPort(p) {
			return p
		}
	}
	return nil
}

// parents finds which parents of the routes mean this Service, and whether they
// mean a port of it.
func (d *draftFront) parents() {
	for _, r := range d.f.routes {
		for i := range r.parents {
			if p, is := r.parentObject(i); !is || p != (targetKey{KindService, d.f.key}) {
				continue
			}
			v := &parentVerdict{parent: &r.parents[i], field: fmt.Sprintf("spec.parentRefs[%d]", i), broken: map[int]bool{}}
			d.verdicts[parentKey{r.RouteKey, i}] = v
			d.references(r, v)
			switch s := d.f.service; {
			case s == nil:
				v.refuse(reasonNoParent, "Service "+d.f.key.String()+" does not exist", "create it, or correct the name")
			case !slices.ContainsFunc(s.Spec.Ports, func(p v1alpha1.ServicePort) bool { return isTCPPort(&p) && v.selects(p.Name, p.Port) }):
				v.refuse(reasonNoParent, "Service "+d.f.key.String()+" has no such TCP port", "name a port that it has")
			}
		}
	}
}

// references notes what of a route refers to nothing that it may use.
func (d *router) references(r *route, v *parentVerdict) {
	for i := range r.rules {
		for _, u := range r.rules[i].uses {
			if _, f := d.resolve(r, u.name); f != nil {
				f.field = u.field
				v.note(*f)
			}
		}
	}
}

// rank says which kind of route a port takes, when there are several: the lowest.
var rank = map[l7.Kind]int{l7.GRPCRoute: 0, l7.HTTPRoute: 1, l7.TLSRoute: 2, l7.TCPRoute: 3}

// accepted are the routes that a port takes for some callers, the oldest first.
// The others are told why not.
func (d *draftFront) accepted(p *v1alpha1.ServicePort, own inForce, all []*attachment) []*attachment {
	var fit []*attachment
	for _, a := range all {
		if !carries(appOf(p), a.route.kind) {
			a.refuse(reasonNotAllowed, fmt.Sprintf("port %d of Service %s has appProtocol %s, which no %s is for", p.Port, d.f.key, p.AppProtocol, a.route.Kind),
				"change the appProtocol of the port, or the kind of the route")
			continue
		}
		if d.rules(a, own); len(a.rules) > 0 {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	first := slices.MinFunc(fit, func(a, b *attachment) int {
		return cmp.Or(cmp.Compare(rank[a.route.kind], rank[b.route.kind]), older(a.route, b.route))
	})
	names := map[string]*route{} // of TLSRoutes, by hostname
	return slices.DeleteFunc(fit, func(a *attachment) bool {
		owner := first.route
		switch {
		case a.route.kind != owner.kind, a.route.kind == l7.TCPRoute && a.route != owner:
		case a.route.kind == l7.TLSRoute:
			owner = claimNames(names, a.route)
		default:
			owner = nil
		}
		if owner != nil && owner != a.route {
			a.refuse(reasonConflicted, fmt.Sprintf("port %d of Service %s is taken by %s", p.Port, d.f.key, owner), "remove one of them, or attach them to different ports")
			return true
		}
		a.take()
		return false
	})
}

// claimNames takes the hostnames of a route; it returns the route that has all of
// them already, if there is one.
func claimNames(names map[string]*route, r *route) *route {
	var owner *route
	free := false
	for _, h := range r.hostnames {
		if o := names[h]; o != nil {
			owner = o
			continue
		}
		names[h], free = r, true
	}
	if free {
		return nil
	}
	return owner
}

// frontProtocol is what callers speak where a route of a kind is attached.
func frontProtocol(kind l7.Kind) l7.Protocol {
	switch kind {
	case l7.TLSRoute:
		return l7.TLS
	case l7.TCPRoute:
		return l7.TCP
	}
	return l7.AutoHTTP
}

// appOf is what the backends of a port speak; "": not said.
func appOf(p *v1alpha1.ServicePort) l7.Protocol {
	switch p.AppProtocol {
	case "http":
		return l7.AutoHTTP
	case "http1", "kubernetes.io/ws":
		return l7.HTTP1
	case "http2", "grpc", "kubernetes.io/h2c":
		return l7.HTTP2
	case "https", "tls", "tcp", "kubernetes.io/wss":
		return l7.TCP
	}
	return ""
}

// speaksTLS says whether what is spoken on a port is in TLS already.
func speaksTLS(p *v1alpha1.ServicePort) bool {
	return p.AppProtocol == "https" || p.AppProtocol == "tls" || p.AppProtocol == "kubernetes.io/wss"
}

// natural is what a cluster speaks to a port by itself, as its plain name says.
func natural(app l7.Protocol) l7.Protocol {
	switch app {
	case "":
		return l7.TCP
	case l7.AutoHTTP:
		return l7.HTTP1
	}
	return app
}

// carries says whether what is spoken on a port fits a kind of route.
func carries(app l7.Protocol, kind l7.Kind) bool {
	switch kind {
	case l7.HTTPRoute:
		return app != l7.TCP
	case l7.GRPCRoute:
		return app != l7.TCP && app != l7.HTTP1
	case l7.TLSRoute:
		return app == "" || app == l7.TCP
	}
	return true
}

// spoken is what a route of a kind speaks to a port; ok is false when it cannot.
func spoken(kind l7.Kind, app l7.Protocol, tls bool) (p l7.Protocol, ok bool) {
	switch {
	case kind == l7.TLSRoute || kind == l7.TCPRoute:
		return l7.TCP, true
	case app == l7.TCP && !tls, kind == l7.GRPCRoute && app == l7.HTTP1:
		return "", false
	case kind == l7.GRPCRoute:
		return l7.HTTP2, true
	case tls && app != l7.HTTP1 && app != l7.HTTP2:
		return l7.AutoHTTP, true // agreed on in the handshake
	case app == l7.HTTP2:
		return l7.HTTP2, true
	}
	return l7.HTTP1, true
}
