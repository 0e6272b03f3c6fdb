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

var (
	there1 = snapshot.ChainKey{VNI: 100, Link: "acme/to-bolt"}
	back1  = snapshot.ChainKey{VNI: 101, Link: "acme/to-bolt", Reverse: true}
)

// chained: web of acme on node webAt and db of bolt on node dbAt, linked by way
// of functions that the caller adds.
func chained(t *testing.T, webAt, dbAt string, transparent bool) *world {
	w := twoNodes(t, "192.168.77.")
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	w.network(101, "bolt", "10.2.0.0/24", "fd10:2::/64")
	w.workload(webAt, "acme", "web", 100, 11, "10.1.0.2", "fd10:1::2")
	w.workload(dbAt, "bolt", "db", 101, 21, "10.2.0.3", "fd10:2::3")
	w.seen(100, "10.2.0.3", 101, "10.2.0.3")
	w.seen(100, "fd10:2::3", 101, "fd10:2::3")
	w.seen(101, "10.1.0.2", 100, "10.1.0.2")
	w.seen(101, "fd10:1::2", 100, "fd10:1::2")
	w.chains = map[snapshot.ChainKey]snapshot.Chain{
		there1: {ChainKey: there1, Function: "fw", Transparent: transparent}, back1: {ChainKey: back1, Function: "fw", Transparent: transparent},
	}
	for a, e := range w.endpoints {
		if e.Home.IP.IsValid() {
			e.Chain = there1
			if a.VNI == 101 {
				e.Chain = back1
			}
			w.endpoints[a] = e
		}
	}
	t.Cleanup(w.dump)
	return w
}

// function adds an instance on a node, with an interface in both Networks.
func (w *world) function(node string, number byte) string {
	w.t.Helper()
	return w.instance(node, number, there1, back1)
}

// instance adds one between any two Networks.
func (w *world) instance(node string, number byte, there, back snapshot.ChainKey) string {
	w.t.Helper()
	name := fmt.Sprint("fw", number)
	ns := "moire-dp-acme-" + name
	path := addNetns(w.t, ns)
	n := w.nodes[node]
	for _, side := range []struct {
		key  snapshot.ChainKey
		name string
	}{{there, "left"}, {back, "right"}} {
		part := map[snapshot.VNI]int{100: 1, 101: 2, 102: 9}[side.key.VNI]
		w.macs++
		l := Local{
			Key: snapshot.AttachmentKey{Project: "acme", Workload: name, Network: side.name}, VNI: side.key.VNI, MAC: snapshot.MAC{2, 0, 0, 0, 0, w.macs},
			Addrs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.%d.0.%d", part, 100+number)), netip.MustParseAddr(fmt.Sprintf("fd10:%d::f%d", part, number))},
		}
		l.Host = HostName(node, l.Key)
		w.endpoint(node, "acme", name, l.VNI, policy.Identity(90+number), l.MAC, l.Addrs)
		inNetns(w.t, n.ns, func() error {
			return Plug(PlugConfig{
				Node: node, Key: l.Key, Host: l.Host, Netns: path, IfName: side.name, MAC: l.MAC, Addrs: l.Addrs,
				Prefixes: w.networks[l.VNI].Prefixes, MTU: n.MTU(0),
			})
		})
		n.locals = append(n.locals, l)
		c := w.chains[side.key]
		c.Hops = append(c.Hops, snapshot.Hop{Project: "acme", Workload: name, Addr: snapshot.Addr{VNI: l.VNI, IP: l.Addrs[0]}, MAC: l.MAC, Node: node})
		w.chains[side.key] = c
	}
	return ns
}

// ill takes an instance out of the chain.
func (w *world) ill(number byte) {
	for k, c := range w.chains {
		var left []snapshot.Hop
		for _, h := range c.Hops {
			if h.Workload != fmt.Sprint("fw", number) {
				left = append(left, h)
			}
		}
		c.Hops = left
		w.chains[k] = c
	}
}

// statefulRouter makes a namespace a stateful router that lets echo and pings pass,
// and nothing that it has not seen the beginning of.
func statefulRouter(t *testing.T, ns string) {
	sh(t, `ip netns exec %s sh -c 'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.netfilter.nf_conntrack_tcp_loose=0; nft -f -' <<'X'
table inet fw {
	set seen {
		type inet_service
		flags dynamic
	}
	chain forward {
		type filter hook forward priority 0; policy drop
		ct state established,related counter accept
		ct state new tcp dport 7 tcp flags & (syn|ack) == syn add @seen { tcp sport } accept
		ct state new tcp dport 5555 tcp flags & (syn|ack) == syn accept
		ct state new udp dport { 7, 9 } counter accept
		meta l4proto { icmp, ipv6-icmp } ct state new counter accept
		ct state new tcp dport 8 counter reject with tcp reset
		ct state new udp dport 8 counter reject
	}
}
X`, ns)
}

// passed counts the TCP sessions that a firewall let pass.
func passed(t *testing.T, ns string) int {
	out := sh(t, "ip netns exec %s nft list set inet fw seen", ns)
	_, elements, _ := strings.Cut(out, "elements")
	if elements == "" {
		return 0
	}
	return 1 + strings.Count(elements, ",")
}

func serveEcho(t *testing.T) {
	echoServer(t, "moire-dp-bolt-db", "10.2.0.3")
	echoServer(t, "moire-dp-bolt-db", "fd10:2::3")
}

