package lab

import (
	"encoding/binary"
	"net/netip"

	"moire.dev/moire/snapshot"
)

// frame is the first Ethernet frame of a flow, as a Workload would send it.
func frame(mac snapshot.MAC, src, dst netip.Addr, proto uint8, sport, dport uint16) []byte {
	payload := transport(proto, src.Is6(), sport, dport)
	b := append(append([]byte{}, snapshot.RouterMAC[:]...), mac[:]...)
	if src.Is4() {
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], checksum(ip))
		return append(append(append(b, 0x08, 0x00), ip...), payload...)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, proto, 64
	if proto == protoICMP {
		ip[6] = 58
	}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	return append(append(append(b, 0x86, 0xdd), ip...), payload...)
}

// transport is a TCP SYN, a UDP datagram, an SCTP header or an echo request.
func transport(proto uint8, six bool, sport, dport uint16) []byte {
	if proto == protoICMP {
		b := []byte{8, 0, 0, 0, byte(sport >> 8), byte(sport), 0, 1}
		if six {
			b[0] = 128
		}
		return b
	}
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	switch proto {
	case protoTCP:
		b = append(b, make([]byte, 16)...)
		b[12], b[13] = 5<<4, 0x02 // header length, SYN
	case protoUDP:
		b = binary.BigEndian.AppendUint16(b, 12)
		b = append(b, make([]byte, 6)...)
	case protoSCTP:
		b = append(b, make([]byte, 8)...)
	}
	return b
}

// inVXLAN wraps a frame as another node would send it.
func inVXLAN(inner []byte, vni snapshot.VNI, from, to netip.Addr) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 50000)
	udp = binary.BigEndian.AppendUint16(udp, 4789)
	udp = binary.BigEndian.AppendUint16(udp, uint16(16+len(inner)))
	udp = append(udp, 0, 0, 0x08, 0, 0, 0, byte(vni>>16), byte(vni>>8), byte(vni), 0)
	udp = append(udp, inner...)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
	copy(ip[12:], from.AsSlice())
	copy(ip[16:], to.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00}
	return append(append(b, ip...), udp...)
}
