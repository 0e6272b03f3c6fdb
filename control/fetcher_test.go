package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
)

const aKeySet = `{"keys": [ {"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"} ]}`

// TestWhoIsAsked: nothing that a tenant writes makes us ask inside.
func TestWhoIsAsked(t *testing.T) {
	g := newGuard([]netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}, nil, nil)
	g.own = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("8.8.4.4")} }
	for text, want := range map[string]bool{
		"1.1.1.1": true, "2606:4700::1111": true, "::ffff:1.1.1.1": true, "10.7.0.1": true, "::ffff:10.7.0.1": true,
		"10.8.0.1": false, "127.0.0.1": false, "::1": false, "0.0.0.0": false, "::": false, "169.254.169.254": false, "::ffff:169.254.169.254": false,
		"172.16.0.1": false, "192.168.1.1": false, "100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"198.18.0.1": false, "203.0.113.1": false, "fe80::1": false, "fe80::1%eth0": false, "fd00::1": false, "ff02::1": false, "fec0::1": false,
		"64:ff9b::a9fe:a9fe": false, "2002:a9fe:a9fe::1": false, "2001::1": false, "2001:db8::1": false, "::10.0.0.1": false, "100::1": false,
		"8.8.4.4": false, "8.8.8.8": true,
	} {
		if got := g.allows(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if g.allows(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}

// issuer is an https server whose answer can be changed.
type issuer struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  int
}

func newIssuer(t *testing.T) (*issuer, *guard) {
	t.Helper()
	i := &issuer{}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.asked++
		answer := i.answer
		i.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(i.Close)
	trust := x509.NewCertPool()
	trust.AddCert(i.Certificate())
	g := newGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil, &tls.Config{RootCAs: trust})
	return i, g
}

func (i *issuer) says(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
}

