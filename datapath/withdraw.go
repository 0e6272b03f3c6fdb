package datapath

import (
	"errors"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// shrink removes the Services that the snapshot does not have, and then what
// nobody looks at any more: choice tables before the last, and backends that
// are in neither list. Sessions to those see it at the next epoch.
func (b *serviceBook) shrink(s *snapshot.Snapshot) error {
	slots, backends := b.leftOver()
	if b.strange || len(b.offers) != len(s.Services) {
		if err := b.withdraw(s); err != nil {
			return err
		}
		slots, backends = b.unknown()
	}
	if len(slots)+len(backends) > 0 {
		grace()
	}
	for _, k := range slots {
		if err := b.slots.remove(k); err != nil {
			return err
		}
	}
	for _, k := range backends {
		at := where(b.backends.rows[k])
		if err := b.backends.remove(k); err != nil {
			return err
		}
		if index := b.index(k.Service); index[at] == k.Index {
			delete(index, at)
		}
		if len(b.indexes[k.Service]) == 0 {
			delete(b.indexes, k.Service)
		}
	}
	b.replaced, b.strange = nil, false
	return nil
}

// withdraw removes the rows of Services that are not wanted.
func (b *serviceBook) withdraw(s *snapshot.Snapshot) error {
	wanted := make(map[bpf.MoireServiceKey]bool, len(s.Services))
	for k := range s.Services {
		key := serviceKey(k)
		wanted[key], wanted[ofAddress(key)] = true, true
	}
	for k := range b.offers {
		if _, ok := s.Services[k]; !ok {
			delete(b.offers, k)
		}
	}
	for k, row := range b.rows.rows {
		if !wanted[k] {
			if err := b.rows.remove(k); err != nil {
				return err
			}
		} else if whole := k == ofAddress(k); whole && row.Id != 0 && b.offerOf(k) == nil {
			// What took everything is gone, ports of the address stay.
			if err := b.rows.put(k, bpf.MoireService{Self: k, Flags: servicePorts}); err != nil {
				return err
			}
		}
	}
	return nil
}

// offerOf finds the offer at a row.
func (b *serviceBook) offerOf(k bpf.MoireServiceKey) *offer {
	return b.offers[snapshot.ServiceKey{Addr: snapshot.Addr{VNI: snapshot.VNI(k.Vni), IP: ipOf(k.Addr)}, Protocol: k.Proto, Port: ntohs(k.Port)}]
}

// leftOver are rows of offers that were replaced and that their successors do
// not use.
func (b *serviceBook) leftOver() (slots []bpf.MoireSlotsKey, backends []bpf.MoireBackendKey) {
	for _, before := range b.replaced {
		now := b.offers[before.of.ServiceKey]
		if now == nil {
			continue // not its turn: the rows are read again first
		}
		for k := range before.slots {
			if _, used := now.slots[k]; !used {
				slots = append(slots, k)
			}
		}
		for k := range before.backends {
			if _, used := now.backends[k]; !used {
				backends = append(backends, k)
			}
		}
	}
	return slots, backends
}

// unknown are all rows that no row of a Service leads to.
func (b *serviceBook) unknown() (slots []bpf.MoireSlotsKey, backends []bpf.MoireBackendKey) {
	tables, ids := map[uint32]bool{}, map[uint32]*offer{}
	for k, row := range b.rows.rows {
		tables[row.All.Table], tables[row.Here.Table] = true, true
		ids[row.Id] = b.offerOf(k)
	}
	for k := range b.slots.rows {
		if !tables[k.Table] {
			slots = append(slots, k)
		}
	}
	for k := range b.backends.rows {
		o, known := ids[k.Service]
		if known && o != nil {
			_, known = o.backends[k]
		}
		if !known {
			backends = append(backends, k)
		}
	}
	return slots, backends
}

// departed reports whether a session was to a backend that is gone. The programs
// see it at the session's next packet; without one, and but for TCP, whose caller
// is told then, it ends here.
func (d *Datapath) departed() func(*bpf.MoireSessionKey, *bpf.MoireSession) bool {
	var epoch uint32
	var c bpf.MoireSettings
	if d.objects.Control.Lookup(uint32(0), &c) == nil {
		epoch = c.Epoch
	}
	known := map[bpf.MoireBackendKey]bpf.MoireAddr{} // the zero address: gone
	return func(k *bpf.MoireSessionKey, s *bpf.MoireSession) bool {
		at := k.A
		if s.A_first != 0 {
			at = k.B
		}
		for end, g := range s.Guise {
			if g.Service == 0 || s.Epoch == epoch { // looked at since the last change
				continue
			}
			if end == 1 {
				at = g.Addr[1]
			}
			key := bpf.MoireBackendKey{Service: g.Service, Index: uint32(g.Backend)}
			if _, asked := known[key]; !asked {
				var row bpf.MoireBackend
				if err := d.objects.Backends.Lookup(&key, &row); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
					continue // it is asked again in a moment
				}
				known[key] = row.Addr
			}
			if known[key] != at {
				return true
			}
		}
		return false
	}
}
