package compile

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

var hosts = []gateway.Hostname{"a.example.com", "b.example.com", "*.example.com"}

// pair is a certificate and its key.
var pair = sync.OnceValue(func() *Secret {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1)}
	chain, err := x509.CreateCertificate(rand.Reader, of, of, public, key)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return &Secret{text("CERTIFICATE", chain), text("PRIVATE KEY", der)}
})

func class(controller gateway.GatewayController) *gateway.GatewayClass {
	return &gateway.GatewayClass{Spec: gateway.GatewayClassSpec{ControllerName: controller}}
}

// changeGateways makes one random change of Gateways and what they are made of.
func (w world) changeGateways(t *rapid.T) {
	k := Key{pick(t, projects[:3]), pick(t, names[:2])}
	workload, node := workloadOf(k.Name), pick(t, nodes)
	switch rapid.IntRange(0, 9).Draw(t, "gateways") {
	case 0, 1, 2, 3:
		w.Gateways[k] = drawGateway(t, k)
	case 4:
		w.Secrets[k] = pick(t, []*Secret{pair(), {}, {Chain: pair().Chain, Key: "\xff"}})
	case 5:
		w.Labels[k.Project] = map[string]string{"app": pick(t, apps)}
	case 6:
		w.Classes["moire"] = class(pick(t, []gateway.GatewayController{v1alpha1.GatewayController, v1alpha1.GatewayController, "example.com/other"}))
	case 7:
		if w.Reports[node] != nil {
			w.attach(node, k.Project, workload, pick(t, networks), rapid.IntRange(0, 2).Draw(t, "minute"), pick(t, hostings))
		}
	case 8:
		w.workload(k.Project, workload, "n1", pick(t, networks))
	case 9:
		delete(w.Gateways, k)
		delete(w.Secrets, k)
		delete(w.Workloads, Key{k.Project, workload})
	}
}

func drawGateway(t *rapid.T, k Key) *gateway.Gateway {
	g := &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: k.Project, Name: k.Name, Annotations: map[string]string{v1alpha1.NetworkAnnotation: pick(t, []string{"main", "main", "shop/main", "back", ""})}}}
	g.Spec.GatewayClassName = gateway.ObjectName(pick(t, []string{"moire", "moire", "moire", "other"}))
	if !often(t) {
		g.Annotations[v1alpha1.NodesAnnotation] = pick(t, nodes)
	}
	if !often(t) {
		g.Spec.Addresses = []gateway.GatewaySpecAddress{{Value: pick(t, hostings)}}
	}
	for _, name := range names[:rapid.IntRange(0, 3).Draw(t, "listeners")] {
		l := gateway.Listener{Name: gateway.SectionName(name), Port: int32(rapid.IntRange(1, 2).Draw(t, "port")), Protocol: pick(t, []gateway.ProtocolType{"HTTP", "HTTP", "HTTPS", "TLS", "TCP", "UDP"})}
		if l.Protocol == "HTTPS" || l.Protocol == "TLS" {
			l.TLS = &gateway.ListenerTLSConfig{CertificateRefs: []gateway.SecretObjectReference{{Name: gateway.ObjectName(pick(t, names[:2]))}}}
			if !often(t) {
				l.TLS.Mode = pointer(gateway.TLSModePassthrough)
			}
			if !often(t) {
				l.TLS.CertificateRefs[0].Namespace = pointer(gateway.Namespace(pick(t, projects[:3])))
			}
		}
		if often(t) {
			l.Hostname = pointer(pick(t, hosts))
		}
		if often(t) {
			l.AllowedRoutes = &gateway.AllowedRoutes{Namespaces: &gateway.RouteNamespaces{From: pointer(pick(t, []gateway.FromNamespaces{"Same", "All", "Selector"})), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	return g
}

// checkGateways: a node has only what it runs, a proxy can have it, and what it
// says of routes is there. Keys go nowhere else.
func checkGateways(t *rapid.T, s *snapshot.Snapshot, seen map[snapshot.GatewayKey]string) {
	for k, g := range s.Gateways {
		if first, twice := seen[k]; twice {
			t.Fatalf("nodes %s and %s run %v", first, s.Node, k)
		}
		seen[k] = s.Node
		if bad := g.Validate(); len(bad) > 0 || g.GatewayKey != k || g.Attachment.Project != k.Project || g.Attachment.Workload != workloadOf(k.Name) {
			t.Fatalf("%v: %v", g, bad)
		}
		for _, l := range g.Listeners {
			for _, name := range l.Routes {
				if r, known := s.Routes[name]; !known || !l.Takes(r.Kind) {
					t.Fatalf("listener %s has route %s, which it cannot have", l.Name, name)
				}
			}
		}
	}
}
