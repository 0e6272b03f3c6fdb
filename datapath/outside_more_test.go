package datapath

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func egress(id policy.RuleID, cidr string, ports ...policy.PortRange) policy.Set {
	return policy.Set{Isolated: "isolated/acme/x", Rules: []policy.Rule{{
		ID: id, Tier: policy.Project, Action: policy.Allow, Peers: []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix(cidr)}}, Ports: ports,
	}}}
}

// TestOutsideGateway: a Network leaves by a gateway node under addresses of its
// own, which move to the next gateway with the sessions that go on; another
// tenant leaves as before.
func TestOutsideGateway(t *testing.T) {
	w := outsiders(t)
	by := func(gateway string) {
		w.change = exitsOf(snapshot.Exit{VNI: 100, Gateway: gateway, Addresses: []netip.Addr{netip.MustParseAddr("192.168.77.50"), netip.MustParseAddr("fd77::50")}},
			snapshot.Exit{VNI: 200})
		w.apply()
	}
	by("b")
	var conns []net.Conn
	check := func(gateway string) {
		for _, from := range []string{"web", "far"} {
			for _, to := range []string{"192.168.77.3", "fd77::3"} {
				for _, network := range []string{"tcp", "udp"} {
					want := map[string]string{"192.168.77.3": "192.168.77.50", "fd77::3": "fd77::50"}[to]
					who, c := asked(t, "moire-dp-acme-"+from, network, to, 7)
					if who.Addr().String() != want {
						t.Errorf("by %s: %s %s to %s came as %s, not %s", gateway, from, network, to, who, want)
					}
					if c != nil && who.Port() != netip.MustParseAddrPort(c.LocalAddr().String()).Port() {
						t.Errorf("by %s: port %s became %s", gateway, c.LocalAddr(), who)
					}
					conns = append(conns, c)
				}
				sh(t, "ip netns exec moire-dp-acme-%s ping -c 1 -W 1 %s", from, to)
			}
			if who, _ := asked(t, "moire-dp-other-"+from, "tcp", "192.168.77.3", 7); !strings.HasPrefix(who.Addr().String(), "192.168.77.") || who.Addr().String() == "192.168.77.50" {
				t.Errorf("the other tenant came as %s", who)
			}
		}
	}
	check("b")
	r := w.nodes["b"]
	r.record()
	for i, gateway := range []string{"a", "b", "a"} {
		by(gateway)
		for _, c := range conns {
			if c == nil || !whoAmI(c, 2*time.Second).IsValid() {
				t.Fatalf("%d: a session did not survive the move to %s", i, gateway)
			}
		}
		check(gateway)
		if has := sh(t, "ip -n moire-dp-%s addr show dev up0", gateway); !strings.Contains(has, "192.168.77.50/32") || !strings.Contains(has, "fd77::50/128") {
			t.Errorf("%s", has)
		}
		if other := map[string]string{"a": "b", "b": "a"}[gateway]; strings.Contains(sh(t, "ip -n moire-dp-%s addr", other), "77.50") {
			t.Errorf("node %s still has the address", other)
		}
	}
	// The address is ours alone: the host does not answer there.
	whoServer(t, "moire-dp-a", "0.0.0.0", 9)
	if !closedTo(t, "moire-dp-out", "tcp", "192.168.77.50", 9) {
		t.Error("the host answers at the external address")
	}
	if who, _ := asked(t, "moire-dp-out", "tcp", "192.168.77.1", 9); !who.IsValid() {
		t.Error("the host does not answer at its own address")
	}
	w.change = nil
	w.apply()
	if has := sh(t, "ip -n moire-dp-a addr; ip -n moire-dp-b addr"); strings.Contains(has, "77.50") || strings.Contains(has, "fd77::50") {
		t.Errorf("an external address stays:\n%s", has)
	}
	if !closedTo(t, "moire-dp-acme-web", "tcp", "192.168.77.3", 7) {
		t.Error("leaves without an exit")
	}
}

