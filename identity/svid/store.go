package svid

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// Authority certifies.
type Authority interface {
	// Issue answers in the order of the requests.
	Issue(ctx context.Context, in *wire.IssueRequest) (*wire.IssueReply, error)
}

// Config of a Store.
type Config struct {
	// Dir holds keys and SVIDs; only the owner may read it.
	Dir       string
	Authority Authority
	Log       *slog.Logger     // nil: slog.Default()
	Now       func() time.Time // nil: time.Now
}

// Rhythm of the Store.
const (
	// gather lets requests that come together go in one call.
	gather = 20 * time.Millisecond
	// batch is how many go in one call.
	batch       = 64
	callTimeout = 10 * time.Second
	firstPause  = 100 * time.Millisecond // after a refusal, doubling
	lastPause   = 30 * time.Second
	// maxDoze: a timer knows nothing of a clock that was set.
	maxDoze = time.Minute
)

// ErrNotHere: nobody with that identity is attached to this node.
var ErrNotHere = errors.New("nobody with that identity is attached here")

// Store keeps the SVIDs of a node. All methods may be called at any time.
type Store struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	bell chan struct{}

	current atomic.Pointer[Set]
	changed atomic.Pointer[chan struct{}] // closed and replaced when current is

	mu      sync.Mutex
	settled bool            // Hold was called
	held    map[string]bool // who is here; true: needed now
	asked   map[string]bool // wanted by somebody who is here
	trust   map[string]trust
	lacks   map[string]lack

	tokens tokens

	proven map[*SVID]proof // only of the goroutine of Run
}

// proof is whether an SVID comes from the roots of a mark.
type proof struct {
	mark string
	good bool
}

// trust is the roots of one trust domain.
type trust struct {
	mark string
	pool *x509.CertPool
}

// lack is an SVID that could not be had.
type lack struct {
	why   string
	pause time.Duration
	again time.Time
}

// Open reads what the Store had; Run starts.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" || cfg.Authority == nil {
		return nil, errors.New("svid: Dir and Authority must be set")
	}
	s := &Store{cfg: cfg, log: cfg.Log, now: cfg.Now, bell: make(chan struct{}, 1), held: map[string]bool{}, asked: map[string]bool{}, lacks: map[string]lack{}, proven: map[*SVID]proof{}}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.tokens.by = map[string]token{}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("svid: %w", err)
	}
	had, err := s.readAll()
	if err != nil {
		return nil, fmt.Errorf("svid: %w", err)
	}
	s.current.Store(&Set{by: had})
	told := make(chan struct{})
	s.changed.Store(&told)
	return s, nil
}

// Current is what there is now.
func (s *Store) Current() *Set { return s.current.Load() }

// Changed is closed when Current is another. Ask for it first.
func (s *Store) Changed() <-chan struct{} { return *s.changed.Load() }

// Hold says, completely, which identities are attached here, and which of them
// need an SVID now; the others get one when somebody asks. Others go.
func (s *Store) Hold(ids map[string]bool) {
	s.mu.Lock()
	same := s.settled && maps.Equal(s.held, ids)
	if !same {
		s.settled, s.held = true, maps.Clone(ids)
		maps.DeleteFunc(s.asked, func(id string, _ bool) bool { _, here := ids[id]; return !here })
		maps.DeleteFunc(s.lacks, func(id string, _ lack) bool { _, here := ids[id]; return !here })
	}
	s.mu.Unlock()
	if !same {
		s.ring()
	}
}

// Trusts says what the trust domains of Domains have as roots now. An SVID that
// comes from none of them is replaced at once.
func (s *Store) Trusts(all map[string]snapshot.Trust) {
	s.mu.Lock()
	next := make(map[string]trust, len(all))
	same := true
	for _, t := range all {
		if t.Domain == "" {
			continue
		}
		mark := t.Mark()
		if old, known := s.trust[t.TrustDomain]; known && old.mark == mark {
			next[t.TrustDomain] = old
			continue
		}
		same = false
		pool := x509.NewCertPool()
		for _, der := range t.Roots {
			if c, err := x509.ParseCertificate(der); err == nil {
				pool.AddCert(c)
			}
		}
		next[t.TrustDomain] = trust{mark, pool}
	}
	s.trust = next
	s.mu.Unlock()
	if !same {
		s.ring()
	}
}

