package explain_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"moire.dev/moire/explain"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
)

// TestGateway: who comes to a Gateway comes to a listener of it, or to nobody.
func TestGateway(t *testing.T) {
	w := meshed()
	name := "1/HTTPRoute/shop/web@Gateway/shop/edge/https"
	w.all(func(s *snapshot.Snapshot) {
		if s.Node != "n2" {
			return
		}
		k := snapshot.GatewayKey{Project: "shop", Name: "edge"}
		s.Gateways = map[snapshot.GatewayKey]snapshot.Gateway{k: {GatewayKey: k, Attachment: snapshot.AttachmentKey{Project: "shop", Workload: "old", Network: "front"},
			Listeners: []snapshot.GatewayListener{{Listener: l7.Listener{Name: "1/Gateway/shop/edge/https", Address: ":443", Hostname: "*.test", TLS: &l7.ServerTLS{}}, Routes: []string{name}}}}}
		s.Routes = maps.Clone(s.Routes)
		s.Routes[name] = l7.Route{Name: name, Rules: []l7.Rule{{Name: "cart", Matches: []l7.Match{{Path: &l7.PathMatch{Kind: l7.Prefix, Value: "/cart"}}}, Backends: []l7.Backend{{Cluster: "1/shop/v2/80"}}}}}
	})
	for _, c := range []struct {
		port    uint16
		request string
		host    string
		want    []string
	}{
		{443, "", "", []string{"Gateway shop/edge takes it: listener https (HTTP, its TLS ends here, for *.test) with HTTPRoute shop/web", "--from shop/old", "ALLOW"}},
		{443, "GET /cart", "a.test", []string{"HTTPRoute shop/web, rule cart: 1/shop/v2/80 100 %", "ALLOW"}},
		{443, "GET /other", "a.test", []string{"no rule of its routes takes GET /other of a.test; the Gateway answers 404", "closed/no-rule", "DENY"}},
		{443, "GET /cart", "b.example", []string{"answers 404", "DENY"}},
		{80, "", "", []string{"Gateway shop/edge has no listener at port 80", "closed/no-listener", "DENY"}},
	} {
		q := explain.Query{From: "shop/web", To: "shop/old", Protocol: "tcp", Port: c.port}
		if c.request != "" {
			r, err := explain.ParseRequest(c.request)
			if err != nil {
				t.Fatal(err)
			}
			r.Host, q.Request = c.host, r
		}
		var text bytes.Buffer
		explain.Packet(q, w).Text(&text)
		for _, part := range c.want {
			if !strings.Contains(text.String(), part) {
				t.Errorf("port %d %s of %s: no %q in\n%s", c.port, c.request, c.host, part, text.String())
			}
		}
	}
}
