package v1alpha1

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Bundle is what a trust domain must be known by.
//
// +kubebuilder:object:generate=false
type Bundle struct {
	// Roots, DER, sorted, each once.
	Roots [][]byte
	// Keys that sign JWT-SVIDs: a JWK set, or nil.
	Keys []byte
}

// Limits of a Bundle, as nodes take it.
const (
	maxRoots     = 16
	maxRootBytes = 16 << 10
)

// Uses of a key in a SPIFFE bundle.
const (
	useX509 = "x509-svid"
	useJWT  = "jwt-svid"
)

// jwk is what has to be read of a JSON Web Key.
type jwk struct {
	Use   string   `json:"use"`
	Type  string   `json:"kty"`
	ID    string   `json:"kid"`
	Chain []string `json:"x5c"`
	// Private is there in a key that nobody should give away.
	Private string `json:"d"`
}

// spiffeBundle is a SPIFFE bundle: a JWK set with two more fields.
type spiffeBundle struct {
	Keys        []json.RawMessage `json:"keys"`
	Sequence    uint64            `json:"spiffe_sequence,omitempty"`
	RefreshHint int64             `json:"spiffe_refresh_hint,omitempty"`
}

// ParseBundle reads certificates of CAs as PEM, or a SPIFFE bundle as JSON.
func ParseBundle(text string) (Bundle, error) {
	var b Bundle
	var err error
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		err = b.readJSON([]byte(text))
	} else {
		err = b.readPEM([]byte(text))
	}
	if err != nil {
		return Bundle{}, err
	}
	if len(b.Roots) == 0 && b.Keys == nil {
		return Bundle{}, errors.New("it has neither a certificate nor a key")
	}
	if len(b.Roots) > maxRoots {
		return Bundle{}, fmt.Errorf("it has %d certificates; at most %d", len(b.Roots), maxRoots)
	}
	slices.SortFunc(b.Roots, bytes.Compare)
	b.Roots = slices.CompactFunc(b.Roots, bytes.Equal)
	return b, nil
}

func (b *Bundle) readPEM(text []byte) error {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			if len(bytes.TrimSpace(text)) > 0 {
				return errors.New("it is neither PEM nor a SPIFFE bundle as JSON")
			}
			return nil
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("it has a block %q; want only CERTIFICATE", block.Type)
		}
		if err := b.addRoot(block.Bytes); err != nil {
			return err
		}
	}
}

func (b *Bundle) addRoot(der []byte) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("certificate %d: %w", len(b.Roots), err)
	}
	if !c.IsCA {
		return fmt.Errorf("certificate %d (%s) is not that of a CA", len(b.Roots), c.Subject)
	}
	if len(der) > maxRootBytes {
		return fmt.Errorf("certificate %d has %d bytes; at most %d", len(b.Roots), len(der), maxRootBytes)
	}
	b.Roots = append(b.Roots, der)
	return nil
}

func (b *Bundle) readJSON(text []byte) error {
	var in spiffeBundle
	if err := json.Unmarshal(text, &in); err != nil {
		return fmt.Errorf("it is no SPIFFE bundle: %w", err)
	}
	keys := spiffeBundle{}
	for i, raw := range in.Keys {
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		switch {
		case k.Private != "":
			return fmt.Errorf("key %d is a private key, which must never be given away", i)
		case k.Use == useX509:
			if len(k.Chain) != 1 {
				return fmt.Errorf("key %d: x5c has %d certificates; want one", i, len(k.Chain))
			}
			der, err := base64.StdEncoding.DecodeString(k.Chain[0])
			if err != nil {
				return fmt.Errorf("key %d: x5c: %w", i, err)
			}
			if err := b.addRoot(der); err != nil {
				return fmt.Errorf("key %d: %w", i, err)
			}
		case k.Use == useJWT && (k.ID == "" || k.Type == ""):
			return fmt.Errorf("key %d has no kid or no kty", i)
		case k.Use == useJWT:
			keys.Keys = append(keys.Keys, raw)
		} // of other uses nobody here knows anything, and the standard says to pass over them
	}
	if len(keys.Keys) == 0 {
		return nil
	}
	var err error
	b.Keys, err = json.Marshal(keys)
	return err
}

// JSON is the SPIFFE bundle.
func (b Bundle) JSON() ([]byte, error) {
	var out spiffeBundle
	for _, der := range b.Roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		key, err := publicJWK(c.PublicKey)
		if err != nil {
			return nil, err
		}
		key["use"], key["x5c"] = useX509, []string{base64.StdEncoding.EncodeToString(der)}
		raw, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, raw)
	}
	if b.Keys != nil {
		var set spiffeBundle
		if err := json.Unmarshal(b.Keys, &set); err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, set.Keys...)
	}
	return json.MarshalIndent(out, "", "  ")
}

// PEM are the roots.
func (b Bundle) PEM() []byte {
	var out []byte
	for _, der := range b.Roots {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// publicJWK is the fields of a public key in a JWK (RFC 7518, RFC 8037).
func publicJWK(public any) (map[string]any, error) {
	text := base64.RawURLEncoding.EncodeToString
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil, err
		}
		point = point[1:] // 4: uncompressed
		half := len(point) / 2
		return map[string]any{"kty": "EC", "crv": k.Params().Name, "x": text(point[:half]), "y": text(point[half:])}, nil
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "n": text(k.N.Bytes()), "e": text(big.NewInt(int64(k.E)).Bytes())}, nil
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": text(k)}, nil
	}
	return nil, fmt.Errorf("a key of the kind %T cannot be in a SPIFFE bundle", public)
}
