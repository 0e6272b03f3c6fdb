package route

import (
	"bytes"
	"strings"
	"testing"

	"moire.dev/moire/snapshot/l7"
)

func TestNormalForm(t *testing.T) {
	for _, c := range []struct{ in, want, why string }{
		{"/", "/", ""}, {"/a/b", "/a/b", ""}, {"/a/b/", "/a/b/", ""}, {"/a?b=/../c//d", "/a?b=/../c//d", ""},
		{"//", "/", ""}, {"//a", "/a", ""}, {"/a//b///c", "/a/b/c", ""}, {"/a//", "/a/", ""}, {"//a?q", "/a?q", ""},
		{"/.", "/", ""}, {"/./a", "/a", ""}, {"/a/.", "/a/", ""}, {"/a/./b", "/a/b", ""}, {"/a/../b", "/b", ""}, {"/a/..", "/", ""}, {"/a/b/..", "/a/", ""}, {"/a/b/../..", "/", ""},
		{"/a//../b", "/b", ""}, // the empty element is merged first, as nginx does
		{"/a/%2e%2E/b", "/b", ""}, {"/%2e/a", "/a", ""}, {"/a/.%2e/b", "/b", ""},
		{"/%61%7E%2D", "/a~-", ""}, {"/a%20b%c3%a9", "/a%20b%C3%A9", ""}, {"/%25%32%66", "/%252f", ""}, {"/%252e%252e", "/%252e%252e", ""},
		{"/...", "/...", ""}, {"/.a/..b/c..", "/.a/..b/c..", ""}, {"/a;b=c/d", "/a;b=c/d", ""}, {"/a:b@c!$&'()*+,=d", "/a:b@c!$&'()*+,=d", ""}, {"/caf\xc3\xa9|{}", "/caf\xc3\xa9|{}", ""},
		{"/..", "", badDots}, {"/../a", "", badDots}, {"/a/../../b", "", badDots}, {"/%2e%2e/a", "", badDots}, {"/./../a", "", badDots}, {"//../a", "", badDots},
		{"/a/..;/b", "", badDots}, {"/a/..;x=y", "", badDots}, {"/a/.;/b", "", badDots}, {"/a/%2e%2e;/b", "", badDots},
		{"/a%2fb", "", badSlash}, {"/a%2Fb", "", badSlash}, {"/a/..%2fb", "", badSlash}, {"/%5c", "", badSlash},
		{"/a\\b", "", badByte}, {"/a b", "", badByte}, {"/a\x00", "", badByte}, {"/a\x7f", "", badByte}, {"/a#b", "", badByte}, {"/a?b#c", "", badByte}, {"/a?b c", "", badByte}, {"/a\r\nx: y", "", badByte}, {"/a/%2e/ b", "", badByte},
		{"/%", "", badPercent}, {"/%2", "", badPercent}, {"/%zz", "", badPercent}, {"/a%00", "", badPercent}, {"/%u002f", "", badPercent}, {"/a%?", "", badPercent},
		{"", "", badTarget}, {"a", "", badTarget}, {"*", "", badTarget}, {"http://x/", "", badTarget}, {"?a", "", badTarget},
	} {
		var s Scratch
		var a Arena
		got, why := s.target([]byte(c.in), false, &a)
		if why != c.why || why == "" && string(got) != c.want {
			t.Errorf("%q becomes %q (%s), want %q (%s)", c.in, got, why, c.want, c.why)
		}
	}
}

func TestEncodedSlashesKept(t *testing.T) {
	for _, c := range []struct{ in, want, why string }{
		{"/@scope%2fname", "/@scope%2Fname", ""}, {"/a%2Fb", "/a%2Fb", ""}, {"/a%5cb/../c", "/c", ""}, {"/a%2f", "/a%2F", ""},
		{"/a/..%2fb", "", badDots}, {"/a%2f..%2fb", "", badDots}, {"/a%2F..", "", badDots}, {"/a%5C.%5Cb", "", badDots}, {"/a%2f..;x%2fb", "", badDots}, {"/a;x%2f../b", "", badDots},
	} {
		var s Scratch
		var a Arena
		got, why := s.target([]byte(c.in), true, &a)
		if why != c.why || why == "" && string(got) != c.want {
			t.Errorf("%q becomes %q (%s), want %q (%s)", c.in, got, why, c.want, c.why)
		}
	}
	expect(t, `
listeners: [{name: web, address: "127.0.0.1:80", encodedSlashes: true}]
routes:
- rules:
  - {matches: [{path: {kind: PathPrefix, value: /a/b}}], backends: [{cluster: v1}]}
  - {matches: [{path: {kind: PathPrefix, value: /a%2Fb}}], backends: [{cluster: v2}]}
`, 0, []ask{{"/a/b", "", "v1"}, {"/a%2fb/c", "", "v2"}, {"/%61%2fb", "", "v2"}, {"/a", "", "404"}, {"/a/..%2fb", "", "400"}})
}

