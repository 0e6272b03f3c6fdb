package http1

import (
	"bytes"

	"moire.dev/moire/proxy/message"
)

// Limits of one head, or of the trailers of one body. Zero or less: none.
type Limits struct {
	Fields int // most field lines; more is ErrTooManyFields
	Head   int // most bytes, its empty line included; more is ErrHeadTooLarge
}

// HeadEnd is the index after the empty line that ends the first head in b, or
// -1 when more bytes are needed. From is how many bytes of b were asked about
// before, in vain. A head whose lines end with a bare LF ends here too, so that
// it is refused at once and not waited for.
func HeadEnd(b []byte, from int) int {
	// The end of the line before the empty one may have been seen already.
	i := max(from-2, 0)
	for {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		// i is the start of a line.
		if i < len(b) && b[i] == '\n' {
			return i + 1
		}
		if i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
			return i + 2
		}
	}
}

// TooLarge is the error for b when HeadEnd finds no end in it and there is no
// room for more: ErrTargetTooLong when not even the first line ends.
func TooLarge(b []byte) error {
	if bytes.IndexByte(bytes.TrimLeft(b, "\r\n"), '\n') < 0 {
		return ErrTargetTooLong
	}
	return ErrHeadTooLarge
}

// facts is what the fields of one connection say, until the whole head is known.
type facts struct {
	host     []byte
	protocol []byte // of Upgrade, the first that is not h2c
	length   int64  // of Content-Length; -1: none
	hosted   bool
	chunked  bool
	close    bool
	keep     bool
	upgrade  bool // Connection: upgrade
	named    bool // Connection names fields that have to go
	expect   bool
	trailers bool // TE: trailers
	options  int  // of Connection, so far
}

// part is where field lines stand.
type part uint8

const (
	request part = iota
	answer
	trailer
)

// fields reads the field lines of b from i to the empty line at its very end.
// Ordinary ones go to h; what frames the message or belongs to the connection
// goes to f. b ends with LF, which ends every loop over it.
func fields(b []byte, i int, h *message.Head, l *Limits, f *facts, p part) error {
	lines := 0
	for {
		if i+2 == len(b) && b[i] == '\r' {
			return nil
		}
		if i+2 >= len(b) {
			return ErrEnd
		}
		start := i
		for {
			c := lower[b[i]]
			if c == 0 {
				break
			}
			b[i] = c
			i++
		}
		if b[i] != ':' || i == start {
			if i == start && (b[i] == ' ' || b[i] == '\t') {
				return ErrFold
			}
			return ErrFieldName
		}
		name := b[start:i:i]
		i++
		for b[i] == ' ' || b[i] == '\t' {
			i++
		}
		start = i
		i = text(b, i)
		if b[i] != '\r' || b[i+1] != '\n' {
			return ErrFieldValue
		}
		end := i
		for end > start && (b[end-1] == ' ' || b[end-1] == '\t') {
			end--
		}
		i += 2
		if lines++; l.Fields > 0 && lines > l.Fields {
			return ErrTooManyFields
		}
		id := message.Identify(name)
		value := b[start:end:end]
		if id != message.Other && id <= lastSpecial {
			ordinary, err := f.special(id, value, p)
			if err != nil {
				return err
			}
			if !ordinary {
				continue
			}
		} else if id == message.Other && lookalike(name) {
			return ErrLookalike
		}
		h.Fields = append(h.Fields, message.Field{Name: name, Value: value, ID: id})
	}
}

// lastSpecial: names up to it may belong to the connection or frame the message.
const lastSpecial = message.HTTP2Settings

// lookalike: servers that hand fields on as CGI variables take content_length
// for Content-Length.
func lookalike(name []byte) bool {
	switch len(name) {
	case len("content-length"):
		return name[7] == '_' && string(name[:7]) == "content" && string(name[8:]) == "length"
	case len("transfer-encoding"):
		return name[8] == '_' && string(name[:8]) == "transfer" && string(name[9:]) == "encoding"
	}
	return false
}

// special takes in a field of the connection. Ordinary: it is passed on as well.
func (f *facts) special(id message.ID, value []byte, p part) (ordinary bool, err error) {
	if p == trailer {
		switch id {
		case message.Host, message.TransferEncoding, message.ContentLength:
			return false, ErrTrailer
		}
		return false, nil
	}
	switch id {
	case message.Host:
		if p == answer {
			return true, nil
		}
		if f.hosted {
			return false, ErrHostTwice
		}
		f.host, f.hosted = value, true
	case message.Connection:
		return f.connection(value)
	case message.TransferEncoding:
		if f.chunked {
			return false, ErrCoding
		}
		f.chunked = true
		return false, coding(value)
	case message.ContentLength:
		if f.length >= 0 {
			return false, ErrLengthTwice
		}
		f.length, err = number(value)
		return false, err
	case message.TE:
		for rest := value; rest != nil; {
			var t []byte
			t, rest = element(rest)
			f.trailers = f.trailers || fold(t, "trailers")
		}
	case message.Upgrade:
		if f.protocol == nil {
			f.protocol = protocol(value)
		}
	case message.Expect:
		if p == answer {
			return true, nil
		}
		if !fold(value, "100-continue") {
			return false, ErrExpect
		}
		f.expect = true
	case message.Trailer:
		return true, nil
	}
	return false, nil
}

// number is a Content-Length: digits only, and not more than int64 holds.
func number(value []byte) (int64, error) {
	if len(value) == 0 || len(value) > 19 {
		return -1, ErrLength
	}
	var n uint64
	for _, c := range value {
		if c < '0' || c > '9' {
			return -1, ErrLength
		}
		n = n*10 + uint64(c-'0')
	}
	if n > 1<<63-1 {
		return -1, ErrLength
	}
	return int64(n), nil
}

// coding checks a Transfer-Encoding.
func coding(value []byte) error {
	if fold(value, "chunked") {
		return nil
	}
	for rest := value; ; {
		var c []byte
		c, rest = element(rest)
		if !token(c) || fold(c, "chunked") && (rest != nil || len(c) == len(value)) {
			return ErrCoding
		}
		if rest == nil {
			return ErrCodingUnsupported
		}
	}
}
