package datapath_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"

	"moire.dev/moire/datapath"
	"moire.dev/moire/datapath/proving"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestNeighbours: ARP and solicitations get the endpoint's MAC, the gateway's
// get the router's.
func TestNeighbours(t *testing.T) {
	n, ask := newTown(t)
	web := n.Host(snapshot.Addr{VNI: 1, IP: web4})
	none, allNodes := netip.IPv4Unspecified(), netip.MustParseAddr("ff02::1:ff00:1")
	for _, c := range []struct {
		name   string
		frame  []byte
		target netip.Addr
		mac    snapshot.MAC
	}{
		{"here", proving.ARP(1, macWeb, macWeb, web4, db4), db4, macDB},
		{"there", proving.ARP(1, macWeb, macWeb, web4, far4), far4, macFar},
		{"gateway", proving.ARP(1, macWeb, macWeb, web4, gw4), gw4, snapshot.RouterMAC},
		{"probe for a taken address", proving.ARP(1, macWeb, macWeb, none, db4), db4, macDB},
		{"here, v6", proving.Neighbour(135, macWeb, web6, allNodes, db6, &macWeb), db6, macDB},
		{"there, v6", proving.Neighbour(135, macWeb, web6, allNodes, far6, &macWeb), far6, macFar},
		{"gateway, v6", proving.Neighbour(135, macWeb, web6, allNodes, gw6, &macWeb), gw6, snapshot.RouterMAC},
		{"link-local asker", proving.Neighbour(135, macWeb, netip.MustParseAddr("fe80::2"), allNodes, db6, &macWeb), db6, macDB},
		{"without option", proving.Neighbour(135, macWeb, web6, allNodes, db6, nil), db6, macDB},
		{"DAD for a taken address", proving.Neighbour(135, macWeb, netip.IPv6Unspecified(), allNodes, db6, nil), db6, macDB},
	} {
		j := ask(web, c.frame)
		seen, err := proving.Read(j.Packet)
		if err != nil || j.Action != datapath.Answer || j.Drop != "" || seen.DstMAC != macWeb || seen.SrcMAC != c.mac || seen.Src != c.target {
			t.Errorf("%s: %+v %+v %v", c.name, j, seen, err)
			continue
		}
		if seen.EtherType == 0x0806 {
			if seen.SrcPort != 2 || snapshot.MAC(seen.Payload) != c.mac {
				t.Errorf("%s: wrong ARP reply %+v", c.name, seen)
			}
			continue
		}
		if seen.SrcPort != 136<<8 || !seen.ChecksumOK || snapshot.MAC(seen.Payload[18:]) != c.mac {
			t.Errorf("%s: wrong advertisement %+v", c.name, seen)
		}
	}
}

// TestForeignNeighbours: a VXLAN device elsewhere asks through the tunnel.
func TestForeignNeighbours(t *testing.T) {
	_, ask := newTown(t)
	allNodes := netip.MustParseAddr("ff02::1:ff00:1")
	for name, inner := range map[string][]byte{
		"ARP": proving.ARP(1, macFar, macFar, far4, db4),
		"ND":  proving.Neighbour(135, macFar, far6, allNodes, db6, &macFar),
	} {
		j := ask(datapath.Uplink, proving.Encapsulate(there, here, 1, inner))
		outer, vni, answer, err := proving.Decapsulate(j.Packet)
		if err != nil || j.Action != datapath.Answer || vni != 1 || outer.Src != here || outer.Dst != there {
			t.Errorf("%s: %+v %+v %v", name, j, outer, err)
			continue
		}
		seen, err := proving.Read(answer)
		if err != nil || seen.SrcMAC != macDB || seen.DstMAC != macFar {
			t.Errorf("%s: wrong answer %+v %v", name, seen, err)
		}
	}
	if j := ask(datapath.Uplink, proving.Encapsulate(there, here, 1, proving.ARP(1, macFar, macFar, web4, db4))); j.Drop != "spoofed-arp" {
		t.Errorf("a lie from elsewhere: %+v", j)
	}
}

// TestGatewayEcho: the gateway answers pings, with right checksums.
func TestGatewayEcho(t *testing.T) {
	n, ask := newTown(t)
	web := n.Host(snapshot.Addr{VNI: 1, IP: web4})
	for _, pair := range [][2]netip.Addr{{web4, gw4}, {web6, gw6}, {web4, netip.MustParseAddr("10.2.0.1")}} {
		p := tcp(pair[0], pair[1])
		p.Protocol, p.SrcPort, p.Payload = policy.ICMP, 7, []byte("abcdefg")
		j := ask(web, p.Frame())
		seen, err := proving.Read(j.Packet)
		if err != nil || j.Action != datapath.Answer || seen.Src != pair[1] || seen.Dst != pair[0] || !seen.ChecksumOK || seen.DstPort != 7 {
			t.Errorf("%s: %+v %+v %v", pair[1], j, seen, err)
		}
		if want := map[bool]uint16{true: 0, false: 129 << 8}[pair[0].Is4()]; seen.SrcPort != want {
			t.Errorf("%s: type %d", pair[1], seen.SrcPort>>8)
		}
	}
}

