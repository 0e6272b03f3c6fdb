package lab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// dice throws what is random in a test.
type dice struct{ *rand.Rand }

// in says yes once in n times.
func (d dice) in(n int) bool { return d.IntN(n) == 0 }

func pick[T any](d dice, all ...T) T { return all[d.IntN(len(all))] }

// some are from least to most of them, in random order.
func some[T any](d dice, least, most int, all ...T) []T {
	out := slices.Clone(all)
	d.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), least+d.IntN(most-least+1))]
}

// list writes a list as YAML does in one line.
func list(all []string) string { return "[" + strings.Join(all, ", ") + "]" }

// resident is a Workload of a random tenant.
type resident struct {
	project string // p or desk, behind the name of the Domain
	name    string
	node    string
	host    int // last part of its addresses
}

// residents are the same in each tenant: what is random is what is said of them.
var residents = []resident{
	{"p", "w1", "n1", 11}, {"p", "w2", "n1", 12}, {"p", "w3", "n1", 13}, {"p", "w4", "n2", 14}, {"p", "w5", "n2", 15}, {"desk", "clerk", "n1", 16},
}

// addr of a host number in either family.
func addr(host int, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("fd09::%d", host))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", host))
}

const randomGround = `
apiVersion: moire.dev/v1alpha1
kind: Domain
metadata: {name: DOMAIN}
spec: {mtls: off}
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
`

// Parts of what is asked and of what rules say, few enough to meet often.
var (
	apps    = []string{"a", "b", "c"}
	paths   = []string{"/", "/a", "/a/b", "/b", "/shop.Cart/Get", "/shop.Cart/Put"}
	methods = []string{"GET", "POST", "PUT", "DELETE"}
	hosts   = []string{"api.example", "www.api.example", "other.example"}
	roles   = []string{"admin", "user"}
	ports   = []string{"8080", "8081", "9000"}
)

// who is one peer or subject by its labels.
func (d dice) who() string {
	return fmt.Sprintf("{labels: {matchLabels: {app: %s}}}", pick(d, apps...))
}

// peer is somebody that a rule is about.
func (d dice) peer() string {
	switch d.IntN(8) {
	case 0:
		return `{cidr: 10.9.0.8/29}`
	case 1:
		return `{cidr: "fd09::/64"}`
	case 2:
		return `{cidr: 10.9.0.0/24, except: [10.9.0.12/32]}`
	case 3:
		return `{project: DOMAIN-desk}`
	}
	return d.who()
}

