package door

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// AgentOptions of an Agent; Path is needed.
type AgentOptions struct {
	// Path of the socket; who listened there before is replaced.
	Path string
	// Grace is how long a proxy that gives no sign of life still counts as up;
	// default 2s.
	Grace time.Duration
	// Changed is told of every new Status, one after the other, by Run.
	Changed func(Status)
	Log     *slog.Logger // default slog.Default()
}

// Agent is the agent's end of the door.
type Agent struct {
	o AgentOptions

	mu      sync.Mutex
	state   State
	number  uint64  // of state; 0: there is none yet
	links   []*link // the oldest first
	told    Status
	changed chan struct{} // closed at each change of what is above
}

// NewAgent makes an Agent. It opens nothing: see Run.
func NewAgent(o AgentOptions) *Agent {
	if o.Grace <= 0 {
		o.Grace = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Agent{o: o, changed: make(chan struct{})}
}

// Set makes s what proxies must be, and says its number. It never waits.
// Descriptors in s must stay open until a later Set without them has returned.
// The same pointer to Sockets as before means the same descriptors.
func (a *Agent) Set(s State) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = s
	a.number++
	a.tell()
	return a.number
}

// Status now.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status(time.Now())
}

// Wait until a proxy that is up serves State number, or a later one. An error is
// ctx's, or a RefusedError.
func (a *Agent) Wait(ctx context.Context, number uint64) error {
	for {
		a.mu.Lock()
		s, changed := a.status(time.Now()), a.changed
		a.mu.Unlock()
		switch {
		case s.Up && s.Applied >= number:
			return nil
		case s.Refused >= number && number > 0:
			return &RefusedError{s.Refused, s.Reason}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// tell wakes all who wait for a change. Caller holds mu.
func (a *Agent) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// status is computed from the links. Caller holds mu.
func (a *Agent) status(now time.Time) Status {
	l := a.serving()
	if l == nil {
		return Status{}
	}
	s := Status{Up: now.Sub(l.alive) < a.o.Grace, Applied: l.applied, Refused: l.refused, Reason: l.reason, Ejected: l.ejected}
	if !l.over {
		s.PID, s.Workers = l.hello.PID, l.hello.Workers
	}
	return s
}

// serving is the newest link whose proxy has applied a State and is alive, or
// the last one that was; nil: there was none. Caller holds mu.
func (a *Agent) serving() *link {
	var best *link
	for _, l := range a.links {
		if l.applied > 0 && !l.hello.Draining && !l.alive.IsZero() && (best == nil || best.over || !l.over) {
			best = l
		}
	}
	if best == nil { // nobody serves yet, but it may be refused already
		for _, l := range a.links {
			if !l.over && !l.hello.Draining {
				best = l
			}
		}
	}
	return best
}

// Run lets proxies in until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { a.watch(ctx) })
	if err := letIn(ctx, a.o.Path, a.o.Log, a.serve); err != nil {
		return fmt.Errorf("the proxy's door at %s: %w", a.o.Path, err)
	}
	return nil
}

// watch tells of each new Status, and has older proxies drain.
func (a *Agent) watch(ctx context.Context) {
	tick := time.NewTicker(a.o.Grace / 10)
	defer tick.Stop()
	for {
		a.mu.Lock()
		now, changed := time.Now(), a.changed
		s := a.status(now)
		is := !s.equal(a.told)
		a.told = s
		if is {
			a.tell() // the time may have changed it, and Wait looks at it
		}
		a.supersede()
		a.forget(now)
		a.mu.Unlock()
		if is && a.o.Changed != nil {
			a.o.Changed(s)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// supersede marks the links of older proxies when a newer one serves. Caller
// holds mu.
func (a *Agent) supersede() {
	best := a.serving()
	if best == nil || best.over || best.applied == 0 {
		return
	}
	for _, l := range a.links[:slices.Index(a.links, best)] {
		if !l.over && !l.drain {
			l.drain = true
			a.tell()
		}
	}
}

// forget drops links that ended and are nobody's last one. Caller holds mu.
func (a *Agent) forget(now time.Time) {
	best := a.serving()
	kept := a.links[:0]
	for _, l := range a.links {
		if !l.over || l == best && now.Sub(l.alive) < a.o.Grace {
			kept = append(kept, l)
		}
	}
	clear(a.links[len(kept):])
	a.links = kept
}
