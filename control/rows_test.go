package control

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// memory is ipam.Rows in memory; fail, when set, is asked before every call.
type memory struct {
	mu       sync.Mutex
	revision int64
	rows     map[string]memoryRow
	fail     func(op, key string) error
	commits  int
}

type memoryRow struct {
	value    []byte
	revision int64
}

func newMemory() *memory { return &memory{rows: map[string]memoryRow{}} }

func (m *memory) ask(op, key string) error {
	if m.fail == nil {
		return nil
	}
	return m.fail(op, key)
}

func (m *memory) Get(_ context.Context, key string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ask("get", key); err != nil {
		return nil, 0, err
	}
	r := m.rows[key]
	return slices.Clone(r.value), r.revision, nil
}

func (m *memory) List(_ context.Context, prefix string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ask("list", prefix); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for k, r := range m.rows {
		if strings.HasPrefix(k, prefix) {
			out[k] = slices.Clone(r.value)
		}
	}
	return out, nil
}

func (m *memory) Commit(_ context.Context, expect map[string]int64, put map[string][]byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(put)) {
		if err := m.ask("commit", k); err != nil {
			return false, err
		}
	}
	for k, revision := range expect {
		if m.rows[k].revision != revision {
			return false, nil
		}
	}
	m.revision++
	m.commits++
	for k, v := range put {
		if v == nil {
			delete(m.rows, k)
		} else {
			m.rows[k] = memoryRow{slices.Clone(v), m.revision}
		}
	}
	return true, nil
}
