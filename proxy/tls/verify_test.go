package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

const (
	webID = "spiffe://shop/ns/a/sa/web"
	dbID  = "spiffe://shop/ns/a/sa/db"
)

// rawSAN makes a subjectAltName of these names in place of the usual one.
func rawSAN(names ...asn1.RawValue) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		value, err := asn1.Marshal(names)
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: subjectAltName, Value: value})
	}
}

func rawURI(uri string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte(uri)}
}

func both(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, change := range changes {
			change(c)
		}
	}
}

func usages(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

// TestPeers: every kind of certificate that must be refused is, by servers and
// by clients, with and without the memory of peers that were verified.
func TestPeers(t *testing.T) {
	ca, foreign := newCA(t, "ca"), newCA(t, "ca")
	sub := newSub(t, ca, "sub")
	web := withURI(t, webID)
	otherName := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagOtherName, IsCompound: true,
		Bytes: []byte{6, 3, 42, 3, 4, 0xa0, 4, 12, 2, 'a', 'b'}}
	selfSigned := newCA(t, "self")
	for _, c := range []struct {
		name string
		cert l7.Certificate
		good bool
	}{
		{"good", ca.issue("x", web), true},
		{"by an intermediate", sub.issue("x", web, sub.pem), true},
		{"with a DNS name beside", ca.issue("x", both(web, dns("web.shop"))), true},
		{"intermediate missing", sub.issue("x", web), false},
		{"foreign", foreign.issue("x", web), false},
		{"self-signed", selfSigned.issue("x", web, selfSigned.pem), false},
		{"expired", ca.issue("x", both(web, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), false},
		{"not yet valid", ca.issue("x", both(web, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })), false},
		{"no extended key usage", ca.issue("x", both(web, usages())), false},
		{"any extended key usage", ca.issue("x", both(web, usages(x509.ExtKeyUsageAny))), false},
		{"another extended key usage", ca.issue("x", both(web, usages(x509.ExtKeyUsageCodeSigning))), false},
		{"a CA", ca.issue("x", both(web, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })), false},
		{"may sign others", ca.issue("x", both(web, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })), false},
		{"may not sign", ca.issue("x", both(web, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })), false},
		{"another URI", ca.issue("x", withURI(t, dbID)), false},
		{"two URIs", ca.issue("x", both(web, withURI(t, dbID))), false},
		{"the URI twice", ca.issue("x", both(web, web)), false},
		{"no name", ca.issue("x", nil), false},
		{"the URI as a DNS name", ca.issue("x", dns(webID)), false},
		{"the URI as a common name", ca.issue(webID, nil), false},
		{"upper case", ca.issue("x", withURI(t, strings.ToUpper(webID))), false},
		{"a slash more", ca.issue("x", withURI(t, webID+"/")), false},
		{"escaped", ca.issue("x", rawSAN(rawURI("spiffe://shop/ns/a/sa/we%62"))), false},
		{"NUL", ca.issue("x", rawSAN(rawURI(webID+"\x00.evil"))), false},
		{"space", ca.issue("x", rawSAN(rawURI(webID+" "))), false},
		{"otherName", ca.issue("x", rawSAN(rawURI(webID), otherName)), false},
		{"two extensions", ca.issue("x", both(rawSAN(rawURI(webID)), rawSAN(rawURI(webID)))), false},
	} {
		good := ca.issue("good", both(withURI(t, webID), dns("web.shop")))
		store := &Store{}
		if err := store.Load([]l7.Certificate{c.cert, good}); err != nil {
			// Some are refused as soon as they are read.
			if c.good {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		for _, known := range []*Verified{nil, NewVerified(10)} {
			for range 2 {
				if err := asClient(t, store, ca, known); (err == nil) != c.good {
					t.Errorf("client %s, memory %v: %v", c.name, known != nil, err)
				}
				if err := asServer(t, store, ca, known); (err == nil) != c.good {
					t.Errorf("server %s, memory %v: %v", c.name, known != nil, err)
				}
			}
		}
	}
}

// asClient shows the certificate x to a server that allows webID.
func asClient(t *testing.T, store *Store, ca *authority, known *Verified) error {
	server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"good"}, ClientCA: ca.pem, Callers: []string{dbID + "x", webID}}, l7.HTTP2, store, known)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(&l7.ClientTLS{CA: ca.pem, Servers: []string{webID}, Certificate: "x"}, l7.HTTP2, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, s, _, serr := connect(mustConfig(t, client, ""), server)
	if serr == nil {
		if f := s.Facts(); f.Peer != webID || f.Protocol != "h2" || f.Version != stdtls.VersionTLS13 || !f.Certificate {
			t.Errorf("facts %+v", f)
		}
	}
	return serr
}

