package node

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/node/local"
	"moire.dev/moire/snapshot"
)

// tapProgram is a child process that has two taps open, in two namespaces, and
// carries frames between them: so a namespace plays the machine behind a tap.
func tapProgram(args string) int {
	var taps [2]*os.File
	for i, arg := range strings.Split(args, " ") {
		netns, name, _ := strings.Cut(arg, "=")
		f, err := os.Open(netns)
		if err != nil {
			return 1
		}
		// This thread is the only one that matters.
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return 2
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return 3
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return 4
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return 5
		}
		taps[i] = os.NewFile(uintptr(fd), name)
	}
	for _, way := range [][2]*os.File{{taps[0], taps[1]}, {taps[1], taps[0]}} {
		go func() {
			b := make([]byte, 65536)
			for {
				n, err := way[0].Read(b)
				if err != nil {
					os.Exit(6)
				}
				way[1].Write(b[:n])
			}
		}()
	}
	select {}
}

// guest makes a namespace the machine behind a tap, with its interface vm0.
func (m *machine) guest(name string, i local.Interface) string {
	m.t.Helper()
	netns := addNetns(m.t, name)
	exe, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "MOIRE_TEST_TAPS="+m.netns+"="+i.IfName+" "+netns+"=vm0")
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	eventually(m.t, "the machine has its interface", func() bool {
		return exec.Command("ip", "-n", name, "link", "set", "vm0", "address", i.MAC, "up").Run() == nil
	})
	return netns
}

func (m *machine) attachTap(name string, edit func(*local.Attach)) []local.Interface {
	m.t.Helper()
	a := web()
	a.Workload, a.Netns, a.Tap, a.Persist = name, "", true, true
	if edit != nil {
		edit(&a)
	}
	got, err := m.client().Attach(m.t.Context(), a)
	if err != nil {
		m.t.Fatal(err)
	}
	return got.Interfaces
}

