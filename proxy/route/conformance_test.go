package route

import "testing"

// The tables here say what the conformance cases of the Gateway API of the same
// names mean.

func TestHTTPRouteMatching(t *testing.T) {
	expect(t, `
routes:
- rules:
  - matches:
    - path: {kind: PathPrefix, value: /}
    - headers: [{name: version, value: one}]
    backends: [{cluster: v1}]
  - matches:
    - path: {kind: PathPrefix, value: /v2}
    - headers: [{name: Version, value: two}]
    backends: [{cluster: v2}]
`, 0, []ask{
		{"/", "", "v1"}, {"/example", "", "v1"}, {"/", "version: one", "v1"},
		{"/v2", "", "v2"}, {"/v2/example", "", "v2"}, {"/", "version: two", "v2"}, {"/v2/", "", "v2"},
		{"/v2example", "", "v1"}, {"/foo/v2/example", "", "v1"},
	})
}

func TestHTTPRouteMatchingAcrossRoutes(t *testing.T) {
	expect(t, `
routes:
- hostnames: [example.com, example.net]
  rules:
  - matches:
    - path: {kind: PathPrefix, value: /}
    - headers: [{name: version, value: one}]
    backends: [{cluster: v1}]
- hostnames: [example.com]
  rules:
  - matches:
    - path: {kind: PathPrefix, value: /v2}
    - headers: [{name: version, value: two}]
    backends: [{cluster: v2}]
`, 0, []ask{
		{"example.com/", "", "v1"}, {"example.com/example", "", "v1"}, {"example.net/example", "", "v1"},
		{"example.com/example", "version: one", "v1"}, {"example.com/v2", "", "v2"}, {"example.net/v2", "", "v1"},
		{"example.com/v2/example", "", "v2"}, {"example.com/", "version: two", "v2"},
	})
}

func TestHTTPRoutePathMatchOrder(t *testing.T) {
	expect(t, `
routes:
- rules:
  - {matches: [{path: {value: /match}}], backends: [{cluster: v1}]}
  - {matches: [{path: {value: /match/exact}}], backends: [{cluster: v2}]}
  - {matches: [{path: {value: /match/exact/one}}], backends: [{cluster: v3}]}
  - {matches: [{path: {kind: PathPrefix, value: /match/}}], backends: [{cluster: v3}]}
  - {matches: [{path: {kind: PathPrefix, value: /match/prefix/}}], backends: [{cluster: v1}]}
  - {matches: [{path: {kind: PathPrefix, value: /match/prefix/one}}], backends: [{cluster: v2}]}
`, 0, []ask{
		{"/match/exact/one", "", "v3"}, {"/match/exact", "", "v2"}, {"/match", "", "v1"},
		{"/match/prefix/one/any", "", "v2"}, {"/match/prefix/any", "", "v1"}, {"/match/any", "", "v3"},
		{"/match/", "", "v3"}, {"/Match", "", "404"}, {"/matching", "", "404"},
	})
}

func TestHTTPRouteExactPathMatching(t *testing.T) {
	expect(t, `
routes:
- rules:
  - {matches: [{path: {value: /one}}], backends: [{cluster: v1}]}
  - {matches: [{path: {value: /two}}], backends: [{cluster: v2}]}
`, 0, []ask{{"/one", "", "v1"}, {"/two", "", "v2"}, {"/", "", "404"}, {"/one/example", "", "404"}, {"/two/", "", "404"}, {"/Two", "", "404"}})
}

