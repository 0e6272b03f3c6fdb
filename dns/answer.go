package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/miekg/dns"
)

// answer is what is said about one name and type, ready to be sent: the part
// of a message after its question. It is immutable.
type answer struct {
	rcode uint8
	ours  bool // we are the authority
	// Records of each section in body.
	an, ns, ar uint16
	// body begins where a question of the same length ends: compressed names in
	// it point into the question and into itself.
	body []byte
	// size of each record of the answer section, when they are alike and may
	// stand in any order; else 0.
	size int
	// ttls are where the TTLs are in body that count down from since; nil: they
	// stay as they are.
	ttls    []uint16
	since   int64 // seconds
	expires int64
	// next is the key of the name where it goes on, when those who were asked
	// are not the ones to ask for that.
	next string
	// note says why it is a failure, for the asker.
	note note
}

// note is an extended DNS error (RFC 8914).
type note struct {
	code uint16
	text string
}

// ownerPointer is the name of the question, as a compressed name.
const ownerPointer = 0xc000 | headerSize

// block makes one record whose owner is the name of the question.
func block(kind uint16, ttl uint32, data []byte) []byte {
	b := make([]byte, 0, 12+len(data))
	b = binary.BigEndian.AppendUint16(b, ownerPointer)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// set makes the answer of the records of one type.
func set(blocks [][]byte) *answer {
	a := &answer{ours: true, an: uint16(len(blocks))}
	for i, b := range blocks {
		if i == 0 {
			a.size = len(b)
		}
		if len(b) != a.size {
			a.size = 0
		}
		a.body = append(a.body, b...)
	}
	return a
}

// addresses makes the answer of the addresses of one family; nil: none.
func addresses(addrs []netip.Addr, v4 bool, ttl uint32) *answer {
	kind := dns.TypeAAAA
	if v4 {
		kind = dns.TypeA
	}
	var blocks [][]byte
	for _, a := range addrs {
		if a.Is4() == v4 {
			blocks = append(blocks, block(kind, ttl, a.AsSlice()))
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	return set(blocks)
}

// order of the records of an answer.
type order uint8

const (
	random order = iota
	fixed
	roundRobin
)

func orderOf(s string) order {
	switch s {
	case "fixed":
		return fixed
	case "round-robin":
		return roundRobin
	}
	return random
}

// reply is a message that is being written.
type reply struct {
	b          []byte
	limit      int
	an, ns, ar uint16
	full       bool // something did not fit
}

// begin writes the header, without counts, and the question.
func (r *reply) begin(b []byte, q *query, limit int) {
	*r = reply{b: b[:0], limit: limit}
	if q.edns {
		r.limit -= 11 // of the record that ends it
	}
	r.b = binary.BigEndian.AppendUint16(r.b, q.id)
	r.b = append(r.b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	r.b = append(r.b, q.question...)
}

func (r *reply) fits(n int) bool {
	if len(r.b)+n > r.limit {
		r.full = true
		return false
	}
	return !r.full
}

// add writes an answer, which must be about the question, at time now.
func (r *reply) add(a *answer, o order, turn uint32, now int64) {
	if !r.fits(len(a.body)) {
		return
	}
	start := len(r.b)
	if n := int(a.an); a.size > 0 && n > 1 && o != fixed {
		r.mix(a, n, o, turn)
	} else {
		r.b = append(r.b, a.body...)
	}
	if age := now - a.since; age > 0 {
		for _, off := range a.ttls {
			ttl := r.b[start+int(off):]
			binary.BigEndian.PutUint32(ttl, uint32(max(int64(binary.BigEndian.Uint32(ttl))-age, 0)))
		}
	}
	r.an, r.ns, r.ar = r.an+a.an, r.ns+a.ns, r.ar+a.ar
}

// mix writes the records of the answer section in another order. TTLs are at
// the same place of each, so ttls still fit.
func (r *reply) mix(a *answer, n int, o order, turn uint32) {
	const most = 64
	var seat [most]uint8
	if o == roundRobin || n > most {
		first := int(turn % uint32(n))
		if o == random {
			first = rand.IntN(n)
		}
		r.b = append(r.b, a.body[first*a.size:n*a.size]...)
		r.b = append(r.b, a.body[:first*a.size]...)
	} else {
		for i := range n {
			j := rand.IntN(i + 1)
			seat[i], seat[j] = seat[j], uint8(i)
		}
		for _, s := range seat[:n] {
			r.b = append(r.b, a.body[int(s)*a.size:(int(s)+1)*a.size]...)
		}
	}
	r.b = append(r.b, a.body[n*a.size:]...)
}

// addAs writes the answer section of an answer of ours under another owner.
// As extra records they are left out when they do not fit.
func (r *reply) addAs(owner string, a *answer, extra bool) {
	for rest, i := a.body, 0; i < int(a.an); i++ {
		n := 12 + int(binary.BigEndian.Uint16(rest[10:]))
		size := len(owner) + n - 2
		if extra && len(r.b)+size > r.limit || !r.fits(size) {
			return
		}
		r.b = append(r.b, owner...)
		r.b = append(r.b, rest[2:n]...)
		if extra {
			r.ar++
		} else {
			r.an++
		}
		rest = rest[n:]
	}
}

// end writes what is left and the header, and returns the message.
func (r *reply) end(q *query, rcode int, ours bool, why note) []byte {
	flags := flagQR | q.flags&(0xf<<11|flagRD|flagCD) | flagRA | uint16(rcode&0xf)
	if ours {
		flags |= flagAA
	}
	if r.full { // ask again by TCP
		r.b, r.an, r.ns, r.ar = r.b[:headerSize+len(q.question)], 0, 0, 0
		flags |= flagTC
	}
	if q.edns {
		r.option(q, rcode, why)
	}
	binary.BigEndian.PutUint16(r.b[2:], flags)
	if len(q.question) > 0 {
		r.b[5] = 1
	}
	binary.BigEndian.PutUint16(r.b[6:], r.an)
	binary.BigEndian.PutUint16(r.b[8:], r.ns)
	binary.BigEndian.PutUint16(r.b[10:], r.ar)
	return r.b
}

// option writes the OPT record, with the reason of a failure where it fits.
func (r *reply) option(q *query, rcode int, why note) {
	r.ar++
	r.b = append(r.b, 0)
	r.b = binary.BigEndian.AppendUint16(r.b, dns.TypeOPT)
	r.b = binary.BigEndian.AppendUint16(r.b, ednsSize)
	r.b = append(r.b, byte(rcode>>4), 0, byte(btoi(q.do)<<7), 0)
	n := 6 + len(why.text)
	if why.text == "" || len(r.b)+2+n > r.limit+11 {
		r.b = append(r.b, 0, 0)
		return
	}
	r.b = binary.BigEndian.AppendUint16(r.b, uint16(n))
	r.b = binary.BigEndian.AppendUint16(r.b, dns.EDNS0EDE)
	r.b = binary.BigEndian.AppendUint16(r.b, uint16(2+len(why.text)))
	r.b = binary.BigEndian.AppendUint16(r.b, why.code)
	r.b = append(r.b, why.text...)
}
