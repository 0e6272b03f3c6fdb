package datapath

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

const presenceDir = "/tmp/moire-dp-presence"

// present is a Presence in a namespace of its own.
func present(t *testing.T) *Presence {
	needRoot(t)
	addNetns(t, "moire-dp-present")
	var p *Presence
	cleanup := func() {
		inNetns(t, "moire-dp-present", func() error { return Cleanup(presenceDir, "a") })
		os.RemoveAll(presenceDir)
	}
	cleanup()
	inNetns(t, "moire-dp-present", func() (err error) { p, err = NewPresence(presenceDir, "a"); return err })
	t.Cleanup(func() { p.Close(); cleanup() })
	return p
}

func inside(t *testing.T, command string) string {
	t.Helper()
	return sh(t, "nsenter --net=%s/presence/moire-a sh -c '%s'", presenceDir, command)
}

var presentIn = map[snapshot.VNI]int{100: 1450, 16777214: 1400}

// TestPresenceRepair: a second Grow changes nothing, what somebody broke comes
// back, and Cleanup leaves nothing.
func TestPresenceRepair(t *testing.T) {
	p := present(t)
	grow := func() map[snapshot.VNI]int {
		t.Helper()
		if _, err := p.Grow(presentIn, 0x0102); err != nil {
			t.Fatal(err)
		}
		for vni := range presentIn { // as Datapath does
			sh(t, "ip -n moire-dp-present link set %s up", PresentIn("a", vni).Host)
		}
		got, err := p.Grow(presentIn, 0x0102)
		if err != nil || len(got) != len(presentIn) {
			t.Fatal(got, err)
		}
		return got
	}
	first := grow()
	look := func() string {
		const carrier = `sed "s/NO-CARRIER,//;s/,LOWER_UP//;s/state [A-Z]*//;s/ linkdown//"` // comes when it comes
		return inside(t, `ip -d addr | grep -v valid_lft | `+carrier+`; ip route | sort | `+carrier+`; ip -6 route | sort | `+carrier+
			`; ip neigh | sort; ip -6 neigh | sort; cat /proc/sys/net/ipv4/conf/all/rp_filter`) + sh(t, "ip -n moire-dp-present -d link | "+carrier)
	}
	want := look()
	for _, part := range []string{"169.254.169.253/32", "169.254.169.254/32", "169.254.1.2/32", "fd00:4d4f:4952:45:1::102/128", "fd00:4d4f:4952:45::53/128", "default via 169.254.169.1 dev n100", "default via fe80::1 dev n16777214",
		"n16777214", "moire-presence:a:100", "02:4d:4f:49:52:45"} {
		if !strings.Contains(want, part) {
			t.Errorf("no %s in\n%s", part, want)
		}
	}
	if second := grow(); fmt.Sprint(first) != fmt.Sprint(second) || look() != want {
		t.Errorf("a second Grow changed\n%s\nto\n%s", want, look())
	}
	host := PresentIn("a", 100).Host
	for what, command := range map[string]string{
		"address":   "nsenter --net=%s/presence/moire-a ip addr del 169.254.169.253/32 dev n100",
		"address 6": "nsenter --net=%s/presence/moire-a ip addr flush dev n100 scope global",
		"route":     "nsenter --net=%s/presence/moire-a ip route flush dev n100",
		"route 6":   "nsenter --net=%s/presence/moire-a ip -6 route del default dev n100",
		"neighbour": "nsenter --net=%s/presence/moire-a ip neigh del 169.254.169.1 dev n100",
		"down":      "nsenter --net=%s/presence/moire-a ip link set n100 down",
		"mtu":       "nsenter --net=%s/presence/moire-a ip link set n100 mtu 1300",
		"renamed":   "nsenter --net=%s/presence/moire-a ip link set n100 down name nobody",
		"removed":   "nsenter --net=%s/presence/moire-a ip link del n100",
		"host end":  "ls %s && ip -n moire-dp-present link del " + host,
		"file":      "umount %s/presence/moire-a && rm " + presenceFile(presenceDir, "a"),
	} {
		sh(t, command, presenceDir)
		after := grow()
		again := grow()
		if fmt.Sprint(after) != fmt.Sprint(again) {
			t.Errorf("%s: made again without need: %v, then %v", what, after, again)
		}
		got := inside(t, "ip -o addr show n100; ip route show dev n100; ip -6 route show dev n100; ip neigh show dev n100; ip -6 neigh show dev n100; ip link show n100")
		for _, part := range []string{"169.254.169.253/32", "169.254.169.254/32", "fd00:4d4f:4952:45::53/128", "default via 169.254.169.1", "default via fe80::1", "UP", "mtu 1450",
			"169.254.169.1 lladdr 02:4d:4f:49:52:45 PERMANENT", "fe80::1 lladdr 02:4d:4f:49:52:45"} {
			if !strings.Contains(got, part) {
				t.Errorf("%s: no %s in\n%s", what, part, got)
			}
		}
	}
	if err := p.Shrink(map[snapshot.VNI]int{100: 1450}); err != nil {
		t.Fatal(err)
	}
	if got := inside(t, "ip -o link"); strings.Contains(got, "n16777214") || !strings.Contains(got, "n100") {
		t.Errorf("after Shrink:\n%s", got)
	}
	inNetns(t, "moire-dp-present", func() error {
		hosts, err := Plugged("a")
		if len(hosts) > 0 {
			t.Errorf("%v is listed as plugged", hosts)
		}
		return err
	})
	inNetns(t, "moire-dp-present", func() error { return Cleanup(presenceDir, "a") })
	if left := sh(t, "ip -n moire-dp-present -o link; ls -R %s", presenceDir); strings.Contains(left, "moire-a") || strings.Contains(left, ": "+hostPrefix) {
		t.Errorf("left:\n%s", left)
	}
}

