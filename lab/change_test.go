package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// declare applies intent that something else removes.
func (r *reliable) declare(t *testing.T, verb, intent string, flags ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "intent.yaml")
	if err := os.WriteFile(file, []byte(intent), 0o644); err != nil {
		t.Fatal(err)
	}
	r.must(t, append([]string{verb, "-f", file}, flags...)...)
}

// each is the intent once for each tenant.
func (r *reliable) each(intent string) string {
	var all []string
	for _, m := range r.tenants {
		all = append(all, strings.ReplaceAll(intent, "DOMAIN", m.domain))
	}
	return strings.Join(all, "\n---\n")
}

// phase is how far the rotation of the root of a tenant is.
func (r *reliable) phase(t *testing.T, domain string) string {
	t.Helper()
	text, _, _ := strings.Cut(r.must(t, "identity", "show", domain), " ")
	return text
}

// certificates of the proxies, with their ends.
func (r *reliable) certificates(t *testing.T) string {
	t.Helper()
	var all string
	for _, n := range r.Nodes {
		all += r.must(t, "proxy", "certs", "--run-dir", r.RunDir, "--node", n.Name)
	}
	return all
}

// identitiesRotated replaces the root of each tenant by overlap while leaves are
// renewed at half of their life (R9). In short the next root signs at the end of
// it; that the former one goes, and that leaves are renewed, is what the rest of
// the test goes on with.
func (r *reliable) identitiesRotated(t *testing.T, _ *load) {
	want := "Switched"
	if times(0, 1) == 1 {
		want = "Steady"
	}
	before, began := r.certificates(t), time.Now()
	for _, m := range r.tenants {
		r.must(t, "identity", "rotate", m.domain)
	}
	for _, m := range r.tenants {
		for seen := false; ; time.Sleep(200 * time.Millisecond) {
			phase := r.phase(t, m.domain)
			if seen = seen || phase == "Switched"; seen && phase == want {
				break
			}
			if time.Since(began) > 5*time.Minute {
				t.Fatalf("the rotation of %s does not come to an end: %s", m.domain, r.must(t, "identity", "show", m.domain))
			}
		}
	}
	t.Logf("the roots are %s after %s", want, time.Since(began).Round(time.Second))
	if want == "Steady" && r.certificates(t) == before {
		t.Error("the certificates are what they were")
	}
}

// Three ways to say what both tenants allow and deny.
var policies = []string{`
    - {name: no-admin-SERIAL, action: deny, http: [{paths: [{prefix: /admin}]}]}
    - {name: read-SERIAL, action: allow, from: [{labels: {matchLabels: {app: web}}}], http: [{methods: [GET]}]}
`, `
    - {name: no-post-SERIAL, action: deny, http: [{methods: [POST]}]}
    - {name: pages-SERIAL, action: allow, from: [{labels: {matchLabels: {app: web}}}], http: [{paths: [{exact: /cart}, {exact: /long}]}]}
`, `
    - {name: no-port-SERIAL, action: deny, ports: [{port: 9999}]}
    - {name: read-SERIAL, action: allow, from: [{cidr: 10.9.0.0/24}, {cidr: "fd09::/64"}], ports: [{port: 8080}], http: [{methods: [GET], paths: [{regex: "/(cart|long)"}]}]}
`}

// policy replaces what is allowed by what says the same in another way.
func (r *reliable) policy(t *testing.T, serial int) {
	t.Helper()
	head := `
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: api, namespace: DOMAIN-p}
spec:
  subject: {labels: {matchLabels: {app: api}}}
  ingress:`
	r.declare(t, "apply", r.each(head+strings.ReplaceAll(policies[serial%len(policies)], "SERIAL", fmt.Sprint(serial))))
}

// policiesReplaced (R12): what both allow never fails, what both deny never passes.
func (r *reliable) policiesReplaced(t *testing.T, _ *load) {
	r.repeat(t, 10, 500, func(i int) { // in each of two tenants
		r.policy(t, i+1)
		if i%10 == 9 {
			r.settle(t)
		}
	})
	r.policy(t, 0)
}

