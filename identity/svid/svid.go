package svid

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"
)

// SVID is an X.509-SVID with its key. It is never changed.
type SVID struct {
	// ID is spiffe://<trust domain>/...
	ID string
	// Chain in DER, leaf first, without the root.
	Chain [][]byte
	Leaf  *x509.Certificate
	Key   *ecdsa.PrivateKey
	// ChainPEM and KeyPEM are the same for who reads PEM.
	ChainPEM, KeyPEM string

	renew time.Time // half of its life is over, more or less
}

// Kinds of PEM blocks.
const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

// maxChain bounds the certificates of an SVID.
const maxChain = 16

// newRequest makes a key and the PKCS #10 request for it.
func newRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

// newSVID checks that a chain is what was asked for.
func newSVID(id string, key *ecdsa.PrivateKey, chain [][]byte, now time.Time) (*SVID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("a chain of %d certificates", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("a certificate that cannot be read: %w", err)
	case !key.PublicKey.Equal(leaf.PublicKey):
		return nil, errors.New("a certificate for another key")
	case len(leaf.URIs) != 1 || leaf.URIs[0].String() != id || leaf.IsCA:
		return nil, fmt.Errorf("a certificate that is not one of %s", id)
	case !now.Before(leaf.NotAfter):
		return nil, fmt.Errorf("a certificate that ended at %s; compare the clocks", leaf.NotAfter)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	s := &SVID{ID: id, Chain: chain, Leaf: leaf, Key: key, KeyPEM: string(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))}
	var text bytes.Buffer
	for _, c := range chain {
		if err := pem.Encode(&text, &pem.Block{Type: pemCert, Bytes: c}); err != nil {
			return nil, err
		}
	}
	s.ChainPEM = text.String()
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	s.renew = leaf.NotBefore.Add(life/2 - life/20 + mathrand.N(life/10+1))
	return s, nil
}

// encode is the file of an SVID.
func (s *SVID) encode() []byte { return []byte(s.KeyPEM + s.ChainPEM) }

// decode reads the file of an SVID. Errors never repeat its content.
func decode(b []byte, now time.Time) (*SVID, error) {
	var key *ecdsa.PrivateKey
	var chain [][]byte
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		switch block.Type {
		case pemCert:
			chain = append(chain, block.Bytes)
		case pemKey:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("its key is damaged")
			}
			key, _ = k.(*ecdsa.PrivateKey)
		}
	}
	if key == nil || len(chain) == 0 {
		return nil, errors.New("it is damaged")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil || len(leaf.URIs) != 1 {
		return nil, errors.New("its certificate is damaged")
	}
	return newSVID(leaf.URIs[0].String(), key, chain, now)
}

// from reports whether the SVID comes from one of the roots.
func (s *SVID) from(roots *x509.CertPool, now time.Time) bool {
	between := x509.NewCertPool()
	for _, der := range s.Chain[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err := s.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// Set is the SVIDs of one moment. It is never changed.
type Set struct{ by map[string]*SVID }

// Get returns the SVID of an identity; nil: there is none.
func (s *Set) Get(id string) *SVID { return s.by[id] }

// All is every SVID by identity. It must not be changed.
func (s *Set) All() map[string]*SVID { return s.by }
