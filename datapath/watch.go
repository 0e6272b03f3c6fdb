package datapath

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

const (
	// watchSlots is how many captures and traces go on at once on a node.
	watchSlots = 16
	// watchMost is how many bytes of a frame are kept at most, as in watch.h.
	watchMost = 2048
	// What a capture without a bound has.
	defaultPackets = 1000
	defaultWatch   = 10 * time.Minute
	traceLength    = 128
	// probePause is how long the probe of a trace waits, so that the other
	// nodes watch too.
	probePause = time.Second
)

// Flags of a watch, as in watch.h.
const (
	watchOn       = 1
	watchWorkload = 2
	watchA        = 4
	watchB        = 8
	watchRule     = 16
)

// watcher is a capture in its slot of the tables.
type watcher struct {
	capture snapshot.Capture
	since   uint64 // boot time: what was seen before is not for it
}

// watchers are the captures that go on, by slot; a value without id is free.
type watchers [watchSlots]watcher

// wantedWatches is what the tables of watch.h must hold.
type wantedWatches struct {
	slots watchers
	rows  map[uint32]bpf.MoireWatch
	vnis  map[uint32]uint32
	ends  map[bpf.MoireAddrKey]uint32
	fresh []uint32           // slots whose count begins
	probe []snapshot.Capture // of fresh slots, where the source is here
}

func watchID(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return max(h.Sum64(), 1)
}

// wantWatches gives every capture a slot, the one that it has if it has one.
func (d *Datapath) wantWatches(s State, w *want, now time.Time) *wantedWatches {
	out := &wantedWatches{rows: map[uint32]bpf.MoireWatch{}, vnis: map[uint32]uint32{}, ends: map[bpf.MoireAddrKey]uint32{}}
	old := d.watchers.Load()
	var wait []snapshot.Capture
	for _, id := range slices.Sorted(maps.Keys(s.Snapshot.Captures)) {
		c := s.Snapshot.Captures[id]
		if !c.Until.IsZero() && !now.Before(c.Until) {
			continue
		}
		slot := d.slotOf(watchID(id))
		if slot < 0 {
			wait = append(wait, c)
			continue
		}
		out.slots[slot] = watcher{capture: c, since: old[slot].since}
		out.rows[uint32(slot)] = d.watchRow(&c, &old[slot].capture, uint32(slot), now)
	}
	for _, c := range wait {
		slot := slices.IndexFunc(out.slots[:], func(w watcher) bool { return w.capture.ID == "" })
		if slot < 0 {
			d.cfg.Log.Warn("a capture waits: no more go on at once on this node", "capture", c.ID, "most", watchSlots)
			continue
		}
		out.slots[slot] = watcher{capture: c, since: bootTime()}
		out.rows[uint32(slot)] = d.watchRow(&c, nil, uint32(slot), now)
		out.fresh = append(out.fresh, uint32(slot))
		if c.Trace && c.Probe.Source.IP.IsValid() {
			out.probe = append(out.probe, c)
		}
	}
	for slot, watcher := range out.slots {
		if watcher.capture.ID != "" {
			out.reach(s, w, &watcher.capture, uint32(1)<<slot)
		}
	}
	return out
}

// slotOf is the slot in which a capture is, -1 when there is none.
func (d *Datapath) slotOf(id uint64) int {
	for slot, row := range d.tables.watches.rows {
		if row.Id == id && row.Flags&watchOn != 0 {
			return int(slot)
		}
	}
	return -1
}

// watchRow is the filter of a capture. before is what was in its slot.
func (d *Datapath) watchRow(c, before *snapshot.Capture, slot uint32, now time.Time) bpf.MoireWatch {
	row := bpf.MoireWatch{
		Id: watchID(c.ID), Flags: watchOn, Proto: c.Protocol, Port: ntohs(c.Port), Length: uint32(min(max(c.Length, 0), watchMost)),
	}
	old := d.tables.watches.rows[slot]
	switch {
	case before != nil && old.Id == row.Id && (before.ID == "" || before.Until.Equal(c.Until)):
		row.Until = old.Until // also of an agent before us: within what it reckoned
	case c.Until.IsZero():
		row.Until = bootTime() + uint64(defaultWatch)
	default:
		row.Until = bootTime() + uint64(c.Until.Sub(now))
	}
	if c.Trace || row.Length == 0 {
		row.Length = traceLength
	}
	if c.Workload != "" {
		row.Flags |= watchWorkload
	}
	if c.A.IsValid() {
		row.Flags |= watchA
		row.A = addrOf(c.A)
	}
	if c.B.IsValid() {
		row.Flags |= watchB
		row.B = addrOf(c.B)
	}
	switch c.Verdict {
	case "allow":
		row.Verdict = 1
	case "deny":
		row.Verdict = 2
	}
	if c.Rule != "" {
		row.Flags |= watchRule
		row.Rule = math.MaxUint32 // a rule that nothing here refers to
		for n, id := range d.rules.names {
			if string(id) == c.Rule {
				row.Rule = n
			}
		}
		row.Reason = uint32(max(slices.Index(reasons[:], c.Rule), 0))
	}
	return row
}

