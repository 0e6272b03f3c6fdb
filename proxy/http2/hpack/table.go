package hpack

import "math/bits"

// overhead is what an entry counts beside its bytes (RFC 7541, 4.1).
const overhead = 32

// MaxTable is the largest dynamic table that this package keeps, in the bytes
// of RFC 7541, 4.1.
const MaxTable = 64 << 10

// entry of a dynamic table. The bytes of a name that has a code are not kept.
type entry struct {
	pos        uint32 // of the first byte, counted since the table was made
	hash       uint32 // of name and value; the encoder's
	nlen, vlen uint16
	code       code
	faults     Faults
}

// table is a dynamic table: entries in a ring, their bytes in a buffer whose
// live part is moved to the front when the end is reached. Its memory grows
// with its use, up to max bytes and max/overhead entries.
type table struct {
	entries []entry // ring; its length is a power of two
	oldest  uint32  // number of the oldest entry, counted since the table was made
	next    uint32  // number of the entry to come
	buf     []byte
	base    uint32 // pos of buf[0]
	size    uint32 // as RFC 7541 counts
	max     uint32
}

// reset makes t empty with a limit of max and keeps its memory.
func (t *table) reset(max uint32) {
	*t = table{entries: t.entries, buf: t.buf[:0], max: max}
}

func (t *table) count() uint32 { return t.next - t.oldest }

func (t *table) entry(number uint32) *entry {
	return &t.entries[number&uint32(len(t.entries)-1)]
}

// name of an entry; it is valid until the next add.
func (t *table) name(e *entry) []byte {
	if e.code != codeNone {
		return constants[e.code].name
	}
	return t.buf[e.pos-t.base:][:e.nlen]
}

// value of an entry; it is valid until the next add.
func (t *table) value(e *entry) []byte {
	at := e.pos - t.base
	if e.code == codeNone {
		at += uint32(e.nlen)
	}
	return t.buf[at:][:e.vlen]
}

// setMax changes the limit and evicts what is over it.
func (t *table) setMax(max uint32) {
	t.max = max
	t.evict(0)
}

// evict makes room for an entry of that size.
func (t *table) evict(size uint32) {
	for t.count() > 0 && t.size+size > t.max {
		e := t.entry(t.oldest)
		t.size -= uint32(e.nlen) + uint32(e.vlen) + overhead
		t.oldest++
	}
	if t.count() == 0 {
		t.base += uint32(len(t.buf))
		t.buf = t.buf[:0]
	}
}

// add puts an entry in and says whether it fitted; one that is too large leaves
// the table empty (RFC 7541, 4.4).
func (t *table) add(name, value []byte, k code, faults Faults, hash uint32) bool {
	size := uint32(len(name)) + uint32(len(value)) + overhead
	if size > t.max {
		t.evict(t.max + 1)
		return false
	}
	t.evict(size)
	if int(t.count()) == len(t.entries) {
		t.growEntries()
	}
	need := len(value)
	if k == codeNone {
		need += len(name)
	}
	if cap(t.buf)-len(t.buf) < need {
		t.makeRoom(need)
	}
	*t.entry(t.next) = entry{
		pos: t.base + uint32(len(t.buf)), hash: hash,
		nlen: uint16(len(name)), vlen: uint16(len(value)), code: k, faults: faults,
	}
	if k == codeNone {
		t.buf = append(t.buf, name...)
	}
	t.buf = append(t.buf, value...)
	t.next++
	t.size += size
	return true
}

func (t *table) growEntries() {
	old := *t
	t.entries = make([]entry, max(16, 2*len(old.entries)))
	for n := old.oldest; n != old.next; n++ {
		*t.entry(n) = *old.entry(n)
	}
}

// makeRoom moves the live bytes to the front, of a larger buffer if they leave
// less than half of this one free.
func (t *table) makeRoom(need int) {
	live := t.buf
	if t.count() > 0 {
		start := t.entry(t.oldest).pos - t.base
		live = t.buf[start:]
		t.base += start
	}
	buf := t.buf[:0]
	if want := len(live) + need; want > cap(buf)/2 && cap(buf) < int(t.max) {
		buf = make([]byte, 0, min(int(t.max), max(256, 1<<bits.Len(uint(want)))))
	}
	t.buf = append(buf, live...)
}
