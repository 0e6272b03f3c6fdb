package authz

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func TestNotaryIsFair(t *testing.T) {
	n := NewNotary()
	early := make(chan struct{})
	if !n.Do("early", func() { close(early) }) {
		t.Error("what comes before it runs does not wait")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx, 1) })
	<-early
	begun, gate := make(chan struct{}), make(chan struct{})
	for !n.Do("gate", func() { close(begun); <-gate }) {
	}
	<-begun
	var mu sync.Mutex
	var order []string
	var done sync.WaitGroup
	do := func(kind string) bool {
		done.Add(1)
		ok := n.Do(kind, func() { defer done.Done(); mu.Lock(); order = append(order, kind); mu.Unlock() })
		if !ok {
			done.Done()
		}
		return ok
	}
	taken := 0
	for range 1000 {
		if do("flood") {
			taken++
		}
	}
	if taken != maxWaiting {
		t.Errorf("%d of one kind wait", taken)
	}
	for range 2 {
		if !do("honest") {
			t.Error("a flood of one kind keeps others out")
		}
	}
	close(gate)
	done.Wait()
	if i := slices.Index(order, "honest"); i > 1 {
		t.Errorf("after %d of the flood", i)
	}
	if last := slices.Index(order[2:], "honest"); last > 2 {
		t.Errorf("the second after %d of the flood", last)
	}
	cancel()
	running.Wait()
	if n.Do("a", func() {}) {
		t.Error("it takes work after its end")
	}
}

func TestNotaryDoesEverything(t *testing.T) {
	n := NewNotary()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx, 3) })
	var did, taken atomic.Int64
	var asking sync.WaitGroup
	for kind := range 4 {
		asking.Go(func() {
			for range 2000 {
				if n.Do(kind, func() { did.Add(1) }) {
					taken.Add(1)
				}
			}
		})
	}
	asking.Wait()
	cancel()
	running.Wait()
	if did.Load() != taken.Load() || taken.Load() == 0 {
		t.Errorf("took %d, did %d", taken.Load(), did.Load())
	}
}
