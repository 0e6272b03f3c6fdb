package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
)

const (
	// tendEvery is how often the process that leads looks after the CAs.
	tendEvery = time.Second
	// lookEvery is how often every process looks what they show.
	lookEvery = 2 * time.Second
	// forgetCA: the CA of a Domain goes when the Domain has been gone for so long.
	forgetCA = 10 * time.Minute
)

// bundles is what is known of the CAs of all Domains. It never changes.
type bundles struct {
	by     map[string]*v1alpha1.Bundle // as the compiler wants it
	public map[string]*identity.Public
	// words say what a CA waits for, or why it is not as it should be. They are
	// those of the process that leads.
	words map[string]string
	// docs are they as SPIFFE bundles in JSON, for statuses.
	docs map[string]string
}

func (b *bundles) forCompiler() map[string]*v1alpha1.Bundle {
	if b == nil {
		return nil
	}
	return b.by
}

// authorities looks after the CAs of the Domains. Every process shows what they
// are; the one that leads makes and rotates them.
type authorities struct {
	domains *identity.Domains // set before run
	log     *slog.Logger
	now     func() time.Time
	wake    func()

	mu      sync.Mutex              // of who replaces current
	current atomic.Pointer[bundles] // nil: not loaded
	unread  map[string]string       // why CAs cannot be read, as it was logged; by mu

	gone map[string]time.Time // Domains without an object, since when; only of tend
}

func newAuthorities(log *slog.Logger, now func() time.Time, wake func()) *authorities {
	return &authorities{log: log, now: now, wake: wake, gone: map[string]time.Time{}}
}

// load reads all CAs. What cannot be read any more stays as it was.
func (a *authorities) load() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	names, err := a.domains.List()
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	old := a.current.Load()
	if old == nil {
		old = &bundles{}
	}
	next := &bundles{by: map[string]*v1alpha1.Bundle{}, public: map[string]*identity.Public{}, words: old.words}
	unread := map[string]string{}
	for _, name := range names {
		p, err := a.domains.Public(name)
		if err != nil {
			if unread[name] = err.Error(); a.unread[name] != unread[name] {
				a.log.Error("the CA of a Domain cannot be read; nobody in it gets certificates, and what it showed stays", "domain", name, "error", err)
			}
			p = old.public[name]
		}
		if p == nil {
			continue
		}
		next.public[name], next.by[name] = p, &v1alpha1.Bundle{Roots: p.Roots, Keys: p.Keys}
	}
	a.unread = unread
	if a.current.Load() == nil || !reflect.DeepEqual(old.public, next.public) {
		next.docs = map[string]string{}
		for name, b := range next.by {
			if doc, err := b.JSON(); err == nil {
				next.docs[name] = string(doc)
			}
		}
		a.current.Store(next)
		a.wake()
	}
	return nil
}

// run looks what the CAs show until ctx ends: another process may tend them.
func (a *authorities) run(ctx context.Context) {
	for sleep(ctx, lookEvery) {
		if err := a.load(); err != nil {
			a.log.Warn("cannot look after the CAs of Domains; trying again", "error", err)
		}
	}
}

// tend makes the CAs of Domains and takes them through their rotations, while
// this process leads.
func (a *authorities) tend(ctx context.Context, current func() *facts) {
	for {
		if f := current(); f != nil {
			a.tendOnce(f)
		}
		if !sleep(ctx, tendEvery) {
			return
		}
	}
}

func (a *authorities) tendOnce(f *facts) {
	changed := false
	words, before := map[string]string{}, map[string]string(nil)
	if b := a.current.Load(); b != nil {
		before = b.words
	}
	for _, name := range slices.Sorted(maps.Keys(f.in.Domains)) {
		d := f.in.Domains[name]
		waits, moved, err := a.domains.Keep(wantedOf(d), func(roots [][]byte) []string { return lacking(f, compile.TrustDomain(d), roots) })
		changed = changed || moved
		if err != nil {
			if waits = err.Error(); before[name] != waits { // else it is logged already
				a.log.Warn("the CA of a Domain is not as it should be", "domain", name, "error", err)
			}
		}
		if waits != "" {
			words[name] = waits
		}
	}
	changed = a.forgetGone(f) || changed
	if changed {
		if err := a.load(); err != nil {
			a.log.Warn("cannot look after the CAs of Domains; trying again", "error", err)
		}
	}
	a.say(words)
}

