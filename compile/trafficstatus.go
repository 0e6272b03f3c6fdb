package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
)

// ParentStatus is how a route is at one of its parents.
type ParentStatus struct {
	Parent     gateway.ParentReference
	Conditions []Condition
}

// Condition is what one condition of a status shall say.
type Condition struct {
	Type            string
	True            bool
	Reason, Message string
}

// lookAtTraffic finds out how routes and policies are, when something of them or
// of what they have to do with is different.
func (m *memory) lookAtTraffic() {
	t := &m.traffic
	if !t.moved {
		return
	}
	t.moved = false
	t.unseen = m.unseenOf()
	t.fates = m.policyFates()
	t.problems = m.trafficProblems()
}

// trafficStatuses says how all routes and their policies are.
func (m *memory) trafficStatuses(out *Statuses) {
	m.lookAtTraffic()
	m.gatewayStatuses(out)
	out.Routes = make(map[RouteKey][]ParentStatus, len(m.traffic.routes))
	for k, r := range m.traffic.routes {
		out.Routes[k] = m.parentsOf(r)
	}
	out.BackendPolicies, out.FaultPolicies = map[Key]Condition{}, map[Key]Condition{}
	for k := range m.traffic.backends {
		out.BackendPolicies[k] = m.traffic.fates["BackendPolicy "+k.String()].condition()
	}
	for k := range m.traffic.faults {
		out.FaultPolicies[k] = m.traffic.fates["FaultPolicy "+k.String()].condition()
	}
}

// unseenOf are the destinations of each front that have no address in a Network
// from where its Service is called, with the first such Network.
func (m *memory) unseenOf() map[unseenRef]Key {
	out := map[unseenRef]Key{}
	for k, j := range m.joints {
		for _, u := range j.unseen {
			if n, known := out[u]; !known || compareKeys(k, n) < 0 {
				out[u] = k
			}
		}
	}
	return out
}

// parentsOf is how a route is at each of its parents that are Services or Gateways
// of ours.
func (m *memory) parentsOf(r *route) []ParentStatus {
	var out []ParentStatus
	for i := range r.parents {
		if v, flaws := m.verdictOf(r, i); v != nil {
			out = append(out, ParentStatus{r.parents[i], v.conditions(flaws)})
		}
	}
	return out
}

// verdictOf is the verdict of a parent that is a Service or Gateway with all
// flaws, sorted; nil: it is none.
func (m *memory) verdictOf(r *route, i int) (*parentVerdict, []flaw) {
	p, _ := r.parentObject(i)
	var v *parentVerdict
	var refs map[string]clusterRef
	from := ", from where Service " + p.key.String() + " is called"
	if f := m.traffic.fronts[p.key]; f != nil && p.kind == KindService {
		v, refs = f.verdicts[parentKey{r.RouteKey, i}], f.refs
	} else if g := m.traffic.gates[p.key]; g != nil && p.kind == KindGateway {
		v, refs = g.verdicts[parentKey{r.RouteKey, i}], g.refs
		from = ", in which " + g.name() + " stands"
	}
	if v == nil {
		return nil, nil
	}
	flaws := slices.Clone(v.flaws)
	for u, network := range m.traffic.unseen {
		if u.of != p {
			continue
		}
		to := refs[u.to]
		for n := range r.rules {
			for _, use := range r.rules[n].uses {
				if b := r.refs[use.name]; b.key == to.service && b.port == to.port {
					flaws = append(flaws, flaw{conditionResolved, reasonNotFound, use.field,
						"Service " + to.service.String() + " has no address in Network " + network.String() + from, "give it one there, or link its Network"})
				}
			}
		}
	}
	slices.SortFunc(flaws, func(a, b flaw) int {
		return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.reason, b.reason), cmp.Compare(a.text, b.text))
	})
	return v, slices.Compact(flaws)
}

