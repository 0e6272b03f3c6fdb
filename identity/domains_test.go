package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func newDomains(t testing.TB, cfg DomainsConfig) *Domains {
	t.Helper()
	d, err := NewDomains(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func shop() Wanted {
	return Wanted{Domain: "shop", UID: "1", TrustDomain: "shop.moire", Life: time.Hour}
}

// everywhere: every node trusts everything.
func everywhere([][]byte) []string { return nil }

func keep(t testing.TB, d *Domains, w Wanted, lacking Lacking) *Public {
	t.Helper()
	if _, _, err := d.Keep(w, lacking); err != nil {
		t.Fatal(err)
	}
	p, err := d.Public(w.Domain)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// svid asks for one, and says which of the roots it comes from.
func svid(t testing.TB, d *Domains, p *Public, now time.Time) (leaf *x509.Certificate, root string) {
	t.Helper()
	chain, err := d.SignSVID("shop", "spiffe://shop.moire/ns/a/sa/web", newCSR(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Roots {
		leaf, between, roots, err := parseChain(chain, [][]byte{r})
		if err != nil {
			t.Fatal(err)
		}
		if verify(leaf, between, roots, now) == nil {
			return leaf, string(r)
		}
	}
	t.Fatal("an SVID that comes from no root that is trusted")
	return nil, ""
}

func verify(leaf *x509.Certificate, between, roots []*x509.Certificate, now time.Time) error {
	for _, usage := range svidUsages {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: poolOf(roots), Intermediates: poolOf(between), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return err
		}
	}
	return nil
}

func TestSVID(t *testing.T) {
	c := newClock()
	d := newDomains(t, DomainsConfig{Vault: newMemory(), Now: c.Now})
	if p, err := d.Public("shop"); p != nil || err != nil {
		t.Fatalf("a CA that nobody made: %v %v", p, err)
	}
	if _, err := d.SignSVID("shop", "spiffe://shop.moire/ns/a/sa/web", newCSR(t)); err == nil {
		t.Fatal("signed without a CA")
	}
	p := keep(t, d, shop(), everywhere)
	leaf, _ := svid(t, d, p, c.now)
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://shop.moire/ns/a/sa/web" || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 || leaf.Subject.String() != "" {
		t.Errorf("names %v %v %v", leaf.URIs, leaf.DNSNames, leaf.Subject)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, svidUsages) {
		t.Errorf("CA %v, usage %v %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if got := leaf.NotAfter.Sub(c.now); got != time.Hour {
		t.Errorf("lives %s", got)
	}
	if got := c.now.Sub(leaf.NotBefore); got != 5*time.Minute {
		t.Errorf("dated back %s", got)
	}
	for _, foreign := range []string{"spiffe://other.moire/ns/a/sa/web", "spiffe://shop.moire.evil/ns/a/sa/web", "spiffe://shop.moire", "https://shop.moire/x", "spiffe://shop.moire/a b", "spiffe://shop.moire/a#b", "spiffe://shop.moire/", "spiffe://shop.moire/a//b", "spiffe://shop.moire/a/../b", "spiffe://shop.moire/a\x00b"} {
		if _, err := d.SignSVID("shop", foreign, newCSR(t)); err == nil {
			t.Errorf("signed %q", foreign)
		}
	}
	// Another Domain of that name is another tenant; so is one with another
	// trust domain.
	other := shop()
	other.UID = "2"
	if q := keep(t, d, other, everywhere); bytes.Equal(q.Roots[0], p.Roots[0]) {
		t.Error("a Domain that was made anew has the old CA")
	}
	other.TrustDomain = "shop.example"
	if q := keep(t, d, other, everywhere); q.TrustDomain != "shop.example" {
		t.Errorf("trust domain %s", q.TrustDomain)
	}
	if err := d.Forget("shop"); err != nil {
		t.Fatal(err)
	}
	if list, err := d.List(); err != nil || len(list) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

// TestRotation goes through a rotation: nothing is signed by a root before it is
// trusted everywhere, and no root goes before what it signed.
func TestRotation(t *testing.T) {
	c := newClock()
	v := newMemory()
	d := newDomains(t, DomainsConfig{Vault: v, Now: c.Now})
	w := shop()
	first := keep(t, d, w, everywhere)
	leaf, root := svid(t, d, first, c.now)
	w.Rotate = "now"
	lacking := []string{"n1"}
	lack := func(roots [][]byte) []string {
		if len(roots) != 2 {
			t.Errorf("asked about %d roots", len(roots))
		}
		return lacking
	}
	p := keep(t, d, w, lack)
	if p.Phase != Announced || len(p.Roots) != 2 {
		t.Fatalf("phase %s, %d roots", p.Phase, len(p.Roots))
	}
	for range 3 { // as often as anybody likes, by whomever
		p = keep(t, newDomains(t, DomainsConfig{Vault: v, Now: c.Now}), w, lack)
	}
	if _, signedBy := svid(t, d, p, c.now); p.Phase != Announced || signedBy != root {
		t.Fatalf("phase %s, or the next root signs although n1 does not trust it", p.Phase)
	}
	if waits, _, _ := d.Keep(w, lack); !strings.Contains(waits, "n1") {
		t.Errorf("waits for %q", waits)
	}
	lacking = nil
	other := newDomains(t, DomainsConfig{Vault: v, Now: c.Now})
	p = keep(t, other, w, lack)
	c.now = c.now.Add(DefaultStale) // who signs may go by what it read before
	if _, signedBy := svid(t, d, p, c.now); p.Phase != Switched || signedBy == root || len(p.Roots) != 2 {
		t.Fatalf("phase %s, %d roots, or the former root signs", p.Phase, len(p.Roots))
	}
	c.now = leaf.NotAfter
	if p = keep(t, d, w, everywhere); len(p.Roots) != 2 {
		t.Fatal("the former root is gone while what it signed lives")
	}
	c.now = c.now.Add(DefaultStale + maxSkew + time.Second)
	if p = keep(t, d, w, everywhere); p.Phase != Steady || len(p.Roots) != 1 || string(p.Roots[0]) == root {
		t.Fatalf("phase %s, %d roots", p.Phase, len(p.Roots))
	}
	if _, changed, _ := d.Keep(w, everywhere); changed {
		t.Error("it is never done")
	}
}

// TestOrders: hold waits, hurry does not, drop forgets at once; and a node that
// is away is waited for as long as its certificates live.
func TestOrders(t *testing.T) {
	c := newClock()
	away := func([][]byte) []string { return []string{"away"} }
	begin := func(order string) (*Domains, Wanted) {
		d := newDomains(t, DomainsConfig{Vault: newMemory(), Now: c.Now})
		w := shop()
		keep(t, d, w, everywhere)
		w.Rotate, w.Order = "now", order
		keep(t, d, w, everywhere)
		return d, w
	}
	d, w := begin(Hold)
	if p := keep(t, d, w, everywhere); p.Phase != Announced {
		t.Errorf("held, but %s", p.Phase)
	}
	d, w = begin(Hurry)
	if p := keep(t, d, w, away); p.Phase != Switched || len(p.Roots) != 2 {
		t.Errorf("in a hurry, but %s with %d roots", p.Phase, len(p.Roots))
	}
	d, w = begin(Drop)
	keep(t, d, w, away)
	if p := keep(t, d, w, away); p.Phase != Steady || len(p.Roots) != 1 || strings.Count(string(p.Keys), "kid") != 1 {
		t.Errorf("stolen, but %s with %d roots and keys %s", p.Phase, len(p.Roots), p.Keys)
	}
	d, w = begin("")
	c.now = c.now.Add(w.Life - time.Second)
	if p := keep(t, d, w, away); p.Phase != Announced {
		t.Errorf("a node that is away is not waited for: %s", p.Phase)
	}
	c.now = c.now.Add(time.Second)
	if p := keep(t, d, w, away); p.Phase != Switched {
		t.Errorf("a node that is away is waited for for ever: %s", p.Phase)
	}
}

// TestLife: a shorter life counts for what is signed from now on; what was
// signed with the longer one keeps its root.
func TestLife(t *testing.T) {
	c := newClock()
	d := newDomains(t, DomainsConfig{Vault: newMemory(), Now: c.Now, Stale: time.Second})
	w := shop()
	w.Life = 24 * time.Hour
	keep(t, d, w, everywhere)
	long := c.now.Add(24 * time.Hour)
	w.Life = time.Minute
	keep(t, d, w, everywhere)
	w.Rotate = "now"
	keep(t, d, w, everywhere)
	p := keep(t, d, w, everywhere)
	if leaf, _ := svid(t, d, p, c.now); leaf.NotAfter.Sub(c.now) != time.Minute {
		t.Errorf("lives for %s", leaf.NotAfter.Sub(c.now))
	}
	c.now = long
	if p = keep(t, d, w, everywhere); len(p.Roots) != 2 {
		t.Error("the root of a long-lived SVID is gone")
	}
	c.now = long.Add(10 * time.Minute)
	if p = keep(t, d, w, everywhere); len(p.Roots) != 1 {
		t.Error("the former root stays")
	}
}

// TestByItself: the issuing certificate is replaced at half of its life, and so
// is the root, by overlap.
func TestByItself(t *testing.T) {
	c := newClock()
	d := newDomains(t, DomainsConfig{Vault: newMemory(), Now: c.Now})
	w := shop()
	p := keep(t, d, w, everywhere)
	root := string(p.Roots[0])
	phases := map[Phase]bool{}
	for end := c.now.Add(DefaultRootLife * 3 / 4); c.now.Before(end); c.now = c.now.Add(9 * 24 * time.Hour) {
		p = keep(t, d, w, everywhere)
		phases[p.Phase] = true
		if leaf, _ := svid(t, d, p, c.now); leaf.NotAfter.Sub(c.now) != time.Hour {
			t.Fatalf("at %s an SVID lives for %s", c.now, leaf.NotAfter.Sub(c.now))
		}
		if n := strings.Count(string(p.Keys), `"kid"`); n > 3 {
			t.Fatalf("%d keys", n)
		}
	}
	if len(phases) != 3 || string(p.Roots[0]) == root || len(p.Roots) != 1 {
		t.Errorf("phases %v, %d roots", phases, len(p.Roots))
	}
}

// flaky is a Vault that fails half of the time, sometimes after it has written.
type flaky struct {
	*memory
	n int
}

func (f *flaky) Write(expect map[string]int64, files map[string][]byte) (bool, error) {
	f.n++
	switch f.n % 4 {
	case 1:
		return false, errors.New("no answer")
	case 3:
		if _, err := f.memory.Write(expect, files); err != nil {
			return false, err
		}
		return false, errors.New("no answer, but it was written")
	}
	return f.memory.Write(expect, files)
}

// TestCrashes: whoever dies at any step, and whoever goes on, the rotation ends,
// and at no moment is anything signed that is not trusted.
func TestCrashes(t *testing.T) {
	c := newClock()
	v := &flaky{memory: newMemory()}
	w := shop()
	steady := 0
	for i := range 400 {
		d := newDomains(t, DomainsConfig{Vault: v, Now: c.Now}) // another process each time
		if i%100 == 99 {
			w.Rotate += "again"
		}
		_, _, _ = d.Keep(w, everywhere) // it may fail
		p, err := d.Public("shop")
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			continue
		}
		svid(t, d, p, c.now)
		if p.Phase == Steady {
			steady++
		}
		c.now = c.now.Add(3 * time.Minute)
	}
	if steady < 100 {
		t.Errorf("steady %d times", steady)
	}
}

func TestJWT(t *testing.T) {
	c := newClock()
	d := newDomains(t, DomainsConfig{Vault: newMemory(), Now: c.Now})
	p := keep(t, d, shop(), everywhere)
	token, from, until, err := d.SignJWT("shop", "spiffe://shop.moire/ns/a/sa/web", []string{"db", "cache"})
	if err != nil || until.Sub(from) != DefaultJWTLife || !from.Equal(c.now) {
		t.Fatalf("%s to %s: %v", from, until, err)
	}
	parts := strings.Split(token, ".")
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if header["alg"] != "ES256" || !strings.Contains(string(p.Keys), header["kid"].(string)) || claims["sub"] != "spiffe://shop.moire/ns/a/sa/web" {
		t.Errorf("%v %v", header, claims)
	}
	for _, bad := range [][]string{nil, {""}, make([]string, 17), {strings.Repeat("x", 1025)}} {
		if _, _, _, err := d.SignJWT("shop", "spiffe://shop.moire/ns/a/sa/web", bad); err == nil {
			t.Errorf("audiences %.40q are taken", bad)
		}
	}
	if _, _, _, err := d.SignJWT("shop", "spiffe://evil/ns/a/sa/web", []string{"db"}); err == nil {
		t.Error("a foreign identity is signed")
	}
	// A key that begins to sign has been known for a while.
	known := map[string]bool{}
	for range 300 {
		c.now = c.now.Add(3 * time.Hour)
		p = keep(t, d, shop(), everywhere)
		token, _, _, err := d.SignJWT("shop", "spiffe://shop.moire/ns/a/sa/web", []string{"db"})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		if err := json.Unmarshal(b, &header); err != nil {
			t.Fatal(err)
		}
		if len(known) > 0 && !known[header["kid"].(string)] {
			t.Fatalf("a key signs that nobody knew 3 hours ago")
		}
		known = map[string]bool{}
		var set jwks
		if err := json.Unmarshal(p.Keys, &set); err != nil {
			t.Fatal(err)
		}
		for _, k := range set.Keys {
			known[k.ID] = true
		}
	}
}

// TestSecrets: what is in the Vault is nowhere else, and only the owner reads it.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	d := newDomains(t, DomainsConfig{Vault: files{dir}})
	keep(t, d, shop(), everywhere)
	info, err := os.Stat(files{dir}.Place(domainFile("shop")))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(files{dir}.Place(domainFile("shop")), []byte(`{"secret`), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := newDomains(t, DomainsConfig{Vault: files{dir}})
	if _, err := fresh.Public("shop"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if _, _, err := fresh.Keep(shop(), everywhere); err == nil {
		t.Error("a CA that is damaged is replaced")
	}
}