// elsewhere is a node that nobody hears of, for Workloads that come and go.
const elsewhere = `
apiVersion: moire.dev/v1alpha1
kind: Node
metadata: {name: elsewhere}
spec: {address: 198.18.90.1, external: true}
`

const churnedWorkload = `
apiVersion: moire.dev/v1alpha1
kind: Workload
metadata: {name: w-N, namespace: DOMAIN-p, labels: {app: churn, churn: "M"}}
spec: {node: elsewhere, mtls: "off", interfaces: [{network: net, addresses: [10.9.0.A, "fd09::A"]}]}
---
`

const churnedPolicy = `
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: churn-M, namespace: DOMAIN-p}
spec:
  subject: {labels: {matchLabels: {churn: "M"}}}
  ingress: [{name: n-SERIAL, action: allow, from: [{labels: {matchLabels: {app: web}}}], http: [{paths: [{prefix: /x/SERIAL}]}]}]
---
`

const churnedRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: churn-M, namespace: DOMAIN-p}
spec:
  parentRefs: [{group: moire.dev, kind: Service, name: churn, port: 800M}]
  rules:
    - matches: [{path: {value: /y/SERIAL}}]
      backendRefs: [{group: moire.dev, kind: Service, name: churn, port: 8000}]
---
`

const churnedService = `
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: churn, namespace: DOMAIN-p}
spec:
  networks: [{network: net}]
  ports: [{name: a, port: 8000, appProtocol: http}, {name: b, port: 8001, appProtocol: http}, {name: c, port: 8002, appProtocol: http}, {name: d, port: 8003, appProtocol: http}, {name: e, port: 8004, appProtocol: http}]
  selector: {matchLabels: {app: churn}}
---
`

// workloads are n of one half of those that come and go.
func churnedWorkloads(half, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.NewReplacer("w-N", fmt.Sprintf("w-%d-%d", half, i), `"M"`, fmt.Sprintf(`"%d"`, i%10), "0.A", fmt.Sprintf("0.%d", 80+half*60+i), "::A", fmt.Sprintf("::%d", 80+half*60+i)).Replace(churnedWorkload))
	}
	return b.String()
}

// churned (R10): other endpoints come and go, other Policies and routes change all
// the time, in the same projects.
func (r *reliable) churned(t *testing.T, _ *load) {
	ends, rules, routes := times(5, 25), times(4, 10), times(2, 5)
	r.declare(t, "apply", elsewhere+"\n---\n"+r.each(churnedService))
	halves := []string{r.each(churnedWorkloads(0, ends)), r.each(churnedWorkloads(1, ends))}
	t.Logf("in a round %d endpoints, %d Policies, %d routes; not more than one in a second", 4*ends, 2*rules, 2*routes)
	began := time.Now()
	r.repeat(t, 4, 120, func(i int) {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second)))
		r.declare(t, "apply", halves[i%2]+"\n---\n"+r.each(churnedRules(rules, routes, i)))
		if i > 0 {
			r.declare(t, "delete", halves[(i+1)%2])
		}
	})
	r.declare(t, "delete", strings.Join(halves, "\n---\n")+"\n---\n"+r.each(churnedRules(rules, routes, 0)+churnedService)+"\n---\n"+elsewhere, "--ignore-not-found")
}

// churnedRules are Policies and routes, others with each serial.
func churnedRules(rules, routes, serial int) string {
	var b strings.Builder
	for m := range rules {
		b.WriteString(strings.NewReplacer("churn-M", fmt.Sprintf("churn-%d", m), `"M"`, fmt.Sprintf(`"%d"`, m), "SERIAL", fmt.Sprint(serial)).Replace(churnedPolicy))
	}
	for m := range routes {
		b.WriteString(strings.NewReplacer("churn-M", fmt.Sprintf("churn-%d", m), "800M", fmt.Sprintf("800%d", m), "SERIAL", fmt.Sprint(serial)).Replace(churnedRoute))
	}
	return b.String()
}
