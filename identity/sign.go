package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
)

const (
	// maxSkew is how far a certificate is dated back, for nodes whose clock is
	// behind; never more than a tenth of its life.
	maxSkew = 5 * time.Minute
	// maxCSR bounds a certificate request in bytes.
	maxCSR = 8 << 10
	// maxTries bounds how often a change is tried again because another process
	// was first.
	maxTries = 100
)

func authorityOf(name string, below int) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Moiré"}, CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            below,
		MaxPathLenZero:        below == 0,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// sign is certify by the clock of the CA.
func (ca *CA) sign(t *x509.Certificate, life time.Duration, pub crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	return certify(ca.cfg.Now(), t, life, pub, parent, key)
}

// certify fills serial and dates in and signs; a nil parent means self-signed.
// No certificate lives longer than its parent.
func certify(now time.Time, t *x509.Certificate, life time.Duration, pub crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t.SerialNumber = serial.Add(serial, big.NewInt(1)) // 0 is not allowed
	t.NotBefore, t.NotAfter = now.Add(-min(maxSkew, life/10)), now.Add(life)
	if parent == nil {
		parent = t
	} else if parent.NotAfter.Before(t.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newIssuing is an issuing certificate with its key, and the file of both.
type newIssuing struct {
	key   *ecdsa.PrivateKey
	certs []*x509.Certificate
	file  []byte
}

// makeIssuing makes an issuing certificate; old ones that still live stay known.
func (ca *CA) makeIssuing(rootKey *ecdsa.PrivateKey, old []*x509.Certificate) (newIssuing, error) {
	key, err := newKey()
	if err != nil {
		return newIssuing{}, err
	}
	cert, err := ca.sign(authorityOf("Moiré issuing", 0), ca.cfg.IssuingLife, key.Public(), ca.roots[0], rootKey)
	if err != nil {
		return newIssuing{}, err
	}
	certs := []*x509.Certificate{cert}
	for _, c := range old {
		if c.NotAfter.After(ca.cfg.Now()) {
			certs = append(certs, c)
		}
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return newIssuing{}, err
	}
	return newIssuing{key: key, certs: certs, file: append(keyPEM, encodeCerts(certs...)...)}, nil
}

// rootKey reads the key of the root.
func (ca *CA) rootKey() (*ecdsa.PrivateKey, error) {
	path := ca.cfg.Vault.Place(rootKeyFile)
	b, _, err := ca.cfg.Vault.Read(rootKeyFile)
	if err != nil {
		return nil, fmt.Errorf("a new issuing certificate needs the root key: %w; bring %s back", err, rootKeyFile)
	}
	key, _, err := decodePEM(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if key == nil || !key.PublicKey.Equal(ca.roots[0].PublicKey) {
		return nil, fmt.Errorf("%s is not the key of the first certificate in %s", path, rootFile)
	}
	return key, nil
}

// halfway is when a certificate should be replaced.
func halfway(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}

// freshIssuing makes sure that the issuing certificate is in the first half of
// its life. The caller holds mu.
func (ca *CA) freshIssuing() error {
	now := ca.cfg.Now()
	if now.Before(halfway(ca.issuing[0])) {
		return nil
	}
	err := ca.replaceIssuing(now)
	if err != nil && now.Before(ca.issuing[0].NotAfter) {
		return nil // the root key is away; the old one will do until it ends
	}
	return err
}

func (ca *CA) replaceIssuing(now time.Time) error {
	for range maxTries {
		revision, err := ca.readIssuing()
		if err != nil {
			return err
		}
		if now.Before(halfway(ca.issuing[0])) {
			return nil // another process was first
		}
		key, err := ca.rootKey()
		if err != nil {
			return err
		}
		next, err := ca.makeIssuing(key, ca.issuing)
		if err != nil {
			return err
		}
		ok, err := ca.cfg.Vault.Write(map[string]int64{issuingFile: revision}, map[string][]byte{issuingFile: next.file})
		if err != nil {
			return err
		}
		if ok {
			ca.issuing, ca.issuingKey = next.certs, next.key
			return nil
		}
	}
	return errors.New("the issuing certificate keeps changing; try again")
}

// SignNode turns a certificate request (PKCS #10, DER) into a certificate for
// the node, and returns it with what it was signed by, leaf first. Only the
// public key of the request counts; the caller must have made sure that the
// requester is that node.
func (ca *CA) SignNode(csr []byte, node string) ([][]byte, error) {
	if err := CheckNodeName(node); err != nil {
		return nil, err
	}
	pub, err := requestedKey(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request of node %s: %w", node, err)
	}
	id, err := url.Parse(NodeID(node))
	if err != nil {
		return nil, err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if err := ca.freshIssuing(); err != nil {
		return nil, err
	}
	leaf, err := ca.sign(&x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{id},
	}, ca.cfg.NodeLife, pub, ca.issuing[0], ca.issuingKey)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of node %s: %w", node, err)
	}
	return [][]byte{leaf.Raw, ca.issuing[0].Raw}, nil
}

// requestedKey returns the public key of a request whose sender has the
// private one.
func requestedKey(csr []byte) (crypto.PublicKey, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("%d bytes, more than %d", len(csr), maxCSR)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	if err := r.CheckSignature(); err != nil {
		return nil, err
	}
	switch k := r.PublicKey.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return k, nil
		}
	}
	return nil, errors.New("the key is of a kind that is not accepted; use ECDSA P-256")
}

// ServerCertificate returns the certificate of the control plane with its
// whole chain, the root included, so that a joining node can compare the root
// with the hash that it was given. It is replaced at half of its life: ask
// again for every connection.
func (ca *CA) ServerCertificate() (tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.server != nil && ca.cfg.Now().Before(halfway(ca.server.Leaf)) {
		return *ca.server, nil
	}
	if err := ca.freshIssuing(); err != nil {
		return tls.Certificate{}, err
	}
	key, err := newKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, san := range slices.Concat([]string{ServerName, "localhost", "127.0.0.1", "::1"}, ca.cfg.SANs) {
		if ip := net.ParseIP(san); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, san)
		}
	}
	leaf, err := ca.sign(t, ca.cfg.ServerLife, key.Public(), ca.issuing[0], ca.issuingKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign the certificate of the control plane: %w", err)
	}
	ca.server = &tls.Certificate{
		Certificate: [][]byte{leaf.Raw, ca.issuing[0].Raw, ca.roots[0].Raw},
		PrivateKey:  key,
		Leaf:        leaf,
	}
	return *ca.server, nil
}
