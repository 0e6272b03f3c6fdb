package admin

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io"
	"iter"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot/l7"
)

// Proxy says how it is. Its methods may be called at any time, by several
// goroutines.
type Proxy interface {
	// Config that is served; nil before there is one.
	Config() *l7.Config
	// State as it is now.
	State() State
	// Ready is nil when the proxy takes traffic; otherwise it says why it does not.
	Ready() error
}

// Telemetry says what the proxy did. Its methods may be called at any time, by
// several goroutines.
type Telemetry interface {
	// WriteMetrics writes Prometheus' text format.
	WriteMetrics(w io.Writer) error
	// Stats are the figures that people look at first, in a fixed order.
	Stats() iter.Seq2[string, float64]
	// Follow tells of the last n requests and, until ctx is done, of those to
	// come; missed came too fast.
	Follow(ctx context.Context, n int, do func(records []record.Record, missed uint64) error) error
	// Last n requests, oldest first.
	Last(n int) []record.Record
}

// State of a Proxy.
type State struct {
	Listeners    []Listener    `json:"listeners"`
	Clusters     []Cluster     `json:"clusters"`
	Certificates []Certificate `json:"certificates"`
}

// Listener is where callers come in.
type Listener struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
	TLS      bool   `json:"tls,omitempty"`
	// Connections that are open.
	Connections int  `json:"connections"`
	Draining    bool `json:"draining,omitempty"`
}

// Cluster is where requests go.
type Cluster struct {
	Name     string `json:"name"`
	Balancer string `json:"balancer"`
	// Panic: too few endpoints are healthy, so all are used.
	Panic bool `json:"panic,omitempty"`
	// Active requests and connections, and what waits for a connection.
	Active      int        `json:"active"`
	Connections int        `json:"connections"`
	Pending     int        `json:"pending"`
	Endpoints   []Endpoint `json:"endpoints"`
}

// Endpoint is one address of a Cluster.
type Endpoint struct {
	Address  string `json:"address"`
	Zone     string `json:"zone,omitempty"`
	Priority int    `json:"priority,omitempty"`
	Weight   uint32 `json:"weight"`
	// Healthy as the active checks have it; true without checks.
	Healthy bool `json:"healthy"`
	// Ejected by outlier detection for this much longer; 0: it is not.
	Ejected time.Duration `json:"ejected,omitempty"`
	// Ejections so far.
	Ejections int `json:"ejections,omitempty"`
	Active    int `json:"active"`
	// EWMA of the latency, as Peak EWMA has it; 0: not known.
	EWMA time.Duration `json:"ewma,omitempty"`
}

// Certificate is a chain's leaf that the proxy can show. It has no key.
type Certificate struct {
	Name      string    `json:"name"`
	Subject   string    `json:"subject,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	Names     []string  `json:"names,omitempty"` // SANs: DNS names, addresses, URIs
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Serial    string    `json:"serial,omitempty"`
	SHA256    string    `json:"sha256,omitempty"` // of the certificate
}

// Describe says what is in a certificate.
func Describe(name string, c *x509.Certificate) Certificate {
	out := Certificate{
		Name: name, Subject: c.Subject.String(), Issuer: c.Issuer.String(),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Names: append([]string(nil), c.DNSNames...),
	}
	for _, ip := range c.IPAddresses {
		out.Names = append(out.Names, ip.String())
	}
	for _, u := range c.URIs {
		out.Names = append(out.Names, u.String())
	}
	if c.SerialNumber != nil {
		out.Serial = c.SerialNumber.Text(16)
	}
	if len(c.Raw) > 0 {
		sum := sha256.Sum256(c.Raw)
		out.SHA256 = hex.EncodeToString(sum[:])
	}
	return out
}
