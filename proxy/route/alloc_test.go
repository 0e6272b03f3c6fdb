package route

import (
	"net/netip"
	"testing"

	"moire.dev/moire/proxy/message"
)

// TestNothingAllocates: once warm, no step of a request takes memory.
func TestNothingAllocates(t *testing.T) {
	table := read(t, `
routes:
- hostnames: ["*.example.com"]
  rules:
  - matches:
    - path: {kind: PathPrefix, value: /shop}
      headers: [{name: x-version, value: "1,2"}, {name: x-re, kind: RegularExpression, value: "a+b"}]
      query: [{name: currency, value: eur}]
    filters:
    - requestHeaders: {set: [{name: x-a, value: b}], add: [{name: x-b, value: c}], remove: [x-re]}
    - responseHeaders: {set: [{name: x-a, value: b}], remove: [server]}
    - rewrite: {hostname: internal.example.com, path: {prefix: /v2}}
    - cors: {allowOrigins: ["https://*.example.com"], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: ["*"], allowCredentials: true}
    - mirror: {cluster: v2, fraction: {numerator: 10}}
    backends: [{cluster: v1, weight: 90}, {cluster: v2, weight: 10}]
    hash: [{header: x-version}, {cookie: sid}, {query: currency}]
    rateLimits: [{requests: 10, per: 1s, by: "header:x-version"}]
  - matches: [{path: {kind: PathPrefix, value: /old}}]
    filters: [{redirect: {scheme: https, path: {prefix: /new}}}]
`)
	var s Scratch
	var a Arena
	var h, answer message.Head
	old := head("GET", "A.example.com", "/old/x")
	caller := netip.MustParseAddr("10.0.0.1")
	given := head("GET", "A.example.com:8080", "/x/../shop//carts?currency=%65ur", "x-version", "1", "x-version", "2", "x-re", "aab",
		"cookie", "a=b; sid=42", "origin", "https://web.example.com", "access-control-request-method", "PUT", "access-control-request-headers", "x-a")
	options := []byte("OPTIONS")
	once := func() {
		a.Reset()
		fields := append(h.Fields[:0], given.Fields...)
		h = *given
		h.Fields = fields
		f := table.Match(0, &h, &s, &a)
		if f.Rule == nil {
			t.Fatal(f.Status, f.Why)
		}
		r := f.Rule
		origin := r.Filters.CORS.Origin(&h, &a)
		h.Method = options
		if !r.Filters.CORS.Preflight(&h, &answer, &a) {
			t.Fatal("no preflight")
		}
		_ = r.HashOf(&h, caller, &s) + r.LimitKey(0, hashSeed, &h, caller, nil, &s)
		r.Filters.Request(&h, f.Prefix, &a)
		r.Backends[r.Pick(12345)].Filters.Request(&h, f.Prefix, &a)
		_ = r.Filters.Mirrors[0].Takes(1 << 40)
		answer.Reset()
		r.Filters.CORS.Response(&answer, origin, &a)
		r.Filters.Response(&answer)
		f = table.Match(0, old, &s, &a)
		table.Answer(f.Rule.Filters.Redirect, f, old, &answer, &a)
		table.MatchTLS(0, old.Authority, &s)
	}
	once()
	if string(h.Path) != "/v2/carts?currency=%65ur" || string(h.Authority) != "internal.example.com" {
		t.Fatalf("goes on as %s%s", h.Authority, h.Path)
	}
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
