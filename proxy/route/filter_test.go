package route

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"moire.dev/moire/proxy/message"
)

// pass matches a request and does to it what the rule and its first backend say.
func pass(t *testing.T, table *Table, h *message.Head) Found {
	t.Helper()
	var s Scratch
	var a Arena
	f := table.Match(0, h, &s, &a)
	if f.Rule == nil {
		t.Fatalf("%s%s: %d %s", h.Authority, h.Path, f.Status, f.Why)
	}
	f.Rule.Filters.Request(h, f.Prefix, &a)
	if len(f.Rule.Backends) > 0 {
		f.Rule.Backends[0].Filters.Request(h, f.Prefix, &a)
	}
	return f
}

func fieldsOf(h *message.Head) string {
	var out []string
	for _, f := range h.Fields {
		if f.ID != message.Identify(f.Name) {
			return "wrong id of " + string(f.Name)
		}
		out = append(out, fmt.Sprintf("%s: %s", f.Name, f.Value))
	}
	return strings.Join(out, "; ")
}

func TestHeaderModifiers(t *testing.T) {
	const change = `
    set: [{name: X-Header-Set, value: set-overwrites-values}, {name: user-agent, value: moire}]
    add: [{name: X-Header-Add, value: add-appends-values}]
    remove: [X-Header-Remove, Accept]
`
	table := read(t, `
routes:
- rules:
  - filters:
    - requestHeaders:`+strings.ReplaceAll(change, "\n", "\n    ")+`
    - responseHeaders:`+strings.ReplaceAll(change, "\n", "\n    ")+`
    backends:
    - cluster: v1
      filters: [{requestHeaders: {set: [{name: x-header-set, value: backend}]}}]
`)
	for _, c := range []struct{ in, want string }{
		{"some-other-header: val", "some-other-header: val; x-header-set: %s; user-agent: moire; x-header-add: add-appends-values"},
		{"x-header-set: a; b: c; x-header-set: d; accept: */*", "x-header-set: %s; b: c; user-agent: moire; x-header-add: add-appends-values"},
		{"x-header-add: some-other-value; x-header-remove: 1; x: y; x-header-remove: 2", "x-header-add: some-other-value; x: y; x-header-set: %s; user-agent: moire; x-header-add: add-appends-values"},
	} {
		h := requestOf(ask{target: "/", fields: c.in})
		f := pass(t, table, h)
		if got, want := fieldsOf(h), fmt.Sprintf(c.want, "backend"); got != want {
			t.Errorf("request with %s becomes\n%s, want\n%s", c.in, got, want)
		}
		h = requestOf(ask{target: "/", fields: c.in})
		f.Rule.Filters.Response(h)
		if got, want := fieldsOf(h), fmt.Sprintf(c.want, "set-overwrites-values"); got != want {
			t.Errorf("answer with %s becomes\n%s, want\n%s", c.in, got, want)
		}
	}
}

// TestReplacePrefix is the table at HTTPPathModifier.replacePrefixMatch, and
// what it leaves out.
func TestReplacePrefix(t *testing.T) {
	for _, c := range []struct{ path, prefix, replace, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/foo/bar?q=/foo", "/foo", "/xyz", "/xyz/bar?q=/foo"},
		{"/foo?q", "/foo", "", "/?q"},
		{"/foo", "/", "/xyz", "/xyz/foo"},
		{"/", "/", "/xyz", "/xyz/"},
		{"/", "/", "", "/"},
		{"/foo//bar/../baz", "/foo", "/xyz", "/xyz/baz"},
	} {
		table := read(t, fmt.Sprintf(`
routes:
- rules:
  - matches: [{path: {kind: PathPrefix, value: %q}}]
    filters: [{rewrite: {path: {prefix: %q}}}]
    backends: [{cluster: v1}]
- hostnames: [redirect.example.com]
  rules:
  - matches: [{path: {kind: PathPrefix, value: %q}}]
    filters: [{redirect: {path: {prefix: %q}}}]
`, c.prefix, c.replace, c.prefix, c.replace))
		h := head("GET", "example.com", c.path)
		pass(t, table, h)
		if string(h.Path) != c.want {
			t.Errorf("%s with %s replaced by %q is %s, want %s", c.path, c.prefix, c.replace, h.Path, c.want)
		}
		if got, want := location(t, table, "redirect.example.com", c.path), "302 http://redirect.example.com"+c.want; got != want {
			t.Errorf("%s with %s replaced by %q redirects to %s, want %s", c.path, c.prefix, c.replace, got, want)
		}
	}
}

