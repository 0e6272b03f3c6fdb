package http2

// Kind says what an Event is.
type Kind uint8

// Kinds.
const (
	// NeedMore: all of the input was used; nothing more to say until there is
	// more of it.
	NeedMore Kind = iota
	// Head: Stream has a Head. For a server the stream is new, and the owner's
	// until it calls Release. For a client a Head with a Status below 200 is an
	// interim answer: another head follows and overwrites it.
	Head
	// Data: the next bytes of the body of Stream, an alias of the input. They
	// count against the windows until the owner calls Consumed.
	Data
	// Trailers: Stream has Trailers.
	Trailers
	// Reset: Stream ended before its time, with Code and Reason: by the peer, or
	// (Local) because of what the peer did, or with the connection. The owner still
	// has to Release it.
	Reset
	// Window: something became writable: see Writable.
	Window
	// Refused: a request that never became a stream, with ID and Reason. It was
	// answered with Status, or reset with Code when Status is 0.
	Refused
	// Settings: the peer's settings came or changed: see PeerMaxStreams and
	// PeerConnect.
	Settings
	// Pong: the peer answered the Ping with the number Ping.
	Pong
	// GoAway: the peer takes no more streams, with its Code and Last. A Reset for
	// each stream that it did not process follows.
	GoAway
)

// Event is what Next found.
type Event struct {
	Kind Kind
	// End: the peer's side of Stream is complete with this event.
	End bool
	// Local: see Reset.
	Local bool
	// Unprocessed: the peer says that it did not process the request of a Reset
	// stream: it may be sent again, whatever it is (RFC 9113, 8.7).
	Unprocessed bool
	Code        Code
	Status      int
	ID          uint32
	Last        uint32
	Stream      *Stream
	Data        []byte
	Reason      string
	Ping        uint64
}