// needProgram fails in CI when a program is missing that deploy/install brings.
func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// inGuest runs a command in the namespace, with a /etc and a /var of its own,
// so that clients of DHCP leave this machine's alone.
func inGuest(t *testing.T, netns, dir, script string) string {
	t.Helper()
	c := exec.Command("nsenter", "--net="+netns, "unshare", "-m", "sh", "-ec", "mount --bind "+dir+" /etc; "+script)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// guestDir is an /etc with what clients expect.
func guestDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"resolv.conf": "", "passwd": "root:x:0:0::/:/bin/sh\n", "nsswitch.conf": "hosts: dns\n",
		// Writes down what it is told, and takes it.
		"udhcpc.script": `#!/bin/sh
[ "$1" = deconfig ] && exit 0
env | grep -v ^PWD | sort > /etc/udhcpc.$1
ip -4 addr flush dev $interface; ip addr add $ip/$mask dev $interface
ip link set $interface mtu $mtu
set -- $staticroutes
while [ $# -gt 1 ]; do ip route replace $1 via $2 dev $interface onlink; shift 2; done
`,
		"dhclient.conf": "option classless-routes code 121 = array of unsigned integer 8;\nalso request classless-routes, interface-mtu, domain-search;\n",
		"dhclient.script": `#!/bin/sh
echo $reason >> /etc/dhclient.reasons
env | grep '^new_' | sort > /etc/dhclient.$reason
case $reason in
BOUND|REBOOT|RENEW) ip addr replace $new_ip_address/24 dev $interface; ip route replace default via $new_routers dev $interface;;
BOUND6|RENEW6|REBIND6) ip -6 addr replace $new_ip6_address/128 dev $interface nodad;;
esac
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func withNames(s *snapshot.Snapshot) {
	withBack(s)
	s.Names = map[snapshot.VNI]snapshot.DNS{}
	for vni := range s.Networks {
		s.Names[vni] = snapshot.DNS{VNI: vni, Zone: "moire.internal", Search: []string{"shop.moire.internal.", "moire.internal."}, TTL: 30 * time.Second}
	}
}

func expectAll(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !regexp.MustCompile("(?m)" + w).MatchString(text) {
			t.Errorf("%s: no %q in %s", what, w, text)
		}
	}
}

// TestTapMachine: real clients of DHCP and router advertisements on a tap, and
// what they then reach; over a restart of the agent, and afterwards nothing is
// left.
func TestTapMachine(t *testing.T) {
	needProgram(t, "udhcpc", "dhclient")
	m := newMachine(t)
	m.writeSnapshot(withNames)
	m.start()
	peer := addNetns(t, ns(t, "w1"))
	other := m.attach("web", peer)
	i := m.attachTap("vm", nil)[0]
	if i.IfName[:2] != "mo" || len(i.Addresses) != 2 || i.MTU != 1450 {
		t.Fatalf("%+v", i)
	}
	vm := m.guest(ns(t, "vm"), i)
	dir := guestDir(t)
	v4, v6 := i.Addresses[0].String(), i.Addresses[1].String()
	// It gets an address, and asks for it again when it is told to.
	inGuest(t, vm, dir, `udhcpc -i vm0 -n -f -t 5 -T 1 -O search -O staticroutes -O mtu -s /etc/udhcpc.script > /etc/log 2>&1 & p=$!
for what in bound renew; do
	for i in $(seq 100); do [ -s /etc/udhcpc.$what ] && break; sleep 0.1; done
	[ -s /etc/udhcpc.$what ] || { echo no $what; cat /etc/log; kill $p; exit 1; }
	kill -USR1 $p
done
sleep 0.2; kill $p`)
	said, err := os.ReadFile(filepath.Join(dir, "udhcpc.bound"))
	if err != nil {
		t.Fatal(err)
	}
	expectAll(t, "udhcpc", string(said), "^ip="+v4+"$", "^mask=24$", "^router=10.0.0.1$", "^dns=169.254.169.253$", "^mtu=1450$", "^lease=43200$",
		"^search=shop.moire.internal moire.internal$", "^staticroutes=169.254.169.253/32 10.0.0.1 169.254.169.254/32 10.0.0.1 0.0.0.0/0 10.0.0.1$", "^serverid=10.0.0.1$")
	reach := func() {
		t.Helper()
		for _, a := range other.Addresses {
			if err := ping(vm, a); err != nil {
				t.Errorf("%s: %v", a, err)
			}
		}
	}
	eventually(t, "the link-local address is the machine's", func() bool {
		out := sh(t, "ip", "-n", ns(t, "vm"), "-6", "addr", "show", "dev", "vm0")
		return strings.Contains(out, "fe80") && !strings.Contains(out, "tentative")
	})
	// IPv6: the kernel of the machine hears the router, the client asks for the address.
	inGuest(t, vm, dir, "dhclient -6 -1 -v -cf /etc/dhclient.conf -sf /etc/dhclient.script -lf /etc/leases6 -pf /etc/pid6 vm0 2>&1; until [ -s /etc/pid6 ]; do sleep 0.1; done; kill $(cat /etc/pid6)")
	said, err = os.ReadFile(filepath.Join(dir, "dhclient.BOUND6"))
	if err != nil {
		t.Fatal(err)
	}
	expectAll(t, "dhclient -6", string(said), "^new_ip6_address="+v6+"$", "^new_dhcp6_name_servers=fd00:4d4f:4952:45::53$", "^new_dhcp6_domain_search=shop.moire.internal. moire.internal.$")
	eventually(t, "the router is known", func() bool {
		return strings.Contains(sh(t, "ip", "-n", ns(t, "vm"), "-6", "route"), "default via fe80::4d:4fff:fe49:5245")
	})
	expectAll(t, "routes", sh(t, "ip", "-n", ns(t, "vm"), "-6", "route"), "^fd00::/64 dev vm0 proto kernel", "^default via fe80::4d:4fff:fe49:5245 .* expires 655")
	reach()
	m.kill()
	if err := ping(vm, other.Addresses[0]); err != nil {
		t.Errorf("without the agent: %v", err)
	}
	m.start()
	reach()
	// Another client, with an old lease of somebody else: refused, then served.
	sh(t, "ip", "-n", ns(t, "vm"), "-4", "addr", "flush", "dev", "vm0")
	lease := "lease { interface \"vm0\"; fixed-address 10.9.9.9; option subnet-mask 255.255.255.0; renew 2 2040/01/01 00:00:00; rebind 2 2040/01/01 00:00:00; expire 2 2040/01/01 00:00:00; }\n"
	if err := os.WriteFile(filepath.Join(dir, "leases4"), []byte(lease), 0o644); err != nil {
		t.Fatal(err)
	}
	log := inGuest(t, vm, dir, "dhclient -4 -1 -v -cf /etc/dhclient.conf -sf /etc/dhclient.script -lf /etc/leases4 -pf /etc/pid4 vm0 2>&1; until [ -s /etc/pid4 ]; do sleep 0.1; done; kill $(cat /etc/pid4)")
	expectAll(t, "dhclient -4", log, "DHCPNAK", "bound to "+v4)
	reach()
	m.expectSpoofFree(t)
	if err := m.client().Detach(t.Context(), local.Detach{Project: "shop", Workload: "vm"}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "-n", ns(t, "n1"), "link", "show", i.IfName).CombinedOutput(); err == nil {
		t.Errorf("still there: %s", out)
	}
	m.stop()
}

// TestDHCPInNamespace: a namespace that asks for itself is left alone, and a
// second interface is told no default route.
func TestDHCPInNamespace(t *testing.T) {
	needProgram(t, "udhcpc")
	m := newMachine(t)
	m.writeSnapshot(withNames)
	m.start()
	w := addNetns(t, ns(t, "w1"))
	a := web()
	a.Workload, a.Netns, a.Persist, a.DHCP, a.Networks = "asks", w, true, true, []string{"front", "back"}
	got, err := m.client().Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if out := sh(t, "ip", "-n", ns(t, "w1"), "-4", "addr"); strings.Contains(out, "eth0") {
		t.Errorf("dressed: %s", out)
	}
	dir := guestDir(t)
	for _, i := range got.Interfaces {
		inGuest(t, w, dir, "udhcpc -i "+i.IfName+" -n -q -f -t 5 -T 1 -O search -O staticroutes -O mtu -s /etc/udhcpc.script; mv /etc/udhcpc.bound /etc/"+i.IfName)
		said, err := os.ReadFile(filepath.Join(dir, i.IfName))
		if err != nil {
			t.Fatal(err)
		}
		expectAll(t, i.IfName, string(said), "^ip="+i.Addresses[0].String()+"$")
		if first := i.IfName == "eth0"; strings.Contains(string(said), "router=") != first || strings.Contains(string(said), "dns=") != first {
			t.Errorf("%s: %s", i.IfName, said)
		}
	}
	for _, g := range []string{"10.0.0.1", "10.1.0.1"} {
		if err := ping(w, netip.MustParseAddr(g)); err != nil {
			t.Errorf("%s: %v", g, err)
		}
	}
	m.stop()
}

// expectSpoofFree: what the machine asked of the agent is no denial.
func (m *machine) expectSpoofFree(t *testing.T) {
	t.Helper()
	for _, r := range m.records(t) {
		if r.Verdict == "deny" && (r.Destination.Port == 67 || r.Destination.Port == 547 || r.Destination.Address == netip.MustParseAddr("ff02::2")) {
			t.Errorf("told as denied: %+v", r)
		}
	}
}
