package datapath

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

// second gives a Workload that is there a second interface, in another Network.
func (w *world) second(node, project, name string, vni snapshot.VNI, addrs ...string) {
	w.t.Helper()
	n := w.nodes[node]
	i := slices.IndexFunc(n.locals, func(l Local) bool { return l.Key.Project == project && l.Key.Workload == name })
	first := n.locals[i]
	w.macs++
	l := Local{Key: first.Key, VNI: vni, MAC: snapshot.MAC{2, 0, 0, 0, 0, w.macs}, Netns: first.Netns, Proxy: first.Proxy}
	l.Key.Network = "second"
	l.Host = HostName(node, l.Key)
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParseAddr(a))
	}
	id := w.endpoints[snapshot.Addr{VNI: first.VNI, IP: first.Addrs[0]}].Identity
	w.endpoint(node, project, name, vni, id, l.MAC, l.Addrs)
	inNetns(w.t, n.ns, func() error {
		return Plug(PlugConfig{
			Node: node, Key: l.Key, Host: l.Host, Netns: l.Netns, IfName: "net1", MAC: l.MAC, Addrs: l.Addrs,
			Prefixes: w.networks[vni].Prefixes, MTU: n.MTU(0), Default: SecondRoute,
		})
	})
	n.locals = append(n.locals, l)
}

// TestMeshCorners: sockets of every kind, limits, several interfaces, and what is on
// the wire between the nodes.
func TestMeshCorners(t *testing.T) {
	w, a, b := meshWorld(t)
	w.network(300, "acme", "10.3.0.0/24", "fd10:3::/64")
	w.second("a", "acme", "web", 300, "10.3.0.2", "fd10:3::2")
	w.workload("b", "acme", "deep", 300, 34, "10.3.0.4", "fd10:3::4")
	banner(t, "moire-dp-acme-deep", "acme/deep", 7)
	w.mode("acme", "deep", snapshot.Permissive)
	for _, l := range w.nodes["a"].locals {
		if l.Key.Project == "acme" && l.Key.Workload == "web" && l.VNI == 100 {
			w.grants[l.Key] = snapshot.Grant{AttachmentKey: l.Key, Limit: snapshot.Limit{Egress: 50e6, Ingress: 50e6}}
		}
	}
	w.join(snapshot.Permissive, a, b)
	w.nodes["b"].meshed("far", "deep")
	w.apply()
	b.hand(w.nodes["b"])

	t.Run("wire", func(t *testing.T) { onTheWire(t, a, b) })
	t.Run("several interfaces", func(t *testing.T) {
		for to, from := range map[string]string{"10.3.0.4": "10.3.0.2", "fd10:3::4": "fd10:3::2"} {
			got := greet(webNS, to, 7, nil)
			if got.err != nil || got.said != "acme/deep sees "+from {
				t.Errorf("%s: %q %v", to, got.said, got.err)
			}
			a.saw("out " + net.JoinHostPort(to, "7"))
			b.saw("in " + net.JoinHostPort(to, "7"))
		}
	})
	t.Run("sockets", func(t *testing.T) { sockets(t, a) })
	t.Run("modes", func(t *testing.T) {
		plain := greet("moire-dp-acme-plain", toFar, 7, nil)
		if plain.err != nil || !echoed(plain, time.Second) {
			t.Fatal(plain.err)
		}
		w.mode("acme", "far", snapshot.Strict)
		w.apply()
		if echoed(plain, 500*time.Millisecond) {
			t.Error("plain bytes go on although they are refused now")
		}
		w.nodes["b"].find("of the end", func(r record.Record) bool { return r.Kind == record.Ended && r.Source.Workload == "plain" })
	})
}

// onTheWire: between the nodes there are the addresses of the Workloads, and the port
// that was asked for.
func onTheWire(t *testing.T, a, b *testProxy) {
	var read func([]byte) (int, bool, error)
	var stop func()
	inNetns(t, "moire-dp-b", func() error {
		up, err := net.InterfaceByName("up0")
		if err == nil {
			read, stop, err = packetSocket(up.Index)
		}
		return err
	})
	seen := make(chan map[string]int)
	go func() {
		all, f := map[string]int{}, make([]byte, 2048)
		for {
			n, in, err := read(f)
			if err != nil {
				seen <- all
				return
			}
			const inner = 14 + 20 + 8 + 8 + 14
			if n < inner+40 || f[23] != 17 || f[inner] != 0x45 || f[inner+9] != 6 {
				continue
			}
			ip := f[inner:]
			src, dst := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
			sport, dport := binary.BigEndian.Uint16(ip[20:]), binary.BigEndian.Uint16(ip[22:])
			if in {
				all[fmt.Sprintf("%s > %s:%d", src, dst, dport)]++
			} else {
				all[fmt.Sprintf("%s > %s:%d", dst, src, sport)]++
			}
		}
	}()
	if got := greet(webNS, toFar, 7, nil); got.err != nil || !echoed(got, time.Second) {
		t.Error(got.err)
	}
	a.saw("out ")
	b.saw("in ")
	time.Sleep(50 * time.Millisecond)
	stop()
	if all := <-seen; len(all) != 1 || all["10.1.0.2 > 10.1.0.4:7"] < 6 {
		t.Errorf("on the wire: %v", all)
	}
}

// sockets of other kinds than those of a well-behaved client.
func sockets(t *testing.T, a *testProxy) {
	far := [16]byte{10: 0xff, 11: 0xff, 12: 10, 13: 1, 14: 0, 15: 4}
	connect := func(kind int, to unix.Sockaddr, more func(fd int)) {
		t.Helper()
		inNetns(t, webNS, func() error {
			fd, err := unix.Socket(kind, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, to); err != nil {
				return err
			}
			more(fd)
			return nil
		})
	}
	a.forget()
	connect(unix.AF_INET6, &unix.SockaddrInet6{Addr: far, Port: 7}, func(int) {})
	if line := a.saw("out 10.1.0.4:7 "); !strings.Contains(line, "10.1.0.2") {
		t.Error(line)
	}
	// A socket is led to the proxy, let go, and connects to who needs none: directly.
	a.forget()
	connect(unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{10, 1, 0, 4}, Port: 7}, func(fd int) {
		if mark, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != meshMark {
			t.Errorf("mark %x %v", mark, err)
		}
		a.saw("out ")
		nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody)); e != 0 {
			t.Fatal(e)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 1, 0, 3}, Port: 7}); err != nil {
			t.Error(err)
		}
		if mark, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != 0 {
			t.Errorf("mark %x %v", mark, err)
		}
	})
	if a.has("out 10.1.0.3") != "" {
		t.Error("who needs no proxy has one")
	}
	// Its own addresses are nobody's business.
	for _, own := range []string{"127.0.0.1", "10.1.0.2", "fd10:1::2", "10.3.0.2"} {
		if got := greet(webNS, own, 7, nil); got.err != nil || !strings.HasPrefix(got.said, "acme/web sees ") {
			t.Errorf("%s: %q %v", own, got.said, got.err)
		}
	}
	// Nobody listens: the proxy is told so, and tells.
	if got := greet(webNS, toFar, 999, nil); got.err == nil || got.took > time.Second {
		t.Errorf("a closed port: %v after %v", got.err, got.took)
	}
}
