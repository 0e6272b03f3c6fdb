package compile

import (
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// gateRows makes the Gateway and what its routes need, for the one node that runs
// it. There are the clusters of shared already.
func (d *jointDraft) gateRows(g *gate, shared map[string]clusterRef) {
	e := g.facts.edge
	h := d.hosts[e.node]
	if h == nil || !h.member {
		return
	}
	r := d.rowMaker()
	self, k := targetKey{KindGateway, g.facts.key}, g.facts.key
	row := snapshot.Gateway{GatewayKey: snapshot.GatewayKey{Project: k.Project, Name: k.Name},
		Attachment: snapshot.AttachmentKey{Project: k.Project, Workload: workloadOf(k.Name), Network: e.workload.Spec.Interfaces[0].Network},
		Account:    e.workload.Spec.Account, Labels: LabelsOf(e.workload.Labels)}
	for i := range g.listeners {
		of := &g.listeners[i]
		if of.closed {
			continue
		}
		l := snapshot.GatewayListener{Listener: of.Listener}
		l.Name = r.name(KindGateway + "/" + k.String() + "/" + of.Name)
		if of.TLS != nil {
			own := *of.TLS
			own.Certificates = nil
			for _, secret := range of.TLS.Certificates {
				own.Certificates = append(own.Certificates, r.certificate(&row, g, secret))
			}
			l.TLS = &own
		}
		for _, route := range of.routes {
			l.Routes = append(l.Routes, r.route(self, g.refs, route))
		}
		slices.Sort(l.Routes)
		row.Listeners = append(row.Listeners, l)
	}
	slices.SortFunc(row.Listeners, func(a, b snapshot.GatewayListener) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(row.Certificates, func(a, b l7.Certificate) int { return strings.Compare(a.Name, b.Name) })
	h.gateways = append(h.gateways, row)
	for _, name := range sortedNames(r.routes) {
		h.routes = append(h.routes, r.routes[name])
	}
	for _, name := range sortedNames(r.needed) {
		known := slices.ContainsFunc(h.clusters, func(c snapshot.Cluster) bool { return c.Name == name })
		if _, everywhere := shared[name]; !everywhere && !known {
			h.clusters = append(h.clusters, r.near(r.cluster(name, r.needed[name]), e.node))
		}
	}
}

// certificate gives a Gateway a certificate, once, and returns its name.
func (r *rowMaker) certificate(row *snapshot.Gateway, g *gate, secret string) string {
	c := g.certificates[secret]
	c.Name = r.name(KindGateway + "/" + g.facts.key.String() + "/" + secret)
	if !slices.ContainsFunc(row.Certificates, func(o l7.Certificate) bool { return o.Name == c.Name }) {
		row.Certificates = append(row.Certificates, c)
	}
	return c.Name
}
