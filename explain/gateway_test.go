package explain_test

import (
	"bytes"
	"strings"
	"testing"

	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// TestGateway: who comes to a Gateway comes to a listener of it, or to nobody.
func TestGateway(t *testing.T) {
	w := meshed()
	w.all(func(s *snapshot.Snapshot) {
		if s.Node != "n2" {
			return
		}
		k := snapshot.GatewayKey{Project: "shop", Name: "edge"}
		s.Gateways = map[snapshot.GatewayKey]snapshot.Gateway{k: {GatewayKey: k, Attachment: snapshot.AttachmentKey{Project: "shop", Workload: "old", Network: "front"},
			Listeners: []snapshot.GatewayListener{{Listener: l7.Listener{Name: "1/Gateway/shop/edge/https", Address: ":443", Hostname: "*.test", TLS: &l7.ServerTLS{}}, Routes: []string{"1/HTTPRoute/shop/web@Gateway/shop/edge/https"}}}}}
	})
	for port, want := range map[uint16][]string{
		443: {"Gateway shop/edge takes it: listener https (HTTP, its TLS ends here, for *.test) with HTTPRoute shop/web", "--from shop/old", "allow"},
		80:  {"Gateway shop/edge has no listener at port 80", "closed/no-listener", "deny"},
	} {
		a := explain.Packet(explain.Query{From: "shop/web", To: "shop/old", Port: port}, w)
		var text bytes.Buffer
		a.Text(&text)
		for _, part := range want {
			if !strings.Contains(strings.ToLower(text.String()), strings.ToLower(part)) {
				t.Errorf("port %d: no %q in\n%s", port, part, text.String())
			}
		}
	}
}
