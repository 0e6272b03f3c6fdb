package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

var errCrash = errors.New("crash")

// memory is Rows in memory. before and after, when set, may fail a Commit
// before or after it took place, and are called with the lock held.
type memory struct {
	mu       sync.Mutex
	revision int64
	rows     map[string]row
	before   func() error
	after    func() error
	get      func() error
}

type row struct {
	value    []byte
	revision int64
}

func newMemory() *memory { return &memory{rows: map[string]row{}} }

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (m *memory) Get(_ context.Context, key string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := call(m.get); err != nil {
		return nil, 0, err
	}
	r := m.rows[key]
	return slices.Clone(r.value), r.revision, nil
}

func (m *memory) List(_ context.Context, prefix string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := call(m.get); err != nil {
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
	if err := call(m.before); err != nil {
		return false, err
	}
	for k, revision := range expect {
		if m.rows[k].revision != revision {
			return false, nil
		}
	}
	m.revision++
	for k, v := range put {
		if v == nil {
			delete(m.rows, k)
		} else {
			m.rows[k] = row{slices.Clone(v), m.revision}
		}
	}
	return true, call(m.after)
}

// check fails when the rows of a kind contradict each other.
func check(t interface{ Fatalf(string, ...any) }, n *Numbers) map[string]uint32 {
	all, err := n.All(context.Background())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	seen := map[uint32]string{}
	for owner, number := range all {
		if other, ok := seen[number]; ok {
			t.Fatalf("%s and %s both have %d", owner, other, number)
		}
		seen[number] = owner
		got, held, err := n.lookup(context.Background(), owner)
		if err != nil || !held || got != number {
			t.Fatalf("%s has %d, its own row says %d, %v, %v", owner, number, got, held, err)
		}
	}
	return all
}

func TestNumbersOrder(t *testing.T) {
	ctx := context.Background()
	n := NewNumbers(newMemory(), "vni", 10, 12)
	get := func(owner string, want uint32) {
		t.Helper()
		got, err := n.Get(ctx, owner)
		if err != nil || got != want {
			t.Fatalf("%s: got %d, %v, want %d", owner, got, err, want)
		}
	}
	release := func(owner string) {
		t.Helper()
		if err := n.Release(ctx, owner); err != nil {
			t.Fatal(err)
		}
	}
	get("a", 10)
	get("b", 11)
	get("a", 10)
	release("a")
	release("a")
	get("c", 12) // never used comes first
	release("b")
	get("d", 10) // then what is free for longest
	get("e", 11)
	if _, err := n.Get(ctx, "f"); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	want := map[string]uint32{"c": 12, "d": 10, "e": 11}
	if got := check(t, n); !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// TestNumbersCrash: whatever fails between any two operations, no number has
// two owners and no answer that was given is taken back.
func TestNumbersCrash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := newMemory()
		faults := rapid.SliceOfN(rapid.IntRange(0, 12), 400, 400).Draw(t, "faults")
		fault := func(n int) func() error {
			return func() error {
				if len(faults) == 0 {
					return nil
				}
				f := faults[0]
				faults = faults[1:]
				if f == n {
					return errCrash
				}
				return nil
			}
		}
		rows.get, rows.before, rows.after = fault(0), fault(1), fault(2)
		n := NewNumbers(rows, "identity", 1, 5)
		told := map[string]uint32{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			owner := fmt.Sprint("owner-", rapid.IntRange(0, 7).Draw(t, "owner"))
			if rapid.IntRange(0, 2).Draw(t, "op") == 0 {
				err := n.Release(context.Background(), owner)
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("release: %v", err)
				}
				delete(told, owner) // after a crash it may or may not be released
				continue
			}
			got, err := n.Get(context.Background(), owner)
			switch {
			case errors.Is(err, errCrash) || errors.Is(err, ErrExhausted):
			case err != nil:
				t.Fatalf("get: %v", err)
			case told[owner] != 0 && told[owner] != got:
				t.Fatalf("%s was told %d, then %d", owner, told[owner], got)
			default:
				told[owner] = got
			}
			if errors.Is(err, ErrExhausted) && len(told) > 5 {
				t.Fatalf("more owners than numbers: %v", told)
			}
		}
		rows.get, rows.before, rows.after = nil, nil, nil
		all := check(t, n)
		for owner, number := range told {
			if all[owner] != number {
				t.Fatalf("%s was told %d, the rows say %d", owner, number, all[owner])
			}
		}
	})
}

func TestNumbersConcurrent(t *testing.T) {
	rows := newMemory()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			n := NewNumbers(rows, "node", 1, 300) // each its own, as in several processes
			for i := range 30 {
				owner := fmt.Sprintf("%d-%d", w, i)
				shared := fmt.Sprintf("shared-%d", i)
				for _, o := range []string{owner, shared} {
					if _, err := n.Get(context.Background(), o); err != nil {
						t.Errorf("get %s: %v", o, err)
					}
				}
				if i%3 == 0 {
					if err := n.Release(context.Background(), owner); err != nil {
						t.Errorf("release %s: %v", owner, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if all := check(t, NewNumbers(rows, "node", 1, 300)); len(all) != 8*20+30 {
		t.Fatalf("%d owners, want %d", len(all), 8*20+30)
	}
}

func TestNumbersGiveUp(t *testing.T) {
	rows := newMemory()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	busy := &memory{rows: rows.rows}
	n := NewNumbers(contested{busy}, "vni", 1, 9)
	if _, err := n.Get(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	rows.rows[n.ownerKey("b")] = row{[]byte("x"), 1}
	if _, err := NewNumbers(rows, "vni", 1, 9).Get(context.Background(), "b"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("got %v, want a damaged row", err)
	}
}

// contested loses every race.
type contested struct{ *memory }

func (contested) Commit(context.Context, map[string]int64, map[string][]byte) (bool, error) {
	return false, nil
}

func BenchmarkNumbersGet(b *testing.B) {
	n := NewNumbers(newMemory(), "identity", 1, 1<<31)
	for i := range b.N {
		if _, err := n.Get(context.Background(), fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
}
