package analyze

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	verdict "moire.dev/moire/snapshot/policy"
)

// allows: what the Policies of one end say about a packet to or from a peer.
// Where that depends on an address which is not declared, or on requests, they
// allow.
func (m *model) allows(d verdict.Direction, own, x *iface, protocol string, port int32) bool {
	isolated := false
	for _, tier := range verdict.Tiers[:verdict.Default] {
		var rules []*rule
		for _, p := range m.policies {
			if p.tier != tier || p.audit || !p.selects(own) {
				continue
			}
			if tier == verdict.Project && (d == verdict.Ingress && p.Spec.Ingress != nil || d == verdict.Egress && p.Spec.Egress != nil) {
				isolated = true
			}
			rules = append(rules, p.rules[d]...)
		}
		if len(rules) > 0 {
			rules = inOrder(rules)
		}
		decided := false
		for _, r := range rules {
			sure := m.matchesPeer(r, own, x)
			if r.requests != nil && sure == yes {
				sure = maybe // for some requests
			}
			if !contains(r.ports, protocol, port) || sure == no || sure == maybe && r.action == v1alpha1.ActionDeny {
				continue
			}
			switch r.action {
			case v1alpha1.ActionPass:
			case v1alpha1.ActionDeny:
				return false
			default:
				return true
			}
			decided = true
			break
		}
		if tier == verdict.Project && isolated && !decided {
			return false
		}
	}
	n := m.networks[own.network]
	return n != nil && n.Spec.Default != v1alpha1.DefaultDeny
}

// lookAtServices finds Services with nothing behind them, or that nobody may
// reach.
func (m *model) lookAtServices() {
	for _, k := range sortedKeys(m.services) {
		s := m.services[k]
		if s.Spec.Selector == nil {
			continue
		}
		object := "Service " + k.String()
		if why := contradiction(s.Spec.Selector); why != "" {
			m.tell(Finding{Code: CodeContradiction, Severity: Error, Object: object, Field: "spec.selector", Reason: "no Workload can ever serve it: " + why, Fix: "correct the selector"})
			continue
		}
		var backends []*iface
		for _, i := range m.ifaces {
			if m.behind(k, i) {
				backends = append(backends, i)
			}
		}
		if len(backends) == 0 {
			m.tell(Finding{Code: CodeNoBackend, Severity: Warning, Object: object, Field: "spec.selector", Reason: "no declared Workload serves it",
				Fix: "correct the selector, unless the Workloads are attached without being declared"})
			continue
		}
		m.lookAtClients(k, s, backends)
	}
	for _, k := range sortedKeys(m.floatingIPs) {
		f := m.floatingIPs[k]
		if !slices.ContainsFunc(f.Spec.Targets, func(t v1alpha1.FloatingTarget) bool { return t.Weight > 0 }) {
			m.tell(Finding{Code: CodeNoBackend, Severity: Warning, Object: "FloatingIP " + k.String(), Field: "spec.targets", Reason: "the address answers nobody: no target has a weight", Fix: "add a target"})
		}
	}
}

// lookAtClients: somebody in the Networks of the Service must be let through
// by both ends to a backend, at every port.
func (m *model) lookAtClients(k key, s *v1alpha1.Service, backends []*iface) {
	var clients []*iface
	for _, i := range m.ifaces {
		if slices.ContainsFunc(s.Spec.Networks, func(n v1alpha1.ServiceNetwork) bool { return i.network == key{k.project, n.Network} }) && !slices.Contains(backends, i) {
			clients = append(clients, i)
		}
	}
	if len(clients) == 0 {
		return // nobody but the backends is declared
	}
	clients, backends = m.unlike(clients), m.unlike(backends)
	for i, p := range s.Spec.Ports {
		protocol, port := cmp.Or(p.Protocol, "TCP"), cmp.Or(p.TargetPort, p.Port)
		open := slices.ContainsFunc(clients, func(c *iface) bool {
			return slices.ContainsFunc(backends, func(b *iface) bool {
				return m.reaches(c.network, b.network) && m.allows(verdict.Egress, c, b, protocol, port) && m.allows(verdict.Ingress, b, c, protocol, port)
			})
		})
		if !open {
			m.tell(Finding{Code: CodeClosedService, Severity: Warning, Object: "Service " + k.String(), Field: fmt.Sprintf("spec.ports[%d]", i),
				Reason: fmt.Sprintf("the Policies let nobody of its Networks through to %s %d of a backend", protocol, port), Fix: "allow it at both ends; `moire explain` says which rule denies"})
		}
	}
}

