package node

import (
	"net/netip"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// known completes what proxies tell of requests with what this node knows: who
// is at an address, and which Service was asked for.
func (l *loop) known(rs []record.Record) []record.Record {
	s := &snapshot.Snapshot{}
	if v := l.view.Load(); v != nil && v.snapshot != nil {
		s = v.snapshot
	}
	for i := range rs {
		r := &rs[i]
		r.Node, r.Route = l.cfg.Name, snapshot.RouteObject(r.Route)
		complete(s, &r.Source)
		complete(s, &r.Destination)
		if at, err := netip.ParseAddrPort(r.ServiceAddress); err == nil && r.Service == "" {
			k := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: snapshot.VNI(r.Source.VNI), IP: at.Addr()}, Protocol: policy.TCP, Port: at.Port()}
			if v, ok := s.Services[k]; ok {
				r.Service = v.Project + "/" + v.Name
			}
		}
	}
	return rs
}

// complete fills in who an end is: the proxy says where, and which identity it
// has taken it for.
func complete(s *snapshot.Snapshot, end *record.End) {
	at := snapshot.Addr{VNI: snapshot.VNI(end.VNI), IP: end.Address}
	e, known := s.Endpoints[at]
	if known {
		at = e.Real()
		end.Project, end.Workload, end.Node = e.Project, e.Workload, e.Node
		if end.Number == 0 {
			end.Number = uint32(e.Identity)
		}
	}
	n, ok := s.Networks[at.VNI]
	if !ok {
		n = s.Networks[snapshot.VNI(end.VNI)]
	}
	end.Network, end.Domain = n.Name, n.Domain
	if !known {
		end.Project = n.Project
	}
	id, ok := s.Identities[policy.Identity(end.Number)]
	if !ok || end.Number == 0 {
		return
	}
	end.Domain, end.Identity = id.Domain, id.SPIFFE
	if len(id.Labels) > 0 {
		end.Labels = make(map[string]string, len(id.Labels))
		for _, l := range id.Labels {
			end.Labels[l.Key] = l.Value
		}
	}
}
