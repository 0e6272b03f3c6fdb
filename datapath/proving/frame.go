package proving

import (
	"encoding/binary"
	"net/netip"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Packet describes a packet of a workload.
type Packet struct {
	SrcMAC, DstMAC snapshot.MAC
	Src, Dst       netip.Addr
	// Protocol is the IP protocol number; policy.ICMP is ICMPv6 between IPv6
	// addresses.
	Protocol uint8
	// SrcPort and DstPort; of an ICMP echo, SrcPort is the id.
	SrcPort, DstPort uint16
	// TCPFlags, 0: SYN.
	TCPFlags uint8
	// ICMPType, 0: echo request. EchoReply says it is a reply.
	ICMPType  uint8
	EchoReply bool
	// Payload after the transport header.
	Payload []byte
	// IPv4 options (a multiple of 4 bytes), and the flags and offset word.
	Options  []byte
	Fragment uint16
	// ID of the IPv4 packet.
	ID uint16
	// Raw, when not nil, is everything after the IP header.
	Raw []byte
	// Spoken: a socket of a proxy makes it.
	Spoken bool
}

const (
	icmp6     = 58
	ethHeader = 14
)

// Frame builds the Ethernet frame.
func (p Packet) Frame() []byte {
	f := append(append([]byte{}, p.DstMAC[:]...), p.SrcMAC[:]...)
	body := p.Raw
	if body == nil {
		body = p.transport()
	}
	if p.Src.Is4() {
		f = binary.BigEndian.AppendUint16(f, 0x0800)
		f = append(f, p.ipv4(len(body))...)
	} else {
		f = binary.BigEndian.AppendUint16(f, 0x86dd)
		f = append(f, p.ipv6(len(body))...)
	}
	return append(f, body...)
}

func (p Packet) protocol() uint8 {
	if p.Protocol == policy.ICMP && p.Src.Is6() {
		return icmp6
	}
	return p.Protocol
}

func (p Packet) ipv4(body int) []byte {
	h := make([]byte, 20, 20+len(p.Options))
	h = append(h, p.Options...)
	h[0] = 0x40 | byte(len(h)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+body))
	binary.BigEndian.PutUint16(h[4:], p.ID)
	binary.BigEndian.PutUint16(h[6:], p.Fragment)
	h[8], h[9] = 64, p.protocol()
	copy(h[12:], p.Src.AsSlice())
	copy(h[16:], p.Dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], Checksum(0, h))
	return h
}

func (p Packet) ipv6(body int) []byte {
	h := make([]byte, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(body))
	h[6], h[7] = p.protocol(), 64
	if p.ICMPType >= 133 && p.ICMPType <= 137 {
		h[7] = 255
	}
	copy(h[8:], p.Src.AsSlice())
	copy(h[24:], p.Dst.AsSlice())
	return h
}

func (p Packet) transport() []byte {
	var h []byte
	at := -1 // of the checksum
	switch p.protocol() {
	case policy.TCP:
		h, at = make([]byte, 20), 16
		h[12], h[13] = 5<<4, p.TCPFlags
		if p.TCPFlags == 0 {
			h[13] = 2
		}
	case policy.UDP:
		h, at = make([]byte, 8), 6
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(p.Payload)))
	case policy.SCTP:
		h = make([]byte, 12)
	case policy.ICMP, icmp6:
		h, at = make([]byte, 8), 2
		h[0] = p.icmpType()
		binary.BigEndian.PutUint16(h[4:], p.SrcPort)
	}
	if proto := p.protocol(); proto == policy.TCP || proto == policy.UDP || proto == policy.SCTP {
		binary.BigEndian.PutUint16(h, p.SrcPort)
		binary.BigEndian.PutUint16(h[2:], p.DstPort)
	}
	h = append(h, p.Payload...)
	if at >= 0 {
		sum := uint32(0)
		if p.protocol() != policy.ICMP {
			sum = PseudoSum(p.Src, p.Dst, p.protocol(), len(h))
		}
		binary.BigEndian.PutUint16(h[at:], Checksum(sum, h))
	}
	return h
}

func (p Packet) icmpType() uint8 {
	switch {
	case p.ICMPType != 0:
		return p.ICMPType
	case p.Src.Is4() && p.EchoReply:
		return 0
	case p.Src.Is4():
		return 8
	case p.EchoReply:
		return 129
	}
	return 128
}

// PseudoSum is the sum of the pseudo header.
func PseudoSum(src, dst netip.Addr, proto uint8, length int) uint32 {
	sum := uint32(proto) + uint32(length)
	for _, b := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	return sum
}

// Checksum is the internet checksum of b, continued from sum.
func Checksum(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Encapsulate puts a frame into VXLAN between two nodes.
func Encapsulate(src, dst netip.Addr, vni snapshot.VNI, frame []byte) []byte {
	vxlan := make([]byte, 8)
	vxlan[0] = 8
	binary.BigEndian.PutUint32(vxlan[4:], uint32(vni)<<8)
	p := Packet{
		Src: src, Dst: dst, Protocol: policy.UDP, SrcPort: 50000, DstPort: 4789, Payload: append(vxlan, frame...),
		SrcMAC: snapshot.MAC{2, 0, 0, 0, 1, 1}, DstMAC: snapshot.MAC{2, 0, 0, 0, 1, 2},
	}
	f := p.Frame()
	at := ethHeader + 20 + 6
	if src.Is6() {
		at += 20
	}
	f[at], f[at+1] = 0, 0 // VXLAN goes without a UDP checksum
	return f
}

// ARP builds a request (op 1) or a reply (op 2).
func ARP(op uint16, eth, sha snapshot.MAC, spa, tpa netip.Addr) []byte {
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, eth[:]...)
	f = append(f, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4)
	f = binary.BigEndian.AppendUint16(f, op)
	f = append(append(f, sha[:]...), spa.AsSlice()...)
	return append(append(f, 0, 0, 0, 0, 0, 0), tpa.AsSlice()...)
}

// Neighbour builds a neighbour solicitation (135) or advertisement (136) for
// target; with a MAC it has the link-layer address option.
func Neighbour(kind uint8, eth snapshot.MAC, src, dst, target netip.Addr, option *snapshot.MAC) []byte {
	payload := append([]byte{}, target.AsSlice()...)
	if option != nil {
		payload = append(append(payload, kind-134, 1), option[:]...)
	}
	return Packet{
		SrcMAC: eth, DstMAC: snapshot.MAC{0x33, 0x33, 0xff, 0, 0, 1}, Src: src, Dst: dst, Protocol: policy.ICMP,
		ICMPType: kind, Payload: payload,
	}.Frame()
}
