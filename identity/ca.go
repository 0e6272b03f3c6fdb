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
	"os"
	"path/filepath"
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
// processes may have the same directory open.
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
	if c.Dir == "" {
		return c, errors.New("identity: Dir is empty; say where the CA lives")
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

// NewCA makes a CA in a directory that has none; it fails with fs.ErrExist
// when there is one.
func NewCA(cfg Config) (*CA, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the CA: %w", err)
	}
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(cfg.Dir, rootFile)); err == nil {
		return nil, fmt.Errorf("there is a CA in %s already: %w", cfg.Dir, fs.ErrExist)
	}
	ca := &CA{cfg: cfg}
	if err := ca.create(); err != nil {
		return nil, fmt.Errorf("make a CA in %s: %w", cfg.Dir, err)
	}
	return ca, nil
}

// create writes the files of a new CA, root.crt last: what a crash leaves
// behind before that counts as nothing.
func (ca *CA) create() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	root, err := ca.sign(authority("Moiré root", 1), ca.cfg.RootLife, key.Public(), nil, key)
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(ca.cfg.Dir, rootKeyFile), keyPEM, 0o600); err != nil {
		return err
	}
	ca.roots = []*x509.Certificate{root}
	if err := ca.newIssuing(nil); err != nil {
		return err
	}
	return writeFile(filepath.Join(ca.cfg.Dir, rootFile), encodeCerts(root), 0o644)
}

// OpenCA opens the CA of a directory; it fails with fs.ErrNotExist when there
// is none.
func OpenCA(cfg Config) (*CA, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.Dir, rootFile)
	b, err := readFile(path)
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
	if err := ca.readIssuing(); err != nil {
		return nil, fmt.Errorf("open the CA: %w; restore it from a backup", err)
	}
	return ca, nil
}

// readIssuing loads issuing.pem and proves that it belongs to the root.
func (ca *CA) readIssuing() error {
	path := filepath.Join(ca.cfg.Dir, issuingFile)
	b, err := readFile(path)
	if err != nil {
		return err
	}
	key, certs, err := decodePEM(b)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case key == nil || len(certs) == 0:
		return fmt.Errorf("%s holds no key or no certificate", path)
	case !key.PublicKey.Equal(certs[0].PublicKey):
		return fmt.Errorf("%s: key and certificate do not belong together", path)
	}
	for _, c := range certs {
		if !ca.signedByRoot(c) {
			return fmt.Errorf("%s: a certificate was not signed by a root in %s", path, rootFile)
		}
	}
	ca.issuing, ca.issuingKey = certs, key
	return nil
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
