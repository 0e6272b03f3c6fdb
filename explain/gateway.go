package explain

import (
	"fmt"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// NoListener: a Gateway takes no connections at that port.
const NoListener policy.RuleID = "closed/no-listener"

// gatewayAt is the Gateway that an endpoint is, by the node that runs it; nil: it
// is none.
func (p *path) gatewayAt(e snapshot.Endpoint) *snapshot.Gateway {
	s := p.snaps[e.Node]
	if s == nil {
		return nil
	}
	for _, g := range s.Gateways {
		if g.Attachment.Project == e.Project && g.Attachment.Workload == e.Workload {
			return &g
		}
	}
	return nil
}

// gate says what a Gateway does with what was let in: it is nobody's application,
// but one that calls on by itself. False: it has no listener there.
func (p *path) gate(a *arrival) bool {
	g := p.gatewayAt(a.own)
	if g == nil || p.protocol != policy.TCP {
		return true
	}
	name := p.secretOf(a.own, "Gateway "+g.Project+"/"+g.Name)
	var at []string
	for i := range g.Listeners {
		if l := &g.Listeners[i]; l.Port() == a.port {
			at = append(at, heard(l))
		}
	}
	slices.Sort(at)
	if len(at) == 0 {
		why := fmt.Sprintf("%s has no listener at port %d", name, a.port)
		p.step(Step{Name: StepMesh, Result: ResultDeny, Node: p.hide(a.own), Rule: NoListener, Text: why})
		p.deny(NoListener, why)
		return false
	}
	p.needs(AtDestination, a.own, name)
	if p.sees(a.own.Project) {
		p.step(Step{Name: StepMesh, Result: ResultOK, Node: p.hide(a.own), Text: fmt.Sprintf(
			"%s takes it: %s. Where a route sends it, the Gateway calls itself: ask about that with --from %s/%s", name, strings.Join(at, "; "), a.own.Project, a.own.Workload)})
	}
	return true
}

// secretOf is a text about an end for who may see it.
func (p *path) secretOf(e snapshot.Endpoint, text string) string {
	if !p.sees(e.Project) {
		return "a Gateway that is not yours to see"
	}
	return text
}

// heard is a listener as people call it, with its routes.
func heard(l *snapshot.GatewayListener) string {
	name := l.Name[strings.LastIndexByte(l.Name, '/')+1:]
	text := fmt.Sprintf("listener %s (%s", name, speaks(l.Protocol))
	if l.TLS != nil {
		text += ", its TLS ends here"
	}
	if l.Hostname != "" {
		text += ", for " + l.Hostname
	}
	if len(l.Routes) == 0 {
		return text + ") has no routes"
	}
	var routes []string
	for _, r := range l.Routes {
		routes = append(routes, routeText(r))
	}
	slices.Sort(routes)
	return text + ") with " + strings.Join(slices.Compact(routes), ", ")
}
