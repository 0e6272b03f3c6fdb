package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// controlPlaneGone kills the control plane (R1).
func (r *reliable) controlPlaneGone(t *testing.T, _ *load) {
	before := r.versions(t)
	if err := r.Control.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(times(1, 60)) * time.Second)
	if err := r.StartControl(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.settle(t)
	time.Sleep(time.Second)
	if after := r.versions(t); after != before {
		t.Errorf("snapshots changed although nothing did\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// nodeDies takes a node with backends away, agent, proxy and wire (R6), and
// brings it back. On a machine that does nothing else its callers have left it
// within 3 s.
func (r *reliable) nodeDies(t *testing.T, w *load) {
	n := r.Nodes[2]
	wire := func(state string) {
		t.Helper()
		if out, err := exec.Command("ip", "link", "set", n.port, state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var worst time.Duration
	r.repeat(t, 1, 10, func(int) {
		pid := r.proxy(t, n)
		at := time.Now()
		w.spare(at, 5*time.Second)
		wire("down")
		if err := n.Agent.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * time.Second)
		worst = max(worst, w.last(at))
		wire("up")
		if err := r.StartAgent(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		r.settle(t)
		time.Sleep(time.Second)
	})
	t.Logf("the last request that failed began %s after the node died", worst.Round(time.Millisecond))
}

// ejecting is a tenant that is not in the mesh: requests to port 80 are routed,
// what comes to the other ports is the kernel's matter.
const ejecting = bare + `---
apiVersion: moire.dev/v1alpha1
kind: Service
metadata: {name: page, namespace: DOMAIN-p}
spec:
  networks: [{network: net, addresses: [10.9.0.200, "fd09::200"]}]
  selector: {matchLabels: {app: page}}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}, {name: raw, port: 81, targetPort: 8081}, {name: udp, port: 82, targetPort: 8082, protocol: UDP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: page, namespace: DOMAIN-p}
spec:
  parentRefs: [{group: moire.dev, kind: Service, name: page, port: 80}]
  rules: [{backendRefs: [{group: moire.dev, kind: Service, name: page, port: 80}]}]
---
apiVersion: moire.dev/v1alpha1
kind: BackendPolicy
metadata: {name: page, namespace: DOMAIN-p}
spec:
  targetRefs: [{kind: Service, name: page, port: 80}]
  outlier: {consecutive5xx: 3, baseEjection: 2s, maxEjectionPercent: 50}
`

// ejected is one such tenant.
type ejected struct {
	web  guest
	page map[string]*replica // by name
}

func (l *Lab) ejecting(t *testing.T, domain string) *ejected {
	t.Helper()
	l.apply(t, strings.ReplaceAll(ejecting, "DOMAIN", domain))
	e := &ejected{web: l.attach(t, "n1", domain+"-p", "net", "web", "app=web"), page: map[string]*replica{}}
	for _, node := range []string{"n2", "n3"} {
		name := domain + " " + node
		g := l.attach(t, node, domain+"-p", "net", "page-"+node, "app=page")
		b := &replica{says: name}
		g.serve(t, 8080, b)
		g.serve(t, 8081, &replica{says: name})
		g.echo(t, 8082, name)
		e.page[node] = b
	}
	return e
}

// echo answers datagrams with a name until the test ends.
func (g guest) echo(t *testing.T, port int, name string) {
	t.Helper()
	var c net.PacketConn
	if err := InNetns(g.netns, func() (err error) { c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo([]byte(name), from)
		}
	}()
}

// chosen is who answers 24 new sessions over TCP and as many over UDP.
func (e *ejected) chosen(t *testing.T, vip string) (tcp, udp map[string]int) {
	t.Helper()
	tcp, udp = map[string]int{}, map[string]int{}
	for range 24 {
		for network, seen := range map[string]map[string]int{"tcp": tcp, "udp": udp} {
			var name string
			err := InNetns(e.web.netns, func() (err error) { name, err = askOnce(network, vip); return err })
			if err != nil {
				t.Fatalf("%s to %s: %v", network, vip, err)
			}
			seen[name]++
		}
	}
	return tcp, udp
}

func askOnce(network, vip string) (string, error) {
	port, ask := uint16(81), "GET / HTTP/1.0\r\n\r\n"
	if network == "udp" {
		port, ask = 82, "x"
	}
	c, err := net.DialTimeout(network, netip.AddrPortFrom(netip.MustParseAddr(vip), port).String(), 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(c, ask); err != nil {
		return "", err
	}
	b := make([]byte, 1024)
	if network == "udp" {
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	answer, err := io.ReadAll(c)
	_, name, _ := strings.Cut(string(answer), "\r\n\r\n")
	return name, err
}

// TestEjected: a backend whose answers to requests are errors is not chosen for
// new sessions over TCP and UDP either, in both families, and comes back; the other
// tenant, whose backend has the same address, is not concerned.
func TestEjected(t *testing.T) {
	l := theLab(t)
	ill, well := l.ejecting(t, "ejects-a"), l.ejecting(t, "ejects-b")
	l.settle(t)
	client := ill.web.client(t)
	until := func(what string, want int) {
		t.Helper()
		var tcp, udp map[string]int
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(100 * time.Millisecond) {
			for range 6 {
				get(client, "http://10.9.0.200/")
			}
			right := true
			for _, vip := range []string{"10.9.0.200", "fd09::200"} {
				tcp, udp = ill.chosen(t, vip)
				right = right && len(tcp) == want && len(udp) == want && (want == 2 || tcp["ejects-a n2"] == 0 && udp["ejects-a n2"] == 0)
			}
			if right {
				t.Logf("%s after %s", what, time.Since(began).Round(100*time.Millisecond))
				return
			}
		}
		t.Errorf("%s: not in time; TCP %v, UDP %v", what, tcp, udp)
	}
	until("both are chosen", 2)
	ill.page["n2"].ill.Store(true)
	until("one is out", 1)
	if tcp, udp := well.chosen(t, "10.9.0.200"); len(tcp) != 2 || len(udp) != 2 {
		t.Errorf("the other tenant: TCP %v, UDP %v", tcp, udp)
	}
	ill.page["n2"].ill.Store(false)
	until("it is back", 2)
}