func TestRewrite(t *testing.T) {
	table := read(t, `
routes:
- rules:
  - matches: [{path: {kind: PathPrefix, value: /full}}]
    filters: [{rewrite: {hostname: one.example.org, path: {full: /one}}}]
    backends: [{cluster: v1}]
  - matches: [{path: {kind: PathPrefix, value: /host}}]
    filters: [{rewrite: {hostname: one.example.org}}]
    backends: [{cluster: v1, filters: [{rewrite: {hostname: two.example.org}}]}]
  - matches: [{path: {kind: PathPrefix, value: /plain}}]
    backends: [{cluster: v1}]
`)
	for _, c := range []struct{ path, host, want string }{
		{"/full/one/two?a=b", "one.example.org", "/one?a=b"},
		{"/host/x", "two.example.org", "/host/x"},
		{"/plain", "Example.com:8080", "/plain"},
	} {
		h := head("GET", "Example.com:8080", c.path)
		pass(t, table, h)
		if string(h.Authority) != c.host || string(h.Path) != c.want {
			t.Errorf("%s goes on as %s%s, want %s%s", c.path, h.Authority, h.Path, c.host, c.want)
		}
	}
}

// location is what the redirect of a rule answers.
func location(t *testing.T, table *Table, host, path string) string {
	t.Helper()
	return locationAt(t, table, 0, host, path)
}

func locationAt(t *testing.T, table *Table, listener int, host, path string) string {
	t.Helper()
	var s Scratch
	var a Arena
	h := head("GET", host, path)
	f := table.Match(listener, h, &s, &a)
	if f.Rule == nil || f.Rule.Filters.Redirect == nil {
		t.Fatalf("%s%s does not redirect: %+v", host, path, f)
	}
	answer := message.Head{Fields: []message.Field{{}}, Status: 99}
	table.Answer(f.Rule.Filters.Redirect, f, h, &answer, &a)
	v, _ := answer.Get(message.Location)
	if len(answer.Fields) != 1 || answer.Framing != message.Sized || answer.Length != 0 {
		t.Errorf("%s%s is answered with %+v", host, path, answer)
	}
	return fmt.Sprint(answer.Status, " ", string(v))
}

