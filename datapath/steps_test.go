package datapath_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"moire.dev/moire/datapath"
	"moire.dev/moire/datapath/proving"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

var (
	macWeb   = snapshot.MAC{2, 0, 0, 0, 0, 1}
	macDB    = snapshot.MAC{2, 0, 0, 0, 0, 2}
	macFar   = snapshot.MAC{2, 0, 0, 0, 0, 3}
	macOther = snapshot.MAC{2, 0, 0, 0, 0, 9}
	here     = netip.MustParseAddr("192.0.2.101")
	there    = netip.MustParseAddr("192.0.2.102")
	web4     = netip.MustParseAddr("10.1.0.2")
	web6     = netip.MustParseAddr("fd10::2")
	db4      = netip.MustParseAddr("10.2.0.3")
	db6      = netip.MustParseAddr("fd10::3")
	far4     = netip.MustParseAddr("10.1.0.4")
	far6     = netip.MustParseAddr("fd10::4")
	gw4      = netip.MustParseAddr("10.1.0.1")
	gw6      = netip.MustParseAddr("fd10::1")
)

// town is web and db here, far there, ghost here but not attached, and the
// other tenant's web with the same addresses.
func town() *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Node: "here", Nodes: map[string]snapshot.Node{"here": {Name: "here", Address: here}, "there": {Name: "there", Address: there}},
		Networks:  map[snapshot.VNI]snapshot.Network{},
		Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Policies: map[snapshot.PolicyKey]policy.Set{},
		Identities: map[policy.Identity]snapshot.Identity{},
	}
	for _, vni := range []snapshot.VNI{1, 2} {
		project := string(rune('a' + vni))
		s.Networks[vni] = snapshot.Network{VNI: vni, Project: project, Name: "net", Prefixes: []netip.Prefix{
			netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("fd10::/64"),
		}}
		id := policy.Identity(10 * vni)
		put(s, vni, project, "here", "web", id+1, macWeb, web4, web6)
		put(s, vni, project, "here", "db", id+2, macDB, db4, db6)
		put(s, vni, project, "there", "far", id+3, macFar, far4, far6)
	}
	return s
}

func put(s *snapshot.Snapshot, vni snapshot.VNI, project, node, name string, id policy.Identity, mac snapshot.MAC, addrs ...netip.Addr) {
	for _, ip := range addrs {
		a := snapshot.Addr{VNI: vni, IP: ip}
		s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: project, Workload: name, Node: node, Identity: id, MAC: mac}
	}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		s.Policies[snapshot.PolicyKey{VNI: vni, Identity: id, Direction: d}] = policy.Set{Default: policy.DefaultRule{ID: "open", Allow: true}}
	}
}

