package route

import (
	"testing"

	"moire.dev/moire/proxy/message"
)

// TestNormal: without a Table the form is the same as with one.
func TestNormal(t *testing.T) {
	for _, c := range []struct{ method, authority, path, host, want, why string }{
		{"GET", "Shop.Example.:8080", "/a//b/./c/../%7ex?q=//", "shop.example", "/a/b/~x?q=//", ""},
		{"GET", "[FD00::1]:80", "/", "[fd00::1]", "/", ""},
		{"GET", "", "/a%2fb", "", "", badSlash},
		{"GET", "a b", "/", "", "", badHost},
		{"GET", "a", "/../b", "", "", badDots},
		{"GET", "a", "", "", "", badTarget},
		{"OPTIONS", "a", "*", "a", "*", ""},
		{"GET", "a", "*", "", "", badTarget},
		{"CONNECT", "a:443", "", "a", "", ""},
	} {
		h := &message.Head{Method: []byte(c.method), Authority: []byte(c.authority), Path: []byte(c.path)}
		var s Scratch
		var a Arena
		if why := s.Normal(h, false, &a); why != c.why {
			t.Errorf("%s %s %s: %q", c.method, c.authority, c.path, why)
		} else if why == "" && (string(h.Path) != c.want || string(s.Host()) != c.host) {
			t.Errorf("%s %s %s: path %s, host %s", c.method, c.authority, c.path, h.Path, s.Host())
		}
	}
	var s Scratch
	var a Arena
	if s.Normal(&message.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/a%2Fb")}, true, &a) != "" {
		t.Error("a slash that is to be kept is refused")
	}
}
