package analyze

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"moire.dev/moire/api/v1alpha1"
	verdict "moire.dev/moire/snapshot/policy"
)

// lookAtPolicies finds Policies without subjects and rules without a match.
func (m *model) lookAtPolicies() {
	for _, p := range m.policies {
		if s := p.Spec.Subject; s != nil {
			if why := contradiction(s.Labels); why != "" {
				m.tell(Finding{Code: CodeContradiction, Severity: Error, Object: p.object(), Field: "spec.subject.labels",
					Reason: "no Workload can ever be selected: " + why, Fix: "correct the selector"})
				continue
			}
		}
		subjects := m.subjects(p)
		if len(subjects) == 0 {
			if p.subject != nil {
				m.tell(Finding{Code: CodeIdle, Severity: Warning, Object: p.object(), Field: subjectField(p),
					Reason: "the Policy selects no declared Workload", Fix: "correct the selector, unless the Workloads are attached without being declared"})
			}
			continue
		}
		for _, rules := range p.rules {
			for _, r := range rules {
				m.lookAtRule(r, subjects)
				m.lookAtRequests(r, subjects)
			}
		}
	}
}

func subjectField(p *policy) string {
	switch s := p.Spec.Subject; {
	case s == nil:
		return ""
	case s.Labels != nil:
		return "spec.subject.labels"
	case len(s.Networks) > 0:
		return "spec.subject.networks"
	}
	return "spec.subject"
}

// subjects are the declared interfaces that the Policy selects.
func (m *model) subjects(p *policy) []*iface {
	var out []*iface
	for _, i := range m.ifaces {
		if p.selects(i) {
			out = append(out, i)
		}
	}
	return out
}

// miss is why a peer can never match.
type miss struct {
	code        string
	severity    Severity
	field       string
	reason, fix string
}

func (m *model) lookAtRule(r *rule, subjects []*iface) {
	if len(r.ports) == 0 {
		m.tell(Finding{Code: CodeNoPort, Severity: Error, Object: r.of.object(), Field: r.field + ".ports",
			Reason: "the rule can never match: its range of ports is empty", Fix: "write endPort not smaller than port"})
		return
	}
	dead := 0
	var misses []miss
	for _, q := range r.peers {
		if x := m.misses(r, q, subjects); x != nil {
			dead++
			misses = append(misses, *x)
		}
	}
	if x := m.unequal(r, subjects); x != nil {
		dead = len(r.peers)
		misses = append(misses, *x)
	}
	for _, x := range misses {
		so := "; the other peers of the rule can match"
		if dead == len(r.peers) {
			so = ", so the rule never matches"
		}
		m.tell(Finding{Code: x.code, Severity: x.severity, Object: r.of.object(), Field: x.field, Reason: x.reason + so, Fix: x.fix, Related: []string{r.id}})
	}
}

// misses says why a peer can never match; nil: it can.
func (m *model) misses(r *rule, q *peer, subjects []*iface) *miss {
	switch {
	case q.Labels != nil && contradiction(q.Labels) != "":
		return &miss{CodeContradiction, Error, q.field + ".labels", "no Workload can ever be the peer: " + contradiction(q.Labels), "correct the selector"}
	case q.selector == nil:
		return nil // api says that it is not valid
	case q.Name != "":
		return m.missesName(q, subjects)
	case q.Service != "":
		return m.missesService(r, q, subjects)
	case q.cidr.IsValid() && q.Labels == nil && q.Network == "" && q.Project == "":
		return m.missesCIDR(r, q, subjects)
	}
	var there []*iface
	for _, x := range m.ifaces {
		without := *q
		without.cidr = netip.Prefix{}
		for _, s := range subjects {
			if m.matches(&rule{of: r.of}, &without, s, x) == no {
				continue
			}
			if m.reaches(s.network, x.network) {
				if !q.cidr.IsValid() || q.holds(s, x) != no {
					return nil
				}
			}
			there = append(there, x)
			break
		}
	}
	if len(there) == 0 {
		if q.Labels == nil {
			return nil // compile says that there is no such project or Network
		}
		return &miss{CodeNobody, Warning, q.field, "no declared Workload is such a peer (" + m.wanted(q) + ")", "correct it, unless the Workloads are attached without being declared"}
	}
	if q.cidr.IsValid() && slices.ContainsFunc(there, func(x *iface) bool { return m.reaches(subjects[0].network, x.network) }) {
		return &miss{CodeNobody, Warning, q.field + ".cidr", "no declared Workload with these labels has an address in " + q.cidr.String(), "correct the cidr or the labels"}
	}
	return &miss{CodeUnreachable, Warning, q.field, fmt.Sprintf("no Link joins %s with %s, where the peer is", networksOf(subjects), networksOf(there)), "make a Link, or remove the peer"}
}