// wantedOf is what a Domain wants of its CA.
func wantedOf(d *v1alpha1.Domain) identity.Wanted {
	life := time.Duration(d.Spec.SVIDLifeSeconds) * time.Second
	if life <= 0 || life > v1alpha1.DefaultSVIDLife*time.Second {
		life = v1alpha1.DefaultSVIDLife * time.Second
	}
	return identity.Wanted{Domain: d.Name, UID: string(d.UID), TrustDomain: compile.TrustDomain(d), Life: life,
		Rotate: d.Annotations[v1alpha1.RotateRoot], Order: d.Annotations[v1alpha1.RotateOrder]}
}

// lacking are the nodes that need the roots of a trust domain and do not say
// that they, and their proxies, have them.
func lacking(f *facts, trustDomain string, roots [][]byte) []string {
	want := snapshot.TrustMark{Name: trustDomain, Mark: snapshot.Trust{Roots: roots}.Mark()}
	var out []string
	for _, node := range slices.Sorted(maps.Keys(f.snaps)) {
		if _, needs := f.snaps[node].Trusts[trustDomain]; !needs {
			continue
		}
		if r := f.nodes[node].report; r == nil || !slices.Contains(r.Trusts, want) {
			out = append(out, node)
		}
	}
	return out
}

// say replaces what is said of the CAs.
func (a *authorities) say(words map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.current.Load()
	if old == nil || maps.Equal(old.words, words) {
		return
	}
	next := *old
	next.words = words
	a.current.Store(&next)
	a.wake()
}

// forgetGone removes the CAs of Domains that are no more.
func (a *authorities) forgetGone(f *facts) (changed bool) {
	b := a.current.Load()
	if b == nil {
		return false
	}
	for name := range b.public {
		if f.in.Domains[name] != nil {
			delete(a.gone, name)
			continue
		}
		since, known := a.gone[name]
		if !known {
			a.gone[name] = a.now()
			continue
		}
		if a.now().Sub(since) < forgetCA {
			continue
		}
		if err := a.domains.Forget(name); err != nil {
			a.log.Warn("cannot remove the CA of a Domain that is gone; trying again", "domain", name, "error", err)
			continue
		}
		delete(a.gone, name)
		changed = true
	}
	return changed
}

// status is what the status of a Domain shall say of its CA; nil: there is none.
func (a *authorities) status(domain string) *v1alpha1.DomainIdentity {
	b := a.current.Load()
	if b == nil || b.public[domain] == nil {
		return nil
	}
	p := b.public[domain]
	out := &v1alpha1.DomainIdentity{Phase: string(p.Phase), Since: seconds(p.Since), Message: b.words[domain]}
	for _, s := range p.States {
		root := v1alpha1.DomainRoot{Fingerprint: s.Fingerprint, State: s.State, External: s.External, NotAfter: seconds(s.NotAfter)}
		if !s.Until.IsZero() {
			until := seconds(s.Until)
			root.Until = &until
		}
		out.Roots = append(out.Roots, root)
	}
	out.Bundle = b.docs[domain]
	return out
}

// seconds is a time as the API keeps it.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }

// sameIdentity compares what statuses say of a CA; nil says nothing new.
func sameIdentity(have, want *v1alpha1.DomainIdentity) bool {
	if want == nil || have == nil {
		return want == nil
	}
	if have.Phase != want.Phase || have.Message != want.Message || have.Bundle != want.Bundle || !have.Since.Time.Equal(want.Since.Time) {
		return false
	}
	return slices.EqualFunc(have.Roots, want.Roots, func(x, y v1alpha1.DomainRoot) bool {
		return x.Fingerprint == y.Fingerprint && x.State == y.State && x.External == y.External && x.NotAfter.Time.Equal(y.NotAfter.Time) &&
			(x.Until == nil) == (y.Until == nil) && (x.Until == nil || x.Until.Time.Equal(y.Until.Time))
	})
}
