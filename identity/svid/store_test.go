package svid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

const (
	web = "spiffe://shop.moire/ns/shop/sa/web"
	db  = "spiffe://shop.moire/ns/shop/sa/db"
)

// upstairs is the CA of one Domain as a node sees it.
type upstairs struct {
	*identity.Domains
	wanted identity.Wanted

	mu    sync.Mutex
	err   error
	asked int
	most  int // identities in one call
}

func newUpstairs(t testing.TB, cfg identity.DomainsConfig, life time.Duration) *upstairs {
	t.Helper()
	cfg.Vault = identity.Files(t.TempDir())
	d, err := identity.NewDomains(cfg)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstairs{Domains: d, wanted: identity.Wanted{Domain: "shop", UID: "1", TrustDomain: "shop.moire", Life: life}}
	if _, _, err := d.Keep(u.wanted, func([][]byte) []string { return nil }); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *upstairs) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

func (u *upstairs) calls() (asked, most int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked, u.most
}

func (u *upstairs) Issue(_ context.Context, in *wire.IssueRequest) (*wire.IssueReply, error) {
	u.mu.Lock()
	err := u.err
	u.asked++
	u.most = max(u.most, len(in.GetSvids()))
	u.mu.Unlock()
	if err != nil {
		return nil, err
	}
	out := &wire.IssueReply{}
	for _, r := range in.GetSvids() {
		chain, err := u.SignSVID("shop", r.GetSpiffe(), r.GetCsr())
		got := &wire.IssuedSVID{Chain: chain}
		if err != nil {
			got.Error = err.Error()
		}
		out.Svids = append(out.Svids, got)
	}
	for _, r := range in.GetTokens() {
		text, from, until, err := u.SignJWT("shop", r.GetSpiffe(), r.GetAudiences())
		got := &wire.IssuedToken{Token: text, From: from.Unix(), Until: until.Unix()}
		if err != nil {
			got.Error = err.Error()
		}
		out.Tokens = append(out.Tokens, got)
	}
	return out, nil
}

// trusts is what a snapshot would say of the Domain.
func (u *upstairs) trusts(t testing.TB) map[string]snapshot.Trust {
	t.Helper()
	p, err := u.Public("shop")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]snapshot.Trust{"shop.moire": {Name: "shop.moire", TrustDomain: "shop.moire", Domain: "shop", Roots: p.Roots, Keys: p.Keys}}
}

func run(t testing.TB, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func open(t testing.TB, dir string, a Authority) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, Authority: a, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not come: %s", what)
}

// soon bounds a wait.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestStore: who needs an SVID gets one, who asks too, and nobody else; who goes
// takes it along; a restart without a control plane loses nothing.
func TestStore(t *testing.T) {
	u := newUpstairs(t, identity.DomainsConfig{}, time.Hour)
	dir := filepath.Join(t.TempDir(), "svid")
	s := open(t, dir, u)
	stop := run(t, s)
	many := map[string]bool{web: true, db: false}
	for i := range 100 {
		many[fmt.Sprintf("spiffe://shop.moire/ns/shop/sa/w%d", i)] = true
	}
	s.Trusts(u.trusts(t))
	s.Hold(many)
	eventually(t, "101 SVIDs", func() bool { return len(s.Current().All()) == 101 })
	if asked, most := u.calls(); asked > 4 || most > batch {
		t.Errorf("%d calls for up to %d", asked, most)
	}
	if s.Current().Get(db) != nil {
		t.Error("an SVID that nobody needs")
	}
	got, err := s.Get(soon(t), db)
	if err != nil || got.ID != db || got.Leaf.URIs[0].String() != db || !strings.Contains(got.KeyPEM, "PRIVATE KEY") || strings.Count(got.ChainPEM, "BEGIN") != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.Get(soon(t), "spiffe://shop.moire/ns/shop/sa/stranger"); !errors.Is(err, ErrNotHere) {
		t.Errorf("a stranger: %v", err)
	}
	s.Hold(map[string]bool{web: true, db: false})
	eventually(t, "the others have gone", func() bool { return len(s.Current().All()) == 2 })
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 || strings.Contains(e.Name(), "web") {
			t.Errorf("%s: %v %v", e.Name(), info.Mode(), err)
		}
	}
	stop()

	// Rubbish beside them is of no account.
	for name, text := range map[string]string{"abcd.pem": "rubbish", ".half": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u.fail(errors.New("the control plane is away"))
	again := open(t, dir, u)
	if a, b := again.Current().Get(web), s.Current().Get(web); a == nil || !a.Leaf.Equal(b.Leaf) || !a.Key.Equal(b.Key) {
		t.Error("a restart has lost it")
	}
	if entries, err = os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	run(t, again)
	again.Hold(map[string]bool{web: true, "spiffe://shop.moire/ns/shop/sa/new": true})
	eventually(t, "why there is none", func() bool { return len(again.Lacks()) == 1 })
	if again.Current().Get(web) == nil {
		t.Error("an SVID is lost while the control plane is away")
	}
	u.fail(nil)
	again.Retry()
	eventually(t, "the new one", func() bool { return len(again.Current().All()) == 2 && len(again.Lacks()) == 0 })
}

