package hpack

import (
	"errors"

	"moire.dev/moire/proxy/message"
)

// Faults say what is wrong with a field by itself (RFC 9113, 8.2.1).
type Faults uint8

// Faults. A pseudo-header field's name is not checked: Pseudo says what it is.
const (
	BadName  Faults = 1 << iota // empty, or not a token in lower case
	BadValue                    // control characters but tab, or white space at an end
)

// Field is one decoded field. Name and Value point into constants or into the
// arena that was given to Next.
type Field struct {
	Name, Value []byte
	ID          message.ID
	Pseudo      Pseudo
	Never       bool // never-indexed literal
	Faults      Faults
}

// Size is what the field counts in a header list (RFC 9113, 10.5.1).
func (f *Field) Size() int { return len(f.Name) + len(f.Value) + overhead }

// Decoding errors; each of them is a connection error COMPRESSION_ERROR.
var (
	ErrIndex   = errors.New("hpack: an index that no entry has")
	ErrInteger = errors.New("hpack: an integer is too large or cut off")
	ErrString  = errors.New("hpack: a string is cut off")
	ErrHuffman = errors.New("hpack: a string is not Huffman code")
	ErrResize  = errors.New("hpack: a table size update is too large, missing or in the wrong place")
)

// maxSizes bounds the size updates in one block; two are all that is ever needed.
const maxSizes = 8

// Decoder is the decoding side of a connection. Use: Begin with a whole block,
// then Next while More.
type Decoder struct {
	table  table
	limit  uint32 // what the peer may set the size to
	block  []byte
	start  bool // no field of the block was decoded yet
	sizes  int  // size updates in the block
	resize bool // the next block has to start with a size update
	// Discard: the fields are of no interest any more. Those from the dynamic
	// table are empty then; only the table is kept right. Begin ends it.
	Discard bool
}

// Init makes d new and keeps its memory. The table may have the protocol's
// default of 4096 bytes until Limit says otherwise.
func (d *Decoder) Init() {
	d.table.reset(4096)
	d.limit = 4096
	d.block, d.start, d.resize, d.Discard = nil, false, false, false
}

// Limit sets the table size that the peer has agreed to (it acknowledged our
// SETTINGS_HEADER_TABLE_SIZE). If the table is larger now, the next block has
// to make it smaller (RFC 7541, 4.2).
func (d *Decoder) Limit(n uint32) {
	d.limit = min(n, MaxTable)
	d.resize = d.table.max > d.limit
}

// Begin starts a block, which has to be whole. It stays in use until More is
// false.
func (d *Decoder) Begin(block []byte) {
	d.block, d.start, d.sizes, d.Discard = block, true, 0, false
}

// More says whether there is something left to decode. A block may end with
// size updates: then Next finds no field.
func (d *Decoder) More() bool { return len(d.block) > 0 }

// Next decodes the next field into f. Bytes that f needs are appended to arena,
// which is returned. Found is false when the block held nothing more but a size
// update. After an error the connection is of no use.
func (d *Decoder) Next(f *Field, arena []byte) (out []byte, found bool, err error) {
	for len(d.block) > 0 {
		b := d.block[0]
		if b&0xe0 == 0x20 {
			if err := d.update(); err != nil {
				return arena, false, err
			}
			continue
		}
		if d.resize {
			return arena, false, ErrResize
		}
		d.start = false
		switch {
		case b&0x80 != 0:
			arena, err = d.indexed(f, arena)
		case b&0x40 != 0:
			arena, err = d.literal(f, arena, 6)
		default:
			arena, err = d.literal(f, arena, 4)
			f.Never = b&0x10 != 0
		}
		return arena, err == nil, err
	}
	return arena, false, nil
}

// update is a dynamic table size update (RFC 7541, 6.3).
func (d *Decoder) update() error {
	n, ok := d.integer(5)
	if !ok {
		return ErrInteger
	}
	if d.sizes++; !d.start || n > d.limit || d.sizes > maxSizes {
		return ErrResize
	}
	d.resize = false
	d.table.setMax(n)
	return nil
}

func (d *Decoder) indexed(f *Field, arena []byte) ([]byte, error) {
	i, ok := d.integer(7)
	if !ok {
		return arena, ErrInteger
	}
	if i <= staticLast {
		if i == 0 {
			return arena, ErrIndex
		}
		*f = staticFields[i]
		return arena, nil
	}
	i -= staticLast + 1
	if i >= d.table.count() {
		return arena, ErrIndex
	}
	if d.Discard {
		*f = Field{}
		return arena, nil
	}
	e := d.table.entry(d.table.next - 1 - i)
	arena = d.nameOf(f, e, arena)
	at := len(arena)
	arena = append(arena, d.table.value(e)...)
	f.Value = arena[at:len(arena):len(arena)]
	f.Faults = e.faults
	f.Never = false
	return arena, nil
}

