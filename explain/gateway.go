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
// but one that calls on by itself. False: it goes nowhere, and the Answer says why.
func (p *path) gate(a *arrival) bool {
	g := p.gatewayAt(a.own)
	if g == nil || p.protocol != policy.TCP {
		return true
	}
	name := "Gateway " + g.Project + "/" + g.Name
	if !p.sees(a.own.Project) {
		name = "a Gateway that is not yours to see"
	}
	var at []heard
	for i := range g.Listeners {
		if l := &g.Listeners[i]; l.Port() == a.port {
			at = append(at, heard{l.Listener, l.Routes})
		}
	}
	if len(at) == 0 {
		p.shut(a, NoListener, fmt.Sprintf("%s has no listener at port %d", name, a.port))
		return false
	}
	p.needs(AtDestination, a.own, name)
	if !p.sees(a.own.Project) {
		return true
	}
	var all []string
	for i := range at {
		all = append(all, at[i].String())
	}
	slices.Sort(all)
	p.step(Step{Name: StepMesh, Result: ResultOK, Node: p.hide(a.own), Text: fmt.Sprintf(
		"%s takes it: %s. Where a route sends it, the Gateway calls itself: ask about that with --from %s/%s", name, strings.Join(all, "; "), a.own.Project, a.own.Workload)})
	return p.exchange == nil || !at[0].HTTP() || p.gatewayRoutes(a, at)
}

// shut ends the walk at a Gateway.
func (p *path) shut(a *arrival, id policy.RuleID, why string) {
	p.step(Step{Name: StepMesh, Result: ResultDeny, Node: p.hide(a.own), Rule: id, Text: why})
	p.IngressRule, p.Direction, p.Tier = id, policy.Ingress.String(), ""
	p.deny(id, why)
}

// gatewayRoutes says what the routes of a Gateway make of the request, by the code
// of the proxy.
func (p *path) gatewayRoutes(a *arrival, at []heard) bool {
	table, cfg, err := tableOf(p.snaps[a.own.Node], snapshot.Frontend{}, at)
	if err != nil {
		return true // the proxy leaves them out, and says so
	}
	m, x := p.mesh(), p.exchange
	found := table.Match(0, &x.head, &x.scratch, &x.arena)
	switch r := found.Rule; {
	case found.Status == 400:
		m.Status, p.Decides = 400, ByProxy
		p.shut(a, BadRequest, "the Gateway refuses the request with 400: "+found.Why)
		return false
	case r == nil:
		m.Status, p.Decides = 404, ByProxy
		p.shut(a, NoRule, fmt.Sprintf("no rule of its routes takes %s; the Gateway answers 404", x))
		return false
	default:
		m.Route, m.Rule = snapshot.RouteObject(r.Route.Name), r.Name
		text := fmt.Sprintf("%s, rule %s", routeText(r.Route.Name), r.Name)
		if r.Filters.Redirect != nil {
			m.Status = r.Filters.Redirect.Status
			text += fmt.Sprintf(": the Gateway answers with a redirect (%d)", m.Status)
		} else {
			m.Shares = sharesOf(cfg, r)
			text += ": " + shown(m.Shares)
		}
		p.step(Step{Name: StepRequest, Result: ResultOK, Node: p.hide(a.own), Text: text})
		return true
	}
}

// String is a listener as people call it, with its routes.
func (h *heard) String() string {
	text := fmt.Sprintf("listener %s (%s", h.Name[strings.LastIndexByte(h.Name, '/')+1:], speaks(h.Protocol))
	if h.TLS != nil {
		text += ", its TLS ends here"
	}
	if h.Hostname != "" {
		text += ", for " + h.Hostname
	}
	if len(h.routes) == 0 {
		return text + ") has no routes"
	}
	var routes []string
	for _, r := range h.routes {
		routes = append(routes, routeText(r))
	}
	slices.Sort(routes)
	return text + ") with " + strings.Join(slices.Compact(routes), ", ")
}
