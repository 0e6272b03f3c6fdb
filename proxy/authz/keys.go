package authz

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"moire.dev/moire/snapshot/l7"
)

// Bounds of a JWK set.
const (
	maxSet  = 512 << 10 // bytes
	maxKeys = 128       // in one set
	// maxTries is how many keys are tried for one token, where it does not say
	// which.
	maxTries = 4
	// minRSA and maxRSA bits of a modulus: less is weak, more costs too much.
	minRSA, maxRSA = 2048, 8192
)

// Keys are the JWK sets of a configuration, ready to verify. It never changes.
type Keys struct {
	sets map[string]set // by URI
}

// set is a JWK set and until when it is believed.
type set struct {
	*content
	until int64 // seconds since 1970; 0: for ever
}

// content of a JWK set. What it verified stays verified while it stays the same.
type content struct {
	json string
	keys []key
}

// key is one public key and what it may verify.
type key struct {
	id         string
	algorithms []jose.SignatureAlgorithm
	public     any
}

// NewKeys makes sets ready, with those of old that did not change. A set that
// cannot be used is left out, so that what needs it is closed; the error says
// which ones and why, and the Keys are good all the same.
func NewKeys(sets []l7.KeySet, old *Keys) (*Keys, error) {
	out := &Keys{sets: make(map[string]set, len(sets))}
	var errs []error
	for _, s := range sets {
		if old != nil && old.sets[s.URI].content != nil && old.sets[s.URI].json == s.JSON {
			out.sets[s.URI] = set{old.sets[s.URI].content, s.Until}
			continue
		}
		if s.JSON == "" { // not fetched yet
			continue
		}
		c, err := read(s.JSON)
		if err != nil {
			errs = append(errs, fmt.Errorf("key set %s: %w; what needs it is refused", s.URI, err))
		}
		if c != nil {
			out.sets[s.URI] = set{c, s.Until}
		}
	}
	return out, errors.Join(errs...)
}

// find is the set of a URI, if it may still be believed.
func (k *Keys) find(uri string, now int64) (*content, bool) {
	if k == nil {
		return nil, false
	}
	s, ok := k.sets[uri]
	if !ok || s.until != 0 && now >= s.until {
		return nil, false
	}
	return s.content, true
}

// read makes a JWK set ready. Keys that we have no use for are left out, as RFC
// 7517 wants it; a set without any that is of use is an error.
func read(text string) (out *content, err error) {
	defer survive(&err)
	if len(text) > maxSet {
		return nil, fmt.Errorf("%d bytes are more than the %d of a JWK set", len(text), maxSet)
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := decode([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("not a JWK set: %w", err)
	}
	if len(raw.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys are more than the %d of a JWK set", len(raw.Keys), maxKeys)
	}
	out = &content{json: text}
	var errs []error
	for i, r := range raw.Keys {
		k, err := readKey(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		out.keys = append(out.keys, k)
	}
	if len(out.keys) == 0 {
		return nil, fmt.Errorf("no key in it can verify tokens: %w", errors.Join(errs...))
	}
	return out, nil
}

// survive makes an error of a panic: who sends bytes that a library stumbles over
// must not end the proxy of all others.
func survive(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("it cannot be read: %v", v)
	}
}

// jwk are the members of a JWK that are read. Certificates beside the key say
// nothing that we ask, and are often not as they should be.
type jwk struct {
	Type       string   `json:"kty"`
	ID         string   `json:"kid,omitempty"`
	Use        string   `json:"use,omitempty"`
	Operations []string `json:"key_ops,omitempty"`
	Algorithm  string   `json:"alg,omitempty"`
	Curve      string   `json:"crv,omitempty"`
	N          string   `json:"n,omitempty"`
	E          string   `json:"e,omitempty"`
	X          string   `json:"x,omitempty"`
	Y          string   `json:"y,omitempty"`
	Private    string   `json:"d,omitempty"`
}

// readKey reads one JWK.
func readKey(raw []byte) (key, error) {
	var members jwk
	if err := json.Unmarshal(raw, &members); err != nil {
		return key{}, err
	}
	switch {
	case members.Private != "":
		return key{}, errors.New("it is a private key, which anybody could have taken")
	case members.Use != "" && members.Use != "sig", len(members.Operations) > 0 && !slices.Contains(members.Operations, "verify"):
		return key{}, errors.New("it is not for signatures")
	}
	public, err := json.Marshal(members)
	if err != nil {
		return key{}, err
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(public); err != nil {
		return key{}, err
	}
	if !k.IsPublic() {
		return key{}, errors.New("it is not a public key")
	}
	algorithms, err := algorithmsOf(k.Key)
	if err != nil {
		return key{}, err
	}
	if k.Algorithm != "" {
		a := jose.SignatureAlgorithm(k.Algorithm)
		if !slices.Contains(algorithms, a) {
			return key{}, fmt.Errorf("algorithm %s is not for keys of its type", k.Algorithm)
		}
		algorithms = []jose.SignatureAlgorithm{a}
	}
	return key{id: k.KeyID, algorithms: algorithms, public: k.Key}, nil
}

// accepted are the algorithms of tokens that are looked at; none is not among
// them, nor is any with a shared secret.
var accepted = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// algorithmsOf says what a key may verify.
func algorithmsOf(public any) ([]jose.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("an RSA key of %d bits is not one of %d to %d", n, minRSA, maxRSA)
		}
		return accepted[:6], nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return accepted[6:7], nil
		case elliptic.P384():
			return accepted[7:8], nil
		case elliptic.P521():
			return accepted[8:9], nil
		}
	case ed25519.PublicKey:
		return accepted[9:], nil
	}
	return nil, errors.New("keys of its type are not used")
}

// fitting are the keys that may have signed a token with this header.
func (c *content) fitting(id string, algorithm jose.SignatureAlgorithm) []key {
	var out []key
	for _, k := range c.keys {
		if (id == "" || k.id == id) && slices.Contains(k.algorithms, algorithm) && len(out) < maxTries {
			out = append(out, k)
		}
	}
	return out
}