// Lacks says which identities have no SVID although they need one, and why.
func (s *Store) Lacks() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	set := s.Current()
	for id, l := range s.lacks {
		if set.Get(id) == nil {
			out[id] = l.why
		}
	}
	return out
}

// Get returns the SVID of an identity, and waits for it if there is none yet.
func (s *Store) Get(ctx context.Context, id string) (*SVID, error) {
	for {
		changed := s.Changed()
		if have := s.Current().Get(id); have != nil {
			return have, nil
		}
		s.mu.Lock()
		_, here := s.held[id]
		new := here && !s.asked[id]
		if new {
			s.asked[id] = true
		}
		why := s.lacks[id].why
		s.mu.Unlock()
		if !here {
			return nil, fmt.Errorf("%s: %w", id, ErrNotHere)
		}
		if new {
			s.ring()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s has no certificate yet: %s", id, cmp.Or(why, ctx.Err().Error()))
		}
	}
}

func (s *Store) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// Run gets and renews until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	for {
		wait := s.step(ctx)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		case <-s.bell:
			t.Stop()
			if !sleep(ctx, gather) {
				return nil
			}
		}
	}
}

// step drops what is over, asks for what is due, and says how long there is
// nothing to do.
func (s *Store) step(ctx context.Context) time.Duration {
	s.sweep()
	due, wait := s.due()
	if len(due) == 0 {
		return wait
	}
	s.ask(ctx, due)
	return 0
}

// sweep takes away what has ended, and what nobody is here for.
func (s *Store) sweep() {
	now := s.now()
	s.mu.Lock()
	settled, held := s.settled, s.held
	s.mu.Unlock()
	set := s.Current()
	next := maps.Clone(set.by)
	maps.DeleteFunc(next, func(id string, v *SVID) bool {
		_, here := held[id]
		return settled && !here || !now.Before(v.Leaf.NotAfter)
	})
	if len(next) == len(set.by) {
		return
	}
	for id := range set.by {
		if next[id] != nil {
			continue
		}
		if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the file of an identity that has gone cannot be removed", "identity", id, "error", err)
		}
	}
	s.publish(next)
}

// publish is called by the goroutine of Run alone.
func (s *Store) publish(by map[string]*SVID) {
	s.current.Store(&Set{by: by})
	told := make(chan struct{})
	close(*s.changed.Swap(&told))
	maps.DeleteFunc(s.proven, func(v *SVID, _ proof) bool { return by[v.ID] != v })
}

// due lists what to ask for now, the most urgent first, or how long nothing is
// due.
func (s *Store) due() ([]string, time.Duration) {
	now, set := s.now(), s.Current()
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := maxDoze
	var due []string
	for id, needed := range s.held {
		if !needed && !s.asked[id] && set.Get(id) == nil {
			continue
		}
		at := now
		if have := set.Get(id); have != nil {
			at = have.renew
			if !s.trusted(have, now) {
				at = now
			}
			if left := have.Leaf.NotAfter.Sub(now); left > 0 {
				wait = min(wait, left)
			}
		}
		if l, tried := s.lacks[id]; tried && l.again.After(at) {
			at = l.again
		}
		if !at.After(now) {
			due = append(due, id)
			continue
		}
		wait = min(wait, at.Sub(now))
	}
	ends := func(id string) int64 {
		if have := set.Get(id); have != nil {
			return have.Leaf.NotAfter.UnixNano()
		}
		return 0
	}
	slices.SortFunc(due, func(a, b string) int { return cmp.Or(cmp.Compare(ends(a), ends(b)), cmp.Compare(a, b)) })
	return due[:min(len(due), batch)], max(wait, gather)
}

// trusted: the SVID comes from a root that is trusted now, as far as is known.
// The caller holds mu.
func (s *Store) trusted(v *SVID, now time.Time) bool {
	t, known := s.trust[v.Leaf.URIs[0].Host]
	if !known {
		return true
	}
	p, proven := s.proven[v]
	if !proven || p.mark != t.mark {
		p = proof{t.mark, v.from(t.pool, now)}
		s.proven[v] = p
	}
	return p.good
}

// Retry: the control plane is back, so what failed is tried at once.
func (s *Store) Retry() {
	s.mu.Lock()
	for id, l := range s.lacks {
		l.again, l.pause = time.Time{}, 0
		s.lacks[id] = l
	}
	s.mu.Unlock()
	s.ring()
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
