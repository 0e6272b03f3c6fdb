package tls

import "sync"

// queue is a queue of bytes that has memory only while it is not empty, and
// not much more than it holds.
type queue struct {
	block *block
	r, w  int
}

// block is memory that goes from queue to queue.
type block struct {
	b     []byte
	class int
}

// classes of blocks: a few small records, a whole one, what a socket gives at
// once. What needs more is left to the collector.
var (
	classes = [...]int{2 << 10, 20 << 10, 72 << 10, 288 << 10}
	free    [len(classes)]sync.Pool
)

func newBlock(n int) *block {
	for class, size := range classes {
		if n > size {
			continue
		}
		if b, ok := free[class].Get().(*block); ok {
			return b
		}
		return &block{b: make([]byte, size), class: class}
	}
	return &block{b: make([]byte, 2*n), class: len(classes)}
}

func (b *block) release() {
	if b.class < len(classes) {
		free[b.class].Put(b)
	}
}

func (q *queue) len() int { return q.w - q.r }

func (q *queue) bytes() []byte {
	if q.block == nil {
		return nil
	}
	return q.block.b[q.r:q.w]
}

func (q *queue) add(p []byte) {
	if len(p) == 0 {
		return
	}
	held := q.w - q.r
	switch {
	case q.block == nil:
		q.block = newBlock(len(p))
	case q.w+len(p) <= len(q.block.b):
	case held+len(p) <= len(q.block.b):
		copy(q.block.b, q.bytes())
		q.r, q.w = 0, held
	default:
		larger := newBlock(held + len(p))
		copy(larger.b, q.bytes())
		q.block.release()
		q.block, q.r, q.w = larger, 0, held
	}
	q.w += copy(q.block.b[q.w:], p)
}

func (q *queue) consume(n int) {
	q.r += n
	if q.r == q.w && q.block != nil {
		q.block.release()
		*q = queue{}
	}
}

// settle moves what is left, when it is little, into a block that fits.
func (q *queue) settle() {
	if q.block == nil || q.block.class == 0 || q.len() > classes[0] {
		return
	}
	small := newBlock(q.len())
	n := copy(small.b, q.bytes())
	q.block.release()
	*q = queue{block: small, w: n}
}
