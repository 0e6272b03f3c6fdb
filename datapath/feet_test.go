package datapath

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func TestFeetOf(t *testing.T) {
	for number, want := range map[uint16]string{0: "invalid IP invalid IP", 1: "169.254.0.1 fd00:4d4f:4952:45:1::1", 0x1234: "169.254.18.52 fd00:4d4f:4952:45:1::1234", 0xa9fd: "invalid IP fd00:4d4f:4952:45:1::a9fd"} {
		v4, v6 := FeetOf(number)
		if got := v4.String() + " " + v6.String(); got != want {
			t.Errorf("%x: %s", number, got)
		}
	}
}

// TestFeet: a node asks Workloads of another node, and its own, from an address
// of its own, whatever their Policies say; two nodes have two; nobody else can
// use it, and nobody reaches the services of another node.
func TestFeet(t *testing.T) {
	w := twoNodes(t, "192.168.77.")
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	w.workload("a", "acme", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	w.workload("b", "acme", "far", 100, 13, "10.1.0.4", "fd10:1::4")
	w.policies[snapshot.PolicyKey{VNI: 100, Identity: 13, Direction: policy.Ingress}] = nothing
	ps := w.feet(map[string][]snapshot.VNI{"a": {100}, "b": {100}})
	t.Cleanup(w.dump)
	for target, ns := range map[string]string{"10.1.0.4": "far", "fd10:1::4": "far", "10.1.0.2": "web"} {
		echoServer(t, "moire-dp-acme-"+ns, target)
	}
	for name, p := range ps {
		v4, v6 := FeetOf(w.number(name))
		for _, target := range []string{"10.1.0.4", "fd10:1::4", "10.1.0.2"} {
			for _, network := range []string{"udp", "tcp"} {
				from := v4
				if strings.Contains(target, ":") {
					from = v6
				}
				c, err := footDial(p, 100, network, from, target)
				if err != nil {
					t.Errorf("%s: %s %s from %s: %v", name, network, target, from, err)
					continue
				}
				if !echoed(c, 2*time.Second) {
					t.Errorf("%s: %s %s from %s: no answer", name, network, target, from)
				}
				c.Close()
			}
		}
	}
	// A Workload that takes the address is nobody.
	v4, _ := FeetOf(w.number("b"))
	sh(t, "ip -n moire-dp-acme-web addr add %s/32 dev net0", v4)
	if out, err := shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 -I %s 10.1.0.4", v4); err == nil {
		t.Errorf("a Workload uses the address of a node: %s", out)
	}
}

// TestFeetOverLink: what a node asks in a linked Network is judged there, like
// every stranger: who names a name server must not get past others' Policies.
func TestFeetOverLink(t *testing.T) {
	w := twoNodes(t, "192.168.77.")
	w.network(100, "acme", "10.1.0.0/24")
	w.network(101, "bolt", "10.2.0.0/24")
	w.workload("a", "acme", "web", 100, 11, "10.1.0.2")
	w.workload("a", "bolt", "near", 101, 21, "10.2.0.3")
	w.workload("b", "bolt", "far", 101, 22, "10.2.0.4")
	w.seen(101, "10.1.0.2", 100, "10.1.0.2")
	w.seen(100, "10.2.0.3", 101, "10.2.0.3")
	w.seen(100, "10.2.0.4", 101, "10.2.0.4")
	in := map[string][]snapshot.VNI{"a": {100}}
	ps := w.feet(in)
	t.Cleanup(w.dump)
	echoServer(t, "moire-dp-bolt-near", "10.2.0.3")
	echoServer(t, "moire-dp-bolt-far", "10.2.0.4")
	from, _ := FeetOf(w.number("a"))
	try := func(network, to string, limit time.Duration) bool {
		c, err := footDial(ps["a"], 100, network, from, to)
		if err != nil {
			return false
		}
		defer c.Close()
		return echoed(c, limit)
	}
	for _, to := range []string{"10.2.0.3", "10.2.0.4"} {
		for _, network := range []string{"udp", "tcp"} {
			if !try(network, to, 2*time.Second) {
				t.Errorf("%s %s: no answer although nobody denies it", network, to)
			}
		}
	}
	for _, id := range []policy.Identity{21, 22} {
		w.policies[snapshot.PolicyKey{VNI: 101, Identity: id, Direction: policy.Ingress}] = nothing
	}
	w.applyFeet(ps, in)
	for _, to := range []string{"10.2.0.3", "10.2.0.4"} {
		if try("udp", to, 500*time.Millisecond) {
			t.Errorf("%s: the node is answered against the Policy of the linked Network", to)
		}
	}
}

