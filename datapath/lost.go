package datapath

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
)

// sharers is how many interfaces it takes to fill the session table. What one
// opens beyond its share has a table of that size, with others like it.
const sharers = 4

// census is what one sweep finds in the session table.
type census struct {
	opened   uint64 // rows made since the table was, counted before it was read
	present  uint64
	byOpener map[uint32]uint64 // sessions that go on, by the interface that opened them
}

// evicted counts the sessions that the kernel pushed out of the full table.
// They end without a record.
type evicted struct {
	total   atomic.Uint64
	present atomic.Uint64 // sessions that the last sweep found
	// Below: of the sweep alone.
	removed uint64 // by the sweep
	before  uint64 // made and gone before the first sweep
	begun   bool
}

// count takes in a census, before anything is removed by it. Rows that are made
// while the table is read make the count too low; the next one sees it.
func (e *evicted) count(c *census) {
	e.present.Store(c.present)
	if !e.begun {
		e.before, e.begun = c.opened-min(c.opened, c.present), true
	}
	if known := e.before + e.removed + c.present; c.opened > known {
		e.total.Store(max(e.total.Load(), c.opened-known))
	}
}

// eachSession calls f for every session, with the table that it is in.
func (d *Datapath) eachSession(f func(m *ebpf.Map, k bpf.MoireSessionKey, s bpf.MoireSession)) error {
	for _, m := range []*ebpf.Map{d.objects.Sessions, d.objects.Crowd} {
		if err := eachRow(m, func(k bpf.MoireSessionKey, s bpf.MoireSession) { f(m, k, s) }); err != nil {
			return err
		}
	}
	return nil
}

// share tells the programs how much of the session table each interface has.
func (d *Datapath) share(now uint64, byOpener map[uint32]uint64) error {
	rows, err := readMap[uint32, bpf.MoireShare](d.objects.Shares)
	if err != nil {
		return fmt.Errorf("read shares of the session table: %w", err)
	}
	for k := range rows {
		if err := d.objects.Shares.Update(&k, &bpf.MoireShare{Since: now, Count: byOpener[k]}, ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("write shares of the session table: %w", err)
		}
	}
	return nil
}

// Lost counts the records that were never made since the tables were: events
// that did not fit into the ring buffer, and, since Run, sessions that were
// pushed out of the full table.
func (d *Datapath) Lost() uint64 {
	return sumOf(d.objects.MoireMaps.Lost) + d.evicted.total.Load()
}

// Sessions says how many there were at the last sweep of Run, and how many were
// opened since the tables were made.
func (d *Datapath) Sessions() (present, opened uint64) {
	return d.evicted.present.Load(), sumOf(d.objects.Opened)
}

// sumOf reads a counter that every CPU has of its own; 0 when it cannot.
func sumOf(m *ebpf.Map) uint64 {
	var perCPU []uint64
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return 0
	}
	var n uint64
	for _, c := range perCPU {
		n += c
	}
	return n
}
