package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// place is one endpoint that may be behind a Service.
type place struct {
	snapshot.Backend
	name   string // of the Workload, or the address
	zone   string
	leaves bool // drained: no new session
	out    bool // not well, or its node is away
	// at is its own address, by the node that checks it; "": none can.
	at snapshot.Addr
	by string
	// unwell are the TCP ports of the Service at which it fails the check of a
	// BackendPolicy.
	unwell map[int32]bool
}

// places are the endpoints that the Network sees, for its Services.
type places struct {
	byIdentity map[policy.Identity][]snapshot.Endpoint
	byAddress  map[netip.Addr]snapshot.Endpoint
	zones      map[string]string // of nodes
}

// services makes the rows of the Services of the Network and of linked ones.
func (d *jointDraft) services() {
	base := d.facts.base
	visible := len(base.facts.services)
	for _, l := range d.facts.links {
		for _, o := range l.at(base) {
			visible += len(o.facts.services)
		}
	}
	if visible == 0 {
		return
	}
	p := d.places()
	for _, s := range base.facts.services {
		d.service(p, s, base, addressesOf(base, s), nil)
	}
	for _, l := range d.facts.links {
		for end, k := range [2]Key{l.facts.lane.path[0], l.facts.lane.path[len(l.facts.lane.path)-1]} {
			i := slices.IndexFunc(l.at(base), func(r *result) bool { return r.facts.key == k })
			if i < 0 || k == base.facts.key {
				continue
			}
			of, ts := l.at(base)[i], translations(l.facts.lane.end(end).Translate)
			for _, s := range of.facts.services {
				d.service(p, s, of, addressesOf(of, s), ts)
			}
		}
	}
}

// addressesOf are those that the Service has in the Network.
func addressesOf(r *result, s *v1alpha1.Service) []netip.Addr {
	return r.vipsOf[vipOwner{KindService, Key{s.Namespace, s.Name}}]
}

func (d *jointDraft) places() *places {
	base := d.facts.base
	p := &places{byIdentity: map[policy.Identity][]snapshot.Endpoint{}, byAddress: map[netip.Addr]snapshot.Endpoint{}, zones: map[string]string{}}
	note := func(r *result, rows []snapshot.Endpoint) {
		for _, h := range r.facts.hosts {
			p.zones[h.name] = h.zone
		}
		for _, e := range rows {
			p.byIdentity[e.Identity] = append(p.byIdentity[e.Identity], e)
			p.byAddress[e.Addr.IP] = e
		}
	}
	note(base, base.endpoints)
	for _, l := range d.facts.links {
		for _, s := range l.sights {
			if s.network == base {
				note(base, s.rows)
				for _, o := range s.others {
					note(o.result, nil)
				}
			}
		}
	}
	return p
}

// service makes the rows of one Service of the Network of; ts translates what
// it is seen as when that is another Network.
func (d *jointDraft) service(p *places, s *v1alpha1.Service, of *result, vips []netip.Addr, ts []translation) {
	all, broken := d.backends(p, s, of)
	if of != d.facts.base && s.Spec.Selector == nil && len(all) == 0 {
		return // what is outside of the other Network is not reached from here
	}
	d.checkPorts(s, all)
	if of == d.facts.base {
		d.serviceProblems(s, all, broken)
		state := make(map[string]bool, len(all))
		for _, b := range all {
			state[b.name] = state[b.name] || !b.leaves && !b.out && len(b.unwell) == 0
		}
		d.states[Key{s.Namespace, s.Name}] = state
	}
	for _, addr := range vips {
		addr = seenAs(ts, addr)
		d.see(s, addr)
		var mine []place
		for _, b := range all {
			if b.Addr.IP.Is4() == addr.Is4() && !b.out {
				mine = append(mine, b)
			}
		}
		for i := range s.Spec.Ports {
			port := &s.Spec.Ports[i]
			row := snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: snapshot.Addr{VNI: d.facts.base.row.VNI, IP: addr}, Protocol: protocol(port.Protocol), Port: uint16(port.Port)},
				Project: s.Namespace, Name: s.Name, PortName: port.Name, App: appOf(port), Affinity: seconds(s.Spec.AffinitySeconds)}
			d.spread(row, s.Spec.Locality, mine, targetPort(*port), p)
		}
	}
}

