package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"moire.dev/moire/snapshot/l7"
)

const (
	redWeb  = "spiffe://red.example/ns/shop/sa/web"
	redDB   = "spiffe://red.example/ns/shop/sa/db"
	blueWeb = "spiffe://blue.example/ns/shop/sa/web"
)

// mutual is for one identity, with a certificate that an authority issued.
func mutual(t *testing.T, id string, by *authority, domains []l7.Trust, change ...func(*x509.Certificate)) *Mutual {
	t.Helper()
	d, err := NewDomains(domains)
	if err != nil {
		t.Fatal(err)
	}
	s := stored(t, by.issue("c", both(append(change, withURI(t, id))...)))
	cert, _ := s.Certificate("c")
	m, err := NewMutual(id, cert, d, NewVerified(100))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// meet has one call the other as whom, and says whether both agreed.
func meet(t *testing.T, caller, callee *Mutual, whom string, carries Carries) (c, s *Filter, err error) {
	t.Helper()
	config, err := caller.Client(whom, carries)
	if err != nil {
		t.Fatal(err)
	}
	c, s, cerr, serr := connect(config, callee.Server(carries))
	if serr != nil {
		return c, s, serr
	}
	return c, s, cerr
}

// TestMutual: who is believed, and who is not.
func TestMutual(t *testing.T) {
	red, blue, foreign := newCA(t, "red"), newCA(t, "blue"), newCA(t, "foreign")
	apart := []l7.Trust{{TrustDomain: "red.example", Roots: red.pem}, {TrustDomain: "blue.example", Roots: blue.pem}}
	half := []l7.Trust{{TrustDomain: "red.example", Roots: red.pem, Federates: []string{"blue.example"}}, apart[1]}
	both := []l7.Trust{half[0], {TrustDomain: "blue.example", Roots: blue.pem, Federates: []string{"red.example"}}}
	none := []l7.Trust{apart[0], {TrustDomain: "blue.example", Federates: []string{"red.example"}}}
	web, db := mutual(t, redWeb, red, apart), mutual(t, redDB, red, apart)
	if c, s, err := meet(t, web, db, redDB, Bytes); err != nil || s.Facts().Peer != redWeb || c.Facts().Peer != redDB || s.Facts().Protocol != Raw || s.Facts().Version != stdtls.VersionTLS13 {
		t.Error(err, s.Facts())
	}
	for _, c := range []struct {
		offer, take Carries
		want        string
	}{
		{Requests, Requests, Streams}, {Requests, Requests1, Raw}, {Requests, Bytes, Raw}, {Requests1, Requests, Streams1},
		{Requests1, Requests1, Streams1}, {Requests1, Bytes, Raw}, {Bytes, Requests, Raw},
	} {
		config, _ := web.Client(redDB, c.offer)
		if _, s, _, err := connect(config, db.Server(c.take)); err != nil || s.Facts().Protocol != c.want {
			t.Error(c, err, s.Facts())
		}
	}
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }
	for what, c := range map[string]struct {
		caller, callee *Mutual
		whom           string
		good           bool
	}{
		"another identity":             {web, db, redWeb, false},
		"the caller's foreign root":    {mutual(t, redWeb, foreign, apart), db, redDB, false},
		"the callee's foreign root":    {web, mutual(t, redDB, foreign, apart), redDB, false},
		"an expired caller":            {mutual(t, redWeb, red, apart, expired), db, redDB, false},
		"an expired callee":            {web, mutual(t, redDB, red, apart, expired), redDB, false},
		"another trust domain":         {web, mutual(t, blueWeb, blue, apart), blueWeb, false},
		"one side believes":            {mutual(t, redWeb, red, half), mutual(t, blueWeb, blue, half), blueWeb, false},
		"both sides believe":           {mutual(t, redWeb, red, both), mutual(t, blueWeb, blue, both), blueWeb, true},
		"believed, but the wrong root": {mutual(t, redWeb, red, both), mutual(t, blueWeb, red, both), blueWeb, false},
		"one of another domain's root": {mutual(t, redWeb, blue, both), mutual(t, redDB, red, both), redDB, false},
	} {
		if _, _, err := meet(t, c.caller, c.callee, c.whom, Bytes); (err == nil) != c.good {
			t.Errorf("%s: %v", what, err)
		}
	}
	d, err := NewDomains(none)
	if err != nil || d.between("red.example", "blue.example") != nil || d.between("blue.example", "blue.example") != nil {
		t.Error("a trust domain without roots is believed", err)
	}
	if _, err := NewDomains([]l7.Trust{{TrustDomain: "x", Roots: "nothing"}}); err == nil {
		t.Error("roots that cannot be read")
	}
	cert, _ := stored(t, red.issue("c", withURI(t, redWeb))).Certificate("c")
	if _, err := NewMutual(redDB, cert, web.domains, nil); err == nil {
		t.Error("another's certificate is taken")
	}
}

// TestMutualPlainTLS: what is no client of the mesh is not served.
func TestMutualPlainTLS(t *testing.T) {
	red := newCA(t, "red")
	db := mutual(t, redDB, red, []l7.Trust{{TrustDomain: "red.example", Roots: red.pem}})
	for what, config := range map[string]*stdtls.Config{
		"no certificate": {InsecureSkipVerify: true, NextProtos: []string{Raw}},
		"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: []string{Raw}, MaxVersion: stdtls.VersionTLS12},
		"other ALPN":     {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
	} {
		if _, _, _, err := connect(config, db.Server(Requests)); err == nil {
			t.Errorf("%s: served", what)
		}
	}
}

// TestMutualResumption: a session is resumed with the same two, and never after
// the certificate or the trust of either changed.
func TestMutualResumption(t *testing.T) {
	red, next := newCA(t, "red"), newCA(t, "red2")
	one := []l7.Trust{{TrustDomain: "red.example", Roots: red.pem}}
	two := []l7.Trust{{TrustDomain: "red.example", Roots: red.pem + next.pem}}
	web, db := mutual(t, redWeb, red, one), mutual(t, redDB, red, one)
	resumed := func(caller, callee *Mutual) bool {
		t.Helper()
		config, _ := caller.Client(redDB, Bytes)
		c, s := mustConnect(t, config, callee.Server(Bytes))
		return c.Facts().Resumed && s.Facts().Resumed
	}
	if resumed(web, db) || !resumed(web, db) {
		t.Fatal("the second connection of the same two resumes")
	}
	if resumed(web, mutual(t, redDB, red, one)) {
		t.Error("resumed with another certificate of the callee")
	}
	if resumed(mutual(t, redWeb, red, one), db) {
		t.Error("resumed with another certificate of the caller")
	}
	for range 2 {
		resumed(web, db)
	}
	if resumed(mutual(t, redWeb, red, two), mutual(t, redDB, next, two)) {
		t.Error("resumed across a change of trust")
	}
}

// TestForeignTrusts: what two tenants were given of one foreign trust domain
// makes nobody in the mesh believe it, and changes nothing for the other.
func TestForeignTrusts(t *testing.T) {
	good, evil := newCA(t, "good"), newCA(t, "evil")
	d, err := NewDomains([]l7.Trust{
		{Name: "shop", TrustDomain: "shop", Roots: good.pem, Federates: []string{"partner/shop"}},
		{Name: "partner/shop", TrustDomain: "partner", Roots: good.pem},
		{Name: "partner/bank", TrustDomain: "partner", Roots: evil.pem},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d.between("shop", "shop") == nil || d.between("shop", "partner") != nil || d.between("partner", "partner") != nil {
		t.Error("a foreign trust domain is believed in the mesh")
	}
}
