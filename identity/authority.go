package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// Phase of the CA of a Domain.
type Phase string

// Phases, in the order in which a rotation goes through them.
const (
	// Steady: there is one root.
	Steady Phase = "Steady"
	// Announced: the next root is being made known everywhere, and does not sign
	// yet.
	Announced Phase = "Announced"
	// Switched: the next root signs. The former one is trusted until nothing that
	// it signed can be alive.
	Switched Phase = "Switched"
)

// authority is the CA of one Domain as the Vault keeps it: one file, so that
// every step is one write, and whoever reads it can go on.
type authority struct {
	// UID and TrustDomain of the Domain: another one of the same name is another
	// tenant, and gets another CA.
	UID         string    `json:"uid"`
	TrustDomain string    `json:"trustDomain"`
	Phase       Phase     `json:"phase"`
	Since       time.Time `json:"since"`
	// Asked is the wish for a rotation that was heard last.
	Asked string `json:"asked,omitempty"`
	// Life of what is signed now. What was signed with a longer one ends by
	// Longest.
	Life    time.Duration `json:"life"`
	Longest time.Time     `json:"longest,omitzero"`
	Signs   signer        `json:"signs"`
	Next    *signer       `json:"next,omitempty"`
	Retired []retired     `json:"retired,omitempty"`
	Keys    []tokenKey    `json:"keys"`
}

// signer is one root with the issuing certificate below it.
type signer struct {
	// Roots that others must trust to believe what it signs, DER.
	Roots [][]byte `json:"roots"`
	// Key of the first of Roots, PKCS #8; none when it is external.
	Key []byte `json:"key,omitempty"`
	// External is a hash of the files that it was read from; "": it was made here.
	External string `json:"external,omitempty"`
	// Chain begins with the issuing certificate and ends below the root.
	Chain      [][]byte `json:"chain"`
	IssuingKey []byte   `json:"issuingKey"`
}

// retired are roots that sign no more.
type retired struct {
	Roots [][]byte `json:"roots"`
	// Until: nothing that they signed is alive then.
	Until time.Time `json:"until"`
}

func (a *authority) encode() ([]byte, error) { return json.Marshal(a) }

// decodeAuthority reads the file of a CA. Errors never repeat its content.
func decodeAuthority(b []byte) (*authority, error) {
	a := &authority{}
	if err := json.Unmarshal(b, a); err != nil {
		return nil, errors.New("it is damaged; restore it from a backup")
	}
	if len(a.Signs.Roots) == 0 || len(a.Signs.Chain) == 0 || len(a.Keys) == 0 || a.Life <= 0 {
		return nil, errors.New("it is not whole; restore it from a backup")
	}
	return a, nil
}

// roots are all that are trusted now, sorted, each once.
func (a *authority) roots() [][]byte {
	all := slices.Clone(a.Signs.Roots)
	if a.Next != nil {
		all = append(all, a.Next.Roots...)
	}
	for _, r := range a.Retired {
		all = append(all, r.Roots...)
	}
	slices.SortFunc(all, bytes.Compare)
	return slices.CompactFunc(all, bytes.Equal)
}

// spiffeAuthority names an authority certificate: by the trust domain alone.
func spiffeAuthority(t *x509.Certificate, trustDomain string) *x509.Certificate {
	t.URIs = []*url.URL{{Scheme: "spiffe", Host: trustDomain}}
	return t
}

// newSigner makes a root and the issuing certificate below it.
func (d *Domains) newSigner(trustDomain string) (*signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	root, err := certify(d.cfg.Now(), spiffeAuthority(authorityOf(trustDomain+" root", 1), trustDomain), d.cfg.RootLife, key.Public(), nil, key)
	if err != nil {
		return nil, err
	}
	s := &signer{Roots: [][]byte{root.Raw}}
	if s.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return s, d.issue(s, trustDomain, root, nil, key)
}

// issue puts a new issuing certificate below parent, which is the root, or
// below it with between.
func (d *Domains) issue(s *signer, trustDomain string, parent *x509.Certificate, between [][]byte, parentKey crypto.Signer) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	cert, err := certify(d.cfg.Now(), spiffeAuthority(authorityOf(trustDomain+" issuing", 0), trustDomain), d.cfg.IssuingLife, key.Public(), parent, parentKey)
	if err != nil {
		return err
	}
	if s.IssuingKey, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	s.Chain = append([][]byte{cert.Raw}, between...)
	return nil
}

// renew replaces the issuing certificate at half of its life. It needs the key
// of the root; e is the external CA that is there now, or nil.
func (d *Domains) renew(s *signer, trustDomain string, e *external) (changed bool, err error) {
	issuing, err := x509.ParseCertificate(s.Chain[0])
	if err != nil {
		return false, err
	}
	if d.cfg.Now().Before(halfway(issuing)) {
		return false, nil
	}
	if s.External == "" {
		key, err := parseSigner(s.Key)
		if err != nil {
			return false, err
		}
		root, err := x509.ParseCertificate(s.Roots[0])
		if err != nil {
			return false, err
		}
		return true, d.issue(s, trustDomain, root, nil, key)
	}
	switch ends := issuing.NotAfter.UTC().Format(time.RFC3339); {
	case e == nil || e.hash != s.External:
		return false, fmt.Errorf("the issuing certificate ends at %s, and the external CA that signed it is not here; bring its files back", ends)
	case e.direct:
		return false, fmt.Errorf("the external CA ends at %s; give another one", ends)
	}
	return true, d.below(s, e, trustDomain)
}
