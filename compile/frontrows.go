package compile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// seenService is a Service that has addresses in a Network.
type seenService struct {
	*v1alpha1.Service
	addresses []netip.Addr
}

// see notes an address of a Service in the Network.
func (d *jointDraft) see(s *v1alpha1.Service, a netip.Addr) {
	k := Key{s.Namespace, s.Name}
	if d.seen == nil {
		d.seen = map[Key]*seenService{}
	}
	if d.seen[k] == nil {
		d.seen[k] = &seenService{Service: s}
	}
	d.seen[k].addresses = append(d.seen[k].addresses, a)
}

// unseenRef is a destination of the routes of a Service or Gateway that has no
// address in a Network from where that Service is called, or in which that Gateway
// stands.
type unseenRef struct {
	of targetKey
	to string // in the refs of its front or gate
}

// frontsOf are the fronts of some Services, sorted by key.
func (t *traffic) frontsOf(services []*v1alpha1.Service) []*front {
	var out []*front
	if len(t.fronts) == 0 {
		return nil
	}
	for _, s := range services {
		if f := t.fronts[Key{s.Namespace, s.Name}]; f != nil {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *front) int { return compareKeys(a.facts.key, b.facts.key) })
	return slices.Compact(out)
}

// rejoinSeers marks the Networks that see a Service.
func (m *memory) rejoinSeers(k Key) {
	s := m.services[k]
	if s == nil {
		return // where it was is marked already
	}
	for _, n := range s.Spec.Networks {
		network := Key{k.Project, n.Network}
		m.rejoin[network] = true
		if t := m.touching[network]; t != nil {
			for _, l := range t.links {
				m.rejoinAll(l.facts.lane.path)
			}
		}
	}
}

// frontRows makes the Frontends, Routes and Clusters of the Services that the
// Network sees.
func (d *jointDraft) frontRows() {
	r := d.rowMaker()
	for _, f := range d.facts.fronts {
		if s := d.seen[f.facts.key]; s != nil {
			for i := range f.ports {
				r.port(f, &f.ports[i], s)
			}
		}
	}
	slices.SortFunc(d.frontends, func(a, b snapshot.Frontend) int { return a.FrontendKey.Compare(b.FrontendKey) })
	d.frontends = slices.CompactFunc(d.frontends, func(a, b snapshot.Frontend) bool { return a.FrontendKey == b.FrontendKey })
	for _, name := range sortedNames(r.routes) {
		d.joint.routes = append(d.joint.routes, r.routes[name])
	}
	for _, name := range sortedNames(r.needed) {
		c := r.cluster(name, r.needed[name])
		if c.Locality == nil {
			d.joint.clusters = append(d.joint.clusters, c)
			continue
		}
		for node, h := range d.hosts {
			h.clusters = append(h.clusters, r.near(c, node))
		}
	}
	for _, g := range d.facts.gates {
		d.gateRows(g, r.needed)
	}
	slices.SortFunc(d.unseen, func(a, b unseenRef) int {
		return cmp.Or(cmp.Compare(a.of.kind, b.of.kind), compareKeys(a.of.key, b.of.key), cmp.Compare(a.to, b.to))
	})
}

// rowMaker makes the rows.
type rowMaker struct {
	*jointDraft
	routes map[string]l7.Route
	needed map[string]clusterRef
	by     map[Key]*front
}

func (d *jointDraft) rowMaker() *rowMaker {
	r := &rowMaker{jointDraft: d, routes: map[string]l7.Route{}, needed: map[string]clusterRef{}, by: map[Key]*front{}}
	for _, f := range d.facts.fronts {
		r.by[f.facts.key] = f
	}
	return r
}