// lookAtLinks finds Links that overlap, and those over which nothing may pass.
func (m *model) lookAtLinks() {
	first := map[[2]key]key{}
	for _, k := range sortedKeys(m.links) {
		a, b, ok := m.ends(k, m.links[k])
		if !ok {
			continue
		}
		pair := [2]key{a, b}
		if compareKeys(a, b) > 0 {
			pair = [2]key{b, a}
		}
		if other, twice := first[pair]; twice {
			m.tell(Finding{Code: CodeOverlap, Severity: Warning, Object: "Link " + k.String(), Field: "spec.ends", Related: []string{"Link " + other.String()},
				Reason: fmt.Sprintf("Link %s joins the same two Networks", other), Fix: "remove one of them"})
			continue
		}
		first[pair] = k
		if m.joined[a][b] {
			m.silent(k, a, b)
		}
	}
	for _, k := range sortedKeys(m.networks) {
		m.overlaps(k)
	}
}

// silent: of all pairs, none may send to the other.
func (m *model) silent(k, a, b key) {
	in := func(n key) []*iface {
		var out []*iface
		for _, i := range m.ifaces {
			if i.network == n {
				out = append(out, i)
			}
		}
		return m.unlike(out)
	}
	as, bs := in(a), in(b)
	if len(as) == 0 || len(bs) == 0 {
		return
	}
	probes := m.probes()
	passes := func(x, y *iface) bool {
		return slices.ContainsFunc(probes, func(p span) bool {
			return m.allows(verdict.Egress, x, y, p.protocol, p.first) && m.allows(verdict.Ingress, y, x, p.protocol, p.first)
		})
	}
	for _, x := range as {
		for _, y := range bs {
			if passes(x, y) || passes(y, x) {
				return
			}
		}
	}
	m.tell(Finding{Code: CodeSilentLink, Severity: Warning, Object: "Link " + k.String(), Field: "spec.ends",
		Reason: fmt.Sprintf("nothing may pass over it: no Policy lets a Workload of %s and one of %s talk, in either direction", a, b), Fix: "allow it at both ends: a Link makes a route and permits nothing"})
}

// probes are one port of each range that any rule tells apart.
func (m *model) probes() []span {
	seen := map[span]bool{}
	out := slices.Clone(allSpans)
	for i := range out {
		out[i].last = out[i].first
		seen[out[i]] = true
	}
	for _, p := range m.policies {
		for _, rules := range p.rules {
			for _, r := range rules {
				for _, s := range r.ports {
					s.last = s.first
					if !seen[s] {
						seen[s] = true
						out = append(out, s)
					}
				}
			}
		}
	}
	return out
}

// view is a prefix that a Network sees of itself or over a Link.
type view struct {
	prefix netip.Prefix
	link   key // the zero key: its own
	of     key // Network
}

// views are all prefixes that a Network sees, in order of the Links.
func (m *model) views(network key) []view {
	var out []view
	for _, p := range m.prefixes(network) {
		out = append(out, view{prefix: p, of: network})
	}
	for _, k := range sortedKeys(m.links) {
		l := m.links[k]
		a, b, ok := m.ends(k, l)
		if !ok {
			continue
		}
		if a == network {
			out = append(out, m.translated(k, b, l.Spec.Ends[1].Translate)...)
		}
		if b == network {
			out = append(out, m.translated(k, a, l.Spec.Ends[0].Translate)...)
		}
	}
	return out
}

