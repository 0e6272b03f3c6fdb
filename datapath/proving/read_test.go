package proving

import (
	"bytes"
	"net/netip"
	"testing"

	"moire.dev/moire/snapshot"
)

var (
	one4, two4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	one6, two6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	mac        = snapshot.MAC{2, 0, 0, 0, 0, 1}
)

// TestReadFrame: what is built is read.
func TestReadFrame(t *testing.T) {
	for _, p := range []Packet{
		{Src: one4, Dst: two4, Protocol: 6, SrcPort: 1, DstPort: 2, SrcMAC: mac},
		{Src: one6, Dst: two6, Protocol: 6, SrcPort: 1, DstPort: 2, Payload: []byte("abc")},
		{Src: one4, Dst: two4, Protocol: 17, SrcPort: 1, DstPort: 2, Options: []byte{1, 1, 1, 0}},
		{Src: one6, Dst: two6, Protocol: 132, SrcPort: 1, DstPort: 2},
		{Src: one4, Dst: two4, Protocol: 1, SrcPort: 2},
		{Src: one6, Dst: two6, Protocol: 1, SrcPort: 2, EchoReply: true},
	} {
		s, err := Read(p.Frame())
		if err != nil || s.Src != p.Src || s.Dst != p.Dst || s.SrcMAC != p.SrcMAC || !s.ChecksumOK || s.Protocol != p.protocol() || s.DstPort != 2 {
			t.Errorf("%+v: %+v %v", p, s, err)
		}
	}
	inner := Packet{Src: one6, Dst: two6, Protocol: 17}.Frame()
	for _, ends := range [][2]netip.Addr{{one4, two4}, {one6, two6}} {
		outer, vni, got, err := Decapsulate(Encapsulate(ends[0], ends[1], 77, inner))
		if err != nil || vni != 77 || !bytes.Equal(got, inner) || outer.Src != ends[0] {
			t.Errorf("%v %d %x %v", outer, vni, got, err)
		}
	}
	arp, err := Read(ARP(2, mac, mac, one4, two4))
	if err != nil || arp.SrcPort != 2 || arp.Src != one4 || arp.Dst != two4 || snapshot.MAC(arp.Payload) != mac {
		t.Errorf("%+v %v", arp, err)
	}
}

// FuzzRead: no frame makes the reader panic or read what is not there.
func FuzzRead(f *testing.F) {
	f.Add(Packet{Src: one4, Dst: two4, Protocol: 6}.Frame())
	f.Add(Packet{Src: one6, Dst: two6, Protocol: 1}.Frame())
	f.Add(ARP(1, mac, mac, one4, two4))
	f.Add(Neighbour(135, mac, one6, two6, two6, &mac))
	f.Add(Encapsulate(one4, two4, 1, Packet{Src: one4, Dst: two4, Protocol: 17}.Frame()))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if s, err := Read(frame); err == nil && len(s.Payload) > len(frame) {
			t.Fatalf("%d bytes of payload in %d", len(s.Payload), len(frame))
		}
		if _, vni, inner, err := Decapsulate(frame); err == nil && (vni > 1<<24-1 || len(inner) > len(frame)) {
			t.Fatalf("network %d, %d bytes", vni, len(inner))
		}
	})
}
