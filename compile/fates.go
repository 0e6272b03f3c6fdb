package compile

import (
	"cmp"
	"fmt"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot/l7"
)

// trafficFate is how a BackendPolicy or FaultPolicy is.
type trafficFate struct {
	flaws []flaw // of targets that it does not hold for, or of itself
	idle  []flaw // where it changes nothing
	holds bool   // for some target
}

func (f *trafficFate) condition() Condition {
	switch {
	case f == nil:
		return Condition{conditionAccepted, false, reasonTargetNotFound, "it is attached to nothing; write targetRefs"}
	case len(f.flaws) == 0 && len(f.idle) > 0:
		return Condition{conditionAccepted, true, reasonPolicyAccepted, "in force, but " + f.idle[0].String()}
	case len(f.flaws) == 0:
		return Condition{conditionAccepted, true, reasonPolicyAccepted, "in force"}
	case f.holds && f.flaws[0].reason != reasonInvalid:
		return Condition{conditionAccepted, true, reasonPolicyAccepted, "in force, but not for all targets: " + f.flaws[0].String()}
	}
	return Condition{conditionAccepted, false, f.flaws[0].reason, f.flaws[0].String()}
}

// policyFates says how all policies are, by "<Kind> <project>/<name>".
func (m *memory) policyFates() map[string]*trafficFate {
	out := map[string]*trafficFate{}
	for _, all := range m.traffic.targeted {
		for _, p := range all.backends {
			f := fateOf(out, backendPolicyName(p), p.invalid)
			judgeTargets(m, f, all.of, all.backends, p, backendPolicyName)
			if p.requests != nil && p.endpoints == nil {
				m.judgeRequests(f, all.of, p.targets())
			}
			if c := p.Spec.Check; c != nil && c.Type == "grpc" {
				m.judgeCheck(f, all.of)
			}
		}
		for _, p := range all.faults {
			f := fateOf(out, faultPolicyName(p), p.invalid)
			judgeTargets(m, f, all.of, all.faults, p, faultPolicyName)
			m.judgeRequests(f, all.of, p.targets())
		}
	}
	for _, f := range out {
		order := func(a, b flaw) int {
			return cmp.Or(-boolOrder(a.reason == reasonInvalid, b.reason == reasonInvalid), cmp.Compare(a.field, b.field), cmp.Compare(a.text, b.text))
		}
		slices.SortFunc(f.flaws, order)
		slices.SortFunc(f.idle, order)
		f.flaws, f.idle = slices.Compact(f.flaws), slices.Compact(f.idle)
	}
	return out
}

func fateOf(all map[string]*trafficFate, name string, invalid *flaw) *trafficFate {
	f := all[name]
	if f == nil {
		f = &trafficFate{}
		all[name] = f
		if invalid != nil {
			f.flaws = append(f.flaws, *invalid)
		}
	}
	return f
}

// judgeTargets looks at what of one object a policy is attached to.
func judgeTargets[P attached](m *memory, f *trafficFate, of targetKey, all []P, p P, name func(P) string) {
	for i, t := range p.targets() {
		if t.Kind != of.kind || t.Name != of.key.Name {
			continue
		}
		bad := func(reason, text, fix string) {
			f.flaws = append(f.flaws, flaw{conditionAccepted, reason, fmt.Sprintf("spec.targetRefs[%d]", i), text, fix})
		}
		means, found := m.section(of, &t)
		if !found {
			what, part := of.kind+" "+of.key.String(), ""
			switch {
			case t.Port != 0:
				part = fmt.Sprintf(" with a port %d", t.Port)
			case t.SectionName != "":
				part = fmt.Sprintf(" with a part %q", t.SectionName)
			}
			bad(reasonTargetNotFound, "there is no "+what+part, "create it, or correct the name")
			continue
		}
		first := all[slices.IndexFunc(all, func(o P) bool { return o == p || aims(o, of, means) })]
		if first != p {
			bad(reasonConflicted, name(first)+" is older and attached to the same", "remove one of them, or attach it to a part")
			continue
		}
		f.holds = true
	}
}

// section finds what part of its object a target means, and whether it is there.
func (m *memory) section(of targetKey, t *v1alpha1.PolicyTarget) (means func(*v1alpha1.PolicyTarget) bool, found bool) {
	if of.kind == v1alpha1.TargetService {
		s := m.services[of.key]
		if s == nil || entire(t) {
			return entire, s != nil
		}
		i := slices.IndexFunc(s.Spec.Ports, func(p v1alpha1.ServicePort) bool { return meansPort(&p)(t) })
		if i < 0 {
			return nil, false
		}
		return meansPort(&s.Spec.Ports[i]), true
	}
	r := m.traffic.routes[RouteKey{of.kind, of.key}]
	if r == nil || entire(t) {
		return entire, r != nil
	}
	name := t.SectionName
	return func(o *v1alpha1.PolicyTarget) bool { return o.SectionName == name }, slices.ContainsFunc(r.rules, func(x routeRule) bool { return x.Name == name })
}

// judgeRequests tells a policy about requests of a Service when nobody sees its
// requests.
func (m *memory) judgeRequests(f *trafficFate, of targetKey, targets []v1alpha1.PolicyTarget) {
	s := m.services[of.key]
	if of.kind != v1alpha1.TargetService || s == nil {
		return
	}
	if front := m.traffic.fronts[of.key]; front != nil {
		for _, p := range front.ports {
			if slices.ContainsFunc(p.views, func(v frontView) bool { return v.protocol == l7.AutoHTTP }) {
				return
			}
		}
	}
	i := slices.IndexFunc(targets, func(t v1alpha1.PolicyTarget) bool { return t.Kind == of.kind && t.Name == of.key.Name })
	f.idle = append(f.idle, flaw{field: fmt.Sprintf("spec.targetRefs[%d]", i), text: "nobody sees requests of Service " + of.key.String() + ": no port has appProtocol http, and no HTTPRoute is attached",
		fix: "write appProtocol: http at its port"})
}

// judgeCheck tells a policy whose check the endpoints cannot answer.
func (m *memory) judgeCheck(f *trafficFate, of targetKey) {
	if s := m.services[of.key]; s != nil && !slices.ContainsFunc(s.Spec.Ports, func(p v1alpha1.ServicePort) bool { return appOf(&p) == l7.HTTP2 }) {
		f.idle = append(f.idle, flaw{field: "spec.check.type", text: "no port of Service " + of.key.String() + " has appProtocol grpc, so none is asked", fix: "write appProtocol: grpc at its port"})
	}
}