// wanted describes a peer.
func (m *model) wanted(q *peer) string {
	var parts []string
	if q.Labels != nil {
		parts = append(parts, "labels "+described(q.Labels))
	}
	if q.Network != "" {
		parts = append(parts, "Network "+q.Network)
	}
	if q.project != "" {
		parts = append(parts, "project "+q.project)
	}
	return strings.Join(parts, ", ")
}

// networksOf lists where interfaces are.
func networksOf(is []*iface) string {
	seen := map[key]bool{}
	for _, i := range is {
		seen[i.network] = true
	}
	var out []string
	for _, k := range sortedKeys(seen) {
		out = append(out, k.String())
	}
	word := "Network "
	if len(out) > 1 {
		word = "Networks "
	}
	return word + strings.Join(out, ", ")
}

func (m *model) outside(subjects []*iface) bool {
	return slices.ContainsFunc(subjects, func(s *iface) bool {
		n := m.networks[s.network]
		return n != nil && n.Spec.Outside != nil
	})
}

func (m *model) missesName(q *peer, subjects []*iface) *miss {
	if m.outside(subjects) {
		return nil
	}
	return &miss{CodeNameInside, Warning, q.field + ".name", fmt.Sprintf("%s is outside, and no way out leads from %s", q.Name, networksOf(subjects)), "write spec.outside of the Network, or remove the peer"}
}

func (m *model) missesService(r *rule, q *peer, subjects []*iface) *miss {
	s := m.services[key{cmp.Or(q.project, r.of.Namespace), q.Service}]
	if s == nil {
		return nil // compile says so
	}
	var targets []string
	for _, p := range s.Spec.Ports {
		protocol, port := cmp.Or(p.Protocol, "TCP"), cmp.Or(p.TargetPort, p.Port)
		if contains(r.ports, protocol, port) {
			return m.missesServiceNetwork(s, q, subjects)
		}
		targets = append(targets, fmt.Sprintf("%s %d", protocol, port))
	}
	return &miss{CodeNoPort, Warning, q.field + ".service", fmt.Sprintf("the ports of the rule are none of the target ports of Service %s (%s)", q.Service, strings.Join(targets, ", ")),
		"write the target ports, not those of the Service address, or leave the ports out"}
}

func (m *model) missesServiceNetwork(s *v1alpha1.Service, q *peer, subjects []*iface) *miss {
	for _, n := range s.Spec.Networks {
		for _, x := range subjects {
			if x.network == (key{s.Namespace, n.Network}) || m.joined[x.network][key{s.Namespace, n.Network}] {
				return nil
			}
		}
	}
	return &miss{CodeUnreachable, Warning, q.field + ".service", fmt.Sprintf("Service %s has no address in %s", q.Service, networksOf(subjects)), "add the Network to the Service, or remove the peer"}
}

// missesCIDR: a peer that is a CIDR alone.
func (m *model) missesCIDR(r *rule, q *peer, subjects []*iface) *miss {
	for _, e := range q.except {
		if within(q.cidr, e) {
			return &miss{CodeNothingLeft, Error, q.field + ".except", fmt.Sprintf("the exception %s takes away all of %s", e, q.cidr), "shrink the exception"}
		}
	}
	if r.dir == verdict.Egress && m.outside(subjects) || r.dir == verdict.Ingress && m.published(subjects) {
		return nil
	}
	for _, s := range subjects {
		if len(m.joined[s.network]) > 0 && m.seesIn(s.network, q.cidr) || slices.ContainsFunc(s.prefixes, q.cidr.Overlaps) || m.floatsIn(s, q.cidr) {
			return nil
		}
	}
	return &miss{CodeUnreachable, Warning, q.field + ".cidr", fmt.Sprintf("%s is in no prefix that is known in %s", q.cidr, networksOf(subjects)), "correct it, make a Link, or write spec.outside of the Network"}
}

