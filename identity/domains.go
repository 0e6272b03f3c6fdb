package identity

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// Default lifetimes of what Domains are given.
const (
	// DefaultJWTLife is how long a JWT-SVID is good.
	DefaultJWTLife = 5 * time.Minute
	// DefaultJWTKeyLife is how long one key signs JWT-SVIDs.
	DefaultJWTKeyLife = 7 * 24 * time.Hour
	// DefaultStale is how long who signs may go by what it read.
	DefaultStale = 10 * time.Second
)

// DomainsConfig says where the CAs of Domains are.
type DomainsConfig struct {
	// Vault holds them; that of the CA of the control plane is a good place.
	Vault Vault
	// External is a directory with CAs that were made elsewhere, one directory
	// for each Domain that has one; "": none.
	External string
	// Lifetimes; 0 means the default.
	RootLife, IssuingLife, JWTLife, JWTKeyLife time.Duration
	// Stale is how long who signs may go by what it read last. A root that was
	// retired may still sign for that long, so it is trusted that much longer.
	Stale time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Domains are the CAs of Domains. Several processes may have the same Vault
// open: one at a time should call Keep, all may sign.
type Domains struct {
	cfg DomainsConfig

	mu    sync.Mutex
	known map[string]read // by Domain
}

// read is what was read of one file, and when.
type read struct {
	*authority
	revision int64
	at       time.Time
}

// NewDomains checks the configuration.
func NewDomains(cfg DomainsConfig) (*Domains, error) {
	if cfg.Vault == nil {
		return nil, errors.New("identity: Vault is not set; say where the CAs of Domains live")
	}
	for _, f := range []struct {
		life *time.Duration
		def  time.Duration
	}{{&cfg.RootLife, DefaultRootLife}, {&cfg.IssuingLife, DefaultIssuingLife}, {&cfg.JWTLife, DefaultJWTLife}, {&cfg.JWTKeyLife, DefaultJWTKeyLife}, {&cfg.Stale, DefaultStale}} {
		*f.life = cmp.Or(*f.life, f.def)
		if *f.life <= 0 {
			return nil, fmt.Errorf("identity: a lifetime of %s is not positive", *f.life)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Domains{cfg: cfg, known: map[string]read{}}, nil
}

// domainPrefix begins the names of their files.
const domainPrefix = "domain-"

func domainFile(domain string) string { return domainPrefix + domain + ".json" }

// List names the Domains that have a CA.
func (d *Domains) List() ([]string, error) {
	files, err := d.cfg.Vault.List(domainPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the CAs of Domains: %w", err)
	}
	out := make([]string, 0, len(files))
	for _, f := range files {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(f, domainPrefix), ".json"); ok {
			out = append(out, name)
		}
	}
	return out, nil
}

// Forget removes the CA of a Domain that is no more.
func (d *Domains) Forget(domain string) error {
	_, err := d.cfg.Vault.Write(nil, map[string][]byte{domainFile(domain): nil})
	if err != nil {
		return fmt.Errorf("remove the CA of Domain %s: %w", domain, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, domain)
	return nil
}

// load reads the CA of a Domain from the Vault; nil: there is none.
func (d *Domains) load(domain string) (read, error) {
	file, at := domainFile(domain), d.cfg.Now()
	b, revision, err := d.cfg.Vault.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		d.remember(domain, read{})
		return read{}, nil
	}
	if err != nil {
		return read{}, fmt.Errorf("read the CA of Domain %s: %w", domain, err)
	}
	d.mu.Lock()
	have := d.known[domain]
	d.mu.Unlock()
	if have.authority == nil || have.revision != revision {
		if have.authority, err = decodeAuthority(b); err != nil {
			return read{}, fmt.Errorf("the CA of Domain %s in %s: %w", domain, d.cfg.Vault.Place(file), err)
		}
	}
	have.revision, have.at = revision, at
	d.remember(domain, have)
	return have, nil
}

func (d *Domains) remember(domain string, r read) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.authority == nil {
		delete(d.known, domain)
		return
	}
	d.known[domain] = r
}

// fresh is the CA of a Domain as it was no longer than Stale ago. It must not be
// changed.
func (d *Domains) fresh(domain string) (*authority, error) {
	d.mu.Lock()
	have := d.known[domain]
	d.mu.Unlock()
	if age := d.cfg.Now().Sub(have.at); have.authority != nil && age >= 0 && age < d.cfg.Stale/2 {
		return have.authority, nil
	}
	now, err := d.load(domain)
	if err != nil {
		if have.authority != nil && d.cfg.Now().Sub(have.at) < d.cfg.Stale {
			return have.authority, nil
		}
		return nil, err
	}
	if now.authority == nil {
		return nil, fmt.Errorf("there is no CA of Domain %s yet; the control plane makes it within seconds", domain)
	}
	return now.authority, nil
}

// Public is what others may know of the CA of a Domain.
type Public struct {
	TrustDomain string
	// Roots that are trusted now, DER, sorted.
	Roots [][]byte
	// Keys that JWT-SVIDs are signed with: a JWK set.
	Keys  []byte
	Phase Phase
	Since time.Time
	// States of Roots, in their order.
	States []RootState
}

// RootState says what one root is for.
type RootState struct {
	Fingerprint string // SHA-256 in hex
	// State: next, signs or retired.
	State    string
	External bool
	NotAfter time.Time
	Until    time.Time // when a retired one goes
}

// Public reads what is known of the CA of a Domain; nil: it has none.
func (d *Domains) Public(domain string) (*Public, error) {
	r, err := d.load(domain)
	if err != nil || r.authority == nil {
		return nil, err
	}
	return r.public()
}