// TestRenewal: each is renewed in time with another key, and one whose root is
// trusted no more at once.
func TestRenewal(t *testing.T) {
	u := newUpstairs(t, identity.DomainsConfig{Stale: 10 * time.Millisecond}, 2*time.Second)
	s := open(t, t.TempDir(), u)
	run(t, s)
	s.Trusts(u.trusts(t))
	s.Hold(map[string]bool{web: true})
	first, err := s.Get(soon(t), web)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		now := s.Current().Get(web)
		if now == nil || time.Until(now.Leaf.NotAfter) < 200*time.Millisecond {
			t.Fatal("it ended")
		}
	}
	last := s.Current().Get(web)
	if last.Key.Equal(first.Key) {
		t.Error("the same key again")
	}
	// Another CA: what there is is worth nothing.
	u.wanted.UID, u.wanted.Life = "2", time.Hour
	if _, _, err := u.Keep(u.wanted, nil); err != nil {
		t.Fatal(err)
	}
	s.Trusts(u.trusts(t))
	eventually(t, "one of the new CA", func() bool { return time.Until(s.Current().Get(web).Leaf.NotAfter) > 30*time.Minute })
	if asked, _ := u.calls(); asked > 20 {
		t.Errorf("%d calls", asked)
	}
}

// TestEnds: without a control plane an SVID ends, and is handed out no more.
func TestEnds(t *testing.T) {
	u := newUpstairs(t, identity.DomainsConfig{}, time.Second)
	s := open(t, t.TempDir(), u)
	run(t, s)
	s.Hold(map[string]bool{web: true})
	if _, err := s.Get(soon(t), web); err != nil {
		t.Fatal(err)
	}
	u.fail(errors.New("away"))
	eventually(t, "the end", func() bool { return s.Current().Get(web) == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Get(ctx, web); err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("got %v", err)
	}
}

// lies answers with what was not asked for.
type lies struct {
	*upstairs
	how func(*wire.IssueReply)
}

func (l lies) Issue(ctx context.Context, in *wire.IssueRequest) (*wire.IssueReply, error) {
	out, err := l.upstairs.Issue(ctx, in)
	if err == nil {
		l.how(out)
	}
	return out, err
}

// TestLies: an answer that is not what was asked for is not used.
func TestLies(t *testing.T) {
	u := newUpstairs(t, identity.DomainsConfig{}, time.Hour)
	_, csr, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	other, err := u.SignSVID("shop", web, csr)
	if err != nil {
		t.Fatal(err)
	}
	for name, how := range map[string]func(*wire.IssueReply){
		"another key": func(r *wire.IssueReply) { r.Svids[0].Chain = other },
		"no chain":    func(r *wire.IssueReply) { r.Svids[0].Chain = nil },
		"rubbish":     func(r *wire.IssueReply) { r.Svids[0].Chain[0] = []byte{1} },
		"a CA":        func(r *wire.IssueReply) { r.Svids[0].Chain = r.Svids[0].Chain[1:] },
		"no answer":   func(r *wire.IssueReply) { r.Svids = nil },
		"refused":     func(r *wire.IssueReply) { r.Svids[0].Error = "no" },
	} {
		dir := t.TempDir()
		s := open(t, dir, lies{u, how})
		stop := run(t, s)
		s.Hold(map[string]bool{web: true})
		eventually(t, name, func() bool { return s.Lacks()[web] != "" })
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 || s.Current().Get(web) != nil {
			t.Errorf("%s is kept: %v %v", name, entries, err)
		}
		stop()
	}
}

func TestTokens(t *testing.T) {
	u := newUpstairs(t, identity.DomainsConfig{}, time.Hour)
	now := time.Now()
	s, err := Open(Config{Dir: t.TempDir(), Authority: u, Log: quiet, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Token(soon(t), web, []string{"x"}); !errors.Is(err, ErrNotHere) {
		t.Errorf("got %v", err)
	}
	s.Hold(map[string]bool{web: false})
	one, err := s.Token(soon(t), web, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if same, err := s.Token(soon(t), web, []string{"b", "a", "b"}); err != nil || same != one {
		t.Errorf("not the same for the same audiences: %v", err)
	}
	if other, err := s.Token(soon(t), web, []string{"a"}); err != nil || other == one {
		t.Errorf("the same for other audiences: %v", err)
	}
	u.fail(errors.New("away"))
	now = now.Add(4 * time.Minute)
	if same, err := s.Token(soon(t), web, []string{"a", "b"}); err != nil || same != one {
		t.Errorf("what lives is not handed out while the control plane is away: %v", err)
	}
	now = now.Add(time.Minute)
	if _, err := s.Token(soon(t), web, []string{"a", "b"}); err == nil {
		t.Error("a token that has ended")
	}
	for i := range 2 * maxTokens {
		s.tokens.remember(fmt.Sprint(i), token{until: now.Add(time.Hour)}, now)
	}
	if len(s.tokens.by) > maxTokens {
		t.Errorf("%d tokens are remembered", len(s.tokens.by))
	}
}
