package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// tokenKey signs JWT-SVIDs.
type tokenKey struct {
	ID  string `json:"id"`
	Key []byte `json:"key"` // PKCS #8
	// From is when it begins to sign; zero: with the next root.
	From time.Time `json:"from,omitzero"`
}

func newTokenKey(from time.Time) (tokenKey, error) {
	key, err := newKey()
	if err != nil {
		return tokenKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tokenKey{}, err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return tokenKey{}, err
	}
	sum := sha256.Sum256(public)
	return tokenKey{ID: hex.EncodeToString(sum[:8]), Key: der, From: from}, nil
}

// announceKeys: a key is known for that part of its life before it signs.
const announceKeys = 7

// keepKeys makes the next key in time for everybody to know it, and forgets
// those of which nothing is alive.
func (s *step) keepKeys(a *authority) (bool, error) {
	signing := signingKey(a.Keys, s.now)
	n := len(a.Keys)
	gone := s.d.cfg.JWTLife + s.d.cfg.Stale + min(maxSkew, s.d.cfg.JWTLife)
	if s.w.Order == Drop {
		gone = 0
	}
	if signing > 0 && s.now.Sub(a.Keys[signing].From) >= gone {
		a.Keys = slices.Delete(a.Keys, 0, signing)
	}
	ahead := s.d.cfg.JWTKeyLife / announceKeys
	last := a.Keys[len(a.Keys)-1]
	if last.From.IsZero() || s.now.Before(last.From.Add(s.d.cfg.JWTKeyLife-ahead)) {
		return len(a.Keys) != n, nil
	}
	next, err := newTokenKey(latest(s.now, last.From.Add(s.d.cfg.JWTKeyLife-ahead)).Add(ahead))
	if err != nil {
		return len(a.Keys) != n, err
	}
	a.Keys = append(a.Keys, next)
	return true, nil
}

// signingKey is the index of the key that signs: the last that has begun.
func signingKey(keys []tokenKey, now time.Time) int {
	for i := len(keys) - 1; i > 0; i-- {
		if !keys[i].From.IsZero() && !now.Before(keys[i].From) {
			return i
		}
	}
	return 0
}

// jwks is a JWK set of ECDSA keys.
type jwks struct {
	Keys []jwkEC `json:"keys"`
}

type jwkEC struct {
	Type  string `json:"kty"`
	Use   string `json:"use"`
	ID    string `json:"kid"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
}

// keySet is the public half of the keys, in their order.
func keySet(keys []tokenKey) ([]byte, error) {
	set := jwks{Keys: []jwkEC{}}
	for _, k := range keys {
		signer, err := parseSigner(k.Key)
		if err != nil {
			return nil, err
		}
		public, ok := signer.Public().(*ecdsa.PublicKey)
		if !ok {
			return nil, errors.New("a key of tokens is not an ECDSA key")
		}
		point, err := public.Bytes() // 4, X, Y
		if err != nil {
			return nil, err
		}
		half := len(point) / 2
		set.Keys = append(set.Keys, jwkEC{Type: "EC", Use: "jwt-svid", ID: k.ID, Curve: "P-256", X: base64url(point[1 : 1+half]), Y: base64url(point[1+half:])})
	}
	return json.Marshal(set)
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Bounds of the audiences of a JWT-SVID.
const (
	maxAudiences = 16
	maxAudience  = 1024 // bytes
)

// SignJWT makes a JWT-SVID for an identity of the Domain. The caller must have
// made sure that the requester may have that identity.
func (d *Domains) SignJWT(domain, spiffe string, audiences []string) (token string, from, until time.Time, err error) {
	if len(audiences) == 0 || len(audiences) > maxAudiences || slices.ContainsFunc(audiences, func(a string) bool { return a == "" || len(a) > maxAudience }) {
		return "", from, until, fmt.Errorf("a JWT-SVID has 1 to %d audiences of 1 to %d bytes", maxAudiences, maxAudience)
	}
	a, err := d.fresh(domain)
	if err != nil {
		return "", from, until, err
	}
	if err := a.owns(spiffe); err != nil {
		return "", from, until, err
	}
	from = d.cfg.Now().Truncate(time.Second)
	until = from.Add(d.cfg.JWTLife)
	token, err = signJWT(a.Keys[signingKey(a.Keys, from)], map[string]any{"sub": spiffe, "aud": audiences, "iat": from.Unix(), "exp": until.Unix()})
	return token, from, until, err
}

// signJWT is the compact form of RFC 7515 with ES256.
func signJWT(k tokenKey, claims any) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": "ES256", "kid": k.ID, "typ": "JWT"})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signer, err := parseSigner(k.Key)
	if err != nil {
		return "", err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return "", errors.New("the key of tokens is not an ECDSA key")
	}
	text := base64url(header) + "." + base64url(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	const size = 32 // of a number on P-256
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return text + "." + base64url(signature), nil
}
