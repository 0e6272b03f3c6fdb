package discovery

import (
	"errors"
	"sync"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// maxReceipts bounds receipts that wait; the server sends one delta at a time.
const maxReceipts = 8

// outbox holds what is to be said to the server: the latest of each kind.
type outbox struct {
	wake chan struct{} // holds one signal

	mu       sync.Mutex
	receipts []*wire.Ack // of this session, first out
	reported *snapshot.Report
	acked    *wire.Ack
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
	}
	return nil
}
