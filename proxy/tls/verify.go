package tls

import (
	"crypto/sha256"
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Trust is a bundle of CAs. It is immutable.
type Trust struct {
	pool *x509.CertPool // nil: the machine's
	// version differs when the bundle does.
	version [32]byte
}

// NewTrust reads a PEM bundle; empty: the machine's CAs.
func NewTrust(pem string) (*Trust, error) {
	t := &Trust{version: sha256.Sum256([]byte(pem))}
	if pem == "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("the machine's CAs: %w; set ca", err)
		}
		t.pool = pool
		return t, nil
	}
	t.pool = x509.NewCertPool()
	if !t.pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("no certificate in the CA bundle; it must be PEM with at least one CERTIFICATE block")
	}
	return t, nil
}

// peer says which certificates of a peer are good.
type peer struct {
	trust    *Trust
	usage    x509.ExtKeyUsage
	allowed  []string // URIs, one of which the certificate must have; empty: any
	optional bool     // no certificate is good as well
	// name: the certificate has to be that of this host, as browsers check it;
	// empty: it says who the peer is by its URI, which is stricter.
	name  string
	known *Verified
	now   func() time.Time // nil: time.Now
}

// check is stdtls.Config.VerifyConnection. It runs for resumed connections too,
// so what was trusted before and is no more is refused.
func (p *peer) check(state stdtls.ConnectionState) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		if p.optional {
			return nil
		}
		return errors.New("the peer has no certificate")
	}
	now := time.Now()
	if p.now != nil {
		now = p.now()
	}
	key := p.key(chain)
	found, ok := p.known.get(key, now)
	if !ok {
		var err error
		if found, err = p.verify(chain, now); err != nil {
			return err
		}
		p.known.put(key, found, now)
	}
	if !p.strict() {
		if err := chain[0].VerifyHostname(p.name); err != nil {
			return err
		}
	}
	if len(p.allowed) == 0 {
		return nil
	}
	if len(found.uris) != 1 {
		return fmt.Errorf("the peer's certificate has %d URIs; exactly one is its identity", len(found.uris))
	}
	if !slices.Contains(p.allowed, found.uris[0]) {
		return fmt.Errorf("the peer is %q, which is not allowed here", found.uris[0])
	}
	return nil
}

// key is of what verify decides by: the chain as it was sent, and whom to trust
// for what.
func (p *peer) key(chain []*x509.Certificate) (key [32]byte) {
	h := sha256.New()
	h.Write(p.trust.version[:])
	strict := byte(0)
	if p.strict() {
		strict = 1
	}
	h.Write([]byte{byte(p.usage), strict})
	var size [4]byte
	for _, c := range chain {
		binary.BigEndian.PutUint32(size[:], uint32(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	h.Sum(key[:0])
	return key
}

// strict: the certificate says who the peer is, so it has to be made for that.
func (p *peer) strict() bool { return p.name == "" }

func (p *peer) verify(chain []*x509.Certificate, now time.Time) (verified, error) {
	leaf := chain[0]
	if p.strict() {
		if err := p.strictly(leaf); err != nil {
			return verified{}, err
		}
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots: p.trust.pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{p.usage},
	})
	if err != nil {
		return verified{}, err
	}
	v := verified{leaf: leaf}
	// Good until the path that lasts longest ends.
	for _, path := range paths {
		until := path[0].NotAfter
		for _, c := range path[1:] {
			if c.NotAfter.Before(until) {
				until = c.NotAfter
			}
		}
		if until.After(v.until) {
			v.until = until
		}
	}
	// Who is believed by name may have any other names.
	if v.uris, err = uris(leaf); err != nil && p.strict() {
		return verified{}, err
	}
	return v, nil
}

// strictly checks what Verify is lenient about.
func (p *peer) strictly(leaf *x509.Certificate) error {
	switch {
	case leaf.IsCA:
		return errors.New("the peer's certificate is that of a CA")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("the peer's certificate may sign others")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("the peer's certificate may not sign")
	case !slices.Contains(leaf.ExtKeyUsage, p.usage):
		return errors.New("the peer's certificate does not say that it is for this use (extended key usage)")
	}
	return nil
}

// Identity is the URI of a peer's certificate, byte for byte; empty when there
// is none, or more than one, or a name that nothing here understands. The
// certificate was verified by its handshake.
func Identity(cert *x509.Certificate) string {
	if all, err := uris(cert); err == nil && len(all) == 1 {
		return all[0]
	}
	return ""
}
