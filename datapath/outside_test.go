package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// street makes an underlay with hosts that are no nodes:
//
//	moire-dp-a, moire-dp-b [up0] --- [bridge in moire-dp-sw] --- [up0] moire-dp-out, ...
//
// Addresses are 192.168.77.<n>/24 and fd77::<n>, in the order of the names from 1.
func (w *world) street(names ...string) {
	w.t.Helper()
	addNetns(w.t, "moire-dp-sw")
	sh(w.t, "ip -n moire-dp-sw link add br0 type bridge && ip -n moire-dp-sw link set br0 up")
	for i, name := range names {
		ns := "moire-dp-" + name
		addNetns(w.t, ns)
		sh(w.t, "ip link add up0 netns %s type veth peer name p%d netns moire-dp-sw", ns, i)
		sh(w.t, "ip -n moire-dp-sw link set p%d master br0 up", i)
		sh(w.t, "ip -n %s addr add 192.168.77.%d/24 dev up0 && ip -n %s addr add fd77::%d/64 dev up0 nodad && ip -n %s link set up0 up", ns, i+1, ns, i+1, ns)
	}
}

// asked connects from a namespace and asks who it is; "": no answer.
func asked(t *testing.T, ns, network, addr string, port int) (netip.AddrPort, net.Conn) {
	t.Helper()
	return askedFor(t, ns, network, addr, port, 2*time.Second)
}

// closedTo: the same should get no answer.
func closedTo(t *testing.T, ns, network, addr string, port int) bool {
	t.Helper()
	who, _ := askedFor(t, ns, network, addr, port, 200*time.Millisecond)
	return !who.IsValid()
}

func askedFor(t *testing.T, ns, network, addr string, port int, wait time.Duration) (netip.AddrPort, net.Conn) {
	t.Helper()
	var c net.Conn
	inNetns(t, ns, func() (err error) {
		c, err = (&net.Dialer{Timeout: wait}).Dial(network, net.JoinHostPort(addr, fmt.Sprint(port)))
		if err != nil {
			c = nil
		}
		return nil
	})
	if c == nil {
		return netip.AddrPort{}, nil
	}
	t.Cleanup(func() { c.Close() })
	return whoAmI(c, wait), c
}

func whoAmI(c net.Conn, wait time.Duration) netip.AddrPort {
	if _, err := c.Write([]byte("who am I?")); err != nil {
		return netip.AddrPort{}
	}
	c.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 2000)
	n, err := c.Read(b)
	if err != nil {
		return netip.AddrPort{}
	}
	a, _ := netip.ParseAddrPort(string(b[:n]))
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// outsiders has web on node a and far on node b, in two tenants with the same
// addresses, and out outside; Networks leave as exits say.
func outsiders(t *testing.T, more ...string) *world { return outsidersOn(t, "192.168.77.", more...) }

func outsidersOn(t *testing.T, underlay string, more ...string) *world {
	w := newWorld(t)
	w.street(append([]string{"a", "b", "out"}, more...)...)
	w.node("a", "moire-dp-a", underlay+"1")
	w.node("b", "moire-dp-b", underlay+"2")
	for i, tenant := range []string{"acme", "other"} {
		vni, id := snapshot.VNI(100*(i+1)), policy.Identity(10*(i+1))
		w.network(vni, tenant, "10.1.0.0/24", "fd10:1::/64")
		w.workload("a", tenant, "web", vni, id+1, "10.1.0.2", "fd10:1::2")
		w.workload("b", tenant, "far", vni, id+2, "10.1.0.4", "fd10:1::4")
	}
	whoServer(t, "moire-dp-out", "192.168.77.3", 7)
	whoServer(t, "moire-dp-out", "fd77::3", 7)
	t.Cleanup(w.dump)
	return w
}

func exitsOf(exits ...snapshot.Exit) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		s.Exits = map[snapshot.VNI]snapshot.Exit{}
		for _, e := range exits {
			s.Exits[e.VNI] = e
			for _, a := range e.Addresses {
				if s.Externals == nil {
					s.Externals = map[netip.Addr]snapshot.External{}
				}
				s.Externals[a] = snapshot.External{Address: a, Node: e.Gateway}
			}
		}
	}
}

// TestOutside: each node translates to its own address, for both tenants with
// the same addresses and ports at the same time, over both families.
func TestOutside(t *testing.T) {
	w := outsiders(t)
	w.change = exitsOf(snapshot.Exit{VNI: 100}, snapshot.Exit{VNI: 200})
	soon := time.Now().Add(time.Minute)
	w.captures = map[string]snapshot.Capture{
		"mine":   {ID: "mine", VNIs: []snapshot.VNI{100}, Workload: "acme/web", B: netip.MustParseAddr("192.168.77.3"), Until: soon, Packets: 500, Length: 60},
		"theirs": {ID: "theirs", VNIs: []snapshot.VNI{300}, Until: soon, Packets: 500, Length: 60},
	}
	w.apply()
	a := w.nodes["a"]
	a.record()
	// What is beyond the neighbours goes by the host's routes.
	sh(t, "ip -n moire-dp-out addr add 203.0.113.9/32 dev lo && ip -n moire-dp-a route add 203.0.113.0/24 via 192.168.77.3")
	whoServer(t, "moire-dp-out", "203.0.113.9", 7)
	for _, to := range []string{"192.168.77.3", "203.0.113.9", "fd77::3"} {
		for _, network := range []string{"tcp", "udp"} {
			for _, tenant := range []string{"acme", "other"} {
				for _, from := range []string{"web", "far"} {
					if to == "203.0.113.9" && from == "far" {
						continue
					}
					who, _ := asked(t, "moire-dp-"+tenant+"-"+from, network, to, 7)
					want := map[string]string{"web": "192.168.77.1", "far": "192.168.77.2"}[from]
					if strings.Contains(to, ":") {
						want = map[string]string{"web": "fd77::1", "far": "fd77::2"}[from]
					}
					if who.Addr() != netip.MustParseAddr(want) || who.Port() < 61000 {
						t.Errorf("%s/%s %s to %s came as %s, not %s", tenant, from, network, to, who, want)
					}
				}
			}
		}
		for _, tenant := range []string{"acme", "other"} {
			sh(t, "ip netns exec moire-dp-%s-web ping -c 2 -i 0.2 -W 1 %s", tenant, to)
		}
	}
	for _, where := range []string{"from-workload", "to-outside", "from-outside", "to-workload"} {
		if c := a.sights("mine", where, anything); c.VNI != 100 {
			t.Errorf("%+v", c)
		}
	}
	if a.sightings("theirs") > 0 {
		t.Error("somebody else saw it")
	}
	r := a.find("with a translated source", func(r record.Record) bool {
		return r.Kind == record.Started && r.Protocol == "tcp" && r.TranslatedSource != ""
	})
	if !strings.HasPrefix(r.TranslatedSource, "192.168.77.1:6") || r.Source.Workload != "web" || r.Rule != "default/acme/net/open" || r.Destination.Workload != "" {
		t.Errorf("%+v", r)
	}
}
