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

// FuzzFrame gives any frame to the programs in the kernel. Whatever is let
// through has the source of whoever sent it.
func FuzzFrame(f *testing.F) {
	needRoot(f)
	n, err := proving.New(town())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	for _, p := range []proving.Packet{
		tcp(web4, db4), tcp(web6, far6), tcp(db4, web4),
		{SrcMAC: macWeb, DstMAC: macDB, Src: web4, Dst: far4, Protocol: policy.UDP, Fragment: 0x2000, ID: 7, Payload: make([]byte, 64)},
		{SrcMAC: macWeb, DstMAC: macDB, Src: web4, Dst: db4, Protocol: policy.ICMP, ICMPType: 3, Payload: tcp(db4, web4).Frame()[14:]},
		{SrcMAC: macWeb, DstMAC: macDB, Src: web6, Dst: db6, Protocol: 60, Raw: append([]byte{policy.UDP, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 16)...)},
		{SrcMAC: macWeb, DstMAC: macDB, Src: web6, Dst: db6, Protocol: policy.SCTP, SrcPort: 1, DstPort: 2},
		{SrcMAC: macFar, DstMAC: macDB, Src: far4, Dst: db4, Protocol: policy.UDP},
	} {
		f.Add(p.Frame(), false)
		f.Add(p.Frame(), true)
	}
	web := n.Host(snapshot.Addr{VNI: 1, IP: web4})
	f.Fuzz(func(t *testing.T, frame []byte, tunnel bool) {
		if len(frame) < 14 || len(frame) > 1400 {
			return
		}
		from, packet, own := web, frame, []netip.Addr{web4, web6}
		if tunnel {
			from, packet, own = datapath.Uplink, proving.Encapsulate(there, here, 1, frame), []netip.Addr{far4, far6}
		}
		j, err := n.Frame(from, packet)
		if err != nil {
			return // the kernel does not run what is no frame at all
		}
		if !j.Allow {
			return
		}
		var src netip.Addr
		switch binary.BigEndian.Uint16(frame[12:]) {
		case 0x0800:
			src = netip.AddrFrom4([4]byte(frame[26:]))
		case 0x86dd:
			src = netip.AddrFrom16([16]byte(frame[22:]))
		}
		if src != own[0] && src != own[1] {
			t.Errorf("%x from %s passes with source %s: %+v", frame, from, src, j)
		}
		if !tunnel && !bytes.Equal(frame[6:12], macWeb[:]) {
			t.Errorf("%x passes with another MAC: %+v", frame, j)
		}
	})
}
