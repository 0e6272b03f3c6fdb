package datapath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// runWatch hands on what captures and traces see, until ctx ends.
func (d *Datapath) runWatch(ctx context.Context, captured func(snapshot.Captured)) error {
	reader, err := ringbuf.NewReader(d.objects.Sightings)
	if err != nil {
		return fmt.Errorf("read what captures of node %s see: %w", d.cfg.Node, err)
	}
	defer reader.Close()
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	var rec ringbuf.Record
	var t bpf.MoireSighting
	head := int(unsafe.Offsetof(t.Data))
	for {
		switch err := reader.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrClosed) || errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read what captures of node %s see: %w", d.cfg.Node, err)
		}
		if captured == nil || len(rec.RawSample) < head {
			continue
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&t)), head), rec.RawSample)
		data := rec.RawSample[head:]
		data = data[:min(len(data), int(t.Have))]
		for _, c := range d.view.Load().capturedOf(&t, data, d.watchers.Load(), time.Now(), fineBootTime()) {
			captured(c)
		}
	}
}

// fineBootTime is nanoseconds since boot, not coarse.
func fineBootTime() uint64 { return clock(unix.CLOCK_MONOTONIC) }

// endWatches turns watching off when the time of all captures is over.
func (d *Datapath) endWatches(now uint64) error {
	return d.locked(func() error {
		if !d.watching {
			return nil
		}
		for _, row := range d.tables.watches.rows {
			if row.Flags&watchOn != 0 && row.Until > now {
				return nil
			}
		}
		if err := d.applyWatches(&wantedWatches{}); err != nil {
			return err
		}
		return d.bump()
	})
}
