package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// person makes a service account in a namespace and returns a kubeconfig with
// its token.
func person(t *testing.T, ns, name string) string {
	t.Helper()
	kubectl(t, "", "create", "serviceaccount", name, "-n", ns)
	token := strings.TrimSpace(kubectl(t, "", "create", "token", name, "-n", ns))
	c, err := clientcmd.LoadFromFile(shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c.AuthInfos = map[string]*clientcmdapi.AuthInfo{"admin": {Token: token}}
	path := filepath.Join(t.TempDir(), name)
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func account(ns, name string) string { return "--serviceaccount=" + ns + ":" + name }

const policyAdmin = `
apiVersion: moire.dev/v1alpha1
kind: Policy
metadata: {name: guard}
spec: {tier: admin, ingress: [{action: deny}]}
`

func namespaceWith(name, domain string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {moire.dev/domain: %q}}\n", name, domain)
}

// attempt is something that somebody tries.
type attempt struct {
	who, name, stdin, args string
	want                   string // "" is success, otherwise a part of the error
}

func attempts(tenant, viewer, oneDomain, allDomains string) []attempt {
	return []attempt{
		{tenant, "reads own", "", "get networks -n acme-shop", ""},
		{tenant, "reads what ran", "", "get workload ran -n acme-shop", ""},
		{tenant, "reads own flows", "", "get --raw /apis/moire.dev/v1alpha1/namespaces/acme-shop/flows", ""},
		{tenant, "watches own", "", "get workloads -n acme-shop -w --request-timeout=1s", ""},
		{tenant, "writes own", policyWeb, "create -n acme-shop -f -", ""},
		{tenant, "deletes own", "", "delete policy web -n acme-shop", ""},
		{tenant, "lets others in", "", "create rolebinding more -n acme-shop --clusterrole=moire-tenant-viewer --user=x", ""},
		{tenant, "gives no more than it has", "", "create rolebinding most -n acme-shop --clusterrole=cluster-admin --user=x", "attempting to grant RBAC permissions not currently held"},
		{tenant, "reads no others", "", "get networks -n beta-shop", "Forbidden"},
		{tenant, "reads no other by name", "", "get network web -n beta-shop", "Forbidden"},
		{tenant, "sees not what ran elsewhere", "", "get workload ran -n beta-shop", "Forbidden"},
		{tenant, "lists not what ran elsewhere", "", "get workloads -A", "Forbidden"},
		{tenant, "watches no others", "", "get --raw /apis/moire.dev/v1alpha1/workloads?watch=1&timeoutSeconds=1", "orbidden"},
		{tenant, "reads no flows of others", "", "get --raw /apis/moire.dev/v1alpha1/namespaces/beta-shop/flows", "orbidden"},
		{tenant, "reads no flows of all", "", "get --raw /apis/moire.dev/v1alpha1/flows", "orbidden"},
		{tenant, "sees no nodes", "", "get nodes.moire.dev", "Forbidden"},
		{tenant, "writes no status", "", "patch network web -n acme-shop --subresource=status --type=merge -p {\"status\":{\"vni\":7}}", "Forbidden"},
		{tenant, "makes no project", "", "create namespace more", "Forbidden"},
		{tenant, "does not move to another Domain", "", "label namespace acme-shop --overwrite moire.dev/domain=beta", "Forbidden"},
		{tenant, "writes no admin tier", policyAdmin, "create -n acme-shop -f -",
			`spec.tier: a Policy of tier admin holds for the whole Domain "acme", and system:serviceaccount:people:tenant may not manage it; use tier project, or ask somebody who has the verb manage on domains/acme in group moire.dev`},
		{tenant, "writes links, services, floating addresses", linkServiceFloating, "create -n acme-shop -f -", ""},
		{tenant, "reads them by their short names", "", "get links,svc,fip,services.moire.dev -n acme-shop", ""},
		{tenant, "deletes them", linkServiceFloating, "delete -n acme-shop -f -", ""},
		{tenant, "writes routes and what is attached to them", trafficOne, "create -n acme-shop -f -", ""},
		{tenant, "reads them", "", "get httproutes,tcproutes,refgrant,backendpolicies,faultpolicies -n acme-shop", ""},
		{tenant, "writes no routes elsewhere", trafficOne, "create -n beta-shop -f -", "orbidden"},
		{tenant, "reads no routes of others", "", "get httproutes -n beta-shop", "orbidden"},
		{tenant, "writes no status of a route", "", "patch httproute one -n acme-shop --subresource=status --type=merge -p {\"status\":{\"parents\":[]}}", "orbidden"},
		{viewer, "reads routes", "", "get httproutes,backendpolicies -n acme-shop", ""},
		{viewer, "writes no routes", trafficOne, "create -n acme-shop -f -", "orbidden"},
		{tenant, "writes a Gateway and its certificate", edgeOne, "create -n acme-shop -f -", ""},
		{viewer, "reads the Gateway", "", "get gateways -n acme-shop", ""},
		{viewer, "reads no certificates", "", "get secrets -n acme-shop", "orbidden"},
		{tenant, "reads no certificates of others", "", "get secrets -n beta-shop", "orbidden"},
		{tenant, "writes no status of a Gateway", "", "patch gateway edge -n acme-shop --subresource=status --type=merge -p {\"status\":{\"addresses\":[]}}", "orbidden"},
		{tenant, "changes no class", "", "delete gatewayclass moire", "orbidden"},
		{allDomains, "reads classes", "", "get gatewayclasses", ""},
		{tenant, "deletes both", edgeOne, "delete -n acme-shop -f -", ""},
		{tenant, "deletes routes", trafficOne, "delete -n acme-shop -f -", ""},
		{tenant, "captures", "", "create --raw /apis/moire.dev/v1alpha1/namespaces/acme-shop/captures -f -", ""},
		{tenant, "captures no others", "", "create --raw /apis/moire.dev/v1alpha1/namespaces/beta-shop/captures -f -", "orbidden"},
		{tenant, "captures not all", "", "create --raw /apis/moire.dev/v1alpha1/captures -f -", "orbidden"},
		{viewer, "captures nothing", "", "create --raw /apis/moire.dev/v1alpha1/namespaces/acme-shop/captures -f -", "orbidden"},
		{tenant, "takes nothing of the underlay", networkExternal, "create -n acme-shop -f -",
			`spec.external concerns the underlay, and system:serviceaccount:people:tenant may not manage the Domain "acme"; leave it as it is, or ask somebody who has the verb manage on domains/acme in group moire.dev`},
		{tenant, "takes no address outside", "", `patch network web -n acme-shop --type=merge -p {"spec":{"outside":{"mode":"gateway","gateways":["n1"],"addresses":["192.0.2.1"]}}}`, "spec.outside.addresses concerns the underlay"},
		{tenant, "opens no port of nodes", "", `patch network web -n acme-shop --type=merge -p {"spec":{"outside":{"hosts":[{"port":22}]}}}`, "spec.outside.hosts concerns the underlay"},
		{tenant, "sends nodes nowhere", "", `patch network web -n acme-shop --type=merge -p {"spec":{"metadata":"http://127.0.0.1:1"}}`, "spec.metadata concerns the underlay"},
		{tenant, "leaves by the nodes", "", `patch network web -n acme-shop --type=merge -p {"spec":{"outside":{}}}`, ""},
		{oneDomain, "makes a pool of the underlay", networkExternal, "create -n acme-shop -f -", ""},
		{tenant, "opens no pool", "", `patch network pool -n acme-shop --type=merge -p {"spec":{"consents":[{"project":"x"}]}}`, "spec.external concerns the underlay"},
		{tenant, "deletes no pool", "", "delete network pool -n acme-shop", "spec.external concerns the underlay"},
		{oneDomain, "cannot turn it into another", "", `patch network pool -n acme-shop --type=merge -p {"spec":{"external":false}}`, "external cannot be changed"},
		{oneDomain, "deletes it", "", "delete network pool -n acme-shop", ""},
		{oneDomain, "makes no pool elsewhere", networkExternal, "create -n beta-shop -f -", `may not manage the Domain "beta"`},
		{viewer, "reads", "", "get networks,policies,workloads -n acme-shop", ""},
		{viewer, "writes nothing", policyWeb, "create -n acme-shop -f -", "Forbidden"},

		{oneDomain, "makes a project of the Domain", namespaceWith("acme-new", "acme"), "create -f -", ""},
		{oneDomain, "makes no project of another", namespaceWith("beta-new", "beta"), "create -f -",
			`label moire.dev/domain: Domain "beta" does not exist or system:serviceaccount:people:one-domain may not manage it; leave the label out, or ask somebody who has the verb manage on domains/beta in group moire.dev`},
		{oneDomain, "makes no project of an unknown one", namespaceWith("no-new", "nowhere"), "create -f -", `Domain "nowhere" does not exist or`},
		{oneDomain, "takes no project of another", "", "label namespace beta-shop --overwrite moire.dev/domain=acme",
			`the project belongs to Domain "beta", which system:serviceaccount:people:one-domain may not manage`},
		{oneDomain, "frees no project of another", "", "label namespace beta-shop moire.dev/domain-", `belongs to Domain "beta"`},
		{oneDomain, "gives no project away", "", "label namespace acme-new --overwrite moire.dev/domain=beta", `Domain "beta" does not exist or`},
		{oneDomain, "labels no project of another", "", "label namespace beta-shop a=b", `belongs to Domain "beta"`},
		{oneDomain, "deletes no project of another", "", "delete namespace beta-shop", `belongs to Domain "beta"`},
		{oneDomain, "labels not through status", "", "patch namespace beta-shop --subresource=status --type=merge -p {\"metadata\":{\"labels\":{\"moire.dev/domain\":\"acme\"}}}", `belongs to Domain "beta"`},
		{oneDomain, "labels not through finalize", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"beta-shop","labels":{"moire.dev/domain":"acme"}},"spec":{"finalizers":["kubernetes"]}}`,
			"replace --raw /api/v1/namespaces/beta-shop/finalize -f -", `belongs to Domain "beta"`},
		{oneDomain, "writes the admin tier", policyAdmin, "create -n acme-shop -f -", ""},
		{oneDomain, "writes no admin tier elsewhere", policyAdmin, "create -n beta-shop -f -", `holds for the whole Domain "beta"`},
		{oneDomain, "writes no admin tier for all", policyAdmin, "create -n moire-system -f -", `a Policy of tier admin holds for every Domain, and system:serviceaccount:people:one-domain may not manage every Domain`},
		{oneDomain, "writes no admin tier without Domain", policyAdmin, "create -n people -f -", `holds for a whole Domain, but project people belongs to none`},
		{tenant, "deletes no admin tier", "", "delete policy guard -n acme-shop", `spec.tier: a Policy of tier admin holds for the whole Domain "acme"`},
		{tenant, "weakens no admin tier", "", "patch policy guard -n acme-shop --type=merge -p {\"spec\":{\"tier\":\"project\"}}", `spec.tier: a Policy of tier admin`},
		{tenant, "deletes not all either", "", "delete --raw /apis/moire.dev/v1alpha1/namespaces/acme-shop/policies", `spec.tier: a Policy of tier admin`},
		{oneDomain, "deletes the admin tier", "", "delete policy guard -n acme-shop", ""},
		{oneDomain, "frees its project", "", "label namespace acme-new moire.dev/domain-", ""},

		{allDomains, "writes the admin tier for all", policyAdmin, "create -n moire-system -f -", ""},
		{allDomains, "makes projects", namespaceWith("beta-more", "beta"), "create -f -", ""},
		{allDomains, "makes projects of Domains to come", namespaceWith("later", "later"), "create -f -", ""},
		{oneDomain, "writes no firewall", nodeFirewall, "create -f -", "spec.firewall: the node serves every Domain, and system:serviceaccount:people:one-domain may not manage every Domain"},
		{allDomains, "reads nodes", "", "get nodes.moire.dev", ""},
	}
}

const (
	linkServiceFloating = `
apiVersion: moire.dev/v1alpha1
kind: Link
metadata: {name: one}
spec: {ends: [{network: web}, {network: other}]}
---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: one}
spec: {networks: [{network: web}], ports: [{port: 80}], selector: {}}
---
apiVersion: moire.dev/v1alpha1
kind: FloatingIP
metadata: {name: one}
spec: {pool: {project: beta-shop, network: web}, targets: [{workload: ran}]}
`
	edgeOne = `
apiVersion: v1
kind: Secret
metadata: {name: edge}
type: kubernetes.io/tls
data: {tls.crt: "", tls.key: ""}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: moire, listeners: [{name: http, port: 80, protocol: HTTP}]}
`
	trafficOne = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: one}
spec: {parentRefs: [{group: moire.dev, kind: Service, name: one}], rules: [{backendRefs: [{name: one, port: 80}], retry: {attempts: 2}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: one}
spec: {parentRefs: [{group: moire.dev, kind: Service, name: one}], rules: [{backendRefs: [{name: one, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: one}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: beta-shop}], to: [{group: "", kind: Service}]}
---
apiVersion: moire.dev/v1alpha1
kind: BackendPolicy
metadata: {name: one}
spec: {targetRefs: [{kind: Service, name: one}], balancer: {}}
---
apiVersion: moire.dev/v1alpha1
kind: FaultPolicy
metadata: {name: one}
spec: {targetRefs: [{kind: HTTPRoute, name: one}], abort: {status: 503, percent: 1}}
`
	networkExternal = `
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: pool}
spec: {prefixes: [192.0.2.0/24], external: true}
`
	nodeFirewall = `
apiVersion: moire.dev/v1alpha1
kind: Node
metadata: {name: walled}
spec: {address: 192.0.2.99, firewall: {mode: audit}}
`
)

