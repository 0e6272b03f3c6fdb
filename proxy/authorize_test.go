package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

const (
	anIssuer = "https://issuer.example"
	someKeys = anIssuer + "/keys"
)

// keyPair signs tokens.
type keyPair struct {
	id      string
	private *ecdsa.PrivateKey
}

func newKeyPair(t testing.TB, id string) keyPair {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{id, k}
}

// set is the JWK set of key pairs.
func set(t testing.TB, pairs ...keyPair) string {
	t.Helper()
	var all []string
	for _, k := range pairs {
		b, err := jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return `{"keys":[` + strings.Join(all, ",") + `]}`
}

// token for an hour.
func (k keyPair) token(t testing.TB, claims string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign([]byte(fmt.Sprintf(`{"iss":%q,"exp":%d,%s}`, anIssuer, time.Now().Add(time.Hour).Unix(), claims)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// permission is a Set of rules that allow; the rest is denied.
func permission(m ...policy.RequestMatch) policy.Set {
	s := policy.Set{Isolated: "isolated/shop/api/ingress"}
	for i := range m {
		s.Rules = append(s.Rules, policy.Rule{ID: policy.RuleID(fmt.Sprint("policy/shop/api/ingress/", i)), Tier: policy.Project, Action: policy.Allow, Requests: m[i : i+1]})
	}
	return s
}

// entrance edits a configuration so that the APIs let in what a Set says.
func entrance(c *l7.Config, s policy.Set) {
	for i := range c.Mesh.Workloads {
		if w := &c.Mesh.Workloads[i]; w.Name == "shop/api" {
			w.Ingress, w.TellRule = s, true
		}
	}
}

// TestTokens: who bears a token of the issuer is let in, by each request, on
// connections that stay while keys change; missing, gone or old keys close.
func TestTokens(t *testing.T) {
	s := newShop(t)
	old, next := newKeyPair(t, "old"), newKeyPair(t, "next")
	keys := set(t, old)
	until := time.Now().Add(time.Hour).Unix()
	s.edit = func(c *l7.Config) {
		entrance(c, permission(policy.RequestMatch{Token: &policy.Token{Issuer: anIssuer, Audiences: []string{"api"}, Keys: someKeys,
			Claims: []policy.NamedMatch{{Name: "realm.roles", TextMatch: policy.TextMatch{Value: "staff"}}}}}))
		c.Mesh.KeySets = []l7.KeySet{{URI: someKeys, JSON: keys, Until: until}}
	}
	staff, guest := `"aud":["api","x"],"realm":{"roles":["staff","it"]}`, `"aud":"api","realm":{"roles":["guest"]}`
	inBoth(t, func(t *testing.T, one bool) {
		keys, until = set(t, old), time.Now().Add(time.Hour).Unix()
		all := s.proxies(t, one)
		clients := []*http.Client{s.tenants[0].boxes["web"].client(true, false), s.tenants[1].boxes["web"].client(true, true), s.tenants[1].boxes["legacy"].client(false, false)}
		expect := func(what, token string, status int, challenge string) {
			t.Helper()
			for i, c := range clients {
				r, err := http.NewRequest("GET", "http://"+netip.AddrPortFrom(s.tenants[0].boxes["api"].addrs[i%2], 8080).String()+"/cart", nil)
				if err != nil {
					t.Fatal(err)
				}
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != status || got != challenge {
					t.Errorf("%s, client %d: %d %q, want %d %q", what, i, resp.StatusCode, got, status, challenge)
				}
			}
		}
		change := func(set string, end time.Time) {
			keys, until = set, end.Unix()
			groups := [][]string{{"web", "api"}}
			if !one {
				groups = [][]string{{"web"}, {"api"}}
			}
			for i, p := range all {
				if err := p.Serve(door.State{Config: s.config(groups[i]...), Sockets: s.sockets(t, groups[i]...)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		forged := newKeyPair(t, "old").token(t, staff)
		for range 2 {
			expect("staff", old.token(t, staff), 200, "")
		}
		expect("guest", old.token(t, guest), 403, "")
		expect("nobody", "", 401, "Bearer")
		expect("forged", forged, 401, `Bearer error="invalid_token", error_description="the signature is not of a key of the set"`)
		first := old.token(t, staff)
		expect("before the change", first, 200, "")
		change(set(t, old, next), time.Now().Add(time.Hour))
		expect("both keys, old", first, 200, "")
		expect("both keys, new", next.token(t, staff), 200, "")
		change(set(t, next), time.Now().Add(time.Hour))
		expect("the old key is gone", first, 401, `Bearer error="invalid_token", error_description="no key of the set may have signed the token"`)
		expect("new key", next.token(t, staff), 200, "")
		change(set(t, next), time.Now().Add(-time.Second))
		expect("the keys are too old", next.token(t, staff), 503, "")
		change("", time.Now())
		expect("no keys", next.token(t, staff), 503, "")
		expect("no keys, no token", "", 401, "Bearer")
	})
}

// authorizer runs the judge of Envoy's protocol as an application of b, on port 9000.
func (b *box) authorizer(program string) {
	b.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", b.ns, program, "[::]:9000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	r := bufio.NewReader(out)
	if _, err := r.ReadString('\n'); err != nil {
		b.t.Fatal(err)
	}
	go io.Copy(io.Discard, r)
}

// askWanting asks with a field that tells the judge what to say.
func askWanting(t testing.TB, c *http.Client, url, want string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-want", want)
	r.Header.Set("x-user", "root")
	r.Header.Set("x-secret", "s")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// TestAuthorizers: a real server of Envoy's protocol, in each tenant its own, is
// asked from inside the Workload's network, and what it says is done.
func TestAuthorizers(t *testing.T) {
	if testing.Short() {
		t.Skip("the judge is built for seconds")
	}
	s := newShop(t)
	program, err := filepath.Abs("../bin/judges/extauthz") // where it stays: to build it takes seconds
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, "./extauthz")
	build.Dir = "../tools/judges"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.tenants[0].boxes["legacy"].authorizer(program)
	for _, k := range s.tenants { // an application that tells what it got
		k.boxes["api"].serve(8081, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "user=%s group=%s secret=%s", r.Header.Get("x-user"), strings.Join(r.Header.Values("x-group"), ","), r.Header.Get("x-secret"))
		})
	}
	s.edit = func(c *l7.Config) {
		for i := range c.Mesh.Workloads {
			w := &c.Mesh.Workloads[i]
			if w.Name == "shop/api" {
				w.TellRule = true
				w.Ports = append(w.Ports, l7.WorkloadPort{Port: 8081, Protocol: l7.AutoHTTP})
				w.Ingress = permission(policy.RequestMatch{Paths: []policy.TextMatch{{Value: "/health"}}},
					policy.RequestMatch{External: &policy.External{Cluster: fmt.Sprint("authorizer/", w.VNI), Timeout: 1000, Status: 503}})
			}
		}
		for _, k := range s.tenants {
			c.Clusters = append(c.Clusters, l7.Cluster{Name: fmt.Sprint("authorizer/", k.vni), Protocol: l7.HTTP2,
				Endpoints: []l7.Endpoint{{Address: netip.AddrPortFrom(k.boxes["legacy"].addrs[1], 9000).String()}}})
		}
	}
	inBoth(t, func(t *testing.T, one bool) {
		all := s.proxies(t, one)
		for _, two := range []bool{false, true} {
			red, blue := s.tenants[0].boxes["web"].client(true, two), s.tenants[1].boxes["web"].client(true, two)
			red.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			url := "http://" + netip.AddrPortFrom(s.tenants[0].boxes["api"].addrs[0], 8081).String()
			for want, c := range map[string]struct {
				status int
				body   string
			}{
				"allow": {200, "user=root group= secret=s"}, "change": {200, "user=anna group=a,b secret="}, "deny": {403, ""},
				"redirect": {302, ""}, "body": {429, "too often\n"}, "path": {503, "denied by policy\n"}, "large": {503, "denied by policy\n"},
				"failed": {503, "denied by policy\n"}, "error": {503, "denied by policy\n"}, "slow": {503, "denied by policy\n"},
			} {
				if want == "slow" && (two || one) {
					continue // once is enough
				}
				status, body, fields := askWanting(t, red, url+"/cart", want)
				if status != c.status || body != c.body {
					t.Errorf("%s, two=%v: %d %q", want, two, status, body)
				}
				rule := "isolated/shop/api/ingress"
				if status == 200 {
					rule = "policy/shop/api/ingress/1"
				}
				if got := fields.Get("x-moire-rule"); got != rule {
					t.Errorf("%s: rule %q", want, got)
				}
				switch want {
				case "redirect":
					if fields.Get("location") != "https://login.example/" || fields.Get("set-cookie") != "s=1" {
						t.Errorf("redirect: %v", fields)
					}
				case "change":
					if fmt.Sprint(fields.Values("set-cookie")) != "[a=1 b=2]" {
						t.Errorf("change: %v", fields)
					}
				}
			}
			if status, _, fields := askWanting(t, red, url+"/health", "deny"); status != 200 || fields.Get("x-moire-rule") != "policy/shop/api/ingress/0" {
				t.Errorf("a rule that comes before is not asked: %d %v", status, fields)
			}
			if status, _, _ := askWanting(t, blue, url+"/cart", "allow"); status != 503 {
				t.Errorf("a tenant without its service got %d: that of another one was asked", status)
			}
		}
		recorded(t, all[len(all)-1], func(r record.Record) bool {
			return r.Destination.VNI == 200 && r.Kind == record.Denied && r.Rule == "isolated/shop/api/ingress" && r.Drop == "no-authorizer"
		})
	})
}

// recorded waits for a record.
func recorded(t testing.TB, p *Proxy, is func(record.Record) bool) {
	t.Helper()
	for range 500 {
		if slices.ContainsFunc(p.Telemetry().Last(200), is) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("no such record among %+v", p.Telemetry().Last(200))
}
