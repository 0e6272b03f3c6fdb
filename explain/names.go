package explain

import (
	"net/netip"
	"slices"
	"strings"

	"moire.dev/moire/snapshot"
)

// defaultZone is the zone of a Network whose name service says no other.
const defaultZone = "moire.internal"

// maxAliases is how often a name may be another one, as in the name service.
const maxAliases = 8

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

// reachName is reach for a name with dots: a Workload of the project, a record of
// the tenant, a name of the platform, or a name outside. A record stands in the
// place of what the name has of its own; "*" is any name that is not there.
func (w *world) reachName(s snapshot.Endpoint, to end, v6 bool) ([]netip.Addr, int) {
	if own := (end{project: to.project, name: to.name}); to.project != "" && len(w.of(own)) > 0 {
		return w.reach(s, own, v6)
	}
	snap := w.snaps[s.Node]
	if snap == nil {
		snap = &snapshot.Snapshot{}
	}
	name, addrs := to.dns, []netip.Addr(nil)
	for depth, alias := 0, to.dns; alias != ""; depth++ {
		if name = alias; depth > maxAliases {
			return nil, rankNone
		}
		if addrs, alias = recorded(snap, s.Addr.VNI, w.written(s, snap, name), v6); len(addrs) > 0 {
			return addrs, rankKnown
		}
	}
	if addrs = furtherNamed(snap, s.Addr.VNI, name, v6); len(addrs) > 0 {
		return addrs, rankKnown
	}
	if e, ok := w.ours(s, name); ok {
		return w.reach(s, e, v6)
	}
	if _, exits := snap.Exits[s.Addr.VNI]; exits {
		return nil, rankOutside
	}
	return nil, rankNone
}

// written is the name under which the tenant's records have what is asked for:
// itself, or the nearest "*" above a name that is not there. In the zone of the
// Network, nothing that is there stands between (RFC 4592).
func (w *world) written(s snapshot.Endpoint, snap *snapshot.Snapshot, name string) string {
	there := func(name string) bool {
		if slices.ContainsFunc(snap.Names[s.Addr.VNI].Records, func(r snapshot.DNSRecord) bool { return strings.HasSuffix("."+r.Name, "."+name+".") }) {
			return true
		}
		e, ok := w.ours(s, name)
		if !ok {
			return false
		}
		_, r4 := w.reach(s, e, false)
		_, r6 := w.reach(s, e, true)
		return max(r4, r6) > rankNone
	}
	_, inZone := w.ours(s, name)
	for up, more := name, !there(name); more; {
		if _, up, more = strings.Cut(up, "."); !more {
			break
		}
		star := "*." + up
		if slices.ContainsFunc(snap.Names[s.Addr.VNI].Records, func(r snapshot.DNSRecord) bool { return r.Name == star+"." }) {
			return star
		}
		more = !inZone || !there(up)
	}
	return name
}

// recorded looks a name up among the tenant's own records: its addresses, and
// the name that it stands for.
func recorded(snap *snapshot.Snapshot, vni snapshot.VNI, name string, v6 bool) (out []netip.Addr, alias string) {
	kind := "A"
	if v6 {
		kind = "AAAA"
	}
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
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), alias
}

// furtherNamed are the addresses of FloatingIPs with the further name.
func furtherNamed(snap *snapshot.Snapshot, vni snapshot.VNI, name string, v6 bool) []netip.Addr {
	var out []netip.Addr
	for k, x := range snap.Services {
		if k.Addr.VNI == vni && k.Addr.IP.Is6() == v6 && slices.Contains(x.Names, name+".") {
			out = append(out, k.Addr.IP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
