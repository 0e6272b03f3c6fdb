package main

import (
	"encoding/binary"
	"fmt"
)

// http2 answers HTTP/2: 128 bytes, or a gRPC message of 128 bytes and status 0,
// to every request that ends, whatever it asks. So it need not read its fields.
type http2 struct {
	grpc    bool
	greeted bool
	window  int // bytes of DATA that the other side still takes on this connection
	waiting []uint32
	taken   int // bytes of DATA not yet given back
	out     []byte
}

// Frames and flags of RFC 9113, section 6.
const (
	frameData         = 0
	frameHeaders      = 1
	frameSettings     = 4
	framePing         = 6
	frameWindowUpdate = 8

	flagEnd        = 1
	flagAck        = 1
	flagEndHeaders = 4

	prefaceSize  = 24
	firstWindow  = 65535
	messageSize  = 128
	giveBackFrom = firstWindow / 2
)

// Field sections in HPACK, all literals without indexing but for :status 200.
var (
	plainFields = literals([]byte{0x88}, "server", "upstream", "date", "Thu, 01 Jan 2026 00:00:00 GMT",
		"content-type", "application/octet-stream", "content-length", "128")
	grpcFields   = literals([]byte{0x88}, "content-type", "application/grpc")
	grpcTrailers = literals(nil, "grpc-status", "0")
	plainBody    = make([]byte, messageSize)
	grpcBody     = append([]byte{0, 0, 0, 0, messageSize}, make([]byte, messageSize)...)
)

func literals(b []byte, pairs ...string) []byte {
	for i := 0; i < len(pairs); i += 2 {
		b = append(b, 0)
		for _, s := range pairs[i : i+2] {
			b = append(append(b, byte(len(s))), s...)
		}
	}
	return b
}

func newHTTP2(grpc bool) *http2 { return &http2{grpc: grpc, window: firstWindow} }

func (h *http2) take(in []byte) (int, []byte, bool, error) {
	used := 0
	h.out = h.out[:0]
	if !h.greeted {
		if len(in) < prefaceSize {
			return 0, nil, false, nil
		}
		h.greeted, used = true, prefaceSize
		h.frame(frameSettings, 0, 0, []byte{0, 3, 0, 0, 4, 0}) // 1,024 streams at a time
	}
	for len(in)-used >= 9 {
		head := in[used : used+9]
		n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if len(in)-used < 9+n {
			break
		}
		payload := in[used+9 : used+9+n]
		used += 9 + n
		if err := h.handle(head[3], head[4], binary.BigEndian.Uint32(head[5:])&^(1<<31), payload); err != nil {
			return used, nil, false, err
		}
	}
	if h.taken > giveBackFrom {
		h.frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(h.taken)))
		h.taken = 0
	}
	return used, h.out, false, nil
}

func (h *http2) handle(kind, flags byte, stream uint32, payload []byte) error {
	switch kind {
	case frameSettings:
		if flags&flagAck != 0 {
			return nil
		}
		for ; len(payload) >= 6; payload = payload[6:] {
			if payload[1] == 4 && binary.BigEndian.Uint32(payload[2:]) < 2*messageSize {
				return fmt.Errorf("a stream's window of %d bytes: the upstream needs one that holds an answer", binary.BigEndian.Uint32(payload[2:]))
			}
		}
		h.frame(frameSettings, flagAck, 0, nil)
	case framePing:
		if flags&flagAck == 0 {
			h.frame(framePing, flagAck, 0, payload)
		}
	case frameWindowUpdate:
		if stream == 0 {
			h.window += int(binary.BigEndian.Uint32(payload) &^ (1 << 31))
			for len(h.waiting) > 0 && h.window >= len(grpcBody) {
				h.answer(h.waiting[0])
				h.waiting = h.waiting[1:]
			}
		}
	case frameData, frameHeaders:
		if kind == frameData {
			h.taken += len(payload)
		}
		if flags&flagEnd == 0 {
			return nil
		}
		if h.window < len(grpcBody) {
			h.waiting = append(h.waiting, stream)
			return nil
		}
		h.answer(stream)
	}
	return nil
}

func (h *http2) answer(stream uint32) {
	if h.grpc {
		h.window -= len(grpcBody)
		h.frame(frameHeaders, flagEndHeaders, stream, grpcFields)
		h.frame(frameData, 0, stream, grpcBody)
		h.frame(frameHeaders, flagEndHeaders|flagEnd, stream, grpcTrailers)
		return
	}
	h.window -= len(plainBody)
	h.frame(frameHeaders, flagEndHeaders, stream, plainFields)
	h.frame(frameData, flagEnd, stream, plainBody)
}

func (h *http2) frame(kind, flags byte, stream uint32, payload []byte) {
	n := len(payload)
	h.out = append(h.out, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	h.out = binary.BigEndian.AppendUint32(h.out, stream)
	h.out = append(h.out, payload...)
}
