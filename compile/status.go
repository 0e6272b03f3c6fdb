package compile

import (
	"fmt"
	"slices"

	"moire.dev/moire/api/v1alpha1"
)

// Statuses is what can be shown of objects beside their Problems.
type Statuses struct {
	Links       map[Key]Status
	Services    map[Key]ServiceStatus
	FloatingIPs map[Key]FloatingStatus
	// Routes are how routes are at their parents that are Services or Gateways of
	// ours, in the order of spec.parentRefs.
	Routes map[RouteKey][]ParentStatus
	// BackendPolicies and FaultPolicies: their condition Accepted.
	BackendPolicies, FaultPolicies map[Key]Condition
	// Gateways of our classes, and the condition Accepted of these, by name.
	Gateways map[Key]GatewayStatus
	Classes  map[string]Condition
}

// Status says in a few words how an object is. Problems say more, and come
// first.
type Status struct {
	Ready   bool
	Message string
}

// ServiceStatus of a Service.
type ServiceStatus struct {
	Status
	// Addresses that its status shall list: those in force and those that
	// Needs asks for, in the order of spec.networks, IPv4 first. What else is
	// in its status is out of date.
	Addresses []v1alpha1.ServiceAddress
	// Backends as "healthy/all".
	Backends string
}

// FloatingStatus of a FloatingIP.
type FloatingStatus struct {
	Status
	// Address that its status shall have; "": none yet.
	Address string
	// Node that answers for it on the underlay, when the pool is external.
	Node string
}

// StatusesOf says how every Link, Service and FloatingIP is.
func StatusesOf(in *Input) Statuses { return NewCompiler().StatusesOf(in) }

// StatusesOf is the function StatusesOf with a memory.
func (c *Compiler) StatusesOf(in *Input) Statuses {
	c.results(in)
	m := c.memory
	out := Statuses{Links: make(map[Key]Status, len(in.Links)), Services: make(map[Key]ServiceStatus, len(in.Services)), FloatingIPs: make(map[Key]FloatingStatus, len(in.FloatingIPs))}
	for k, l := range m.linked {
		s := Status{Ready: l.ready, Message: l.message}
		if len(l.facts.lane.problems) > 0 {
			s.Message = l.facts.lane.problems[0].Reason
		}
		out.Links[k] = s
	}
	for k, o := range in.Services {
		out.Services[k] = m.serviceStatus(k, o)
	}
	m.trafficStatuses(&out)
	for k, f := range m.floatings {
		s := FloatingStatus{Status: Status{Ready: f.ready && len(f.targets) > 0, Message: f.message}, Node: f.holder}
		if f.addr.IP.IsValid() {
			s.Address = f.addr.IP.String()
		}
		if f.ready && len(f.targets) == 0 {
			s.Message = "no target is attached"
		}
		if r := m.results[poolOf(f.facts.float)]; r != nil && s.Address == "" {
			for _, a := range r.addressesFor(KindFloatingIP, k) {
				s.Address = a
			}
		}
		out.FloatingIPs[k] = s
	}
	return out
}

// addressesFor lists the addresses that an object has or needs.
func (r *result) addressesFor(kind string, k Key) []string {
	var v4, v6 []string
	note := func(is6 bool, text string) {
		if is6 {
			v6 = append(v6, text)
		} else {
			v4 = append(v4, text)
		}
	}
	for _, a := range r.vipsOf[vipOwner{kind, k}] {
		note(a.Is6(), a.String())
	}
	for _, n := range r.addresses {
		if n.Kind == kind && n.Key == k {
			note(n.Address.Is6(), n.Address.String())
		}
	}
	return append(v4, v6...)
}

func (m *memory) serviceStatus(k Key, o *v1alpha1.Service) ServiceStatus {
	var s ServiceStatus
	backends := map[string]bool{}
	waits := ""
	for _, n := range o.Spec.Networks {
		network := Key{k.Project, n.Network}
		r, j := m.results[network], m.joints[network]
		if r == nil || j == nil {
			continue
		}
		if !r.live || slices.ContainsFunc(r.addresses, func(a AddressNeed) bool { return a.Kind == KindService && a.Key == k }) {
			waits = network.String()
		}
		for _, a := range r.addressesFor(KindService, k) {
			s.Addresses = append(s.Addresses, v1alpha1.ServiceAddress{Network: n.Network, Address: a})
		}
		for name, well := range j.states[k] {
			backends[name] = backends[name] || well
		}
	}
	well := 0
	for _, is := range backends {
		if is {
			well++
		}
	}
	s.Backends = fmt.Sprintf("%d/%d", well, len(backends))
	switch {
	case waits != "":
		s.Message = "waiting for an address in Network " + waits
	case len(s.Addresses) == 0:
		s.Message = "it has no address"
	case well == 0:
		s.Message = fmt.Sprintf("none of %d backends gets new sessions", len(backends))
	default:
		s.Ready, s.Message = true, s.Backends+" backends"
	}
	return s
}
