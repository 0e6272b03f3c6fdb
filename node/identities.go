package node

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"moire.dev/moire/identity/svid"
	"moire.dev/moire/identity/workloadapi"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// identities are the certificates of who is attached here: what the loop knows
// goes in; what the proxies and the applications need comes out.
type identities struct {
	store *svid.Store
	api   *workloadapi.Server
	// due is called when the proxies must be given other certificates.
	due func()

	here   atomic.Pointer[[]present]
	trusts atomic.Pointer[map[string]snapshot.Trust]

	mu      sync.Mutex
	from    *svid.Set
	pem     map[string]mesh.Certificate
	changed chan struct{} // closed and replaced when an answer to an application may be another
}

// present is an interface of somebody whose identity is certain.
type present struct {
	netns  string // path
	inode  uint64 // of the namespace that the interface was put into
	spiffe string
}

func openIdentities(cfg Config, up svid.Authority, due func(), log *slog.Logger) (*identities, error) {
	store, err := svid.Open(svid.Config{Dir: filepath.Join(cfg.Dir, "svid"), Authority: up, Log: log})
	if err != nil {
		return nil, err
	}
	i := &identities{store: store, due: due, changed: make(chan struct{})}
	i.here.Store(&[]present{})
	i.trusts.Store(&map[string]snapshot.Trust{})
	i.api, err = workloadapi.New(workloadapi.Config{Path: cfg.workloadSocket(), Source: i, Log: log})
	return i, err
}

// run keeps the certificates, and tells of each change, until ctx ends.
func (i *identities) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			changed := i.store.Changed()
			i.due()
			i.tell()
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error { return i.store.Run(ctx) })
	g.Go(func() error { return i.api.Run(ctx) })
	return g.Wait()
}

func (i *identities) tell() {
	i.mu.Lock()
	defer i.mu.Unlock()
	close(i.changed)
	i.changed = make(chan struct{})
}

// certificates by SPIFFE ID; the very map of last time when they are the same.
func (i *identities) certificates() map[string]mesh.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	set := i.store.Current()
	if i.from != set {
		i.from, i.pem = set, make(map[string]mesh.Certificate, len(set.All()))
		for id, v := range set.All() {
			i.pem[id] = mesh.Certificate{Chain: v.ChainPEM, Key: v.KeyPEM}
		}
	}
	return i.pem
}

// holds takes over who is here, and which identities need a certificate now.
func (i *identities) holds(here []present, ids map[string]bool) {
	i.store.Hold(ids)
	if !slices.Equal(*i.here.Load(), here) {
		i.here.Store(&here)
		i.tell()
	}
}

// believes takes over what the control plane said last of trust domains.
func (i *identities) believes(trusts map[string]snapshot.Trust) {
	i.store.Trusts(trusts)
	if !reflect.DeepEqual(*i.trusts.Load(), trusts) {
		i.trusts.Store(&trusts)
		i.tell()
	}
}

// back: the control plane hears us again.
func (i *identities) back() { i.store.Retry() }

// Identities implements workloadapi.Source. The path must still lead to the
// namespace that the interface was put into, and that is the caller's.
func (i *identities) Identities(ns workloadapi.Namespace) []string {
	var out []string
	for _, p := range *i.here.Load() {
		if p.inode != ns.Inode || slices.Contains(out, p.spiffe) {
			continue
		}
		if now, err := netnsInode(p.netns); err == nil && now == ns.Inode {
			out = append(out, p.spiffe)
		}
	}
	return out
}

// SVID implements workloadapi.Source.
func (i *identities) SVID(ctx context.Context, id string) (workloadapi.SVID, error) {
	v, err := i.store.Get(ctx, id)
	if err != nil {
		return workloadapi.SVID{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(v.Key)
	return workloadapi.SVID{ID: id, Chain: v.Chain, Key: key}, err
}

// Token implements workloadapi.Source.
func (i *identities) Token(ctx context.Context, id string, audiences []string) (string, error) {
	return i.store.Token(ctx, id, audiences)
}

// Trusts implements workloadapi.Source.
func (i *identities) Trusts() map[string]snapshot.Trust { return *i.trusts.Load() }

// Changed implements workloadapi.Source.
func (i *identities) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// identifier is what the loop tells of identities.
type identifier interface {
	holds(here []present, ids map[string]bool)
	believes(map[string]snapshot.Trust)
	back()
}

// identify says who is here, and whose certificates the node needs: of all that
// are attached, those at once that are in the mesh.
func (l *loop) identify() {
	if l.identities == nil || l.wanted == nil {
		return
	}
	if l.believed != l.wanted {
		l.believed = l.wanted
		l.identities.believes(l.wanted.Trusts)
	}
	var here []present
	ids := map[string]bool{}
	for _, a := range l.sorted() {
		if a.stage == leaving {
			continue
		}
		if id, meshed, ok := granted(l.wanted, a); ok {
			a.spiffe, a.meshed = id.SPIFFE, meshed
		}
		if a.spiffe == "" {
			continue
		}
		ids[a.spiffe] = ids[a.spiffe] || a.meshed
		if a.here() && !a.Tap {
			here = append(here, present{a.Netns, a.inode, a.spiffe})
		}
	}
	l.identities.holds(here, ids)
}

// granted is who an attachment is as the control plane says, or while that is away
// what the node takes it for in every other way too (effective); not ok: neither.
func granted(s *snapshot.Snapshot, a *attachment) (id snapshot.Identity, meshed, ok bool) {
	g, answered := s.Grants[a.Key]
	if answered && g.Error != "" {
		return id, false, true // nobody
	}
	number := g.Identity
	for _, ip := range a.Addrs {
		if e, known := s.Endpoints[snapshot.Addr{VNI: a.VNI, IP: ip}]; known && e.Node == s.Node && sameEndpoint(e, a) {
			number, meshed = e.Identity, e.Mode != snapshot.Off
		}
	}
	if id, ok = s.Identities[number]; ok {
		return id, meshed, true
	}
	if number, ok = identityOf(s, a); ok {
		return s.Identities[number], modeOf(s, a) != snapshot.Off, true
	}
	return id, false, false
}

// Issue asks the control plane for identities.
func (l *link) Issue(ctx context.Context, in *wire.IssueRequest) (*wire.IssueReply, error) {
	if c := l.get(); c != nil {
		return c.Issue(ctx, in)
	}
	return nil, errors.New("this node has not joined yet")
}
