package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// chunkBytes is when a chunk is full.
	chunkBytes = 64 << 10
	// chunksWaiting of one outlet, at most; more are lost.
	chunksWaiting = 16
	// chunkAge is how long, nanoseconds, something waits for more.
	chunkAge = int64(time.Second / 5)
)

// chunk is what is written at once: n lines or spans.
type chunk struct {
	b []byte
	n int
}

// outlet is one place that events go to, in its own encoding. The collector
// adds; a goroutine of the outlet's own delivers. When that is too slow, chunks
// are lost and counted, and nobody waits.
type outlet struct {
	kind    string // in metrics
	append  func(dst []byte, k *told) (grown []byte, n int)
	deliver func(ctx context.Context, c chunk) (delivered int, err error)
	close   func()

	filling chunk
	since   int64
	queue   chan chunk
	spare   chan []byte
	counts  *outletCounts
	log     *slog.Logger
}

// outletCounts outlive an outlet: they go on when another of the kind replaces
// it.
type outletCounts struct{ delivered, lost atomic.Uint64 }

func newOutlet(kind string, counts *outletCounts, log *slog.Logger) *outlet {
	return &outlet{
		kind: kind, counts: counts, log: log,
		queue: make(chan chunk, chunksWaiting), spare: make(chan []byte, chunksWaiting),
		close: func() {},
	}
}

// add encodes one event.
func (o *outlet) add(k *told, now int64) {
	if o.filling.n == 0 {
		o.since = now
		select {
		case o.filling.b = <-o.spare:
		default:
			o.filling.b = make([]byte, 0, chunkBytes+4<<10)
		}
	}
	var n int
	o.filling.b, n = o.append(o.filling.b, k)
	o.filling.n += n
	if len(o.filling.b) >= chunkBytes {
		o.flush()
	}
}

// tick hands over what has waited for long enough.
func (o *outlet) tick(now int64) {
	if o.filling.n > 0 && now-o.since >= chunkAge {
		o.flush()
	}
}

func (o *outlet) flush() {
	if o.filling.n == 0 {
		return
	}
	select {
	case o.queue <- o.filling:
		o.filling = chunk{}
	default:
		o.counts.lost.Add(uint64(o.filling.n))
		o.filling.b, o.filling.n = o.filling.b[:0], 0
		select {
		case o.spare <- o.filling.b:
		default:
		}
	}
}

// end takes no more; run returns when all that waits is delivered.
func (o *outlet) end() {
	o.flush()
	close(o.queue)
}

// run delivers until end. When ctx is done it gives up quickly.
func (o *outlet) run(ctx context.Context) {
	defer o.close()
	var told time.Time
	for c := range o.queue {
		n, err := o.deliver(ctx, c)
		o.counts.delivered.Add(uint64(n))
		o.counts.lost.Add(uint64(c.n - n))
		if err != nil && time.Since(told) > time.Minute {
			told = time.Now()
			o.log.Warn("telemetry is lost", "to", o.kind, "error", err)
		}
		select {
		case o.spare <- c.b[:0]:
		default:
		}
	}
}
