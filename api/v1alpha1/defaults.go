package v1alpha1

import "k8s.io/apimachinery/pkg/runtime"

// DefaultWeight is the weight of a FloatingIP's target that names none.
const DefaultWeight = 1

// DefaultPriority is the priority of a Policy that names none.
const DefaultPriority = 100

// DefaultAccount is the account of a Workload that names none.
const DefaultAccount = "default"

// Default fills in what the API server would fill in, but for the priority of
// a Policy and the weight of a FloatingIP's target: 0 is one too, so only who
// sees the text can tell that it is missing. Objects that are not ours stay as
// they are.
func Default(o runtime.Object) {
	switch o := o.(type) {
	case *Domain:
		DefaultDomain(o)
	case *Network:
		DefaultNetwork(o)
	case *Workload:
		DefaultWorkload(o)
	case *Policy:
		DefaultPolicy(o)
	case *Node:
		DefaultNode(o)
	case *Link:
		DefaultLink(o)
	case *Service:
		DefaultService(o)
	case *FloatingIP:
		defaultServicePorts(o.Spec.Ports)
	case *BackendPolicy:
		DefaultBackendPolicy(o)
	case *FaultPolicy:
		for i := range o.Spec.Headers {
			fill(&o.Spec.Headers[i].Type, "Exact")
		}
	}
}

// DefaultDomain fills in spec.mtls, spec.svidLifeSeconds and what is below
// authorizers.
func DefaultDomain(d *Domain) {
	fill(&d.Spec.SVIDLifeSeconds, DefaultSVIDLife)
	fill(&d.Spec.MTLS, MTLSOff)
	for i := range d.Spec.Authorizers {
		a := &d.Spec.Authorizers[i]
		fill(&a.TimeoutMilliseconds, 200)
		fill(&a.OnFailure, OnFailureDeny)
		fill(&a.Status, 403)
	}
}

// DefaultZone is the zone of names in a Network that says no other.
const DefaultZone = "moire.internal"

// DefaultNetwork fills in spec.default and what is below dns, outside and
// consents.
func DefaultNetwork(n *Network) {
	fill(&n.Spec.Default, DefaultOpen)
	if n.Spec.DNS == nil {
		n.Spec.DNS = &DNS{}
	}
	DefaultDNS(n.Spec.DNS)
	if o := n.Spec.Outside; o != nil {
		fill(&o.Mode, OutsideNode)
		defaultPorts(o.Hosts)
	}
	for i := range n.Spec.Consents {
		c := &n.Spec.Consents[i]
		c.For = c.Purposes()
	}
}

// DefaultDNS fills in zone, ttlSeconds and order.
func DefaultDNS(d *DNS) {
	fill(&d.Zone, DefaultZone)
	fill(&d.TTLSeconds, 5)
	fill(&d.Order, "random")
}

// fill gives a field that is empty its default.
func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func defaultPorts(ports []Port) {
	for i := range ports {
		fill(&ports[i].Protocol, "TCP")
	}
}

func defaultServicePorts(ports []ServicePort) {
	for i := range ports {
		fill(&ports[i].Protocol, "TCP")
	}
}

// DefaultHealth fills in a check that is there.
func DefaultHealth(h *HealthCheck) {
	if h == nil {
		return
	}
	fill(&h.Type, "tcp")
	fill(&h.Path, "/")
	fill(&h.IntervalSeconds, 2)
	fill(&h.TimeoutSeconds, 1)
	fill(&h.Failures, 2)
	fill(&h.Successes, 1)
}

// DefaultNode fills in a Firewall that is there.
func DefaultNode(n *Node) {
	f := n.Spec.Firewall
	if f == nil {
		return
	}
	fill(&f.Mode, FirewallOff)
	for i := range f.Allow {
		defaultPorts(f.Allow[i].Ports)
	}
}

// DefaultLink fills in onFailure, modes and checks.
func DefaultLink(l *Link) {
	fill(&l.Spec.OnFailure, OnFailureClosed)
	for i := range l.Spec.Via {
		fill(&l.Spec.Via[i].Mode, FunctionRouted)
		DefaultHealth(l.Spec.Via[i].Health)
	}
}

// DefaultService fills in locality, protocols, weights and the check.
func DefaultService(s *Service) {
	fill(&s.Spec.Locality, LocalityAny)
	defaultServicePorts(s.Spec.Ports)
	for i := range s.Spec.Endpoints {
		fill(&s.Spec.Endpoints[i].Weight, 1)
	}
	DefaultHealth(s.Spec.Health)
}

// DefaultBackendPolicy fills in the balancer and the locality that are there.
func DefaultBackendPolicy(p *BackendPolicy) {
	if b := p.Spec.Balancer; b != nil {
		fill(&b.Kind, BalancerLeastRequest)
	}
	if l := p.Spec.Locality; l != nil {
		fill(&l.OverprovisionPercent, 140)
	}
}

// DefaultWorkload fills in spec.account.
func DefaultWorkload(w *Workload) {
	fill(&w.Spec.Account, DefaultAccount)
}

// DefaultPolicy fills in tier, mode and the protocols of ports.
func DefaultPolicy(p *Policy) {
	fill(&p.Spec.Tier, TierProject)
	fill(&p.Spec.Mode, ModeEnforce)
	for _, rules := range [][]Rule{p.Spec.Ingress, p.Spec.Egress} {
		for i := range rules {
			defaultPorts(rules[i].Ports)
		}
	}
}
