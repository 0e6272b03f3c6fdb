package identity

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Files of an external CA, in <directory>/<Domain>.
const (
	externalCert = "ca.crt"
	externalKey  = "ca.key"
	// externalRoots is only needed when the last certificate in externalCert is
	// not the root.
	externalRoots = "roots.crt"
)

// external is a CA that was made elsewhere: what we sign comes from it.
type external struct {
	hash   string // of all that was read
	cert   *x509.Certificate
	key    crypto.Signer
	chain  [][]byte // cert and what is between it and the root
	roots  [][]byte
	direct bool // it allows no CA below it, so it signs by itself
}

// external reads the CA that was given for a Domain; nil: none was. An error
// names the file, and what to do.
func (d *Domains) external(domain string) (*external, error) {
	if d.cfg.External == "" {
		return nil, nil
	}
	dir := filepath.Join(d.cfg.External, domain)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	certs, err := readCerts(filepath.Join(dir, externalCert))
	if err != nil {
		return nil, err
	}
	e := &external{cert: certs[0]}
	if e.key, err = readSigner(filepath.Join(dir, externalKey)); err != nil {
		return nil, err
	}
	roots, err := readCerts(filepath.Join(dir, externalRoots))
	if errors.Is(err, fs.ErrNotExist) {
		last := certs[len(certs)-1]
		if last.CheckSignatureFrom(last) != nil {
			return nil, fmt.Errorf("%s does not end in a root, which signs itself; put the root into %s", filepath.Join(dir, externalCert), filepath.Join(dir, externalRoots))
		}
		roots, err = []*x509.Certificate{last}, nil
	}
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, r := range roots {
		e.roots = append(e.roots, r.Raw)
		h.Write(r.Raw)
	}
	for _, c := range certs {
		h.Write(c.Raw)
		if !slices.ContainsFunc(e.roots, func(r []byte) bool { return bytes.Equal(r, c.Raw) }) {
			e.chain = append(e.chain, c.Raw)
		}
	}
	e.hash = hex.EncodeToString(h.Sum(nil)[:16])
	slices.SortFunc(e.roots, bytes.Compare)
	if err := e.check(d.cfg, certs[1:], roots); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, externalCert), err)
	}
	return e, nil
}

// check says why the certificate cannot be a CA for us.
func (e *external) check(cfg DomainsConfig, between, roots []*x509.Certificate) error {
	c := e.cert
	switch {
	case !c.IsCA:
		return errors.New("the first certificate is not that of a CA; put the one that shall sign first")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the first certificate may not sign others (key usage)")
	case !samePublic(c.PublicKey, e.key.Public()):
		return fmt.Errorf("%s is not the key of the first certificate", externalKey)
	}
	e.direct = c.MaxPathLen == 0 && c.MaxPathLenZero
	_, err := c.Verify(x509.VerifyOptions{Roots: poolOf(roots), Intermediates: poolOf(between), CurrentTime: cfg.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("it does not come from a root that was given: %w", err)
	}
	return nil
}

// signer makes what signs for the Domain out of an external CA, and proves that
// what it will sign is good.
func (d *Domains) fromExternal(e *external, trustDomain string) (*signer, error) {
	s := &signer{Roots: e.roots, External: e.hash}
	if err := d.below(s, e, trustDomain); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	trial := &authority{TrustDomain: trustDomain, Life: d.cfg.IssuingLife, Signs: *s}
	chain, err := d.certifySVID(trial, WorkloadID(trustDomain, "trial", "trial"), key.Public())
	if err != nil {
		return nil, err
	}
	leaf, between, roots, err := parseChain(chain, s.Roots)
	if err != nil {
		return nil, err
	}
	for _, usage := range svidUsages {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: poolOf(roots), Intermediates: poolOf(between), CurrentTime: d.cfg.Now(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return nil, fmt.Errorf("the external CA cannot vouch for Workloads of %s: %w", trustDomain, err)
		}
	}
	return s, nil
}

// below makes the issuing certificate of an external CA.
func (d *Domains) below(s *signer, e *external, trustDomain string) (err error) {
	if e.direct {
		s.Chain = e.chain
		if len(s.Chain) == 0 { // a root that allows no CA below it
			s.Chain = [][]byte{e.cert.Raw}
		}
		s.IssuingKey, err = x509.MarshalPKCS8PrivateKey(e.key)
		return err
	}
	return d.issue(s, trustDomain, e.cert, e.chain, e.key)
}

func readCerts(path string) ([]*x509.Certificate, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != pemCert {
			return nil, fmt.Errorf("%s holds a %q block; want only %s", path, block.Type, pemCert)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(out), err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate as PEM", path)
	}
	return out, nil
}

// readSigner reads a private key. Errors never repeat the content.
func readSigner(path string) (crypto.Signer, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no private key as PEM", path)
	}
	switch block.Type {
	case pemKey:
		key, err := parseSigner(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return key, nil
	case "EC PRIVATE KEY":
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
	case "RSA PRIVATE KEY":
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s: a %q block that is not a private key without a password; want PKCS #8", path, block.Type)
}

// parseSigner reads PKCS #8.
func parseSigner(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key is damaged")
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key is of a kind that does not sign")
	}
	return key, nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	out := x509.NewCertPool()
	for _, c := range certs {
		out.AddCert(c)
	}
	return out
}

// parseChain reads a chain, leaf first, and roots.
func parseChain(chain, roots [][]byte) (leaf *x509.Certificate, between, tops []*x509.Certificate, err error) {
	parse := func(all [][]byte) (out []*x509.Certificate) {
		for _, der := range all {
			c, perr := x509.ParseCertificate(der)
			if perr != nil {
				err = perr
				return nil
			}
			out = append(out, c)
		}
		return out
	}
	certs, tops := parse(chain), parse(roots)
	if err != nil || len(certs) == 0 {
		return nil, nil, nil, errors.Join(errors.New("a certificate cannot be read"), err)
	}
	return certs[0], certs[1:], tops, nil
}
