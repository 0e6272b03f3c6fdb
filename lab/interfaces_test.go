package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const severalNetworks = `
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
metadata: {name: DOMAIN-q, labels: {moire.dev/domain: DOMAIN}}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: front, namespace: DOMAIN-p}
spec: {prefixes: [10.9.0.0/24, "fd09::/64"]}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: back, namespace: DOMAIN-p}
spec: {prefixes: [203.0.113.0/28, "2001:db8:77::/64"]}
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: core, namespace: DOMAIN-q}
spec:
  prefixes: [10.8.0.0/24]
  consents: [{project: DOMAIN-p, for: [attach]}]
---
apiVersion: moire.dev/v1alpha1
kind: Network
metadata: {name: closed, namespace: DOMAIN-q}
spec: {prefixes: [10.7.0.0/24]}
---
apiVersion: moire.dev/v1alpha1
kind: Workload
metadata: {name: gate, namespace: DOMAIN-p, labels: {app: gate}}
spec:
  interfaces:
    - {network: front, addresses: [10.9.0.77, "fd09::77"]}
    - {network: back, addresses: [203.0.113.7, "2001:db8:77::7"]}
    - {network: DOMAIN-q/core, addresses: [10.8.0.77]}
`

// several attaches a namespace to Networks, one call for all.
func (l *Lab) several(node, project, name, netns string, networks ...string) (string, error) {
	args := []string{"attach", "--run-dir", l.RunDir, "--node", node, "--netns", netns, "--project", project, "--name", name, "-o", "json"}
	for _, n := range networks {
		args = append(args, "--network", n)
	}
	return l.moire(args...)
}

// TestSeveralInterfaces: a declared Workload with interfaces in three Networks,
// one of another project, one with addresses of the tenant's own; they move
// with it to another node; and one goes without the others.
func TestSeveralInterfaces(t *testing.T) {
	l := theLab(t)
	for _, domain := range []string{"multi-a", "multi-b"} { // the same addresses twice
		l.apply(t, strings.ReplaceAll(severalNetworks, "DOMAIN", domain))
	}
	for _, domain := range []string{"multi-a", "multi-b"} {
		p, q := domain+"-p", domain+"-q"
		peers := map[string]guest{
			"front": l.attach(t, "n2", p, "front", "web"), "back": l.attach(t, "n2", p, "back", "db"), q + "/core": l.attach(t, "n3", q, "core", "mainframe"),
		}
		want := map[string]string{"front": "10.9.0.77 fd09::77", "back": "203.0.113.7 2001:db8:77::7", q + "/core": "10.8.0.77"}
		name := "moire-t-w-" + domain
		netns, err := makeNetns(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeNetns(name) })
		for _, node := range []string{"n1", "n2"} {
			out, err := l.several(node, p, "gate", netns, "front", "back", q+"/core")
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var got struct {
				Interfaces []struct {
					Network, IfName string
					Addresses       []netip.Addr
				}
			}
			if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Interfaces) != 3 {
				t.Fatalf("%v: %s", err, out)
			}
			for n, i := range got.Interfaces {
				if has := strings.Trim(fmt.Sprint(i.Addresses), "[]"); has != want[i.Network] || i.IfName != fmt.Sprint("eth", n) {
					t.Errorf("%s on %s is %s with %s, want %s", i.Network, node, i.IfName, has, want[i.Network])
				}
				for k, a := range peers[i.Network].addrs {
					meets(t, netns, i.Addresses[min(k, len(i.Addresses)-1)], peers[i.Network].netns, a)
				}
			}
			l.must(t, "detach", "--run-dir", l.RunDir, "--node", node, "--network", "back", p+"/gate")
			meets(t, netns, got.Interfaces[0].Addresses[0], peers["front"].netns, peers["front"].addrs[0])
			if ping(netns, peers["back"].addrs[0]) == nil {
				t.Error("what was detached still reaches its Network")
			}
			l.must(t, "detach", "--run-dir", l.RunDir, "--node", node, p+"/gate")
		}
		args := []string{"attach", "--run-dir", l.RunDir, "--node", "n1", "--tap", "--tap-owner", "nobody", "-p", p, "--network", "front", "--network", "back", "--name", "vm"}
		if out := l.must(t, args...); strings.Count(out, "tap on this node; MAC 02:") != 2 {
			t.Errorf("taps: %s", out)
		}
		if out, err := exec.Command("ip", "-n", "moire-t-n1", "tuntap").CombinedOutput(); err != nil || strings.Count(string(out), "tap persist user") != 2 {
			t.Errorf("taps: %v: %s", err, out)
		}
		l.must(t, "detach", "--run-dir", l.RunDir, "--node", "n1", p+"/vm")
		if out, err := l.several("n1", p, "intruder", netns, q+"/closed"); err == nil || !strings.Contains(out, "consent") {
			t.Errorf("a Network that does not consent: %v: %s", err, out)
		}
	}
}

func meets(t *testing.T, from string, source netip.Addr, to string, dest netip.Addr) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	err := ping(from, dest)
	for err != nil && time.Now().Before(deadline) {
		err = ping(from, dest)
	}
	if err == nil {
		err = ping(to, source)
	}
	if err != nil {
		t.Errorf("%s and %s do not meet: %v", source, dest, err)
	}
}

func ping(netns string, to netip.Addr) error {
	out, err := exec.Command("nsenter", "--net="+netns, "ping", "-n", "-c", "1", "-W", "1", to.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
