package compile

import (
	"fmt"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// GatewayStatus is how a Gateway is.
type GatewayStatus struct {
	// Addresses at which it is reached: of FloatingIPs, then its own.
	Addresses  []string
	Conditions []Condition
	Listeners  []ListenerStatus // in the order of spec.listeners
}

// ListenerStatus is how a listener of a Gateway is.
type ListenerStatus struct {
	Name       string
	Kinds      []string // of routes that it takes
	Attached   int32
	Conditions []Condition
}

// gatewayStatuses says how all Gateways of ours and their classes are.
func (m *memory) gatewayStatuses(out *Statuses) {
	out.Gateways, out.Classes = map[Key]GatewayStatus{}, map[string]Condition{}
	for k, g := range m.traffic.gates {
		if g.facts.edge != nil {
			out.Gateways[k] = m.gatewayStatus(g)
		}
	}
	for name, c := range m.traffic.classes {
		switch {
		case c.Spec.ControllerName != v1alpha1.GatewayController:
		case c.Spec.ParametersRef != nil:
			out.Classes[name] = Condition{conditionAccepted, false, reasonParameters, "spec.parametersRef: parameters are not supported; remove it"}
		default:
			out.Classes[name] = Condition{conditionAccepted, true, conditionAccepted, "nodes run Gateways of this class"}
		}
	}
}

// gatewayStatus says how one Gateway is.
func (m *memory) gatewayStatus(g *gate) GatewayStatus {
	var s GatewayStatus
	accepted := Condition{conditionAccepted, true, conditionAccepted, "in force"}
	waits := Condition{conditionProgrammed, false, reasonPending, ""}
	closed := 0
	for i := range g.listeners {
		if g.listeners[i].closed {
			closed++
		}
	}
	s.Addresses = m.addressesOf(g)
	runs := len(s.Addresses) > 0
	switch e := g.facts.edge; {
	case e.flaw != nil:
		accepted = Condition{conditionAccepted, false, e.flaw.reason, e.flaw.String()}
		waits.Reason, waits.Message = reasonInvalid, "it is not accepted"
	case closed == len(g.listeners):
		accepted = Condition{conditionAccepted, false, reasonListeners, "none of its listeners is valid; see status.listeners"}
		waits.Reason, waits.Message = reasonInvalid, accepted.Message
	case closed > 0:
		accepted.Reason, accepted.Message = reasonListeners, fmt.Sprintf("in force, but %d of %d listeners are not; see status.listeners", closed, len(g.listeners))
	}
	if waits.Message == "" {
		waits.Reason, waits.Message = m.whyNotRunning(g)
	}
	if waits.Message == "" && runs {
		s.Conditions = []Condition{accepted, {conditionProgrammed, true, conditionProgrammed, "node " + g.facts.edge.node + " runs it"}}
	} else {
		s.Conditions = []Condition{accepted, waits}
	}
	for i := range g.listeners {
		s.Listeners = append(s.Listeners, g.listeners[i].status(s.Conditions[1]))
	}
	return s
}

// addressesOf are the addresses of a Gateway that is where it shall be.
func (m *memory) addressesOf(g *gate) []string {
	e := g.facts.edge
	r := m.results[e.network]
	if r == nil || e.node == "" || e.workload == nil {
		return nil
	}
	w := Key{g.facts.key.Project, workloadOf(g.facts.key.Name)}
	var out []string
	note := func(a snapshot.Addr) {
		if text := a.IP.String(); a.IP.IsValid() && !slices.Contains(out, text) && len(out) < maxAddresses {
			out = append(out, text)
		}
	}
	if t := m.touching[e.network]; t != nil {
		for _, f := range t.home {
			if slices.ContainsFunc(f.targets, func(t target) bool {
				return t.Project == w.Project && t.Workload == w.Name && t.Node == e.node
			}) {
				note(f.addr)
			}
		}
	}
	for _, i := range r.of(w) {
		if r.endpoints[i].Node == e.node {
			note(r.endpoints[i].Addr)
		}
	}
	return out
}

// maxAddresses is how many addresses a status may have.
const maxAddresses = 16

// whyNotRunning says why a Gateway that is valid is not reached; "": it is, as far
// as compile knows.
func (m *memory) whyNotRunning(g *gate) (reason, why string) {
	e := g.facts.edge
	if e.node == "" {
		return reasonNoNode, noNodeFor(e)
	}
	r := m.results[e.network]
	w := workloadName(Key{g.facts.key.Project, workloadOf(g.facts.key.Name)})
	if r != nil {
		for _, p := range r.problems {
			if p.Object == w && !p.Warning {
				return reasonNoAddress, flaw{field: gatewayFieldOf(p.Field), text: p.Reason, fix: p.Fix}.String()
			}
		}
	}
	if len(m.addressesOf(g)) == 0 {
		return reasonPending, "waiting for node " + e.node + " to run it in Network " + e.network.String()
	}
	return "", ""
}

// noNodeFor says that no node can run a Gateway.
func noNodeFor(e *edge) string {
	if only := e.gateway.Annotations[v1alpha1.NodesAnnotation]; only != "" {
		return "none of the nodes " + only + " can run it"
	}
	return "no node can run it"
}

// status says how a listener is, of a Gateway that is as the condition says.
func (l *gateListener) status(gate Condition) ListenerStatus {
	s := ListenerStatus{Name: string(l.spec.Name), Kinds: l.kinds, Attached: l.attached}
	conditions := []Condition{
		{conditionAccepted, true, conditionAccepted, "valid by itself"},
		{conditionConflicted, false, reasonNoConflicts, "no other listener is in its way"},
		{conditionResolved, true, conditionResolved, "all references are valid"},
	}
	for i := range conditions {
		c := &conditions[i]
		good := c.True
		var told []string
		for _, f := range l.flaws {
			if f.condition != c.Type {
				continue
			}
			if c.True == good {
				c.True, c.Reason = !good, f.reason
			}
			told = append(told, f.String())
		}
		if len(told) > 0 {
			c.Message = joined(told)
		}
	}
	programmed := Condition{conditionProgrammed, gate.True, gate.Reason, gate.Message}
	if l.closed {
		programmed = Condition{conditionProgrammed, false, reasonInvalid, "it takes no connections: " + l.flaws[0].String()}
	}
	s.Conditions = append(conditions, programmed)
	return s
}

// gateProblems says what is wrong with Gateways.
func (m *memory) gateProblems(add func(object string, f flaw)) {
	for _, g := range m.traffic.gates {
		e := g.facts.edge
		switch {
		case e == nil:
			continue
		case e.flaw != nil:
			add(g.name(), *e.flaw)
		case e.node == "":
			add(g.name(), flaw{conditionProgrammed, reasonNoNode, annotations, noNodeFor(e), "let one join, or name others in " + v1alpha1.NodesAnnotation})
		}
		for i := range g.listeners {
			for _, f := range g.listeners[i].flaws {
				if f.field == "" {
					f.field = fmt.Sprintf("spec.listeners[%d]", i)
				}
				add(g.name(), f)
			}
		}
	}
}
