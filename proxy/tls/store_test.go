package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

func TestChooser(t *testing.T) {
	ca := newCA(t, "ca")
	store := stored(t, ca.issue("first", dns("a.shop")), ca.issue("star", dns("*.shop", "b.x.shop")), ca.issue("unused", dns("c.other")))
	chooser := store.Choose([]string{"first", "star"})
	for name, want := range map[string]string{
		"a.shop": "first", "A.Shop": "first", "b.shop": "star", "b.shop.": "star", "x.y.shop": "first", "b.x.shop": "star",
		"shop": "first", "c.other": "first", "": "first", ".shop": "star", "*.shop": "star",
	} {
		cert, err := chooser.Get(&stdtls.ClientHelloInfo{ServerName: name})
		if err != nil || cert.Leaf.Subject.CommonName != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
	// Another set while the chooser is in use.
	if err := store.Load([]l7.Certificate{ca.issue("star", dns("b.shop"))}); err != nil {
		t.Fatal(err)
	}
	if cert, err := chooser.Get(&stdtls.ClientHelloInfo{ServerName: "a.shop"}); err != nil || cert.Leaf.Subject.CommonName != "star" {
		t.Error(err)
	}
	if err := store.Load(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := chooser.Get(&stdtls.ClientHelloInfo{}); err != errNoCertificate {
		t.Error(err)
	}
	if _, err := (&Store{}).Choose([]string{"x"}).Get(&stdtls.ClientHelloInfo{}); err != errNoCertificate {
		t.Error(err)
	}
}

func TestStoreFiles(t *testing.T) {
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	list := []l7.Certificate{{Name: "shop", ChainFile: chain, KeyFile: key}}
	store := &Store{}
	expect := func(what string, words ...string) {
		t.Helper()
		err := store.Load(list)
		for _, w := range append(words, `certificate "shop"`) {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want it to say %q", what, err, w)
			}
		}
	}
	write := func(path, text string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	expect("no file", "chainFile", chain, "no such file")
	if got := store.Changed(); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("changed: %v", got)
	}
	write(chain, "hello", 9*time.Second)
	expect("no PEM", chain, "not PEM")
	ca := newCA(t, "ca")
	one, two := ca.issue("one", dns("a.shop")), ca.issue("two", dns("b.shop"))
	write(chain, one.Chain, 8*time.Second)
	write(key, two.Key, 8*time.Second)
	expect("another key", key, "does not match")
	if err := store.Load(list); strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("key material in %v", err)
	}
	write(key, one.Key, 7*time.Second)
	if err := store.Load(list); err != nil {
		t.Fatal(err)
	}
	if got := store.Changed(); got != nil {
		t.Errorf("changed: %v", got)
	}
	// A rotation, first seen when half of it is done.
	write(chain, two.Chain, 6*time.Second)
	if got := store.Changed(); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("changed: %v", got)
	}
	if err := store.Reload(); err == nil {
		t.Error("a chain with the key of another was taken")
	}
	if facts := leaves(store); len(facts) != 1 || facts[0].DNSNames[0] != "a.shop" {
		t.Errorf("the last good certificate is gone: %+v", facts)
	}
	if store.Changed() == nil {
		t.Error("nobody would read the files again")
	}
	write(key, two.Key, 5*time.Second)
	if err := store.Reload(); err != nil {
		t.Fatal(err)
	}
	if facts := leaves(store); facts[0].DNSNames[0] != "b.shop" || facts[0].NotAfter.IsZero() {
		t.Errorf("%+v", facts)
	}
	list = []l7.Certificate{{Name: "shop", Chain: one.Chain, ChainFile: chain, Key: one.Key}}
	expect("both", "chain and chainFile")
	list = []l7.Certificate{{Name: "shop", Chain: one.Chain}}
	expect("neither", "neither key nor keyFile")
}

// TestResumption: sessions are resumed, with new certificates too, but not
// across a change of trust and not where it is turned off.
func TestResumption(t *testing.T) {
	ca := newCA(t, "ca")
	store := stored(t, ca.issue("x", withURI(t, webID)))
	words := &l7.ServerTLS{Certificates: []string{"x"}, ClientCA: ca.pem, Callers: []string{webID}}
	serve := func() *stdtls.Config {
		t.Helper()
		c, err := ServerConfig(words, l7.HTTP2, store, NewVerified(10))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	client, err := NewClient(&l7.ClientTLS{CA: ca.pem, Servers: []string{webID}, Certificate: "x"}, l7.HTTP2, store, NewVerified(10))
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, first, server *stdtls.Config, resumed bool) {
		t.Helper()
		for _, version := range []uint16{stdtls.VersionTLS12, stdtls.VersionTLS13} {
			config := mustConfig(t, client, "").Clone()
			config.MaxVersion = version
			config.ClientSessionCache = stdtls.NewLRUClientSessionCache(1)
			mustConnect(t, config, first)
			c, s := mustConnect(t, config, server)
			if c.Facts().Resumed != resumed || s.Facts().Resumed != resumed || s.Facts().Peer != webID {
				t.Errorf("%s, %x: %+v", what, version, s.Facts())
			}
		}
	}
	one := serve()
	try("the same", one, one, true)
	try("another configuration", one, serve(), false)
	words.NoResumption = true
	off := serve()
	try("turned off", off, off, false)
	if err := store.Load([]l7.Certificate{ca.issue("x", withURI(t, webID))}); err != nil {
		t.Fatal(err)
	}
	try("a new certificate", one, one, true)
}

func leaves(s *Store) (all []*x509.Certificate) {
	for _, c := range s.Leaves() {
		all = append(all, c)
	}
	return all
}
