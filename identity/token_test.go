package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustToken(t testing.TB, ca *CA, spec TokenSpec) string {
	t.Helper()
	token, err := ca.NewToken(spec)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestToken(t *testing.T) {
	c := newClock()
	ca := newCA(t, Config{Now: c.Now})
	token := mustToken(t, ca, TokenSpec{Note: "rack 1"})
	if !regexp.MustCompile(`^[a-z2-7]{8}\.[a-z2-7]{32}$`).MatchString(token) {
		t.Errorf("token %q", token)
	}
	id, secret, _ := strings.Cut(token, ".")
	for range 2 {
		if err := ca.CheckToken(token); err != nil {
			t.Fatal(err)
		}
	}
	other := mustToken(t, ca, TokenSpec{})
	otherID, _, _ := strings.Cut(other, ".")
	for name, wrong := range map[string]string{
		"empty": "", "dot": ".", "id alone": id, "secret alone": secret, "no secret": id + ".", "no id": "." + secret,
		"secret of another": otherID + "." + secret, "longer": token + "x", "shorter": token[:len(token)-1],
		"capitals": strings.ToUpper(token), "space": token + " ", "newline": token + "\n",
	} {
		if err := ca.CheckToken(wrong); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(ca.cfg.Dir, tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(secret)) {
		t.Error("the secret is on disk")
	}
	list, err := ca.Tokens()
	if err != nil || len(list) != 2 || list[0].ID != id || list[0].Note != "rack 1" || list[0].Hash != nil {
		t.Errorf("list %v %v", list, err)
	}
	if err := ca.RevokeToken(id); err != nil {
		t.Fatal(err)
	}
	if err := ca.CheckToken(token); !errors.Is(err, ErrToken) {
		t.Errorf("revoked: %v", err)
	}
	if err := ca.RevokeToken(id); err == nil {
		t.Error("revoked twice")
	}
}

func TestTokenEnds(t *testing.T) {
	c := newClock()
	ca := newCA(t, Config{Now: c.Now})
	token := mustToken(t, ca, TokenSpec{Life: time.Hour})
	c.now = c.now.Add(time.Hour - time.Second)
	if err := ca.CheckToken(token); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(time.Second)
	err := ca.CheckToken(token)
	if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "ended at 2026-03-01T13:00:00Z") {
		t.Errorf("got %v", err)
	}
	// Whoever only knows the id learns nothing.
	id, _, _ := strings.Cut(token, ".")
	if err := ca.CheckToken(id + ".x"); err == nil || strings.Contains(err.Error(), "ended") {
		t.Errorf("got %v", err)
	}
	if list, err := ca.Tokens(); err != nil || len(list) != 0 {
		t.Errorf("list %v %v", list, err)
	}
	for name, spec := range map[string]TokenSpec{"negative": {Life: -1}, "note": {Note: strings.Repeat("x", maxNote+1)}} {
		if _, err := ca.NewToken(spec); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

// Of many that use a token at one moment, in several processes, one wins.
func TestTokenOnce(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	ca := newCA(t, cfg)
	token := mustToken(t, ca, TokenSpec{Once: true})
	var good atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		process, err := OpenCA(cfg)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if process.CheckToken(token) == nil {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	if n := good.Load(); n != 1 {
		t.Errorf("used %d times", n)
	}
}

func TestTokensAreBounded(t *testing.T) {
	ca := newCA(t, Config{})
	all := make([]Token, maxTokens)
	for i := range all {
		all[i] = Token{ID: "x", Expires: time.Now().Add(time.Hour)}
	}
	if err := ca.changeTokens(func([]Token) ([]Token, error) { return all, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.NewToken(TokenSpec{}); err == nil {
		t.Error("one more than there may be")
	}
}

func TestDamagedTokens(t *testing.T) {
	ca := newCA(t, Config{})
	token := mustToken(t, ca, TokenSpec{})
	if err := os.WriteFile(filepath.Join(ca.cfg.Dir, tokenFile), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ca.CheckToken(token); err == nil {
		t.Error("a token was taken that nobody can know of")
	}
	if _, err := ca.NewToken(TokenSpec{}); err == nil {
		t.Error("a damaged file was overwritten")
	}
}

func FuzzCheckToken(f *testing.F) {
	ca := newCA(f, Config{})
	token := mustToken(f, ca, TokenSpec{})
	f.Add(token)
	f.Add("." + token)
	f.Fuzz(func(t *testing.T, s string) {
		if err := ca.CheckToken(s); err == nil && s != token {
			t.Fatalf("%q was taken", s)
		}
	})
}
