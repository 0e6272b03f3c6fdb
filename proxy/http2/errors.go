package http2

import "strconv"

// Code is an error code (RFC 9113, 7).
type Code uint32

// Codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String is the name in RFC 9113.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// Error ends a connection. When Next returns one, a GOAWAY with Code is in Out:
// write it, then close.
type Error struct {
	Code   Code
	Reason string // for records: what the peer did
}

// Error says both.
func (e *Error) Error() string { return "http2: " + e.Code.String() + ": " + e.Reason }

// sendError is an error of a call, not of the peer.
type sendError string

// Error says what it is.
func (e sendError) Error() string { return "http2: " + string(e) }

// Errors of Open and of the writers.
const (
	// ErrGoingAway: the connection takes no new streams. Use another.
	ErrGoingAway = sendError("the connection is going away")
	// ErrTooManyStreams: as many are open as the peer allows.
	ErrTooManyStreams = sendError("as many streams are open as the peer allows")
	// ErrStreamClosed: the stream was reset, or its end was already written.
	ErrStreamClosed = sendError("the stream is closed for writing")
	// ErrHeadTooLarge: more than the peer said it takes.
	ErrHeadTooLarge = sendError("the head is larger than the peer takes")
	// ErrNoConnectProtocol: the peer does not speak extended CONNECT (RFC 8441).
	ErrNoConnectProtocol = sendError("the peer does not take extended CONNECT")
)