// published: a FloatingIP brings others to one of them.
func (m *model) published(subjects []*iface) bool {
	return slices.ContainsFunc(subjects, func(s *iface) bool { return len(m.pools(s)) > 0 })
}

// pools are those of the FloatingIPs of an interface.
func (m *model) pools(s *iface) []key {
	var out []key
	for _, k := range sortedKeys(m.floatingIPs) {
		f := m.floatingIPs[k]
		for _, t := range f.Spec.Targets {
			if k.project == s.project && t.Workload == s.workload && (t.Network == "" || networkKey(k.project, t.Network) == s.network) {
				out = append(out, key{cmp.Or(f.Spec.Pool.Project, k.project), f.Spec.Pool.Network})
			}
		}
	}
	return out
}

// floatsIn: callers of its FloatingIPs have addresses in the CIDR.
func (m *model) floatsIn(s *iface, c netip.Prefix) bool {
	return slices.ContainsFunc(m.pools(s), func(k key) bool { return slices.ContainsFunc(m.prefixes(k), c.Overlaps) })
}

// seesIn: the Network sees something linked at an address of the CIDR.
func (m *model) seesIn(network key, c netip.Prefix) bool {
	return slices.ContainsFunc(m.views(network), func(v view) bool { return v.prefix.Overlaps(c) })
}

// unequal: matchEqual names a label that nobody on one side has.
func (m *model) unequal(r *rule, subjects []*iface) *miss {
	for i, k := range r.equal {
		field := fmt.Sprintf("%s.matchEqual[%d]", r.field, i)
		has := func(x *iface) bool { return x.labels.Has(k) }
		if !slices.ContainsFunc(subjects, has) {
			return &miss{CodeNoEqual, Warning, field, fmt.Sprintf("no Workload that the Policy selects has the label %s", k), "correct the key or label the Workloads"}
		}
		if !slices.ContainsFunc(m.ifaces, func(x *iface) bool {
			return has(x) && slices.ContainsFunc(subjects, func(s *iface) bool { return m.reaches(s.network, x.network) && m.matchesPeer(r, s, x) != no })
		}) {
			return &miss{CodeNoEqual, Warning, field, fmt.Sprintf("no peer has the same value of the label %s as a Workload that the Policy selects", k), "correct the key or label the Workloads"}
		}
	}
	return nil
}

// contradiction says why nothing can satisfy the selector; "" when something
// can.
func contradiction(s *metav1.LabelSelector) string {
	if s == nil {
		return ""
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	type want struct {
		may         map[string]bool // nil: any value
		not         map[string]bool
		has, hasNot bool
	}
	wants := map[string]*want{}
	reqs, _ := sel.Requirements()
	for _, q := range reqs {
		w := wants[q.Key()]
		if w == nil {
			w = &want{not: map[string]bool{}}
			wants[q.Key()] = w
		}
		switch q.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			w.has = true
			may := map[string]bool{}
			for v := range q.Values() {
				may[v] = w.may == nil || w.may[v]
			}
			maps.DeleteFunc(may, func(_ string, ok bool) bool { return !ok })
			w.may = may
		case selection.NotIn, selection.NotEquals:
			for v := range q.Values() {
				w.not[v] = true
			}
		case selection.Exists:
			w.has = true
		case selection.DoesNotExist:
			w.hasNot = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(wants)) {
		w := wants[k]
		if w.has && w.hasNot {
			return "the label " + k + " must be there and must not"
		}
		if w.may == nil {
			continue
		}
		left := maps.Clone(w.may)
		maps.DeleteFunc(left, func(v string, _ bool) bool { return w.not[v] })
		if len(left) == 0 {
			return "no value of the label " + k + " satisfies all of it"
		}
	}
	return ""
}

// imagine makes the labels of a Workload that the selector just selects.
func imagine(s *metav1.LabelSelector) labels.Set {
	out := labels.Set{}
	if s == nil {
		return out
	}
	for k, v := range s.MatchLabels {
		out[k] = v
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			if len(e.Values) > 0 && out[e.Key] == "" {
				out[e.Key] = e.Values[0]
			}
		case metav1.LabelSelectorOpExists:
			if out[e.Key] == "" {
				out[e.Key] = "imagined"
			}
		}
	}
	return out
}
