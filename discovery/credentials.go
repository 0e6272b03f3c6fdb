package discovery

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Files in the directory of a node.
const (
	keyFile  = "node.key"
	certFile = "node.crt"
	rootFile = "ca.crt"
)

// papers is what a node proves with who it is.
type papers struct {
	key   *ecdsa.PrivateKey
	chain [][]byte // DER, leaf first
	leaf  *x509.Certificate
	roots [][]byte // DER
}

// check says whether the papers are those of the node and good now.
func (p *papers) check(node string, now time.Time) error {
	if len(p.leaf.URIs) != 1 || p.leaf.URIs[0].Path != "/node/"+node {
		return fmt.Errorf("the certificate is not that of node %s", node)
	}
	between := x509.NewCertPool()
	for _, der := range p.chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("chain of the certificate: %w", err)
		}
		between.AddCert(c)
	}
	_, err := p.leaf.Verify(x509.VerifyOptions{
		Roots: pool(p.roots), Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// trusts reports whether the root with the hash is among the roots.
func (p *papers) trusts(caHash string) bool {
	return slices.ContainsFunc(p.roots, func(der []byte) bool { return hashOf(der) == caHash })
}

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// halfway is when the certificate should be renewed.
func (p *papers) halfway() time.Time {
	return p.leaf.NotBefore.Add(p.leaf.NotAfter.Sub(p.leaf.NotBefore) / 2)
}

// tls is the client's end of a connection: it shows the certificate and
// expects the control plane.
func (p *papers) tls() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		NextProtos:       []string{"h2"},
		RootCAs:          pool(p.roots),
		ServerName:       ServerName,
		Certificates:     []tls.Certificate{{Certificate: p.chain, PrivateKey: p.key, Leaf: p.leaf}},
		VerifyConnection: func(s tls.ConnectionState) error { return forServers(s.PeerCertificates[0]) },
	}
}

// forServers refuses certificates without a purpose, which crypto/x509 takes
// for any.
func forServers(c *x509.Certificate) error {
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return errors.New("the certificate of the control plane is not one for servers")
	}
	return nil
}

// request makes a new key and the PKCS #10 request for it.
func request() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

// newPapers checks the answer to a request.
func newPapers(node string, key *ecdsa.PrivateKey, chain, roots [][]byte) (*papers, error) {
	if len(chain) == 0 || len(chain) > 8 || len(roots) == 0 || len(roots) > 64 {
		return nil, fmt.Errorf("an answer with %d certificates and %d roots", len(chain), len(roots))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("the certificate cannot be read: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	for _, der := range roots {
		if _, err := x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("a root cannot be read: %w", err)
		}
	}
	p := &papers{key: key, chain: chain, leaf: leaf, roots: roots}
	return p, p.check(node, time.Now())
}

// save keeps the papers. A crash at any moment leaves files that load, old or
// new: node.key holds both keys until node.crt is the new one.
func (p *papers) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	both := key
	if old, err := load(dir); err == nil {
		if der, err = x509.MarshalPKCS8PrivateKey(old.key); err != nil {
			return err
		}
		both = append(bytes.Clone(key), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	for _, f := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{
		{keyFile, both, 0o600},
		{rootFile, encodeCerts(p.roots), 0o644},
		{certFile, encodeCerts(p.chain), 0o644},
		{keyFile, key, 0o600},
	} {
		if err := replaceFile(filepath.Join(dir, f.name), f.content, f.mode); err != nil {
			return err
		}
	}
	return nil
}

func encodeCerts(chain [][]byte) []byte {
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// load reads the papers. Errors never repeat the content of a file.
func load(dir string) (*papers, error) {
	chain, err := blocks(filepath.Join(dir, certFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	roots, err := blocks(filepath.Join(dir, rootFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	keys, err := blocks(filepath.Join(dir, keyFile), "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	for _, der := range keys {
		k, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, fmt.Errorf("%s is damaged", keyFile)
		}
		if key, ok := k.(*ecdsa.PrivateKey); ok && key.PublicKey.Equal(leaf.PublicKey) {
			return &papers{key: key, chain: chain, leaf: leaf, roots: roots}, nil
		}
	}
	return nil, fmt.Errorf("%s holds no key for the certificate in %s", keyFile, certFile)
}

// blocks reads the PEM blocks of a file, at least one, all of the kind.
func blocks(path, kind string) ([][]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("%s holds a %q block; want %q", path, block.Type, kind)
		}
		out = append(out, block.Bytes)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no %q block", path, kind)
	}
	return out, nil
}

// replaceFile replaces a file as a whole and durably, or not at all.
func replaceFile(path string, content []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // the first error is the one that counts
			_ = os.Remove(f.Name()) // so is it here
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