// TestOutsideIPv6Underlay: nodes that talk by IPv6 leave by both families, each
// by itself and by a gateway.
func TestOutsideIPv6Underlay(t *testing.T) {
	w := outsidersOn(t, "fd77::")
	w.change = exitsOf(snapshot.Exit{VNI: 100, Gateway: "b", Addresses: []netip.Addr{netip.MustParseAddr("192.168.77.50"), netip.MustParseAddr("fd77::50")}}, snapshot.Exit{VNI: 200})
	w.apply()
	for _, network := range []string{"tcp", "udp"} {
		for to, want := range map[string][2]string{"192.168.77.3": {"192.168.77.50", "192.168.77.1"}, "fd77::3": {"fd77::50", "fd77::1"}} {
			for i, tenant := range []string{"acme", "other"} {
				if who, _ := asked(t, "moire-dp-"+tenant+"-web", network, to, 7); who.Addr().String() != want[i] {
					t.Errorf("%s %s to %s came as %s, not %s", tenant, network, to, who, want[i])
				}
			}
		}
	}
}

// TestOutsideHosts: of the nodes themselves only what is open can be reached,
// also at their other addresses.
func TestOutsideHosts(t *testing.T) {
	w := outsiders(t)
	sh(t, "ip -n moire-dp-a addr add 198.51.100.7/32 dev lo")
	for _, addr := range []string{"192.168.77.1", "fd77::1", "198.51.100.7"} {
		whoServer(t, "moire-dp-a", addr, 7)
		whoServer(t, "moire-dp-a", addr, 8)
	}
	whoServer(t, "moire-dp-b", "192.168.77.2", 7)
	whoServer(t, "moire-dp-b", "192.168.77.2", 8)
	w.change = exitsOf(snapshot.Exit{VNI: 100, Hosts: []snapshot.HostPort{{Protocol: policy.TCP, First: 5, Last: 7}, {Protocol: policy.UDP, First: 7, Last: 7}}},
		snapshot.Exit{VNI: 200})
	w.apply()
	w.nodes["a"].record()
	for _, to := range []string{"192.168.77.1", "fd77::1", "198.51.100.7", "192.168.77.2"} {
		for _, network := range []string{"tcp", "udp"} {
			if who, _ := asked(t, "moire-dp-acme-web", network, to, 7); !who.IsValid() {
				t.Errorf("%s %s is open and does not answer", network, to)
			}
			if !closedTo(t, "moire-dp-acme-web", network, to, 8) {
				t.Errorf("%s %s answers although it is closed", network, to)
			}
		}
		if !closedTo(t, "moire-dp-other-web", "udp", to, 7) {
			t.Errorf("the other tenant reaches %s", to)
		}
	}
	// Never what nodes say to each other, whatever is open.
	w.change = exitsOf(snapshot.Exit{VNI: 100, Hosts: []snapshot.HostPort{{Protocol: policy.UDP, Last: 65535}}})
	w.apply()
	inNetns(t, "moire-dp-acme-web", func() error {
		c, err := net.Dial("udp", "192.168.77.2:4789")
		if err == nil {
			c.Write(make([]byte, 60))
			c.Close()
		}
		return err
	})
	w.nodes["a"].find("VXLAN of a Workload", func(r record.Record) bool { return r.Drop == "host-closed" && r.Destination.Port == 4789 })
	w.change = nil
	w.apply()
	if v := sh(t, "ip netns exec moire-dp-a cat %s", acceptLocal); v != "0\n" {
		t.Errorf("accept_local of the loopback stays %s", v)
	}
	w.nodes["a"].find("host-closed", func(r record.Record) bool { return r.Drop == "host-closed" && r.Destination.Port == 8 })
}

