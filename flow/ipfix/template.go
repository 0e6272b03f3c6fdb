package ipfix

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/flow/record"
)

// Template ids; RFC 7011 leaves 256 and above to us.
const (
	template4 = 256
	template6 = 257
)

const (
	version     = 10
	setTemplate = 2
	reversePEN  = 29305 // RFC 5103: the same element for the other direction
	variable    = 0xffff
	maxString   = 254 // one length byte; longer ones are cut
)

// element is one information element of the IANA registry and how a record
// fills it.
type element struct {
	id      uint16
	length  uint16
	reverse bool
	put     func([]byte, *flow) []byte
}

// flow is a record with what was counted since the one before.
type flow struct {
	record.Record
	packets, bytes, replyPackets, replyBytes uint64
	natSource, natDestination                netip.AddrPort
}

func u8(b []byte, v uint8) []byte   { return append(b, v) }
func u16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
func u32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }
func str(b []byte, s string) []byte {
	s = s[:min(len(s), maxString)]
	return append(u8(b, uint8(len(s))), s...)
}
func milli(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return u64(b, 0)
	}
	return u64(b, uint64(t.UnixMilli()))
}

// ip writes an address of the family; another one is all zero.
func ip(b []byte, a netip.Addr, v6 bool) []byte {
	a = a.Unmap()
	switch {
	case v6 && a.Is6():
		x := a.As16()
		return append(b, x[:]...)
	case v6:
		return append(b, make([]byte, 16)...)
	case a.Is4():
		x := a.As4()
		return append(b, x[:]...)
	}
	return append(b, make([]byte, 4)...)
}

// elementsOf is the template of a family.
func elementsOf(v6 bool) []element {
	source, destination, natSource, natDestination, length := uint16(8), uint16(12), uint16(225), uint16(226), uint16(4)
	if v6 {
		source, destination, natSource, natDestination, length = 27, 28, 281, 282, 16
	}
	return []element{
		{id: 152, length: 8, put: func(b []byte, f *flow) []byte { return milli(b, f.Start) }}, // flowStartMilliseconds
		{id: 153, length: 8, put: func(b []byte, f *flow) []byte { return milli(b, f.Time) }},  // flowEndMilliseconds
		{id: source, length: length, put: func(b []byte, f *flow) []byte { return ip(b, f.Source.Address, v6) }},
		{id: destination, length: length, put: func(b []byte, f *flow) []byte { return ip(b, f.Destination.Address, v6) }},
		{id: 7, length: 2, put: func(b []byte, f *flow) []byte { return u16(b, f.Source.Port) }},       // sourceTransportPort
		{id: 11, length: 2, put: func(b []byte, f *flow) []byte { return u16(b, f.Destination.Port) }}, // destinationTransportPort
		{id: 4, length: 1, put: func(b []byte, f *flow) []byte { return u8(b, protocol(f.Protocol)) }}, // protocolIdentifier
		{id: 1, length: 8, put: func(b []byte, f *flow) []byte { return u64(b, f.bytes) }},             // octetDeltaCount
		{id: 2, length: 8, put: func(b []byte, f *flow) []byte { return u64(b, f.packets) }},           // packetDeltaCount
		{id: 1, length: 8, reverse: true, put: func(b []byte, f *flow) []byte { return u64(b, f.replyBytes) }},
		{id: 2, length: 8, reverse: true, put: func(b []byte, f *flow) []byte { return u64(b, f.replyPackets) }},
		{id: 233, length: 1, put: func(b []byte, f *flow) []byte { return u8(b, event(f.Kind)) }},      // firewallEvent
		{id: 136, length: 1, put: func(b []byte, f *flow) []byte { return u8(b, endReason(f.Kind)) }},  // flowEndReason
		{id: 234, length: 4, put: func(b []byte, f *flow) []byte { return u32(b, f.Source.VNI) }},      // ingressVRFID
		{id: 235, length: 4, put: func(b []byte, f *flow) []byte { return u32(b, f.Destination.VNI) }}, // egressVRFID
		{id: natSource, length: length, put: func(b []byte, f *flow) []byte { return ip(b, f.natSource.Addr(), v6) }},
		{id: natDestination, length: length, put: func(b []byte, f *flow) []byte { return ip(b, f.natDestination.Addr(), v6) }},
		{id: 227, length: 2, put: func(b []byte, f *flow) []byte { return u16(b, f.natSource.Port()) }},       // postNAPTSourceTransportPort
		{id: 228, length: 2, put: func(b []byte, f *flow) []byte { return u16(b, f.natDestination.Port()) }},  // postNAPTDestinationTransportPort
		{id: 236, length: variable, put: func(b []byte, f *flow) []byte { return str(b, network(f.Source)) }}, // VRFname
		{id: 371, length: variable, put: func(b []byte, f *flow) []byte { return str(b, who(f.Source)) }},     // userName
		{id: 96, length: variable, put: func(b []byte, f *flow) []byte { return str(b, service(f)) }},         // applicationName
		{id: 335, length: variable, put: func(b []byte, f *flow) []byte { return str(b, why(f)) }},            // selectorName
	}
}

// network is project/network of an end.
func network(e record.End) string {
	if e.Network == "" {
		return ""
	}
	return e.Project + "/" + e.Network
}

// who is the SPIFFE ID of an end, or project/workload.
func who(e record.End) string {
	if e.Identity != "" || e.Workload == "" {
		return e.Identity
	}
	return e.Project + "/" + e.Workload
}

// service is what was called: the Service, else the Workload.
func service(f *flow) string {
	if f.Service != "" {
		return f.Service
	}
	if f.Destination.Workload == "" {
		return ""
	}
	return f.Destination.Project + "/" + f.Destination.Workload
}

// why is the rule that decided, or the reason of a drop.
func why(f *flow) string {
	if f.Rule == "" && f.Drop != "" {
		return "drop/" + f.Drop
	}
	return f.Rule
}

func protocol(s string) uint8 {
	switch s {
	case "icmp":
		return 1
	case "tcp":
		return 6
	case "udp":
		return 17
	case "sctp":
		return 132
	}
	n, _ := strconv.ParseUint(s, 10, 8) // 0 is as good as unknown
	return uint8(n)
}

// event is a firewallEvent: 1 created, 2 deleted, 3 denied, 5 update.
func event(k record.Kind) uint8 {
	switch k {
	case record.Started:
		return 1
	case record.Ended:
		return 2
	case record.Denied:
		return 3
	}
	return 5
}

// endReason is a flowEndReason: 2 active timeout, 3 end of flow detected.
func endReason(k record.Kind) uint8 {
	if k == record.Update {
		return 2
	}
	return 3
}

// appendTemplate writes the template of a family as a set.
func appendTemplate(b []byte, id uint16, elements []element) []byte {
	start := len(b)
	b = u16(u16(b, setTemplate), 0)
	b = u16(u16(b, id), uint16(len(elements)))
	for _, e := range elements {
		if e.reverse {
			b = u32(u16(u16(b, e.id|0x8000), e.length), reversePEN)
			continue
		}
		b = u16(u16(b, e.id), e.length)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// address reads "address:port" of a record; an empty one is the zero value.
func address(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a
	}
	a, _ := netip.ParseAddr(strings.Trim(s, "[]")) // without a port
	return netip.AddrPortFrom(a, 0)
}
