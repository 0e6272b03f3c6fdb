package hpack

import (
	"encoding/binary"
	"math/bits"

	"moire.dev/moire/proxy/message"
)

// Encoder is the encoding side of a connection. A field enters the dynamic
// table when it is seen the second time within a short while, so that values
// that never repeat (ids, dates, sizes) push nothing out. Credentials are never
// indexed: on a connection that carries many callers' requests a table that
// holds them would be an oracle (RFC 7541, 7.1).
type Encoder struct {
	table table
	most  uint32 // what we are willing to keep
	// index finds entries by hash: the low bits of an entry's number plus one, in
	// one of ways slots.
	index []uint16
	// seen remembers parts of the hashes of late fields, in sets by the rest of
	// them, the latest first.
	seen [32][4]uint16
	// lowest and resize: a size update is due, the lowest size since the last
	// block first (RFC 7541, 4.2).
	lowest uint32
	resize bool
}

const ways = 4

// Init makes e new with a table of at most that many bytes, and keeps its
// memory. The peer's limit is the protocol's default of 4096 until Limit.
func (e *Encoder) Init(most uint32) {
	e.most = min(most, MaxTable)
	e.table.reset(4096)
	clear(e.index)
	clear(e.seen[:])
	e.lowest, e.resize = 4096, false
	if e.most < 4096 {
		e.resizeTo(e.most)
	}
}

// Limit takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *Encoder) Limit(n uint32) {
	if n = min(n, e.most); n != e.table.max {
		e.resizeTo(n)
	}
}

func (e *Encoder) resizeTo(n uint32) {
	if !e.resize {
		e.resize, e.lowest = true, n
	}
	e.lowest = min(e.lowest, n)
	e.table.setMax(n)
}

// Begin starts a block: it appends the size updates that are due.
func (e *Encoder) Begin(dst []byte) []byte {
	if !e.resize {
		return dst
	}
	e.resize = false
	if e.lowest < e.table.max {
		dst = appendInteger(dst, 0x20, 5, e.lowest)
	}
	return appendInteger(dst, 0x20, 5, e.table.max)
}

// Pseudo appends a pseudo-header field, which has to be a known one.
func (e *Encoder) Pseudo(dst []byte, p Pseudo, value []byte) []byte {
	k := pseudoCodes[p]
	for i := k; i <= staticLast && constants[i].pseudo == p; i++ {
		if s := static[i].value; s != "" && s == string(value) {
			return append(dst, 0x80|byte(i))
		}
	}
	if p == Status {
		return appendText(appendInteger(dst, 0, 4, uint32(k)), value)
	}
	return e.field(dst, constants[k].name, value, k)
}

// Status appends :status, 100 to 999.
func (e *Encoder) Status(dst []byte, status int) []byte {
	var text [3]byte
	text[0], text[1], text[2] = byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10)
	return e.Pseudo(dst, Status, text[:])
}

// Field appends a regular field. Name is in lower case; id is its ID.
func (e *Encoder) Field(dst, name, value []byte, id message.ID, never bool) []byte {
	k := codeOf(name, id)
	if never || secret(k, id, value) {
		return e.plain(dst, name, value, k, 0x10, 4)
	}
	if k == 16 && string(value) == static[16].value {
		return append(dst, 0x80|16)
	}
	return e.field(dst, name, value, k)
}

// secret says whether a field is a credential.
func secret(k code, id message.ID, value []byte) bool {
	switch id {
	case message.Authorization, message.SetCookie, message.Cookie:
		return true
	}
	return k == 49 // proxy-authorization
}

func (e *Encoder) field(dst, name, value []byte, k code) []byte {
	hash := hashOf(name, value, k)
	if n, ok := e.find(hash, name, value, k); ok {
		return appendInteger(dst, 0x80, 7, e.table.next-n+staticLast)
	}
	if !e.again(hash) || len(name)+len(value)+overhead > int(e.table.max/4) {
		return e.plain(dst, name, value, k, 0, 4)
	}
	dst = e.plain(dst, name, value, k, 0x40, 6)
	if e.table.add(name, value, k, 0, hash) {
		e.remember(hash, e.table.next-1)
		if k >= codeProtocol || k == codeNone {
			e.remember(hashOf(name, nil, k), e.table.next-1)
		}
	}
	return dst
}

// again says whether a field with this hash was seen lately, and remembers it.
func (e *Encoder) again(hash uint32) bool {
	set, part := &e.seen[hash%uint32(len(e.seen))], uint16(hash>>16)
	for _, v := range set {
		if v == part {
			return true
		}
	}
	set[3], set[2], set[1], set[0] = set[2], set[1], set[0], part
	return false
}

