package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"moire.dev/moire/snapshot/l7"
)

// What two proxies of the mesh agree on by ALPN. A ClientHello that offers Raw
// is one of the mesh, and no application's.
const (
	// Raw: inside is what the applications say to each other.
	Raw = "moire"
	// Streams: requests in HTTP/2, whatever the applications speak.
	Streams = "moire-h2"
	// Streams1: the same, by a caller that would speak HTTP/1 to the application, and
	// so must we where nothing else was declared.
	Streams1 = "moire-h2-http1"
)

// Carries says what a connection between two proxies of the mesh may carry.
type Carries uint8

// What it may carry: one more with each.
const (
	Bytes     Carries = iota
	Requests1         // requests for an application that is spoken to in HTTP/1
	Requests          // any requests
)

// Domains are the trust domains that are known, with their roots, and who of
// them believes whom. It is immutable.
type Domains struct{ byName map[string]domain }

type domain struct {
	trust     *Trust
	federates []string
}

// NewDomains reads the roots. A trust domain without any is believed by nobody.
func NewDomains(all []l7.Trust) (*Domains, error) {
	d := &Domains{byName: make(map[string]domain, len(all))}
	for i := range all {
		t := &all[i]
		if t.Roots == "" { // to NewTrust that would be everybody's roots
			continue
		}
		if t.Name != "" && t.Name != t.TrustDomain {
			continue // foreign, as one tenant knows it: nobody of it is in the mesh, and it is no other tenant's
		}
		trust, err := NewTrust(t.Roots)
		if err != nil {
			return nil, fmt.Errorf("trust domain %s: %w", t.TrustDomain, err)
		}
		d.byName[t.TrustDomain] = domain{trust, t.Federates}
	}
	return d, nil
}

// between is what somebody of own verifies one of other by: they are of one trust
// domain, or of two of which each believes the other. Nil: they are not.
func (d *Domains) between(own, other string) *Trust {
	mine, theirs := d.byName[own], d.byName[other]
	if mine.trust == nil || theirs.trust == nil || own != other &&
		(!slices.Contains(mine.federates, other) || !slices.Contains(theirs.federates, own)) {
		return nil
	}
	return theirs.trust
}

// TrustDomain of a SPIFFE ID; empty: it is none.
func TrustDomain(id string) string {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	name, path, _ := strings.Cut(rest, "/")
	if !ok || path == "" {
		return ""
	}
	return name
}

// Mutual is how one Workload speaks TLS 1.3 in the mesh, where both sides show
// who they are. It may be used by all workers. Make another one when the
// certificate or the trust changed: it resumes no session of this one.
type Mutual struct {
	id, domain string
	domains    *Domains
	known      *Verified
	chain      []*x509.Certificate
	servers    [Requests + 1]*stdtls.Config
	client     *stdtls.Config

	mu      sync.Mutex
	clients map[called]*stdtls.Config
}

// called is whom a client configuration is for.
type called struct {
	id      string
	carries Carries
}

// servers and clients agree on the first of what the server takes.
var (
	taken   = [Requests + 1][]string{{Raw}, {Streams1, Raw}, {Streams1, Streams, Raw}}
	offered = [Requests + 1][]string{{Raw}, {Streams1, Streams, Raw}, {Streams, Raw}}
)

// NewMutual is for the Workload with that SPIFFE ID, whose certificate cert is.
func NewMutual(id string, cert *stdtls.Certificate, domains *Domains, known *Verified) (*Mutual, error) {
	m := &Mutual{id: id, domain: TrustDomain(id), domains: domains, known: known, clients: map[called]*stdtls.Config{}}
	if got := Identity(cert.Leaf); got != id || id == "" {
		return nil, fmt.Errorf("the certificate of %q is that of %q", id, got)
	}
	if domains.between(m.domain, m.domain) == nil {
		return nil, fmt.Errorf("there are no roots of trust domain %q", m.domain)
	}
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the certificate of %q: %w", id, err)
		}
		m.chain = append(m.chain, c)
	}
	for i, protocols := range taken {
		m.servers[i] = &stdtls.Config{
			MinVersion: stdtls.VersionTLS13, CurvePreferences: serverCurves, DynamicRecordSizingDisabled: true,
			Certificates: []stdtls.Certificate{*cert}, NextProtos: protocols,
			// crypto/tls checks that the caller has the key, we check all else.
			ClientAuth: stdtls.RequireAnyClientCert, VerifyConnection: m.checkCaller,
		}
	}
	m.client = &stdtls.Config{
		MinVersion: stdtls.VersionTLS13, CurvePreferences: clientCurves, DynamicRecordSizingDisabled: true,
		InsecureSkipVerify: true, // VerifyConnection does it
		GetClientCertificate: func(*stdtls.CertificateRequestInfo) (*stdtls.Certificate, error) {
			return cert, nil
		},
	}
	return m, nil
}

// Server is for a connection that comes in, and what it may carry. The caller is
// somebody who is believed, and has exactly one identity: who it has to be is for
// the one who knows from where it calls.
func (m *Mutual) Server(c Carries) *stdtls.Config { return m.servers[c] }

var errNobody = errors.New("the peer does not say who it is")

func (m *Mutual) checkCaller(state stdtls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errNobody
	}
	id := Identity(state.PeerCertificates[0])
	if id == "" {
		return errNobody
	}
	return m.check(state, id, x509.ExtKeyUsageClientAuth)
}

// Meets says what a handshake of m with o would: whether each believes the other.
func (m *Mutual) Meets(o *Mutual) error {
	if err := m.check(stdtls.ConnectionState{PeerCertificates: o.chain}, o.id, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	return o.check(stdtls.ConnectionState{PeerCertificates: m.chain}, m.id, x509.ExtKeyUsageClientAuth)
}

// Until is when the first certificate of the chain ends.
func (m *Mutual) Until() time.Time {
	until := m.chain[0].NotAfter
	for _, c := range m.chain {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return until
}

func (m *Mutual) check(state stdtls.ConnectionState, id string, usage x509.ExtKeyUsage) error {
	trust := m.domains.between(m.domain, TrustDomain(id))
	if trust == nil {
		return fmt.Errorf("%q is of no trust domain that %q believes, and that believes it", id, m.domain)
	}
	p := peer{trust: trust, usage: usage, allowed: []string{id}, known: m.known}
	return p.check(state)
}

// Client is for a connection to the Workload with that SPIFFE ID, and to nobody
// else, and what it is for.
func (m *Mutual) Client(id string, carries Carries) (*stdtls.Config, error) {
	if TrustDomain(id) == "" {
		return nil, fmt.Errorf("%q is no SPIFFE ID", id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := called{id, carries}
	if c := m.clients[key]; c != nil {
		return c, nil
	}
	c := m.client.Clone()
	c.NextProtos = offered[carries]
	c.ClientSessionCache = stdtls.NewLRUClientSessionCache(16)
	c.VerifyConnection = func(state stdtls.ConnectionState) error { return m.check(state, id, x509.ExtKeyUsageServerAuth) }
	if len(m.clients) >= maxNames {
		clear(m.clients)
	}
	m.clients[key] = c
	return c, nil
}
