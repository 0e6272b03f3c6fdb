package proving

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"moire.dev/moire/snapshot"
)

// Seen is what a frame says, read independently of the programs.
type Seen struct {
	SrcMAC, DstMAC snapshot.MAC
	EtherType      uint16
	Src, Dst       netip.Addr // of ARP: sender and target
	Protocol       uint8
	// SrcPort and DstPort of TCP, UDP and SCTP; type<<8|code and id of ICMP;
	// operation of ARP.
	SrcPort, DstPort uint16
	// ChecksumOK: the checksums of the IPv4 header and of ICMP, UDP (or it has
	// none) and TCP are right.
	ChecksumOK bool
	// Payload after the first 8 bytes of the transport header; of ARP, the
	// sender's MAC.
	Payload []byte
	// Length of the IP packet as its header says.
	Length int
}

var errShort = errors.New("the frame is cut off")

// Read reads a frame without VLAN tags, extension headers or fragments.
func Read(f []byte) (Seen, error) {
	var s Seen
	if len(f) < ethHeader {
		return s, errShort
	}
	copy(s.DstMAC[:], f)
	copy(s.SrcMAC[:], f[6:])
	s.EtherType = binary.BigEndian.Uint16(f[12:])
	switch s.EtherType {
	case 0x0806:
		return readARP(s, f[ethHeader:])
	case 0x0800:
		return read4(s, f[ethHeader:])
	case 0x86dd:
		return read6(s, f[ethHeader:])
	}
	return s, errors.New("neither ARP nor IP")
}

func readARP(s Seen, b []byte) (Seen, error) {
	if len(b) < 28 {
		return s, errShort
	}
	s.SrcPort = binary.BigEndian.Uint16(b[6:])
	s.Payload = b[8:14]
	s.Src, _ = netip.AddrFromSlice(b[14:18])
	s.Dst, _ = netip.AddrFromSlice(b[24:28])
	return s, nil
}

func read4(s Seen, b []byte) (Seen, error) {
	if len(b) < 20 {
		return s, errShort
	}
	head := int(b[0]&15) * 4
	s.Length = int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || head < 20 || s.Length < head || len(b) < s.Length {
		return s, errShort
	}
	s.Src, _ = netip.AddrFromSlice(b[12:16])
	s.Dst, _ = netip.AddrFromSlice(b[16:20])
	s.Protocol = b[9]
	s.ChecksumOK = Checksum(0, b[:head]) == 0
	sum := uint32(0)
	if s.Protocol != 1 {
		sum = PseudoSum(s.Src, s.Dst, s.Protocol, s.Length-head)
	}
	s, err := readTransport(s, b[head:s.Length], sum)
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 { // a part: its checksum cannot be known
		s.ChecksumOK = Checksum(0, b[:head]) == 0
	}
	return s, err
}

func read6(s Seen, b []byte) (Seen, error) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return s, errShort
	}
	body := int(binary.BigEndian.Uint16(b[4:]))
	s.Length = 40 + body
	if len(b) < s.Length {
		return s, errShort
	}
	s.Src, _ = netip.AddrFromSlice(b[8:24])
	s.Dst, _ = netip.AddrFromSlice(b[24:40])
	s.Protocol = b[6]
	s.ChecksumOK = true
	return readTransport(s, b[40:s.Length], PseudoSum(s.Src, s.Dst, s.Protocol, body))
}

func readTransport(s Seen, b []byte, sum uint32) (Seen, error) {
	if len(b) < 8 {
		return s, errShort
	}
	s.SrcPort, s.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if s.Protocol == 1 || s.Protocol == icmp6 {
		s.ChecksumOK = s.ChecksumOK && Checksum(sum, b) == 0
		s.DstPort = binary.BigEndian.Uint16(b[4:])
	}
	if s.Protocol == 6 || s.Protocol == 17 && binary.BigEndian.Uint16(b[6:]) != 0 {
		s.ChecksumOK = s.ChecksumOK && Checksum(sum, b) == 0
	}
	s.Payload = b[8:]
	return s, nil
}

// Decapsulate takes the inner frame out of a VXLAN frame.
func Decapsulate(f []byte) (outer Seen, vni snapshot.VNI, inner []byte, err error) {
	outer, err = Read(f)
	if err != nil {
		return outer, 0, nil, err
	}
	if outer.Protocol != 17 || outer.DstPort != 4789 || len(outer.Payload) < 8 || outer.Payload[0]&8 == 0 {
		return outer, 0, nil, errors.New("not VXLAN")
	}
	return outer, snapshot.VNI(binary.BigEndian.Uint32(outer.Payload[4:]) >> 8), outer.Payload[8:], nil
}