// spread puts the backends into a row: the same for all nodes, or for each
// node what is near.
func (d *jointDraft) spread(row snapshot.Service, locality string, all []place, port uint16, p *places) {
	unwell := func(b place) bool { return row.Protocol == policy.TCP && b.unwell[int32(row.Port)] }
	build := func(near func(place) bool) snapshot.Service {
		out := row
		for _, b := range all {
			b.Port = port
			switch {
			case unwell(b):
			case b.leaves:
				out.Leaving = append(out.Leaving, b.Backend)
			case near == nil || near(b):
				out.Backends = append(out.Backends, b.Backend)
			default:
				// It may have sessions from when nobody was nearer.
				out.Leaving = append(out.Leaving, b.Backend)
			}
		}
		return out
	}
	if locality != v1alpha1.LocalityNode && locality != v1alpha1.LocalityZone {
		d.rows = append(d.rows, build(nil))
		return
	}
	some := func(near func(place) bool) bool {
		return slices.ContainsFunc(all, func(b place) bool { return !b.leaves && !unwell(b) && near(b) })
	}
	for node := range d.hosts {
		sameNode := func(b place) bool { return b.Node == node }
		sameZone := func(b place) bool { return b.zone != "" && b.zone == p.zones[node] }
		var near func(place) bool
		switch {
		case locality == v1alpha1.LocalityNode && some(sameNode):
			near = sameNode
		case some(sameZone):
			near = sameZone
		}
		d.hosts[node].services = append(d.hosts[node].services, build(near))
	}
}

// backends lists everything that may be behind a Service, sorted. The error says
// what is wrong with its selector.
func (d *jointDraft) backends(p *places, s *v1alpha1.Service, of *result) ([]place, error) {
	var out []place
	add := func(e snapshot.Endpoint, weight uint32, zone string) {
		home := e.Real()
		if of != d.facts.base && home.VNI != of.row.VNI {
			return // the Service is linked here, but what is behind it is not
		}
		b := place{Backend: snapshot.Backend{Addr: e.Addr, Weight: weight, Node: e.Node}, name: e.Workload, zone: cmp.Or(zone, p.zones[e.Node])}
		b.leaves = slices.Contains(s.Spec.Drain, e.Workload) || slices.Contains(s.Spec.Drain, home.IP.String()) || slices.Contains(s.Spec.Drain, e.Project+"/"+e.Workload)
		b.out = slices.Contains(d.facts.away, e.Node)
		b.at, b.by = home, e.Node
		d.health(s, &b)
		out = append(out, b)
	}
	outside := func(a netip.Addr, weight uint32, zone string) {
		if of != d.facts.base {
			return
		}
		b := place{Backend: snapshot.Backend{Addr: snapshot.Addr{VNI: d.facts.base.row.VNI, IP: a}, Weight: weight}, name: a.String(), zone: zone}
		b.leaves = slices.Contains(s.Spec.Drain, a.String())
		b.at, b.by = b.Addr, d.firstAlive()
		d.health(s, &b)
		out = append(out, b)
	}
	switch {
	case s.Spec.Selector != nil:
		sel, err := metav1.LabelSelectorAsSelector(s.Spec.Selector)
		project := of.facts.projectOf(s.Namespace)
		if err != nil || project == nil {
			return nil, err
		}
		for n := range project.matching(sel) {
			for _, e := range p.byIdentity[n] {
				add(e, 1, "")
			}
		}
	case s.Spec.ExternalName != "":
		for _, a := range d.facts.resolved[s.Spec.ExternalName] {
			if _, known := p.byAddress[a]; !known && !d.inside(a) && !snapshot.StaysInside(a) {
				outside(a, 1, "")
			}
		}
	default:
		for i, e := range s.Spec.Endpoints {
			a, err := netip.ParseAddr(e.Address)
			if err != nil {
				continue
			}
			weight := uint32(max(e.Weight, 1))
			if row, known := p.byAddress[d.addressIn(of, a)]; known {
				add(row, weight, e.Zone)
			} else if !d.inside(a) {
				if snapshot.StaysInside(a) {
					if of == d.facts.base {
						d.problem(about(codeOutside, serviceName(s), fmt.Sprintf("spec.endpoints[%d].address", i),
							fmt.Sprintf("%s is loopback, link-local or multicast, or nobody's", a), "correct the address"))
					}
					continue
				}
				if d.facts.base.facts.network.Spec.Outside == nil && of == d.facts.base {
					d.problem(about(codeNoExit, serviceName(s), fmt.Sprintf("spec.endpoints[%d].address", i),
						fmt.Sprintf("%s is outside of all Networks, and Network %s has no way out", a, d.facts.base.facts.key), "give the Network spec.outside, or correct the address"))
					continue
				}
				outside(a, weight, e.Zone)
			}
		}
	}
	slices.SortFunc(out, func(a, b place) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(b.Weight, a.Weight)) })
	return slices.CompactFunc(out, func(a, b place) bool { return a.Addr == b.Addr }), nil
}

