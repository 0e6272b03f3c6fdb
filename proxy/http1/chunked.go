package http1

import (
	"bytes"

	"moire.dev/moire/proxy/message"
)

// Bounds of a chunked body, beside the Limits of its trailers.
const (
	// MaxChunkLine is the most bytes of a line with a chunk's size; a buffer that
	// a Chunked reads from has to hold as much.
	MaxChunkLine = 1024
	// MaxChunkExtensions is the most bytes of extensions in one body, all chunks
	// together. Nobody uses them but who wants to keep a reader busy.
	MaxChunkExtensions = 16 << 10
	maxChunkDigits     = 16
	keptTrailers       = 4 << 10 // most memory of trailers that is kept for another body
)

// Chunked reads one chunked body (RFC 9112 7.1). Reset prepares it.
type Chunked struct {
	trailers   *message.Head
	limits     Limits
	fields     []byte // of the trailers
	left       int64  // bytes of data of this chunk that are to come
	extensions int    // bytes so far
	seen       int    // bytes of trailers without an end
	state      chunkState
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd
	chunkTrailers
	chunkDone
)

// Reset makes d ready for another body. Trailer fields go to trailers, which is
// reset; nil: they are read, checked and dropped. Limits are those of the
// trailers alone.
func (d *Chunked) Reset(trailers *message.Head, l *Limits) {
	kept := d.fields
	if cap(kept) > keptTrailers {
		kept = nil
	}
	*d = Chunked{trailers: trailers, limits: *l, fields: kept[:0]}
	if trailers != nil {
		trailers.Reset()
	}
}

// Done says whether the whole body, trailers included, was read.
func (d *Chunked) Done() bool { return d.state == chunkDone }

// Next reads on in b, the bytes that follow those read before. It returns the
// next data of the body, a part of b[:n], and how many bytes of b are done
// with. Call it again with b[n:] until n is 0: then the body is Done, or more
// bytes are needed beside those that are left in b. Trailers are copied, and
// stay valid until Reset.
func (d *Chunked) Next(b []byte) (data []byte, n int, err error) {
	for {
		var k int
		switch d.state {
		case chunkSize:
			k, err = d.size(b[n:])
		case chunkData:
			k = int(min(d.left, int64(len(b)-n)))
			if k == 0 {
				return nil, n, nil
			}
			if d.left -= int64(k); d.left == 0 {
				d.state = chunkEnd
			}
			return b[n : n+k : n+k], n + k, nil
		case chunkEnd:
			k, err = d.end(b[n:])
		case chunkTrailers:
			k, err = d.tail(b[n:])
		}
		n += k
		if k == 0 || err != nil {
			return nil, n, err
		}
	}
}

// size reads a line with the size of a chunk and perhaps extensions.
func (d *Chunked) size(b []byte) (n int, err error) {
	line := bytes.IndexByte(b[:min(len(b), MaxChunkLine)], '\n')
	if line < 0 {
		if len(b) >= MaxChunkLine {
			return 0, ErrChunkExtension
		}
		// Not known to be wrong yet, but nobody waits for the rest of nonsense.
		if i := span(b, 0, isHex); i > maxChunkDigits || i < len(b) && b[i] != ';' && b[i] != '\r' {
			return 0, ErrChunkSize
		}
		return 0, nil
	}
	var size uint64
	i := 0
	for ; class[b[i]]&isHex != 0; i++ {
		if i == maxChunkDigits {
			return 0, ErrChunkSize
		}
		size = size<<4 | uint64(hex(b[i]))
	}
	if i == 0 || size > 1<<63-1 || b[line-1] != '\r' || i != line-1 && b[i] != ';' {
		return 0, ErrChunkSize
	}
	if i != line-1 {
		d.extensions += line - 1 - i
		if d.extensions > MaxChunkExtensions || !extensions(b[i:line-1]) {
			return 0, ErrChunkExtension
		}
	}
	d.left, d.state = int64(size), chunkData
	if size == 0 {
		d.state = chunkTrailers
	}
	return line + 1, nil
}

// hex is the value of a digit of class isHex.
func hex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0xf + 9
}

// extensions says whether b is *( ";" name [ "=" value ] ), the value a token or
// a quoted string, without white space outside quotes.
func extensions(b []byte) bool {
	for i := 0; i < len(b); {
		if b[i] != ';' {
			return false
		}
		start := i + 1
		if i = span(b, start, isToken); i == start {
			return false
		}
		if i == len(b) || b[i] != '=' {
			continue
		}
		start = i + 1
		if i = span(b, start, isToken); i > start {
			continue
		}
		if i = quoted(b, start); i < 0 {
			return false
		}
	}
	return true
}

// quoted is the index after the quoted string at b[i:], or -1.
func quoted(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			i++
			if i == len(b) || text(b[i:i+1], 0) == 0 {
				return -1
			}
		case c < ' ' && c != '\t' || c == 0x7f:
			return -1
		}
	}
	return -1
}

// end reads what follows the data of a chunk.
func (d *Chunked) end(b []byte) (n int, err error) {
	if len(b) > 0 && b[0] != '\r' || len(b) > 1 && b[1] != '\n' {
		return 0, ErrChunkEnd
	}
	if len(b) < 2 {
		return 0, nil
	}
	d.state = chunkSize
	return 2, nil
}

// tail reads trailers and the empty line that ends the body.
func (d *Chunked) tail(b []byte) (n int, err error) {
	switch {
	case len(b) == 0 || len(b) == 1 && b[0] == '\r':
		return 0, nil
	case b[0] == '\r' && b[1] == '\n':
		d.state = chunkDone
		return 2, nil
	}
	if lower[b[0]] == 0 {
		return 0, ErrFieldName
	}
	n = HeadEnd(b, d.seen)
	if most := d.limits.Head; most > 0 && (n > most || n < 0 && len(b) >= most) {
		return 0, ErrHeadTooLarge
	}
	if n < 0 {
		d.seen = len(b)
		return 0, nil
	}
	var dropped message.Head
	h := d.trailers
	if h == nil {
		h = &dropped
	}
	f := facts{length: -1}
	// The buffer that b is in may be used again before the trailers are written.
	d.fields = append(d.fields[:0], b[:n]...)
	if err := fields(d.fields, 0, h, &d.limits, &f, trailer); err != nil {
		return 0, err
	}
	unfit(h)
	d.state = chunkDone
	return n, nil
}

// unfit removes trailers that mean something only in a head: whoever merged
// them into it would be told another caller, another content or another answer
// (RFC 9110 6.5.1).
func unfit(h *message.Head) {
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		switch f.ID {
		case message.Other, message.GRPCStatus, message.GRPCMessage, message.Date, message.Via, message.Server:
			if !protected(f.Name) {
				kept = append(kept, f)
			}
		}
	}
	h.Fields = kept
}