func TestHosts(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"example.com", "example.com"}, {"EXAMPLE.Com", "example.com"}, {"example.com.", "example.com"}, {"example.com:80", "example.com"},
		{"example.com.:80", "example.com"}, {"example.com:", "example.com"}, {"a_b-c.d", "a_b-c.d"}, {"127.0.0.1:8080", "127.0.0.1"},
		{"[::1]", "[::1]"}, {"[::1]:80", "[::1]"}, {"[2001:DB8::A]:80", "[2001:db8::a]"}, {"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"},
		{"a..b", "!"}, {".a", "!"}, {"a.b..", "!"}, {".", "!"}, {"..", "!"}, {":80", "!"}, {"a:b", "!"}, {"a:123456", "!"}, {"a:80:80", "!"}, {"user@a", "!"}, {"a/b", "!"}, {"a b", "!"},
		{"a,b", "!"}, {"a%2eb", "!"}, {"caf\xc3\xa9", "!"}, {"*.a", "!"}, {"::1", "!"}, {"[::1", "!"}, {"[]", "!"}, {"[::1]x", "!"}, {"[::1]:x", "!"}, {"[fe80::1%25eth0]", "!"}, {"a\x00", "!"},
		{strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a"}, {strings.Repeat("a", 300), "!"},
	} {
		var s Scratch
		got := "!"
		if s.authority([]byte(c.in)) {
			got = string(s.host[:s.hostLen])
		}
		if got != c.want {
			t.Errorf("host of %q is %q, want %q", c.in, got, c.want)
		}
	}
}

// TestDeepPathsAndHosts: what has more elements or labels than are remembered is
// matched all the same.
func TestDeepPathsAndHosts(t *testing.T) {
	deep := strings.Repeat("/a", 200)
	expect(t, `
routes:
- rules:
  - {matches: [{path: {value: "`+deep+`"}}], backends: [{cluster: v1}]}
  - {matches: [{path: {kind: PathPrefix, value: "`+strings.Repeat("/a", 63)+`"}}], backends: [{cluster: v2}]}
- hostnames: ["*.a.a", "`+strings.Repeat("x.", 63)+`a"]
  rules: [{backends: [{cluster: v3}]}]
`, 0, []ask{
		{deep, "", "v1"}, {deep + "/a", "", "v2"}, {strings.Repeat("/a", 63), "", "v2"}, {strings.Repeat("/a", 62), "", "404"},
		{strings.Repeat("a.", 100) + "a/", "", "v3"}, {strings.Repeat("x.", 63) + "a/", "", "v3"},
	})
}

// FuzzTarget: what is accepted is in normal form, means the same when it is
// taken again, and is hashed as the table hashes it.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/../b//c?x=%zz", "/%2e%2e/a", "/a%2fb;c/..;/d", "/.%2e;%2f", "/a;x%2f../b", "/\x80\xff%C3"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, keep bool) {
		var s, again Scratch
		var a Arena
		given := bytes.Clone(raw)
		got, why := s.target(raw, keep, &a)
		if !bytes.Equal(raw, given) {
			t.Fatalf("%q was changed to %q", given, raw)
		}
		if why != "" {
			return
		}
		if clean, why := again.walk(got, keep); !clean || why != "" {
			t.Fatalf("%q becomes %q, which is not in normal form (%s)", raw, got, why)
		}
		path := string(got[:s.end])
		hash, elements := pathHash(path)
		if hash != s.full || elements != s.elements {
			t.Fatalf("%q: %d elements, hash %x, want %d, %x", path, s.elements, s.full, elements, hash)
		}
		decoded := strings.NewReplacer("%2F", "/", "%5C", "/").Replace(path)
		for i, e := range strings.Split(decoded, "/") {
			e, _, _ = strings.Cut(e, ";")
			if e == "." || e == ".." {
				t.Fatalf("%q becomes %q: element %d is a dot segment", raw, got, i)
			}
		}
		if strings.Contains(path, "//") || strings.ContainsAny(path, "\\ #\x00") {
			t.Fatalf("%q becomes %q", raw, got)
		}
	})
}

// FuzzConfigPath: a path that Validate takes is one that requests can have.
func FuzzConfigPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a//b", "/%2e", "/%c3%a9", "/%C3%A9", "/a;b", "/..;a", "/x%2Fy"} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, path string, keep bool) {
		cfg := readConfig(t, `routes: [{rules: [{matches: [{path: {}}]}]}]`)
		cfg.Listeners[0].EncodedSlashes = keep
		cfg.Routes[0].Rules[0].Matches[0].Path = &l7.PathMatch{Value: path}
		_, err := Build(cfg)
		var s Scratch
		var a Arena
		got, why := s.target([]byte(path), keep, &a)
		normal := why == "" && string(got) == path && s.end == len(path)
		if (err == nil) != normal && len(path) <= 4096 {
			t.Fatalf("%q in a configuration: %v; in a request: %q %s", path, err, got, why)
		}
	})
}