// translated are the prefixes of a Network as the other end of a Link sees
// them.
func (m *model) translated(link, network key, by []v1alpha1.Translation) []view {
	var out []view
	for _, t := range by {
		out = append(out, view{prefix: firstPrefix(t.As), link: link, of: network})
	}
	for _, p := range m.prefixes(network) {
		if !slices.ContainsFunc(by, func(t v1alpha1.Translation) bool { return within(p, firstPrefix(t.Prefix)) }) {
			out = append(out, view{prefix: p, link: link, of: network})
		}
	}
	return slices.DeleteFunc(out, func(v view) bool { return !v.prefix.IsValid() })
}

func firstPrefix(text string) netip.Prefix {
	if p := parsePrefixes([]string{text}); len(p) == 1 {
		return p[0]
	}
	return netip.Prefix{}
}

// overlaps: what a Network sees over a Link must not overlap anything else
// that it sees.
func (m *model) overlaps(network key) {
	views := m.views(network)
	for i, v := range views {
		if v.link == (key{}) {
			continue
		}
		for _, o := range views[:i] {
			if o.link == v.link || !o.prefix.Overlaps(v.prefix) || o.of == v.of && o.link != (key{}) {
				continue
			}
			what := fmt.Sprintf("%s of Network %s, which it is linked with by Link %s", o.prefix, o.of, o.link)
			related := []string{"Network " + o.of.String(), "Network " + v.of.String()}
			if o.link == (key{}) {
				what = fmt.Sprintf("its own %s", o.prefix)
			} else {
				related = append(related, "Link "+o.link.String())
			}
			m.tell(Finding{Code: CodeOverlap, Severity: Error, Object: "Link " + v.link.String(), Field: "spec.ends", Related: related,
				Reason: fmt.Sprintf("Network %s would see %s of Network %s, which overlaps %s", network, v.prefix, v.of, what), Fix: "join them through translated prefixes (translate), or change a prefix"})
		}
	}
}

// lookAtConsents finds what nobody makes use of.
func (m *model) lookAtConsents() {
	for _, k := range sortedKeys(m.networks) {
		for i := range m.networks[k].Spec.Consents {
			c := &m.networks[k].Spec.Consents[i]
			var unused []string
			for _, purpose := range c.Purposes() {
				if !m.used(k, c, purpose) {
					unused = append(unused, purpose)
				}
			}
			if len(unused) == 0 {
				continue
			}
			f := Finding{Code: CodeUnused, Severity: Warning, Object: "Network " + k.String(), Field: fmt.Sprintf("spec.consents[%d]", i),
				Reason: fmt.Sprintf("project %s makes no use of the consent for %s", c.Project, strings.Join(unused, ", ")), Fix: "remove it until it is needed"}
			if c.Project == "*" {
				f.Reason = "no project makes use of the consent for " + strings.Join(unused, ", ")
			}
			if _, here := m.domains[c.Project]; !here {
				// What that project wrote may be somewhere else.
				f.Severity, f.Reason = Note, f.Reason+", as far as these files tell"
			}
			m.tell(f)
		}
	}
}

// used: some project that the Consent is meant for refers to the Network.
func (m *model) used(network key, c *v1alpha1.Consent, purpose string) bool {
	uses := func(project string) bool { return project != network.project && m.meant(c, network, project) }
	switch purpose {
	case v1alpha1.ConsentLink:
		for k, l := range m.links {
			if a, b, _ := m.ends(k, l); uses(k.project) && (a == network || b == network) {
				return true
			}
		}
	case v1alpha1.ConsentFloatingIP:
		for k, f := range m.floatingIPs {
			if uses(k.project) && (key{cmp.Or(f.Spec.Pool.Project, k.project), f.Spec.Pool.Network}) == network {
				return true
			}
		}
	case v1alpha1.ConsentAttach:
		return slices.ContainsFunc(m.ifaces, func(i *iface) bool { return uses(i.project) && i.network == network })
	}
	return false
}
