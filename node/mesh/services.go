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
			if askers := w.askers(asking[p], &service); len(askers) > 0 || meshed && views[p] {
				s.plainly(p, &service, askers)
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

// asker is one egress Set with rules about requests, and whose it is.
type asker struct {
	set   policy.Set
	names []string // project/workload
}

// asking lists the askers of each view.
func (w *world) asking() map[project][]*asker {
	out := map[project][]*asker{}
	known := map[snapshot.PolicyKey]*asker{}
	for _, k := range w.known {
		key := snapshot.PolicyKey{VNI: k.VNI, Identity: k.endpoint.Identity, Direction: policy.Egress}
		set := w.s.Policies[key]
		if !slices.ContainsFunc(set.Rules, func(r policy.Rule) bool { return len(r.Requests) > 0 }) {
			continue
		}
		a := known[key]
		if a == nil { // an identity is of one project
			a = &asker{set: set}
			known[key] = a
			p := project{k.VNI, k.Key.Project}
			out[p] = append(out[p], a)
		}
		a.names = append(a.names, k.Key.Project+"/"+k.Key.Workload)
	}
	return out
}

// askers of a Service: who has to see requests to some backend.
func (w *world) askers(all []*asker, service *snapshot.Service) (names []string) {
	for _, a := range all {
		asks := slices.ContainsFunc(service.Backends, func(b snapshot.Backend) bool {
			p := policy.Packet{Peer: w.s.Endpoints[b.Addr].Identity, PeerAddr: b.Addr.IP, Protocol: policy.TCP, Port: cmp.Or(b.Port, service.Port)}
			return a.set.Decide(p).Proxy
		})
		if asks {
			names = append(names, a.names...)
		}
	}
	slices.Sort(names)
	return names
}

// plainly puts a Service that nothing is attached to into a view. Where nobody said
// what is spoken, it is HTTP for those who have to see requests, bytes for others.
func (s *services) plainly(p project, service *snapshot.Service, askers []string) {
	as := s.spoken(service, snapshot.ClusterName(service), cmp.Or(service.App, l7.TCP))
	if len(askers) == 0 || service.App != "" {
		s.front(p, service.ServiceKey, as)
		return
	}
	http := s.spoken(service, snapshot.ClusterAs(service, l7.HTTP1), l7.HTTP1)
	http.Protocol = l7.AutoHTTP
	l := s.front(p, service.ServiceKey, http)
	l.Asking = askers
	s.lead(l.Name, as)
}

// spoken is the Frontend that leads to the cluster of a Service that nothing is attached
// to, in a protocol.
func (s *services) spoken(service *snapshot.Service, name string, protocol l7.Protocol) snapshot.Frontend {
	if _, known := s.w.s.Clusters[name]; !known {
		c := s.plain[name]
		if c.Name, c.Protocol = name, protocol; protocol == l7.AutoHTTP {
			c.Protocol = l7.HTTP1
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

// front makes a Listener of a Frontend for one view, the last of the list.
func (s *services) front(p project, key snapshot.ServiceKey, f snapshot.Frontend) *l7.Listener {
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
	s.lead(l.Name, f)
	return &s.listeners[len(s.listeners)-1]
}

// lead attaches the default of a Frontend to a Listener.
func (s *services) lead(listener string, f snapshot.Frontend) {
	if r, ok := f.DefaultRoute(); ok {
		s.defaults[r.Name] = r
		s.at[r.Name] = append(s.at[r.Name], listener)
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
