package datapath

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// openTap opens a tap device of this thread's namespace.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// machine plays a VM: it has the tap open, as QEMU does, and behind it is a
// whole kernel, which is a namespace with a tap vm0 of its own.
func (n *testNode) machine(l Local) string {
	n.t.Helper()
	ns := "moire-dp-vm-" + l.Key.Workload
	addNetns(n.t, ns)
	var outer, inner *os.File
	inNetns(n.t, n.ns, func() (err error) { outer, err = openTap(l.Host); return err })
	inNetns(n.t, ns, func() (err error) { inner, err = openTap("vm0"); return err })
	done := make(chan bool, 2)
	for _, way := range [][2]*os.File{{outer, inner}, {inner, outer}} {
		go func() {
			b := make([]byte, 65536)
			for {
				m, err := way[0].Read(b)
				if err != nil {
					break
				}
				way[1].Write(b[:m])
			}
			done <- true
		}()
	}
	n.t.Cleanup(func() { outer.Close(); inner.Close(); <-done; <-done })
	sh(n.t, "ip -n %s link set vm0 address %s mtu %d up", ns, net.HardwareAddr(l.MAC[:]), n.MTU(0))
	return ns
}

// tap plugs a workload by a tap.
func (w *world) tap(node, project, name string, vni snapshot.VNI, identity snapshot.MAC, addrs ...string) Local {
	w.t.Helper()
	l := Local{Key: snapshot.AttachmentKey{Project: project, Workload: name, Network: "net"}, VNI: vni, MAC: identity, Tap: true, DHCP: true}
	l.Host = HostName(node, l.Key)
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParseAddr(a))
	}
	w.endpoint(node, project, name, vni, 19, l.MAC, l.Addrs)
	n := w.nodes[node]
	for range 2 { // the second changes nothing
		inNetns(w.t, n.ns, func() error {
			return Plug(PlugConfig{Node: node, Key: l.Key, Host: l.Host, MAC: l.MAC, Addrs: l.Addrs, Prefixes: w.networks[vni].Prefixes, MTU: n.MTU(0), Tap: true, DHCP: true})
		})
	}
	n.locals = append(n.locals, l)
	return l
}

// TestTap: a machine on a tap reaches and is reached, here and across nodes,
// with large segments, and cannot be somebody else.
func TestTap(t *testing.T) {
	w := small(t)
	n := w.nodes["a"]
	n.record()
	l := w.tap("a", "acme", "vm", 100, snapshot.MAC{2, 0, 0, 0, 1, 1}, "10.1.0.9", "fd10:1::9")
	w.apply()
	ns := n.machine(l)
	sh(t, "ip -n %s addr add 10.1.0.9/24 dev vm0 && ip -n %s addr add fd10:1::9/64 dev vm0 nodad && ip -n %s route add default via 10.1.0.1", ns, ns, ns)
	for from, to := range map[string][]string{
		ns:                  {"10.1.0.2", "10.1.0.4", "10.1.0.1", "fd10:1::2", "fd10:1::4", "fd10:1::1"},
		"moire-dp-acme-web": {"10.1.0.9", "fd10:1::9"}, "moire-dp-acme-far": {"10.1.0.9", "fd10:1::9"},
	} {
		for _, a := range to {
			sh(t, "ip netns exec %s ping -n -c 2 -i 0.05 -W 1 %s", from, a)
		}
	}
	echoServer(t, ns, "10.1.0.9")
	for _, from := range []string{"moire-dp-acme-web", "moire-dp-acme-far"} {
		large(t, dial(t, from, "tcp", "10.1.0.9"))
	}
	n.find("of the session to the machine", func(r record.Record) bool {
		return r.Destination.Workload == "vm" && r.Protocol == "tcp" && r.Verdict == record.Allow
	})
	// What the agent answers is not told as a denial.
	sh(t, "ip netns exec %s sh -c 'echo x | timeout 1 nc -u -w 1 -b 255.255.255.255 67 || true'", ns)
	// Nobody else.
	sh(t, "ip -n %s addr add 10.1.0.2/32 dev vm0", ns)
	if out, err := shell("ip netns exec %s ping -n -c 1 -W 1 -I 10.1.0.2 10.1.0.4", ns); err == nil {
		t.Errorf("spoofed: %s", out)
	}
	n.find("of spoofing", func(r record.Record) bool { return r.Drop == "spoofed-ip" && r.Source.Workload == "vm" })
	sh(t, "ip -n %s addr del 10.1.0.2/32 dev vm0 && ip -n %s link set vm0 address 02:00:00:00:01:02", ns, ns)
	if out, err := shell("ip netns exec %s ping -n -c 1 -W 1 10.1.0.4", ns); err == nil {
		t.Errorf("with another MAC: %s", out)
	}
	sh(t, "ip -n %s link set vm0 address 02:00:00:00:01:01", ns)
	n.mu.Lock()
	for _, r := range n.seen {
		if r.Destination.Port == 67 {
			t.Errorf("told: %+v", r)
		}
	}
	n.mu.Unlock()
	// Without the agent, and with another one.
	n.Close()
	sh(t, "ip netns exec %s ping -n -c 2 -i 0.05 -W 1 10.1.0.4", ns)
	n.open()
	w.apply()
	sh(t, "ip netns exec %s ping -n -c 2 -i 0.05 -W 1 10.1.0.4", ns)
	// The router of advertisements is there.
	sh(t, "ip netns exec %s sh -c 'ping -6 -n -c 1 -W 1 fe80::4d:4fff:fe49:5245%%vm0 || true'; ip -n %s -6 neigh show fe80::4d:4fff:fe49:5245 | grep -q 02:4d:4f:49:52:45", ns, ns)
	var hosts []string
	inNetns(t, n.ns, func() (err error) { hosts, err = Plugged("a"); return err })
	if !strings.Contains(strings.Join(hosts, " "), l.Host) {
		t.Errorf("%s is not among %v", l.Host, hosts)
	}
	inNetns(t, n.ns, func() error { return Unplug(l.Host) })
	if out, err := shell("ip -n %s link show %s", n.ns, l.Host); err == nil {
		t.Errorf("still there: %s", out)
	}
}

// large sends a few megabytes there and back.
func large(t *testing.T, c net.Conn) {
	t.Helper()
	sent := make([]byte, 4<<20)
	rand.Read(sent)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	failed := make(chan error, 1)
	go func() { _, err := c.Write(sent); failed <- err }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil || !bytes.Equal(sent, got) {
		t.Errorf("not what was sent (%v)", err)
	}
}
