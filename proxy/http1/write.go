package http1

import (
	"strconv"

	"moire.dev/moire/proxy/message"
)

// AppendRequest appends the head of a request in HTTP/1.1, with its empty line.
// h is as a codec read it or a filter left it: no field has a line break. An
// Authority that is empty makes an empty Host, which many servers refuse, so
// the caller sets one. For a Framing other than Sized and Chunked no body is
// announced.
func AppendRequest(dst []byte, h *message.Head) []byte {
	dst = append(dst, h.Method...)
	dst = append(dst, ' ')
	if len(h.Path) == 0 && h.IsMethod("CONNECT") {
		dst = append(dst, h.Authority...)
	} else {
		dst = append(dst, h.Path...)
	}
	dst = append(dst, " HTTP/1.1\r\nhost: "...)
	dst = append(dst, h.Authority...)
	dst = append(dst, '\r', '\n')
	dst = appendFields(dst, h)
	dst = appendFraming(dst, h)
	if h.Expect {
		dst = append(dst, "expect: 100-continue\r\n"...)
	}
	if h.Trailers {
		dst = append(dst, "te: trailers\r\n"...)
	}
	dst = appendConnection(dst, h, false)
	return append(dst, '\r', '\n')
}

// AppendResponse appends the head of an answer, interim ones too, with its
// empty line. h.Minor is the version of who gets it: to HTTP/1.0 a connection
// that stays has to be announced. A Framing of None announces no length unless
// Length says one (an answer to HEAD, a 304): an answer without a body to any
// other request is Sized with Length 0.
func AppendResponse(dst []byte, h *message.Head) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendUint(dst, uint64(h.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason(h.Status)...)
	dst = append(dst, '\r', '\n')
	dst = appendFields(dst, h)
	if h.Status >= 200 && h.Status != 204 {
		dst = appendFraming(dst, h)
	}
	if h.Status >= 200 || h.Status == 101 {
		dst = appendConnection(dst, h, true)
	}
	return append(dst, '\r', '\n')
}

func appendFields(dst []byte, h *message.Head) []byte {
	for i := range h.Fields {
		f := &h.Fields[i]
		dst = append(dst, f.Name...)
		dst = append(dst, ':', ' ')
		dst = append(dst, f.Value...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

func appendFraming(dst []byte, h *message.Head) []byte {
	switch {
	case h.Framing == message.Chunked:
		return append(dst, "transfer-encoding: chunked\r\n"...)
	case h.Framing == message.Sized, h.Framing == message.None && h.Status != 0 && h.Length >= 0:
		dst = append(dst, "content-length: "...)
		dst = strconv.AppendInt(dst, h.Length, 10)
		return append(dst, '\r', '\n')
	}
	return dst
}

// appendConnection appends Connection, when there is something to say, and Upgrade.
func appendConnection(dst []byte, h *message.Head, answer bool) []byte {
	shut := h.Close || h.Framing == message.UntilClose
	keep := answer && h.Minor == 0 && !shut
	te := h.Trailers && !answer
	if !shut && !keep && !te && h.Upgrade == nil {
		return dst
	}
	dst = append(dst, "connection: "...)
	if shut {
		dst = append(dst, "close, "...)
	}
	if keep {
		dst = append(dst, "keep-alive, "...)
	}
	if te {
		dst = append(dst, "te, "...)
	}
	if h.Upgrade != nil {
		dst = append(dst, "upgrade, "...)
	}
	dst = append(dst[:len(dst)-2], '\r', '\n')
	if h.Upgrade != nil {
		dst = append(dst, "upgrade: "...)
		dst = append(dst, h.Upgrade...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// MaxChunkHeader is the most that AppendChunkHeader appends.
const MaxChunkHeader = 18

// AppendChunkHeader appends the line in front of n bytes of a chunked body. N
// is not 0, which would end the body; after the data comes ChunkEnd.
func AppendChunkHeader(dst []byte, n int) []byte {
	dst = strconv.AppendUint(dst, uint64(n), 16)
	return append(dst, ChunkEnd...)
}

// ChunkEnd follows the data of a chunk.
const ChunkEnd = "\r\n"

// AppendChunk appends data as one chunk; nothing when data is empty.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkHeader(dst, len(data))
	dst = append(dst, data...)
	return append(dst, ChunkEnd...)
}

// AppendLastChunk ends a chunked body, with the fields of trailers; nil: none.
func AppendLastChunk(dst []byte, trailers *message.Head) []byte {
	dst = append(dst, "0\r\n"...)
	if trailers != nil {
		dst = appendFields(dst, trailers)
	}
	return append(dst, '\r', '\n')
}
