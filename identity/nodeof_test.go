package identity

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"testing"
	"time"
)

// san encodes names by context tag as they are, good or bad.
func san(t testing.TB, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	b, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidSAN, Critical: true, Value: b}
}

func uri(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: uriTag, Bytes: []byte(s)}
}

func dns(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(s)}
}

// issue signs what SignNode never would, with the real issuing key.
func issue(t testing.TB, ca, signer *CA, change func(*x509.Certificate)) (*x509.Certificate, error) {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: ca.cfg.Now().Add(-time.Minute), NotAfter: ca.cfg.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{san(t, uri("spiffe://moire/node/n1"))},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, signer.issuing[0], key.Public(), signer.issuingKey)
	if err != nil {
		t.Fatal(err)
	}
	return x509.ParseCertificate(der)
}

func TestNodeOfIsStrict(t *testing.T) {
	ca, other := newCA(t, Config{}), newCA(t, Config{})
	named := func(names ...asn1.RawValue) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{san(t, names...)} }
	}
	otherName := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{6, 3, 42, 3, 4, 160, 3, 12, 1, 'x'}}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		signer *CA
	}{
		"two URIs":           {change: named(uri("spiffe://moire/node/n1"), uri("spiffe://moire/node/n2"))},
		"the same twice":     {change: named(uri("spiffe://moire/node/n1"), uri("spiffe://moire/node/n1"))},
		"a DNS name too":     {change: named(uri("spiffe://moire/node/n1"), dns(ServerName))},
		"another name too":   {change: named(otherName, uri("spiffe://moire/node/n1"))},
		"only a DNS name":    {change: named(dns("n1"))},
		"an address too":     {change: func(c *x509.Certificate) { c.ExtraExtensions, c.IPAddresses = nil, []net.IP{{10, 0, 0, 1}} }},
		"no name":            {change: func(c *x509.Certificate) { c.ExtraExtensions = nil; c.Subject.CommonName = "n1" }},
		"NUL":                {change: named(uri("spiffe://moire/node/n1\x00.evil"))},
		"newline":            {change: named(uri("spiffe://moire/node/n1\n"))},
		"scheme in capitals": {change: named(uri("SPIFFE://moire/node/n1"))},
		"escaped":            {change: named(uri("spiffe://moire/node/n%31"))},
		"slash at the end":   {change: named(uri("spiffe://moire/node/n1/"))},
		"deeper":             {change: named(uri("spiffe://moire/node/n1/x"))},
		"dots":               {change: named(uri("spiffe://moire/node/../node/n1"))},
		"query":              {change: named(uri("spiffe://moire/node/n1?x"))},
		"fragment":           {change: named(uri("spiffe://moire/node/n1#x"))},
		"user":               {change: named(uri("spiffe://x@moire/node/n1"))},
		"port":               {change: named(uri("spiffe://moire:1/node/n1"))},
		"another domain":     {change: named(uri("spiffe://evil/node/n1"))},
		"a Workload":         {change: named(uri("spiffe://moire/ns/p/sa/n1"))},
		"empty":              {change: named(uri("spiffe://moire/node/"))},
		"no usage":           {change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }},
		"any usage":          {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }},
		"server":             {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		"server and client":  {change: func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }},
		"an unknown usage":   {change: func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }},
		"a CA":               {change: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }},
		"ended":              {change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }},
		"not yet":            {change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }},
		"of another CA":      {change: func(*x509.Certificate) {}, signer: other},
		"an unknown critical": {change: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			signer := c.signer
			if signer == nil {
				signer = ca
			}
			cert, err := issue(t, ca, signer, c.change)
			if err != nil {
				return // not even a certificate for crypto/x509
			}
			if node, err := ca.NodeOf(cert); err == nil {
				t.Errorf("taken as %q", node)
			}
		})
	}
	cert, err := issue(t, ca, ca, func(*x509.Certificate) {})
	if err != nil {
		t.Fatal(err)
	}
	if node, err := ca.NodeOf(cert); err != nil || node != "n1" {
		t.Errorf("a good one: %q %v", node, err)
	}
	if _, err := ca.NodeOf(nil); err == nil {
		t.Error("none was taken")
	}
	if _, err := ca.NodeOf(ca.issuing[0]); err == nil {
		t.Error("the issuing certificate was taken")
	}
}

func FuzzNodeOf(f *testing.F) {
	ca := newCA(f, Config{})
	leaf, issuing := sign(f, ca, "n1")
	f.Add(leaf.Raw)
	f.Add(issuing.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if node, err := ca.NodeOf(cert); err == nil && node != "n1" {
			t.Fatalf("forged %q", node)
		}
	})
}
