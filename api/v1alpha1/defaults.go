package v1alpha1

import "k8s.io/apimachinery/pkg/runtime"

// DefaultPriority is the priority of a Policy that names none.
const DefaultPriority = 100

// DefaultAccount is the account of a Workload that names none.
const DefaultAccount = "default"

// Default fills in what the API server would fill in, but for the priority of
// a Policy: 0 is a priority, so only who sees the text can tell that it is
// missing. Objects that are not ours stay as they are.
func Default(o runtime.Object) {
	switch o := o.(type) {
	case *Network:
		DefaultNetwork(o)
	case *Workload:
		DefaultWorkload(o)
	case *Policy:
		DefaultPolicy(o)
	}
}

// DefaultNetwork fills in spec.default.
func DefaultNetwork(n *Network) {
	if n.Spec.Default == "" {
		n.Spec.Default = DefaultOpen
	}
}

// DefaultWorkload fills in spec.account.
func DefaultWorkload(w *Workload) {
	if w.Spec.Account == "" {
		w.Spec.Account = DefaultAccount
	}
}

// DefaultPolicy fills in tier, mode and the protocols of ports.
func DefaultPolicy(p *Policy) {
	if p.Spec.Tier == "" {
		p.Spec.Tier = TierProject
	}
	if p.Spec.Mode == "" {
		p.Spec.Mode = ModeEnforce
	}
	for _, rules := range [][]Rule{p.Spec.Ingress, p.Spec.Egress} {
		for i := range rules {
			for j := range rules[i].Ports {
				if rules[i].Ports[j].Protocol == "" {
					rules[i].Ports[j].Protocol = "TCP"
				}
			}
		}
	}
}
