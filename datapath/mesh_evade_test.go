package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
)

const webNS, toFar = "moire-dp-acme-web", "10.1.0.4"

// needsProxy: how often the node has not heard what only a proxy may say.
func (n *testNode) needsProxy() (packets uint64) {
	for _, c := range n.Drops() {
		if c.Reason == "needs-proxy" {
			packets += c.Packets
		}
	}
	return packets
}

// again grows to what the node is: what somebody else changed is repaired.
func (n *testNode) again() {
	n.t.Helper()
	if err := n.Grow(n.Datapath.state); err != nil {
		n.t.Fatal(err)
	}
}

// TestMeshEvaded: whatever root does in the namespace of a Workload, nothing gets past
// the proxy that needs it; and what somebody took away there comes back.
func TestMeshEvaded(t *testing.T) {
	w, a, b := meshWorld(t)
	w.join(snapshot.Permissive, a, b)
	n := w.nodes["a"]
	closed := func(how string, control func(fd int) error) {
		t.Helper()
		before := n.needsProxy()
		got := greet(webNS, toFar, 7, control)
		if !errors.Is(got.err, unix.ECONNREFUSED) || got.took > time.Second {
			t.Errorf("%s: %q, %v after %v", how, got.said, got.err, got.took)
		}
		if n.needsProxy() == before {
			t.Errorf("%s: not counted", how)
		}
	}
	device := func(fd int) error { return unix.BindToDevice(fd, "net0") }
	closed("a socket that is bound to the device", device)
	marked := greet(webNS, toFar, 7, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 99) })
	if marked.err != nil || a.has("out 10.1.0.4:7 ") == "" {
		t.Errorf("a socket with a mark of its own: %v", marked.err)
	}
	raw, err := marked.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 0) })
	if err != nil || echoed(marked, 300*time.Millisecond) {
		t.Errorf("a socket that took its mark off goes on: %v", err)
	}
	shell("ip -n %s rule del pref 77; ip -n %s rule del pref 77; ip -n %s -6 rule del pref 77", webNS, webNS, webNS)
	closed("no rule", nil)
	n.again()
	if got := greet(webNS, toFar, 7, nil); got.err != nil {
		t.Errorf("the rule does not come back: %v", got.err)
	}
	sh(t, "ip -n %s route flush table %d", webNS, meshMark)
	closed("no route", nil)
	n.again()
	if got := greet(webNS, toFar, 7, nil); got.err != nil {
		t.Errorf("the route does not come back: %v", got.err)
	}
	if repaired, last := n.Repairs(); repaired < 2 || !strings.HasPrefix(last, "mesh: ") {
		t.Errorf("%d repairs, the last %q", repaired, last)
	}
	r := n.find("of what was not heard", func(r record.Record) bool { return r.Drop == "needs-proxy" })
	if r.Source.Workload != "web" || r.Destination.Workload != "far" || r.Destination.Port != 7 || r.Rule != "default/acme/net/open" || r.Direction != "egress" {
		t.Errorf("%+v", r)
	}
	t.Run("raw", func(t *testing.T) { rawBytes(t, w, b) })
	t.Run("port", func(t *testing.T) { portOfProxy(t, n) })
}

// rawBytes: frames that root writes are not heard, neither as a new session nor as
// more of one that a proxy has.
func rawBytes(t *testing.T, w *world, b *testProxy) {
	got := greet(webNS, toFar, 7, nil)
	if got.err != nil {
		t.Fatal(got.err)
	}
	b.saw("in 10.1.0.4:7 10.1.0.2:")
	b.mu.Lock()
	line := b.seen[len(b.seen)-1]
	b.mu.Unlock()
	own := netip.MustParseAddrPort(line[strings.LastIndexByte(line, ' ')+1:])
	const ack, syn = 0x10, 0x02
	for name, frame := range map[string][]byte{
		"new": segment(own.Addr(), netip.MustParseAddr(toFar), 555, syn), "injected": segment(own.Addr(), netip.MustParseAddr(toFar), own.Port(), ack),
	} {
		before := w.nodes["a"].needsProxy()
		inNetns(t, webNS, func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			ifi, err := net.InterfaceByName("net0")
			if err != nil {
				return err
			}
			return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: ntohs(unix.ETH_P_IP)})
		})
		if w.nodes["a"].needsProxy() != before+1 {
			t.Errorf("%s: heard", name)
		}
	}
	if !echoed(got, time.Second) {
		t.Error("the session of the proxy suffers")
	}
}

// portOfProxy: nobody gets to the proxy's listeners but by what needs it.
func portOfProxy(t *testing.T, n *testNode) {
	for _, i := range n.Interceptions() {
		if i.Interfaces[0].Project != "acme" {
			continue
		}
		port, err := portOf(i.Outbound[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"127.0.0.1", "::1", "10.1.0.2"} {
			for _, from := range []string{webNS, "moire-dp-acme-plain"} {
				if from != webNS && to != "10.1.0.2" {
					continue
				}
				if got := greet(from, to, int(port), nil); !errors.Is(got.err, unix.ECONNREFUSED) {
					t.Errorf("%s to %s: %v", from, fmt.Sprint(to, ":", port), got.err)
				}
			}
		}
	}
}
