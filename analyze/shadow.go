package analyze

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	verdict "moire.dev/moire/snapshot/policy"
)

// Bounds of the search for rules that others hide, which is quadratic: rules of
// one tier and direction, and comparisons in all.
const (
	maxRules       = 1000
	maxComparisons = 20_000_000
)

// lookAtShadows finds rules that others, asked before them, leave nothing or
// not all to decide.
func (m *model) lookAtShadows() {
	groups := map[string][]*rule{}
	var names []string
	for _, p := range m.policies {
		scope := "" // admin and baseline are one order for all
		if p.tier == verdict.Project {
			scope = p.Namespace
		}
		for d, rules := range p.rules {
			name := fmt.Sprintf("%s %s %s", p.tier, scope, verdict.Direction(d))
			if groups[name] == nil {
				names = append(names, name)
			}
			groups[name] = append(groups[name], rules...)
		}
	}
	for _, name := range names {
		rules := groups[name]
		if len(rules) == 0 {
			continue
		}
		if len(rules) > maxRules {
			m.tell(Finding{Code: CodeTooMany, Severity: Note, Object: rules[0].of.object(),
				Reason: fmt.Sprintf("there are %d rules of one tier and direction; those that others hide are not looked for among more than %d", len(rules), maxRules)})
			continue
		}
		m.shadows(inOrder(rules))
		if m.compared > maxComparisons {
			m.tell(Finding{Code: CodeTooMany, Severity: Note, Object: rules[0].of.object(),
				Reason: "there are too many rules, Workloads and labels to look for all rules that others hide"})
			return
		}
	}
}

