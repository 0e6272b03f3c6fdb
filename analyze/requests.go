package analyze

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	verdict "moire.dev/moire/snapshot/policy"
)

// lookAtRequests finds rules about requests for ports where none can be read,
// or to which no Service leads.
func (m *model) lookAtRequests(r *rule, subjects []*iface) {
	if r.requests == nil || r.dir != verdict.Ingress || len(r.ports) == 0 {
		return
	}
	behind, led := 0, false
	for _, k := range sortedKeys(m.services) {
		s := m.services[k]
		sel, err := metav1.LabelSelectorAsSelector(s.Spec.Selector)
		if err != nil || s.Spec.Selector == nil || !slices.ContainsFunc(subjects, func(i *iface) bool { return i.project == k.project && sel.Matches(i.labels) }) {
			continue
		}
		for _, p := range s.Spec.Ports {
			if cmp.Or(p.Protocol, "TCP") != "TCP" {
				continue
			}
			behind++
			target := cmp.Or(p.TargetPort, p.Port)
			if !contains(r.ports, "TCP", target) {
				continue
			}
			led = true
			if slices.Contains([]string{"tcp", "tls", "https"}, p.AppProtocol) {
				m.tell(Finding{Code: CodeUnreadable, Severity: Warning, Object: r.of.object(), Field: r.field, Related: []string{"Service " + k.String()},
					Reason: fmt.Sprintf("the rule is about requests, but port %d of Service %s has appProtocol %s: what cannot be read as HTTP there is denied", p.Port, k, p.AppProtocol),
					Fix:    "give the rule other ports, or correct the appProtocol"})
			}
		}
	}
	if behind > 0 && !led {
		m.tell(Finding{Code: CodeWrongPort, Severity: Note, Object: r.of.object(), Field: r.field + ".ports", Related: []string{r.id},
			Reason: "the rule is about requests, and no Service leads to one of its ports of the Workloads that it protects", Fix: "a rule is asked about the targetPort"})
	}
}
