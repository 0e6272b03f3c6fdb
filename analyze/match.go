package analyze

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"moire.dev/moire/api/v1alpha1"
	verdict "moire.dev/moire/snapshot/policy"
)

// policy is a Policy, parsed.
type policy struct {
	*v1alpha1.Policy
	domain  string
	tier    verdict.Tier
	audit   bool
	subject labels.Selector // nil: a selector that is not valid
	rules   [2][]*rule
}

// rule is one rule of a Policy.
type rule struct {
	of     *policy
	dir    verdict.Direction
	field  string
	id     string
	action string
	peers  []*peer
	ports  []span
	equal  []string
	// requests, when the rule is about requests: two rules with the same text are
	// about the same.
	requests []byte
}

// peer is one peer of a rule.
type peer struct {
	*v1alpha1.Peer
	field    string
	project  string // "" any of the Domain
	selector labels.Selector
	cidr     netip.Prefix
	except   []netip.Prefix
}

func (p *policy) object() string { return "Policy " + p.Namespace + "/" + p.Name }

// comparePolicies is the order in which Policies are asked.
func comparePolicies(a, b *policy) int {
	others := func(p *policy) int { return boolInt(p.Namespace != v1alpha1.SystemNamespace) }
	c := cmp.Compare(a.tier, b.tier)
	if c == 0 && a.tier != verdict.Project {
		c = cmp.Or(others(a)-others(b), cmp.Compare(a.Spec.Priority, b.Spec.Priority))
	}
	return cmp.Or(c, cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (m *model) parse(p *v1alpha1.Policy) *policy {
	out := &policy{Policy: p, domain: m.domains[p.Namespace], tier: verdict.Project, audit: p.Spec.Mode == v1alpha1.ModeAudit, subject: labels.Everything()}
	switch p.Spec.Tier {
	case v1alpha1.TierAdmin:
		out.tier = verdict.Admin
	case v1alpha1.TierBaseline:
		out.tier = verdict.Baseline
	}
	if s := p.Spec.Subject; s != nil && s.Labels != nil {
		out.subject = selector(s.Labels)
	}
	for d, rules := range [2][]v1alpha1.Rule{p.Spec.Ingress, p.Spec.Egress} {
		names := map[string]bool{}
		for i := range rules {
			out.rules[d] = append(out.rules[d], out.rule(&rules[i], verdict.Direction(d), i, names))
		}
	}
	return out
}

func (p *policy) rule(r *v1alpha1.Rule, d verdict.Direction, i int, names map[string]bool) *rule {
	name := fmt.Sprint(i)
	if r.Name != "" && !names[r.Name] {
		name, names[r.Name] = r.Name, true
	}
	out := &rule{of: p, dir: d, field: fmt.Sprintf("spec.%s[%d]", d, i), action: r.Action, equal: r.MatchEqual, ports: spans(r.Ports),
		id: fmt.Sprintf("policy/%s/%s/%s/%s", p.Namespace, p.Name, d, name)}
	if r.AboutRequests() {
		out.requests, _ = json.Marshal([]any{r.HTTP, r.GRPC, r.JWT, r.External}) // plain values
		out.ports = slices.DeleteFunc(slices.Clone(out.ports), func(s span) bool { return s.protocol != "TCP" })
	}
	list, peers := "from", r.From
	if d == verdict.Egress {
		list, peers = "to", r.To
	}
	for j := range peers {
		x := &peers[j]
		q := &peer{Peer: x, field: fmt.Sprintf("%s.%s[%d]", out.field, list, j), project: x.Project, selector: labels.Everything()}
		if q.project == "" && p.tier == verdict.Project {
			q.project = p.Namespace
		}
		if q.project == "*" {
			q.project = ""
		}
		if x.Labels != nil {
			q.selector = selector(x.Labels)
		}
		if c, err := netip.ParsePrefix(x.CIDR); err == nil {
			q.cidr, q.except = c.Masked(), parsePrefixes(x.Except)
		}
		out.peers = append(out.peers, q)
	}
	return out
}

// selector is nil when it is not valid: api and compile say so.
func selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	return out
}

// selects: the Policy protects the interface.
func (p *policy) selects(i *iface) bool {
	switch {
	case p.subject == nil || !p.subject.Matches(i.labels):
		return false
	case p.tier == verdict.Project && i.project != p.Namespace:
		return false
	case p.tier != verdict.Project && p.Namespace != v1alpha1.SystemNamespace && i.domain != p.domain:
		return false
	}
	in := func(n string) bool {
		return networkKey(i.project, n) == i.network || p.tier != verdict.Project && n == i.network.name
	}
	s := p.Spec.Subject
	return s == nil || (len(s.Networks) == 0 || slices.ContainsFunc(s.Networks, in)) && (len(s.Projects) == 0 || slices.Contains(s.Projects, i.project))
}

// certainty of a match.
type certainty int

const (
	no certainty = iota
	maybe
	yes
)

// matches: the peer may be, or certainly is, the interface as subject sees it.
func (m *model) matches(r *rule, q *peer, subject, x *iface) certainty {
	if q.Name != "" || q.selector == nil || !q.selector.Matches(x.labels) || q.project != "" && q.project != x.project {
		return no
	}
	// A tier that is not the project's reaches the Policy's own Domain, and what
	// is linked with it by name.
	if q.project == "" && r.of.Namespace != v1alpha1.SystemNamespace && x.domain != r.of.domain {
		return no
	}
	if q.Network != "" && networkKey(x.project, q.Network) != x.network || q.Service != "" && !m.behind(key{cmp.Or(q.project, subject.project), q.Service}, x) {
		return no
	}
	for _, k := range r.equal {
		a, hasA := subject.labels[k]
		b, hasB := x.labels[k]
		if !hasA || !hasB || a != b {
			return no
		}
	}
	if !q.cidr.IsValid() {
		return yes
	}
	return q.holds(subject, x)
}

// holds: the address of the interface is in the CIDR of the peer.
func (q *peer) holds(subject, x *iface) certainty {
	if subject.network != x.network {
		return maybe // as translated
	}
	if len(x.addrs) > 0 {
		if slices.ContainsFunc(x.addrs, q.inside) {
			return yes
		}
		return no
	}
	out := no
	for _, p := range x.prefixes {
		if within(p, q.cidr) && len(q.except) == 0 {
			return yes
		}
		if p.Overlaps(q.cidr) {
			out = maybe
		}
	}
	return out
}

func (q *peer) inside(a netip.Addr) bool {
	return q.cidr.Contains(a) && !slices.ContainsFunc(q.except, func(e netip.Prefix) bool { return e.Contains(a) })
}

func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// behind: the interface serves a Service, in one of its Networks or in one
// that is linked with it.
func (m *model) behind(k key, x *iface) bool {
	s := m.services[k]
	if s == nil || s.Spec.Selector == nil || x.project != k.project {
		return false
	}
	sel := selector(s.Spec.Selector)
	return sel != nil && sel.Matches(x.labels) && slices.ContainsFunc(s.Spec.Networks, func(n v1alpha1.ServiceNetwork) bool {
		return m.reaches(key{k.project, n.Network}, x.network)
	})
}

// anybody: the rule has no peers and no matchEqual.
func (r *rule) anybody() bool { return len(r.peers) == 0 && len(r.equal) == 0 }

// matchesPeer says how certainly one of the peers of the rule is x.
func (m *model) matchesPeer(r *rule, subject, x *iface) certainty {
	if r.anybody() {
		return yes
	}
	if len(r.peers) == 0 { // matchEqual alone
		return m.matches(r, &peer{Peer: &v1alpha1.Peer{}, selector: labels.Everything()}, subject, x)
	}
	out := no
	for _, q := range r.peers {
		out = max(out, m.matches(r, q, subject, x))
	}
	return out
}

// described says what a selector wants, for people.
func described(s *metav1.LabelSelector) string {
	sel := selector(s)
	if sel == nil {
		return "?"
	}
	return strings.TrimSpace(sel.String())
}
