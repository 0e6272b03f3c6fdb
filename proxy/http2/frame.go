package http2

import "encoding/binary"

// Preface is what a client sends first (RFC 9113, 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

const (
	flagEndStream  = 0x01
	flagAck        = 0x01
	flagEndHeaders = 0x04
	flagPadded     = 0x08
	flagPriority   = 0x20
)

// Settings (RFC 9113, 6.5.2; RFC 8441, 3; RFC 9218, 2.1).
const (
	settingTable        = 0x1
	settingPush         = 0x2
	settingStreams      = 0x3
	settingWindow       = 0x4
	settingFrame        = 0x5
	settingHead         = 0x6
	settingConnect      = 0x8
	settingNoPriorities = 0x9
)

const frameHead = 9

// frame is the head of a frame.
type frame struct {
	length uint32
	kind   frameType
	flags  uint8
	id     uint32
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// parseFrame reads frameHead bytes.
func parseFrame(b []byte) frame {
	_ = b[8]
	return frame{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		kind:   frameType(b[3]),
		flags:  b[4],
		id:     binary.BigEndian.Uint32(b[5:]) & maxWindow,
	}
}

func appendFrame(dst []byte, length int, kind frameType, flags uint8, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendSetting(dst []byte, name uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, name), v)
}

// checkSize says what is wrong with the length of a frame of a known type, or
// with its stream, before its payload is there.
func (f *frame) check(maxFrame uint32) *Error {
	if f.length > maxFrame {
		return &Error{FrameSizeError, "a frame is larger than we take"}
	}
	size, conn := int64(-1), false
	switch f.kind {
	case framePriority:
		size = -2 // a stream error
	case frameReset:
		size = 4
	case frameWindow:
		if f.length != 4 {
			return &Error{FrameSizeError, "WINDOW_UPDATE of a wrong size"}
		}
		return nil // on a stream or on the connection
	case framePing:
		size, conn = 8, true
	case frameSettings:
		conn = true
		if f.length%6 != 0 || f.has(flagAck) && f.length != 0 {
			return &Error{FrameSizeError, "SETTINGS of a wrong size"}
		}
	case frameGoAway:
		conn = true
		if f.length < 8 {
			return &Error{FrameSizeError, "GOAWAY of a wrong size"}
		}
	case frameData, frameHeaders, frameContinuation, framePush:
	default:
		return nil
	}
	if size >= 0 && int64(f.length) != size {
		return &Error{FrameSizeError, "a control frame of a wrong size"}
	}
	if conn != (f.id == 0) {
		return &Error{ProtocolError, "a frame on a stream that its type has no place on"}
	}
	return nil
}
