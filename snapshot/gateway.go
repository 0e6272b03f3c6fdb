package snapshot

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"

	"moire.dev/moire/snapshot/l7"
)

// GatewayKey names a Gateway of the Gateway API.
type GatewayKey struct{ Project, Name string }

// Gateway is an edge of a Network that this node runs: a Workload without an
// application, in whose namespace the proxy itself takes connections. Others
// reach it at the addresses of that Workload.
type Gateway struct {
	GatewayKey
	// Attachment that the node makes for it, and who it is.
	Attachment AttachmentKey
	Account    string
	// Labels, sorted by key.
	Labels []Label
	// Listeners, sorted by name.
	Listeners []GatewayListener
	// Certificates of the Listeners, sorted by name, with their keys: nobody else
	// gets them.
	Certificates []l7.Certificate
}

// GatewayListener is a port that a Gateway takes connections on.
type GatewayListener struct {
	// Listener; of its Address only the port counts: at each address of the Gateway.
	l7.Listener
	// Routes by name, in Snapshot.Routes, sorted.
	Routes []string
}

// Port that it takes connections on; 0: none that could be read.
func (l *GatewayListener) Port() uint16 {
	at, err := netip.ParseAddrPort("0.0.0.0" + l.Address)
	if err != nil {
		return 0
	}
	return at.Port()
}

// String shows keys by their fingerprints.
func (g Gateway) String() string {
	text := fmt.Sprintf("{%s/%s as %v account %s labels %v", g.Project, g.Name, g.Attachment, g.Account, g.Labels)
	for _, l := range g.Listeners {
		tls := l.TLS
		l.TLS = nil // it would be shown by where it is
		text += fmt.Sprintf(" listener %+v tls %+v routes %v", l.Listener, tls, l.Routes)
	}
	for _, c := range g.Certificates {
		text += fmt.Sprintf(" certificate %s chain %x key %x", c.Name, sha256.Sum256([]byte(c.Chain)), sha256.Sum256([]byte(c.Key)))
	}
	return text + "}"
}

// Compare orders by project and name.
func (k GatewayKey) Compare(o GatewayKey) int {
	return cmp.Or(cmp.Compare(k.Project, o.Project), cmp.Compare(k.Name, o.Name))
}

// Validate says what a proxy could not serve of it.
func (g *Gateway) Validate() []l7.Problem {
	c := l7.Config{Name: g.Name, Certificates: g.Certificates}
	for i := range g.Listeners {
		c.Listeners = append(c.Listeners, g.Listeners[i].Listener)
	}
	if len(c.Listeners) == 0 {
		return nil // it waits for one
	}
	var out []l7.Problem
	for _, p := range c.Validate() {
		if !p.Soft {
			out = append(out, p)
		}
	}
	return out
}
