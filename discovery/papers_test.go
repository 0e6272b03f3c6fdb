package discovery

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

// FuzzLoad: whatever is in the files, they load as papers whose key is that of
// the certificate, or not at all.
func FuzzLoad(f *testing.F) {
	key, csr, err := request()
	if err != nil {
		f.Fatal(err)
	}
	ca := newCA(f, 0)
	chain, err := ca.SignNode(csr, "n1")
	if err != nil {
		f.Fatal(err)
	}
	p, err := newPapers("n1", key, chain, ca.Roots())
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	if err := p.save(dir); err != nil {
		f.Fatal(err)
	}
	var files [3][]byte
	for i, name := range []string{keyFile, certFile, rootFile} {
		if files[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(files[0], files[1], files[2])
	f.Add(files[0], files[2], files[1])
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), files[1], files[2])
	f.Fuzz(func(t *testing.T, key, cert, root []byte) {
		for name, b := range map[string][]byte{keyFile: key, certFile: cert, rootFile: root} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := load(dir)
		if err == nil && !p.key.PublicKey.Equal(p.leaf.PublicKey) {
			t.Error("papers with the key of another certificate")
		}
	})
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
