package datapath

import (
	"encoding/binary"
	"net/netip"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// words turns 16 bytes into the words of an address, each in network order.
func words(b [16]byte) bpf.MoireAddr {
	var a bpf.MoireAddr
	for i := range a.W {
		a.W[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return a
}

// addrOf encodes an address as the programs hold it; IPv4 is ::ffff:a.b.c.d.
func addrOf(ip netip.Addr) bpf.MoireAddr { return words(ip.As16()) }

// ipOf is the inverse of addrOf.
func ipOf(a bpf.MoireAddr) netip.Addr {
	var b [16]byte
	for i, w := range a.W {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

func addrKey(vni snapshot.VNI, ip netip.Addr) bpf.MoireAddrKey {
	return bpf.MoireAddrKey{Addr: addrOf(ip), Vni: uint32(vni)}
}

// ntohs swaps a port between the packet's and the machine's order.
func ntohs(p uint16) uint16 { return p<<8 | p>>8 }

// prefixKey is a row of a longest-match table under number (a VNI or a set).
func prefixKey(number uint32, p netip.Prefix) bpf.MoireRouteKey {
	k := bpf.MoireRouteKey{Bits: uint32(64 + p.Bits()), Vni: number}
	family := uint32(6)
	if p.Addr().Is4() {
		family = 4
	}
	k.Family = binary.LittleEndian.Uint32(binary.BigEndian.AppendUint32(nil, family))
	copy(k.Addr[:], p.Masked().Addr().AsSlice())
	return k
}

// gatewayOf is the first host address of a prefix.
func gatewayOf(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// headerSum is the one's complement sum of the outer IPv4 header without its
// length, as the programs continue it.
func headerSum(src, dst netip.Addr) uint32 {
	if !src.Is4() || !dst.Is4() {
		return 0
	}
	h := make([]byte, 20)
	h[0] = 0x45
	h[6] = 0x40 // don't fragment
	h[8], h[9] = 64, 17
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.LittleEndian.Uint16(h[i:]))
	}
	return sum
}

func ruleText(r bpf.MoireRuleName) string {
	b := make([]byte, 0, len(r.Text))
	for _, c := range r.Text {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

func ruleName(text string) (r bpf.MoireRuleName) {
	for i := range min(len(text), len(r.Text)) {
		r.Text[i] = int8(text[i])
	}
	return r
}
