package telemetry

import (
	"sync"
	"testing"
)

// One writes, one reads, nothing is lost but what is counted, and nothing is
// torn.
func TestRing(t *testing.T) {
	q := newRing(8)
	const n = 20_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			if e := q.next(); e != nil {
				e.in, e.out = uint64(i), uint64(i)
				q.publish()
			}
		}
	})
	seen, last := uint64(0), int64(-1)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	read := func() {
		q.drain(func(e *event, number uint64) {
			if e.in != e.out || int64(e.in) <= last || number != seen {
				t.Errorf("event %d: %d %d after %d, %d seen", number, e.in, e.out, last, seen)
			}
			last = int64(e.in)
			seen++
		})
	}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		read()
	}
	if lost := q.lost.get(); seen+lost != n {
		t.Errorf("%d seen and %d lost of %d", seen, lost, n)
	}
}

func TestRingIsFull(t *testing.T) {
	tel := New(Options{Queue: 4, Log: quiet()})
	tab := tel.Open(someConfig())
	r := someRequest(tab)
	for range 10 {
		tel.Worker(0).RequestDone(r)
	}
	if got := tel.lost(); got != 6 {
		t.Errorf("lost %d, want 6", got)
	}
	run(t, tel)
	eventually(t, "what was there is read", func() bool { return tel.collected.Load() == 4 })
	tel.Worker(0).RequestDone(r)
	eventually(t, "it goes on", func() bool { return tel.collected.Load() == 5 })
}
