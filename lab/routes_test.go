package lab

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const routedTenant = `
apiVersion: moire.dev/v1alpha1
kind: Domain
metadata: {name: DOMAIN}
---
apiVersion: v1
kind: Namespace
metadata: {name: DOMAIN-p, labels: {moire.dev/domain: DOMAIN}}
---
apiVersion: v1
kind: Namespace
metadata: {name: DOMAIN-desk, labels: {moire.dev/domain: DOMAIN}}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: net, namespace: DOMAIN-p}
spec: {prefixes: [10.9.0.0/24, "fd09::/64"], consents: [{project: DOMAIN-desk, for: [attach]}]}
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: page, namespace: DOMAIN-p}
spec:
  networks: [{network: net, addresses: [10.9.0.200, "fd09::200"]}]
  selector: {matchLabels: {app: page}}
  ports: [{port: 80, targetPort: 8080, appProtocol: http}, {port: 81, targetPort: 8080}]
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: v1, namespace: DOMAIN-p}
spec: {networks: [{network: net}], selector: {matchLabels: {version: v1}}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: v2, namespace: DOMAIN-p}
spec: {networks: [{network: net}], selector: {matchLabels: {version: v2}}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: moire.dev/v1alpha1
kind: FaultPolicy
metadata: {name: chaos, namespace: DOMAIN-p}
spec: {targetRefs: [{kind: Service, name: page, port: 80}], abort: {status: 418, percent: 100}, headers: [{name: x-chaos, value: "on"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mine, namespace: DOMAIN-desk}
spec:
  parentRefs: [{group: moire.dev, kind: Service, namespace: DOMAIN-p, name: page, port: 80}]
  rules:
    - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-desk, value: DOMAIN}]}}]
      backendRefs: [{namespace: DOMAIN-p, name: v2, port: 80}]
`

