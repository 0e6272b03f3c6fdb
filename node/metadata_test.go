package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"moire.dev/moire/dns"
	"moire.dev/moire/snapshot"
)

// TestMetadataNotHere: an endpoint that a tenant names is never the node itself,
// its link or a service of its cloud.
func TestMetadataNotHere(t *testing.T) {
	asked := ""
	zones := dns.NewZones(&snapshot.Snapshot{}, nil)
	m := newMetadata(func() *dns.Zones { return zones }, func(_ context.Context, _ snapshot.VNI, inside bool, _ string, to netip.AddrPort) (net.Conn, error) {
		asked = to.String()
		return nil, errors.New("not here")
	}, slog.New(slog.DiscardHandler))
	for _, to := range []string{"127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "localhost:80", "169.254.169.254:80", "0.0.0.0:80", "[::]:80", "[fe80::1]:80", "224.0.0.1:80"} {
		if c, err := m.connect(t.Context(), 100, to); c != nil || err == nil || asked != "" {
			t.Errorf("%s: asked %q, %v", to, asked, err)
		}
		asked = ""
	}
	if _, err := m.connect(t.Context(), 100, "192.0.2.9:8775"); err == nil || asked != "192.0.2.9:8775" {
		t.Errorf("asked %q, %v", asked, err)
	}
}
