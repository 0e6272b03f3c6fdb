package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// clock is a time that the test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func newCA(t testing.TB, cfg Config) *CA {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ca, err := NewCA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newCSR(t testing.TB) []byte {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"root.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func sign(t testing.TB, ca *CA, node string) (leaf, issuing *x509.Certificate) {
	t.Helper()
	chain, err := ca.SignNode(newCSR(t), node)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 2 {
		t.Fatalf("a chain of %d", len(chain))
	}
	if leaf, err = x509.ParseCertificate(chain[0]); err != nil {
		t.Fatal(err)
	}
	if issuing, err = x509.ParseCertificate(chain[1]); err != nil {
		t.Fatal(err)
	}
	return leaf, issuing
}

func TestNodeCertificate(t *testing.T) {
	c := newClock()
	ca := newCA(t, Config{Now: c.Now})
	leaf, issuing := sign(t, ca, "rack-1.n1")
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://moire/node/rack-1.n1" {
		t.Errorf("URIs %v", leaf.URIs)
	}
	if len(leaf.DNSNames) > 0 || leaf.IsCA || leaf.Subject.String() != "" {
		t.Errorf("what the request asked for came in: %v %v", leaf.DNSNames, leaf.Subject)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("EKU %v", leaf.ExtKeyUsage)
	}
	if got := leaf.NotAfter.Sub(c.now); got != 24*time.Hour {
		t.Errorf("lives %s", got)
	}
	if got := c.now.Sub(leaf.NotBefore); got != 5*time.Minute {
		t.Errorf("dated back %s", got)
	}
	if !issuing.IsCA || issuing.MaxPathLen != 0 || !issuing.MaxPathLenZero {
		t.Error("the issuing certificate may make further CAs")
	}
	if node, err := ca.NodeOf(leaf); err != nil || node != "rack-1.n1" {
		t.Errorf("NodeOf: %q %v", node, err)
	}
	c.now = c.now.Add(24*time.Hour + time.Second)
	if _, err := ca.NodeOf(leaf); err == nil {
		t.Error("a certificate that ended is taken")
	}
}

