package cli

import (
	"testing"

	"moire.dev/moire/explain"
)

// TestTraceAgrees: what was seen of a packet that no proxy sends, against what is
// expected of it.
func TestTraceAgrees(t *testing.T) {
	source := &explain.Mesh{Proxies: []explain.Proxy{{Side: explain.AtSource}, {Side: explain.AtDestination}}}
	destination := &explain.Mesh{Proxies: []explain.Proxy{{Side: explain.AtDestination}}}
	passed := seenHop{Verdict: "allow"}
	refused := func(rule, reason string) seenHop { return seenHop{Verdict: "deny", Rule: rule, Reason: reason} }
	for _, c := range []struct {
		what     string
		expected explain.Answer
		seen     seenHop
		want     bool
	}{
		{"a plain packet passes", explain.Answer{Allow: true}, passed, true},
		{"a plain packet is refused", explain.Answer{Allow: true}, refused("policy/p/x/ingress/0", ""), false},
		{"its rule refuses it", explain.Answer{Rule: "policy/p/x/ingress/0"}, refused("policy/p/x/ingress/0", ""), true},
		{"another rule does", explain.Answer{Rule: "policy/p/x/ingress/0"}, refused("policy/p/x/ingress/1", ""), false},
		{"strict refuses it", explain.Answer{Rule: explain.NotInMesh}, refused("", "not-in-mesh"), true},
		{"only a proxy may say it", explain.Answer{Allow: true, Mesh: source}, refused("default/p/net/open", "needs-proxy"), true},
		{"and somebody else was heard", explain.Answer{Allow: true, Mesh: source}, passed, false},
		{"the proxy is down", explain.Answer{Allow: true, Mesh: source}, refused("", "no-proxy"), false},
		{"a rule refuses it before", explain.Answer{Rule: "policy/p/x/egress/0", Mesh: source}, refused("policy/p/x/egress/0", ""), true},
		{"nobody needs a proxy", explain.Answer{Allow: true}, refused("", "needs-proxy"), false},
		{"the other side asks for requests", explain.Answer{Proxy: true, Mesh: destination}, passed, true},
	} {
		got := traced{Expected: c.expected, Seen: []seenHop{{Where: "from-workload"}, c.seen}}
		if got.agrees() != c.want {
			t.Errorf("%s: %t", c.what, got.agrees())
		}
	}
}