// TestChainFirewall: a Link by way of real nftables firewalls, wherever the
// ends and the instances are: stateful, symmetric, both families; ICMP errors
// of the firewall and of the far end reach the caller.
func TestChainFirewall(t *testing.T) {
	for _, at := range []string{"aaa", "aba", "abb", "aab"} { // web, function, db
		t.Run(at, func(t *testing.T) {
			w := chained(t, at[0:1], at[2:3], false)
			ns := w.function(at[1:2], 1)
			statefulRouter(t, ns)
			w.apply()
			for _, n := range w.nodes {
				n.record()
			}
			serveEcho(t)
			for _, to := range []string{"10.2.0.3", "fd10:2::3"} {
				sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 %s", to)
				sh(t, "ip netns exec moire-dp-acme-web ping -c 1 -W 1 -s 4000 %s", to)
				for _, network := range []string{"tcp", "udp"} {
					if got := say(dial(t, "moire-dp-acme-web", network, to), "hello", time.Second); got != "hello" {
						t.Errorf("%s %s: heard %q", network, to, got)
					}
				}
				if !refused(t, "moire-dp-acme-web", to) {
					t.Errorf("%s: no word of the closed port", to)
				}
				transfer(t, "moire-dp-acme-web", "moire-dp-bolt-db", to, to, map[bool]string{false: "10.1.0.2", true: "fd10:1::2"}[strings.Contains(to, ":")])
				if _, err := shell("ip netns exec moire-dp-acme-web nc -z -w 1 %s 22", to); err == nil {
					t.Errorf("%s: the firewall was gone round", to)
				}
			}
			w.nodes[at[0:1]].find("web -> db via fw1", func(r record.Record) bool {
				return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "web" && r.Destination.Workload == "db" &&
					r.Destination.Project == "bolt" && r.Via == "acme/fw1" && r.Rule == "default/acme/net/open"
			})
			w.nodes[at[2:3]].find("judged at db", func(r record.Record) bool {
				return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "web" && r.Source.VNI == 101 && r.IngressRule == "default/bolt/net/open"
			})
		})
	}
}

// TestChainBridge: the same by way of a Linux bridge that nobody addresses.
func TestChainBridge(t *testing.T) {
	for _, at := range []string{"aaa", "aba", "aab"} {
		t.Run(at, func(t *testing.T) {
			w := chained(t, at[0:1], at[2:3], true)
			ns := w.function(at[1:2], 1)
			sh(t, `ip netns exec %s sh -c 'ip link add br0 type bridge mcast_snooping 0 && ip addr flush dev left && ip addr flush dev right &&
				ip link set left master br0 && ip link set right master br0 && ip link set br0 up && nft -f -' <<'X'
table bridge ids {
	chain forward {
		type filter hook forward priority 0
		tcp dport 7 counter
		udp dport 99 drop
	}
}
X`, ns)
			w.apply()
			serveEcho(t)
			for _, to := range []string{"10.2.0.3", "fd10:2::3"} {
				sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 %s", to)
				if got := say(dial(t, "moire-dp-acme-web", "tcp", to), "hello", time.Second); got != "hello" {
					t.Errorf("%s: heard %q", to, got)
				}
				if !refused(t, "moire-dp-acme-web", to) {
					t.Errorf("%s: no word of the closed port", to)
				}
			}
			if out := sh(t, "ip netns exec %s nft list table bridge ids", ns); strings.Contains(out, "packets 0 ") {
				t.Errorf("the bridge saw nothing: %s", out)
			}
		})
	}
}

// TestChainInstances: two stateful instances share the sessions, on one node or
// on two; when one is ill its sessions end and the others go on; without any
// nothing passes and the record says why.
func TestChainInstances(t *testing.T) {
	for _, at := range []string{"ab", "bb"} {
		t.Run(at, func(t *testing.T) {
			w := chained(t, "a", "a", false)
			first, second := w.function(at[0:1], 1), w.function(at[1:2], 2)
			statefulRouter(t, first)
			statefulRouter(t, second)
			w.apply()
			w.nodes["a"].record()
			serveEcho(t)
			var open []net.Conn
			for range 24 {
				c := dial(t, "moire-dp-acme-web", "tcp", "10.2.0.3")
				for range 3 {
					if got := say(c, "hello", time.Second); got != "hello" {
						t.Fatalf("heard %q", got)
					}
				}
				open = append(open, c)
			}
			if a, b := passed(t, first), passed(t, second); a < 3 || b < 3 || a+b != 24 {
				t.Errorf("24 sessions: %d and %d", a, b)
			}
			w.ill(1)
			w.apply()
			alive := 0
			for _, c := range open {
				if say(c, "again", 100*time.Millisecond) == "again" {
					alive++
				}
			}
			if want := passed(t, second); alive != want {
				t.Errorf("%d of %d sessions of the instance that stays go on", alive, want)
			}
			for range 5 {
				if got := say(dial(t, "moire-dp-acme-web", "tcp", "10.2.0.3"), "new", time.Second); got != "new" {
					t.Errorf("a new session: %q", got)
				}
			}
			w.ill(2)
			w.apply()
			if _, err := shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.2.0.3"); err == nil {
				t.Error("a ping without any instance was answered")
			}
			w.nodes["a"].find("chain-down", func(r record.Record) bool { return r.Drop == "chain-down" && r.Source.Workload == "web" })
		})
	}
}
