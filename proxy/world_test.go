package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"moire.dev/moire/proxy/door"
	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Marks as the kernel side has them: of what applications connect that needs the
// proxy, and of what the proxy connects to applications.
const markOut, markIn = 0x10, 0x20

// vip is the address of a Service, in both families.
var vip = [2]netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd96::1")}

// tenant is one Network on a switch of its own: the others have the same addresses.
type tenant struct {
	name  string
	vni   uint32
	ca    *ca
	boxes map[string]*box
}

// box is a Workload with a namespace of its own.
type box struct {
	t       testing.TB
	tenant  *tenant
	name    string
	ns      string // in /run/netns
	fd      int
	addrs   [2]netip.Addr
	number  policy.Identity
	sockets *door.Sockets
}

func (b *box) spiffe() string { return "spiffe://" + b.tenant.name + ".example/ns/shop/sa/" + b.name }

// needsRoot skips what only root can do, unless all has to be tested.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
		t.Fatal("this test needs root")
	}
	t.Skip("needs root")
}

// ipTool runs lines of ip in a namespace; a -6 in front is for IPv6.
func ipTool(t testing.TB, ns string, lines ...string) {
	t.Helper()
	var batches [2][]string
	for _, l := range lines {
		l, six := strings.CutPrefix(l, "-6 ")
		k := 0
		if six {
			k = 1
		}
		batches[k] = append(batches[k], l)
	}
	for k, batch := range batches {
		if len(batch) == 0 {
			continue
		}
		args := []string{[]string{"-4", "-6"}[k], "-batch", "-"}
		if ns != "" {
			args = append([]string{"-n", ns}, args...)
		}
		c := exec.Command("ip", args...)
		c.Stdin = strings.NewReader(strings.Join(batch, "\n"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", batch, err, out)
		}
	}
}

// newTenant makes a switch with Workloads called names; those that need no proxy
// have a minus in front.
func newTenant(t testing.TB, name string, vni uint32, names ...string) *tenant {
	t.Helper()
	needsRoot(t)
	k := &tenant{name: name, vni: vni, ca: newCA(t), boxes: map[string]*box{}}
	sw := fmt.Sprintf("px%d-%s", os.Getpid()%10000, name)
	space := func(ns string) {
		ipTool(t, "", "netns add "+ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	}
	space(sw)
	ipTool(t, sw, "link set lo up", "link add name sw0 type bridge forward_delay 0", "link set dev sw0 up")
	for i, n := range names {
		n, plain := strings.CutPrefix(n, "-")
		b := &box{t: t, tenant: k, name: n, ns: sw + "-" + n, number: policy.Identity(10*vni) + policy.Identity(i) + 1,
			addrs: [2]netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("fd00::%d", i+1))}}
		space(b.ns)
		ipTool(t, sw, fmt.Sprintf("link add name p%d type veth peer name eth0 netns %s", i, b.ns), fmt.Sprintf("link set dev p%d master sw0 up", i))
		ipTool(t, b.ns, "link set lo up", "link set dev eth0 up", fmt.Sprintf("addr add %s/24 dev eth0", b.addrs[0]), fmt.Sprintf("-6 addr add %s/64 dev eth0 nodad", b.addrs[1]),
			"route add default dev eth0", "-6 route add default dev eth0")
		fd, err := unix.Open("/run/netns/"+b.ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		b.fd = fd
		k.boxes[n] = b
		if !plain {
			b.intercept()
		}
	}
	return k
}

// within runs f on a thread in b's namespace; sockets that it makes stay there.
func (b *box) within(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(b.fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// intercept does what the agent does: routes, listening sockets, the program that
// gives them what comes.
func (b *box) intercept() {
	t := b.t
	t.Helper()
	var rules []string
	for _, family := range []string{"", "-6 "} {
		for _, m := range []int{markOut, markIn} {
			rules = append(rules, fmt.Sprintf("%srule add fwmark %d lookup 77", family, m))
		}
	}
	ipTool(t, b.ns, append(rules, "route add local default dev lo src "+b.addrs[0].String()+" table 77", "-6 route add local default dev lo src "+b.addrs[1].String()+" table 77")...)
	err := b.within(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/tcp_fwmark_accept", []byte("1"), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.sockets = b.listening()
	b.steer()
}

// listening makes the sockets of a namespace; they are the agent's, who keeps them.
func (b *box) listening() *door.Sockets {
	s := &door.Sockets{Namespace: b.fd}
	one := func(port int) (fd int, err error) {
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return fd, err
		}
		for _, o := range [][3]int{{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0},
			{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1}, {unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1}} {
			if err = unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
				return fd, err
			}
		}
		return fd, errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Port: port}), unix.Listen(fd, 4096))
	}
	err := b.within(func() error {
		for range 2 {
			out, err := one(15001)
			if err != nil {
				return err
			}
			in, err := one(15006)
			if err != nil {
				return err
			}
			s.Outbound, s.Inbound = append(s.Outbound, out), append(s.Inbound, in)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		for _, fd := range append(s.Outbound, s.Inbound...) {
			unix.Close(fd)
		}
	})
	return s
}

