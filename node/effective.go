package node

import (
	"maps"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// effective is the snapshot with the truth about this node's own endpoints:
// those that the control plane has not heard of yet are added, those that are
// no longer here are left out. Whose identity is not certain is left out too
// and stays closed. s is not changed, and is returned when nothing differs.
func effective(s *snapshot.Snapshot, own []*attachment) *snapshot.Snapshot {
	put := map[snapshot.Addr]snapshot.Endpoint{}
	here := make(map[snapshot.Addr]*attachment, len(own))
	for _, a := range own {
		for _, ip := range a.Addrs {
			here[snapshot.Addr{VNI: a.VNI, IP: ip}] = a
		}
	}
	var gone []snapshot.Addr
	for addr, e := range s.Endpoints {
		// What a linked Network sees of it goes with the attachment.
		if e.Node == s.Node && !sameEndpoint(e, here[e.Real()]) {
			gone = append(gone, addr)
		}
	}
	for addr, a := range here {
		if e, ok := s.Endpoints[addr]; ok && (e.Node != s.Node || sameEndpoint(e, a)) {
			continue // as it should be, or it moved away and the snapshot knows better
		}
		if id, ok := identityOf(s, a); ok {
			put[addr] = snapshot.Endpoint{Addr: addr, Project: a.Key.Project, Workload: a.Key.Workload, MAC: a.MAC, Identity: id, Node: s.Node, Mode: modeOf(s, a)}
		}
	}
	if len(put) == 0 && len(gone) == 0 {
		return s
	}
	out := *s
	out.Endpoints = maps.Clone(s.Endpoints)
	for _, addr := range gone {
		delete(out.Endpoints, addr)
	}
	if out.Endpoints == nil {
		out.Endpoints = map[snapshot.Addr]snapshot.Endpoint{}
	}
	maps.Copy(out.Endpoints, put)
	return &out
}

// modeOf is how strict a Workload of a project must be taken to be before the
// snapshot says so: like the strictest of the project.
func modeOf(s *snapshot.Snapshot, a *attachment) (m snapshot.Mode) {
	if a.Tap {
		return snapshot.Off // it has no proxy
	}
	for _, e := range s.Endpoints {
		if e.Project == a.Key.Project {
			m = max(m, e.Mode)
		}
	}
	return m
}

// sameEndpoint: the snapshot speaks of this very attachment. A MAC is never
// used twice, so an earlier Workload of the same name is somebody else.
func sameEndpoint(e snapshot.Endpoint, a *attachment) bool {
	return a != nil && e.Project == a.Key.Project && e.Workload == a.Key.Workload && e.MAC == a.MAC
}

// identityOf is who an attachment is before the snapshot has its endpoint:
// only what it claims, and only if the control plane does not say otherwise.
func identityOf(s *snapshot.Snapshot, a *attachment) (policy.Identity, bool) {
	n, ok := s.Networks[a.VNI]
	if project, name := a.Key.InNetwork(); !ok || n.Project != project || n.Name != name {
		return 0, false
	}
	id, ok := s.IdentityOf(a.Key.Project, a.Account, a.Labels)
	if !ok {
		return 0, false
	}
	if g, granted := s.Grants[a.Key]; granted && (g.Error != "" || g.Identity != id || g.VNI != a.VNI) {
		return 0, false
	} else if !granted && n.Project != a.Key.Project {
		return 0, false // only the control plane knows whether the Network consents
	}
	return id, true
}

// confirmed: the control plane's own snapshot has every address of the
// attachment with both policy sets.
func confirmed(s *snapshot.Snapshot, a *attachment) bool {
	if s == nil || len(a.Addrs) == 0 {
		return false
	}
	for _, ip := range a.Addrs {
		e, ok := s.Endpoints[snapshot.Addr{VNI: a.VNI, IP: ip}]
		if !ok || e.Node != s.Node || !sameEndpoint(e, a) || !hasPolicies(s, a.VNI, e.Identity) {
			return false
		}
	}
	return true
}

func hasPolicies(s *snapshot.Snapshot, vni snapshot.VNI, id policy.Identity) bool {
	_, in := s.Policies[snapshot.PolicyKey{VNI: vni, Identity: id, Direction: policy.Ingress}]
	_, out := s.Policies[snapshot.PolicyKey{VNI: vni, Identity: id, Direction: policy.Egress}]
	return id != 0 && in && out
}