func TestHTTPRouteHeaderMatching(t *testing.T) {
	expect(t, `
routes:
- rules:
  - {matches: [{headers: [{name: version, value: one}]}], backends: [{cluster: v1}]}
  - {matches: [{headers: [{name: version, value: two}]}], backends: [{cluster: v2}]}
  - {matches: [{headers: [{name: version, value: two}, {name: color, value: orange}]}], backends: [{cluster: v1}]}
  - matches: [{headers: [{name: color, value: blue}]}, {headers: [{name: color, value: green}]}]
    backends: [{cluster: v1}]
  - matches: [{headers: [{name: color, value: red}]}, {headers: [{name: color, value: yellow}]}]
    backends: [{cluster: v2}]
`, 0, []ask{
		{"/", "version: one", "v1"}, {"/", "version: two", "v2"}, {"/", "version: two; color: orange", "v1"},
		{"/", "version: two; color: blue", "v2"}, {"/", "color: orange", "404"}, {"/", "some-other-header: one", "404"},
		{"/", "color: blue", "v1"}, {"/", "color: green", "v1"}, {"/", "color: red", "v2"}, {"/", "color: yellow", "v2"}, {"/", "color: purple", "404"},
		// A repeated header is one value, joined with commas.
		{"/", "color: blue; color: red", "404"}, {"/", "color: blue,red", "404"},
	})
}

func TestHTTPRouteMethodMatching(t *testing.T) {
	expect(t, `
routes:
- rules:
  - {matches: [{method: POST}], backends: [{cluster: v1}]}
  - {matches: [{method: GET}], backends: [{cluster: v2}]}
  - {matches: [{path: {kind: PathPrefix, value: /path1}, method: GET}], backends: [{cluster: v1}]}
  - {matches: [{headers: [{name: version, value: one}], method: PUT}], backends: [{cluster: v2}]}
  - {matches: [{path: {kind: PathPrefix, value: /path2}, headers: [{name: version, value: two}], method: POST}], backends: [{cluster: v3}]}
  - matches:
    - {path: {kind: PathPrefix, value: /path3}, method: PATCH}
    - {path: {kind: PathPrefix, value: /path4}, headers: [{name: version, value: three}], method: DELETE}
    backends: [{cluster: v1}]
  - {matches: [{path: {kind: PathPrefix, value: /path5}}], backends: [{cluster: v1}]}
  - {matches: [{method: PATCH}], backends: [{cluster: v2}]}
  - {matches: [{headers: [{name: version, value: four}]}], backends: [{cluster: v3}]}
`, 0, []ask{
		{"/", "method: POST", "v1"}, {"/", "method: GET", "v2"}, {"/", "method: HEAD", "404"}, {"/path1", "method: GET", "v1"},
		{"/", "method: PUT; version: one", "v2"}, {"/path2", "method: POST; version: two", "v3"}, {"/path3", "method: PATCH", "v1"},
		{"/path4", "method: DELETE; version: three", "v1"}, {"/", "method: PUT", "404"}, {"/path4", "method: DELETE", "404"},
		{"/path5", "method: PATCH", "v1"}, {"/", "method: PATCH; version: four", "v2"}, {"/", "method: get", "404"},
	})
}

func TestHTTPRouteQueryParamMatching(t *testing.T) {
	expect(t, `
routes:
- rules:
  - {matches: [{query: [{name: animal, value: whale}]}], backends: [{cluster: v1}]}
  - {matches: [{query: [{name: animal, value: dolphin}]}], backends: [{cluster: v2}]}
  - matches: [{query: [{name: animal, value: dolphin}, {name: color, value: blue}]}, {query: [{name: ANIMAL, value: Whale}]}]
    backends: [{cluster: v3}]
  - {matches: [{path: {kind: PathPrefix, value: /path1}, query: [{name: animal, value: whale}]}], backends: [{cluster: v1}]}
  - {matches: [{headers: [{name: version, value: one}], query: [{name: animal, value: whale}]}], backends: [{cluster: v2}]}
  - {matches: [{path: {kind: PathPrefix, value: /path5}}], backends: [{cluster: v1}]}
  - {matches: [{query: [{name: animal, value: hydra}]}], backends: [{cluster: v2}]}
  - {matches: [{headers: [{name: version, value: four}]}], backends: [{cluster: v3}]}
`, 0, []ask{
		{"/?animal=whale", "", "v1"}, {"/?animal=dolphin", "", "v2"}, {"/?animal=dolphin&color=blue", "", "v3"}, {"/?ANIMAL=Whale", "", "v3"},
		{"/?animal=whale&otherparam=irrelevant", "", "v1"}, {"/?animal=dolphin&color=yellow", "", "v2"}, {"/?color=blue", "", "404"},
		{"/?animal=dog", "", "404"}, {"/?animal=whaledolphin", "", "404"}, {"/", "", "404"}, {"/path1?animal=whale", "", "v1"},
		{"/?animal=whale", "version: one", "v2"}, {"/path5?animal=hydra", "", "v1"}, {"/?animal=hydra", "version: four", "v3"},
		// The first of a repeated parameter counts, however it is written.
		{"/?animal=dog&animal=whale", "", "404"}, {"/?animal=whale&animal=dog", "", "v1"},
		{"/?%61nimal=wh%61le", "", "v1"}, {"/?animal=dog&%61nimal=whale", "", "404"}, {"/?&&animal=whale", "", "v1"}, {"/?animal", "", "404"},
	})
}

