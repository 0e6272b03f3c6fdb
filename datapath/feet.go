package datapath

import (
	"net/netip"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// FeetOf are the addresses, one of each family, from which the node of that
// number asks Workloads of any node: the addresses of its services are the same
// on every node, so no answer to them would find back. Invalid ones: none.
func FeetOf(number uint16) (v4, v6 netip.Addr) {
	if number == 0 {
		return netip.Addr{}, netip.Addr{}
	}
	v4 = netip.AddrFrom4([4]byte{169, 254, byte(number >> 8), byte(number)})
	if v4 == snapshot.NameServer4 || v4 == snapshot.Metadata4 || v4 == presenceGateways[0] {
		v4 = netip.Addr{} // three of 65535 numbers have IPv6 only
	}
	b := snapshot.NameServer6.As16()
	b[9], b[14], b[15] = 1, byte(number>>8), byte(number)
	return v4, netip.AddrFrom16(b)
}

// wantFeet adds the feet of the nodes that have something to do with the
// Networks here, each in its Networks and in those that they are linked to,
// where it has the same address.
func (d *Datapath) wantFeet(w *want, s State) error {
	rule, err := d.rules.number(ruleNames)
	if err != nil {
		return err
	}
	here := map[snapshot.VNI]bpf.MoireEndpoint{}
	for _, p := range s.Presence {
		if ifindex, ok := w.links[p.Host]; ok {
			here[p.VNI] = bpf.MoireEndpoint{Ifindex: uint32(ifindex), Mac: p.MAC}
		}
	}
	if len(here) == 0 && len(w.links) == 0 {
		return nil
	}
	type footing struct {
		vni, home snapshot.VNI // home 0: of the Network itself
		node      string
	}
	done := map[footing]bool{}
	add := func(vni snapshot.VNI, name string) {
		if _, known := s.Snapshot.Networks[vni]; !known || done[footing{vni, 0, name}] {
			return
		}
		done[footing{vni, 0, name}] = true
		n := s.Snapshot.Nodes[name]
		row, ok := here[vni]
		if name != d.cfg.Node {
			row = bpf.MoireEndpoint{Node: w.vteps[addrOf(n.Address.Unmap())]}
			ok = row.Node != 0
		}
		if !ok || n.External {
			return
		}
		row.How, row.Ingress, row.Egress = howPlatform|howFoot, rule, rule
		v4, v6 := FeetOf(n.Number)
		for _, ip := range []netip.Addr{v4, v6} {
			if _, taken := s.Snapshot.Endpoints[snapshot.Addr{VNI: vni, IP: ip}]; ip.IsValid() && !taken {
				w.endpoint(snapshot.Addr{VNI: vni, IP: ip}, row)
			}
		}
	}
	for vni := range here {
		add(vni, d.cfg.Node)
	}
	for a, e := range s.Snapshot.Endpoints {
		add(a.VNI, e.Node)
		if !e.Home.IP.IsValid() {
			continue
		}
		for _, node := range []string{e.Node, d.cfg.Node} {
			if f := (footing{a.VNI, e.Home.VNI, node}); !done[f] {
				done[f] = true
				linkFeet(w, s, f.vni, f.home, node)
			}
		}
	}
	return nil
}

// linkFeet: a node has the same feet on both sides of a Link.
func linkFeet(w *want, s State, a, b snapshot.VNI, node string) {
	v4, v6 := FeetOf(s.Snapshot.Nodes[node].Number)
	for _, ip := range []netip.Addr{v4, v6} {
		if !ip.IsValid() {
			continue
		}
		w.guises[bpf.MoireGuiseKey{Home: addrKey(a, ip), Vni: uint32(b)}] = addrOf(ip)
		w.guises[bpf.MoireGuiseKey{Home: addrKey(b, ip), Vni: uint32(a)}] = addrOf(ip)
	}
}
