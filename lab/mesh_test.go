package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// listen opens a port in the namespace of a guest, in both families.
func (g guest) listen(t *testing.T, port uint16) (l net.Listener) {
	t.Helper()
	err := InNetns(g.netns, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve answers HTTP in the namespace of a guest until the test ends.
func (g guest) serve(t *testing.T, port uint16, h http.Handler) {
	t.Helper()
	l := g.listen(t, port)
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// client makes its connections in the namespace of a guest.
func (g guest) client(t *testing.T) *http.Client {
	dial := func(_ context.Context, network, address string) (c net.Conn, err error) {
		err = InNetns(g.netns, func() (err error) {
			c, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial(network, address)
			return err
		})
		return c, err
	}
	transport := &http.Transport{DialContext: dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// get is the status and the body of an answer.
func get(c *http.Client, url string) (int, string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

const askingTenant = bare + `---
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: api, namespace: DOMAIN-p}
spec:
  subject: {labels: {matchLabels: {app: api}}}
  ingress:
    - name: no-admin
      action: deny
      http: [{paths: [{prefix: /admin}]}]
    - name: read
      action: allow
      from: [{labels: {matchLabels: {app: web}}}]
      http: [{methods: [GET]}]
`

// TestRequestsArePolicy: two Domains with the same addresses, in both families;
// a rule about requests decides in each, and says so.
func TestRequestsArePolicy(t *testing.T) {
	l := theLab(t)
	for _, domain := range []string{"asks-a", "asks-b"} {
		l.apply(t, strings.ReplaceAll(askingTenant, "DOMAIN", domain))
	}
	for _, domain := range []string{"asks-a", "asks-b"} {
		p := domain + "-p"
		api := l.attach(t, "n2", p, "net", "api", "app=api")
		web := l.attach(t, "n1", p, "net", "web", "app=web")
		api.serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintf(w, "%s %s for %s", domain, r.URL.Path, strings.TrimPrefix(host, "::ffff:"))
		}))
		client := web.client(t)
		for i, addr := range api.addrs {
			base := "http://" + netip.AddrPortFrom(addr, 8080).String()
			if code, body, err := get(client, base+"/cart"); err != nil || code != 200 || body != domain+" /cart for "+web.addrs[i].String() {
				t.Errorf("GET /cart of %s by %s: %d %q %v", addr, web.addrs, code, body, err)
			}
			if code, _, err := get(client, base+"/admin/x"); err != nil || code != 403 {
				t.Errorf("GET /admin of %s: %d %v", addr, code, err)
			}
			if resp, err := client.Post(base+"/cart", "text/plain", strings.NewReader("x")); err != nil || resp.StatusCode != 403 {
				t.Errorf("POST /cart of %s: %v %v", addr, resp, err)
			} else {
				resp.Body.Close()
			}
		}
		l.tells(t, p, "--verdict", "deny", "--path", "/admin", "--status", "403", "--rule", "policy/"+p+"/api/ingress/no-admin")
		l.tells(t, p, "--verdict", "allow", "--method", "GET", "--from", p+"/web", "--to", p+"/api", "--rule", "policy/"+p+"/api/ingress/read")
	}
}

const meshTenant = `
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: api, namespace: DOMAIN-p}
spec:
  networks: [{network: net, addresses: [10.9.0.200, "fd09::200"]}]
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
  selector: {matchLabels: {app: api}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: DOMAIN-p}
spec:
  parentRefs: [{group: moire.dev, kind: Service, name: api, port: 80}]
  rules:
    - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-routed, value: "yes"}]}}]
      backendRefs: [{group: moire.dev, kind: Service, name: api, port: 80}]
`

// strictTenants makes strict tenants with the same addresses: a Service with a route and
// rules about requests, and who calls it. check asks for what they must get, in both
// families. An answer to /long lasts until end is closed.
func (l *Lab) strictTenants(t *testing.T, domains []string, end <-chan struct{}) (clients map[string]*http.Client, check func(when string)) {
	clients = map[string]*http.Client{}
	for _, domain := range domains {
		intent := strings.ReplaceAll(askingTenant+"---"+meshTenant, "metadata: {name: DOMAIN}", "metadata: {name: DOMAIN}\nspec: {mtls: strict}")
		l.apply(t, strings.ReplaceAll(intent, "DOMAIN", domain))
	}
	for _, domain := range domains {
		p := domain + "-p"
		api := l.attach(t, "n2", p, "net", "api", "app=api")
		clients[domain] = l.attach(t, "n1", p, "net", "web", "app=web").client(t)
		api.serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s routed=%s", domain, r.Header.Get("x-routed"))
			if r.URL.Path == "/long" {
				w.(http.Flusher).Flush()
				<-end
			}
		}))
	}
	return clients, func(when string) {
		t.Helper()
		for _, domain := range domains {
			for _, vip := range []string{"10.9.0.200", "[fd09::200]"} {
				base := "http://" + vip
				if code, body, err := get(clients[domain], base+"/cart"); err != nil || code != 200 || body != domain+" routed=yes" {
					t.Errorf("%s: GET /cart of %s in %s: %d %q %v", when, vip, domain, code, body, err)
				}
				if code, _, err := get(clients[domain], base+"/admin"); err != nil || code != 403 {
					t.Errorf("%s: GET /admin of %s in %s: %d %v", when, vip, domain, code, err)
				}
			}
		}
	}
}