// TestPresenceApart: two Networks with the same addresses, and the same socket
// addresses on the node's side: each is answered, and hears only its own.
func TestPresenceApart(t *testing.T) {
	p := present(t)
	for range 2 {
		if _, err := p.Grow(presentIn, 0x0102); err != nil {
			t.Fatal(err)
		}
		for vni := range presentIn {
			sh(t, "ip -n moire-dp-present link set %s up", PresentIn("a", vni).Host)
		}
	}
	for vni := range presentIn {
		// In place of the programs: the other end is a Workload, of the same
		// address in both Networks, by the gateway's MAC.
		ns := fmt.Sprintf("moire-dp-present%d", vni)
		addNetns(t, ns)
		sh(t, "ip -n moire-dp-present link set %s netns %s name net0 address %s", PresentIn("a", vni).Host, ns, snapshot.RouterMAC)
		sh(t, "ip -n %s link set net0 up && ip netns exec %s sysctl -qw net.ipv6.conf.net0.disable_ipv6=0 net.ipv6.conf.net0.accept_dad=0", ns, ns)
		sh(t, "ip -n %s addr add 10.0.0.2/24 dev net0 && ip -n %s addr add fd10::2/64 dev net0 nodad", ns, ns)
		for _, a := range presenceAddrs {
			sh(t, "ip -n %s route add %s dev net0 && ip -n %s neigh replace %s dev net0 lladdr %s", ns, a, ns, a, PresentIn("a", vni).MAC)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, a := range presenceAddrs {
			for vni := range presentIn {
				serve(t, p, vni, network, net.JoinHostPort(a.String(), "53"))
			}
			for vni := range presentIn {
				got := ask(t, fmt.Sprintf("moire-dp-present%d", vni), network, net.JoinHostPort(a.String(), "53"))
				if !strings.HasPrefix(got, fmt.Sprintf("%d ", vni)) || !strings.Contains(got, "10.0.0.2") && !strings.Contains(got, "fd10::2") {
					t.Errorf("%s %s in network %d: %q", network, a, vni, got)
				}
			}
		}
	}
}

func bindTo(vni snapshot.VNI) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), PresenceDevice(vni)) }); e != nil {
			return e
		}
		return err
	}
}

// serve says in which Network it was asked, and by whom.
func serve(t *testing.T, p *Presence, vni snapshot.VNI, network, addr string) {
	t.Helper()
	lc := net.ListenConfig{Control: bindTo(vni)}
	done := make(chan bool)
	err := p.Do(func() error {
		if network == "udp" {
			c, err := lc.ListenPacket(context.Background(), network, addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close(); <-done })
			go func() {
				defer close(done)
				b := make([]byte, 100)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					c.WriteTo(fmt.Append(nil, uint32(vni), " ", from), from)
				}
			}()
			return nil
		}
		l, err := lc.Listen(context.Background(), network, addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close(); <-done })
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, uint32(vni), " ", c.RemoteAddr())
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, ns, network, addr string) string {
	t.Helper()
	var c net.Conn
	inNetns(t, ns, func() (err error) {
		c, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial(network, addr)
		return err
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	c.Write([]byte("hello"))
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		t.Error(network, addr, err)
	}
	return string(b[:n])
}
