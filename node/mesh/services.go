package mesh

import (
	"cmp"
	"net/netip"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// services are the addresses that callers reach by their proxy, with all that
// hangs on them.
type services struct {
	listeners []l7.Listener
	routes    []l7.Route
	clusters  []l7.Cluster

	w *world
	// at which Listeners, by name, Routes and the defaults of Frontends are.
	at       map[string][]string
	defaults map[string]l7.Route
	plain    map[string]snapshot.Cluster // of Services that nothing is attached to
	used     map[string]bool             // clusters
}

// project of a view in a Network.
type project struct {
	vni  snapshot.VNI
	name string
}

func (w *world) services() *services {
	s := &services{w: w, at: map[string][]string{}, defaults: map[string]l7.Route{}, plain: map[string]snapshot.Cluster{}, used: map[string]bool{}}
	views := map[project]bool{} // -> some of it is in the mesh
	for _, k := range w.known {
		p := project{k.VNI, k.Key.Project}
		views[p] = views[p] || k.endpoint.Mode != snapshot.Off
	}
	ordered := make([]project, 0, len(views))
	for p := range views {
		ordered = append(ordered, p)
	}
	slices.SortFunc(ordered, func(a, b project) int { return cmp.Or(cmp.Compare(a.vni, b.vni), cmp.Compare(a.name, b.name)) })
	for key, f := range w.s.Frontends {
		for _, p := range ordered {
			if w.serves(key, p) {
				s.front(p, key.ServiceKey, f)
			}
		}
	}
	asking := w.asking()
	for key, service := range w.s.Services {
		if service.Protocol != policy.TCP || service.Port == 0 || service.Floating {
			continue
		}
		meshed := w.s.Meshed(&service)
		for _, p := range ordered {
			if p.vni != key.Addr.VNI {
				continue
			}
			if _, fronted := w.s.FrontendOf(key, p.name); fronted {
				continue
			}
			if asks := w.asks(asking[p], &service); asks || meshed && views[p] {
				s.front(p, key, s.plainly(&service, asks))
			}
		}
	}
	s.gateways()
	slices.SortFunc(s.listeners, func(a, b l7.Listener) int { return cmp.Compare(a.Name, b.Name) })
	s.attach()
	s.gather()
	return s
}

// serves says whether the Frontend is the one that a project sees.
func (w *world) serves(key snapshot.FrontendKey, p project) bool {
	if key.Addr.VNI != p.vni || key.ServiceKey.Protocol != policy.TCP || key.Project != "" && key.Project != p.name {
		return false
	}
	if key.Project != "" {
		return true
	}
	_, own := w.s.Frontends[snapshot.FrontendKey{ServiceKey: key.ServiceKey, Project: p.name}]
	return !own
}

// asking lists the egress Sets of each view that have rules about requests.
func (w *world) asking() map[project][]policy.Set {
	out := map[project][]policy.Set{}
	for _, k := range w.known {
		set := w.s.Policies[snapshot.PolicyKey{VNI: k.VNI, Identity: k.endpoint.Identity, Direction: policy.Egress}]
		if slices.ContainsFunc(set.Rules, func(r policy.Rule) bool { return len(r.Requests) > 0 }) {
			p := project{k.VNI, k.Key.Project}
			out[p] = append(out[p], set)
		}
	}
	return out
}

// asks says whether one of the Sets has to see requests to some backend.
func (w *world) asks(sets []policy.Set, service *snapshot.Service) bool {
	for i := range sets {
		for _, b := range service.Backends {
			p := policy.Packet{Peer: w.s.Endpoints[b.Addr].Identity, PeerAddr: b.Addr.IP, Protocol: policy.TCP, Port: cmp.Or(b.Port, service.Port)}
			if sets[i].Decide(p).Proxy {
				return true
			}
		}
	}
	return false
}

// plainly is the Frontend of a Service that nothing is attached to. Where rules
// ask about requests, and nobody said what is spoken, it is taken to be HTTP.
func (s *services) plainly(service *snapshot.Service, asks bool) snapshot.Frontend {
	name, protocol := snapshot.ClusterName(service), cmp.Or(service.App, l7.TCP)
	if asks && service.App == "" {
		protocol = l7.AutoHTTP
	}
	if _, known := s.w.s.Clusters[name]; !known {
		c := s.plain[name]
		c.Name = name
		if c.Protocol == "" || c.Protocol == l7.TCP { // for who asks about requests it is HTTP
			if c.Protocol = protocol; protocol == l7.AutoHTTP {
				c.Protocol = l7.HTTP1
			}
		}
		if service.Affinity > 0 {
			c.Balancer.Kind = l7.Maglev // by the caller's address
		}
		first := service.ServiceKey
		if other := c.Service; other.Addr.IP.IsValid() && other != first {
			// The families of one port; which comes first must not depend on the order here.
			c.Second = first
			if first.Compare(other) < 0 {
				c.Service, c.Second = first, other
			}
		} else {
			c.Service = first
		}
		s.plain[name] = c
	}
	return snapshot.Frontend{Protocol: protocol, Cluster: name}
}

// front makes a Listener of a Frontend for one view.
func (s *services) front(p project, key snapshot.ServiceKey, f snapshot.Frontend) {
	address, view := netip.AddrPortFrom(key.Addr.IP, key.Port).String(), View(p.vni, p.name)
	l := l7.Listener{Name: view + "/" + address, Address: address, View: view, Protocol: f.Protocol, Trusted: true,
		// What the two ends say to each other is theirs: the proxy ends nothing that
		// would go on without it.
		Limits: l7.Limits{Stall: -1, MinRate: -1}}
	s.listeners = append(s.listeners, l)
	for _, name := range f.Routes {
		if _, known := s.w.s.Routes[name]; known {
			s.at[name] = append(s.at[name], l.Name)
		}
	}
	if r, ok := f.DefaultRoute(); ok {
		s.defaults[r.Name] = r
		s.at[r.Name] = append(s.at[r.Name], l.Name)
	}
}

// attach makes the Routes that are at some Listener, and notes their clusters.
func (s *services) attach() {
	for _, name := range sortedKeys(s.at) {
		r, known := s.defaults[name]
		if !known {
			r = s.w.s.Routes[name]
		}
		r.Name, r.Listeners = name, s.at[name]
		slices.Sort(r.Listeners)
		s.routes = append(s.routes, r)
		for i := range r.Rules {
			s.uses(r.Rules[i].Filters)
			for _, b := range r.Rules[i].Backends {
				s.used[b.Cluster] = true
				s.uses(b.Filters)
			}
		}
	}
}

func (s *services) uses(filters []l7.Filter) {
	for _, f := range filters {
		if f.Mirror != nil {
			s.used[f.Mirror.Cluster] = true
		}
	}
}

// gather makes the clusters that are used. One that the snapshot does not have
// is left out: who is sent there gets an error.
func (s *services) gather() {
	for name, c := range s.w.s.Clusters {
		if c.Asked && s.w.hosted[c.Service.Addr.VNI] {
			s.used[name] = true
		}
	}
	for _, name := range sortedKeys(s.used) {
		c, known := s.w.s.Clusters[name]
		if !known {
			if c, known = s.plain[name]; !known {
				continue
			}
		}
		c.Name, c.Endpoints = name, s.w.endpoints(&c)
		s.clusters = append(s.clusters, c.Cluster)
	}
}

// endpoints of a cluster.
func (w *world) endpoints(c *snapshot.Cluster) []l7.Endpoint {
	out := []l7.Endpoint{}
	for _, b := range w.s.BackendsOf(c) {
		e, known := w.s.Endpoints[b.Addr]
		x := l7.Endpoint{Address: netip.AddrPortFrom(b.Addr.IP, b.Port).String(), Labels: w.labelsOf(e.Identity), Zone: w.s.Nodes[b.Node].Zone}
		if b.Weight != 1 {
			x.Weight = &b.Weight
		}
		if known && e.Mode != snapshot.Off {
			x.SPIFFE = w.s.Identities[e.Identity].SPIFFE
		}
		out = append(out, x)
	}
	return out
}