// TestFeetOverTranslation: a node asks Workloads of a linked Network, on another node
// and on its own, under the addresses by which they are seen there.
func TestFeetOverTranslation(t *testing.T) {
	w := twoDomains(t)
	ps := w.feet(map[string][]snapshot.VNI{"a": {100, 101}, "b": {101}})
	for ns, addrs := range map[string][]string{"acme-web": {"10.1.0.2", "fd10:1::2"}, "bolt-db": {"10.1.0.2", "fd10:1::2"}, "bolt-near": {"10.1.0.3", "fd10:1::3"}} {
		for _, a := range addrs {
			echoServer(t, "moire-dp-"+ns, a)
		}
	}
	for _, c := range []struct {
		node string
		vni  snapshot.VNI
		to   string
	}{
		{"a", 100, "10.88.0.2"}, {"a", 100, "fd88:1::2"}, {"a", 100, "10.88.0.3"}, {"a", 100, "fd88:1::3"},
		{"b", 101, "10.77.0.2"}, {"b", 101, "fd77:1::2"}, {"a", 101, "10.77.0.2"}, {"a", 101, "10.1.0.2"},
	} {
		from, v6 := FeetOf(w.number(c.node))
		if strings.Contains(c.to, ":") {
			from = v6
		}
		for _, network := range []string{"udp", "tcp"} {
			conn, err := footDial(ps[c.node], c.vni, network, from, c.to)
			if err != nil {
				t.Errorf("%s in %d: %s %s: %v", c.node, c.vni, network, c.to, err)
				continue
			}
			// A namespace that has just come up may ask twice for its gateway's MAC.
			answered := false
			for range 2 {
				answered = answered || echoed(conn, 2*time.Second)
			}
			if !answered {
				t.Errorf("%s in %d: %s %s: no answer", c.node, c.vni, network, c.to)
			}
			conn.Close()
		}
	}
}

// feet puts nodes into Networks and applies.
func (w *world) feet(in map[string][]snapshot.VNI) map[string]*Presence {
	w.t.Helper()
	ps := map[string]*Presence{}
	for name := range in {
		n := w.nodes[name]
		inNetns(w.t, n.ns, func() (err error) { ps[name], err = NewPresence(n.runDir, name); return err })
		w.t.Cleanup(func() { ps[name].Close() })
	}
	w.applyFeet(ps, in)
	return ps
}

// applyFeet makes every node what it must be, those with a Presence in Networks.
func (w *world) applyFeet(ps map[string]*Presence, in map[string][]snapshot.VNI) {
	w.t.Helper()
	for name, n := range w.nodes {
		s, mtus := State{Snapshot: w.snapshot(name), Locals: n.locals}, map[snapshot.VNI]int{}
		for _, vni := range in[name] {
			mtus[vni] = 1450
			s.Presence = append(s.Presence, PresentIn(name, vni))
		}
		for other, x := range s.Snapshot.Nodes {
			x.Number = w.number(other)
			s.Snapshot.Nodes[other] = x
		}
		grow := func() {
			if p := ps[name]; p != nil {
				if _, err := p.Grow(mtus, w.number(name)); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		grow()
		if err := errors.Join(n.Grow(s), n.Shrink(s)); err != nil {
			w.t.Fatal(err)
		}
		grow() // the inside end, now that the node's end is up
	}
}

// number of a node in this world.
func (w *world) number(name string) uint16 { return uint16(name[0]-'a') + 7 }

func footDial(p *Presence, vni snapshot.VNI, network string, from netip.Addr, to string) (c net.Conn, err error) {
	d := net.Dialer{Control: bindTo(vni), Timeout: 2 * time.Second, LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	err = p.Do(func() (err error) { c, err = d.Dial(network, net.JoinHostPort(to, "7")); return err })
	return c, err
}
