package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"moire.dev/moire/identity/svid"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

// identities are the certificates of who is attached here: what the loop knows
// goes in, what the proxies need comes out.
type identities struct {
	store *svid.Store
	// due is called when the proxies must be given other certificates.
	due func()

	mu   sync.Mutex
	from *svid.Set
	pem  map[string]mesh.Certificate
}

func openIdentities(cfg Config, up svid.Authority, due func(), log *slog.Logger) (*identities, error) {
	store, err := svid.Open(svid.Config{Dir: filepath.Join(cfg.Dir, "svid"), Authority: up, Log: log})
	if err != nil {
		return nil, err
	}
	return &identities{store: store, due: due}, nil
}

// run keeps the certificates, and tells of each change, until ctx ends.
func (i *identities) run(ctx context.Context) error {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() {
		for {
			changed := i.store.Changed()
			i.due()
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return i.store.Run(ctx)
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

// holder is what the loop tells of identities.
type holder interface {
	Hold(ids map[string]bool)
	Trusts(map[string]snapshot.Trust)
	Retry()
}

// identify says whose certificates this node needs: of all that are attached,
// those at once that are in the mesh.
func (l *loop) identify() {
	if l.svids == nil || l.wanted == nil {
		return
	}
	s := l.wanted
	if l.trusted != s {
		l.trusted = s
		l.svids.Trusts(s.Trusts)
	}
	ids := map[string]bool{}
	for _, a := range l.attached {
		if a.stage == leaving {
			continue
		}
		if id, meshed, ok := granted(s, a); ok {
			a.spiffe, a.meshed = id.SPIFFE, meshed
		}
		if a.spiffe != "" {
			ids[a.spiffe] = ids[a.spiffe] || a.meshed
		}
	}
	l.svids.Hold(ids)
}

// granted is who an attachment is as the control plane says; not ok: it does not
// say, now.
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
	id, ok = s.Identities[number]
	return id, meshed, ok
}

// Issue asks the control plane for identities.
func (l *link) Issue(ctx context.Context, in *wire.IssueRequest) (*wire.IssueReply, error) {
	if c := l.get(); c != nil {
		return c.Issue(ctx, in)
	}
	return nil, errors.New("this node has not joined yet")
}
