package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// TestForeignVXLAN: the other end is a Linux vxlan device, without any static
// entry but where to flood to.
func TestForeignVXLAN(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay-v6=%v", v6), func(t *testing.T) { testForeignVXLAN(t, v6) })
	}
}

func testForeignVXLAN(t *testing.T, v6 bool) {
	w := newWorld(t)
	w.underlay("192.168.77.", "fd77::")
	us, them := "192.168.77.1", "192.168.77.2"
	if v6 {
		us, them = "fd77::1", "fd77::2"
	}
	w.node("a", "moire-dp-a", us)
	w.external["tor"] = netip.MustParseAddr(them)
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	ns := w.workload("a", "acme", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	foreign := []netip.Addr{netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("fd10:1::9")}
	w.endpoint("tor", "acme", "server", 100, 12, snapshot.MAC{2, 0, 0, 0, 9, 9}, foreign)
	w.apply()
	sh(t, `ip -n moire-dp-b link add vx0 address 02:00:00:00:09:09 type vxlan id 100 dstport 4789 remote %s local %s dev up0 udp6zerocsumrx &&
			ip -n moire-dp-b addr add 10.1.0.9/24 dev vx0 && ip -n moire-dp-b addr add fd10:1::9/64 dev vx0 nodad && ip -n moire-dp-b link set vx0 mtu %d up`, us, them, w.nodes["a"].MTU(0))
	for _, dst := range []string{"10.1.0.9", "fd10:1::9"} {
		sh(t, "ip netns exec %s ping -c 3 -i 0.2 -W 1 %s", ns, dst)
		bulk(t, ns, "moire-dp-b", dst)
	}
	for _, dst := range []string{"10.1.0.2", "fd10:1::2"} {
		sh(t, "ip -n moire-dp-b neigh flush dev vx0; ip netns exec moire-dp-b ping -c 3 -i 0.2 -W 1 %s", dst)
		bulk(t, "moire-dp-b", ns, dst)
	}
	w.dump()
}

// TestPathMTU: a sender whose interface was set too large learns the size.
func TestPathMTU(t *testing.T) {
	w := small(t)
	sh(t, "ip -n moire-dp-acme-web link set net0 mtu 9000; ip -n moire-dp-a link set %s mtu 9000", w.nodes["a"].locals[0].Host)
	echoServer(t, "moire-dp-acme-far", "10.1.0.4")
	for _, dst := range []string{"10.1.0.4", "fd10:1::4"} {
		bulk(t, "moire-dp-acme-web", "moire-dp-acme-far", dst)
		shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 -M do -s 4000 %s", dst)
		sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 -s 4000 %s", dst)
	}
	if out := sh(t, "ip -n moire-dp-acme-web route get 10.1.0.4; ip -n moire-dp-acme-web route get fd10:1::4"); strings.Count(out, "mtu 1450") != 2 {
		t.Errorf("no path MTU learned:\n%s", out)
	}
	c := dial(t, "moire-dp-acme-web", "tcp", "10.1.0.4")
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
}

// TestAttack: frames from a workload, over the wire, that must come nowhere.
func TestAttack(t *testing.T) {
	w := small(t)
	a := w.nodes["a"]
	a.record()
	before := a.Drops()
	frames := attacks()
	inNetns(t, "moire-dp-acme-web", func() error {
		i, err := net.InterfaceByName("net0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, reason := range []string{"spoofed-mac", "spoofed-ip", "spoofed-arp", "no-exit"} {
		r := a.find(reason, func(r record.Record) bool { return r.Kind == record.Denied && r.Drop == reason })
		if r.Source.Workload != "web" || r.Verdict != record.Deny {
			t.Errorf("%s: %+v", reason, r)
		}
	}
	if after := a.Drops(); len(after) < len(before)+4 {
		t.Errorf("drops before %v, after %v", before, after)
	}
}

// attacks are frames of web (10.1.0.2, 02:..:01).
func attacks() [][]byte {
	frame := func(src, dst byte, srcIP, dstIP [4]byte, port uint16, size int) []byte {
		f := []byte{2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0, 0x45, 0, 0, byte(28 + size), 0, 0, 0x40, 0, 64, 17, 0, 0}
		f = append(append(f, srcIP[:]...), dstIP[:]...)
		f = append(f, 0x30, 0x39, byte(port>>8), byte(port), 0, byte(8+size), 0, 0)
		return append(f, make([]byte, size)...)
	}
	web, db, node := [4]byte{10, 1, 0, 2}, [4]byte{10, 1, 0, 3}, [4]byte{192, 168, 77, 2}
	arp := []byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 1, 0, 3, 0, 0, 0, 0, 0, 0, 10, 1, 0, 4}
	return [][]byte{
		frame(9, 2, web, db, 7, 10),      // another's MAC
		frame(1, 2, db, db, 7, 10),       // another's address
		frame(1, 2, web, node, 4789, 60), // VXLAN to a node
		arp,                              // "10.1.0.3 is me"
	}
}

// TestSegments: a UDP datagram of many segments arrives as many, on the same
// node and across.
func TestSegments(t *testing.T) {
	w := small(t)
	defer w.dump()
	for _, dst := range []string{"db 10.1.0.3", "db fd10:1::3", "far 10.1.0.4", "far fd10:1::4"} {
		name, addr, _ := strings.Cut(dst, " ")
		addr = net.JoinHostPort(addr, "9")
		var to net.PacketConn
		inNetns(t, "moire-dp-acme-"+name, func() (err error) {
			to, err = net.ListenPacket("udp", addr)
			return err
		})
		defer to.Close()
		inNetns(t, "moire-dp-acme-web", func() error {
			c, err := net.Dial("udp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				return err
			}
			control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1200) })
			if err = errors.Join(control, err); err != nil {
				return fmt.Errorf("ask for segments: %w", err)
			}
			_, err = c.Write(make([]byte, 12000))
			return err
		})
		b := make([]byte, 65536)
		for i := range 10 {
			to.SetReadDeadline(time.Now().Add(2 * time.Second))
			if n, _, err := to.ReadFrom(b); err != nil || n != 1200 {
				t.Fatalf("%s: segment %d has %d bytes: %v", dst, i, n, err)
			}
		}
	}
}

// TestRunStops: Run ends with its context and leaves nothing running.
func TestRunStops(t *testing.T) {
	w := small(t)
	leaks := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.nodes["a"].Run(ctx, func(record.Record) {}, nil) }()
	sh(t, "ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.1.0.3")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, leaks)
}
