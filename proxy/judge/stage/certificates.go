package stage

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Names that the server's certificate is for; they all mean 127.0.0.1.
var Names = []string{"localhost", "a.test", "b.test", "hop.test"}

// Caller is the URI SAN of the client's certificate.
const Caller = "spiffe://test/judge"

// PKI is one authority and what it issued, as files.
type PKI struct {
	CA                     string // bundle
	Chain, Key             string // of the server, for Names
	ClientChain, ClientKey string // of a caller named Caller
	Strange, StrangeKey    string // of a caller whom CA does not know
}

// newPKI makes an authority and its certificates, of ECDSA P-256, under dir.
func newPKI(dir string) (PKI, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	p := PKI{CA: at("ca.pem"), Chain: at("server.pem"), Key: at("server.key"), ClientChain: at("client.pem"), ClientKey: at("client.key"),
		Strange: at("strange.pem"), StrangeKey: at("strange.key")}
	ca, err := newAuthority("Judges")
	if err != nil {
		return p, err
	}
	other, err := newAuthority("Strangers")
	if err != nil {
		return p, err
	}
	server := &x509.Certificate{DNSNames: Names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	caller := &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "test", Path: "/judge"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	return p, errors.Join(
		os.WriteFile(p.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}), 0o600),
		ca.issue(server, p.Chain, p.Key), ca.issue(caller, p.ClientChain, p.ClientKey), other.issue(caller, p.Strange, p.StrangeKey))
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(120 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	c, err := x509.ParseCertificate(der)
	return authority{c, key}, err
}

// issue signs what t says and writes chain and key.
func (a authority) issue(t *x509.Certificate, chain, key string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := *t
	leaf.SerialNumber, leaf.NotBefore, leaf.NotAfter = serial(), time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	if len(leaf.DNSNames) > 0 {
		leaf.Subject.CommonName = leaf.DNSNames[0]
	}
	der, err := x509.CreateCertificate(rand.Reader, &leaf, a.certificate, &k.PublicKey, a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})...)
	return errors.Join(os.WriteFile(chain, both, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}