func newTown(t *testing.T) (*proving.Node, func(from string, frame []byte) datapath.Judgement) {
	needRoot(t)
	n, err := proving.New(town())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, func(from string, frame []byte) datapath.Judgement {
		t.Helper()
		j, err := n.Frame(from, frame)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
}

func tcp(src, dst netip.Addr) proving.Packet {
	return proving.Packet{SrcMAC: macWeb, DstMAC: macDB, Src: src, Dst: dst, Protocol: policy.TCP, SrcPort: 1000, DstPort: 80}
}

func with(p proving.Packet, change func(*proving.Packet)) []byte {
	change(&p)
	return p.Frame()
}

// TestDrops has one frame for every reason why something is dropped.
func TestDrops(t *testing.T) {
	n, ask := newTown(t)
	web := n.Host(snapshot.Addr{VNI: 1, IP: web4})
	plain := tcp(web4, db4)
	inTunnel := func(src netip.Addr, vni snapshot.VNI, frame []byte) []byte {
		return proving.Encapsulate(src, here, vni, frame)
	}
	fromFar := tcp(far4, db4)
	linkLocal, allNodes := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")
	vlan := append(append(append([]byte{}, plain.Frame()[:12]...), 0x88, 0xa8, 0, 1), plain.Frame()[12:]...)
	for _, c := range []struct {
		name, from string
		frame      []byte
		drop       string
	}{
		{"source MAC of another", web, with(plain, func(p *proving.Packet) { p.SrcMAC = macOther }), "spoofed-mac"},
		{"source address of another", web, with(plain, func(p *proving.Packet) { p.Src = far4 }), "spoofed-ip"},
		{"source address of a neighbour", web, with(plain, func(p *proving.Packet) { p.Src = db4 }), "spoofed-ip"},
		{"source address of nobody, v6", web, tcp(netip.MustParseAddr("fd10::66"), db6).Frame(), "spoofed-ip"},
		{"ARP for another's address", web, proving.ARP(1, macWeb, macWeb, db4, far4), "spoofed-arp"},
		{"ARP with another's MAC", web, proving.ARP(1, macWeb, macOther, web4, far4), "spoofed-arp"},
		{"ARP reply that lies", web, proving.ARP(2, macWeb, macWeb, gw4, db4), "spoofed-arp"},
		{"gratuitous ARP of the gateway", web, proving.ARP(1, macWeb, macWeb, gw4, gw4), "spoofed-arp"},
		{"ARP for nobody", web, proving.ARP(1, macWeb, macWeb, web4, netip.MustParseAddr("10.1.0.77")), "no-neighbour"},
		{"ARP for itself", web, proving.ARP(1, macWeb, macWeb, web4, web4), "multicast"},
		{"ARP frame from another's MAC", web, proving.ARP(1, macOther, macOther, web4, far4), "spoofed-mac"},
		{"advertisement that lies", web, proving.Neighbour(136, macWeb, web6, allNodes, gw6, &macWeb), "spoofed-nd"},
		{"advertisement of itself", web, proving.Neighbour(136, macWeb, web6, allNodes, web6, &macWeb), "multicast"},
		{"solicitation with another's MAC", web, proving.Neighbour(135, macWeb, web6, allNodes, db6, &macOther), "spoofed-nd"},
		{"solicitation from another's address", web, proving.Neighbour(135, macWeb, db6, allNodes, far6, &macWeb), "spoofed-nd"},
		{"router advertisement", web, with(tcp(linkLocal, allNodes), func(p *proving.Packet) { p.Protocol, p.ICMPType = policy.ICMP, 134 }), "spoofed-nd"},
		{"redirect", web, with(tcp(linkLocal, web6), func(p *proving.Packet) { p.Protocol, p.ICMPType = policy.ICMP, 137 }), "spoofed-nd"},
		{"router solicitation", web, with(tcp(linkLocal, allNodes), func(p *proving.Packet) { p.Protocol, p.ICMPType = policy.ICMP, 133 }), "multicast"},
		{"DAD for its own address", web, proving.Neighbour(135, macWeb, netip.IPv6Unspecified(), allNodes, web6, nil), "multicast"},
		{"solicitation for nobody", web, proving.Neighbour(135, macWeb, web6, allNodes, netip.MustParseAddr("fd10::77"), &macWeb), "no-neighbour"},
		{"mDNS", web, with(tcp(web4, netip.MustParseAddr("224.0.0.251")), func(p *proving.Packet) { p.Protocol = policy.UDP }), "multicast"},
		{"DHCP", web, with(tcp(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255")), func(p *proving.Packet) { p.Protocol = policy.UDP }), "multicast"},
		{"nobody there", web, tcp(web4, netip.MustParseAddr("10.1.0.77")).Frame(), "no-route"},
		{"outside the network", web, tcp(web4, netip.MustParseAddr("8.8.8.8")).Frame(), "no-exit"},
		{"the underlay", web, with(tcp(web4, there), func(p *proving.Packet) { p.Protocol, p.DstPort = policy.UDP, 4789 }), "no-exit"},
		{"TCP to the gateway", web, tcp(web4, gw4).Frame(), "no-route"},
		{"cut off", web, plain.Frame()[:36], "bad-packet"},
		{"cut off in TCP", web, plain.Frame()[:40], "bad-packet"},
		{"mapped addresses", web, tcp(web6, netip.MustParseAddr("::ffff:10.2.0.3")).Frame(), "bad-packet"},
		{"ICMPv6 in IPv4", web, with(plain, func(p *proving.Packet) { p.Protocol, p.Raw = 58, make([]byte, 16) }), "bad-packet"},
		{"VLAN", web, vlan, "unsupported"},
		{"routing header", web, with(tcp(web6, db6), func(p *proving.Packet) { p.Protocol, p.Raw = 43, []byte{6, 2, 0, 1, 0, 0, 0, 0} }), "unsupported"},
		{"not IP", web, append(plain.Frame()[:12], 0x88, 0xcc, 0, 0, 0, 0), "unsupported"},
		{"later fragment first", web, with(plain, func(p *proving.Packet) { p.Fragment, p.ID = 100, 77 }), "ct-fragment"},
		{"reply without a request", web, with(plain, func(p *proving.Packet) { p.Protocol, p.EchoReply = policy.ICMP, true }), "ct-unrelated"},
		{"error about nothing", web, with(plain, func(p *proving.Packet) {
			p.Protocol, p.ICMPType, p.Payload = policy.ICMP, 3, tcp(db4, web4).Frame()[14:]
		}), "ct-unrelated"},
		{"VXLAN from a stranger", datapath.Uplink, inTunnel(netip.MustParseAddr("192.0.2.66"), 1, fromFar.Frame()), "unknown-vtep"},
		{"VXLAN with a local source", datapath.Uplink, inTunnel(there, 1, tcp(web4, db4).Frame()), "foreign-source"},
		{"VXLAN with a source of nobody", datapath.Uplink, inTunnel(there, 1, tcp(netip.MustParseAddr("10.1.0.66"), db4).Frame()), "foreign-source"},
		{"VXLAN for somebody elsewhere", datapath.Uplink, inTunnel(there, 1, tcp(far4, far4).Frame()), "no-route"},
		{"VXLAN with LLDP inside", datapath.Uplink, inTunnel(there, 1, append(fromFar.Frame()[:12], 0x88, 0xcc, 0, 0, 0, 0)), "unsupported"},
	} {
		j := ask(c.from, c.frame)
		if j.Action != datapath.Drop || j.Drop != c.drop || j.Allow {
			t.Errorf("%s: got %s %q (rule %s), want drop %q", c.name, j.Action, j.Drop, j.Rule, c.drop)
		}
	}
}

// TestPasses: what is none of ours at the uplink goes on untouched.
func TestPasses(t *testing.T) {
	_, ask := newTown(t)
	inner := tcp(far4, db4).Frame()
	other := proving.Encapsulate(there, here, 1, inner)
	binary.BigEndian.PutUint16(other[14+20+2:], 4790)
	fragment := proving.Encapsulate(there, here, 1, inner)
	fragment[14+6] |= 0x20
	for name, frame := range map[string][]byte{
		"SSH":                  tcp(there, here).Frame(),
		"unknown network":      proving.Encapsulate(there, here, 77, inner),
		"VXLAN of another":     proving.Encapsulate(there, there, 1, inner),
		"another port":         other,
		"outer fragment":       fragment,
		"ARP":                  proving.ARP(1, macOther, macOther, there, here),
		"cut off":              proving.Encapsulate(there, here, 1, inner)[:60],
		"VXLAN of IPv6 nodes":  proving.Encapsulate(web6, db6, 1, inner),
		"a frame of 14 bytes.": make([]byte, 14),
	} {
		if j := ask(datapath.Uplink, frame); j.Action != datapath.Ignore || !bytes.Equal(j.Packet, frame) {
			t.Errorf("%s: got %+v, want it untouched", name, j)
		}
	}
}

// TestForward: to an interface here, to a node, and from a node.
func TestForward(t *testing.T) {
	n, ask := newTown(t)
	web := n.Host(snapshot.Addr{VNI: 1, IP: web4})
	for _, pair := range [][2]netip.Addr{{web4, db4}, {web6, db6}} {
		p := tcp(pair[0], pair[1])
		p.DstMAC = snapshot.RouterMAC
		j := ask(web, p.Frame())
		seen, err := proving.Read(j.Packet)
		if j.Action != datapath.Deliver || err != nil || seen.DstMAC != macDB || seen.SrcMAC != macWeb || j.Rule != "open" || j.IngressRule != "open" {
			t.Errorf("here: %+v %+v %v", j, seen, err)
		}
	}
	for _, pair := range [][2]netip.Addr{{web4, far4}, {web6, far6}} {
		sent := tcp(pair[0], pair[1]).Frame()
		j := ask(web, sent)
		outer, vni, inner, err := proving.Decapsulate(j.Packet)
		if err != nil || j.Action != datapath.Send || vni != 1 || outer.Src != here || outer.Dst != there || !outer.ChecksumOK || outer.SrcPort < 49152 {
			t.Errorf("to the node: %+v %+v %v", j, outer, err)
		}
		if !bytes.Equal(inner[6:], sent[6:]) || !bytes.Equal(inner[:6], macFar[:]) {
			t.Errorf("inner frame changed:\n%x\n%x", sent, inner)
		}
	}
	for _, pair := range [][2]netip.Addr{{far4, db4}, {far6, db6}} {
		sent := tcp(pair[0], pair[1])
		sent.SrcMAC = macFar
		j := ask(datapath.Uplink, proving.Encapsulate(there, here, 1, sent.Frame()))
		seen, err := proving.Read(j.Packet)
		if err != nil || j.Action != datapath.Deliver || seen.DstMAC != macDB || seen.SrcMAC != macFar || j.Rule != "open" {
			t.Errorf("from the node: %+v %+v %v", j, seen, err)
		}
	}
}
