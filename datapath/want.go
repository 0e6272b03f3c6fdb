package datapath

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Kinds of route, as in tables.h.
const (
	routeSubnet  = 1
	routeGateway = 2
)

// want is what the tables must hold for a State.
type want struct {
	of        *snapshot.Snapshot
	ifaces    map[uint32]bpf.MoireIface
	networks  map[uint32]uint32
	endpoints map[bpf.MoireAddrKey]bpf.MoireEndpoint
	guises    map[bpf.MoireGuiseKey]bpf.MoireAddr
	chains    map[bpf.MoireChainKey]bpf.MoireChain
	functions map[bpf.MoireFunctionKey]bpf.MoireHop
	routes    map[bpf.MoireRouteKey]uint32
	vteps     map[bpf.MoireAddr]uint32
	nodes     map[uint32]bpf.MoireNode
	rates     map[bpf.MoireRateKey]bpf.MoireRate
	sets      map[uint32]bool
	links     map[string]int // host name -> ifindex
	watches   *wantedWatches
	outside   *wantedOutside
	mesh      *wantedMesh
	missing   []string // interfaces of the State that are not there
}

// place is where an address is, here.
type place struct {
	local   *Local
	ifindex int
}

// compute says what the tables must hold. It interns the policy sets and the
// rules that it refers to, which nobody uses until an endpoint refers to them.
func (d *Datapath) compute(s State, verify bool) (*want, error) {
	w := &want{
		of:     s.Snapshot,
		ifaces: map[uint32]bpf.MoireIface{}, networks: map[uint32]uint32{},
		endpoints: map[bpf.MoireAddrKey]bpf.MoireEndpoint{}, guises: map[bpf.MoireGuiseKey]bpf.MoireAddr{},
		chains: map[bpf.MoireChainKey]bpf.MoireChain{}, functions: map[bpf.MoireFunctionKey]bpf.MoireHop{}, routes: map[bpf.MoireRouteKey]uint32{},
		vteps: map[bpf.MoireAddr]uint32{}, nodes: map[uint32]bpf.MoireNode{}, sets: map[uint32]bool{},
		rates: map[bpf.MoireRateKey]bpf.MoireRate{}, links: map[string]int{},
	}
	if err := d.refreshUplink(); err != nil {
		return nil, err
	}
	here, err := d.wantLocals(w, s)
	if err != nil {
		return nil, err
	}
	for vni, n := range s.Snapshot.Networks {
		w.networks[uint32(vni)] = uint32(d.MTU(n.MTU))
		for _, p := range n.Prefixes {
			w.routes[prefixKey(uint32(vni), p)] = routeSubnet
			if gw := gatewayOf(p); p.Contains(gw) {
				w.routes[prefixKey(uint32(vni), netip.PrefixFrom(gw, gw.BitLen()))] = routeGateway
			}
		}
	}
	if err := d.wantMesh(w, s); err != nil {
		return nil, err
	}
	numbers, err := d.wantNodes(w, s.Snapshot)
	if err != nil {
		return nil, err
	}
	sets, err := d.wantSets(w, s.Snapshot, verify)
	if err != nil {
		return nil, err
	}
	if err := d.wantChains(w, s.Snapshot, here, numbers); err != nil {
		return nil, err
	}
	d.wantEndpoints(w, s.Snapshot, here, numbers, sets)
	if w.outside, err = d.wantOutside(w, s.Snapshot, numbers); err != nil {
		return nil, err
	}
	if err := d.wantPresences(w, s); err != nil {
		return nil, err
	}
	if err := d.linger(w, s.Snapshot); err != nil {
		return nil, err
	}
	w.watches = d.wantWatches(s, w, time.Now())
	return w, nil
}

// wantEndpoints says where every address is, as it is and as linked Networks
// see it.
func (d *Datapath) wantEndpoints(w *want, s *snapshot.Snapshot, here map[snapshot.Addr]place, numbers map[string]uint32, sets map[snapshot.PolicyKey]uint32) {
	found := map[snapshot.Addr]bool{}
	for a, e := range s.Endpoints {
		if _, ok := s.Networks[a.VNI]; !ok {
			continue
		}
		row := bpf.MoireEndpoint{Identity: uint32(e.Identity), Mac: e.MAC, Node: numbers[e.Node], Chain: chainNumber(e.Chain)}
		real := e.Real()
		if at, ok := here[real]; ok && e.Node == d.cfg.Node && at.local.Key.Project == e.Project && at.local.Key.Workload == e.Workload {
			row.Ifindex, row.Mac, row.How = uint32(at.ifindex), at.local.MAC, w.howTo(at)
			row.Egress = sets[snapshot.PolicyKey{VNI: real.VNI, Identity: e.Identity, Direction: policy.Egress}]
			row.Ingress = sets[snapshot.PolicyKey{VNI: real.VNI, Identity: e.Identity, Direction: policy.Ingress}]
			found[real] = true
		}
		row.How |= howMeshed(e.Mode)
		if real != a {
			row.Home = addrKey(real.VNI, real.IP)
			w.guises[bpf.MoireGuiseKey{Home: row.Home, Vni: uint32(a.VNI)}] = addrOf(a.IP)
		}
		w.endpoint(a, row)
	}
	// What is plugged but unknown to the snapshot is there, and closed.
	for a, at := range here {
		if _, elsewhere := w.endpoints[addrKey(a.VNI, a.IP)]; !found[a] && !elsewhere {
			w.endpoint(a, bpf.MoireEndpoint{Ifindex: uint32(at.ifindex), Mac: at.local.MAC, How: howOf(at.local)})
		}
	}
}

