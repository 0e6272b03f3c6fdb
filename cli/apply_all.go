package cli

import (
	"context"
	"errors"
	"sync"
	"time"

	"moire.dev/moire/cli/manifest"
)

// atOnce bounds how many objects are under way at the same time.
const atOnce = 8

// slow is the time after which people are told how far it is, and how often.
const slow = 2 * time.Second

// all applies the objects rank after rank, those of one rank beside each other,
// and tells what happened in the order of the objects. It gives up when the
// server goes away. errs are the refusals, which were told; err ends all.
func (r *applying) all(ctx context.Context) (errs []error, err error) {
	told := time.Now()
	done := 0
	for start := 0; start < len(r.docs); {
		end := start + 1
		for end < len(r.docs) && rank(r.docs[end]) == rank(r.docs[start]) {
			end++
		}
		some, err := r.beside(ctx, r.docs[start:end], func() {
			if done++; time.Since(told) > slow {
				told = time.Now()
				r.app.say("- %d of %d objects", done, len(r.docs))
			}
		})
		errs = append(errs, some...)
		if err != nil {
			return errs, err
		}
		if len(some) > 0 && stop(some[len(some)-1]) {
			return errs, nil
		}
		start = end
	}
	return errs, nil
}

// beside applies objects that do not depend on each other.
func (r *applying) beside(ctx context.Context, docs []*manifest.Doc, tick func()) (errs []error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make([]chan outcome, len(docs))
	for i := range outcomes {
		outcomes[i] = make(chan outcome, 1)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		slots := make(chan struct{}, atOnce)
		for i, d := range docs {
			slots <- struct{}{}
			if ctx.Err() != nil {
				<-slots
				outcomes[i] <- outcome{err: ctx.Err()}
				continue
			}
			wg.Go(func() {
				outcomes[i] <- r.one(ctx, d)
				<-slots
			})
		}
	})
	for i, d := range docs {
		o := <-outcomes[i]
		tick()
		if o.err == nil {
			if err := r.result(d, o); err != nil {
				return errs, err
			}
			continue
		}
		if errors.Is(o.err, context.Canceled) {
			return errs, o.err
		}
		errs = append(errs, r.app.tell(r.atLine(d, o.err)))
		if stop(o.err) {
			return errs, nil
		}
	}
	return errs, nil
}
