package dns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Sizes, in bytes.
const (
	headerSize = 12
	// ednsSize is what we send and accept over UDP at most: it fits in every
	// MTU without fragments (RFC 9715, DNS flag day 2020).
	ednsSize  = 1232
	plainSize = 512
	// maxQuery bounds what is read of a query; none needs as much.
	maxQuery   = 4096
	maxMessage = 65535
	maxName    = 255
)

// Bits of the second pair of bytes of a header.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagCD = 1 << 4
)

// query is one question as it came. It points into the message.
type query struct {
	id    uint16
	flags uint16
	// question is what stands between header and the rest, to be echoed byte
	// for byte: who asks may have chosen its capitals as a secret.
	question []byte
	key      []byte // the name in lower case, on the wire
	kind     uint16
	class    uint16
	edns     bool
	version  uint8
	do       bool
	size     int // that the asker takes over UDP

	room [maxName]byte // for key
}

// verdicts of parse beside the response codes.
const (
	dropIt  = -1 // no answer is due
	proceed = -2
)

// parse reads a query without allocating. It returns proceed, dropIt or the
// response code of the answer, for which q is filled as far as possible.
func (q *query) parse(m []byte) int {
	*q = query{size: plainSize}
	if len(m) < headerSize {
		return dropIt
	}
	q.id, q.flags = binary.BigEndian.Uint16(m), binary.BigEndian.Uint16(m[2:])
	if q.flags&flagQR != 0 {
		return dropIt // an answer: two servers must never talk for ever
	}
	if q.flags>>11&0xf != dns.OpcodeQuery {
		return dns.RcodeNotImplemented
	}
	count := func(i int) uint16 { return binary.BigEndian.Uint16(m[i:]) }
	if count(4) != 1 || count(6) != 0 || count(8) != 0 {
		return dns.RcodeFormatError
	}
	off, ok := q.readName(m)
	if !ok || off+4 > len(m) {
		return dns.RcodeFormatError
	}
	q.kind, q.class = binary.BigEndian.Uint16(m[off:]), binary.BigEndian.Uint16(m[off+2:])
	off += 4
	q.question = m[headerSize:off]
	for range count(10) {
		if off, ok = q.readExtra(m, off); !ok {
			return dns.RcodeFormatError
		}
	}
	switch {
	case q.version != 0:
		return dns.RcodeBadVers
	case q.class == dns.ClassCHAOS, q.class != dns.ClassINET && q.class != dns.ClassANY:
		return dns.RcodeRefused
	}
	return q.parseKind()
}

// parseKind refuses what no question of a client asks.
func (q *query) parseKind() int {
	switch q.kind {
	case dns.TypeAXFR, dns.TypeIXFR:
		return dns.RcodeRefused
	case dns.TypeOPT, dns.TypeNone:
		return dns.RcodeFormatError
	case dns.TypeTKEY, dns.TypeTSIG, dns.TypeMAILA, dns.TypeMAILB:
		return dns.RcodeNotImplemented
	}
	return proceed
}

// readName reads the name of the question, which cannot be compressed.
func (q *query) readName(m []byte) (off int, ok bool) {
	off = headerSize
	for {
		if off >= len(m) {
			return 0, false
		}
		n := int(m[off])
		if n > 63 || off+1+n > len(m) || off+1+n-headerSize > maxName-btoi(n > 0) {
			return 0, false
		}
		off += 1 + n
		if n == 0 {
			break
		}
	}
	q.key = q.room[:copy(q.room[:], m[headerSize:off])]
	lower(q.key)
	return off, true
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// lower makes letters small. The lengths of labels are below 64 and are no
// capital letters... which begin at 65.
func lower(name []byte) {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c + 'a' - 'A'
		}
	}
}

// readExtra reads a record of the additional section.
func (q *query) readExtra(m []byte, off int) (int, bool) {
	root := off < len(m) && m[off] == 0
	off, ok := skipName(m, off)
	if !ok || off+10 > len(m) {
		return 0, false
	}
	kind, class, ttl := binary.BigEndian.Uint16(m[off:]), binary.BigEndian.Uint16(m[off+2:]), binary.BigEndian.Uint32(m[off+4:])
	end := off + 10 + int(binary.BigEndian.Uint16(m[off+8:]))
	if end > len(m) {
		return 0, false
	}
	if kind != dns.TypeOPT {
		return end, true
	}
	if q.edns || !root {
		return 0, false // one at most (RFC 6891, 6.1.1)
	}
	q.edns, q.version, q.do = true, uint8(ttl>>16), ttl&(1<<15) != 0
	q.size = min(max(int(class), plainSize), ednsSize)
	return end, true
}

// skipName returns what follows the name at off.
func skipName(m []byte, off int) (int, bool) {
	for {
		if off >= len(m) {
			return 0, false
		}
		switch n := int(m[off]); {
		case n == 0:
			return off + 1, true
		case n < 64:
			off += 1 + n
		case n >= 0xc0:
			return off + 2, off+2 <= len(m)
		default:
			return 0, false
		}
	}
}

// wireName is the key of a name: lower case, as on the wire.
func wireName(name string) (string, bool) {
	var b [maxName + 1]byte
	n, err := dns.PackDomainName(dns.CanonicalName(name), b[:], 0, nil, false)
	if err != nil || n > maxName {
		return "", false
	}
	return string(b[:n]), true
}

// textName is the name as people write it, with a full stop at the end.
func textName(key string) string {
	s, _, err := dns.UnpackDomainName([]byte(key), 0)
	if err != nil {
		return "."
	}
	return s
}

// parent is the name without its first label; of the root it is "".
func parent(key string) string {
	if len(key) < 2 {
		return ""
	}
	return key[1+int(key[0]):]
}

// within reports whether the name is in the zone, or is its apex.
func within[K string | []byte](key K, zone string) bool {
	for len(key) > len(zone) {
		key = key[1+int(key[0]):]
	}
	return string(key) == zone
}
