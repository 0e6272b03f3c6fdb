package engine

// Sizes of buffers. A head fits into the largest; a connection begins with the
// smallest and gets larger ones while it fills them.
var sizes = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10}

// keep is how many bytes of free buffers of one size a Loop keeps.
const keep = 4 << 20

// pool has the free buffers of a Loop, by size. Least is how many there were at
// least since the last trim: so many were not needed.
type pool struct {
	free  [len(sizes)][][]byte
	least [len(sizes)]int
	used  int // bytes that are not here
}

// get is a buffer of at least n bytes, or of the largest size.
func (p *pool) get(n int) []byte {
	for i, size := range sizes {
		if size < n && i < len(sizes)-1 {
			continue
		}
		p.used += size
		if k := len(p.free[i]); k > 0 {
			b := p.free[i][k-1]
			p.free[i][k-1] = nil
			p.free[i] = p.free[i][:k-1]
			p.least[i] = min(p.least[i], k-1)
			return b
		}
		return make([]byte, size)
	}
	return nil
}

func (p *pool) put(b []byte) {
	for i, size := range sizes {
		if len(b) == size {
			p.used -= size
			if len(p.free[i])*size < keep {
				p.free[i] = append(p.free[i], b)
			}
			return
		}
	}
}

// trim gives up half of what was not needed since the last time, and says how
// many bytes that is.
func (p *pool) trim() (bytes int) {
	for i, free := range p.free {
		n := len(free) - (p.least[i]+1)/2
		bytes += (len(free) - n) * sizes[i]
		clear(free[n:])
		p.free[i] = free[:n]
		p.least[i] = n
	}
	return bytes
}

// Buffer is a queue of bytes with memory of the Loop. The zero Buffer is empty
// and has no memory.
type Buffer struct {
	b    []byte
	r, w int
}

// Bytes are what is in the Buffer; they stay valid until bytes are added.
func (b *Buffer) Bytes() []byte { return b.b[b.r:b.w] }

// Len is how many bytes there are.
func (b *Buffer) Len() int { return b.w - b.r }

// Consume takes n bytes from the front.
func (b *Buffer) Consume(n int) {
	b.r += n
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// space is room for at least n more bytes, in a larger buffer if need be; it
// may be less than n when the largest buffer is nearly full.
func (b *Buffer) space(l *Loop, n int) []byte {
	if len(b.b)-b.w >= n {
		return b.b[b.w:]
	}
	held := b.w - b.r
	if len(b.b) >= held+n {
		copy(b.b, b.b[b.r:b.w])
	} else {
		larger := l.buffers.get(held + n)
		if len(larger) > len(b.b) {
			copy(larger, b.b[b.r:b.w])
			if b.b != nil {
				l.buffers.put(b.b)
			}
			b.b = larger
		} else {
			l.buffers.put(larger)
			copy(b.b, b.b[b.r:b.w])
		}
	}
	b.r, b.w = 0, held
	return b.b[b.w:]
}

// release gives the memory back; what is in the Buffer is lost.
func (b *Buffer) release(l *Loop) {
	if b.b != nil {
		l.buffers.put(b.b)
	}
	*b = Buffer{}
}
