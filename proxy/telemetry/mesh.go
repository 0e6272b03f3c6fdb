package telemetry

import (
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Socket is the id, as a listener, of one side of a Workload of Config.Mesh: its
// place there.
func (t *Table) Socket(workload int, side Side) int32 { return t.sockets + t.of(workload, side) }

// End is the id, as a cluster, of the application of a Workload (In), or of what
// it calls where no Listener is (Out).
func (t *Table) End(workload int, side Side) int32 { return t.endings + t.of(workload, side) }

// Way is the id, as a route, of what no route takes.
func (t *Table) Way(workload int, side Side) int32 { return t.ways + t.of(workload, side) }

func (t *Table) of(workload int, side Side) int32 { return int32(2*workload) + int32(side-Out) }

var sideNames = [...]string{"", "outbound", "inbound"}

// openMesh adds what a mesh has beside listeners, clusters and routes that are
// configured.
func openMesh(m *l7.Mesh, listeners, clusters, routes []name) ([]name, []name, []name) {
	for i := range m.Workloads {
		w := &m.Workloads[i]
		called := strconv.FormatUint(uint64(w.VNI), 10) + "/" + w.Name
		for _, side := range []Side{Out, In} {
			listeners = append(listeners, name{name: called + " " + sideNames[side]})
			routes = append(routes, name{called, sideNames[side]})
		}
		clusters = append(clusters, name{name: called + " away"}, name{name: called + " app"})
	}
	return listeners, clusters, routes
}

// ruleSeries is what one worker counted for a rule of a policy.
type ruleSeries struct{ allowed, denied, shadowed counter }

// rulesOf are all that can decide in a mesh, each once, with its tier.
func rulesOf(m *l7.Mesh) []name {
	tiers := map[policy.RuleID]policy.Tier{policy.NoPolicy: policy.Default}
	seen := map[*policy.Rule]bool{}
	for i := range m.Workloads {
		for _, s := range []*policy.Set{&m.Workloads[i].Egress, &m.Workloads[i].Ingress} {
			for id, tier := range map[policy.RuleID]policy.Tier{s.Isolated: policy.Project, s.AuditIsolated: policy.Project, s.Default.ID: policy.Default} {
				tiers[id] = tier
			}
			if first := unsafe.SliceData(s.Rules); first == nil || seen[first] {
				continue
			} else {
				seen[first] = true
			}
			for j := range s.Rules {
				tiers[s.Rules[j].ID] = s.Rules[j].Tier
			}
		}
	}
	delete(tiers, "")
	out := make([]name, 0, len(tiers))
	for id, tier := range tiers {
		out = append(out, name{string(id), tier.String()})
	}
	return out
}

// place is an address of a Network.
type place struct {
	vni     uint32
	address netip.Addr
}

// who is who is at a place, or was until a moment ago.
type who struct {
	end  record.End // without port
	gone int64      // since when nobody is there; 0: somebody is
	json [2][]byte  // of end, before and after what is of one record; nil: not written yet
}

// census is who is at all places that a configuration has. It never changes, but
// for what the collector writes into each who for itself.
type census map[place]*who

// newCensus takes over what stays from an older one, and keeps for a while who is
// not there any more: what is told now may have ended before.
func newCensus(cfg *l7.Config, old census, now int64) census {
	if cfg.Mesh == nil {
		return nil
	}
	c := make(census, len(cfg.Mesh.Peers))
	add := func(end record.End) {
		at := place{end.VNI, end.Address}
		if was := old[at]; was != nil && was.gone == 0 && sameEnd(&was.end, &end) {
			c[at] = was
			return
		}
		c[at] = &who{end: end}
	}
	for i := range cfg.Mesh.Peers {
		p := &cfg.Mesh.Peers[i]
		project, workload, _ := strings.Cut(p.Name, "/")
		add(record.End{Domain: p.Domain, Project: project, Network: p.Network, VNI: p.VNI, Address: p.Address, Workload: workload,
			Identity: p.SPIFFE, Number: uint32(p.Number), Labels: p.Labels, Node: p.Node})
	}
	for i := range cfg.Mesh.Workloads {
		w := &cfg.Mesh.Workloads[i]
		project, workload, _ := strings.Cut(w.Name, "/")
		for _, a := range w.Addresses {
			if c[place{w.VNI, a}] == nil {
				add(record.End{Domain: w.Domain, Project: project, Network: w.Network, VNI: w.VNI, Address: a, Workload: workload,
					Identity: w.SPIFFE, Number: uint32(w.Number), Labels: w.Labels, Node: cfg.Mesh.Node})
			}
		}
	}
	for at, was := range old {
		switch {
		case c[at] != nil || was.gone != 0 && now-was.gone > retention:
		case was.gone != 0:
			c[at] = was
		default:
			c[at] = &who{end: was.end, gone: max(now, 1)}
		}
	}
	return c
}

func sameEnd(a, b *record.End) bool {
	return a.Domain == b.Domain && a.Project == b.Project && a.Network == b.Network && a.Workload == b.Workload &&
		a.Identity == b.Identity && a.Number == b.Number && a.Node == b.Node && maps.Equal(a.Labels, b.Labels)
}

// find is who is at a place, if it is who a record means; nil: nobody knows.
func (c census) find(vni uint32, address netip.Addr, number uint32) *who {
	if w := c[place{vni, address}]; w != nil && w.end.Number == number {
		return w
	}
	return nil
}

// serviceOf is the Service of a cluster that is named after one (snapshot.ClusterName).
func serviceOf(cluster string) string {
	if parts := strings.Split(cluster, "/"); len(parts) == 4 {
		return parts[1] + "/" + parts[2]
	}
	return ""
}