func TestHTTPRouteHostnameIntersection(t *testing.T) {
	const text = `
listeners:
- {name: l1, address: "0.0.0.0:80", hostname: very.specific.com}
- {name: l2, address: "0.0.0.0:80", hostname: "*.wildcard.io"}
- {name: l3, address: "0.0.0.0:80", hostname: "*.anotherwildcard.io"}
routes:
- hostnames: [non.matching.com, "*.nonmatchingwildcard.io", very.specific.com]
  rules: [{matches: [{path: {kind: PathPrefix, value: /s1}}], backends: [{cluster: v1}]}]
- hostnames: [non.matching.com, wildcard.io, foo.wildcard.io, bar.wildcard.io, foo.bar.wildcard.io]
  rules: [{matches: [{path: {kind: PathPrefix, value: /s2}}], backends: [{cluster: v2}]}]
- hostnames: [non.matching.com, "*.specific.com"]
  rules: [{matches: [{path: {kind: PathPrefix, value: /s3}}], backends: [{cluster: v3}]}]
- hostnames: ["*.anotherwildcard.io"]
  rules: [{matches: [{path: {kind: PathPrefix, value: /s4}}], backends: [{cluster: v1}]}]
- hostnames: [specific.but.wrong.com, wildcard.io]
  rules: [{matches: [{path: {kind: PathPrefix, value: /s5}}], backends: [{cluster: v2}]}]
`
	asks := []ask{
		{"very.specific.com/s1", "", "v1"}, {"very.specific.com:1234/s1", "", "v1"}, {"VERY.specific.com./s1", "", "v1"},
		{"non.matching.com/s1", "", "404"}, {"foo.nonmatchingwildcard.io/s1", "", "404"}, {"foo.wildcard.io/s1", "", "404"},
		{"very.specific.com/non-matching-prefix", "", "404"}, {"foo.wildcard.io/s2", "", "v2"}, {"bar.wildcard.io/s2", "", "v2"},
		{"foo.bar.wildcard.io/s2", "", "v2"}, {"non.matching.com/s2", "", "404"}, {"wildcard.io/s2", "", "404"}, {"very.specific.com/s2", "", "404"},
		{"very.specific.com/s3", "", "v3"}, {"non.matching.com/s3", "", "404"}, {"foo.specific.com/s3", "", "404"}, {"foo.wildcard.io/s3", "", "404"},
		{"foo.anotherwildcard.io/s4", "", "v1"}, {"foo.bar.anotherwildcard.io/s4", "", "v1"}, {"anotherwildcard.io/s4", "", "404"},
		{"foo.wildcard.io/s4", "", "404"}, {"specific.but.wrong.com/s5", "", "404"}, {"wildcard.io/s5", "", "404"},
	}
	for listener := range 3 { // whichever socket of the address it comes from
		expect(t, text, listener, asks)
	}
	expect(t, `
routes:
- hostnames: [first.com, sub.first.com, second.com, sub.second.com]
  rules: [{backends: [{cluster: v2}]}]
`, 0, []ask{{"first.com/", "", "v2"}, {"sub.first.com/", "", "v2"}, {"second.com/", "", "v2"}, {"third.com/", "", "404"}, {"sub.third.com/", "", "404"}})
}

