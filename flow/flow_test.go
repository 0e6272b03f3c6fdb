package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"moire.dev/moire/flow/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func numbered(i int) record.Record {
	return record.Record{ID: strconv.Itoa(i), Time: epoch.Add(time.Duration(i) * time.Second), Verdict: record.Allow}
}

// TestRing compares the ring with a slice.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.IntRange(1, 200).Draw(t, "records")
		bytes := rapid.Int64Range(1, 100*recordSize).Draw(t, "bytes")
		r := newRing(records, bytes)
		var model []record.Record
		size := func() (n int64) {
			for i := range model {
				n += sizeOf(&model[i])
			}
			return n
		}
		for i := range rapid.IntRange(0, 600).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 && len(model) > 0 {
				r.pop()
				model = model[1:]
				continue
			}
			rec := numbered(i)
			dropped := r.push(rec)
			model = append(model, rec)
			for len(model) > 1 && (len(model) > records || size() > bytes) {
				model = model[1:]
				dropped--
			}
			if dropped != 0 {
				t.Fatalf("the count of dropped is off by %d", int64(dropped))
			}
		}
		if r.len() != len(model) || r.bytes != size() {
			t.Fatalf("%d records of %d bytes, want %d of %d", r.len(), r.bytes, len(model), size())
		}
		for i := range model {
			if got := r.at(r.first + uint64(i)).ID; got != model[i].ID {
				t.Fatalf("at %d is %s, want %s", i, got, model[i].ID)
			}
		}
	})
}

// sink is a control plane.
type sink struct {
	mu   sync.Mutex
	got  []string
	lost uint64
	away bool
}

func (s *sink) ship(rs []record.Record, lost uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errors.New("away")
	}
	if len(rs) > BatchRecords {
		return fmt.Errorf("a batch of %d", len(rs))
	}
	for _, r := range rs {
		s.got = append(s.got, r.ID)
	}
	s.lost = lost
	return nil
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func start(t *testing.T, c *Collector) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not in time: %s", what)
}

func TestCollectorShipsInOrder(t *testing.T) {
	s := &sink{}
	c := NewCollector(10_000, 1<<30, s.ship)
	stop := start(t, c)
	var want []string
	for i := range 1000 {
		c.Add(numbered(i))
		want = append(want, strconv.Itoa(i))
	}
	eventually(t, "1000 records", func() bool { return s.count() == 1000 })
	c.Add(numbered(1000))
	stop() // the last one is shipped at the end
	if want = append(want, "1000"); !slices.Equal(s.got, want) {
		t.Error("records are missing or out of order")
	}
	if s.lost != 0 || c.Lost() != 0 || c.Waiting() != 0 {
		t.Errorf("lost %d, %d; waiting %d", s.lost, c.Lost(), c.Waiting())
	}
}

func TestCollectorKeepsAndCounts(t *testing.T) {
	s := &sink{away: true}
	c := NewCollector(300, 1<<30, s.ship)
	stop := start(t, c)
	defer stop()
	for i := range 1000 {
		c.Add(numbered(i))
	}
	if c.Waiting() != 300 || c.Lost() != 700 {
		t.Fatalf("waiting %d, lost %d", c.Waiting(), c.Lost())
	}
	s.mu.Lock()
	s.away = false
	s.mu.Unlock()
	eventually(t, "300 records", func() bool { return s.count() == 300 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got[0] != "700" || s.got[299] != "999" || s.lost != 700 {
		t.Errorf("shipped %s to %s, lost %d", s.got[0], s.got[299], s.lost)
	}
}

func TestCollectorConcurrently(t *testing.T) {
	s := &sink{}
	c := NewCollector(500, 1<<30, s.ship)
	stop := start(t, c)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				c.Add(numbered(i))
			}
		})
	}
	wg.Wait()
	stop()
	// Records that had to go while they were being shipped count as lost too,
	// so the sum is never too small.
	if n := s.count() + int(c.Lost()); n < 8000 {
		t.Errorf("%d shipped + %d lost < 8000", s.count(), c.Lost())
	}
}