// reach says which Networks and which ends the capture may and wants to see.
func (out *wantedWatches) reach(s State, w *want, c *snapshot.Capture, bit uint32) {
	for _, vni := range c.VNIs {
		out.vnis[uint32(vni)] |= bit
	}
	if c.Workload == "" {
		return
	}
	for a, e := range s.Snapshot.Endpoints {
		if e.Project+"/"+e.Workload == c.Workload && slices.Contains(c.VNIs, a.VNI) {
			out.ends[addrKey(a.VNI, a.IP)] |= bit
		}
	}
	for _, l := range s.Locals {
		if l.Key.Project+"/"+l.Key.Workload == c.Workload && w.links[l.Host] != 0 {
			out.ends[bpf.MoireAddrKey{Pad: uint32(w.links[l.Host])}] |= bit
		}
	}
}

// applyWatches makes the tables what is wanted: what changes is off meanwhile,
// so that no capture ever has the filter of one and the Networks of another.
func (d *Datapath) applyWatches(want *wantedWatches) error {
	t := d.tables
	for slot, row := range t.watches.rows {
		if row != (bpf.MoireWatch{}) && row != want.rows[slot] {
			if err := t.watches.put(slot, bpf.MoireWatch{}); err != nil {
				return err
			}
		}
	}
	err := inOrder(
		func() error { return t.watchVNIs.shrink(want.vnis) },
		func() error { return t.watchEnds.shrink(want.ends) },
		func() error { return t.watchEnds.grow(want.ends) },
		func() error { return t.watchVNIs.grow(want.vnis) },
	)
	if err != nil {
		return err
	}
	for _, slot := range want.fresh {
		left := int64(want.slots[slot].capture.Packets)
		if left <= 0 {
			left = defaultPackets
		}
		if err := d.objects.WatchLeft.Put(slot, left); err != nil {
			return err
		}
	}
	if len(want.probe) > 0 {
		d.probes = append(d.probes, want.probe...)
		d.probeDue.Store(bootTime() + uint64(probePause))
	}
	d.watchers.Store(&want.slots)
	d.watching = len(want.rows) > 0
	return t.watches.grow(want.rows)
}

// Names of enum where in watch.h.
var places = [...]string{"", "from-workload", "to-workload", "to-node", "from-node", "to-outside", "from-outside", "drop"}

// capturedOf says what a sighting means, for each capture that it is for. now
// is the wall clock at since, in nanoseconds after boot.
func (v *view) capturedOf(t *bpf.MoireSighting, data []byte, on *watchers, now time.Time, since uint64) []snapshot.Captured {
	var out []snapshot.Captured
	c := snapshot.Captured{
		Time: now.Add(-time.Duration(since - t.Time)).Round(0), Node: v.node, VNI: snapshot.VNI(t.Vni), Length: int(t.Length),
		Rule: string(v.rules[t.Rule]),
	}
	if int(t.Where) < len(places) {
		c.Where = places[t.Where]
	}
	if k, ok := v.locals[t.Ifindex]; ok {
		c.Interface = k.Project + "/" + k.Workload + "/" + k.Network
	}
	switch t.Allow {
	case 1:
		c.Verdict = "allow"
	case 2:
		c.Verdict = "deny"
		if t.Reason != reasonPolicy {
			c.Reason = reasonName(t.Reason)
		}
	}
	for slot, w := range on {
		// The tables say the same; this is about what waited while they changed.
		if t.Watches&(1<<slot) == 0 || w.capture.ID == "" || t.Time < w.since || !slices.Contains(w.capture.VNIs, c.VNI) {
			continue
		}
		c.Capture, c.Data, c.Text = w.capture.ID, nil, ""
		if w.capture.Trace {
			c.Text = inWords(data)
		} else {
			c.Data = slices.Clone(data[:min(len(data), cmp.Or(max(w.capture.Length, 0), traceLength))])
		}
		out = append(out, c)
	}
	return out
}

// inWords says the addresses and ports of a frame in words.
func inWords(f []byte) string {
	if len(f) < 14 {
		return "a frame that is cut off"
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0806:
		if len(f) >= 42 {
			return "arp " + netip.AddrFrom4([4]byte(f[28:32])).String() + " asks for " + netip.AddrFrom4([4]byte(f[38:42])).String()
		}
	case 0x0800:
		if head := int(f[14]&15) * 4; len(f) >= 34 && head >= 20 {
			return transport(f[23], netip.AddrFrom4([4]byte(f[26:30])), netip.AddrFrom4([4]byte(f[30:34])), f[min(14+head, len(f)):])
		}
	case 0x86dd:
		if len(f) >= 54 {
			return transport(f[20], netip.AddrFrom16([16]byte(f[22:38])), netip.AddrFrom16([16]byte(f[38:54])), f[54:])
		}
	}
	return "a frame that is not IP"
}

func transport(proto uint8, src, dst netip.Addr, b []byte) string {
	name := protocolName(proto)
	if (name == "tcp" || name == "udp" || name == "sctp") && len(b) >= 4 {
		return name + " " + netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)).String() + " -> " + netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])).String()
	}
	return name + " " + src.String() + " -> " + dst.String()
}