// TestOutsideNeverLeaves: whatever a Workload tries, raw sockets, other
// protocols and IPv6, only what the Policy allows is seen outside.
func TestOutsideNeverLeaves(t *testing.T) {
	w := outsiders(t)
	w.change = exitsOf(snapshot.Exit{VNI: 100}, snapshot.Exit{VNI: 200})
	w.decide(11, policy.Egress, egress("policy/acme/out/egress/0", "192.168.77.3/32", policy.PortRange{Protocol: policy.TCP, First: 7, Last: 7}))
	w.apply()
	a := w.nodes["a"]
	a.record()
	seen := sniff(t, "moire-dp-out")
	if who, _ := asked(t, "moire-dp-acme-web", "tcp", "192.168.77.3", 7); !who.IsValid() {
		t.Fatal("what is allowed does not work")
	}
	mac := a.locals[0].MAC
	src4, src6 := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd10:1::2")
	probe := func(src, dst string, proto uint8, port uint16) []byte {
		return a.probeFrame(&Local{VNI: 100, MAC: mac}, snapshot.Probe{
			Source: snapshot.Addr{VNI: 100, IP: netip.MustParseAddr(src)}, Destination: snapshot.Addr{VNI: 100, IP: netip.MustParseAddr(dst)},
			Protocol: proto, SourcePort: 61234, Port: port,
		})
	}
	send := func(f []byte) {
		inNetns(t, "moire-dp-acme-web", func() error {
			i, err := net.InterfaceByName("net0")
			if err != nil {
				return err
			}
			return sendFrame(i.Index, f)
		})
	}
	var all [][]byte
	for _, dst := range []string{"192.168.77.3", "192.168.77.255", "255.255.255.255", "224.0.0.251", "169.254.169.254", "169.254.1.1", "127.0.0.1", "0.0.0.1", "192.168.77.2", "192.168.77.1"} {
		for _, proto := range []uint8{policy.UDP, policy.ICMP, policy.SCTP, 47, 50, 4, 41} {
			all = append(all, probe(src4.String(), dst, proto, 7))
		}
		all = append(all, probe(src4.String(), dst, policy.TCP, 8), probe("192.168.77.1", dst, policy.TCP, 7), probe("10.1.0.9", dst, policy.TCP, 7), probe(src4.String(), dst, policy.UDP, 4789))
	}
	for _, dst := range []string{"fd77::3", "fe80::1", "ff02::1", "::1", "::ffff:192.168.77.3", "fd77::1", "fd77::2"} {
		for _, proto := range []uint8{policy.TCP, policy.UDP, policy.ICMP, 44, 43, 0, 60} {
			all = append(all, probe(src6.String(), dst, proto, 7))
		}
		all = append(all, probe("fd77::1", dst, policy.TCP, 7))
	}
	for _, f := range all {
		send(f)
		straight := bytes.Clone(f) // to the node's own end, and to everybody
		copy(straight, bytes.Repeat([]byte{0xff}, 6))
		send(straight)
		if f[12] == 8 && f[13] == 0 { // as a later fragment, and with a TTL that ends here
			later := bytes.Clone(f)
			later[20], later[21] = 0, 9
			later[24], later[25] = 0, 0
			sum := ^sum16(0, later[14:34])
			later[24], later[25] = byte(sum>>8), byte(sum)
			send(later)
		}
	}
	time.Sleep(300 * time.Millisecond)
	if !slices.ContainsFunc(seen(), func(s string) bool { return strings.HasPrefix(s, "tcp 192.168.77.1:") }) {
		t.Error("nobody looks")
	}
	for _, s := range seen() {
		// The IPv6 of nodes and of the bridge says now and then whom it listens to;
		// that of Workloads would bear their MACs.
		if strings.HasPrefix(s, "0 fe80:") && strings.HasSuffix(s, " -> ff02::16") && !strings.HasPrefix(s, "0 fe80::ff:fe00:") {
			continue
		}
		// So they do before they have an address, and ask whether somebody has it.
		if s == "0 :: -> ff02::16" || s == "2 0.0.0.0 -> 224.0.0.22" || strings.HasPrefix(s, "icmp :: -> ff02::1:ff") && !strings.HasPrefix(s, "icmp :: -> ff02::1:ff00:") {
			continue
		}
		if !strings.HasPrefix(s, "tcp 192.168.77.1:") && !strings.HasPrefix(s, "arp ") && !strings.HasPrefix(s, "icmp f") || strings.Contains(s, "10.1.0.") || strings.Contains(s, "fd10:") {
			t.Errorf("seen outside: %s", s)
		}
	}
	a.find("denied by policy", func(r record.Record) bool {
		return r.Kind == record.Denied && r.Rule == "isolated/acme/x" && r.Destination.Address.String() == "fd77::3"
	})
}