func (w *want) endpoint(a snapshot.Addr, row bpf.MoireEndpoint) {
	row.Self = addrKey(a.VNI, a.IP)
	w.endpoints[row.Self] = row
}

// wantLocals finds the interfaces and says which addresses they have.
func (d *Datapath) wantLocals(w *want, s State) (map[snapshot.Addr]place, error) {
	here := map[snapshot.Addr]place{}
	for i := range s.Locals {
		l := &s.Locals[i]
		ifindex, err := interfaceIndex(l.Host)
		if err != nil {
			return nil, err
		}
		if ifindex == 0 {
			w.missing = append(w.missing, l.Host)
			continue
		}
		n, known := s.Snapshot.Networks[l.VNI]
		limit := s.Snapshot.Grants[l.Key].Limit
		queue, back, err := d.shape(l.Host, ifindex, tighter(limit, n.Limit))
		if err != nil {
			return nil, err
		}
		row := bpf.MoireIface{
			Vni: uint32(l.VNI), Mac: l.MAC, Mtu: uint32(d.MTU(n.MTU)), Throttle: uint32(queue),
			Closed: flag(!known), Dhcp: flag(l.DHCP), Limits: w.limit(ifindex, l.VNI, limit, n.Limit),
		}
		if l.Proxy != "" {
			row.Meshed, row.Proxy, row.Project = 1, proxyNumber(l.Proxy), projectNumber(l.Key.Project)
		}
		w.ifaces[uint32(ifindex)] = row
		if back != 0 {
			row.Throttle, row.As = 0, uint32(ifindex)
			_, name := throttleNames(l.Host)
			w.ifaces[uint32(back)], w.links[name] = row, back
		}
		w.links[l.Host] = ifindex
		if !known {
			continue
		}
		for _, ip := range l.Addrs {
			here[snapshot.Addr{VNI: l.VNI, IP: ip.Unmap()}] = place{l, ifindex}
		}
	}
	return here, nil
}

// wantNodes numbers the other nodes by their underlay address, keeping the
// numbers that they have.
func (d *Datapath) wantNodes(w *want, s *snapshot.Snapshot) (map[string]uint32, error) {
	numbers := map[string]uint32{}
	taken := map[uint32]bool{0: true}
	for _, n := range d.tables.vteps.rows {
		taken[n] = true
	}
	next := uint32(1)
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		a := s.Nodes[name].Address.Unmap()
		if name == d.cfg.Node || !a.IsValid() || a == d.cfg.Address || a.Is4() != d.cfg.Address.Is4() {
			continue
		}
		key := addrOf(a)
		n, ok := d.tables.vteps.rows[key]
		if !ok {
			n, ok = w.vteps[key]
		}
		for !ok && taken[next] {
			next++
		}
		if !ok {
			n, taken[next] = next, true
		}
		if n >= d.tables.nodes.m.MaxEntries() {
			return nil, fmt.Errorf("more than %d nodes in one snapshot", d.tables.nodes.m.MaxEntries()-1)
		}
		numbers[name], w.vteps[key] = n, n
		w.nodes[n] = bpf.MoireNode{Addr: key, Csum: headerSum(d.cfg.Address, a), Onlink: uint32(flag(d.onlink(a)))}
	}
	return numbers, nil
}

// wantSets interns the policy sets of the snapshot.
func (d *Datapath) wantSets(w *want, s *snapshot.Snapshot, verify bool) (map[snapshot.PolicyKey]uint32, error) {
	ids := map[snapshot.PolicyKey]uint32{}
	memo := make(map[snapshot.PolicyKey]remembered, len(s.Policies))
	for k, set := range s.Policies {
		m := d.memo[k]
		if !m.is(&set) {
			m = remember(&set)
		}
		memo[k] = m
		id, err := d.sets.intern(&set, m.digest, verify)
		if err != nil {
			return nil, fmt.Errorf("policy of identity %d in network %d, %s: %w", k.Identity, k.VNI, k.Direction, err)
		}
		ids[k], w.sets[id] = id, true
	}
	d.memo = memo
	return ids, nil
}

// remembered saves hashing a set again that is the same value in memory:
// snapshots are immutable and share what did not change.
type remembered struct {
	first     *policy.Rule
	count     int
	head      policy.Set // without Rules
	isDefault policy.DefaultRule
	digest    digest
}

func remember(s *policy.Set) remembered {
	m := remembered{count: len(s.Rules), isDefault: s.Default, digest: digestOf(s)}
	m.head.Isolated, m.head.AuditIsolated = s.Isolated, s.AuditIsolated
	if len(s.Rules) > 0 {
		m.first = &s.Rules[0]
	}
	return m
}

func (m *remembered) is(s *policy.Set) bool {
	return m.digest != digest{} && m.count > 0 && len(s.Rules) == m.count && &s.Rules[0] == m.first &&
		m.head.Isolated == s.Isolated && m.head.AuditIsolated == s.AuditIsolated && m.isDefault == s.Default
}