func TestHTTPRouteListenerHostnameMatching(t *testing.T) {
	expect(t, `
listeners:
- {name: l1, address: "0.0.0.0:80", hostname: bar.com}
- {name: l2, address: "0.0.0.0:80", hostname: foo.bar.com}
- {name: l3, address: "0.0.0.0:80", hostname: "*.bar.com"}
- {name: l4, address: "0.0.0.0:80", hostname: "*.foo.com"}
routes:
- {listeners: [l1], rules: [{backends: [{cluster: v1}]}]}
- {listeners: [l2], rules: [{backends: [{cluster: v2}]}]}
- {listeners: [l3, l4], rules: [{backends: [{cluster: v3}]}]}
`, 2, []ask{
		{"bar.com/", "", "v1"}, {"foo.bar.com/", "", "v2"}, {"baz.bar.com/", "", "v3"}, {"boo.bar.com/", "", "v3"},
		{"multiple.prefixes.bar.com/", "", "v3"}, {"multiple.prefixes.foo.com/", "", "v3"}, {"foo.com/", "", "404"}, {"no.matching.host/", "", "404"},
	})
}

func TestGatewayHTTPListenerIsolation(t *testing.T) {
	expect(t, `
listeners:
- {name: empty, address: "0.0.0.0:80"}
- {name: wide, address: "0.0.0.0:80", hostname: "*.example.com"}
- {name: foo, address: "0.0.0.0:80", hostname: "*.foo.example.com"}
- {name: abc, address: "0.0.0.0:80", hostname: abc.foo.example.com}
routes:
- {listeners: [empty], rules: [{matches: [{path: {kind: PathPrefix, value: /empty}}], backends: [{cluster: v1}]}]}
- {listeners: [wide], rules: [{matches: [{path: {kind: PathPrefix, value: /wide}}], backends: [{cluster: v1}]}]}
- {listeners: [foo], rules: [{matches: [{path: {kind: PathPrefix, value: /foo}}], backends: [{cluster: v1}]}]}
- {listeners: [abc], rules: [{matches: [{path: {kind: PathPrefix, value: /abc}}], backends: [{cluster: v1}]}]}
`, 0, []ask{
		{"bar.com/empty", "", "v1"}, {"bar.com/wide", "", "404"}, {"bar.com/foo", "", "404"}, {"bar.com/abc", "", "404"},
		{"bar.example.com/empty", "", "404"}, {"bar.example.com/wide", "", "v1"}, {"bar.example.com/foo", "", "404"},
		{"bar.foo.example.com/wide", "", "404"}, {"bar.foo.example.com/foo", "", "v1"}, {"bar.foo.example.com/abc", "", "404"},
		{"abc.foo.example.com/foo", "", "404"}, {"abc.foo.example.com/abc", "", "v1"}, {"abc.foo.example.com/empty", "", "404"},
	})
}

func TestPrecedence(t *testing.T) {
	expect(t, `
routes:
- name: younger
  created: 200
  hostnames: [a.example.com]
  rules: [{matches: [{path: {kind: PathPrefix, value: /age}}], backends: [{cluster: v1}]}]
- name: older
  created: 100
  hostnames: [a.example.com]
  rules:
  - {matches: [{path: {kind: PathPrefix, value: /age}}], backends: [{cluster: v2}]}
  - {matches: [{path: {kind: PathPrefix, value: /age}}], backends: [{cluster: v3}]}
- name: wide
  hostnames: ["*.example.com"]
  rules: [{backends: [{cluster: v3}]}]
- name: all
  rules:
  - {matches: [{path: {value: /exact}}], backends: [{cluster: v1}]}
  - {matches: [{path: {kind: RegularExpression, value: "/users/[0-9]+"}}], backends: [{cluster: v2}]}
  - {matches: [{path: {kind: PathPrefix, value: /users/1}}], backends: [{cluster: v1}]}
`, 0, []ask{
		{"a.example.com/age", "", "v2"},   // the older route, its first rule
		{"a.example.com/exact", "", "v3"}, // a more specific host before an exact path
		{"b.example.com/age", "", "v3"},
		{"example.org/exact", "", "v1"},
		{"example.org/users/1", "", "v2"},   // an expression before a prefix
		{"example.org/users/1/x", "", "v1"}, // but it has to match the whole path
		{"example.org/", "", "404"},
	})
}
