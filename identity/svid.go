package identity

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// svidUsages: a Workload is called, and calls.
var svidUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// SignSVID turns a certificate request (PKCS #10, DER) into an X.509-SVID for an
// identity of the Domain: leaf first, without the root. Only the public key of
// the request counts; the caller must have made sure that the requester may
// have that identity.
func (d *Domains) SignSVID(domain, spiffe string, csr []byte) ([][]byte, error) {
	a, err := d.fresh(domain)
	if err != nil {
		return nil, err
	}
	if err := a.owns(spiffe); err != nil {
		return nil, err
	}
	pub, err := requestedKey(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request for %s: %w", spiffe, err)
	}
	return d.certifySVID(a, spiffe, pub)
}

// maxSPIFFE is the most bytes of a SPIFFE ID.
const maxSPIFFE = 2048

// spiffePath is the path of a SPIFFE ID, as the standard says.
var spiffePath = regexp.MustCompile(`^(/[a-zA-Z0-9._-]+)+$`)

// owns says why the CA cannot vouch for an identity.
func (a *authority) owns(spiffe string) error {
	path, ours := strings.CutPrefix(spiffe, "spiffe://"+a.TrustDomain)
	if !ours || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is not of the trust domain %s", spiffe, a.TrustDomain)
	}
	if len(spiffe) > maxSPIFFE || !spiffePath.MatchString(path) || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../") {
		return fmt.Errorf("%.100q is not a SPIFFE ID", spiffe)
	}
	return nil
}

func (d *Domains) certifySVID(a *authority, spiffe string, pub crypto.PublicKey) ([][]byte, error) {
	id, err := url.Parse(spiffe)
	if err != nil {
		return nil, err
	}
	issuing, err := x509.ParseCertificate(a.Signs.Chain[0])
	if err != nil {
		return nil, err
	}
	key, err := parseSigner(a.Signs.IssuingKey)
	if err != nil {
		return nil, err
	}
	leaf, err := certify(d.cfg.Now(), &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: svidUsages,
		URIs:        []*url.URL{id},
	}, a.Life, pub, issuing, key)
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", spiffe, err)
	}
	return append([][]byte{leaf.Raw}, a.Signs.Chain...), nil
}
