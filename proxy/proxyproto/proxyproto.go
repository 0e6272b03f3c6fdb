package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
)

// Header is what was said of a connection.
type Header struct {
	// Source and Destination are the ends of the original connection. They are
	// valid both or not at all: without them (LOCAL, UNKNOWN, a family other than
	// IP) the real ends count.
	Source, Destination netip.AddrPort
	// Version of the protocol, 1 or 2.
	Version int
	// Local: the sender speaks for itself, as health checks do (version 2).
	Local bool
}

// Most bytes of a header.
const (
	maxV1 = 107
	// MaxHeader is the most that Parse takes; a buffer has to hold as much. A
	// longer header of version 2 could only be one with many TLVs.
	MaxHeader = 4096
	fixedV2   = 16
)

// What Parse can say.
var (
	// ErrMore: so far it may be a header; ask again with more bytes.
	ErrMore = errors.New("proxyproto: more bytes are needed")
	// ErrNone: the connection does not begin with a header.
	ErrNone = errors.New("proxyproto: no PROXY header")
	// ErrHeader: a header that is malformed or longer than MaxHeader.
	ErrHeader = errors.New("proxyproto: malformed PROXY header")
)

const (
	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Parse reads the header at the start of b, and says how many bytes it had.
func Parse(b []byte) (h Header, n int, err error) {
	for version, signature := range [...]string{1: signatureV1, 2: signatureV2} {
		k := min(len(b), len(signature))
		if version == 0 || string(b[:k]) != signature[:k] {
			continue
		}
		if k < len(signature) {
			return h, 0, ErrMore
		}
		if version == 1 {
			return parseV1(b)
		}
		return parseV2(b)
	}
	return h, 0, ErrNone
}

func parseV1(b []byte) (h Header, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxV1)], '\n')
	if end < 0 {
		if len(b) >= maxV1 {
			return h, 0, ErrHeader
		}
		return h, 0, ErrMore
	}
	if b[end-1] != '\r' {
		return h, 0, ErrHeader
	}
	h.Version = 1
	line := b[len(signatureV1) : end-1]
	family, line, _ := bytes.Cut(line, space)
	switch string(family) {
	case "UNKNOWN":
		// What follows is to be ignored.
		return h, end + 1, nil
	case "TCP4", "TCP6":
	default:
		return h, 0, ErrHeader
	}
	from, line, _ := bytes.Cut(line, space)
	to, line, _ := bytes.Cut(line, space)
	fromPort, toPort, _ := bytes.Cut(line, space)
	v4 := family[3] == '4'
	ok := address(&h.Source, from, fromPort, v4) && address(&h.Destination, to, toPort, v4)
	if !ok {
		return Header{}, 0, ErrHeader
	}
	return h, end + 1, nil
}

var space = []byte{' '}

