package http2

import "moire.dev/moire/proxy/http2/hpack"

// Config of connections. The zero value of each field means its default, which
// is safe towards the public.
type Config struct {
	// Client: we connected; we send the preface and open streams.
	Client bool
	// TLS: heads without a scheme are https.
	TLS bool
	// MaxStreams that the peer may have open on us, or that we open on it if it
	// allows more. Default 100.
	MaxStreams uint32
	// InitialWindow of a stream towards us, in bytes: what one exchange may have
	// in our memory. Default 65536.
	InitialWindow uint32
	// ConnWindow of the whole connection towards us, in bytes. Default 1 MiB, at
	// least 65535.
	ConnWindow uint32
	// MaxFrame is the largest payload that we take. Default and least 16384.
	MaxFrame uint32
	// MaxHead is the largest head, and the largest trailers, in decoded bytes
	// with 32 for each field (RFC 9113, 10.5.1). Default 65536.
	MaxHead int
	// MaxFields in a head; all cookie crumbs are one field here, but each counts
	// for MaxHead. Default 100.
	MaxFields int
	// MaxHeads bounds the bytes of requests (as they are kept) of all streams that
	// a server's connection holds at a time; more are refused. Default 1 MiB.
	MaxHeads int
	// HeaderTable is the largest dynamic table of either direction, in bytes.
	// Default 4096; negative: none.
	HeaderTable int
	// EnableConnect: a server takes extended CONNECT (RFC 8441).
	EnableConnect bool
	// MaxOut bounds the bytes in Out: WriteData takes no more above it. Heads,
	// trailers and control frames are bounded by the other limits. Default 65536.
	MaxOut int
	// MaxReplies bounds the bytes of control frames that we owe a peer that does
	// not read: above it the connection ends. Default 16384.
	MaxReplies int
	// MaxBlockFrames bounds the frames of one field block. Default 16.
	MaxBlockFrames int

	// ResetBurst and ResetRate (per second) are the budget of streams that the
	// peer resets, or makes us reset, before their time (CVE-2023-44487,
	// CVE-2025-8671). A stream that ends well gives one back. Default 200 and 20.
	ResetBurst, ResetRate int32
	// ControlBurst and ControlRate (per second) are the budget of frames that do
	// not bring an exchange forward: SETTINGS, PING, PRIORITY, WINDOW_UPDATE,
	// empty DATA, frames on closed streams, frames of unknown type. Heads and data
	// in either direction give back. Default 1000 and 200.
	ControlBurst, ControlRate int32
}

const (
	defaultWindow = 65535 // of the protocol
	defaultFrame  = 16384
	maxWindow     = 1<<31 - 1
)

// filled is cfg with its defaults.
func (cfg Config) filled() Config {
	or(&cfg.MaxStreams, 100)
	or(&cfg.InitialWindow, 65536)
	or(&cfg.ConnWindow, 1<<20)
	or(&cfg.MaxFrame, defaultFrame)
	or(&cfg.MaxHead, 64<<10)
	or(&cfg.MaxFields, 100)
	or(&cfg.MaxHeads, 1<<20)
	or(&cfg.HeaderTable, 4096)
	or(&cfg.MaxOut, 64<<10)
	or(&cfg.MaxReplies, 16<<10)
	or(&cfg.MaxBlockFrames, 16)
	or(&cfg.ResetBurst, 200)
	or(&cfg.ResetRate, 20)
	or(&cfg.ControlBurst, 1000)
	or(&cfg.ControlRate, 200)
	cfg.InitialWindow = min(cfg.InitialWindow, maxWindow)
	cfg.ConnWindow = min(max(cfg.ConnWindow, defaultWindow), maxWindow)
	cfg.MaxFrame = min(max(cfg.MaxFrame, defaultFrame), 1<<24-1)
	cfg.HeaderTable = min(max(cfg.HeaderTable, 0), hpack.MaxTable)
	return cfg
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}