// TestMesh: two Domains with the same addresses, strict: mutual TLS, a route and
// a rule about requests; then agents are killed and proxies replaced.
func TestMesh(t *testing.T) {
	l := theLab(t)
	domains := []string{"mesh-a", "mesh-b"}
	end := make(chan struct{}) // of long answers
	endAll := sync.OnceFunc(func() { close(end) })
	t.Cleanup(endAll)
	clients, check := l.strictTenants(t, domains, end)
	check("at first")
	if out := l.must(t, "trace", "--from", "mesh-a-p/web", "--to", "10.9.0.200", "--port", "80", "--live", "--wait", "1s"); !strings.Contains(out, "needs-proxy") || !strings.Contains(out, "as expected: only the proxy") {
		t.Errorf("a trace of what only a proxy may say: %s", out)
	}
	for _, domain := range domains {
		p := domain + "-p"
		l.tells(t, p, "--route", p+"/api", "--from", p+"/web", "--verdict", "allow")
		l.tells(t, p, "--rule", "policy/"+p+"/api/ingress/no-admin", "--verdict", "deny")
	}
	patient := *clients["mesh-a"]
	patient.Timeout = time.Minute
	long, err := patient.Get("http://10.9.0.200/long")
	if err != nil {
		t.Fatal(err)
	}
	defer long.Body.Close()
	for _, n := range l.Nodes[:2] {
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	check("without agents")
	for _, n := range l.Nodes[:2] {
		if err := l.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	l.settle(t)
	check("with new agents")
	endAll()
	if body, err := io.ReadAll(long.Body); err != nil || string(body) != "mesh-a routed=yes" {
		t.Errorf("an answer that began before the agents were killed: %q %v", body, err)
	}
	for _, n := range l.Nodes[:2] {
		l.must(t, "proxy", "upgrade", "--run-dir", l.RunDir, "--node", n.Name)
	}
	check("with new proxies")
}

// tells waits for a record of a request that `moire flows` finds with these flags.
func (l *Lab) tells(t *testing.T, project string, flags ...string) {
	t.Helper()
	args := append([]string{"flows", "-p", project, "--kind", "request", "-o", "json"}, flags...)
	var out string
	for range 50 {
		var err error
		if out, err = l.moire(args...); err == nil && strings.Contains(out, `"request":{`) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("moire %s: %s", strings.Join(args, " "), out)
}
