package datapath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

const (
	// readPause: the programs do not wake the reader, it looks that often.
	readPause = 100 * time.Millisecond
	// sweepPause is how often sessions that are over are removed.
	sweepPause = 5 * time.Second
	// updatePause is how often a long session is told of again.
	updatePause = 30 * time.Second
)

// Run turns what the programs tell into records, until ctx ends: sessions that
// started and ended, denials, and every 30 seconds the sessions that go on. It
// also removes the sessions that are over. sink must not block for long: while
// it does, events wait in a ring buffer of 1 MB, and what does not fit is lost
// and counted. captured gets what captures and traces see, from another
// goroutine; nil: nobody wants it.
func (d *Datapath) Run(ctx context.Context, sink func(record.Record), captured func(snapshot.Captured)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	go func() { watched <- d.runWatch(ctx, captured) }()
	err := d.runEvents(ctx, sink)
	cancel()
	return errors.Join(err, <-watched)
}

func (d *Datapath) runEvents(ctx context.Context, sink func(record.Record)) error {
	reader, err := ringbuf.NewReader(d.objects.Events)
	if err != nil {
		return fmt.Errorf("read events of node %s: %w", d.cfg.Node, err)
	}
	defer reader.Close()
	var rec ringbuf.Record
	nextSweep, nextUpdate := time.Now().Add(sweepPause), uint64(0)
	for ctx.Err() == nil {
		reader.SetDeadline(time.Now().Add(readPause))
		switch err := reader.ReadInto(&rec); {
		case err == nil:
			if e, ok := eventOf(rec.RawSample); ok {
				sink(d.view.Load().recordOf(e, time.Now(), bootTime()))
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("read events of node %s: %w", d.cfg.Node, err)
		}
		if due := d.probeDue.Load(); due != 0 && bootTime() >= due {
			if err := d.sendProbes(); err != nil {
				return err
			}
		}
		if now := time.Now(); now.After(nextSweep) {
			nextSweep = now.Add(sweepPause)
			update := bootTime() >= nextUpdate
			if update {
				nextUpdate = bootTime() + uint64(updatePause)
			}
			if err := d.sweep(bootTime(), update, sink); err != nil {
				d.cfg.Log.Warn("sweep sessions", "error", err)
			}
		}
	}
	return nil
}

// eventOf reads an event. Those of sessions without guises come without them.
func eventOf(sample []byte) (*bpf.MoireEvent, bool) {
	var e bpf.MoireEvent
	if len(sample) < int(unsafe.Offsetof(e.Session)+unsafe.Offsetof(e.Session.Guise)) {
		return nil, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e)), sample)
	return &e, true
}

// bootTime is the clock of the programs: nanoseconds since boot, coarse.
func bootTime() uint64 { return clock(unix.CLOCK_MONOTONIC_COARSE) }

func clock(id int32) uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0 // cannot happen: the clock is always there
	}
	return uint64(ts.Nano())
}

// sweep removes the sessions that are over at now, and tells of the ends that
// no program told. With update it tells of those that go on, too. Names of
// rules that neither a policy set nor a session refers to are forgotten.
func (d *Datapath) sweep(now uint64, update bool, sink func(record.Record)) error {
	v, wall := d.view.Load(), time.Now()
	over := map[*ebpf.Map][]bpf.MoireSessionKey{}
	odd, ended := map[bpf.MoireSessionKey][2]bpf.MoireGuise{}, map[bpf.MoireSessionKey]bpf.MoireSession{}
	gone := d.departed()
	rules, c := map[uint32]bool{}, census{opened: sumOf(d.objects.Opened), byOpener: map[uint32]uint64{}}
	err := d.eachSession(func(m *ebpf.Map, k bpf.MoireSessionKey, s bpf.MoireSession) {
		c.present++
		e := bpf.MoireEvent{Time: now, Key: k, Session: s}
		switch lastSeen := s.Expires - uint64(s.Timeout)*uint64(time.Second); {
		case s.Expires < now || k.Proto != policy.TCP && s.Flags&flagOdd != 0 && gone(&k, &s):
			over[m] = append(over[m], k)
			if s.Flags&flagOdd != 0 {
				ended[k] = s
			}
			if s.Flags&flagEnded == 0 && s.Reason == 0 {
				e.Kind, e.Time = eventEnded, lastSeen
				sink(v.recordOf(&e, wall, now))
			}
			return
		case update && s.Flags&flagEnded == 0 && s.Reason == 0 && lastSeen+uint64(updatePause+sweepPause) >= now &&
			s.Created+uint64(updatePause) <= now:
			sink(v.recordOf(&e, wall, now))
		}
		if s.Flags&flagOdd != 0 {
			odd[k] = s.Guise
		}
		if m == d.objects.Sessions {
			opener := s.Hop[0].Ifindex
			if s.Hop[0].How&howOutside != 0 {
				opener = d.uplinkIndex.Load()
			}
			c.byOpener[opener]++
		}
		for i := range s.Rule {
			rules[s.Rule[i]], rules[s.Shadow[i]] = true, true
		}
	})
	if err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	d.evicted.count(&c)
	for m, keys := range over {
		for _, k := range keys {
			if s, ok := ended[k]; ok {
				if err := d.dropAliases(k, &s); err != nil {
					return err
				}
			}
			switch err := m.Delete(&k); {
			case err == nil:
				d.evicted.removed++
			case !errors.Is(err, ebpf.ErrKeyNotExist):
				return fmt.Errorf("remove a session: %w", err)
			}
		}
	}
	if err := d.share(now, c.byOpener); err != nil {
		return err
	}
	if err := d.endWatches(now); err != nil {
		return err
	}
	if err := d.locked(d.announceExternals); err != nil {
		return err
	}
	if !update {
		return nil
	}
	if err := d.dropOrphans(odd); err != nil {
		return err
	}
	return d.locked(func() error { return d.forgetRules(rules) })
}

// forgetRules removes rule names that are not in use now and were not at the
// call before.
func (d *Datapath) forgetRules(used map[uint32]bool) error {
	d.sets.used(used)
	keep := map[uint32]bool{}
	for n := range d.rules.names {
		if used[n] || !d.idleRules[n] {
			keep[n] = true
		}
	}
	idle := map[uint32]bool{}
	for n := range keep {
		idle[n] = !used[n]
	}
	d.idleRules = idle
	if err := d.rules.forget(keep); err != nil {
		return err
	}
	return d.forgetDrops()
}

// forgetDrops removes the counters of rules that have no name any more: the
// table has no room for all rules there ever were.
func (d *Datapath) forgetDrops() error {
	var gone []bpf.MoireDropKey
	var k bpf.MoireDropKey
	var perCPU []uint64
	it := d.objects.Drops.Iterate()
	for it.Next(&k, &perCPU) {
		if _, named := d.rules.names[k.Rule]; k.Rule != 0 && !named {
			gone = append(gone, k)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read counters of drops: %w", err)
	}
	for _, k := range gone {
		if err := d.objects.Drops.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a counter of drops: %w", err)
		}
	}
	return nil
}