// conditions are what the status of the parent shall say.
func (v *parentVerdict) conditions(flaws []flaw) []Condition {
	accepted := Condition{conditionAccepted, true, conditionAccepted, "in force"}
	resolved := Condition{conditionResolved, true, conditionResolved, "all references are valid"}
	var unsupported, refs []string
	for _, f := range flaws {
		if f.condition == conditionResolved {
			if resolved.True {
				resolved.True, resolved.Reason = false, f.reason
			}
			refs = append(refs, f.String())
		} else {
			unsupported = append(unsupported, f.String())
		}
	}
	if len(refs) > 0 {
		resolved.Message = joined(refs)
	}
	switch {
	case v.taken && len(v.refused) > 0:
		accepted.Message = "accepted, but " + v.refused[0].text
	case v.taken:
	case len(v.refused) > 0:
		accepted = Condition{conditionAccepted, false, v.refused[0].reason, v.refused[0].String()}
	case len(unsupported) > 0:
		accepted = Condition{conditionAccepted, false, reasonUnsupported, joined(unsupported)}
	default:
		accepted = Condition{conditionAccepted, false, reasonUnsupported, "there is no rule; write one with backendRefs"}
	}
	out := []Condition{accepted, resolved}
	if v.taken && len(v.broken) > 0 {
		var rules []string
		for _, i := range sortedNames(v.broken) {
			rules = append(rules, strconv.Itoa(i))
		}
		out = append(out, Condition{conditionPartly, true, reasonUnsupported, "Dropped Rule " + strings.Join(rules, ", ") + ": requests that match get an error; " + joined(unsupported)})
	}
	return out
}

// maxTold is how many flaws a condition tells.
const maxTold = 4

func joined(list []string) string {
	if len(list) > maxTold {
		list = append(slices.Clone(list[:maxTold]), fmt.Sprintf("and %d more", len(list)-maxTold))
	}
	return strings.Join(list, "; ")
}

// String is "field: text; fix".
func (f flaw) String() string {
	s := f.text
	if f.field != "" {
		s = f.field + ": " + s
	}
	if f.fix != "" {
		s += "; " + f.fix
	}
	return s
}

// codeOf is the code of a flaw by its reason.
var codeOf = map[string]string{
	reasonNoParent: codeNoParent, reasonNotAllowed: codeNotAllowed, reasonConflicted: codeConflicted, reasonUnsupported: codeUnsupported,
	reasonNotFound: codeNoDestination, reasonNotPermitted: codeNotPermitted, reasonInvalidKind: codeInvalidKind, reasonProtocol: codeProtocol,
	reasonTargetNotFound: codeNoTargetObject, reasonInvalid: codeInvalidPolicy,
	reasonParameters: codeEdge, reasonAddress: codeEdge, reasonNoNode: codeEdge, reasonHostTaken: codeListener, reasonPortTaken: codeListener,
	reasonKinds: codeListener, reasonCertificate: codeCertificate, reasonNoHostname: codeNoHostname,
}

// trafficProblems says what is wrong with routes, policies and Gateways.
func (m *memory) trafficProblems() []v1alpha1.Problem {
	var out []v1alpha1.Problem
	add := func(object string, f flaw) {
		out = append(out, about(codeOf[f.reason], object, f.field, f.text, f.fix))
	}
	m.gateProblems(add)
	for k, r := range m.traffic.routes {
		for i := range r.parents {
			v, flaws := m.verdictOf(r, i)
			if v == nil {
				continue
			}
			if !v.taken && len(v.refused) > 0 {
				add(k.String(), v.refused[0])
			}
			for _, f := range flaws {
				add(k.String(), f)
			}
		}
	}
	for name, f := range m.traffic.fates {
		for _, x := range f.flaws {
			add(name, x)
		}
		for _, x := range f.idle {
			out = append(out, warn(about(codeNoEffect, name, x.field, x.text, x.fix)))
		}
	}
	return out
}
