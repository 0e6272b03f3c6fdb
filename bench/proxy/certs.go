package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Files of certificates, all ECDSA P-256.
const (
	caFile     = "ca.pem"
	serverFile = "server.pem" // chain; the key is in server.key, both in server.both
	clientFile = "client.pem"
)

// makeCertificates writes a CA and two leaves into dir.
func makeCertificates(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, caFile), encode("CERTIFICATE", der), 0o644); err != nil {
		return err
	}
	for i, name := range []string{"server", "client"} {
		if err := makeLeaf(dir, name, int64(i+2), ca, key); err != nil {
			return err
		}
	}
	return nil
}

func makeLeaf(dir, name string, serial int64, ca *x509.Certificate, caKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"*.bench.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "bench.test", Path: "/ns/bench/sa/" + name}}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	chain, private := encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
	for suffix, b := range map[string][]byte{".pem": chain, ".key": private, ".both": append(chain[:len(chain):len(chain)], private...)} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// clientTLS is the load maker's side. It does not verify the chain, so as to
// leave more of its core to what is measured; the proxy verifies ours.
func clientTLS(j *job) (*tls.Config, error) {
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "h0.bench.test", MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519}}
	if j.resume {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}
	if j.mutual {
		both := filepath.Join(j.dir, "client.both")
		c, err := tls.LoadX509KeyPair(both, both)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{c}
	}
	return cfg, nil
}
