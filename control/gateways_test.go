package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"moire.dev/moire/snapshot"
)

// edge is a Gateway with the certificate that it asks for.
const edge = `
apiVersion: v1
kind: Secret
metadata: {name: edge}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, annotations: {moire.dev/network: front, moire.dev/nodes: node-a}}
spec:
  gatewayClassName: moire
  listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: https, port: 443, protocol: HTTPS, hostname: "*.example.com", tls: {certificateRefs: [{name: edge}]}}
    - {name: bad, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: missing}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /}}}]}]
`

// gatewaysOf: a Gateway becomes a Workload of one node, which alone gets its key;
// it says how it is while it waits, when it runs, and of which certificate it is.
func gatewaysOf(t *testing.T, c *running, a, b *agent) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example.com"}}
	chain, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	objects := fmt.Sprintf(edge, text("CERTIFICATE", chain), text("PRIVATE KEY", der))
	c.kubectl(objects, "apply", "--server-side", "-n", "shop", "-f", "-")
	says := func(path, want string) {
		t.Helper()
		eventually(t, path+" is "+want, func() error {
			if got := c.kubectl("", "get", "gateway", "edge", "-n", "shop", "-o", "jsonpath={"+path+"}"); got != want {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
	}
	condition := func(of, kind, want string) {
		t.Helper()
		says(fmt.Sprintf(`%s.conditions[?(@.type==%q)]['status','reason','observedGeneration']`, of, kind), want)
	}
	says(".status.addresses[*].value", "")
	condition(".status", "Accepted", "True ListenersNotValid 1")
	condition(".status", "Programmed", "False Pending 1")
	condition(".status.listeners[2]", "ResolvedRefs", "False InvalidCertificateRef 1")

	name := snapshot.GatewayKey{Project: "shop", Name: "edge"}
	eventually(t, "node-a is told to run it", func() error {
		s, _ := a.now()
		g, known := s.Gateways[name]
		if !known || len(g.Listeners) != 2 || len(g.Certificates) != 1 || !strings.Contains(g.Certificates[0].Key, "PRIVATE KEY") || len(g.Listeners[1].Routes) != 1 {
			return fmt.Errorf("gateways %v", s.Gateways)
		}
		return nil
	})
	if s, _ := b.now(); len(s.Gateways) > 0 {
		t.Errorf("node-b has %v too", s.Gateways)
	}
	a.attach("shop", "gateway-edge", "front")
	condition(".status", "Programmed", "True Programmed 1")
	condition(".status.listeners[0]", "Programmed", "True Programmed 1")
	condition(".status.listeners[2]", "Programmed", "False Invalid 1")
	says(".status.listeners[*].attachedRoutes", "1 1 1")
	if s, _ := a.now(); len(s.Gateways) != 1 {
		t.Errorf("node-a has %v", s.Gateways)
	}
	for _, want := range []string{"CLASS", "PROGRAMMED", "10.0.0.", "True"} {
		if table := c.kubectl("", "get", "gateway", "-n", "shop"); !strings.Contains(table, want) {
			t.Errorf("kubectl get shows no %s:\n%s", want, table)
		}
	}
	if class := c.kubectl("", "get", "gatewayclass", "moire"); !strings.Contains(class, "moire.dev/control") || !strings.Contains(class, "True") {
		t.Errorf("kubectl get shows\n%s", class)
	}
	c.kubectl("", "patch", "gateway", "edge", "-n", "shop", "--type=json", "-p", `[{"op":"remove","path":"/spec/listeners/2"}]`)
	condition(".status", "Accepted", "True Accepted 2")

	c.kubectl(objects, "delete", "-n", "shop", "-f", "-")
	a.detach("gateway-edge")
	eventually(t, "the node has nothing of it any more", func() error {
		if s, _ := a.now(); len(s.Gateways)+len(s.Routes) > 0 {
			return fmt.Errorf("gateways %v, routes %v", s.Gateways, s.Routes)
		}
		return nil
	})
}
