package explain

import (
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
)

// defaultZone is the zone of a Network whose name service says no other.
const defaultZone = "moire.internal"

// ours takes <name>.<project>.<zone> apart, as the name service of the Network
// of the source does.
func (w *world) ours(s snapshot.Endpoint, name string) (end, bool) {
	zone := defaultZone
	if snap := w.snaps[s.Node]; snap != nil {
		if d, ok := snap.Names[s.Addr.VNI]; ok && d.Zone != "" {
			zone = d.Zone
		}
	}
	inside, ok := strings.CutSuffix(name, "."+zone)
	if !ok {
		return end{}, false
	}
	i := strings.LastIndexByte(inside, '.')
	if i <= 0 {
		return end{}, false
	}
	return end{name: inside[:i], project: inside[i+1:]}, true
}

// reachName is reach for a name with dots: a Workload of the project, a name
// of the platform, a record of the tenant, or a name outside.
func (w *world) reachName(s snapshot.Endpoint, to end, v6 bool) ([]netip.Addr, int) {
	if own := (end{project: to.project, name: to.name}); to.project != "" && len(w.of(own)) > 0 {
		return w.reach(s, own, v6)
	}
	if e, ok := w.ours(s, to.dns); ok {
		return w.reach(s, e, v6)
	}
	snap := w.snaps[s.Node]
	if snap == nil {
		return nil, rankNone
	}
	if addrs := recorded(snap, s.Addr.VNI, to.dns, v6); len(addrs) > 0 {
		return addrs, rankKnown
	}
	if _, exits := snap.Exits[s.Addr.VNI]; exits {
		return nil, rankOutside
	}
	return nil, rankNone
}

// recorded looks a name up among the tenant's own records and the further
// names of FloatingIPs.
func recorded(snap *snapshot.Snapshot, vni snapshot.VNI, name string, v6 bool) []netip.Addr {
	kind := "A"
	if v6 {
		kind = "AAAA"
	}
	var out []netip.Addr
	for range 8 { // a chain of aliases ends somewhere
		alias := ""
		for _, r := range snap.Names[vni].Records {
			if r.Name != name+"." {
				continue
			}
			if a, err := netip.ParseAddr(r.Data); err == nil && r.Type == kind {
				out = append(out, a)
			}
			if r.Type == "CNAME" {
				alias = strings.ToLower(strings.TrimSuffix(r.Data, "."))
			}
		}
		if alias == "" {
			break
		}
		name = alias
	}
	for k, x := range snap.Services {
		if k.Addr.VNI == vni && k.Addr.IP.Is6() == v6 && slices.Contains(x.Names, name+".") {
			out = append(out, k.Addr.IP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
