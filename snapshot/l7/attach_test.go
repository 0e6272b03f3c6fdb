package l7

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// meets says whether a hostname takes a host.
func meets(hostname, host string) bool {
	if rest, wild := strings.CutPrefix(hostname, "*"); wild {
		return strings.HasSuffix(host, rest) && host != rest
	}
	return hostname == "" || hostname == host
}

// TestClaims: the maps say what trying hosts says.
func TestClaims(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	name := func() string {
		labels := make([]string, 1+g.IntN(3))
		for i := range labels {
			labels[i] = []string{"a", "b", "c"}[g.IntN(3)]
		}
		return strings.Join(labels, ".")
	}
	pattern := func() string {
		switch g.IntN(5) {
		case 0:
			return ""
		case 1, 2:
			return "*." + name()
		}
		return name()
	}
	// Hosts of four labels and fewer tell all these patterns apart.
	var hosts []string
	var grow func(string, int)
	grow = func(s string, n int) {
		if s != "" {
			hosts = append(hosts, s)
		}
		if n == 0 {
			return
		}
		for _, l := range []string{"a", "b", "c"} {
			grow(strings.TrimSuffix(l+"."+s, "."), n-1)
		}
	}
	grow("", 4)
	shared := func(a, b, c string) bool {
		for _, h := range hosts {
			if meets(a, h) && meets(b, h) && meets(c, h) {
				return true
			}
		}
		return false
	}
	for range 3000 {
		listener := pattern()
		if g.IntN(2) == 0 {
			listener = ""
		}
		var c claims
		kinds, owned := map[int]Kind{}, map[int]string{}
		for route := range 4 {
			h, kind := pattern(), []Kind{HTTPRoute, GRPCRoute}[g.IntN(2)]
			if both := intersecting([]string{h}, listener); (len(both) == 1) != shared(h, listener, "") {
				t.Fatalf("intersecting(%q, %q) = %q", h, listener, both)
			} else if len(both) == 0 {
				continue
			}
			want := false
			for other, k := range kinds {
				want = want || k != kind && shared(h, owned[other], listener)
			}
			got := c.claim([]string{h}, listener, kind, route)
			if (got >= 0) != want || got >= 0 && kinds[got] == kind {
				t.Fatalf("listener %q: %s route for %q after %v meets %d, want a conflict: %v", listener, kind, h, owned, got, want)
			}
			if got < 0 {
				kinds[route], owned[route] = kind, h
			}
		}
	}
}

func TestNearest(t *testing.T) {
	possible := []string{"PathPrefix", "Exact", "RegularExpression", "http1", "http2"}
	for word, want := range map[string]string{"Prefix": "PathPrefix", "pathprefix": "PathPrefix", "PathPrefx": "PathPrefix", "Exatc": "Exact", "regularexpresion": "RegularExpression", "htpt2": "http2", "http": "http1", "": "", "whatever": ""} {
		if got := Nearest(word, possible); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
