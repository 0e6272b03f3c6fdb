package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// table is one map that the agent writes, and what is known to be in it.
type table[K, V comparable] struct {
	m      *ebpf.Map
	name   string
	rows   map[K]V
	writes *tally
	// known: rows is what was read or written, not what a first look will show.
	known bool
}

func newTable[K, V comparable](m *ebpf.Map, name string, writes *tally) *table[K, V] {
	return &table[K, V]{m: m, name: name, rows: map[K]V{}, writes: writes}
}

// read learns what is in the kernel.
func (t *table[K, V]) read() error {
	rows, err := readMap[K, V](t.m)
	if err != nil {
		return fmt.Errorf("read table %s: %w", t.name, err)
	}
	if t.known {
		t.compare(rows)
	}
	t.rows, t.known = rows, true
	return nil
}

// compare notes what somebody else did to the table.
func (t *table[K, V]) compare(now map[K]V) {
	for k, v := range now {
		if was, ok := t.rows[k]; !ok {
			t.writes.found(t.name, "there was a row too many,", k)
		} else if was != v {
			t.writes.found(t.name, "there was another value in row", k)
		}
	}
	for k := range t.rows {
		if _, ok := now[k]; !ok {
			t.writes.found(t.name, "there was no row", k)
		}
	}
}

// put writes the row unless it is there already.
func (t *table[K, V]) put(k K, v V) error {
	if old, ok := t.rows[k]; ok && old == v {
		return nil
	}
	if err := t.m.Update(&k, &v, ebpf.UpdateAny); err != nil {
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("it is full with %d rows: %w", t.m.MaxEntries(), err)
		}
		return fmt.Errorf("write table %s: %w", t.name, err)
	}
	t.writes.Add(1)
	t.rows[k] = v
	return nil
}

func (t *table[K, V]) remove(k K) error {
	if _, ok := t.rows[k]; !ok {
		return nil
	}
	if err := t.m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove from table %s: %w", t.name, err)
	}
	t.writes.Add(1)
	delete(t.rows, k)
	return nil
}

// grow puts all rows; shrink removes all others.
func (t *table[K, V]) grow(want map[K]V) error {
	for k, v := range want {
		if err := t.put(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[K, V]) shrink(want map[K]V) error {
	for k := range t.rows {
		if _, ok := want[k]; !ok {
			if err := t.remove(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// inOrder does one after the other, until one fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

const batch = 1024

// readMap reads a whole map, in batches where the kernel can.
func readMap[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	rows := map[K]V{}
	err := eachRow(m, func(k K, v V) { rows[k] = v })
	return rows, err
}

// eachRow calls f for every row. Rows that change meanwhile may be missed or
// come twice.
func eachRow[K comparable, V any](m *ebpf.Map, f func(K, V)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, batch), make([]V, batch)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			return eachRowSlowly(m, f)
		}
		for i := range n {
			f(keys[i], values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func eachRowSlowly[K comparable, V any](m *ebpf.Map, f func(K, V)) error {
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		f(k, v)
	}
	return it.Err()
}