// inOrder sorts the rules of one tier as they are asked: in the tier of the
// project deny comes before allow, and packets before requests.
func inOrder(rules []*rule) []*rule {
	if rules[0].of.tier == verdict.Project {
		rules = slices.Clone(rules)
		rank := func(r *rule) int { return 2*boolInt(r.action != v1alpha1.ActionDeny) + boolInt(r.requests != nil) }
		slices.SortStableFunc(rules, func(a, b *rule) int { return rank(a) - rank(b) })
	}
	return rules
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// atom is a part of the peers of a rule that others cover as a whole or not.
type atom struct {
	peer     *iface       // a Workload, declared or imagined
	cidr     netip.Prefix // addresses, whoever has them
	name     string       // a DNS name
	everyone bool
}

func (m *model) shadows(rules []*rule) {
	for i, r := range rules {
		if i == 0 || len(r.ports) == 0 {
			continue
		}
		before := rivals(r, rules[:i])
		if len(before) == 0 {
			continue
		}
		subjects := m.withImagined(r.of)
		var by []string
		whole, part := true, map[string]bool{}
		n := 0
		for _, s := range subjects {
			for _, a := range m.atoms(r, s) {
				n++
				left := r.ports
				for _, b := range before {
					if m.compared++; len(left) == 0 || m.compared > maxComparisons {
						break
					}
					if !b.of.selects(s) || !m.covers(b, a, s) {
						continue
					}
					rest := subtract(left, b.ports)
					if slices.Equal(rest, left) {
						continue
					}
					left = rest
					if !slices.Contains(by, b.id) {
						by = append(by, b.id)
					}
					if b.action != r.action {
						part[b.id] = true
					}
				}
				whole = whole && len(left) == 0
			}
		}
		switch {
		case n == 0:
		case whole:
			m.tell(Finding{Code: CodeShadowed, Severity: Warning, Object: r.of.object(), Field: r.field, Related: by,
				Reason: fmt.Sprintf("the rule never decides: %s %s before it and %s all that it matches", strings.Join(by, " and "), verb(by, "comes", "come"), verb(by, "matches", "match")), Fix: "remove it, narrow the other or change the order"})
		case len(part) > 0:
			some := slices.DeleteFunc(slices.Clone(by), func(id string) bool { return !part[id] })
			m.tell(Finding{Code: CodePartly, Severity: Note, Object: r.of.object(), Field: r.field, Related: some,
				Reason: fmt.Sprintf("a part of what the rule matches is decided otherwise by %s, which %s before it", strings.Join(some, " and "), verb(some, "comes", "come"))})
		}
	}
}

func verb(of []string, one, many string) string {
	if len(of) == 1 {
		return one
	}
	return many
}

// rivals are the rules before r that can take something from it. The same
// outcome in another Policy is left alone: that is how people write.
func rivals(r *rule, before []*rule) []*rule {
	var out []*rule
	for _, b := range before {
		if b.of.audit || len(b.ports) == 0 || b.requests != nil && !bytes.Equal(b.requests, r.requests) {
			continue
		}
		// Whoever writes paths must know that all of them are decided elsewhere.
		allRequests := r.requests != nil && b.requests == nil
		if b.action == r.action && b.of != r.of && !allRequests {
			continue
		}
		out = append(out, b)
	}
	return out
}

// withImagined are the subjects of a Policy and, for Workloads to come, one
// that it would just select.
func (m *model) withImagined(p *policy) []*iface {
	out := m.unlike(m.subjects(p))
	if p.subject == nil || p.Spec.Subject != nil && contradiction(p.Spec.Subject.Labels) != "" {
		return out
	}
	x := &iface{project: p.Namespace, domain: p.domain, imagined: true}
	name := ""
	if s := p.Spec.Subject; s != nil {
		x.labels = imagine(s.Labels)
		if len(s.Projects) > 0 {
			x.project = s.Projects[0]
		}
		if len(s.Networks) > 0 {
			name = s.Networks[0]
		}
	}
	x.network = networkKey(x.project, name)
	if p.selects(x) {
		out = append(out, x)
	}
	return out
}

// unlike keeps one interface of each kind that rules can tell apart.
func (m *model) unlike(of []*iface) []*iface {
	seen := map[string]bool{}
	var out []*iface
	for _, i := range of {
		id := i.network.String() + " " + i.project + " " + i.labels.String() + fmt.Sprint(i.addrs)
		if !seen[id] {
			seen[id] = true
			out = append(out, i)
		}
	}
	return out
}

// atoms are the parts of the peers of a rule, for one subject.
func (m *model) atoms(r *rule, s *iface) []atom {
	if r.anybody() {
		return []atom{{everyone: true}}
	}
	var out []atom
	for _, x := range m.kinds {
		if x != s && m.reaches(s.network, x.network) && m.matchesPeer(r, s, x) != no {
			out = append(out, atom{peer: x})
		}
	}
	for _, q := range r.peers {
		switch {
		case q.Name != "":
			out = append(out, atom{name: strings.ToLower(strings.TrimSuffix(q.Name, "."))})
		case q.cidr.IsValid() && q.Labels == nil && q.Network == "" && q.Project == "":
			out = append(out, atom{cidr: q.cidr})
		case q.selector != nil && q.Service == "" && contradiction(q.Labels) == "":
			x := &iface{project: q.project, domain: r.of.domain, labels: imagine(q.Labels), imagined: true, network: s.network}
			if x.project == "" {
				x.project = s.project
			}
			if q.Network != "" {
				x.network = networkKey(x.project, q.Network)
			}
			for _, k := range r.equal {
				if v, ok := s.labels[k]; ok {
					x.labels[k] = v
				}
			}
			if m.matchesPeer(r, s, x) != no {
				out = append(out, atom{peer: x})
			}
		}
	}
	return out
}

// covers: the rule certainly matches the whole atom.
func (m *model) covers(b *rule, a atom, s *iface) bool {
	if b.anybody() {
		return true
	}
	switch {
	case a.everyone:
		return false
	case a.peer != nil:
		return m.matchesPeer(b, s, a.peer) == yes
	case len(b.equal) > 0:
		return false // Workloads only
	}
	return slices.ContainsFunc(b.peers, func(q *peer) bool {
		if a.name != "" {
			return q.Name != "" && (strings.EqualFold(strings.TrimSuffix(q.Name, "."), a.name) || verdict.MatchName(q.Name, a.name))
		}
		return q.cidr.IsValid() && q.Labels == nil && q.Network == "" && q.Project == "" && within(a.cidr, q.cidr) && !slices.ContainsFunc(q.except, a.cidr.Overlaps)
	})
}