// address reads the text of one end.
func address(a *netip.AddrPort, ip, port []byte, v4 bool) bool {
	if len(ip) == 0 || len(ip) > len("ffff:f:f:f:f:ffff:255.255.255.255")+6 {
		return false
	}
	for _, c := range ip {
		if (c < '0' || c > '9') && c != '.' && (v4 || c != ':' && (c|0x20 < 'a' || c|0x20 > 'f')) {
			return false
		}
	}
	parsed, err := netip.ParseAddr(string(ip))
	if err != nil || parsed.Is4() != v4 {
		return false
	}
	if len(port) == 0 || len(port) > 5 || len(port) > 1 && port[0] == '0' {
		return false
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	*a = netip.AddrPortFrom(parsed, uint16(n))
	return n <= 65535
}

// Families and commands of version 2.
const (
	cmdLocal = 0x20
	cmdProxy = 0x21
	tcp4     = 0x11
	tcp6     = 0x21
)

func parseV2(b []byte) (h Header, n int, err error) {
	if len(b) < fixedV2 {
		// What is wrong already is not waited for.
		if len(b) > 12 && b[12] != cmdLocal && b[12] != cmdProxy {
			return h, 0, ErrHeader
		}
		return h, 0, ErrMore
	}
	command, family := b[12], b[13]
	n = fixedV2 + int(binary.BigEndian.Uint16(b[14:]))
	if command != cmdLocal && command != cmdProxy || n > MaxHeader {
		return h, 0, ErrHeader
	}
	if len(b) < n {
		return h, 0, ErrMore
	}
	h.Version = 2
	body := b[fixedV2:n]
	if command == cmdLocal {
		// Family and addresses are to be ignored.
		h.Local = true
		return h, n, nil
	}
	var size int
	switch family {
	case 0x00: // unspecified: all that follows is to be ignored
		return h, n, nil
	case tcp4:
		size = 12
		if len(body) >= size {
			h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:]))
			h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:])), binary.BigEndian.Uint16(body[10:]))
		}
	case tcp6:
		size = 36
		if len(body) >= size {
			h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)), binary.BigEndian.Uint16(body[32:]))
			h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:])), binary.BigEndian.Uint16(body[34:]))
		}
	default: // UDP and UNIX do not come over TCP
		return Header{}, 0, ErrHeader
	}
	if len(body) < size || !tlvs(body[size:]) {
		return Header{}, 0, ErrHeader
	}
	return h, n, nil
}

// tlvs says whether b is whole TLVs. None of them is believed here.
func tlvs(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 3 {
			return false
		}
		size := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < size {
			return false
		}
		b = b[size:]
	}
	return true
}

// AppendV1 appends a header of version 1. Both ends are of one family, or it
// says UNKNOWN.
func AppendV1(dst []byte, from, to netip.AddrPort) []byte {
	from, to, v4, ok := ends(from, to)
	if !ok {
		return append(dst, signatureV1+"UNKNOWN\r\n"...)
	}
	dst = append(dst, signatureV1...)
	if v4 {
		dst = append(dst, "TCP4 "...)
	} else {
		dst = append(dst, "TCP6 "...)
	}
	dst = append(from.Addr().AppendTo(dst), ' ')
	dst = append(to.Addr().AppendTo(dst), ' ')
	dst = append(appendPort(dst, from.Port()), ' ')
	return append(appendPort(dst, to.Port()), '\r', '\n')
}

func appendPort(dst []byte, port uint16) []byte {
	var digits [5]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + port%10)
		if port /= 10; port == 0 {
			return append(dst, digits[i:]...)
		}
	}
}

// AppendV2 appends a header of version 2, without TLVs. Where the ends are not
// valid it is LOCAL: the receiver takes the real ends.
func AppendV2(dst []byte, from, to netip.AddrPort) []byte {
	from, to, v4, ok := ends(from, to)
	dst = append(dst, signatureV2...)
	switch {
	case !ok:
		return append(dst, cmdLocal, 0, 0, 0)
	case v4:
		dst = append(dst, cmdProxy, tcp4, 0, 12)
		a, b := from.Addr().As4(), to.Addr().As4()
		dst = append(append(dst, a[:]...), b[:]...)
	default:
		dst = append(dst, cmdProxy, tcp6, 0, 36)
		a, b := from.Addr().As16(), to.Addr().As16()
		dst = append(append(dst, a[:]...), b[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, from.Port())
	return binary.BigEndian.AppendUint16(dst, to.Port())
}

// ends makes two ends one family: IPv4 where both are, mapped or not; else IPv6,
// with an IPv4 end mapped into it.
func ends(from, to netip.AddrPort) (f, t netip.AddrPort, v4, ok bool) {
	if !from.IsValid() || !to.IsValid() {
		return from, to, false, false
	}
	a, b := from.Addr().Unmap(), to.Addr().Unmap()
	if v4 = a.Is4() && b.Is4(); !v4 {
		a, b = netip.AddrFrom16(a.As16()), netip.AddrFrom16(b.As16())
	}
	return netip.AddrPortFrom(a, from.Port()), netip.AddrPortFrom(b, to.Port()), v4, true
}
