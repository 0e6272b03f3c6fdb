package control

import (
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/compile"
)

// readGateways puts Gateways, their classes and certificates into next; see
// intent.read.
func (t *traffic) readGateways(read func(s *shelf, keep, anew func()), now *newestTraffic, last, next *compile.Input) {
	read(t.gateways, func() { next.Gateways = last.Gateways }, func() {
		now.gateways = keyed[*gateway.Gateway](t.gateways)
		next.Gateways = declared(last.Gateways, now.gateways, nil)
	})
	read(t.classes, func() { next.Classes = last.Classes }, func() {
		now.classes, next.Classes = map[string]*gateway.GatewayClass{}, map[string]*gateway.GatewayClass{}
		each(t.classes, func(c *gateway.GatewayClass) {
			now.classes[c.Name], next.Classes[c.Name] = c, c
		})
	})
	read(t.secrets, func() { next.Secrets = last.Secrets }, func() {
		next.Secrets = map[compile.Key]*compile.Secret{}
		each(t.secrets, func(s *corev1.Secret) {
			k := compile.Key{Project: s.Namespace, Name: s.Name}
			read := compile.Secret{Chain: string(s.Data[corev1.TLSCertKey]), Key: string(s.Data[corev1.TLSPrivateKeyKey])}
			if old := last.Secrets[k]; old != nil && *old == read {
				next.Secrets[k] = old
				return
			}
			next.Secrets[k] = &read
		})
	})
}

// judgeGateways says which Gateways and classes shall say something new.
func judgeGateways(out map[subject]saying, now *newestTraffic, statuses compile.Statuses) {
	for k, o := range now.gateways {
		want, known := statuses.Gateways[k]
		if !known || o.DeletionTimestamp != nil {
			continue
		}
		s := &trafficSaying{generation: o.Generation, gateway: want}
		if trial := o.Status.DeepCopy(); s.setGateway(trial, s.generation) {
			out[subject{"gateways", k}] = saying{traffic: s}
		}
	}
	for name, o := range now.classes {
		want, known := statuses.Classes[name]
		if !known || o.DeletionTimestamp != nil {
			continue
		}
		s := &trafficSaying{generation: o.Generation, accepted: want}
		if trial := slices.Clone(o.Status.Conditions); s.setPolicy(&trial, s.generation) {
			out[subject{"gatewayclasses", compile.Key{Name: name}}] = saying{traffic: s}
		}
	}
}

// setGateway writes the status of a Gateway of a generation, and reports whether
// that changed anything.
func (s *trafficSaying) setGateway(have *gateway.GatewayStatus, generation int64) bool {
	if s.generation != generation {
		return false
	}
	changed := setConditions(&have.Conditions, s.gateway.Conditions, generation)
	var addresses []gateway.GatewayStatusAddress
	for _, a := range s.gateway.Addresses {
		kind := gateway.IPAddressType
		addresses = append(addresses, gateway.GatewayStatusAddress{Type: &kind, Value: a})
	}
	if len(addresses)+len(have.Addresses) > 0 && !reflect.DeepEqual(addresses, have.Addresses) {
		have.Addresses, changed = addresses, true
	}
	listeners := make([]gateway.ListenerStatus, 0, len(s.gateway.Listeners))
	for _, want := range s.gateway.Listeners {
		l := gateway.ListenerStatus{Name: gateway.SectionName(want.Name), AttachedRoutes: want.Attached, SupportedKinds: []gateway.RouteGroupKind{}}
		for _, kind := range want.Kinds {
			group := gateway.Group(gateway.GroupName)
			l.SupportedKinds = append(l.SupportedKinds, gateway.RouteGroupKind{Group: &group, Kind: gateway.Kind(kind)})
		}
		i := slices.IndexFunc(have.Listeners, func(h gateway.ListenerStatus) bool { return h.Name == l.Name })
		if i >= 0 {
			l.Conditions = have.Listeners[i].Conditions
		}
		changed = setConditions(&l.Conditions, want.Conditions, generation) || changed
		changed = changed || i != len(listeners) || l.AttachedRoutes != have.Listeners[i].AttachedRoutes || !reflect.DeepEqual(l.SupportedKinds, have.Listeners[i].SupportedKinds)
		listeners = append(listeners, l)
	}
	changed = changed || len(listeners) != len(have.Listeners)
	have.Listeners = listeners
	return changed
}
