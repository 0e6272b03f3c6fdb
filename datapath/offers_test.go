package datapath

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// someServices are some of ten, with some of seventy backends.
func someServices(r *rand.Rand) map[snapshot.ServiceKey]snapshot.Service {
	all := map[snapshot.ServiceKey]snapshot.Service{}
	for i := range 10 {
		if r.IntN(3) == 0 {
			continue
		}
		k := snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 1, 0, byte(200 + i/2)})}}
		if r.IntN(8) > 0 {
			k.Protocol, k.Port = policy.TCP, uint16(80+i%2)
		}
		v := snapshot.Service{ServiceKey: k, Project: "p", Name: fmt.Sprint("s", i), Floating: r.IntN(3) == 0, Affinity: time.Duration(r.IntN(2)) * time.Minute}
		most := []int{0, 1, 2, 5, 70}[r.IntN(5)]
		for j := range most {
			if r.IntN(5) == 0 {
				continue
			}
			b := snapshot.Backend{Addr: snapshot.Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 1, 1, byte(j)})}, Port: 8080, Weight: 1, Node: []string{"a", "n1"}[j%2]}
			if r.IntN(4) == 0 {
				v.Leaving = append(v.Leaving, b)
			} else {
				v.Backends = append(v.Backends, b)
			}
		}
		all[k] = v
	}
	return all
}

// canonicalServices says what the tables of Services mean, without the numbers
// that depend on history.
func (d *Datapath) canonicalServices(line func(string, ...any)) {
	b := d.services
	place := func(service, index uint32) string {
		row, ok := b.backends.rows[bpf.MoireBackendKey{Service: service, Index: index}]
		if !ok {
			return "missing"
		}
		return fmt.Sprintf("%d/%s:%d flags %d sound %v", row.Vni, ipOf(row.Addr), ntohs(row.Port), row.Flags, row.Self.Service == service && row.Self.Index == index)
	}
	choice := func(id uint32, c bpf.MoireChoice) string {
		if c.Size == 0 {
			if c.Only == 0 {
				return "none"
			}
			return place(id, c.Only-1)
		}
		h := fnv.New64a()
		for i := range c.Size {
			row := b.slots.rows[bpf.MoireSlotsKey{Table: c.Table, Row: i / slotsPerRow}]
			h.Write([]byte(place(id, uint32(row.Backend[i%slotsPerRow]))))
		}
		return fmt.Sprintf("%d slots %x", c.Size, h.Sum64())
	}
	slots := map[uint32]bool{}
	for k, v := range b.rows.rows {
		line("service %d %s %d %d flags %d affinity %d all %s here %s sound %v", k.Vni, ipOf(k.Addr), k.Proto, ntohs(k.Port), v.Flags, v.Affinity,
			choice(v.Id, v.All), choice(v.Id, v.Here), v.Self == k)
		slots[v.All.Table], slots[v.Here.Table] = true, true
	}
	for k := range b.backends.rows {
		line("backend %s", place(k.Service, k.Index))
	}
	for k := range b.slots.rows {
		if !slots[k.Table] {
			line("slots of no Service: %d", k.Table)
		}
	}
}

// TestOneServiceChanges: among ten thousand Services a change of one writes a few
// rows, and takes no time to speak of.
func TestOneServiceChanges(t *testing.T) {
	w := newWorld(t)
	w.underlay("192.168.77.", "fd77::")
	n := w.node("a", "moire-dp-a", "192.168.77.1")
	w.network(100, "acme", "10.0.0.0/8")
	s := w.snapshot("a")
	const many = 10_000
	at := func(i int) snapshot.ServiceKey {
		return snapshot.ServiceKey{Addr: snapshot.Addr{VNI: 100, IP: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})}, Protocol: policy.TCP, Port: 80}
	}
	for i := range many {
		s.Services[at(i)] = snapshot.Service{ServiceKey: at(i), Project: "acme", Name: fmt.Sprint("s", i), Backends: someBackends(10, func(int) uint32 { return 1 })}
	}
	began := time.Now()
	if err := errors.Join(n.Grow(State{Snapshot: s}), n.Shrink(State{Snapshot: s})); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d Services: %s, %d rows", many, time.Since(began), n.Writes())
	for _, backends := range []int{9, 10, 11} {
		v := s.Services[at(77)]
		v.Backends = someBackends(backends, func(int) uint32 { return 1 })
		s.Services[at(77)] = v
		before := n.Writes()
		err := n.locked(func() error {
			began := time.Now()
			err := n.services.offer(&v, false)
			t.Logf("%d backends: written in %s", backends, time.Since(began))
			return err
		})
		next := *s // another State
		err = errors.Join(err, n.Grow(State{Snapshot: &next}), n.Shrink(State{Snapshot: &next}))
		if got := n.Writes() - before; err != nil || got == 0 || got > 20 {
			t.Errorf("%d rows written, %v", got, err)
		}
	}
	s.Services = nil
	if err := errors.Join(n.Grow(State{Snapshot: s}), n.Shrink(State{Snapshot: s})); err != nil {
		t.Fatal(err)
	}
	if b := n.services; len(b.rows.rows)+len(b.slots.rows)+len(b.backends.rows)+len(b.offers)+len(b.indexes) > 0 {
		t.Errorf("left %d rows", len(b.rows.rows)+len(b.slots.rows)+len(b.backends.rows))
	}
}
