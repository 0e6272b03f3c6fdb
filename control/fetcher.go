package control

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Limits of the fetcher.
const (
	maxSets      = 1024
	fetchers     = 8 // at one time
	refreshKeys  = 5 * time.Minute
	soonestKeys  = time.Minute
	latestKeys   = time.Hour
	slowestRetry = 5 * time.Minute
	// believeKeys is how long a set is believed that cannot be fetched anew.
	believeKeys = 24 * time.Hour
)

// fetcher gets the JWK sets that Policies name, again before they change. It
// works on the process that allocates; the others read its rows. A failure keeps
// the last good set until it is too old.
type fetcher struct {
	keeper *keeper
	guard  *guard
	log    *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	wanted []string
	bell   chan struct{}
}

func newFetcher(k *keeper, g *guard, log *slog.Logger, now func() time.Time) *fetcher {
	return &fetcher{keeper: k, guard: g, log: log, now: now, bell: make(chan struct{}, 1)}
}

// want replaces the list of URIs that are wanted.
func (f *fetcher) want(uris []string) {
	f.mu.Lock()
	changed := !slices.Equal(f.wanted, uris)
	f.wanted = uris
	f.mu.Unlock()
	if changed {
		select {
		case f.bell <- struct{}{}:
		default:
		}
	}
}

// run fetches until ctx ends.
func (f *fetcher) run(ctx context.Context) {
	state := map[string]*asked{}
	for ctx.Err() == nil {
		next := f.pass(ctx, state)
		t := time.NewTimer(max(next.Sub(f.now()), resolverPause))
		select {
		case <-ctx.Done():
		case <-f.bell:
		case <-t.C:
		}
		t.Stop()
	}
}

// pass fetches what is due and returns when something is due next.
func (f *fetcher) pass(ctx context.Context, state map[string]*asked) time.Time {
	f.mu.Lock()
	wanted := f.wanted
	f.mu.Unlock()
	if len(wanted) > maxSets {
		f.log.Warn("too many JWK sets; the last ones are not fetched", "sets", len(wanted), "most", maxSets)
		wanted = wanted[:maxSets]
	}
	now, known := f.now(), f.keeper.keySets()
	var saved map[string]keySet
	if known != nil {
		saved = known.by
	}
	due, changed := due(wanted, state, saved, now)
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, fetchers)
	for _, uri := range due {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			text, fresh, err := f.get(ctx, uri)
			mu.Lock()
			defer mu.Unlock()
			before, was := known.find(uri)
			after := f.judge(state[uri], before, text, fresh, err)
			if !was || after != before {
				changed[uri] = &after
			}
		})
	}
	wg.Wait()
	if len(changed) > 0 && ctx.Err() == nil {
		if err := f.keeper.saveKeySets(ctx, changed); err != nil && ctx.Err() == nil {
			f.log.Warn("cannot save JWK sets; trying again", "error", err)
			for uri := range changed {
				delete(state, uri)
			}
		}
	}
	next := now.Add(longestPause)
	for _, a := range state {
		if a.next.Before(next) && a.unused.IsZero() {
			next = a.next
		}
	}
	return next
}

func (f *fetcher) get(ctx context.Context, uri string) (string, time.Duration, error) {
	document, fresh, err := f.guard.fetch(ctx, uri)
	if err != nil {
		return "", 0, err
	}
	text, err := readKeySet(document)
	return text, fresh, err
}

// judge says what is known after a try, and when the next one is due. That a set
// is believed for longer is written only now and then: each time it is, all
// nodes hear of it.
func (f *fetcher) judge(a *asked, before keySet, text string, fresh time.Duration, err error) keySet {
	now := f.now()
	if err != nil {
		a.backoff = min(max(2*a.backoff, firstBackoff), slowestRetry)
		a.next = now.Add(a.backoff)
		return keySet{JSON: before.JSON, Until: before.Until, Error: fmt.Sprintf("the keys cannot be fetched: %v", err)}
	}
	if fresh == 0 {
		fresh = refreshKeys
	}
	a.backoff, a.next = 0, now.Add(min(max(fresh, soonestKeys), latestKeys))
	after := keySet{JSON: text, Until: now.Add(believeKeys).Unix()}
	if text == before.JSON && time.Unix(before.Until, 0).Sub(now) > believeKeys/2 {
		after.Until = before.Until
	}
	return after
}
