package discovery

import (
	"errors"
	"sync"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// maxReceipts bounds receipts that wait; the server sends one delta at a time.
const maxReceipts = 8

// Captured packets that wait for the server are bounded in number and bytes.
const (
	maxCaptured      = 8192
	maxCapturedBytes = 4 << 20
)

// outbox holds what is to be said to the server: the latest of each kind.
type outbox struct {
	wake chan struct{} // holds one signal

	mu       sync.Mutex
	receipts []*wire.Ack // of this session, first out
	reported *snapshot.Report
	acked    *wire.Ack
	captured []snapshot.Captured
	bytes    int // of their data
	// newReport, newAck: not sent in this session yet.
	newReport, newAck bool
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// begin prepares for a new session, which must hear everything again.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.receipts = nil
	o.newReport, o.newAck = o.reported != nil, o.acked != nil
}

func (o *outbox) report(r *snapshot.Report) {
	o.change(func() { o.reported, o.newReport = r, true })
}

func (o *outbox) ack(a *wire.Ack) {
	o.change(func() { o.acked, o.newAck = a, true })
}

func (o *outbox) receipt(a *wire.Ack) (err error) {
	o.change(func() {
		if len(o.receipts) == maxReceipts {
			err = errors.New("the server sends deltas faster than they are acknowledged")
			return
		}
		o.receipts = append(o.receipts, a)
	})
	return err
}

// capture takes one more; false: there is no room, the server is too slow.
func (o *outbox) capture(c snapshot.Captured) (taken bool) {
	o.change(func() {
		if len(o.captured) == maxCaptured || o.bytes+len(c.Data) > maxCapturedBytes {
			return
		}
		o.captured, o.bytes, taken = append(o.captured, c), o.bytes+len(c.Data), true
	})
	return taken
}

// someCaptured takes out what fits into one message.
func (o *outbox) someCaptured() []*wire.Captured {
	n, size := 0, 0
	for n < len(o.captured) && (n == 0 || size+len(o.captured[n].Data) <= wire.ChunkBytes) {
		size += len(o.captured[n].Data)
		n++
	}
	out := wire.FromCaptured(o.captured[:n])
	o.captured, o.bytes = o.captured[n:], o.bytes-size
	if len(o.captured) == 0 {
		o.captured = nil // the rest of the list is not needed any more
	}
	return out
}

func (o *outbox) change(f func()) {
	o.mu.Lock()
	f()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// next takes out what is to be sent first; nil when there is nothing. Receipts
// go first: nobody can have applied what has not arrived.
func (o *outbox) next() *wire.FromNode {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.receipts) > 0:
		a := o.receipts[0]
		o.receipts = o.receipts[1:]
		return &wire.FromNode{Ack: a}
	case o.newReport:
		o.newReport = false
		return &wire.FromNode{Report: wire.FromReport(o.reported)}
	case o.newAck:
		o.newAck = false
		return &wire.FromNode{Ack: o.acked}
	case len(o.captured) > 0:
		return &wire.FromNode{Captured: o.someCaptured()}
	}
	return nil
}
