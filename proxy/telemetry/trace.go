package telemetry

import (
	"encoding/binary"

	"moire.dev/moire/proxy/message"
)

// propagation says which fields carry trace context.
type propagation uint8

const (
	asItCame propagation = iota
	w3c
	b3
	both
)

// Trace is the place of an exchange in a trace. The zero Trace is in none.
type Trace struct {
	ID     [16]byte // zero: no trace
	Parent [8]byte  // the caller's span; zero: the trace starts here
	Server [8]byte  // our span of the exchange; zero: none is made
	Client [8]byte  // our span of the last try; zero: nothing was sent
	bits   traceBits
}

type traceBits uint8

const (
	decided  traceBits = 1 << iota // sampled says something
	sampled                        // the spans are kept
	debugged                       // B3's debug: kept for sure
	random                         // the id's last 7 bytes are random (W3C level 2)
	narrow                         // the id came with 8 bytes (B3)
	foreign                        // a traceparent or tracestate is there that must not go on
)

// Sampled: the spans of this exchange are kept.
func (tr *Trace) Sampled() bool { return tr.bits&sampled != 0 }

// Extract finds the trace context of a request, or starts a trace when tracing
// is on and there is none, or none that can be read. Whether a trace that
// starts is kept follows from its id and Tracing.Sample; one that goes on is
// kept when its caller keeps it. When tracing is off the caller's context is
// only remembered, for the record.
func (w *Worker) Extract(t *Table, h *message.Head, tr *Trace) {
	*tr = Trace{}
	found := t.propagate != b3 && parseW3C(h, tr)
	if !found && t.propagate != w3c {
		found = parseB3(h, tr)
	}
	if t.propagate == asItCame || found && !t.traced {
		return // no span of ours: the next one's parent is still the caller
	}
	if !found {
		tr.bits = tr.bits&(decided|sampled|debugged|foreign) | random
		w.newTraceID(&tr.ID)
	}
	if tr.bits&decided == 0 {
		tr.bits |= decided
		if binary.BigEndian.Uint64(tr.ID[8:])&(1<<56-1) >= t.threshold {
			tr.bits |= sampled
		}
	}
	w.newSpanID(&tr.Server)
}

// Inject makes a span for one try and writes it into the head that is sent, in
// the fields that Tracing.Propagate says; values are put at the end of arena,
// which is returned. It changes nothing when no span is made here.
func (w *Worker) Inject(t *Table, h *message.Head, tr *Trace, arena []byte) []byte {
	if tr.Server == ([8]byte{}) {
		return arena
	}
	w.newSpanID(&tr.Client)
	if t.propagate != b3 {
		arena = injectW3C(h, tr, arena)
	}
	if t.propagate != w3c {
		arena = injectB3(h, tr, arena)
	}
	return arena
}

// RequestID is the x-request-id of a request. When there is none, one is made
// in the form of a random UUID, put at the end of arena, which is returned, and
// added to the head.
func (w *Worker) RequestID(h *message.Head, arena []byte) (id, grown []byte) {
	if v, ok := h.Get(message.XRequestID); ok && len(v) > 0 {
		return v, arena
	}
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:8], w.rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], w.rand.Uint64())
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	from := len(arena)
	arena = appendHex(arena, raw[:4])
	for _, part := range [4][]byte{raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
		arena = append(arena, '-')
		arena = appendHex(arena, part)
	}
	id = arena[from:len(arena):len(arena)]
	set(h, message.XRequestID, id)
	return id, arena
}

// newTraceID is never zero, in neither half.
func (w *Worker) newTraceID(id *[16]byte) {
	binary.LittleEndian.PutUint64(id[:8], w.rand.Uint64()|1)
	binary.LittleEndian.PutUint64(id[8:], w.rand.Uint64()|1)
}

func (w *Worker) newSpanID(id *[8]byte) {
	binary.LittleEndian.PutUint64(id[:], w.rand.Uint64()|1)
}

// names of fields that are written, as bytes.
var (
	nameTraceparent  = []byte("traceparent")
	nameXRequestID   = []byte("x-request-id")
	nameB3           = []byte("b3")
	nameB3TraceID    = []byte("x-b3-traceid")
	nameB3SpanID     = []byte("x-b3-spanid")
	nameB3ParentSpan = []byte("x-b3-parentspanid")
	nameB3Sampled    = []byte("x-b3-sampled")
	nameB3Flags      = []byte("x-b3-flags")
)

func nameOf(id message.ID) []byte {
	switch id {
	case message.Traceparent:
		return nameTraceparent
	case message.XRequestID:
		return nameXRequestID
	case message.B3:
		return nameB3
	case message.XB3TraceID:
		return nameB3TraceID
	case message.XB3SpanID:
		return nameB3SpanID
	case message.XB3ParentSpanID:
		return nameB3ParentSpan
	case message.XB3Sampled:
		return nameB3Sampled
	}
	return nameB3Flags
}

// set gives the first field with this id the value, or adds one.
func set(h *message.Head, id message.ID, value []byte) {
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			h.Fields[i].Value = value
			return
		}
	}
	h.Fields = append(h.Fields, message.Field{Name: nameOf(id), Value: value, ID: id})
}

// remove takes out all fields whose id is in the set, a bit for each.
func remove(h *message.Head, ids uint64) {
	kept := 0
	for i := range h.Fields {
		if ids>>h.Fields[i].ID&1 == 0 {
			if kept != i {
				h.Fields[kept] = h.Fields[i]
			}
			kept++
		}
	}
	h.Fields = h.Fields[:kept]
}

// only is the value of the one field with this id; none when there are more.
func only(h *message.Head, id message.ID) (value []byte, n int) {
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			value = h.Fields[i].Value
			n++
		}
	}
	return value, n
}

const lowerHex = "0123456789abcdef"

func appendHex(dst, src []byte) []byte {
	for _, b := range src {
		dst = append(dst, lowerHex[b>>4], lowerHex[b&15])
	}
	return dst
}

// hexDigit is the value of a hexadecimal digit in lower case, 0xff for anything
// else.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// parseHex reads exactly len(dst) bytes in lower case.
func parseHex(dst, src []byte) bool {
	if len(src) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := hexDigit(src[2*i]), hexDigit(src[2*i+1])
		if hi|lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}
