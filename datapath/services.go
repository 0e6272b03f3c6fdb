package datapath

import (
	"fmt"
	"slices"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// Flags of Services and backends, as in service.h.
const (
	servicePorts    = 1
	serviceFloating = 2
	serviceMeshed   = 4

	backendLeaving = 1

	maxBackends = 1<<16 - 1
)

// serviceBook holds the Services in the kernel. A choice table never changes:
// another choice is another table under a number that was never used, and the
// one row of the Service switches to it. A backend has an index of its Service
// for as long as it has a row, and sessions refer to it by that.
type serviceBook struct {
	node      string
	rows      *table[bpf.MoireServiceKey, bpf.MoireService]
	slots     *table[bpf.MoireSlotsKey, bpf.MoireSlotsRow]
	backends  *table[bpf.MoireBackendKey, bpf.MoireBackend]
	offers    map[snapshot.ServiceKey]*offer
	indexes   map[uint32]map[bpf.MoireBackend]uint32 // by Service id: index of each backend that has a row
	nextID    uint32
	nextTable uint32
	// names of Services by id, for records: replaced, never changed. A Service
	// that left keeps its name until another changes.
	names map[uint32]string
	stale bool // names
	// replaced are offers whose rows may be left over; strange: there may be rows
	// that nobody here wrote.
	replaced []*offer
	strange  bool
}

// offer is one Service as it is in the tables.
type offer struct {
	of       snapshot.Service
	key      bpf.MoireServiceKey
	row      bpf.MoireService
	backends map[bpf.MoireBackendKey]bpf.MoireBackend
	slots    map[bpf.MoireSlotsKey]bpf.MoireSlotsRow
}

// load reads the tables again, and forgets what is not in them as it was
// written: the next grow repairs it.
func (b *serviceBook) load() error {
	if err := inOrder(b.rows.read, b.slots.read, b.backends.read); err != nil {
		return err
	}
	b.strange, b.indexes = true, map[uint32]map[bpf.MoireBackend]uint32{}
	for _, row := range b.rows.rows {
		b.nextID = max(b.nextID, row.Id)
	}
	for k, row := range b.backends.rows {
		b.nextID = max(b.nextID, k.Service)
		b.index(k.Service)[where(row)] = k.Index
	}
	for k := range b.slots.rows {
		b.nextTable = max(b.nextTable, k.Table)
	}
	for k, o := range b.offers {
		if b.rows.rows[o.key] != o.row || !holds(b.backends.rows, o.backends) || !holds(b.slots.rows, o.slots) {
			delete(b.offers, k)
		}
	}
	return nil
}

func holds[K, V comparable](have, want map[K]V) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// where is the row without what may change.
func where(row bpf.MoireBackend) bpf.MoireBackend {
	row.Flags, row.Self = 0, bpf.MoireBackendKey{}
	return row
}

func (b *serviceBook) index(service uint32) map[bpf.MoireBackend]uint32 {
	if b.indexes[service] == nil {
		b.indexes[service] = map[bpf.MoireBackend]uint32{}
	}
	return b.indexes[service]
}

func newServices(m *bpf.MoireMaps, node string, writes *tally) (*serviceBook, error) {
	b := &serviceBook{
		node:     node,
		rows:     newTable[bpf.MoireServiceKey, bpf.MoireService](m.Services, "services", writes),
		slots:    newTable[bpf.MoireSlotsKey, bpf.MoireSlotsRow](m.Slots, "slots", writes),
		backends: newTable[bpf.MoireBackendKey, bpf.MoireBackend](m.Backends, "backends", writes),
		offers:   map[snapshot.ServiceKey]*offer{},
	}
	return b, b.load()
}

// grow makes the tables offer every Service: backends, then a new choice table,
// then the row of the Service.
// With proxies there may be callers who reach some by one of them.
func (b *serviceBook) grow(s *snapshot.Snapshot, proxies bool) error {
	for k, v := range s.Services {
		meshed := proxies && s.Meshed(&v)
		if o := b.offers[k]; o != nil && o.is(&v) && (o.row.Flags&serviceMeshed != 0) == meshed {
			continue
		}
		if err := b.offer(&v, meshed); err != nil {
			return fmt.Errorf("service %s/%s at %s: %w", v.Project, v.Name, k.Addr.IP, err)
		}
	}
	return nil
}

// is reports whether v would be offered the same.
func (o *offer) is(v *snapshot.Service) bool {
	return o.of.Affinity == v.Affinity && o.of.Floating == v.Floating &&
		sameBackends(o.of.Backends, v.Backends) && sameBackends(o.of.Leaving, v.Leaving)
}

func sameBackends(a, b []snapshot.Backend) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

func (b *serviceBook) offer(v *snapshot.Service, meshed bool) error {
	o := &offer{of: *v, key: serviceKey(v.ServiceKey), backends: map[bpf.MoireBackendKey]bpf.MoireBackend{}, slots: map[bpf.MoireSlotsKey]bpf.MoireSlotsRow{}}
	old, known := b.rows.rows[o.key]
	o.row = bpf.MoireService{Self: o.key, Id: old.Id, Affinity: uint32((v.Affinity + time.Second - 1) / time.Second)}
	if !known || old.Id == 0 {
		b.nextID++
		o.row.Id = b.nextID
	}
	if v.Floating {
		o.row.Flags |= serviceFloating
	}
	if meshed {
		o.row.Flags |= serviceMeshed
	}
	numbers, err := b.admit(o, v)
	if err != nil {
		return err
	}
	if o.row.All, err = b.choice(o, v.Backends, numbers, old.All); err != nil {
		return err
	}
	if v.Floating {
		var here []snapshot.Backend
		for _, e := range v.Backends {
			if e.Node == b.node {
				here = append(here, e)
			}
		}
		if o.row.Here, err = b.choice(o, here, numbers, old.Here); err != nil {
			return err
		}
	}
	if o.key.Port != 0 || o.key.Proto != 0 {
		whole := ofAddress(o.key)
		if row, taken := b.rows.rows[whole]; !taken || row.Id == 0 {
			if err := b.rows.put(whole, bpf.MoireService{Self: whole, Flags: servicePorts}); err != nil {
				return err
			}
		}
	}
	if err := b.rows.put(o.key, o.row); err != nil {
		return err
	}
	before := b.offers[v.ServiceKey]
	if before != nil {
		b.replaced = append(b.replaced, before)
	}
	if before == nil || before.row.Id != o.row.Id || before.of.Name != v.Name || before.of.Project != v.Project {
		b.stale = true
	}
	b.offers[v.ServiceKey] = o
	return nil
}

// admit gives every backend of the Service a row, and returns their indexes.
func (b *serviceBook) admit(o *offer, v *snapshot.Service) (map[snapshot.Backend]uint16, error) {
	numbers := map[snapshot.Backend]uint16{}
	index, next := b.index(o.row.Id), uint32(0)
	taken := make(map[uint32]bool, len(index))
	for _, i := range index {
		taken[i] = true
	}
	for i, list := range [][]snapshot.Backend{v.Backends, v.Leaving} {
		for _, e := range list {
			row := bpf.MoireBackend{Addr: addrOf(e.Addr.IP), Vni: uint32(e.Addr.VNI), Port: ntohs(e.Port)}
			at, known := index[row]
			for !known && taken[next] {
				next++
			}
			if !known {
				at, taken[next] = next, true
				index[row] = at
			}
			if at > maxBackends {
				return nil, fmt.Errorf("more than %d backends", maxBackends)
			}
			key := bpf.MoireBackendKey{Service: o.row.Id, Index: at}
			if _, twice := o.backends[key]; twice {
				continue // in both lists: it takes sessions
			}
			row.Self = key
			if i == 1 {
				row.Flags = backendLeaving
			}
			if err := b.backends.put(key, row); err != nil {
				return nil, err
			}
			o.backends[key], numbers[e] = row, uint16(at)
		}
	}
	return numbers, nil
}

// choice writes the table that spreads over the backends, unless the one that
// is there does.
func (b *serviceBook) choice(o *offer, over []snapshot.Backend, numbers map[snapshot.Backend]uint16, old bpf.MoireChoice) (bpf.MoireChoice, error) {
	if len(over) == 0 {
		return bpf.MoireChoice{}, nil
	}
	if len(over) == 1 {
		return bpf.MoireChoice{Only: 1 + uint32(numbers[over[0]])}, nil
	}
	size := tableSize(len(over))
	rows := make([]bpf.MoireSlotsRow, (size+slotsPerRow-1)/slotsPerRow)
	for i, n := range maglev(over, size) {
		rows[i/slotsPerRow].Backend[i%slotsPerRow] = numbers[over[n]]
	}
	same := old.Size == uint32(size)
	for i := range rows {
		same = same && b.slots.rows[bpf.MoireSlotsKey{Table: old.Table, Row: uint32(i)}] == rows[i]
	}
	c := bpf.MoireChoice{Table: old.Table, Size: uint32(size)}
	if !same {
		b.nextTable++
		c.Table = b.nextTable
	}
	for i, row := range rows {
		key := bpf.MoireSlotsKey{Table: c.Table, Row: uint32(i)}
		if err := b.slots.put(key, row); err != nil {
			return c, err
		}
		o.slots[key] = row
	}
	return c, nil
}

func serviceKey(k snapshot.ServiceKey) bpf.MoireServiceKey {
	return bpf.MoireServiceKey{Addr: addrOf(k.Addr.IP), Vni: uint32(k.Addr.VNI), Port: ntohs(k.Port), Proto: k.Protocol}
}

// ofAddress is the row that speaks for all ports of an address.
func ofAddress(k bpf.MoireServiceKey) bpf.MoireServiceKey {
	k.Port, k.Proto = 0, 0
	return k
}

// named says what the Services are called, by id.
func (b *serviceBook) named() map[uint32]string {
	if b.names != nil && !b.stale {
		return b.names
	}
	names := make(map[uint32]string, len(b.offers))
	for _, o := range b.offers {
		names[o.row.Id] = o.of.Project + "/" + o.of.Name
	}
	for id, name := range b.names {
		if _, ok := names[id]; !ok && b.indexes[id] != nil {
			names[id] = name // left, but its backends have rows yet
		}
	}
	b.names, b.stale = names, false
	return names
}