// sniff collects what comes in at up0 of a namespace from the nodes, in words.
func sniff(t *testing.T, ns string) func() []string {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	inNetns(t, ns, func() error {
		i, err := net.InterfaceByName("up0")
		if err != nil {
			return err
		}
		fd, stop, err := packetSocket(i.Index)
		if err != nil {
			return err
		}
		done := make(chan bool)
		t.Cleanup(func() { stop(); <-done })
		go func() {
			defer close(done)
			for b := make([]byte, 2048); ; {
				n, from, err := fd(b)
				if err != nil {
					return
				}
				if !from {
					continue
				}
				mu.Lock()
				seen = append(seen, inWords(b[:n]))
				mu.Unlock()
			}
		}()
		return nil
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

// TestOutsideHostTraffic: what the node itself sends and gets is not touched,
// while Workloads leave under the same address.
func TestOutsideHostTraffic(t *testing.T) {
	w := outsiders(t)
	w.change = exitsOf(snapshot.Exit{VNI: 100}, snapshot.Exit{VNI: 200})
	w.apply()
	whoServer(t, "moire-dp-a", "192.168.77.1", 61500) // in the range of ours
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := map[string]int{}
	for _, from := range []string{"moire-dp-a", "moire-dp-acme-web", "moire-dp-other-web"} {
		for _, network := range []string{"tcp", "udp"} {
			wg.Go(func() {
				for range 100 {
					who, c := asked(t, from, network, "192.168.77.3", 7)
					if c != nil {
						c.Close()
					}
					if who.Addr().String() != "192.168.77.1" {
						mu.Lock()
						failed[from+" "+network]++
						mu.Unlock()
					}
				}
			})
		}
	}
	wg.Go(func() {
		for range 100 {
			who, c := asked(t, "moire-dp-out", "udp", "192.168.77.1", 61500)
			if c != nil {
				c.Close()
			}
			if !who.IsValid() {
				mu.Lock()
				failed["from outside"]++
				mu.Unlock()
			}
		}
	})
	sh(t, "ip netns exec moire-dp-a ping -c 10 -i 0.05 -W 1 192.168.77.3; ip netns exec moire-dp-out ping -c 10 -i 0.05 -W 1 192.168.77.1")
	wg.Wait()
	if len(failed) > 0 {
		t.Errorf("failed: %v", failed)
	}
}

// TestOutsideSizes: fragments pass both ways, and what is too big on the way is
// told to the Workload.
func TestOutsideSizes(t *testing.T) {
	w := outsiders(t)
	w.change = exitsOf(snapshot.Exit{VNI: 100, Gateway: "b", Addresses: []netip.Addr{netip.MustParseAddr("192.168.77.50"), netip.MustParseAddr("fd77::50")}}, snapshot.Exit{VNI: 200})
	w.apply()
	for _, tenant := range []string{"acme", "other"} { // by the gateway, whose first answer says what fits, and by the node itself
		for _, to := range []string{"192.168.77.3", "fd77::3"} {
			sh(t, "ip netns exec moire-dp-%s-web ping -c 5 -i 0.2 -W 1 -s 4000 %s", tenant, to)
		}
	}
	// Behind out is a link that carries less. Whoever is at its end knows, but does
	// not say it in its MSS: a veth loses what is too big, and never tells.
	addNetns(t, "moire-dp-end")
	sh(t, `ip link add back0 netns moire-dp-out type veth peer name up0 netns moire-dp-end
		ip -n moire-dp-out addr add 203.0.113.1/24 dev back0 && ip -n moire-dp-end addr add 203.0.113.9/24 dev up0
		ip -n moire-dp-out addr add fd99::1/64 dev back0 nodad && ip -n moire-dp-end addr add fd99::9/64 dev up0 nodad
		ip -n moire-dp-out link set back0 up mtu 1300 && ip -n moire-dp-end link set up0 up
		ip netns exec moire-dp-out sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip -n moire-dp-end route add default via 203.0.113.1 mtu 1300 advmss 1460
		ip -n moire-dp-end route add default via fd99::1 mtu 1300 advmss 1440`)
	for _, n := range []string{"a", "b"} {
		sh(t, "ip -n moire-dp-%s route add 203.0.113.0/24 via 192.168.77.3 && ip -n moire-dp-%s route add fd99::/64 via fd77::3", n, n)
	}
	for _, to := range []string{"203.0.113.9", "fd99::9"} {
		echoServer(t, "moire-dp-end", to)
		for _, tenant := range []string{"acme", "other"} {
			c := dial(t, "moire-dp-"+tenant+"-web", "tcp", to)
			sent := bytes.Repeat([]byte("moire"), 20000)
			go c.Write(sent)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			got := make([]byte, len(sent))
			if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s to %s: %d of %d bytes came back: %v", tenant, to, n, len(sent), err)
			}
			if out := sh(t, "ip -n moire-dp-%s-web route get %s", tenant, to); !strings.Contains(out, "mtu 1300") {
				t.Errorf("%s was not told the size: %s", tenant, out)
			}
		}
	}
}