// TestTooBig: a packet that the overlay does not carry is answered with the
// size that it does.
func TestTooBig(t *testing.T) {
	n, ask := newTown(t)
	web := n.Host(snapshot.Addr{VNI: 1, IP: web4})
	for _, c := range []struct {
		src, dst netip.Addr
		size     int // of the IP packet
		big      bool
	}{
		{web4, far4, 1450, false}, {web4, far4, 1451, true}, {web4, far4, 3000, true},
		{web6, far6, 1450, false}, {web6, far6, 1451, true},
		{web4, db4, 3000, false}, // never leaves the node
	} {
		p := tcp(c.src, c.dst)
		p.Protocol, p.Fragment = policy.UDP, 0x4000
		header := 28
		if c.src.Is6() {
			header = 48
		}
		p.Payload = make([]byte, c.size-header)
		j := ask(web, p.Frame())
		if !c.big {
			if !j.Allow {
				t.Errorf("%s of %d bytes: %+v", c.dst, c.size, j)
			}
			continue
		}
		seen, err := proving.Read(j.Packet)
		if err != nil || j.Action != datapath.Answer || j.Drop != "too-big" || seen.Src != c.dst || seen.Dst != c.src || seen.DstMAC != macWeb || !seen.ChecksumOK {
			t.Fatalf("%s of %d bytes: %s %s %+v %v", c.dst, c.size, j.Action, j.Drop, seen, err)
		}
		mtu := binary.BigEndian.Uint16(j.Packet[14+20+6:])
		kind := uint16(3<<8 | 4)
		if c.src.Is6() {
			mtu, kind = binary.BigEndian.Uint16(j.Packet[14+40+6:]), 2<<8
		}
		if mtu != 1450 || seen.SrcPort != kind {
			t.Errorf("%s: says %d, type %x", c.dst, mtu, seen.SrcPort)
		}
		if !bytes.Equal(seen.Payload, p.Frame()[14:14+68]) {
			t.Errorf("%s: quotes %x", c.dst, seen.Payload)
		}
	}
}