// asServer shows the certificate x to a client that allows webID.
func asServer(t *testing.T, store *Store, ca *authority, known *Verified) error {
	server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"x"}}, l7.HTTP2, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(&l7.ClientTLS{CA: ca.pem, Servers: []string{webID}}, l7.HTTP2, store, known)
	if err != nil {
		t.Fatal(err)
	}
	_, _, cerr, _ := connect(mustConfig(t, client, ""), server)
	return cerr
}

func mustConfig(t testing.TB, c *Client, host string) *stdtls.Config {
	t.Helper()
	config, err := c.Config(host)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestServerNames: without URIs a server is known by its name.
func TestServerNames(t *testing.T) {
	ca, foreign := newCA(t, "ca"), newCA(t, "foreign")
	store := stored(t, ca.issue("x", both(dns("a.shop", "*.b.shop"), usages(x509.ExtKeyUsageServerAuth))))
	server, err := ServerConfig(&l7.ServerTLS{Certificates: []string{"x"}}, l7.AutoHTTP, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	known := NewVerified(10)
	for _, c := range []struct {
		tls  l7.ClientTLS
		host string
		good bool
	}{
		{l7.ClientTLS{CA: ca.pem}, "a.shop:8443", true},
		{l7.ClientTLS{CA: ca.pem}, "A.shop.", true},
		{l7.ClientTLS{CA: ca.pem}, "x.b.shop", true},
		{l7.ClientTLS{CA: ca.pem}, "x.y.b.shop", false},
		{l7.ClientTLS{CA: ca.pem}, "c.shop", false},
		{l7.ClientTLS{CA: ca.pem}, "192.0.2.1:443", false},
		{l7.ClientTLS{CA: ca.pem, ServerName: "a.shop"}, "c.shop", true},
		{l7.ClientTLS{CA: foreign.pem}, "a.shop", false},
		{l7.ClientTLS{CA: foreign.pem, Insecure: true}, "c.shop", true},
	} {
		client, err := NewClient(&c.tls, l7.AutoHTTP, store, known)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err, _ := connect(mustConfig(t, client, c.host), server); (err == nil) != c.good {
			t.Errorf("%q of %+v: %v", c.host, c.tls.ServerName, err)
		}
	}
	client, err := NewClient(&l7.ClientTLS{CA: ca.pem}, l7.AutoHTTP, store, known)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Config(""); err != errNoServerName {
		t.Error(err)
	}
}

// TestKnownPeers: what is remembered ends with the certificate, with the trust
// and with the room for it.
func TestKnownPeers(t *testing.T) {
	ca := newCA(t, "ca")
	cert := ca.issue("x", withURI(t, webID))
	pair, err := stdtls.X509KeyPair([]byte(cert.Chain), []byte(cert.Key))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := NewTrust(ca.pem)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	known := NewVerified(4)
	p := &peer{trust: trust, usage: x509.ExtKeyUsageClientAuth, known: known, now: func() time.Time { return now }}
	state := stdtls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}}
	expect := func(why string, good bool, wantKnown uint64) {
		t.Helper()
		err := p.check(state)
		if _, hits := known.Counts(); (err == nil) != good || hits != wantKnown {
			t.Errorf("%s: %v, %d known before, want %d", why, err, hits, wantKnown)
		}
	}
	expect("first", true, 0)
	expect("again", true, 1)
	p.allowed = []string{dbID}
	expect("another is allowed", false, 2)
	p.allowed = nil
	other, err := NewTrust(newCA(t, "ca").pem)
	if err != nil {
		t.Fatal(err)
	}
	p.trust = other
	expect("another trust", false, 2)
	p.trust = trust
	p.usage = x509.ExtKeyUsageServerAuth
	expect("for another use", true, 2)
	p.usage = x509.ExtKeyUsageClientAuth
	expect("still known", true, 3)
	now = pair.Leaf.NotAfter.Add(time.Second)
	expect("expired", false, 3)
	for i := range 100 {
		known.put([32]byte{byte(i)}, verified{until: now.Add(time.Hour)}, now)
		if n := len(known.young) + len(known.aged); n > 4 {
			t.Fatalf("%d peers are remembered, want 4 at most", n)
		}
	}
}
