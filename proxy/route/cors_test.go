package route

import (
	"strings"
	"testing"

	"moire.dev/moire/proxy/message"
)

const corsRoutes = `
routes:
- rules:
  - matches: [{path: {kind: PathPrefix, value: /cors-1}}]
    filters:
    - cors:
        allowOrigins: ["https://www.foo.com", "https://*.bar.com", "http://plain.com:80", "https://port.com:8443"]
        allowMethods: [GET, OPTIONS]
        allowHeaders: [x-header-1, x-header-2]
        exposeHeaders: [x-header-3, x-header-4]
        allowCredentials: true
        maxAge: 3600
  - matches: [{path: {kind: PathPrefix, value: /cors-2}}]
    filters: [{cors: {allowOrigins: ["https://www.foo.com"], allowMethods: ["*"]}}]
  - matches: [{path: {kind: PathPrefix, value: /any}}]
    filters: [{cors: {allowOrigins: ["*"], allowMethods: [PUT]}}]
  - matches: [{path: {kind: PathPrefix, value: /all}}]
    filters: [{cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: ["*"], allowCredentials: true}}]
  - matches: [{path: {kind: PathPrefix, value: /unauth}}]
    filters: [{cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: ["*"]}}]
  - matches: [{path: {kind: PathPrefix, value: /hosts}}]
    filters: [{cors: {allowOrigins: ["https://*"]}}]
`

func corsOf(t *testing.T, table *Table, h *message.Head) *CORS {
	t.Helper()
	return pass(t, table, h).Rule.Filters.CORS
}

func TestCORSPreflight(t *testing.T) {
	table := read(t, corsRoutes)
	for _, c := range []struct{ path, fields, want string }{
		{"/cors-1", "origin: https://www.foo.com; access-control-request-method: GET; access-control-request-headers: x-header-1, x-header-2",
			"204 access-control-allow-origin: https://www.foo.com; access-control-allow-credentials: true; access-control-allow-methods: GET, OPTIONS; access-control-allow-headers: x-header-1, x-header-2; access-control-expose-headers: x-header-3, x-header-4; access-control-max-age: 3600; vary: origin"},
		{"/cors-1", "origin: https://foobar.com; access-control-request-method: GET", "403 vary: origin"},
		{"/cors-2", "origin: https://www.foo.com; access-control-request-method: POST",
			"204 access-control-allow-origin: https://www.foo.com; access-control-allow-methods: *; access-control-max-age: 5; vary: origin"},
		{"/any", "origin: https://foobar.com:12345; access-control-request-method: PUT",
			"204 access-control-allow-origin: *; access-control-allow-methods: PUT; access-control-max-age: 5"},
		{"/all", "origin: https://other.foo.com; access-control-request-method: PUT; access-control-request-headers: x-header-1, x-header-2",
			"204 access-control-allow-origin: https://other.foo.com; access-control-allow-credentials: true; access-control-allow-methods: PUT; access-control-allow-headers: x-header-1, x-header-2; access-control-max-age: 5; vary: origin; vary: access-control-request-method, access-control-request-headers"},
		{"/unauth", "origin: null; access-control-request-method: PUT; access-control-request-headers: x-header-1",
			"204 access-control-allow-origin: *; access-control-allow-methods: *; access-control-allow-headers: *; access-control-expose-headers: *; access-control-max-age: 5"},
	} {
		h := requestOf(ask{target: c.path, fields: "method: OPTIONS; " + c.fields})
		var answer message.Head
		var a Arena
		if !corsOf(t, table, h).Preflight(h, &answer, &a) {
			t.Errorf("%s %s is not taken for a preflight", c.path, c.fields)
			continue
		}
		got := map[bool]string{true: "204 ", false: "403 "}[answer.Status == 204] + fieldsOf(&answer)
		if got != c.want {
			t.Errorf("%s %s: answered\n%s, want\n%s", c.path, c.fields, got, c.want)
		}
	}
	for _, fields := range []string{"method: OPTIONS; origin: https://www.foo.com", "method: OPTIONS; access-control-request-method: GET", "origin: https://www.foo.com; access-control-request-method: GET"} {
		h := requestOf(ask{target: "/cors-1", fields: fields})
		if corsOf(t, table, h).Preflight(h, &message.Head{}, &Arena{}) {
			t.Errorf("%s is taken for a preflight", fields)
		}
	}
}

func TestCORSResponse(t *testing.T) {
	table := read(t, corsRoutes)
	for _, c := range []struct{ path, origin, answer, want string }{
		{"/cors-1", "https://www.foo.com", "x: y; access-control-allow-origin: *",
			"x: y; access-control-allow-origin: https://www.foo.com; access-control-allow-credentials: true; access-control-expose-headers: x-header-3, x-header-4; vary: origin"},
		{"/cors-1", "https://foobar.com", "access-control-allow-origin: *; x: y", "x: y; vary: origin"},
		{"/cors-1", "", "vary: accept, Origin", "vary: accept, Origin"},
		{"/cors-1", "", "vary: accept", "vary: accept; vary: origin"},
		{"/any", "https://foobar.com", "x: y", "x: y; access-control-allow-origin: *"},
		{"/all", "https://a.com", "x: y; set-cookie: a=b; etag: 1", "x: y; set-cookie: a=b; etag: 1; access-control-allow-origin: https://a.com; access-control-allow-credentials: true; access-control-expose-headers: x, etag; vary: origin"},
		{"/unauth", "https://a.com", "x: y", "x: y; access-control-allow-origin: *; access-control-expose-headers: *"},
	} {
		h := requestOf(ask{target: c.path})
		if c.origin != "" {
			h.Add([]byte("origin"), []byte(c.origin))
		}
		cors := corsOf(t, table, h)
		var a Arena
		o := cors.Origin(h, &a)
		answer := requestOf(ask{target: "/", fields: c.answer})
		cors.Response(answer, o, &a)
		if got := fieldsOf(answer); got != c.want {
			t.Errorf("%s from %q: answer\n%s, want\n%s", c.path, c.origin, got, c.want)
		}
	}
}

func TestCORSOrigins(t *testing.T) {
	table := read(t, corsRoutes)
	for path, origins := range map[string]string{
		"/cors-1": "https://www.foo.com yes https://WWW.foo.com yes https://www.foo.com:443 yes http://www.foo.com no https://www.foo.com:8443 no " +
			"https://www.bar.com yes https://xpto.www.bar.com yes https://bar.com no https://.bar.com no https://evilbar.com no https://www.bar.com.evil.com no " +
			"https://www.bar.com:8443 no http://plain.com yes http://plain.com:80 yes https://port.com:8443 yes https://port.com no null no www.foo.com no",
		"/hosts": "https://a yes https://a.b:443 yes https://a.b:444 no http://a no",
	} {
		words := strings.Fields(origins)
		for i := 0; i < len(words); i += 2 {
			h := head("GET", "x", path, "origin", words[i])
			if got := corsOf(t, table, h).Origin(h, &Arena{}).allowed; got != (words[i+1] == "yes") {
				t.Errorf("%s: origin %s allowed: %v", path, words[i], got)
			}
		}
	}
}
