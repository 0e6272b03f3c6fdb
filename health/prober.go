package health

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot"
)

// Probes is how many checks are under way at once, at most.
const Probes = 64

// Bounds of what a Check may ask for.
const (
	leastInterval = 100 * time.Millisecond
	leastTimeout  = 20 * time.Millisecond
)

// Config says from where is checked.
type Config struct {
	// In runs f where the devices are.
	In func(f func() error) error
	// Device is the one that leads into a Network, "" when there is none.
	Device func(snapshot.VNI) string
	// Source4 and Source6 are our addresses there.
	Source4, Source6 netip.Addr
	// Changed is called when Health has changed. It must not block.
	Changed func()
	Log     *slog.Logger
}

// Prober does the checks.
type Prober struct {
	cfg   Config
	probe func(context.Context, *Config, snapshot.CheckKey) error

	wanted  atomic.Pointer[[]snapshot.Check]
	wake    chan struct{} // has room for one
	results chan result
	health  atomic.Pointer[[]snapshot.Health]

	checks map[snapshot.CheckKey]*state // of the loop
	busy   int
}

// state is one Check.
type state struct {
	snapshot.Check
	due      time.Time
	running  bool
	gone     bool // no longer wanted while it ran
	known    bool
	healthy  bool
	since    time.Time
	err      string
	inRow    int // failures, or successes, since it was otherwise
	lastGood bool
}

type result struct {
	key snapshot.CheckKey
	err error
}

// New returns a Prober without checks.
func New(cfg Config) *Prober {
	p := &Prober{
		cfg: cfg, probe: probe, wake: make(chan struct{}, 1), results: make(chan result),
		checks: map[snapshot.CheckKey]*state{},
	}
	p.wanted.Store(&[]snapshot.Check{})
	p.health.Store(&[]snapshot.Health{})
	return p
}

// Set says what is to be checked from now on. What is known of a Check stays.
func (p *Prober) Set(checks []snapshot.Check) {
	p.wanted.Store(&checks)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Health is what is known, sorted by key. Immutable.
func (p *Prober) Health() []snapshot.Health { return *p.health.Load() }

// Run checks until ctx is done.
func (p *Prober) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			// Those under way end with ctx, or see that nobody listens.
			wg.Wait()
			return nil
		case <-p.wake:
			p.take(*p.wanted.Load())
		case r := <-p.results:
			p.ended(r)
		case <-timer.C:
		}
		for _, s := range p.due() {
			s.running = true
			p.busy++
			wg.Go(func() { p.check(ctx, s.CheckKey, s.Timeout) })
		}
		timer.Reset(p.pause())
	}
}

// take makes the checks what is wanted.
func (p *Prober) take(wanted []snapshot.Check) {
	now := time.Now()
	want := map[snapshot.CheckKey]bool{}
	for _, c := range wanted {
		c.Interval = max(c.Interval, leastInterval)
		c.Timeout = min(max(c.Timeout, leastTimeout), c.Interval)
		c.Failures, c.Successes = max(c.Failures, 1), max(c.Successes, 1)
		want[c.CheckKey] = true
		s := p.checks[c.CheckKey]
		if s == nil {
			// Not all at once.
			s = &state{due: now.Add(rand.N(min(c.Interval, time.Second) / 4))}
			p.checks[c.CheckKey] = s
		}
		s.Check, s.gone = c, false
		if latest := now.Add(c.Interval); s.due.After(latest) {
			s.due = latest
		}
	}
	for k, s := range p.checks {
		if !want[k] {
			s.gone = true
			if !s.running {
				delete(p.checks, k)
			}
		}
	}
	p.publish()
}

// due are the checks that begin now, those that wait longest first.
func (p *Prober) due() []*state {
	now := time.Now()
	var out []*state
	for _, s := range p.checks {
		if !s.running && !s.due.After(now) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *state) int { return cmp.Or(a.due.Compare(b.due), a.CheckKey.Compare(b.CheckKey)) })
	out = out[:min(len(out), Probes-p.busy)]
	for _, s := range out {
		// A little early, never late: whoever fails is found out within
		// Interval times Failures.
		s.due = now.Add(s.Interval - rand.N(s.Interval/16+1))
	}
	return out
}

// pause until the next check is due.
func (p *Prober) pause() time.Duration {
	if p.busy == Probes {
		return time.Hour // a result comes first
	}
	next := time.Hour
	now := time.Now()
	for _, s := range p.checks {
		if !s.running {
			next = min(next, s.due.Sub(now))
		}
	}
	return max(next, 0)
}

func (p *Prober) check(ctx context.Context, k snapshot.CheckKey, timeout time.Duration) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := p.probe(bounded, &p.cfg, k)
	select {
	case p.results <- result{k, err}:
	case <-ctx.Done():
	}
}

// ended counts a result.
func (p *Prober) ended(r result) {
	p.busy--
	s := p.checks[r.key]
	s.running = false
	if s.gone {
		delete(p.checks, r.key)
		return
	}
	good := r.err == nil
	if good != s.lastGood {
		s.inRow = 0
	}
	s.inRow, s.lastGood = s.inRow+1, good
	text := ""
	if !good {
		text = r.err.Error()
	}
	switch {
	case s.known && s.healthy == good:
		if good || s.err == text {
			return // as before; a failure that is not one yet is not told
		}
	case !good && s.inRow < s.Failures:
		return
	case good && s.known && s.inRow < s.Successes:
		return
	default:
		s.since = time.Now()
		if s.known {
			p.cfg.Log.Info("health changed", "network", r.key.Addr.VNI, "address", r.key.Addr.IP, "check", r.key.Kind, "port", r.key.Port, "healthy", good, "error", text)
		}
	}
	s.known, s.healthy, s.err = true, good, text
	p.publish()
}

// publish makes known what is known.
func (p *Prober) publish() {
	out := []snapshot.Health{}
	for k, s := range p.checks {
		if s.known && !s.gone {
			out = append(out, snapshot.Health{CheckKey: k, Healthy: s.healthy, Since: s.since, Error: s.err})
		}
	}
	slices.SortFunc(out, func(a, b snapshot.Health) int { return a.CheckKey.Compare(b.CheckKey) })
	if slices.Equal(out, *p.health.Load()) {
		return
	}
	p.health.Store(&out)
	if p.cfg.Changed != nil {
		p.cfg.Changed()
	}
}
