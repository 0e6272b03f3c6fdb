package node

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// dnsmasq runs one in a namespace, with its own records.
func dnsmasq(t *testing.T, netns string, args ...string) {
	t.Helper()
	needProgram(t, "dnsmasq")
	pid := filepath.Join(t.TempDir(), "pid")
	args = append([]string{"--net=" + netns, "dnsmasq", "--no-daemon", "--no-hosts", "--no-resolv", "--conf-file=/dev/null", "--pid-file=" + pid, "--user=root", "--bind-interfaces"}, args...)
	c := exec.Command("nsenter", args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
}

// TestForwardInside: two tenants delegate the same zone to servers of the same
// address, each inside its own Network, and hear each only its own; every other
// name goes by the node, as its resolv.conf says, and is asked anew when that
// changes.
func TestForwardInside(t *testing.T) {
	x := newTenants(t, func(s *snapshot.Snapshot) {
		for vni, n := range s.Names {
			n.NoForward = false
			n.Delegations = []snapshot.Delegation{{Zone: "corp.test", Servers: servers("10.0.0.65:53")}, {Zone: "six.test", Servers: servers("[fd00::101]:53")}}
			s.Names[vni] = n
		}
	})
	for project, labels := range map[string]map[string]string{"shop": {"app": "web"}, "bank": nil} {
		netns := addNetns(t, ns(t, "dns-"+project))
		got, err := x.client().Attach(t.Context(), local.Attach{Project: project, Workload: "dns", Networks: []string{"front"}, Netns: netns, Labels: labels, Persist: true})
		if err != nil {
			t.Fatal(err)
		}
		if a := got.Interfaces[0].Addresses; a[0].String() != "10.0.0.65" || a[1].String() != "fd00::101" {
			t.Fatalf("addresses %v", a)
		}
		number := map[string]string{"shop": "192.0.2.1", "bank": "192.0.2.2"}[project]
		dnsmasq(t, netns, "--interface=eth0", "--host-record=www.corp.test,"+number, "--host-record=www.six.test,"+number, "--txt-record=big.corp.test,"+strings.Repeat("x", 250)+","+strings.Repeat("y", 250)+","+strings.Repeat("z", 250)+","+strings.Repeat("w", 250)+","+strings.Repeat("v", 250)+","+strings.Repeat("u", 250), "--auth-ttl=60")
	}
	for _, c := range []struct{ netns, want string }{{x.shop, "192.0.2.1"}, {x.bank, "192.0.2.2"}} {
		for _, name := range []string{"www.corp.test", "www.six.test"} {
			eventually(t, name+" is "+c.want, func() bool { return x.short(c.netns, name) == c.want })
		}
		if got := in(t, c.netns, "kdig", "@169.254.169.253", "big.corp.test", "TXT"); !strings.Contains(got, "vvvv") || !strings.Contains(got, "(TCP)") {
			t.Errorf("what is too long for UDP: %s", got)
		}
	}
	// By the node: first nobody, then a server in the node's own namespace.
	if got := in(t, x.shop, "kdig", "@169.254.169.253", "+edns", "+time=6", "www.example.com"); !strings.Contains(got, "SERVFAIL") || !strings.Contains(got, "the node has no servers to ask") {
		t.Errorf("without servers: %s", got)
	}
	sh(t, "ip", "-n", ns(t, "n1"), "addr", "add", "198.18.90.99/32", "dev", "lo")
	sh(t, "ip", "-n", ns(t, "n1"), "link", "set", "lo", "up")
	dnsmasq(t, x.netns, "--listen-address=198.18.90.99", "--host-record=www.example.com,192.0.2.3")
	if err := os.WriteFile(x.cfg.ResolvConf, []byte("nameserver 198.18.90.99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "www.example.com is answered by the node's server", func() bool { return x.short(x.shop, "www.example.com") == "192.0.2.3" })
	x.stop()
}

func (x *tenants) short(netns, name string) string {
	out, err := exec.Command("nsenter", "--net="+netns, "kdig", "@169.254.169.253", "+short", "+time=2", "+retry=0", name, "A").CombinedOutput()
	if err != nil {
		time.Sleep(50 * time.Millisecond)
	}
	return strings.TrimSpace(string(out))
}

func servers(all ...string) (out []netip.AddrPort) {
	for _, a := range all {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}
