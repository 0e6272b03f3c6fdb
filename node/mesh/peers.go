package mesh

import (
	"cmp"
	"encoding/pem"
	"slices"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// peers are all endpoints of the Networks of these interfaces.
func (w *world) peers() []l7.Peer {
	var out []l7.Peer
	for a, e := range w.s.Endpoints {
		if !w.hosted[a.VNI] {
			continue
		}
		id, at := w.s.Identities[e.Identity], e.Real()
		n, ok := w.s.Networks[at.VNI]
		if !ok {
			n = w.s.Networks[a.VNI]
		}
		p := l7.Peer{
			VNI: uint32(a.VNI), Address: a.IP, Name: e.Project + "/" + e.Workload,
			Domain: cmp.Or(id.Domain, n.Domain), Network: n.Name, Number: e.Identity, SPIFFE: id.SPIFFE, Labels: w.labelsOf(e.Identity),
			Node: e.Node, Mesh: e.Mode != snapshot.Off,
		}
		// What has a chain in front is reached by that alone, never in memory.
		if at != a && e.Chain == (snapshot.ChainKey{}) && w.homes[at] {
			p.Home, p.HomeVNI = at.IP, uint32(at.VNI)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b l7.Peer) int { return cmp.Or(cmp.Compare(a.VNI, b.VNI), a.Address.Compare(b.Address)) })
	return out
}

// trusts with their roots as PEM.
func trusts(s *snapshot.Snapshot) []l7.Trust {
	return sorted(s.Trusts, func(t snapshot.Trust) l7.Trust {
		var roots []byte
		for _, der := range t.Roots {
			roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		return l7.Trust{Name: t.Name, TrustDomain: t.TrustDomain, Roots: string(roots), Federates: t.Federates}
	})
}
