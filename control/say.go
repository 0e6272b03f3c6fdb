package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// writers write statuses side by side.
	writers = 8
	// sayFor is how long statuses are written although a newer order waits: it
	// holds what is not written yet.
	sayFor = 200 * time.Millisecond
	// sayEvery is how often the numbers in one status are written: each write
	// costs milliseconds of the API server.
	sayEvery = 2 * time.Second
)

// say writes statuses, first those with addresses: others wait for them.
func (a *allocator) say(ctx context.Context, o *order, results granted) error {
	list := slices.SortedFunc(keys(results), compareSubjects)
	rest := slices.SortedFunc(keys(o.others), compareSubjects)
	list = append(list, slices.DeleteFunc(rest, func(s subject) bool { return results[s] != nil })...)
	var g errgroup.Group
	g.SetLimit(writers)
	var mu sync.Mutex
	var errs []error
	begin, later := time.Now(), false
	for s, at := range a.said {
		if begin.Sub(at) > sayEvery {
			delete(a.said, s)
		}
	}
	for _, s := range list {
		if ctx.Err() != nil || a.take() != o && time.Since(begin) > sayFor {
			break
		}
		var words *saying
		if w, ok := o.others[s]; ok {
			words = &w
		}
		if _, lately := a.said[s]; lately && results[s] == nil && words != nil && words.minor {
			later = true
			continue
		}
		a.said[s] = begin
		var have addresses
		if r := results[s]; r != nil {
			have = *r
		}
		g.Go(func() error {
			if err := a.writer.write(ctx, s, words, have); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	if errs = append(errs, g.Wait()); errors.Join(errs...) == nil && later {
		return errLater
	}
	return errors.Join(errs...)
}

func compareSubjects(a, b subject) int {
	return cmp.Or(cmp.Compare(a.resource, b.resource), compareKeys(a.key, b.key))
}