// httpMatch is one entry of http of a rule.
func (d dice) httpMatch() string {
	var parts []string
	if d.in(2) {
		parts = append(parts, "methods: "+list(some(d, 1, 2, methods...)))
	}
	if d.in(2) {
		parts = append(parts, fmt.Sprintf("paths: [{%s: %q}]", pick(d, "exact", "prefix"), pick(d, paths...)))
	}
	if d.in(4) {
		parts = append(parts, fmt.Sprintf("hosts: [%q]", pick(d, "api.example", "*.api.example", "other.example")))
	}
	if d.in(4) {
		parts = append(parts, fmt.Sprintf("headers: [{name: X-Role, %s%s}]", pick(d, "exact: admin", "present: true", "exact: user"), pick(d, "", ", not: true")))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// policyRule is one rule; of a tier, in a direction.
func (d dice) policyRule(tier, side, name string) string {
	action := pick(d, "allow", "allow", "allow", "deny")
	if tier == "admin" {
		action = pick(d, "accept", "deny", "pass")
	}
	s := fmt.Sprintf("    - {name: %s, action: %s", name, action)
	if d.in(3) {
		s += fmt.Sprintf(", %s: [%s, %s]", side, d.peer(), d.peer())
	}
	if d.in(3) {
		var all []string
		for _, p := range some(d, 1, 2, ports...) {
			all = append(all, "{port: "+p+"}")
		}
		s += ", ports: " + list(all)
	}
	switch d.IntN(5) {
	case 0, 1:
		s += ", http: [" + d.httpMatch() + "]"
	case 2:
		if d.in(2) {
			s += ", grpc: [{service: shop.Cart, method: Get}]"
		}
	}
	return s + "}\n"
}

func (d dice) policy(name string) string {
	tier := pick(d, "project", "project", "project", "admin", "baseline")
	s := fmt.Sprintf("---\napiVersion: moire.dev/v1alpha1\nkind: Policy\nmetadata: {name: %s, namespace: DOMAIN-p}\nspec:\n  tier: %s\n", name, tier)
	if d.in(8) {
		s += "  mode: audit\n"
	}
	if !d.in(5) {
		s += "  subject: " + d.who() + "\n"
	}
	in := !d.in(3)
	if in {
		s += "  ingress:\n"
		for i := range 1 + d.IntN(3) {
			s += d.policyRule(tier, "from", fmt.Sprintf("in%d", i))
		}
	}
	if !in || d.in(5) {
		s += "  egress:\n"
		for i := range 1 + d.IntN(2) {
			s += d.policyRule(tier, "to", fmt.Sprintf("out%d", i))
		}
	}
	return s
}

// services are s1, s2 and s3 in front of everybody with a label; s4 is behind none.
var services = []string{"s1", "s2", "s3", "s4"}

func (d dice) service(n int) string {
	s := fmt.Sprintf("---\napiVersion: moire.dev/v1alpha1\nkind: Service\nmetadata: {name: %s, namespace: DOMAIN-p}\nspec:\n", services[n])
	s += fmt.Sprintf("  networks: [{network: net, addresses: [%s, %q]}]\n", addr(201+n, false), addr(201+n, true).String())
	app := "none"
	if n < len(apps) {
		app = apps[n]
	}
	s += fmt.Sprintf("  selector: {matchLabels: {app: %s}}\n", app)
	if d.in(4) {
		s += "  affinitySeconds: 60\n"
	}
	return s + fmt.Sprintf("  ports: [{port: 80, targetPort: 8080%s}, {port: 81, targetPort: 8081%s}, {port: 90, targetPort: 9000}]\n",
		pick(d, ", appProtocol: http", ", appProtocol: http", ""), pick(d, ", appProtocol: tcp", ""))
}

// httpRoute is of a Service port 80; project is p, or desk for a consumer's.
func (d dice) httpRoute(name, project, service string) string {
	s := fmt.Sprintf("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s, namespace: DOMAIN-%s}\nspec:\n", name, project)
	s += fmt.Sprintf("  parentRefs: [{group: moire.dev, kind: Service, namespace: DOMAIN-p, name: %s, port: 80}]\n  rules:\n", service)
	for range 1 + d.IntN(3) {
		s += d.routeRule()
	}
	return s
}

func (d dice) routeRule() string {
	var match []string
	if !d.in(3) {
		match = append(match, fmt.Sprintf("path: {type: %s, value: %q}", pick(d, "PathPrefix", "Exact"), pick(d, paths...)))
	}
	if d.in(3) {
		match = append(match, fmt.Sprintf("headers: [{name: x-role, value: %s}]", pick(d, roles...)))
	}
	if d.in(5) {
		match = append(match, "method: "+pick(d, methods...))
	}
	s := "    - matches: [{" + strings.Join(match, ", ") + "}]\n"
	switch d.IntN(6) {
	case 0:
		return s + `      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302, path: {type: ReplaceFullPath, replaceFullPath: /moved}}}]` + "\n"
	case 1:
		s += fmt.Sprintf("      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: %q}}}]\n", pick(d, "/a", "/b", "/a/b"))
	case 2:
		s += fmt.Sprintf("      filters: [{type: URLRewrite, urlRewrite: {hostname: %s}}]\n", pick(d, hosts...))
	case 3:
		s += fmt.Sprintf("      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {%s}}]\n", pick(d, "set: [{name: x-role, value: admin}]", "remove: [x-role]"))
	}
	var refs []string
	for _, name := range some(d, 1, 2, append(slices.Clone(services), "gone")...) {
		refs = append(refs, fmt.Sprintf("{namespace: DOMAIN-p, name: %s, port: 80, weight: %d}", name, pick(d, 1, 1, 100, 0)))
	}
	return s + "      backendRefs: " + list(refs) + "\n"
}

// lasting is what a round says of Workloads, Services and the Network: the same
// objects each time.
func (d dice) lasting() string {
	s := strings.Replace(randomGround, "spec: {prefixes", "spec: {default: "+pick(d, "open", "open", "open", "deny")+", prefixes", 1)
	s = strings.Replace(s, "mtls: off", "mtls: "+pick(d, "off", "permissive", "strict"), 1)
	// Most often most are of one mind: else nearly all that is strict is refused.
	modes := pick(d, []string{"off"}, []string{"permissive"}, []string{"strict"}, []string{"off", "permissive"}, []string{"permissive", "strict"}, []string{"off", "permissive", "strict"})
	for _, r := range residents {
		network := "net"
		if r.project != "p" {
			network = "DOMAIN-p/net"
		}
		s += fmt.Sprintf("---\napiVersion: moire.dev/v1alpha1\nkind: Workload\nmetadata: {name: %s, namespace: DOMAIN-%s, labels: {app: %s}}\n", r.name, r.project, pick(d, apps...))
		s += fmt.Sprintf("spec: {node: %s, mtls: %s, interfaces: [{network: %s, addresses: [%s, %q]}]}\n", r.node, pick(d, modes...), network, addr(r.host, false), addr(r.host, true).String())
	}
	for n := range services {
		s += d.service(n)
	}
	return s
}

// passing is what a round has and the next one has not: Policies and routes.
func (d dice) passing() string {
	s := ""
	for i := range pick(d, 0, 1, 1, 2, 2, 3, 4) {
		s += d.policy(fmt.Sprintf("policy%d", i))
	}
	for _, service := range some(d, 0, 2, services[:3]...) {
		s += d.httpRoute("route-"+service, "p", service)
	}
	if d.in(3) {
		s += d.httpRoute("own", "desk", pick(d, services[:3]...))
	}
	return s
}