func TestFetch(t *testing.T) {
	i, g := newIssuer(t)
	g.client.Timeout = time.Second
	gone := make(chan struct{})
	defer close(gone)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		fresh  time.Duration
		err    string
	}{
		"good": {text(aKeySet), 0, ""},
		"with its time": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=600")
			fmt.Fprint(w, aKeySet)
		}, 10 * time.Minute, ""},
		"not to be kept": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			fmt.Fprint(w, aKeySet)
		}, time.Nanosecond, ""},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/", http.StatusFound)
		}, 0, "not followed"},
		"error": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, 0, "500"},
		"large": {text(strings.Repeat(" ", maxDocument+1)), 0, "larger"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 20 {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 1024)); err != nil {
					return
				}
			}
		}, 0, "larger"},
		"slow": {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); <-gone }, 0, "in time"},
		"large head": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("A", strings.Repeat("a", 1<<20))
			fmt.Fprint(w, aKeySet)
		}, 0, "header"},
	} {
		i.says(c.answer)
		body, fresh, err := g.fetch(t.Context(), i.URL)
		switch {
		case c.err == "" && (err != nil || fresh != c.fresh || string(body) != aKeySet):
			t.Errorf("%s: %q %v %v", name, body, fresh, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, uri := range []string{strings.Replace(i.URL, "https", "http", 1), "ftp://a.example/", "https://", "file:///etc/passwd"} {
		if _, _, err := g.fetch(t.Context(), uri); err == nil {
			t.Errorf("%s is fetched", uri)
		}
	}
}

// TestFetchStaysOutside: who is inside is not even connected to, and an unknown
// name is told alike.
func TestFetchStaysOutside(t *testing.T) {
	i, g := newIssuer(t)
	i.says(text(aKeySet))
	g.inside = nil
	answers := [][]netip.Addr{{netip.MustParseAddr("127.0.0.1")}, nil}
	g.lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		if name == "unknown.example" {
			return nil, errors.New("does not exist")
		}
		a := answers[0]
		answers = answers[1:]
		return a, nil
	}
	port := i.URL[strings.LastIndex(i.URL, ":"):]
	for _, uri := range []string{i.URL, "https://rebind.example" + port, "https://nothing.example" + port, "https://unknown.example" + port, "https://[::ffff:127.0.0.1]" + port} {
		if _, _, err := g.fetch(t.Context(), uri); !errors.Is(err, errNotPublic) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	if i.asked != 0 || len(answers) != 0 {
		t.Errorf("asked %d times, %d answers left", i.asked, len(answers))
	}
}

func TestReadKeySet(t *testing.T) {
	if got, err := readKeySet([]byte(aKeySet)); err != nil || strings.Contains(got, " ") {
		t.Errorf("%s %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"keys":[]}`, "<html>", `[]`, aKeySet + aKeySet, `{"keys":[{"kid":"` + "\xff" + `"}]}`, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, `{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","d":"AQ"}]}`} {
		if got, err := readKeySet([]byte(bad)); err == nil {
			t.Errorf("%s: %s", bad, got)
		}
	}
}

// TestFetcher: sets are fetched, shared with other processes, kept when they
// cannot be fetched anew, and complained about.
func TestFetcher(t *testing.T) {
	i, g := newIssuer(t)
	i.says(text(aKeySet))
	rows := newMemory()
	k := loadedKeeper(t, rows, "a")
	var mu sync.Mutex
	clock := time.Now()
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
	f := newFetcher(k, g, silent(), now)
	state := map[string]*asked{}
	pass := func(later time.Duration) keySet {
		mu.Lock()
		clock = clock.Add(later)
		mu.Unlock()
		f.pass(t.Context(), state)
		s, _ := k.keySets().find(i.URL)
		return s
	}
	f.want([]string{i.URL})
	first := pass(0)
	if first.JSON == "" || first.Error != "" || time.Unix(first.Until, 0).Before(now().Add(believeKeys-time.Minute)) {
		t.Fatalf("%+v", first)
	}
	if pass(time.Minute); i.asked != 1 {
		t.Errorf("asked %d times in a minute", i.asked)
	}
	if again := pass(10 * time.Minute); i.asked != 2 || again != first {
		t.Errorf("asked %d times; %+v", i.asked, again)
	}
	if later := pass(13 * time.Hour); later.Until <= first.Until {
		t.Error("a set that can be fetched gets too old")
	}
	other := loadedKeeper(t, rows, "b")
	if err := other.loadKeySets(t.Context()); err != nil || other.keySets().sets()[i.URL].JSON != first.JSON {
		t.Errorf("another process has %+v, %v", other.keySets(), err)
	}

	in := &compile.Input{Policies: map[compile.Key]*v1alpha1.Policy{{Project: "shop", Name: "cart"}: {Spec: v1alpha1.PolicySpec{
		Ingress: []v1alpha1.Rule{{}, {JWT: &v1alpha1.JWTMatch{JWKSURI: i.URL}}}}}}}
	if p := unkeyed(in, nil, now().Unix()); len(p) != 1 || !p[0].Warning || p[0].Object != "Policy shop/cart" || p[0].Field != "spec.ingress[1].jwt.jwksURI" {
		t.Errorf("not fetched yet: %+v", p)
	}
	if p := unkeyed(in, k.keySets(), now().Unix()); len(p) != 0 {
		t.Errorf("all is well: %+v", p)
	}
	i.says(text("<html>maintenance"))
	if bad := pass(time.Hour); bad.JSON != first.JSON || !strings.Contains(bad.Error, "JWK set") {
		t.Errorf("after a failure: %+v", bad)
	}
	if p := unkeyed(in, k.keySets(), now().Unix()); len(p) != 1 || !p[0].Warning {
		t.Errorf("an old set is in use: %+v", p)
	}
	if p := unkeyed(in, k.keySets(), now().Add(2*believeKeys).Unix()); len(p) != 1 || p[0].Warning {
		t.Errorf("the set is too old: %+v", p)
	}
	i.says(text(aKeySet))
	if well := pass(slowestRetry); well.Error != "" {
		t.Errorf("after it was mended: %+v", well)
	}
	f.want(nil)
	pass(time.Minute)
	if gone := pass(retireAfter + time.Minute); gone != (keySet{}) {
		t.Errorf("nobody wants it: %+v", gone)
	}
}

func TestRetriesSlowDown(t *testing.T) {
	f := &fetcher{now: time.Now}
	a := &asked{}
	var waits []time.Duration
	for range 9 {
		f.judge(a, keySet{}, "", 0, errors.New("down"))
		waits = append(waits, a.backoff)
	}
	if !slices.IsSorted(waits) || waits[0] != firstBackoff || waits[8] != slowestRetry {
		t.Errorf("%v", waits)
	}
	for fresh, want := range map[time.Duration]time.Duration{0: refreshKeys, time.Nanosecond: soonestKeys, 1000 * time.Hour: latestKeys} {
		f.judge(a, keySet{}, aKeySet, fresh, nil)
		if got := time.Until(a.next).Round(time.Second); got != want || a.backoff != 0 {
			t.Errorf("%v: %v", fresh, got)
		}
	}
}
