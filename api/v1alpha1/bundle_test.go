package v1alpha1

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
)

func certificate(t *testing.T, key crypto.Signer, ca bool) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestBundle: what is written can be read back, as PEM and as JSON, with keys of
// every kind.
func TestBundle(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, k := range []crypto.Signer{ec, rsaKey, ed, ec} {
		text.Write(Bundle{Roots: [][]byte{certificate(t, k, true)}}.PEM())
	}
	b, err := ParseBundle(text.String())
	if err != nil || len(b.Roots) != 4 {
		t.Fatalf("%d roots, %v", len(b.Roots), err)
	}
	b.Keys = []byte(`{"keys":[{"kty":"EC","kid":"a","use":"jwt-svid","crv":"P-256","x":"x","y":"y"}]}`)
	doc, err := b.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseBundle(string(doc))
	if err != nil || !reflect.DeepEqual(again.Roots, b.Roots) || !strings.Contains(string(again.Keys), `"kid":"a"`) {
		t.Errorf("got %+v, %v", again, err)
	}
	leaf := string(Bundle{Roots: [][]byte{certificate(t, ec, false)}}.PEM())
	for bad, want := range map[string]string{
		"":        "neither a certificate nor a key",
		"rubbish": "neither PEM nor",
		leaf:      "is not that of a CA",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n":  `a block "PRIVATE KEY"`,
		`{"keys":[{"use":"jwt-svid","kty":"EC","kid":"a","d":"secret"}]}`: "private key",
		`{"keys":[{"use":"jwt-svid","kty":"EC"}]}`:                        "no kid",
		`{"keys":[{"use":"x509-svid","kty":"EC"}]}`:                       "x5c has 0 certificates",
		`{"keys":[{"use":"x509-svid","kty":"EC","x5c":["not base64"]}]}`:  "x5c",
		`{"keys":[{"use":"something new"}]}`:                              "neither a certificate nor a key",
		`{"keys":3}`:                                                      "no SPIFFE bundle",
	} {
		if _, err := ParseBundle(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", bad, err, want)
		}
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add(`{"keys":[{"use":"x509-svid","kty":"EC","x5c":["AAAA"]}]}`)
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBundle(text)
		if err == nil && len(b.Roots) == 0 && b.Keys == nil {
			t.Error("nothing was read, and nothing is wrong")
		}
	})
}
