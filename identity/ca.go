package identity

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// Default lifetimes.
const (
	DefaultRootLife    = 10 * 365 * 24 * time.Hour
	DefaultIssuingLife = 365 * 24 * time.Hour
	DefaultServerLife  = 7 * 24 * time.Hour
	DefaultNodeLife    = 24 * time.Hour
)

// Config of a CA.
type Config struct {
	// Dir holds keys, certificates and tokens; only the owner may read it.
	Dir string
	// Vault holds them instead, for several processes on several machines.
	Vault Vault
	// SANs are the addresses and DNS names of the control plane. ServerName is
	// always one of them, as are localhost and the loopback addresses.
	SANs []string
	// Lifetimes; 0 means the default. NodeLife is at most 24 h.
	RootLife, IssuingLife, ServerLife, NodeLife time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// CA issues the certificates of one installation: an offline-able root, and an
// issuing certificate below it that is replaced at half of its life. Several
// processes may have the same directory or Vault open.
type CA struct {
	cfg   Config
	roots []*x509.Certificate // immutable; the first signs

	mu sync.Mutex
	// issuing certificates, the newest first; older ones verify what they
	// signed until they end.
	issuing    []*x509.Certificate
	issuingKey *ecdsa.PrivateKey
	server     *tls.Certificate // until half of its life
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" && c.Vault == nil {
		return c, errors.New("identity: Dir is empty; say where the CA lives")
	}
	if c.Vault == nil {
		c.Vault = files{c.Dir}
	}
	for _, d := range []struct {
		life *time.Duration
		def  time.Duration
	}{{&c.RootLife, DefaultRootLife}, {&c.IssuingLife, DefaultIssuingLife}, {&c.ServerLife, DefaultServerLife}, {&c.NodeLife, DefaultNodeLife}} {
		if *d.life == 0 {
			*d.life = d.def
		}
		if *d.life < time.Second {
			return c, fmt.Errorf("identity: a lifetime of %s is too short; at least 1s", *d.life)
		}
	}
	if c.NodeLife > DefaultNodeLife {
		return c, fmt.Errorf("identity: NodeLife %s is longer than %s", c.NodeLife, DefaultNodeLife)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// NewCA makes a CA where there is none; it fails with fs.ErrExist when there is
// one, also when another process has just made it.
func NewCA(cfg Config) (*CA, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	place := cfg.Vault.Place(rootFile)
	exists := fmt.Errorf("there is a CA in %s already: %w", place, fs.ErrExist)
	if _, _, err := cfg.Vault.Read(rootFile); err == nil {
		return nil, exists
	}
	ca := &CA{cfg: cfg}
	ok, err := ca.create()
	if err != nil {
		return nil, fmt.Errorf("make a CA in %s: %w", place, err)
	}
	if !ok {
		return nil, exists
	}
	return ca, nil
}

// create writes the files of a new CA; what a crash leaves behind without the
// root counts as nothing.
func (ca *CA) create() (bool, error) {
	key, err := newKey()
	if err != nil {
		return false, err
	}
	root, err := ca.sign(authorityOf("Moiré root", 1), ca.cfg.RootLife, key.Public(), nil, key)
	if err != nil {
		return false, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return false, err
	}
	ca.roots = []*x509.Certificate{root}
	issuing, err := ca.makeIssuing(key, nil)
	if err != nil {
		return false, err
	}
	ok, err := ca.cfg.Vault.Write(map[string]int64{rootFile: 0}, map[string][]byte{
		rootKeyFile: keyPEM, rootFile: encodeCerts(root), issuingFile: issuing.file})
	if ok {
		ca.issuing, ca.issuingKey = issuing.certs, issuing.key
	}
	return ok, err
}

// OpenCA opens a CA; it fails with fs.ErrNotExist when there is none.
func OpenCA(cfg Config) (*CA, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	path := cfg.Vault.Place(rootFile)
	b, _, err := cfg.Vault.Read(rootFile)
	if err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	key, roots, err := decodePEM(b)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open the CA: %s: %w; restore it from a backup", path, err)
	case key != nil || len(roots) == 0:
		return nil, fmt.Errorf("open the CA: %s must hold certificates and nothing else; restore it from a backup", path)
	}
	for _, r := range roots {
		if !r.IsCA {
			return nil, fmt.Errorf("open the CA: %s holds a certificate that is not a CA; restore it from a backup", path)
		}
	}
	ca := &CA{cfg: cfg, roots: roots}
	if _, err := ca.readIssuing(); err != nil {
		return nil, fmt.Errorf("open the CA: %w; restore it from a backup", err)
	}
	return ca, nil
}

// readIssuing loads issuing.pem and proves that it belongs to the root. It
// returns the revision of the file.
func (ca *CA) readIssuing() (int64, error) {
	path := ca.cfg.Vault.Place(issuingFile)
	b, revision, err := ca.cfg.Vault.Read(issuingFile)
	if err != nil {
		return 0, err
	}
	key, certs, err := decodePEM(b)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s: %w", path, err)
	case key == nil || len(certs) == 0:
		return 0, fmt.Errorf("%s holds no key or no certificate", path)
	case !key.PublicKey.Equal(certs[0].PublicKey):
		return 0, fmt.Errorf("%s: key and certificate do not belong together", path)
	}
	for _, c := range certs {
		if !ca.signedByRoot(c) {
			return 0, fmt.Errorf("%s: a certificate was not signed by a root in %s", path, rootFile)
		}
	}
	ca.issuing, ca.issuingKey = certs, key
	return revision, nil
}

func (ca *CA) signedByRoot(c *x509.Certificate) bool {
	for _, r := range ca.roots {
		if c.CheckSignatureFrom(r) == nil {
			return true
		}
	}
	return false
}

// Roots returns the DER certificates that nodes must trust.
func (ca *CA) Roots() [][]byte {
	out := make([][]byte, 0, len(ca.roots))
	for _, r := range ca.roots {
		out = append(out, r.Raw)
	}
	return out
}

// CAHash is sha256:<hex> of the root certificate: what a node must be told,
// beside a token, to know whom it joins.
func (ca *CA) CAHash() string {
	sum := sha256.Sum256(ca.roots[0].Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}