// TestTenants: two projects of two Domains, a tenant admin and a viewer of one,
// an admin of one Domain, an admin of all.
func TestTenants(t *testing.T) {
	for _, d := range []string{"acme", "beta"} {
		kubectl(t, fmt.Sprintf("apiVersion: moire.dev/v1alpha1\nkind: Domain\nmetadata: {name: %s}\n", d), "apply", "-f", "-")
		kubectl(t, namespaceWith(d+"-shop", d), "apply", "-f", "-")
		kubectl(t, networkWeb, "create", "-n", d+"-shop", "-f", "-")
		shared.world.report(d+"-shop", "ran", "Running", "n1")
	}
	kubectl(t, "", "create", "namespace", "people")
	tenant := person(t, "people", "tenant")
	viewer := person(t, "people", "viewer")
	oneDomain := person(t, "people", "one-domain")
	allDomains := person(t, "people", "all-domains")
	kubectl(t, "", "create", "rolebinding", "tenant", "-n", "acme-shop", "--clusterrole=moire-tenant-admin", account("people", "tenant"))
	kubectl(t, "", "create", "rolebinding", "viewer", "-n", "acme-shop", "--clusterrole=moire-tenant-viewer", account("people", "viewer"))
	kubectl(t, "", "create", "clusterrolebinding", "all-domains", "--clusterrole=moire-domain-admin", account("people", "all-domains"))
	kubectl(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: acme-admin}
rules:
- {apiGroups: [moire.dev], resources: [domains], resourceNames: [acme], verbs: [get, manage]}
- {apiGroups: [""], resources: [namespaces], verbs: [get, create, patch, update, delete]}
- {apiGroups: [""], resources: [namespaces/finalize, namespaces/status], verbs: [get, update, patch]}
- {apiGroups: [moire.dev], resources: [policies, networks, nodes], verbs: ["*"]}
`, "apply", "-f", "-")
	kubectl(t, "", "create", "clusterrolebinding", "acme-admin", "--clusterrole=acme-admin", account("people", "one-domain"))

	for _, c := range attempts(tenant, viewer, oneDomain, allDomains) {
		t.Run(filepath.Base(c.who)+" "+c.name, func(t *testing.T) {
			out, errs, err := kubectlWith(t, c.who, c.stdin, strings.Fields(c.args)...)
			switch {
			case c.want == "" && err != nil && !strings.Contains(errs, "Client.Timeout"):
				t.Errorf("kubectl %s: %v\n%s%s", c.args, err, out, errs)
			case c.want != "" && (err == nil || !strings.Contains(errs, c.want)):
				t.Errorf("kubectl %s: %v\n%s%s\nwant an error with: %s", c.args, err, out, errs, c.want)
			}
		})
	}
	kubectl(t, "", "delete", "policy", "guard", "-n", "moire-system")
}