const routedPage = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: page, namespace: DOMAIN-p}
spec:
  parentRefs: [{group: moire.dev, kind: Service, name: page, port: 80}]
  rules:
    - matches: [{path: {value: /}, headers: [{name: x-tester, value: "yes"}]}]
      backendRefs: [{name: v2, port: 80}]
    - matches: [{path: {value: /app}}]
      backendRefs: [{name: v1, port: 80, weight: ONE}, {name: v2, port: 80, weight: TWO}]
    - matches: [{path: {value: /copied}}]
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}}}]
      backendRefs: [{name: v1, port: 80}]
    - matches: [{path: {value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
    - matches: [{path: {value: /lost}}]
      backendRefs: [{name: gone, port: 80}]
`

// routed is a tenant with two versions behind one Service, and those who call it.
type routed struct {
	domain     string
	web, clerk *http.Client
	copied     atomic.Int64 // requests to /copied that v2 got
}

func (l *Lab) routed(t *testing.T, domain string) *routed {
	p, r := domain+"-p", &routed{domain: domain}
	for _, version := range []string{"v1", "v2"} {
		l.attach(t, map[string]string{"v1": "n1", "v2": "n2"}[version], p, "net", "page-"+version, "app=page", "version="+version).serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if version == "v2" && q.URL.Path == "/copied" {
				r.copied.Add(1)
			}
			fmt.Fprintf(w, "%s %s", domain, version)
		}))
	}
	r.web = l.attach(t, "n1", p, "net", "web", "app=web").client(t)
	r.clerk = l.attach(t, "n1", domain+"-desk", p+"/net", "clerk", "app=clerk").client(t)
	r.web.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return r
}

// ask gets a path from the Service at an address with one header.
func (r *routed) ask(c *http.Client, vip, path, header string) (string, *http.Response) {
	req, err := http.NewRequest("GET", "http://"+netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String()+path, nil)
	if err != nil {
		return err.Error(), nil
	}
	if name, value, ok := strings.Cut(header, "="); ok {
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err.Error(), nil
	}
	defer resp.Body.Close()
	var b [64]byte
	n, _ := resp.Body.Read(b[:])
	return fmt.Sprintf("%d %s", resp.StatusCode, b[:n]), resp
}

// weigh applies the route with these weights.
func (l *Lab) weigh(t *testing.T, domain, one, two string) {
	file := filepath.Join(t.TempDir(), "route.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("DOMAIN", domain, "ONE", one, "TWO", two).Replace(routedPage)), 0o644); err != nil {
		t.Fatal(err)
	}
	l.must(t, "apply", "-f", file)
}

// TestRoutes: what HTTPRoutes of producers and consumers and a FaultPolicy say is
// what requests meet, in two Domains with the same addresses and in both families;
// weights are shifted to the end and back under requests, of which none fails.
func TestRoutes(t *testing.T) {
	l := theLab(t)
	var tenants []*routed
	for _, domain := range []string{"routes-a", "routes-b"} {
		l.apply(t, strings.ReplaceAll(routedTenant, "DOMAIN", domain))
		l.weigh(t, domain, "1", "1")
		t.Cleanup(func() { l.must(t, "delete", "httproute", "page", "-n", domain+"-p") })
		tenants = append(tenants, l.routed(t, domain))
	}
	for _, r := range tenants {
		for _, vip := range []string{"10.9.0.200", "fd09::200"} {
			r.settled(t, vip)
			r.meets(t, vip)
		}
		l.tells(t, r.domain+"-p", "--path", "/lost", "--status", "500", "--route", "HTTPRoute "+r.domain+"-p/page")
		for _, w := range []string{"100/0", "1/99", "0/100"} {
			one, two, _ := strings.Cut(w, "/")
			r.shifted(t, "10.9.0.200", two == "100", func() { l.weigh(t, r.domain, one, two) })
		}
	}
}

// settled waits until the route has come to the proxy of the caller.
func (r *routed) settled(t *testing.T, vip string) {
	t.Helper()
	var got string
	for range 100 {
		if got, _ = r.ask(r.web, vip, "/lost", ""); strings.HasPrefix(got, "500 ") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s at %s: the route does not hold: %s", r.domain, vip, got)
}

func (r *routed) meets(t *testing.T, vip string) {
	t.Helper()
	for _, c := range []struct{ path, header, want string }{
		{"/", "x-tester=yes", "200 " + r.domain + " v2"}, {"/copied", "", "200 " + r.domain + " v1"},
		{"/old/x", "", "301 "}, {"/lost", "", "500 "}, {"/nothing", "", "404 "}, {"/app", "x-chaos=on", "418 "},
	} {
		got, resp := r.ask(r.web, vip, c.path, c.header)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s at %s: GET %s with %q gives %q, want %q", r.domain, vip, c.path, c.header, got, c.want)
		}
		if resp != nil && resp.StatusCode == 301 && !strings.HasSuffix(resp.Header.Get("Location"), "/new/x") {
			t.Errorf("%s at %s: redirected to %q", r.domain, vip, resp.Header.Get("Location"))
		}
	}
	seen := map[string]int{}
	for range 60 {
		got, _ := r.ask(r.web, vip, "/app", "")
		seen[got]++
	}
	if one, two := seen["200 "+r.domain+" v1"], seen["200 "+r.domain+" v2"]; one < 10 || two < 10 || one+two != 60 {
		t.Errorf("%s at %s: of 60 requests by equal weights %v", r.domain, vip, seen)
	}
	if got, resp := r.ask(r.clerk, vip, "/app", ""); got != "200 "+r.domain+" v2" || resp.Header.Get("x-desk") != r.domain {
		t.Errorf("%s at %s: the consumer's own route gives %q", r.domain, vip, got)
	}
	for range 50 {
		if r.copied.Load() > 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s: v2 got no copy", r.domain)
}

// shifted changes weights while requests go on, of which none may fail, and waits
// until only the second version answers when that is the end of it.
func (r *routed) shifted(t *testing.T, vip string, end bool, change func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		change()
	}()
	row := 0
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		got, _ := r.ask(r.web, vip, "/app", "")
		switch got {
		case "200 " + r.domain + " v1":
			row = 0
		case "200 " + r.domain + " v2":
			row++
		default:
			t.Fatalf("%s: a request failed while weights changed: %s", r.domain, got)
		}
		select {
		case <-done:
			if !end || row >= 50 {
				return
			}
		default:
		}
	}
	if end {
		t.Errorf("%s: the first version still gets requests", r.domain)
	}
}
