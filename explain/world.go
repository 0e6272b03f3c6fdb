package explain

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
)

// world is what all nodes know together.
type world struct {
	q     *Query
	snaps map[string]*snapshot.Snapshot
	nodes []string // that have one, sorted
}

// sees reports whether who asks may know of the project.
func (w *world) sees(project string) bool { return w.q.Sees == nil || w.q.Sees(project) }

// endpoints lists what any node knows that matches and may be seen, each
// address once, in order of network and address. The row of the node that
// hosts it counts.
func (w *world) endpoints(match func(snapshot.Endpoint) bool) []snapshot.Endpoint {
	found := map[snapshot.Addr]snapshot.Endpoint{}
	for _, name := range w.nodes {
		for k, e := range w.snaps[name].Endpoints {
			if old, known := found[k]; match(e) && w.sees(e.Project) && (!known || old.Node != e.Node && e.Node == name) {
				found[k] = e
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b snapshot.Endpoint) int { return a.Addr.Compare(b.Addr) })
}

// servicesOf lists the ports of the Services and FloatingIPs that an end may
// mean, each once, in order of their keys.
func (w *world) servicesOf(e end) []snapshot.Service {
	found := map[snapshot.ServiceKey]snapshot.Service{}
	if e.kind == workloadKind {
		return nil
	}
	for _, name := range w.nodes {
		for k, s := range w.snaps[name].Services {
			named := e.name != "" && s.Project == e.project && s.Name == e.name && w.sees(s.Project)
			if e.kind == serviceKind && s.Floating || e.kind == floatingKind && !s.Floating {
				named = false
			}
			if _, known := found[k]; !known && (named || e.addr.IsValid() && k.Addr.IP == e.addr) {
				found[k] = s
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b snapshot.Service) int { return a.ServiceKey.Compare(b.ServiceKey) })
}

// portsOf lists what a Service address answers to on a node, in order.
func portsOf(s *snapshot.Snapshot, a snapshot.Addr) []snapshot.Service {
	var out []snapshot.Service
	for k, x := range s.Services {
		if k.Addr == a {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b snapshot.Service) int { return a.ServiceKey.Compare(b.ServiceKey) })
	return out
}

// network finds the row of a Network in any snapshot.
func (w *world) network(v snapshot.VNI) (snapshot.Network, bool) {
	for _, name := range w.nodes {
		if n, ok := w.snaps[name].Networks[v]; ok {
			return n, true
		}
	}
	return snapshot.Network{}, false
}

// node finds the row of a node in any snapshot.
func (w *world) node(name string) snapshot.Node {
	if s := w.snaps[name]; s != nil {
		return s.Nodes[name]
	}
	for _, k := range w.nodes {
		if n, ok := w.snaps[k].Nodes[name]; ok {
			return n
		}
	}
	return snapshot.Node{Name: name}
}

// names lists the Networks of interfaces, as far as who asks may know them.
func (w *world) names(es []snapshot.Endpoint) string {
	var out []string
	for _, e := range es {
		if n, _ := w.network(e.Addr.VNI); w.sees(n.Project) {
			out = append(out, n.Project+"/"+n.Name)
		} else {
			out = append(out, "of another project")
		}
	}
	return strings.Join(slices.Compact(out), ", ")
}

// called names a Network, as far as who asks may know it.
func (w *world) called(v snapshot.VNI) string {
	n, ok := w.network(v)
	if !ok || !w.sees(n.Project) {
		return "another Network"
	}
	return fmt.Sprintf("Network %s/%s (VNI %d)", n.Project, n.Name, n.VNI)
}

// who names the Workload of an Endpoint, as far as who asks may know it.
func (w *world) who(e snapshot.Endpoint) string {
	if !w.sees(e.Project) {
		return "a Workload of a project that you may not see"
	}
	return e.Project + "/" + e.Workload
}

// end describes an interface.
func (w *world) end(e snapshot.Endpoint) *End {
	out := &End{VNI: uint32(e.Addr.VNI), Address: e.Addr.IP}
	if e.Addr.VNI == snapshot.Outside {
		return out
	}
	if n, ok := w.network(e.Addr.VNI); ok && w.sees(n.Project) {
		out.Network, out.Domain = n.Project+"/"+n.Name, n.Domain
	}
	if !w.sees(e.Project) {
		return out
	}
	out.Project, out.Workload, out.MAC, out.Node, out.Number = e.Project, e.Workload, e.MAC.String(), e.Node, uint32(e.Identity)
	for _, name := range w.nodes {
		id, ok := w.snaps[name].Identities[e.Identity]
		if !ok {
			continue
		}
		out.Identity = id.SPIFFE
		if id.Domain != "" {
			out.Domain = id.Domain
		}
		if len(id.Labels) > 0 {
			out.Labels = make(map[string]string, len(id.Labels))
			for _, l := range id.Labels {
				out.Labels[l.Key] = l.Value
			}
		}
		break
	}
	return out
}

// seenAs is the address under which the Network knows what is really at home:
// itself, or a row whose Home it is.
func seenAs(s *snapshot.Snapshot, v snapshot.VNI, home snapshot.Addr) (netip.Addr, bool) {
	if home.VNI == v {
		return home.IP, true
	}
	if e, ok := s.Endpoints[snapshot.Addr{VNI: v, IP: home.IP}]; ok && e.Home == home {
		return home.IP, true // not translated: the usual case
	}
	for k, e := range s.Endpoints {
		if k.VNI == v && e.Home == home {
			return k.IP, true
		}
	}
	return netip.Addr{}, false
}
