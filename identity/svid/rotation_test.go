package svid

import (
	"context"
	stdtls "crypto/tls"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"moire.dev/moire/identity"
	"moire.dev/moire/proxy/tls"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// site is one node with one Workload: what it trusts comes late, as it does.
type site struct {
	t      *testing.T
	id     string
	store  *Store
	trusts atomic.Pointer[map[string]snapshot.Trust]
	mutual atomic.Pointer[tls.Mutual]
	news   chan struct{}
}

func newSite(t *testing.T, u *upstairs, id string) *site {
	s := &site{t: t, id: id, store: open(t, t.TempDir(), u), news: make(chan struct{}, 1)}
	run(t, s.store)
	s.take(u.trusts(t))
	s.store.Hold(map[string]bool{id: true})
	if _, err := s.store.Get(soon(t), id); err != nil {
		t.Fatal(err)
	}
	s.renew()
	return s
}

func (s *site) take(trusts map[string]snapshot.Trust) {
	s.store.Trusts(trusts)
	s.trusts.Store(&trusts)
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// renew is what a proxy does with another certificate or other roots.
func (s *site) renew() {
	var all []l7.Trust
	for _, t := range *s.trusts.Load() {
		text := ""
		for _, der := range t.Roots {
			text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		}
		all = append(all, l7.Trust{Name: t.Name, TrustDomain: t.TrustDomain, Roots: text})
	}
	domains, err := tls.NewDomains(all)
	if err != nil {
		s.t.Error(err)
		return
	}
	v := s.store.Current().Get(s.id)
	m, err := tls.NewMutual(s.id, &stdtls.Certificate{Certificate: v.Chain, PrivateKey: v.Key, Leaf: v.Leaf}, domains, tls.NewVerified(64))
	if err != nil {
		s.t.Error(err)
		return
	}
	s.mutual.Store(m)
}

func (s *site) follow(ctx context.Context) {
	for ctx.Err() == nil {
		changed := s.store.Changed()
		s.renew()
		select {
		case <-changed:
		case <-s.news:
		case <-ctx.Done():
		}
	}
}

// serve answers whoever proves to be peer.
func (s *site) serve(l net.Listener, done *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		done.Go(func() {
			conn := stdtls.Server(c, s.mutual.Load().Server(tls.Bytes))
			defer conn.Close()
			b := make([]byte, 1)
			if _, err := conn.Read(b); err == nil {
				_, _ = conn.Write(b) // the caller sees when it fails
			}
		})
	}
}

func (s *site) call(address, peer string) error {
	cfg, err := s.mutual.Load().Client(peer, tls.Bytes)
	if err != nil {
		return err
	}
	conn, err := stdtls.Dial("tcp", address, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{7}); err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := conn.Read(b); err != nil || b[0] != 7 {
		return errors.Join(errors.New("another answer"), err)
	}
	return nil
}

// TestRotationUnderLoad: leaves are replaced every three seconds and the root
// once, what nodes trust comes late, and no connection fails.
func TestRotationUnderLoad(t *testing.T) {
	u := newUpstairs(t, identity.DomainsConfig{Stale: 100 * time.Millisecond}, 6*time.Second)
	one, two := newSite(t, u, web), newSite(t, u, db)
	sites := []*site{one, two}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all, answering sync.WaitGroup
	defer answering.Wait()
	defer all.Wait()
	defer l.Close()
	defer stop()
	all.Go(func() { two.serve(l, &answering) })
	for _, s := range sites {
		all.Go(func() { s.follow(ctx) })
	}
	var calls, failed atomic.Int64
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := one.call(l.Addr().String(), db); err != nil {
					failed.Add(1)
					t.Error(err)
				}
				calls.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	lacking := func(roots [][]byte) (out []string) {
		for _, s := range sites {
			if !slices.EqualFunc((*s.trusts.Load())["shop.moire"].Roots, roots, slices.Equal[[]byte]) {
				out = append(out, s.id)
			}
		}
		return out
	}
	first, phases := u.trusts(t)["shop.moire"].Mark(), map[identity.Phase]bool{}
	u.wanted.Rotate = "now"
	for end := time.Now().Add(13 * time.Second); time.Now().Before(end) && failed.Load() == 0; {
		if _, _, err := u.Keep(u.wanted, lacking); err != nil {
			t.Fatal(err)
		}
		p, err := u.Public("shop")
		if err != nil {
			t.Fatal(err)
		}
		phases[p.Phase] = true
		for _, s := range sites {
			if rand.N(4) == 0 {
				s.take(u.trusts(t))
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	if last := u.trusts(t)["shop.moire"]; last.Mark() == first || len(last.Roots) != 1 || len(phases) != 3 {
		t.Errorf("phases %v, %d roots", phases, len(last.Roots))
	}
	if calls.Load() < 100 || failed.Load() > 0 {
		t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
	}
	t.Logf("%d calls", calls.Load())
}