func TestArchive(t *testing.T) {
	a := NewArchive(100, 1<<30)
	for i := range 150 {
		r := numbered(i)
		if i%2 == 1 {
			r.Verdict = record.Deny
		}
		a.Add("n1", []record.Record{r}, 0)
	}
	if got := a.Query(Filter{}); len(got) != 100 || got[0].ID != "50" || got[99].ID != "149" {
		t.Errorf("%d records, %s to %s", len(got), got[0].ID, got[len(got)-1].ID)
	}
	if got := a.Query(Filter{Verdict: record.Deny, Limit: 2}); len(got) != 2 || got[0].ID != "147" || got[1].ID != "149" {
		t.Errorf("%+v", got)
	}
	if got := a.Query(Filter{Verdict: "x"}); got == nil || len(got) != 0 {
		t.Errorf("no record is %v", got)
	}
}

func TestArchiveBoundsBytes(t *testing.T) {
	a := NewArchive(1_000_000, 64*recordSize)
	for i := range 1000 {
		a.Add("n1", []record.Record{numbered(i)}, 0)
	}
	if a.Len() >= 64 || a.Len() < 50 || a.ring.bytes > 64*recordSize {
		t.Errorf("%d records of %d bytes", a.Len(), a.ring.bytes)
	}
}

func TestArchiveLost(t *testing.T) {
	a := NewArchive(0, 0)
	a.Add("n1", nil, 5)
	a.Add("n1", nil, 7)
	a.Add("n2", nil, 0)
	a.Add("n1", nil, 2) // the agent was restarted
	if got := a.Lost(); len(got) != 1 || got["n1"] != 9 {
		t.Errorf("%v", got)
	}
}

func TestFollow(t *testing.T) {
	a := NewArchive(1000, 1<<30)
	a.Add("n1", []record.Record{numbered(0), numbered(1), numbered(2)}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var fresh, tail []string
	var wg sync.WaitGroup
	follow := func(f Filter, into *[]string) {
		wg.Go(func() {
			if missed := a.Follow(ctx, f, func(r record.Record) {
				mu.Lock()
				defer mu.Unlock()
				*into = append(*into, r.ID)
			}); missed != 0 {
				t.Errorf("missed %d", missed)
			}
		})
	}
	follow(Filter{}, &fresh)
	follow(Filter{Limit: 2}, &tail)
	eventually(t, "the tail", func() bool { mu.Lock(); defer mu.Unlock(); return len(tail) == 2 })
	time.Sleep(50 * time.Millisecond) // let both wait
	for i := 3; i < 6; i++ {
		a.Add("n1", []record.Record{numbered(i)}, 0)
	}
	eventually(t, "all", func() bool { mu.Lock(); defer mu.Unlock(); return len(tail) == 5 && len(fresh) == 3 })
	cancel()
	wg.Wait()
	if !slices.Equal(fresh, []string{"3", "4", "5"}) || !slices.Equal(tail, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("%v, %v", fresh, tail)
	}
}

func TestSlowFollowerMisses(t *testing.T) {
	a := NewArchive(10, 1<<30)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	entered, release := make(chan struct{}, 1), make(chan struct{})
	missed := make(chan uint64, 1)
	seen := 0
	go func() {
		missed <- a.Follow(ctx, Filter{Since: epoch.Add(-time.Hour)}, func(record.Record) {
			if seen++; seen == 1 {
				entered <- struct{}{}
				<-release
			}
			if seen == 11 {
				cancel()
			}
		})
	}()
	a.Add("n1", []record.Record{numbered(0)}, 0)
	<-entered
	for i := range 100 {
		a.Add("n1", []record.Record{numbered(i)}, 0)
	}
	close(release)
	if got := <-missed; got != 90 {
		t.Errorf("missed %d, want 90", got)
	}
}

func BenchmarkCollectorAdd(b *testing.B) {
	c := NewCollector(50_000, 1<<30, nil)
	r := sample()
	b.ReportAllocs()
	for b.Loop() {
		c.Add(r)
	}
}

func BenchmarkArchiveQuery(b *testing.B) {
	a := NewArchive(100_000, 1<<30)
	for range 100_000 {
		a.Add("n1", []record.Record{sample()}, 0)
	}
	f := Filter{From: "shop/web", Verdict: record.Deny, Limit: 100}
	b.ReportAllocs()
	for b.Loop() {
		a.Query(f)
	}
}

func BenchmarkMatchNothing(b *testing.B) {
	r, f := sample(), Filter{From: "10.9.0.0/16"}
	b.ReportAllocs()
	for b.Loop() {
		f.Match(&r)
	}
}