// addressIn is how this Network sees an address of another one; it is the
// address itself in its own.
func (d *jointDraft) addressIn(of *result, a netip.Addr) netip.Addr {
	if of == d.facts.base {
		return a
	}
	for _, l := range d.facts.links {
		for end, k := range [2]Key{l.facts.lane.path[0], l.facts.lane.path[len(l.facts.lane.path)-1]} {
			if k == of.facts.key {
				return seenAs(translations(l.facts.lane.end(end).Translate), a)
			}
		}
	}
	return a
}

// firstAlive is the first node by name that hosts the Network and is not away.
func (d *jointDraft) firstAlive() string {
	for _, name := range sortedNames(d.facts.base.hosts) {
		if d.facts.base.hosts[name].member && !slices.Contains(d.facts.away, name) {
			return name
		}
	}
	return ""
}

// inside reports whether an address is of the Network or of one that it sees.
func (d *jointDraft) inside(a netip.Addr) bool {
	for _, n := range d.near {
		if slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return true
		}
	}
	return false
}

// serviceProblems says what is wrong with what is behind a Service.
func (d *jointDraft) serviceProblems(s *v1alpha1.Service, all []place, broken error) {
	name, where := serviceName(s), " in Network "+d.facts.base.facts.key.String()
	if broken != nil {
		d.problem(about(codeSelector, name, "spec.selector", "the label selector is not valid: "+broken.Error(), "correct it; until then nobody is selected"))
		return
	}
	if s.Spec.ExternalName != "" && d.facts.base.facts.network.Spec.Outside == nil {
		d.problem(about(codeNoExit, name, "spec.externalName", fmt.Sprintf("%s is outside of all Networks, and Network %s has no way out", s.Spec.ExternalName, d.facts.base.facts.key), "give the Network spec.outside"))
		return
	}
	alive := slices.ContainsFunc(all, func(b place) bool { return !b.leaves && !b.out })
	switch _, asked := d.facts.resolved[s.Spec.ExternalName]; {
	case alive, s.Spec.ExternalName != "" && !asked:
	case len(all) == 0:
		field, fix := "spec.selector", "correct the selector, or attach such a Workload"
		if s.Spec.ExternalName != "" {
			field, fix = "spec.externalName", "correct the name, or see why it has no address"
		} else if s.Spec.Selector == nil {
			field, fix = "spec.endpoints", "correct them"
		}
		d.problem(warn(about(codeNoBackend, name, field, "nobody is behind the Service"+where, fix)))
	default:
		d.problem(warn(about(codeNoBackend, name, "", fmt.Sprintf("none of %d backends%s gets new sessions: drained, not healthy or on a node that is away", len(all), where), "see their health")))
	}
}
