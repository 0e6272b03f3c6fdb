package route

// Scratch is what a worker works with while it matches; nothing in it lives
// longer than one call. One for each worker; the zero Scratch is ready.
type Scratch struct {
	// Of the path: elements, the hash up to and with each of the first 64, and
	// where each of those ends.
	elements int
	full     uint64
	end      int // of the path in the target
	hashes   [64]uint64
	ends     [64]uint32

	// Of the host, labels counted from the right.
	host     [256]byte
	hostLen  int
	hostHash uint64
	labels   int
	hosts    [64]uint64
	starts   [64]uint8

	value []byte // a joined or decoded value
}

// Arena is memory for what is written into heads. It belongs to the exchange
// whose heads point into it: Reset it when they are sent. The zero Arena is
// ready.
type Arena struct{ buf []byte }

// Reset makes a empty and keeps its memory. What was handed out is overwritten
// from now on.
func (a *Arena) Reset() { a.buf = a.buf[:0] }

// Trim gives memory back when a has more than most bytes.
func (a *Arena) Trim(most int) {
	if cap(a.buf) > most {
		a.buf = nil
	}
}

// since is what was appended after mark, closed against further appends.
func (a *Arena) since(mark int) []byte { return a.buf[mark:len(a.buf):len(a.buf)] }