func TestServerCertificate(t *testing.T) {
	c := newClock()
	ca := newCA(t, Config{Now: c.Now, SANs: []string{"control.example", "192.0.2.1"}})
	cert, err := ca.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ServerName, "control.example", "192.0.2.1", "127.0.0.1", "::1", "localhost"} {
		if err := cert.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if last := cert.Certificate[len(cert.Certificate)-1]; !slices.Equal(last, ca.Roots()[0]) {
		t.Error("the chain does not end in the root")
	}
	if !slices.Equal(cert.Leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("EKU %v", cert.Leaf.ExtKeyUsage)
	}
	if _, err := ca.NodeOf(cert.Leaf); err == nil {
		t.Error("the control plane's certificate is taken for a node's")
	}
	again, err := ca.ServerCertificate()
	if err != nil || !again.Leaf.Equal(cert.Leaf) {
		t.Error("not the same while it is fresh", err)
	}
	c.now = c.now.Add(DefaultServerLife/2 + time.Hour)
	again, err = ca.ServerCertificate()
	if err != nil || again.Leaf.Equal(cert.Leaf) {
		t.Error("not replaced at half of its life", err)
	}
}

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := OpenCA(Config{Dir: dir}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no CA: %v", err)
	}
	ca := newCA(t, Config{Dir: dir})
	if _, err := NewCA(Config{Dir: dir}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second CA: %v", err)
	}
	leaf, _ := sign(t, ca, "n1")
	again, err := OpenCA(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if again.CAHash() != ca.CAHash() || !strings.HasPrefix(ca.CAHash(), "sha256:") || len(ca.CAHash()) != 7+64 {
		t.Errorf("hash %s, was %s", again.CAHash(), ca.CAHash())
	}
	if node, err := again.NodeOf(leaf); err != nil || node != "n1" {
		t.Errorf("after a restart: %q %v", node, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		i, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if want := fs.FileMode(0o600); e.Name() != rootFile && i.Mode().Perm() != want {
			t.Errorf("%s has mode %v", e.Name(), i.Mode())
		}
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
	if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", i.Mode(), err)
	}
}

// A crash while a CA is made leaves what counts as nothing.
func TestHalfMade(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, Config{Dir: dir})
	if err := os.Remove(filepath.Join(dir, rootFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(Config{Dir: dir}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if again := newCA(t, Config{Dir: dir}); again.CAHash() == ca.CAHash() {
		t.Error("not a new CA")
	}
}

func TestDamagedFiles(t *testing.T) {
	other := newCA(t, Config{})
	for name, change := range map[string]func(string) error{
		"empty root": func(d string) error { return os.WriteFile(filepath.Join(d, rootFile), nil, 0o600) },
		"foreign root": func(d string) error {
			return os.WriteFile(filepath.Join(d, rootFile), encodeCerts(other.roots...), 0o600)
		},
		"root not a CA": func(d string) error { return notCA(t, other, d) },
		"no issuing":    func(d string) error { return os.Remove(filepath.Join(d, issuingFile)) },
		"cut issuing":   func(d string) error { return os.Truncate(filepath.Join(d, issuingFile), 300) },
		"foreign key":   func(d string) error { return swapKey(t, d) },
		"garbage": func(d string) error {
			return os.WriteFile(filepath.Join(d, issuingFile), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600)
		},
		"strange block": func(d string) error {
			return os.WriteFile(filepath.Join(d, rootFile), []byte("-----BEGIN X-----\nAAAA\n-----END X-----\n"), 0o600)
		},
		"too large": func(d string) error { return os.Truncate(filepath.Join(d, rootFile), maxFile+1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			newCA(t, Config{Dir: dir})
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := OpenCA(Config{Dir: dir})
			if err == nil {
				t.Fatal("opened")
			}
			if strings.Contains(err.Error(), "AAAA") {
				t.Errorf("the error repeats the content: %v", err)
			}
		})
	}
}

func notCA(t *testing.T, ca *CA, dir string) error {
	leaf, _ := sign(t, ca, "n1")
	return os.WriteFile(filepath.Join(dir, rootFile), encodeCerts(leaf), 0o600)
}

func swapKey(t *testing.T, dir string) error {
	path := filepath.Join(dir, issuingFile)
	b, err := readFile(path)
	if err != nil {
		return err
	}
	_, certs, err := decodePEM(b)
	if err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(keyPEM, encodeCerts(certs...)...), 0o600)
}

func TestIssuingIsReplaced(t *testing.T) {
	c := newClock()
	cfg := Config{Dir: t.TempDir(), Now: c.Now}
	ca := newCA(t, cfg)
	second, err := OpenCA(cfg) // another process
	if err != nil {
		t.Fatal(err)
	}
	_, first := sign(t, ca, "n1")
	c.now = c.now.Add(DefaultIssuingLife/2 + time.Hour)
	leaf, now := sign(t, ca, "n1")
	if now.Equal(first) {
		t.Fatal("not replaced at half of its life")
	}
	if _, other := sign(t, second, "n2"); !other.Equal(now) {
		t.Error("the other process made one of its own")
	}
	if node, err := second.NodeOf(leaf); err != nil || node != "n1" {
		t.Errorf("the other process: %q %v", node, err)
	}
	if len(ca.issuing) != 2 {
		t.Errorf("%d issuing certificates are known, want 2", len(ca.issuing))
	}
	// Without the root key, the old one does until it ends, and no longer.
	if err := os.Rename(filepath.Join(cfg.Dir, rootKeyFile), filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(DefaultIssuingLife/2 + time.Hour)
	if _, again := sign(t, ca, "n1"); !again.Equal(now) {
		t.Error("replaced without the root key")
	}
	c.now = c.now.Add(DefaultIssuingLife / 2)
	if _, err := ca.SignNode(newCSR(t), "n1"); err == nil || !strings.Contains(err.Error(), rootKeyFile) {
		t.Errorf("signed with an issuing certificate that ended: %v", err)
	}
}

// A certificate made by one process after the issuing certificate was replaced
// is known to another that has not signed since.
func TestNewIssuingIsKnownElsewhere(t *testing.T) {
	c := newClock()
	cfg := Config{Dir: t.TempDir(), Now: c.Now}
	ca := newCA(t, cfg)
	second, err := OpenCA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(DefaultIssuingLife/2 + time.Hour)
	leaf, _ := sign(t, ca, "n1")
	if node, err := second.NodeOf(leaf); err != nil || node != "n1" {
		t.Errorf("%q %v", node, err)
	}
}

func TestRequests(t *testing.T) {
	ca := newCA(t, Config{})
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	smallCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p224)
	if err != nil {
		t.Fatal(err)
	}
	forged := newCSR(t)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{
		"none": nil, "garbage": []byte("hello"), "RSA": rsaCSR, "P-224": smallCSR, "not its key": forged, "large": make([]byte, maxCSR+1),
	} {
		if _, err := ca.SignNode(csr, "n1"); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	for _, node := range []string{"", "N1", "a/b", "../x", "a\x00b", "a b", "-a", "a-", ".a", "a..b", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a", "é", "n1\n"} {
		if _, err := ca.SignNode(newCSR(t), node); err == nil {
			t.Errorf("%q: signed", node)
		}
	}
	for _, node := range []string{"a", "n1", "a-b.c-d", "1", strings.Repeat("a", 63)} {
		if err := CheckNodeName(node); err != nil {
			t.Error(err)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no directory": {},
		"too long":     {Dir: t.TempDir(), NodeLife: 25 * time.Hour},
		"too short":    {Dir: t.TempDir(), NodeLife: time.Millisecond},
		"negative":     {Dir: t.TempDir(), ServerLife: -time.Hour},
	} {
		if _, err := NewCA(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestNames(t *testing.T) {
	if got := WorkloadID("acme", "shop", "web"); got != "spiffe://acme/ns/shop/sa/web" {
		t.Error(got)
	}
	if got := NodeID("n1"); got != "spiffe://moire/node/n1" {
		t.Error(got)
	}
}