// nameOf sets f's name, id and kind from an entry.
func (d *Decoder) nameOf(f *Field, e *entry, arena []byte) []byte {
	if e.code != codeNone {
		k := &constants[e.code]
		f.Name, f.ID, f.Pseudo = k.name, k.id, k.pseudo
		return arena
	}
	name := d.table.name(e)
	f.ID, f.Pseudo = message.Other, pseudoOf(name)
	at := len(arena)
	arena = append(arena, name...)
	f.Name = arena[at:len(arena):len(arena)]
	return arena
}

// literal decodes a literal field whose name index has that many bits; with 6
// bits the field goes into the table.
func (d *Decoder) literal(f *Field, arena []byte, prefix uint) ([]byte, error) {
	i, ok := d.integer(prefix)
	if !ok {
		return arena, ErrInteger
	}
	var k code
	var err error
	f.Faults, f.Never = 0, false
	switch {
	case i == 0:
		arena, k, err = d.newName(f, arena)
		if err != nil {
			return arena, err
		}
	case i <= staticLast:
		k = code(i)
		c := &constants[k]
		f.Name, f.ID, f.Pseudo = c.name, c.id, c.pseudo
	case i-staticLast-1 < d.table.count():
		e := d.table.entry(d.table.next - 1 - (i - staticLast - 1))
		k = e.code
		f.Faults = e.faults & BadName
		arena = d.nameOf(f, e, arena)
	default:
		return arena, ErrIndex
	}
	at := len(arena)
	if arena, err = d.text(arena); err != nil {
		return arena, err
	}
	f.Value = arena[at:len(arena):len(arena)]
	if !validValue(f.Value) {
		f.Faults |= BadValue
	}
	if prefix == 6 {
		d.table.add(f.Name, f.Value, k, f.Faults, 0)
	}
	return arena, nil
}

func (d *Decoder) newName(f *Field, arena []byte) ([]byte, code, error) {
	at := len(arena)
	arena, err := d.text(arena)
	if err != nil {
		return arena, codeNone, err
	}
	name := arena[at:len(arena):len(arena)]
	if f.ID = message.Identify(name); f.ID != message.Other {
		k := byID[f.ID]
		f.Name, f.Pseudo = constants[k].name, Regular
		return arena[:at], k, nil
	}
	f.Name = name
	if f.Pseudo = pseudoOf(name); f.Pseudo == Regular {
		if !validName(name) {
			f.Faults |= BadName
		}
		return arena, codeNone, nil
	}
	if f.Pseudo != Unknown {
		k := pseudoCodes[f.Pseudo]
		f.Name = constants[k].name
		return arena[:at], k, nil
	}
	return arena, codeNone, nil
}

// text is a string literal (RFC 7541, 5.2).
func (d *Decoder) text(arena []byte) ([]byte, error) {
	if len(d.block) == 0 {
		return arena, ErrString
	}
	huffman := d.block[0]&0x80 != 0
	n, ok := d.integer(7)
	if !ok {
		return arena, ErrInteger
	}
	if uint64(n) > uint64(len(d.block)) {
		return arena, ErrString
	}
	raw := d.block[:n]
	d.block = d.block[n:]
	if !huffman {
		return append(arena, raw...), nil
	}
	if arena, ok = decodeHuffman(arena, raw); !ok {
		return arena, ErrHuffman
	}
	return arena, nil
}

// integer decodes an integer with a prefix of that many bits (RFC 7541, 5.1).
// More than 2^28 is too large for anything here.
func (d *Decoder) integer(prefix uint) (uint32, bool) {
	most := uint32(1)<<prefix - 1
	n := uint32(d.block[0]) & most
	if n < most {
		d.block = d.block[1:]
		return n, true
	}
	for i := 1; i < len(d.block) && i <= 5; i++ {
		b := uint32(d.block[i])
		if i == 5 && b > 0 {
			return 0, false
		}
		n += b & 0x7f << (7 * (i - 1))
		if b < 0x80 {
			d.block = d.block[i+1:]
			return n, n <= 1<<28
		}
	}
	return 0, false
}