// TestSessions: replies pass, fragments follow their first, errors find the
// session that they are about.
func TestSessions(t *testing.T) {
	needRoot(t)
	s := town()
	// db may be talked to on 80 and answers; on its own it may say nothing.
	s.Policies[snapshot.PolicyKey{VNI: 1, Identity: 12, Direction: policy.Egress}] = policy.Set{Isolated: "isolated/db"}
	s.Policies[snapshot.PolicyKey{VNI: 1, Identity: 12, Direction: policy.Ingress}] = policy.Set{Isolated: "isolated/db", Rules: []policy.Rule{
		{ID: "web", Tier: policy.Project, Action: policy.Allow, Ports: []policy.PortRange{
			{Protocol: policy.TCP, First: 80, Last: 80}, {Protocol: policy.UDP, First: 53, Last: 53}, {Protocol: policy.ICMP, Last: 65535}}},
	}}
	n, err := proving.New(s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, v6 := range []bool{false, true} {
		web, db, far := web4, db4, far4
		if v6 {
			web, db, far = web6, db6, far6
		}
		for _, src := range []netip.Addr{web, far} {
			testSession(t, n, src, db)
		}
	}
	closed := *s
	closed.Policies = maps.Clone(s.Policies)
	closed.Policies[snapshot.PolicyKey{VNI: 1, Identity: 12, Direction: policy.Ingress}] = policy.Set{Isolated: "isolated/db"}
	if err := n.Apply(&closed); err != nil {
		t.Fatal(err)
	}
	about := proving.Packet{Src: db4, Dst: web4, Protocol: policy.ICMP, ICMPType: 3, Payload: innerOf(web4, db4, 1000, 80)}
	if j, err := n.Ask(1, about); err != nil || j.Drop != "ct-unrelated" {
		t.Errorf("an error about a session that is not allowed any more: %+v %v", j, err)
	}
}

func testSession(t *testing.T, n *proving.Node, src, db netip.Addr) {
	if err := n.Forget(); err != nil {
		t.Fatal(err)
	}
	ask := func(name string, p proving.Packet, allow bool, rule string) {
		t.Helper()
		j, err := n.Ask(1, p)
		if err != nil {
			t.Fatal(err)
		}
		if j.Allow != allow || rule != "" && j.Rule != rule && j.IngressRule != rule && j.Drop != rule {
			t.Errorf("%s -> db, %s: %+v, want allow=%v by %s", src, name, j, allow, rule)
		}
	}
	request := proving.Packet{Src: src, Dst: db, Protocol: policy.TCP, SrcPort: 1000, DstPort: 80}
	reply := proving.Packet{Src: db, Dst: src, Protocol: policy.TCP, SrcPort: 80, DstPort: 1000, TCPFlags: 0x12}
	ask("reply before", reply, false, "isolated/db")
	ask("request", request, true, "web")
	ask("reply", reply, true, "web")
	syn := reply
	syn.TCPFlags = 2
	ask("SYN from the answering side", syn, false, "isolated/db")
	ask("reply after it", reply, true, "web")
	request.DstPort = 81
	ask("other port", request, false, "isolated/db")
	echo := proving.Packet{Src: src, Dst: db, Protocol: policy.ICMP, SrcPort: 9}
	back := proving.Packet{Src: db, Dst: src, Protocol: policy.ICMP, SrcPort: 9, EchoReply: true}
	ask("echo reply before", back, false, "ct-unrelated")
	ask("echo", echo, true, "web")
	ask("echo reply", back, true, "web")
	own := back
	own.EchoReply = false
	ask("own echo with the same id", own, false, "isolated/db")
	fail := proving.Packet{Src: db, Dst: src, Protocol: policy.ICMP, ICMPType: 3, Payload: innerOf(src, db, 1000, 80)}
	if src.Is6() {
		fail.ICMPType = 1
	}
	ask("error about the session", fail, true, "web")
	fail.Payload = innerOf(src, db, 1001, 80)
	ask("error about no session", fail, false, "ct-unrelated")
	other := fail // who is no end of the session says nothing about it
	other.Src, other.Payload = far4, innerOf(src, db, 1000, 80)
	if src.Is6() {
		other.Src = far6
	}
	if other.Src != src {
		ask("error from somebody else", other, false, "ct-unrelated")
	}
	if src.Is6() {
		fragment := func(id byte, offset, more byte, body []byte) proving.Packet {
			return proving.Packet{Src: src, Dst: db, Protocol: 44, Raw: append([]byte{policy.UDP, 0, 0, offset<<3 | more, 0, 0, 0, id}, body...)}
		}
		udp := []byte{0, 5, 0, 53, 0, 72, 0, 0}
		ask("later fragment before", fragment(9, 1, 0, make([]byte, 64)), false, "ct-fragment")
		ask("first fragment", fragment(9, 0, 1, append(udp, make([]byte, 64)...)), true, "web")
		ask("later fragment", fragment(9, 9, 0, make([]byte, 64)), true, "web")
		ask("fragment of another packet", fragment(8, 9, 0, make([]byte, 64)), false, "ct-fragment")
		options := proving.Packet{Src: src, Dst: db, Protocol: 60, Raw: append([]byte{policy.UDP, 0, 1, 4, 0, 0, 0, 0}, udp...)}
		ask("after destination options", options, true, "web")
	}
	if src.Is4() {
		redirect := fail
		redirect.ICMPType, redirect.Payload = 5, innerOf(src, db, 1000, 80)
		ask("redirect about the session", redirect, false, "unsupported")
		first := proving.Packet{Src: src, Dst: db, Protocol: policy.UDP, SrcPort: 5, DstPort: 53, Fragment: 0x2000, ID: 99, Payload: make([]byte, 64)}
		later := proving.Packet{Src: src, Dst: db, Protocol: policy.UDP, Fragment: 9, ID: 99, Raw: make([]byte, 64)}
		ask("later fragment before", later, false, "ct-fragment")
		ask("first fragment", first, true, "web")
		ask("later fragment", later, true, "web")
		later.ID = 100
		ask("fragment of another packet", later, false, "ct-fragment")
		if src == web4 {
			first.ID, later.ID, first.SrcMAC, first.DstMAC = 98, 98, macDB, macDB // it is db who says so
			if j, err := n.Frame(n.Host(snapshot.Addr{VNI: 1, IP: db}), first.Frame()); err != nil || j.Drop != "spoofed-ip" {
				t.Errorf("first fragment in the name of another: %+v %v", j, err)
			}
			ask("later fragment, the first was another's", later, false, "ct-fragment")
			back.Fragment, back.ID, back.SrcPort, back.Payload = 0x2000, 97, 77, make([]byte, 64)
			ask("first fragment of an echo reply to nothing", back, false, "ct-unrelated")
			rest := proving.Packet{Src: db, Dst: src, Protocol: policy.ICMP, Fragment: 9, ID: 97, Raw: make([]byte, 64)}
			ask("later fragment of it", rest, false, "ct-unrelated")
		}
	}
}

// innerOf is what an ICMP error quotes.
func innerOf(src, dst netip.Addr, sport, dport uint16) []byte {
	return proving.Packet{Src: src, Dst: dst, Protocol: policy.TCP, SrcPort: sport, DstPort: dport}.Frame()[14:]
}
