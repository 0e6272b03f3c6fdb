package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const gatedTenant = `
apiVersion: moire.dev/v1alpha1
kind: Domain
metadata: {name: DOMAIN}
---
apiVersion: v1
kind: Namespace
metadata: {name: DOMAIN-p, labels: {moire.dev/domain: DOMAIN}, annotations: {moire.dev/mtls: strict}}
---
apiVersion: v1
kind: Namespace
metadata: {name: DOMAIN-desk, labels: {moire.dev/domain: DOMAIN}}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: net, namespace: DOMAIN-p}
spec:
  prefixes: [10.9.0.0/24, "fd09::/64"]
  consents: [{project: DOMAIN-desk, for: [link]}]
  outside: {mode: gateway, gateways: [n3], addresses: [198.18.99.LEAVES]}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: net, namespace: DOMAIN-desk}
spec: {prefixes: [10.8.0.0/24, "fd08::/64"]}
---
apiVersion: moire.dev/v1alpha1
kind: Link
metadata: {name: shop, namespace: DOMAIN-desk}
spec: {ends: [{network: net}, {project: DOMAIN-p, network: net}]}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: public, namespace: DOMAIN-p}
spec: {external: true, prefixes: [198.18.99.POOL/28], floating: [198.18.99.PUBLIC-198.18.99.PUBLIC]}
---
apiVersion: moire.dev/v1alpha1
kind: FloatingIP
metadata: {name: edge, namespace: DOMAIN-p}
spec: {pool: {network: public}, address: 198.18.99.PUBLIC, targets: [{workload: gateway-edge}]}
---
apiVersion: v1
kind: Secret
metadata: {name: shop, namespace: DOMAIN-p}
type: kubernetes.io/tls
data: {SHOP}
---
apiVersion: v1
kind: Secret
metadata: {name: help, namespace: DOMAIN-desk}
type: kubernetes.io/tls
data: {HELP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: certs, namespace: DOMAIN-desk}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: DOMAIN-p}]
  to: [{group: "", kind: Secret, name: help}]
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: shop, namespace: DOMAIN-p}
spec: {networks: [{network: net}], selector: {matchLabels: {app: shop}}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}, {name: raw, port: 81, targetPort: 8081}]}
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: help, namespace: DOMAIN-desk}
spec: {networks: [{network: net}], selector: {matchLabels: {app: help}}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: partner, namespace: DOMAIN-p}
spec: {networks: [{network: net}], endpoints: [{address: 192.0.2.1}], ports: [{port: 443, appProtocol: https}]}
---
apiVersion: moire.dev/v1alpha1
kind: BackendPolicy
metadata: {name: partner, namespace: DOMAIN-p}
spec: {targetRefs: [{kind: Service, name: partner}], tls: {hostname: partner.example.com, ca: "PARTNER"}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: partner, namespace: DOMAIN-p}
spec:
  parentRefs: [{name: edge, sectionName: out}]
  rules: [{backendRefs: [{name: partner, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: secure, namespace: DOMAIN-p}
spec:
  parentRefs: [{name: edge, sectionName: plain}]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: DOMAIN-p}
spec:
  parentRefs: [{name: edge, sectionName: shop}]
  hostnames: [shop.example.com]
  rules:
    - matches: [{path: {value: /help}}]
      backendRefs: [{namespace: DOMAIN-desk, name: help, port: 80}]
    - backendRefs: [{name: shop, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: help, namespace: DOMAIN-desk}
spec:
  parentRefs: [{namespace: DOMAIN-p, name: edge, sectionName: help}]
  rules: [{backendRefs: [{name: help, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: ended, namespace: DOMAIN-p}
spec: {parentRefs: [{name: edge, sectionName: ended}], hostnames: [shop.example.com], rules: [{backendRefs: [{name: shop, port: 81}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: raw, namespace: DOMAIN-p}
spec: {parentRefs: [{name: edge, sectionName: raw}], rules: [{backendRefs: [{name: shop, port: 81}]}]}
---
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: edge, namespace: DOMAIN-p}
spec:
  subject: {labels: {matchLabels: {gateway.networking.k8s.io/gateway-name: edge}}}
  ingress:
    - {name: no-admin, action: deny, ports: [{port: 443}], http: [{paths: [{prefix: /admin}]}]}
    - {name: all, action: allow}
---
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: shop, namespace: DOMAIN-p}
spec:
  subject: {labels: {matchLabels: {app: shop}}}
  ingress:
    - {name: read, action: allow, from: [{labels: {matchLabels: {gateway.networking.k8s.io/gateway-name: edge}}}], ports: [{port: 8080}], http: [{methods: [GET]}]}
    - {name: raw, action: allow, from: [{labels: {matchLabels: {gateway.networking.k8s.io/gateway-name: edge}}}], ports: [{port: 8081}]}
`

const gatedGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: DOMAIN-p, annotations: {moire.dev/nodes: NODE}}
spec:
  gatewayClassName: moire
  addresses: [{value: 10.9.0.50}, {value: "fd09::50"}]
  listeners:
    - {name: plain, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: shop, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: {certificateRefs: [{name: shop}]}}
    - name: help
      port: 443
      protocol: HTTPS
      hostname: help.example.com
      allowedRoutes: {namespaces: {from: All}}
      tls: {certificateRefs: [{namespace: DOMAIN-desk, name: help}]}
    - {name: ended, port: 9443, protocol: TLS, tls: {certificateRefs: [{name: shop}]}}
    - {name: raw, port: 9000, protocol: TCP}
    - {name: out, port: 8000, protocol: HTTP, hostname: partner.example.com}
`

const gatedGrant = `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: help, namespace: DOMAIN-desk}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: DOMAIN-p}]
  to: [{group: moire.dev, kind: Service, name: help}]
`

// gated is one who asks a Gateway: from a namespace, at an address of it.
type gated struct {
	domain, who, netns string
	roots              *x509.CertPool
	at                 netip.Addr
}

func (g gated) dial(port string) (c net.Conn, err error) {
	err = InNetns(g.netns, func() (err error) {
		c, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", net.JoinHostPort(g.at.String(), port))
		return err
	})
	return c, err
}

// ask gets a URL, on a connection of its own.
func (g gated) ask(method, url string) (status int, body string, err error) {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: g.roots}, DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return g.dial(port)
	}}
	c := &http.Client{Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if to := resp.Header.Get("Location"); to != "" {
		return resp.StatusCode, to, err
	}
	return resp.StatusCode, string(b), err
}

// expect asks until the answer is the one that is wanted, for a while.
func (g gated) expect(t *testing.T, when, method, url string, status int, body string) {
	t.Helper()
	var got int
	var text string
	var err error
	for range 30 {
		if got, text, err = g.ask(method, url); err == nil && got == status && (body == "" || text == body) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s: %s of %s at %s: %s %s is %d %q %v, not %d %q", when, g.who, g.domain, g.at, method, url, got, text, err, status, body)
}

// says asks what greets on a port.
func (g gated) says(t *testing.T, when, port string, secure bool, want string) {
	t.Helper()
	c, err := g.dial(port)
	if err != nil {
		t.Errorf("%s: %s of %s at %s, port %s: %v", when, g.who, g.domain, g.at, port, err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if secure {
		c = tls.Client(c, &tls.Config{RootCAs: g.roots, ServerName: "shop.example.com"})
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != want {
		t.Errorf("%s: %s of %s at %s, port %s: %q %v", when, g.who, g.domain, g.at, port, b, err)
	}
}

// greet says a word to everybody who connects, first.
func (g guest) greet(t *testing.T, port uint16, word string) {
	t.Helper()
	l := g.listen(t, port)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// gated makes a tenant with a Gateway, and those who ask it.
func (l *Lab) gated(t *testing.T, domain string, pool int, outside, partner string) []gated {
	p, roots := domain+"-p", x509.NewCertPool()
	intent := gatedTenant
	for what, with := range map[string]string{
		"{SHOP}": "{" + certificateFor(t, "shop.example.com", roots) + "}", "{HELP}": "{" + certificateFor(t, "help.example.com", roots) + "}",
		"DOMAIN": domain, "PARTNER": partner, ".LEAVES": fmt.Sprintf(".%d", pool+200), ".POOL": fmt.Sprintf(".%d", pool), ".PUBLIC": fmt.Sprintf(".%d", pool+1),
	} {
		intent = strings.ReplaceAll(intent, what, with)
	}
	l.apply(t, intent)
	// Before the rest: who is asked to forget nearly all at once wants consent.
	t.Cleanup(func() {
		for range 100 {
			if len(l.gatewaysLeft(domain)) == 0 {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("left behind: %v", l.gatewaysLeft(domain))
	})
	l.apply(t, gateway(domain, "n1"))
	for _, node := range []string{"n1", "n2"} { // one beside the Gateway, one elsewhere
		shop := l.attach(t, node, p, "net", "shop-"+node, "app=shop")
		shop.serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintf(w, "%s shop %s for %s by %s", domain, r.URL.Path, strings.TrimPrefix(host, "::ffff:"), r.Header.Get("X-Forwarded-Proto"))
		}))
		shop.greet(t, 8081, domain+" greets")
	}
	l.attach(t, "n2", domain+"-desk", "net", "help", "app=help").serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s help %s", domain, r.URL.Path)
	}))
	meshed := l.attach(t, "n1", p, "net", "web", "app=web")
	plain := l.attach(t, "n2", domain+"-desk", "net", "clerk", "app=clerk")
	out := []gated{{domain, "outside", outside, roots, netip.MustParseAddr(fmt.Sprintf("198.18.99.%d", pool+1))}}
	for _, at := range []string{"10.9.0.50", "fd09::50"} {
		out = append(out, gated{domain, "a meshed Workload", meshed.netns, roots, netip.MustParseAddr(at)}, gated{domain, "a plain Workload", plain.netns, roots, netip.MustParseAddr(at)})
	}
	return out
}

// gateway is the Gateway of a tenant, run by a node.
func gateway(domain, node string) string {
	return strings.NewReplacer("DOMAIN", domain, "NODE", node).Replace(gatedGateway)
}

// moveGateway has the Gateway of a tenant run by another node.
func (l *Lab) moveGateway(t *testing.T, domain, node string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(gateway(domain, node)), 0o644); err != nil {
		t.Fatal(err)
	}
	l.must(t, "apply", "-f", file)
}

// gatewaysLeft are the namespaces of Gateways of a tenant.
func (l *Lab) gatewaysLeft(domain string) []string {
	left, _ := filepath.Glob(filepath.Join(l.RunDir, "*.gateways", domain+"-p.*"))
	return left
}

// TestGateways: two Domains with the same addresses have a Gateway each, asked from
// outside and from inside, in both families.
func TestGateways(t *testing.T) {
	l := theLab(t)
	outside, err := l.outside()
	if err != nil {
		t.Fatal(err)
	}
	defer l.noOutside()
	vouched := partner(t, outside)
	callers := append(l.gated(t, "gates-a", 16, outside, vouched), l.gated(t, "gates-b", 32, outside, vouched)...)
	check := func(when string) {
		t.Helper()
		for _, g := range callers {
			from := "10.9.0.50"
			g.expect(t, when, "GET", "https://help.example.com/x", 200, g.domain+" help /x")
			code, body, err := g.ask("GET", "https://shop.example.com/cart")
			if want := g.domain + " shop /cart for "; err != nil || code != 200 || !strings.HasPrefix(body, want) || !strings.HasSuffix(body, " by https") ||
				!strings.Contains(body, from) && !strings.Contains(body, "fd09::50") {
				t.Errorf("%s: %s of %s at %s: GET /cart: %d %q %v", when, g.who, g.domain, g.at, code, body, err)
			}
			g.expect(t, when, "POST", "https://shop.example.com/cart", 403, "")
			g.expect(t, when, "GET", "https://shop.example.com/admin", 403, "")
			g.expect(t, when, "GET", "http://shop.example.com/a?b=c", 301, "https://shop.example.com/a?b=c")
			g.says(t, when, "9000", false, g.domain+" greets")
			g.says(t, when, "9443", true, g.domain+" greets")
			if code, body, err := g.ask("GET", "http://shop.example.com:8080/"); err == nil {
				t.Errorf("%s: %s of %s at %s: a port without a listener answers %d %q", when, g.who, g.domain, g.at, code, body)
			}
		}
	}
	for _, g := range callers {
		g.expect(t, "at first", "GET", "https://shop.example.com/help", 500, "")
	}
	check("at first")
	for _, domain := range []string{"gates-a", "gates-b"} {
		l.apply(t, strings.ReplaceAll(gatedGrant, "DOMAIN", domain))
	}
	again := func(when string) {
		t.Helper()
		for _, g := range callers {
			g.expect(t, when, "GET", "https://shop.example.com/help", 200, g.domain+" help /help")
			g.says(t, when, "9000", false, g.domain+" greets")
		}
	}
	again("with a grant")
	for i, g := range callers { // out again, under an address of the Network, with TLS
		leaves := []string{"198.18.99.17", "198.18.99.33"}[i*2/len(callers)]
		g.expect(t, "by the Gateway", "GET", "http://partner.example.com:8000/x", 200, "partner /x for "+leaves+" at partner.example.com")
	}
	for _, domain := range []string{"gates-a", "gates-b"} {
		p := domain + "-p"
		l.tells(t, p, "--route", p+"/shop", "--from", p+"/gateway-edge", "--to", p+"/shop-n2", "--verdict", "allow")
		l.tells(t, p, "--to", p+"/gateway-edge", "--path", "/admin", "--verdict", "deny", "--rule", "policy/"+p+"/edge/ingress/no-admin")
		out := l.must(t, "explain", "--from", p+"/web", "--to", p+"/gateway-edge", "--port", "443")
		if want := "Gateway " + p + "/edge takes it: listener help"; !strings.Contains(out, want) {
			t.Errorf("explain says no %q: %s", want, out)
		}
	}
	for _, n := range l.Nodes {
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	again("without agents")
	for _, n := range l.Nodes {
		if err := l.StartAgent(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	l.settle(t)
	again("with new agents")
	if err := syscall.Kill(l.proxy(t, l.Nodes[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	again("with a new proxy")
	l.moveGateway(t, "gates-a", "n2")
	for range 100 {
		if left := l.gatewaysLeft("gates-a"); len(left) == 1 && strings.Contains(left[0], "n2.gateways") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	again("on another node")
	if left := l.gatewaysLeft("gates-a"); len(left) != 1 {
		t.Errorf("namespaces of the Gateway: %v", left)
	}
}
