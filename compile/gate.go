package compile

import (
	"maps"
	"slices"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/snapshot/l7"
)

// Conditions of Gateways and their listeners, and their reasons.
const (
	reasonParameters    = string(gateway.GatewayReasonInvalidParameters)
	reasonAddress       = string(gateway.GatewayReasonUnsupportedAddress)
	conditionConflicted = string(gateway.ListenerConditionConflicted)
	conditionProgrammed = string(gateway.GatewayConditionProgrammed)
	reasonCertificate   = string(gateway.ListenerReasonInvalidCertificateRef)
	reasonKinds         = string(gateway.ListenerReasonInvalidRouteKinds)
	reasonHostTaken     = string(gateway.ListenerReasonHostnameConflict)
	reasonPortTaken     = string(gateway.ListenerReasonProtocolConflict)
	reasonNoConflicts   = string(gateway.ListenerReasonNoConflicts)
	reasonListeners     = string(gateway.GatewayReasonListenersNotValid)
	reasonPending       = string(gateway.GatewayReasonPending)
	reasonNoNode        = string(gateway.GatewayReasonNoResources)
	reasonNoAddress     = string(gateway.GatewayReasonAddressNotUsable)
)

// gateFacts are everything that the gate of one Gateway depends on.
type gateFacts struct {
	key Key
	// edge is where it stands; nil: there is no Gateway of that name, but routes
	// that have it as parent.
	edge    *edge
	routes  []*route // the oldest first
	ofRoute []*policies
	refs    []judgedRef
	// secrets that its listeners name.
	secrets map[Key]judgedSecret
	// labels of the projects of its routes, where a listener chooses by them.
	labels map[string]map[string]string
}

// judgedSecret is a Secret that a listener names.
type judgedSecret struct {
	*Secret   // nil: there is none
	permitted bool
	// unread: nobody knows whether it is there.
	unread bool
}

func (f *gateFacts) equal(o *gateFacts) bool {
	return f.edge == o.edge && slices.Equal(f.routes, o.routes) && slices.Equal(f.ofRoute, o.ofRoute) && slices.Equal(f.refs, o.refs) &&
		maps.Equal(f.secrets, o.secrets) && maps.EqualFunc(f.labels, o.labels, maps.Equal)
}

// gate is a Gateway with what its routes make of its listeners. It says nothing
// of nodes, and is never changed after compileGate returned it.
type gate struct {
	facts     *gateFacts
	listeners []gateListener // in the order of the Gateway
	// refs are the destinations that rules name.
	refs map[string]clusterRef
	// verdicts of its routes, by route and index of the parent.
	verdicts map[parentKey]*parentVerdict
	// certificates by name, which is that of the Secret.
	certificates map[string]l7.Certificate
}

// refreshGates computes the gates that may be different, and marks their Networks.
func (m *memory) refreshGates() {
	t := &m.traffic
	for p := range t.stale {
		if p.kind != KindGateway {
			continue
		}
		delete(t.stale, p)
		old, f := t.gates[p.key], m.gateFacts(p.key)
		switch {
		case f == nil && old == nil, f != nil && old != nil && old.facts.equal(f):
			continue
		case f == nil:
			delete(t.gates, p.key)
		default:
			t.gates[p.key] = compileGate(f)
		}
		t.moved = true
		for _, g := range []*gate{old, t.gates[p.key]} {
			if g != nil && g.facts.edge != nil {
				m.rejoin[g.facts.edge.network] = true
			}
		}
	}
}

// gateFacts gathers what the gate of a Gateway depends on; nil: it is not ours, or
// nobody asks for it.
func (m *memory) gateFacts(k Key) *gateFacts {
	t := &m.traffic
	self := targetKey{KindGateway, k}
	f := &gateFacts{key: k, edge: t.edges[k]}
	if f.edge == nil && (t.gateways[k] != nil || len(t.attached[self]) == 0) {
		return nil
	}
	f.routes, f.ofRoute, f.refs = m.routesAt(self)
	if f.edge == nil {
		return f
	}
	for i := range f.edge.gateway.Spec.Listeners {
		l := &f.edge.gateway.Spec.Listeners[i]
		if n := namespacesOf(l); deref(n.From) == gateway.NamespacesFromSelector {
			for _, r := range f.routes {
				set(&f.labels, r.Project, t.labels[r.Project])
			}
		}
		if l.TLS == nil {
			continue
		}
		for j := range l.TLS.CertificateRefs {
			s := secretOf(k.Project, &l.TLS.CertificateRefs[j])
			set(&f.secrets, s, judgedSecret{t.secrets[s], s.Project == k.Project || t.granted(KindGateway, k.Project, kindSecret, s), t.unread})
			if t.users[s] == nil {
				t.users[s] = map[targetKey]bool{}
			}
			t.users[s][self] = true
		}
	}
	return f
}

// gatesOf are the gates of a Network that can stand there, sorted by key.
func (t *traffic) gatesOf(network Key) []*gate {
	var out []*gate
	for _, g := range t.gates {
		if e := g.facts.edge; e != nil && e.network == network && e.workload != nil && e.node != "" {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b *gate) int { return compareKeys(a.facts.key, b.facts.key) })
	return out
}

// draftGate is a gate in the making.
type draftGate struct {
	*gate
	router
	f *gateFacts
}

func compileGate(f *gateFacts) *gate {
	d := &draftGate{f: f, router: newRouter(f.refs), gate: &gate{facts: f, verdicts: map[parentKey]*parentVerdict{}, certificates: map[string]l7.Certificate{}}}
	d.refs = d.known
	if f.edge != nil && f.edge.flaw == nil {
		d.listen()
	}
	d.parents()
	for i := range d.listeners {
		d.attach(&d.listeners[i])
	}
	for _, v := range d.verdicts {
		v.settle()
	}
	return d.gate
}

func (g *gate) name() string { return KindGateway + " " + g.facts.key.String() }
