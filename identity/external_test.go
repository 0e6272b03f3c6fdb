package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// abroad is a CA that was made elsewhere, with a key of its own kind.
type abroad struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAbroad(t testing.TB, c *clock, key crypto.Signer, below int, by *abroad, change func(*x509.Certificate)) *abroad {
	t.Helper()
	tmpl := authorityOf("abroad", below)
	if change != nil {
		change(tmpl)
	}
	var parent *x509.Certificate
	signs := key
	if by != nil {
		parent, signs = by.cert, by.key
	}
	cert, err := certify(c.now, tmpl, 1000*24*time.Hour, key.Public(), parent, signs)
	if err != nil {
		t.Fatal(err)
	}
	return &abroad{cert, key}
}

func give(t testing.TB, dir string, ca *abroad, chain, roots []*abroad) {
	t.Helper()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	certs := func(all []*abroad) (out []byte) {
		for _, a := range all {
			out = append(out, encodeCerts(a.cert)...)
		}
		return out
	}
	write(externalCert, certs(append([]*abroad{ca}, chain...)))
	os.Remove(filepath.Join(dir, externalRoots))
	if roots != nil {
		write(externalRoots, certs(roots))
	}
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	write(externalKey, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
}

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestExternal: a root, an intermediate, and one that allows no CA below it sign
// for the Domain; other files begin a rotation; the key of an external CA that
// has CAs below it is not in the Vault.
func TestExternal(t *testing.T) {
	c := newClock()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	root := newAbroad(t, c, rsaKey, 3, nil, nil)
	dir, v := t.TempDir(), newMemory()
	d := newDomains(t, DomainsConfig{Vault: v, External: dir, Now: c.Now})
	w := shop()
	own := keep(t, d, w, everywhere) // nothing was given yet
	middle := newAbroad(t, c, ecKey(t), 2, root, nil)
	for _, given := range []struct {
		ca           *abroad
		chain, roots []*abroad
		length       int // of an SVID's chain
	}{
		{root, nil, nil, 2},
		{middle, []*abroad{root}, nil, 3},
		{newAbroad(t, c, ecKey(t), 0, middle, nil), []*abroad{middle}, []*abroad{root}, 3},
		{newAbroad(t, c, ecKey(t), 0, nil, nil), nil, nil, 2},
	} {
		give(t, filepath.Join(dir, "shop"), given.ca, given.chain, given.roots)
		if p := keep(t, d, w, everywhere); p.Phase != Announced {
			t.Fatalf("other files, but %s", p.Phase)
		}
		p := keep(t, d, w, everywhere)
		c.now = c.now.Add(DefaultStale)
		chain, err := d.SignSVID("shop", "spiffe://shop.moire/ns/a/sa/web", newCSR(t))
		if err != nil || len(chain) != given.length {
			t.Fatalf("a chain of %d, %v", len(chain), err)
		}
		svid(t, d, p, c.now)
		c.now = c.now.Add(2 * time.Hour)
		p = keep(t, d, w, everywhere)
		if p.Phase != Steady || len(p.Roots) != 1 || bytes.Equal(p.Roots[0], own.Roots[0]) || !p.States[0].External {
			t.Fatalf("%s, %+v", p.Phase, p.States)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range v.files {
		if bytes.Contains(file, der[40:80]) {
			t.Errorf("%s has the key of the external root", name)
		}
	}
	// Files that went do no harm until the issuing certificate ends.
	give(t, filepath.Join(dir, "shop"), root, nil, nil)
	keep(t, d, w, everywhere)
	keep(t, d, w, everywhere)
	if err := os.RemoveAll(filepath.Join(dir, "shop")); err != nil {
		t.Fatal(err)
	}
	keep(t, d, w, everywhere)
	c.now = c.now.Add(DefaultIssuingLife * 3 / 4)
	if _, _, err := d.Keep(w, everywhere); err == nil || !strings.Contains(err.Error(), "bring its files back") {
		t.Errorf("got %v", err)
	}
	svid(t, d, published(t, d), c.now)
}

func published(t testing.TB, d *Domains) *Public {
	t.Helper()
	p, err := d.Public("shop")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBadExternal: what cannot be a CA is refused with its reason, and no other
// CA takes its place.
func TestBadExternal(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	d := newDomains(t, DomainsConfig{Vault: newMemory(), External: dir, Now: c.Now})
	good := newAbroad(t, c, ecKey(t), 1, nil, nil)
	other := newAbroad(t, c, ecKey(t), 1, nil, nil)
	middle := newAbroad(t, c, ecKey(t), 1, good, nil)
	place := filepath.Join(dir, "shop")
	for want, make := range map[string]func(){
		"does not end in a root": func() { give(t, place, middle, nil, nil) },
		"not come from a root":   func() { give(t, place, middle, nil, []*abroad{other}) },
		"is not the key":         func() { give(t, place, &abroad{good.cert, other.key}, nil, nil) },
		"not that of a CA": func() {
			leaf := newAbroad(t, c, ecKey(t), 0, good, func(c *x509.Certificate) { *c = x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature} })
			give(t, place, leaf, []*abroad{good}, nil)
		},
		"may not sign others": func() {
			give(t, place, newAbroad(t, c, ecKey(t), 1, good, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), []*abroad{good}, nil)
		},
		"expired": func() {
			c.now = c.now.Add(-2000 * 24 * time.Hour)
			old := newAbroad(t, c, ecKey(t), 1, nil, nil)
			c.now = c.now.Add(2000 * 24 * time.Hour)
			give(t, place, old, nil, nil)
		},
		"cannot vouch for Workloads": func() {
			give(t, place, newAbroad(t, c, ecKey(t), 1, nil, func(c *x509.Certificate) {
				c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"elsewhere.example"}, true
			}), nil, nil)
		},
		"no private key": func() {
			give(t, place, good, nil, nil)
			if err := os.WriteFile(filepath.Join(place, externalKey), []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"no such file": func() {
			give(t, place, good, nil, nil)
			os.Remove(filepath.Join(place, externalCert))
		},
	} {
		make()
		_, _, err := d.Keep(shop(), everywhere)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want %s", err, want)
		}
		if p := published(t, d); p != nil {
			t.Fatalf("%s: another CA took its place", want)
		}
	}
}