func TestRedirect(t *testing.T) {
	const rules = `
  rules:
  - {matches: [{path: {kind: PathPrefix, value: /plain}}], filters: [{redirect: {hostname: example.org}}]}
  - {matches: [{path: {kind: PathPrefix, value: /port80}}], filters: [{redirect: {hostname: example.org, port: 80}}]}
  - {matches: [{path: {kind: PathPrefix, value: /port443}}], filters: [{redirect: {hostname: example.org, port: 443}}]}
  - {matches: [{path: {kind: PathPrefix, value: /port8080}}], filters: [{redirect: {hostname: example.org, port: 8080}}]}
  - {matches: [{path: {kind: PathPrefix, value: /https}}], filters: [{redirect: {hostname: example.org, scheme: https}}]}
  - {matches: [{path: {kind: PathPrefix, value: /https443}}], filters: [{redirect: {scheme: https, port: 443, status: 308}}]}
  - {matches: [{path: {kind: PathPrefix, value: /https8443}}], filters: [{redirect: {scheme: https, port: 8443, status: 307}}]}
  - {matches: [{path: {kind: PathPrefix, value: /http}}], filters: [{redirect: {scheme: http, status: 303}}]}
  - {matches: [{path: {kind: PathPrefix, value: /full}}], filters: [{redirect: {path: {full: /new}, status: 301}}]}
`
	table := read(t, `
listeners:
- {name: l80, address: "0.0.0.0:80"}
- {name: l8080, address: "0.0.0.0:8080"}
- {name: l443, address: "0.0.0.0:443", tls: {certificates: [c]}}
- {name: any, address: "127.0.0.1:0"}
certificates: [{name: c, chainFile: c.pem, keyFile: k.pem}]
routes:
-`+rules)
	for _, c := range []struct {
		listener   int
		host, path string
		want       string
	}{
		{0, "a.com", "/plain?x=1", "302 http://example.org/plain?x=1"}, {1, "a.com", "/plain", "302 http://example.org:8080/plain"},
		{2, "a.com", "/plain", "302 https://example.org/plain"}, {3, "a.com:3000", "/plain", "302 http://example.org:3000/plain"}, {3, "a.com", "/plain", "302 http://example.org/plain"},
		{0, "a.com", "/port80", "302 http://example.org/port80"}, {1, "a.com", "/port80", "302 http://example.org/port80"}, {2, "a.com", "/port80", "302 https://example.org:80/port80"},
		{0, "a.com", "/port443", "302 http://example.org:443/port443"}, {2, "a.com", "/port443", "302 https://example.org/port443"},
		{0, "a.com", "/port8080", "302 http://example.org:8080/port8080"},
		{0, "a.com", "/https", "302 https://example.org/https"}, {1, "a.com", "/https", "302 https://example.org/https"},
		{0, "a.com:80", "/https443", "308 https://a.com/https443"}, {0, "a.com", "/https8443", "307 https://a.com:8443/https8443"},
		{0, "", "/https", "302 https://example.org/https"}, {0, "", "/full/x", "301 /new"},
		{2, "a.com:443", "/http", "303 http://a.com/http"}, {1, "[::1]:8080", "/full/x?q=1", "301 http://[::1]:8080/new?q=1"},
	} {
		if got := locationAt(t, table, c.listener, c.host, c.path); got != c.want {
			t.Errorf("listener %d %s%s: %s, want %s", c.listener, c.host, c.path, got, c.want)
		}
	}
}

func TestMirrors(t *testing.T) {
	table := read(t, `
routes:
- rules:
  - filters:
    - {mirror: {cluster: v2}}
    - {mirror: {cluster: v3, fraction: {numerator: 20}}}
    - {mirror: {cluster: gone, fraction: {numerator: 1, denominator: 2}}}
    - {mirror: {cluster: v1, fraction: {numerator: 0}}}
    backends: [{cluster: v1}]
`)
	m := table.Rule(0).Filters.Mirrors
	var took [4]int
	const n = 10_000
	for i := range m {
		for r := range uint64(n) {
			if m[i].Takes(r * (math.MaxUint64 / n)) {
				took[i]++
			}
		}
	}
	if took[0] != n || took[1] < n/5-2 || took[1] > n/5+2 || took[2] < n/2-2 || took[2] > n/2+2 || took[3] != 0 {
		t.Errorf("of %d requests the mirrors took %v", n, took)
	}
	if m[0].Cluster != 1 || m[1].Cluster != 2 || m[2].Cluster != Invalid {
		t.Errorf("the mirrors go to %v", m)
	}
}

func TestUntouchableHeaders(t *testing.T) {
	for _, name := range []string{"Host", "connection", "Keep-Alive", "proxy-connection", "Transfer-Encoding", "content-length", "te", "Upgrade", "HTTP2-Settings", "trailer", "expect", ":authority", ""} {
		for _, text := range []string{"set: [{name: %q, value: x}]", "add: [{name: %q, value: x}]", "remove: [%q]"} {
			_, err := Build(readConfig(t, fmt.Sprintf(`routes: [{rules: [{filters: [{requestHeaders: {`+text+`}}], backends: [{cluster: v1}]}]}]`, name)))
			if err == nil || !strings.Contains(err.Error(), "routes[0].rules[0].filters[0].requestHeaders.") {
				t.Errorf("%s %q: %v", text, name, err)
			}
		}
	}
}