// plain appends a literal of the kind that the top bits say.
func (e *Encoder) plain(dst, name, value []byte, k code, kind byte, prefix uint) []byte {
	if k != codeNone && k < codeProtocol {
		return appendText(appendInteger(dst, kind, prefix, uint32(k)), value)
	}
	if n, ok := e.findName(name, k); ok {
		return appendText(appendInteger(dst, kind, prefix, e.table.next-n+staticLast), value)
	}
	return appendText(appendText(append(dst, kind), name), value)
}

// find is the number of the entry with this name and value.
func (e *Encoder) find(hash uint32, name, value []byte, k code) (uint32, bool) {
	if len(e.index) == 0 {
		return 0, false
	}
	for i := range uint32(ways) {
		n, ok := e.live(hash + i)
		if !ok {
			continue
		}
		t := e.table.entry(n)
		if t.hash == hash && t.code == k && string(e.table.value(t)) == string(value) && string(e.table.name(t)) == string(name) {
			return n, true
		}
	}
	return 0, false
}

func (e *Encoder) findName(name []byte, k code) (uint32, bool) {
	if len(e.index) == 0 {
		return 0, false
	}
	hash := hashOf(name, nil, k)
	for i := range uint32(ways) {
		n, ok := e.live(hash + i)
		if !ok {
			continue
		}
		if t := e.table.entry(n); t.code == k && string(e.table.name(t)) == string(name) {
			return n, true
		}
	}
	return 0, false
}

// live is the number of the entry that a slot of the index holds, if it was not
// evicted since.
func (e *Encoder) live(slot uint32) (uint32, bool) {
	v := e.index[slot&uint32(len(e.index)-1)]
	if v == 0 {
		return 0, false
	}
	// The newest number with these low bits.
	back := uint32(uint16(e.table.next) - v)
	n := e.table.next - 1 - back
	return n, back < e.table.count()
}

// remember puts an entry into the index: into a free slot, or over the oldest.
func (e *Encoder) remember(hash, number uint32) {
	if want := 4 * len(e.table.entries); len(e.index) < want {
		e.rebuild(want)
	}
	slot, oldest := hash, uint32(0)
	for i := range uint32(ways) {
		n, ok := e.live(hash + i)
		if !ok {
			slot = hash + i
			break
		}
		if back := e.table.next - n; back > oldest {
			slot, oldest = hash+i, back
		}
	}
	e.index[slot&uint32(len(e.index)-1)] = uint16(number) + 1
}

// rebuild makes a larger index of what the table holds.
func (e *Encoder) rebuild(size int) {
	e.index = make([]uint16, size)
	for n := e.table.oldest; n != e.table.next; n++ {
		t := e.table.entry(n)
		e.remember(t.hash, n)
		if t.code >= codeProtocol || t.code == codeNone {
			e.remember(hashOf(e.table.name(t), nil, t.code), n)
		}
	}
}

// hashOf mixes eight bytes at a time. A collision costs a miss and no more:
// what is found is compared.
func hashOf(name, value []byte, k code) uint32 {
	h := uint64(k)*0x9e3779b97f4a7c15 + 1
	if k == codeNone {
		h = mix(h, name)
	}
	h = mix(h, value)
	return uint32(h >> 32)
}

func mix(h uint64, s []byte) uint64 {
	h ^= uint64(len(s)) << 56
	for len(s) >= 8 {
		hi, lo := bits.Mul64(h^binary.LittleEndian.Uint64(s), 0x9fb21c651e98df25)
		h = hi ^ lo
		s = s[8:]
	}
	var rest uint64
	for i, c := range s {
		rest |= uint64(c) << (8 * i)
	}
	hi, lo := bits.Mul64(h^rest, 0xd6e8feb86659fd93)
	return hi ^ lo
}

// appendInteger appends an integer below the bits that kind sets (RFC 7541, 5.1).
func appendInteger(dst []byte, kind byte, prefix uint, n uint32) []byte {
	most := uint32(1)<<prefix - 1
	if n < most {
		return append(dst, kind|byte(n))
	}
	dst = append(dst, kind|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendText appends a string literal, in Huffman code when that is shorter.
func appendText(dst, s []byte) []byte {
	if n := huffmanLength(s); n < len(s) {
		return appendHuffman(appendInteger(dst, 0x80, 7, uint32(n)), s)
	}
	return append(appendInteger(dst, 0, 7, uint32(len(s))), s...)
}
