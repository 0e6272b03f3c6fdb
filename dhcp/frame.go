package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"moire.dev/moire/snapshot"
)

// Numbers of the protocols.
const (
	ethLen, ip4Len, ip6Len, udpLen = 14, 20, 40, 8

	ethIPv4, ethIPv6 = 0x0800, 0x86dd

	protoUDP, protoICMPv6 = 17, 58

	serverPort4, clientPort4 = 67, 68
	serverPort6, clientPort6 = 547, 546

	routerSolicitation = 133
)

// packet is what matters of a frame.
type packet struct {
	dstMAC, srcMAC snapshot.MAC
	src, dst       netip.Addr
	proto          byte
	sport, dport   uint16 // of UDP
	hops           byte
	payload        []byte // of UDP, or the ICMPv6 message
}

var errFrame = errors.New("not a whole frame of ours")

// parse takes a frame apart. Checksums are not looked at: a machine leaves them
// to offloads that are never done on the way here.
func parse(frame []byte) (p packet, err error) {
	if len(frame) < ethLen {
		return p, errFrame
	}
	copy(p.dstMAC[:], frame)
	copy(p.srcMAC[:], frame[6:])
	body := frame[ethLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case ethIPv4:
		body, err = p.ipv4(body)
	case ethIPv6:
		body, err = p.ipv6(body)
	default:
		err = errFrame
	}
	if err != nil {
		return p, err
	}
	if p.proto == protoICMPv6 && p.src.Is6() {
		p.payload = body
		return p, nil
	}
	if p.proto != protoUDP || len(body) < udpLen {
		return p, errFrame
	}
	p.sport, p.dport = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	length := int(binary.BigEndian.Uint16(body[4:]))
	if length < udpLen || length > len(body) {
		return p, errFrame
	}
	p.payload = body[udpLen:length]
	return p, nil
}

func (p *packet) ipv4(b []byte) ([]byte, error) {
	if len(b) < ip4Len || b[0]>>4 != 4 {
		return nil, errFrame
	}
	head, length := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	fragment := binary.BigEndian.Uint16(b[6:])&0x3fff != 0
	if head < ip4Len || length < head || length > len(b) || fragment {
		return nil, errFrame
	}
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.proto, p.hops = b[9], b[8]
	return b[head:length], nil
}

func (p *packet) ipv6(b []byte) ([]byte, error) {
	if len(b) < ip6Len || b[0]>>4 != 6 {
		return nil, errFrame
	}
	length := ip6Len + int(binary.BigEndian.Uint16(b[4:]))
	if length > len(b) {
		return nil, errFrame
	}
	p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	p.proto, p.hops = b[6], b[7]
	return b[ip6Len:length], nil
}

// to is where an answer goes.
type to struct {
	mac          snapshot.MAC
	src, dst     netip.Addr
	sport, dport uint16
}

// udp puts a payload into a frame.
func (t to) udp(payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, t.sport)
	b = binary.BigEndian.AppendUint16(b, t.dport)
	b = binary.BigEndian.AppendUint16(b, uint16(udpLen+len(payload)))
	b = append(append(b, 0, 0), payload...)
	sum := checksum(pseudo(t.src, t.dst, protoUDP, len(b)), b)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return t.ip(protoUDP, 64, b)
}

// ip puts a transport header and what follows into a frame.
func (t to) ip(proto, hops byte, body []byte) []byte {
	f := append([]byte(nil), t.mac[:]...)
	f = append(f, snapshot.RouterMAC[:]...)
	if t.src.Is4() {
		f = binary.BigEndian.AppendUint16(f, ethIPv4)
		head := make([]byte, ip4Len)
		head[0], head[8], head[9] = 0x45, hops, proto
		binary.BigEndian.PutUint16(head[2:], uint16(ip4Len+len(body)))
		copy(head[12:], t.src.AsSlice())
		copy(head[16:], t.dst.AsSlice())
		binary.BigEndian.PutUint16(head[10:], checksum(0, head))
		return append(append(f, head...), body...)
	}
	f = binary.BigEndian.AppendUint16(f, ethIPv6)
	head := make([]byte, ip6Len)
	head[0], head[6], head[7] = 0x60, proto, hops
	binary.BigEndian.PutUint16(head[4:], uint16(len(body)))
	copy(head[8:], t.src.AsSlice())
	copy(head[24:], t.dst.AsSlice())
	return append(append(f, head...), body...)
}

// pseudo is the sum of the pseudo header (RFC 768, RFC 8200 section 8.1).
func pseudo(src, dst netip.Addr, proto byte, length int) uint32 {
	sum := uint32(proto) + uint32(length)
	for _, a := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		for i := 0; i < len(a); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(a[i:]))
		}
	}
	return sum
}

func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
