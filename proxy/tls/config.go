package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"moire.dev/moire/snapshot/l7"
)

// suites of TLS 1.2: forward secrecy and AEAD only. crypto/tls orders them, and
// those of TLS 1.3 are not to be chosen.
var suites = []uint16{
	stdtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, stdtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	stdtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, stdtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	stdtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, stdtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Key exchanges. crypto/tls prefers X25519 to P-256 whatever their order, and
// P-256 takes it two thirds of the time. A server takes what the client sent a
// share for, or the client would have to come twice. Where we are the client we
// choose, so X25519 is not offered; P-384 is there for who has no P-256.
var (
	serverCurves = []stdtls.CurveID{stdtls.X25519, stdtls.CurveP256}
	clientCurves = []stdtls.CurveID{stdtls.CurveP256, stdtls.CurveP384}
)

// base is what both roles have in common.
func base(min string, protocol l7.Protocol) (*stdtls.Config, error) {
	c := &stdtls.Config{CipherSuites: suites, DynamicRecordSizingDisabled: true}
	switch min {
	case "", "1.2":
		c.MinVersion = stdtls.VersionTLS12
	case "1.3":
		c.MinVersion = stdtls.VersionTLS13
	default:
		return nil, fmt.Errorf("minVersion %q is not known; use 1.2 or 1.3", min)
	}
	switch protocol {
	case "", l7.AutoHTTP:
		c.NextProtos = []string{"h2", "http/1.1", "http/1.0"}
	case l7.HTTP1:
		c.NextProtos = []string{"http/1.1", "http/1.0"}
	case l7.HTTP2:
		c.NextProtos = []string{"h2"}
	case l7.TCP:
	default:
		return nil, fmt.Errorf("TLS is not terminated for protocol %q", protocol)
	}
	return c, nil
}

// ServerConfig is how a Listener of the given protocol speaks TLS. Workers share
// it: it holds the keys of session tickets, which crypto/tls replaces every day.
// Build another when s changed, and only then: a new one resumes no session of
// the old, so nobody resumes across a change of trust, and clients of a Listener
// that did not change keep their sessions. Certificates come from the store as
// it is at each handshake.
func ServerConfig(s *l7.ServerTLS, protocol l7.Protocol, store *Store, known *Verified) (*stdtls.Config, error) {
	c, err := base(s.MinVersion, protocol)
	if err != nil {
		return nil, err
	}
	if len(s.Certificates) == 0 {
		return nil, errors.New("no certificates are named; TLS cannot be terminated without one")
	}
	c.GetCertificate = store.Choose(s.Certificates).Get
	c.CurvePreferences = serverCurves
	c.SessionTicketsDisabled = s.NoResumption
	if s.ClientCA == "" {
		if len(s.Callers) > 0 || s.ClientOptional {
			return nil, errors.New("callers and clientOptional need a clientCA that vouches for callers")
		}
		return c, nil
	}
	trust, err := NewTrust(s.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("clientCA: %w", err)
	}
	p := &peer{trust: trust, usage: x509.ExtKeyUsageClientAuth, allowed: s.Callers, optional: s.ClientOptional, known: known}
	// crypto/tls asks for the certificate and checks that the caller has its key;
	// p checks all else, and remembers.
	c.ClientAuth = stdtls.RequireAnyClientCert
	if s.ClientOptional {
		c.ClientAuth = stdtls.RequestClientCert
	}
	c.ClientCAs = trust.pool
	c.VerifyConnection = p.check
	return c, nil
}

// Client is how a Cluster is spoken to in TLS. It may be used by all workers.
type Client struct {
	base *stdtls.Config
	peer peer
	sni  string // fixed; empty: that of the request
	skip bool

	mu     sync.Mutex
	byName map[string]*stdtls.Config
}

// maxNames is how many server names of requests a Client remembers.
const maxNames = 1024

// NewClient makes a Client. Build another when c changed: it resumes no session
// of the old one.
func NewClient(c *l7.ClientTLS, protocol l7.Protocol, store *Store, known *Verified) (*Client, error) {
	config, err := base(c.MinVersion, protocol)
	if err != nil {
		return nil, err
	}
	config.CurvePreferences = clientCurves
	config.ClientSessionCache = stdtls.NewLRUClientSessionCache(256)
	// Verification is ours, in VerifyConnection.
	config.InsecureSkipVerify = true
	if name := c.Certificate; name != "" {
		config.GetClientCertificate = func(*stdtls.CertificateRequestInfo) (*stdtls.Certificate, error) {
			cert, ok := store.Certificate(name)
			if !ok {
				return nil, fmt.Errorf("certificate %q is not loaded", name)
			}
			return cert, nil
		}
	}
	client := &Client{base: config, sni: c.ServerName, skip: c.Insecure, byName: map[string]*stdtls.Config{}}
	if c.Insecure {
		return client, nil
	}
	trust, err := NewTrust(c.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	client.peer = peer{trust: trust, usage: x509.ExtKeyUsageServerAuth, allowed: c.Servers, known: known}
	return client, nil
}

var errNoServerName = errors.New("no server name to verify; set serverName or servers")

// Config is for one connection. Host is the authority of the request that needs
// it, perhaps with a port; it counts only where no server name is configured.
func (c *Client) Config(host string) (*stdtls.Config, error) {
	name := c.sni
	if name == "" {
		name = hostname(host)
	}
	if name == "" && !c.skip && len(c.peer.allowed) == 0 {
		return nil, errNoServerName
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if config, ok := c.byName[name]; ok {
		return config, nil
	}
	config := c.base.Clone()
	config.ServerName = name
	if !c.skip {
		p := c.peer
		if len(p.allowed) == 0 {
			p.name = name
		}
		config.VerifyConnection = p.check
	}
	if len(c.byName) >= maxNames {
		clear(c.byName)
	}
	c.byName[name] = config
	return config, nil
}

// hostname is host without port, brackets and a dot at its end, in lower case.
func hostname(host string) string {
	if a, err := netip.ParseAddrPort(host); err == nil {
		return a.Addr().String()
	}
	if strings.HasPrefix(host, "[") {
		return strings.Trim(host, "[]")
	}
	host, _, _ = strings.Cut(host, ":")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
