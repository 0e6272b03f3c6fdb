package datapath_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"moire.dev/moire/datapath"
	"moire.dev/moire/datapath/proving"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

var (
	pool4 = netip.MustParseAddr("10.1.0.99")
	pool6 = netip.MustParseAddr("fd10::99")
)

// mapped is the town with addresses in network 1 that lead, from port 80 to
// 8080, to db of network 2, which is here.
func mapped(t *testing.T) (*proving.Node, func(from string, frame []byte) datapath.Judgement) {
	needRoot(t)
	s := town()
	s.Services = map[snapshot.ServiceKey]snapshot.Service{}
	for from, to := range map[netip.Addr]netip.Addr{pool4: db4, pool6: db6} {
		for _, proto := range []uint8{policy.TCP, policy.UDP} {
			v := snapshot.Service{Project: "p", Name: "f", Floating: true}
			v.ServiceKey = snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 1, IP: from}, Protocol: proto, Port: 80}
			v.Backends = []snapshot.Backend{{Addr: snapshot.Addr{VNI: 2, IP: to}, Port: 8080, Weight: 1, Node: "here"}}
			s.Services[v.ServiceKey] = v
		}
	}
	n, err := proving.New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n, func(from string, frame []byte) datapath.Judgement {
		t.Helper()
		j, err := n.Frame(from, frame)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
}

// TestTwoViews: a packet is delivered as its receiver sees it and its answer as
// the sender does, with checksums that are right, or none where there was none;
// so are ICMP errors and what they quote.
func TestTwoViews(t *testing.T) {
	n, ask := mapped(t)
	db := n.Host(snapshot.Addr{VNI: 2, IP: db4})
	in := func(p proving.Packet) datapath.Judgement {
		p.SrcMAC = macFar
		return ask(datapath.Uplink, proving.Encapsulate(there, here, 1, p.Frame()))
	}
	back := func(frame []byte) proving.Seen {
		t.Helper()
		j := ask(db, frame)
		_, vni, inner, err := proving.Decapsulate(j.Packet)
		if err != nil || j.Action != datapath.Send || vni != 1 {
			t.Fatalf("%+v vni %d: %v", j, vni, err)
		}
		seen, err := proving.Read(inner)
		if err != nil || !seen.ChecksumOK {
			t.Fatalf("%+v %v", seen, err)
		}
		return seen
	}
	for _, c := range []struct{ far, pool, db netip.Addr }{{far4, pool4, db4}, {far6, pool6, db6}} {
		for _, proto := range []uint8{policy.TCP, policy.UDP} {
			for _, payload := range []string{"", "odd", "even"} {
				p := proving.Packet{Src: c.far, Dst: c.pool, Protocol: proto, SrcPort: 1000 + uint16(len(payload)), DstPort: 80, Payload: []byte(payload)}
				j := in(p)
				seen, err := proving.Read(j.Packet)
				if err != nil || j.Action != datapath.Deliver || !seen.ChecksumOK || seen.Src != c.far || seen.Dst != c.db || seen.DstPort != 8080 || seen.SrcPort != p.SrcPort {
					t.Fatalf("%+v: %+v %+v %v", p, j, seen, err)
				}
				answer := proving.Packet{SrcMAC: macDB, Src: c.db, Dst: c.far, Protocol: proto, SrcPort: 8080, DstPort: p.SrcPort, TCPFlags: 0x12, Payload: []byte(payload)}
				if seen := back(answer.Frame()); seen.Src != c.pool || seen.SrcPort != 80 || seen.Dst != c.far || seen.DstPort != p.SrcPort {
					t.Errorf("%+v came back as %+v", answer, seen)
				}
				checkError(t, back, c.far, c.pool, c.db, p)
			}
		}
	}
}

// checkError has db complain about p, as it saw it.
func checkError(t *testing.T, back func([]byte) proving.Seen, far, pool, db netip.Addr, p proving.Packet) {
	t.Helper()
	p.Dst, p.DstPort = db, 8080
	quote := p.Frame()[14:]
	body, proto := append(make([]byte, 8), quote...), uint8(policy.ICMP)
	body[0], body[1] = 3, 3
	if far.Is6() {
		body[0], body[1], proto = 1, 4, 58
	}
	e := proving.Packet{SrcMAC: macDB, Src: db, Dst: far, Protocol: proto, Raw: body}
	sum := uint32(0)
	if far.Is6() {
		sum = proving.PseudoSum(db, far, proto, len(body))
	}
	binary.BigEndian.PutUint16(body[2:], proving.Checksum(sum, body))
	seen := back(e.Frame())
	inner, err := proving.Read(append(make([]byte, 12), append([]byte{byte(0x08*bit(far.Is4()) + 0x86*bit(far.Is6())), byte(0xdd * bit(far.Is6()))}, seen.Payload...)...))
	if err != nil || seen.Src != pool || inner.Src != far || inner.Dst != pool || inner.DstPort != 80 || inner.SrcPort != p.SrcPort || !inner.ChecksumOK {
		t.Errorf("error %+v quotes %+v: %v", seen, inner, err)
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestTwoViewsZero: a UDP datagram over IPv4 without a checksum gets none.
func TestTwoViewsZero(t *testing.T) {
	_, ask := mapped(t)
	p := proving.Packet{SrcMAC: macFar, Src: far4, Dst: pool4, Protocol: policy.UDP, SrcPort: 1000, DstPort: 80, Payload: []byte("x")}
	f := p.Frame()
	f[14+20+6], f[14+20+7] = 0, 0
	j := ask(datapath.Uplink, proving.Encapsulate(there, here, 1, f))
	if seen, err := proving.Read(j.Packet); err != nil || !seen.ChecksumOK || seen.DstPort != 8080 || j.Packet[14+26] != 0 || j.Packet[14+27] != 0 {
		t.Errorf("%+v %+v %v", j, seen, err)
	}
}

// TestTwoViewsFragments: later fragments get the addresses, and their payload
// stays.
func TestTwoViewsFragments(t *testing.T) {
	_, ask := mapped(t)
	first := proving.Packet{SrcMAC: macFar, Src: far4, Dst: pool4, Protocol: policy.UDP, SrcPort: 1000, DstPort: 80, Payload: make([]byte, 16), Fragment: 0x2000, ID: 9}
	later := first
	later.Fragment, later.Raw = 3, []byte("the rest of it: 24 bytes")
	for _, p := range []proving.Packet{first, later} {
		j := ask(datapath.Uplink, proving.Encapsulate(there, here, 1, p.Frame()))
		seen, err := proving.Read(j.Packet)
		if err != nil || j.Action != datapath.Deliver || seen.Dst != db4 || seen.Src != far4 || !seen.ChecksumOK {
			t.Fatalf("%+v %+v %v", j, seen, err)
		}
		if p.Raw != nil && string(j.Packet[34:]) != string(p.Raw) {
			t.Errorf("payload became %q", j.Packet[34:])
		}
	}
}