// steer gives the sockets what comes to the namespace: what comes by lo for
// another's address is outbound, what comes from elsewhere is inbound.
func (b *box) steer() {
	t := b.t
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	for key, fd := range []int{b.sockets.Outbound[0], b.sockets.Inbound[0]} {
		if err := m.Put(uint32(key), uint64(fd)); err != nil {
			t.Fatal(err)
		}
	}
	word := func(a []byte) int32 { return int32(binary.NativeEndian.Uint32(a)) }
	own4, own6 := b.addrs[0].As4(), b.addrs[1].As16()
	field := func(offset int16) asm.Instruction { return asm.LoadMem(asm.R2, asm.R6, offset, asm.Word) }
	program := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		field(12), asm.JNE.Imm(asm.R2, unix.IPPROTO_TCP, "pass"),
		// What calls itself is nobody's.
		field(40), asm.JNE.Imm32(asm.R2, word(own4[:]), "other"), field(16), asm.JEq.Imm32(asm.R2, word(own4[:]), "pass"),
		field(56).WithSymbol("other"), asm.JNE.Imm32(asm.R2, word(own6[12:]), "more"),
		field(44), asm.JNE.Imm32(asm.R2, word(own6[:4]), "more"), field(32), asm.JEq.Imm32(asm.R2, word(own6[12:]), "pass"),
		asm.Mov.Imm(asm.R7, 1).WithSymbol("more"),
		field(64), asm.JNE.Imm(asm.R2, 1, "give"), // not by lo
		asm.Mov.Imm(asm.R7, 0),
		field(8), asm.JEq.Imm(asm.R2, unix.AF_INET6, "six"),
		field(40), asm.JEq.Imm32(asm.R2, word(own4[:]), "pass"), asm.Ja.Label("give"),
		field(44).WithSymbol("six"), asm.JNE.Imm32(asm.R2, word(own6[:4]), "give"),
		field(56), asm.JEq.Imm32(asm.R2, word(own6[12:]), "pass"),
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word).WithSymbol("give"),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Imm(asm.R3, 0), asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R1, asm.R7), asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), asm.Return(),
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, Instructions: program, License: "GPL"})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	l, err := link.AttachNetNs(b.fd, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// dial connects as b's application does; through says whether the kernel marks it
// for the proxy.
func (b *box) dial(to netip.AddrPort, through bool) (c net.Conn, err error) {
	err = b.within(func() error {
		d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
			raw.Control(func(fd uintptr) {
				if through {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, markOut)
				}
			})
			return err
		}}
		var err error
		c, err = d.Dial("tcp", to.String())
		return err
	})
	return c, err
}

// client asks as b's application does, over HTTP/1 or HTTP/2.
func (b *box) client(through, two bool) *http.Client {
	c := client(b.t, two)
	c.Transport.(*http.Transport).DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
		at, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		return b.dial(at, through)
	}
	return c
}

// listen is what b's application listens with.
func (b *box) listen(port uint16) (all [2]net.Listener) {
	b.t.Helper()
	for i, a := range b.addrs {
		err := b.within(func() (err error) {
			all[i], err = net.Listen("tcp", netip.AddrPortFrom(a, port).String())
			return err
		})
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { all[i].Close() })
	}
	return all
}

// serve is an application that speaks HTTP/1 and HTTP/2.
func (b *box) serve(port uint16, h http.HandlerFunc) {
	for _, l := range b.listen(port) {
		s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		go s.Serve(l)
		b.t.Cleanup(func() { s.Close() })
	}
}

// greet is an application that speaks first.
func (b *box) greet(port uint16) {
	for _, l := range b.listen(port) {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "220 %s %s ready\r\n", b.tenant.name, c.RemoteAddr())
					buf := make([]byte, 100)
					for {
						n, err := c.Read(buf)
						if err != nil {
							return
						}
						c.Write(buf[:n])
					}
				}()
			}
		}()
	}
}

// workload is b in a configuration.
func (b *box) workload(mode string) l7.Workload {
	open := policy.Set{Default: policy.DefaultRule{ID: "default/shop/net/open", Allow: true}}
	return l7.Workload{Name: "shop/" + b.name, Project: "shop", Domain: b.tenant.name, Network: "net", VNI: b.tenant.vni, Namespace: b.ns,
		Addresses: b.addrs[:], Number: b.number, SPIFFE: b.spiffe(), Labels: map[string]string{"app": b.name}, Mode: mode,
		Certificate: b.spiffe(), View: fmt.Sprint(b.tenant.vni, "/shop"), Egress: open, Ingress: open}
}

// peers are b as others see it.
func (b *box) peers(mesh bool) (all []l7.Peer) {
	for _, a := range b.addrs {
		all = append(all, l7.Peer{VNI: b.tenant.vni, Address: a, Name: "shop/" + b.name, Domain: b.tenant.name, Network: "net", Number: b.number,
			SPIFFE: b.spiffe(), Labels: map[string]string{"app": b.name}, Node: "n1", Mesh: mesh})
	}
	return all
}

func (b *box) certificate() l7.Certificate { return b.tenant.ca.certificate(b.spiffe(), b.spiffe()) }

// duplicates are descriptors for a proxy to own.
func duplicates(t testing.TB, s *door.Sockets) *door.Sockets {
	dup := func(fd int) int {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	out := &door.Sockets{Namespace: dup(s.Namespace)}
	for _, fd := range s.Outbound {
		out.Outbound = append(out.Outbound, dup(fd))
	}
	for _, fd := range s.Inbound {
		out.Inbound = append(out.Inbound, dup(fd))
	}
	return out
}
