package snapshot

import (
	"cmp"
	"math"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// FrontendOf is the Frontend that the Workloads of a project find at an address
// of a Service: that of the project, else that of all.
func (s *Snapshot) FrontendOf(k ServiceKey, project string) (Frontend, bool) {
	if k.Protocol != policy.TCP {
		return Frontend{}, false
	}
	f, ok := s.Frontends[FrontendKey{ServiceKey: k, Project: project}]
	if !ok {
		f, ok = s.Frontends[FrontendKey{ServiceKey: k}]
	}
	return f, ok
}

// DefaultRoute leads what no Route of the Frontend takes to its Cluster; false:
// it has none. It comes after every other.
func (f *Frontend) DefaultRoute() (l7.Route, bool) {
	if f.Cluster == "" {
		return l7.Route{}, false
	}
	kind := l7.HTTPRoute
	switch f.Protocol {
	case l7.TCP:
		kind = l7.TCPRoute
	case l7.TLS:
		kind = l7.TLSRoute
	}
	return l7.Route{Name: "default/" + string(kind) + "/" + f.Cluster, Kind: kind, Created: math.MaxInt64,
		Rules: []l7.Rule{{Backends: []l7.Backend{{Cluster: f.Cluster}}}}}, true
}

// BackendsOf are the endpoints of a Cluster, each with its port: the backends of
// its Service, and those of the other family that have no address of the first.
func (s *Snapshot) BackendsOf(c *Cluster) []Backend {
	type workload struct{ project, name string }
	var out []Backend
	first := map[workload]bool{}
	for n, key := range []ServiceKey{c.Service, c.Second} {
		for _, b := range s.Services[key].Backends {
			if b.Addr.VNI != key.Addr.VNI {
				continue // not reached under its own address
			}
			e, known := s.Endpoints[b.Addr]
			who := workload{e.Project, e.Workload}
			if n > 0 && known && first[who] {
				continue
			}
			first[who] = true
			b.Port = cmp.Or(b.Port, key.Port)
			out = append(out, b)
		}
	}
	return out
}