func (r *rowMaker) port(f *front, p *frontPort, s *seenService) {
	base, self := r.facts.base, targetKey{KindService, f.facts.key}
	for i := range p.views {
		v := &p.views[i]
		if v.project != "" && base.facts.projectOf(v.project) == nil {
			continue // nobody of it is here
		}
		row := snapshot.Frontend{Service: f.facts.key.String(), Protocol: v.protocol, Cluster: r.destination(self, f.refs, v.whole), Why: v.why}
		for j := range v.routes {
			row.Routes = append(row.Routes, r.route(self, f.refs, v.routes[j]))
		}
		slices.Sort(row.Routes)
		for _, a := range s.addresses {
			row.FrontendKey = snapshot.FrontendKey{ServiceKey: snapshot.ServiceKey{Addr: snapshot.Addr{VNI: base.row.VNI, IP: a}, Protocol: policy.TCP, Port: uint16(p.port)}, Project: v.project}
			r.frontends = append(r.frontends, row)
		}
	}
}

// route makes the row of a route, once, and returns its name.
func (r *rowMaker) route(of targetKey, refs map[string]clusterRef, route l7.Route) string {
	route.Name = r.name(route.Name)
	if _, made := r.routes[route.Name]; made {
		return route.Name
	}
	rules := make([]l7.Rule, len(route.Rules))
	for n := range rules {
		rules[n] = withClusters(route.Rules[n], func(to string) string { return r.destination(of, refs, to) })
	}
	route.Rules = rules
	r.routes[route.Name] = route
	return route.Name
}

// maxRouteName is the longest name that a route may have.
const maxRouteName = 253

// name is the name of a route or cluster in the Network.
func (r *rowMaker) name(of string) string {
	name := strconv.FormatUint(uint64(r.facts.base.row.VNI), 10) + "/" + of
	if len(name) <= maxRouteName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxRouteName-13] + "~" + hex.EncodeToString(sum[:6])
}

// destination is the cluster of a destination of a front or gate; nowhere when it
// has no address here.
func (r *rowMaker) destination(of targetKey, refs map[string]clusterRef, to string) string {
	if to == "" || to == nowhere {
		return to
	}
	ref := refs[to]
	s := r.seen[ref.service]
	if s == nil || tcpPort(s.Service, ref.port) == nil {
		if u := (unseenRef{of, to}); !slices.Contains(r.unseen, u) {
			r.unseen = append(r.unseen, u)
		}
		return nowhere
	}
	name := r.name(to)
	r.needed[name] = ref
	return name
}

// cluster makes the row of a destination.
func (r *rowMaker) cluster(name string, ref clusterRef) snapshot.Cluster {
	s := r.seen[ref.service]
	p := tcpPort(s.Service, ref.port)
	c := snapshot.Cluster{Cluster: l7.Cluster{Name: name, Protocol: ref.protocol}}
	if f := r.by[ref.service]; f != nil {
		own := f.facts.policies.ofPort(p)
		own.settle(&c.Cluster)
		if c.Protocol == l7.TCP && speaksTLS(p) {
			c.TLS = nil // the callers speak it themselves
		}
	}
	if s.Spec.AffinitySeconds > 0 && c.Balancer.Kind == "" {
		c.Balancer.Kind = l7.Maglev // by the caller's address
	}
	key := func(a netip.Addr) snapshot.ServiceKey {
		return snapshot.ServiceKey{Addr: snapshot.Addr{VNI: r.facts.base.row.VNI, IP: a}, Protocol: policy.TCP, Port: uint16(ref.port)}
	}
	for _, a := range s.addresses {
		switch {
		case !c.Service.Addr.IP.IsValid():
			c.Service = key(a)
		case a.Is4() != c.Service.Addr.IP.Is4() && !c.Second.Addr.IP.IsValid():
			c.Second = key(a)
		}
	}
	if c.Second.Addr.IP.IsValid() && c.Second.Compare(c.Service) < 0 {
		c.Service, c.Second = c.Second, c.Service
	}
	return c
}

// near is a cluster as a node has it that keeps to its zone.
func (r *rowMaker) near(c snapshot.Cluster, node string) snapshot.Cluster {
	if l := c.Locality; l != nil {
		c.Locality = nil
		if zone := r.zoneOf(node); zone != "" {
			c.Locality = &l7.Locality{Zone: zone, Overprovision: l.Overprovision}
		}
	}
	return c
}

// zoneOf is the zone of a node that hosts the Network; "" when it has none.
func (r *rowMaker) zoneOf(node string) string { return r.facts.base.facts.host(node).zone }
