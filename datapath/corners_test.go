package datapath

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestFloatingSameAddress: a caller has in the pool the address that the target
// has at home. The target sees the FloatingIP, the Policy the caller.
func TestFloatingSameAddress(t *testing.T) {
	w := pool(t)
	w.workload("a", "acme", "twin", 100, 13, "10.1.0.4", "fd10:1::4")
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.float("fd10:1::200", 0, 0, "fd10:1::4")
	w.apply()
	w.nodes["b"].record()
	for _, ip := range []string{"10.1.0.200", "fd10:1::200"} {
		sh(t, "ip netns exec moire-dp-acme-twin ping -c 1 -W 2 %s", ip)
		for _, network := range []string{"tcp", "udp"} {
			if _, who, err := call(t, "moire-dp-acme-twin", network, net.JoinHostPort(ip, "8080")); who != "blue" {
				t.Errorf("%s %s: %q %v", network, ip, who, err)
			}
		}
		transfer(t, "moire-dp-acme-twin", "moire-dp-bolt-blue", strings.Replace(ip, "200", "4", 1), ip, ip)
	}
	r := w.nodes["b"].find("twin", func(r record.Record) bool {
		return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "twin"
	})
	if r.Source.Address.String() != "10.1.0.4" || !strings.HasPrefix(r.TranslatedSource, "10.1.0.200:") || !strings.HasPrefix(r.TranslatedDestination, "10.1.0.4:") {
		t.Errorf("%+v", r)
	}
	deny := func(block string) policy.Set {
		return policy.Set{Default: policy.DefaultRule{ID: "default/bolt/net/open", Allow: true}, Rules: []policy.Rule{{
			ID: "policy/bolt/x/ingress/0", Tier: policy.Project, Action: policy.Deny, Peers: []policy.Peer{{Anyone: true, CIDR: netip.MustParsePrefix(block)}},
		}}}
	}
	key := snapshot.PolicyKey{VNI: 101, Identity: 21, Direction: policy.Ingress}
	for block, want := range map[string]bool{"10.1.0.200/32": true, "10.1.0.4/32": false} {
		w.policies[key] = deny(block)
		w.apply()
		if _, who, err := call(t, "moire-dp-acme-twin", "tcp", "10.1.0.200:8080"); (who == "blue") != want {
			t.Errorf("%s is denied: %q %v", block, who, err)
		}
	}
}

// TestAliasesFull: many rows that nobody uses do not push out one in use; one that
// was pushed out is made anew by what goes to the end with the guise; the sweep
// takes away those that lead nowhere.
func TestAliasesFull(t *testing.T) {
	w := pool(t)
	w.float("10.1.0.200", 0, 0, "10.1.0.4")
	w.apply()
	c, who, err := call(t, "moire-dp-acme-web", "tcp", "10.1.0.200:8080")
	if who != "blue" {
		t.Fatalf("%q %v", who, err)
	}
	table := w.nodes["b"].objects.Aliases
	ours := func() (n, all int) {
		var k bpf.MoireSessionKey
		var a bpf.MoireAlias
		for rows := table.Iterate(); rows.Next(&k, &a); all++ {
			if a.Session.Vni == 100 {
				n++
			}
		}
		return n, all
	}
	for range 3 {
		for i := range 3 * int(table.MaxEntries()) {
			k := bpf.MoireSessionKey{Vni: 7, Proto: 17}
			k.A.W[0] = uint32(i)
			if err := table.Put(&k, &bpf.MoireAlias{Session: k}); err != nil {
				t.Fatal(err)
			}
		}
		if n, _ := ours(); n != 1 {
			t.Errorf("%d rows of ours beside many that nobody uses", n)
		}
		if who, err := again(c); who != "blue" {
			t.Errorf("%q %v", who, err)
		}
	}
	var k bpf.MoireSessionKey
	var a bpf.MoireAlias
	var gone []bpf.MoireSessionKey
	for rows := table.Iterate(); rows.Next(&k, &a); {
		if a.Session.Vni == 100 {
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		if err := table.Delete(&k); err != nil {
			t.Fatal(err)
		}
	}
	if who, err := again(c); who != "blue" {
		t.Errorf("after its row was pushed out: %q %v", who, err)
	}
	if err := w.nodes["b"].sweep(bootTime(), true, func(record.Record) {}); err != nil {
		t.Fatal(err)
	}
	if n, all := ours(); n != 1 || all != 1 {
		t.Errorf("after the sweep: %d rows of ours, %d in all", n, all)
	}
}

// TestChainOfTwo: two firewalls one behind the other, with a Network between
// them, on one node and on two; both families; when the second is ill nothing passes.
func TestChainOfTwo(t *testing.T) {
	there2 := snapshot.ChainKey{VNI: 102, Link: "acme/to-bolt"}
	back2 := snapshot.ChainKey{VNI: 102, Link: "acme/to-bolt", Reverse: true}
	for _, at := range []string{"aa", "ab"} {
		t.Run(at, func(t *testing.T) {
			w := chained(t, "a", "b", false)
			w.network(102, "acme", "10.9.0.0/24", "fd10:9::/64")
			for home, addrs := range map[snapshot.VNI][]string{100: {"10.1.0.2", "fd10:1::2"}, 101: {"10.2.0.3", "fd10:2::3"}} {
				for _, a := range addrs { // the middle sees both
					w.seen(102, a, home, a)
					k := snapshot.Addr{VNI: 102, IP: netip.MustParseAddr(a)}
					e := w.endpoints[k]
					e.Chain = map[snapshot.VNI]snapshot.ChainKey{100: back2, 101: there2}[home]
					w.endpoints[k] = e
				}
			}
			for _, k := range []snapshot.ChainKey{there2, back2} {
				w.chains[k] = snapshot.Chain{ChainKey: k, Function: "fw"}
			}
			first, second := w.instance(at[0:1], 1, there1, back2), w.instance(at[1:2], 2, there2, back1)
			sh(t, "ip -n %s route replace 10.2.0.0/24 via 10.9.0.1 dev right && ip -n %s route replace fd10:2::/64 via fd10:9::1 dev right", first, first)
			sh(t, "ip -n %s route replace 10.1.0.0/24 via 10.9.0.1 dev left && ip -n %s route replace fd10:1::/64 via fd10:9::1 dev left", second, second)
			statefulRouter(t, first)
			statefulRouter(t, second)
			w.apply()
			w.nodes["b"].record()
			serveEcho(t)
			for _, to := range []string{"10.2.0.3", "fd10:2::3"} {
				sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 %s", to)
				for _, network := range []string{"tcp", "udp"} {
					if got := say(dial(t, "moire-dp-acme-web", network, to), "hello", time.Second); got != "hello" {
						t.Errorf("%s %s: heard %q", network, to, got)
					}
				}
				transfer(t, "moire-dp-acme-web", "moire-dp-bolt-db", to, to, map[bool]string{false: "10.1.0.2", true: "fd10:1::2"}[strings.Contains(to, ":")])
			}
			if a, b := passed(t, first), passed(t, second); a != 2 || b != 2 {
				t.Errorf("of 2 sessions the first saw %d, the second %d", a, b)
			}
			w.nodes["b"].find("judged at db", func(r record.Record) bool {
				return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "web" && r.Source.VNI == 101 && r.IngressRule == "default/bolt/net/open"
			})
			w.ill(2)
			w.apply()
			if _, err := shell("ip netns exec moire-dp-acme-web ping -c 1 -W 1 10.2.0.3"); err == nil {
				t.Error("a ping without the second function was answered")
			}
		})
	}
}

// TestChainNAT: a function that speaks under its own address (mode nat): the far
// Network does not know who is behind it, and judges the function.
func TestChainNAT(t *testing.T) {
	w := chained(t, "a", "b", false)
	ns := w.instance("a", 1, there1, back1)
	for _, a := range []string{"10.1.0.2", "fd10:1::2"} {
		delete(w.endpoints, snapshot.Addr{VNI: 101, IP: netip.MustParseAddr(a)})
	}
	delete(w.chains, back1)
	statefulRouter(t, ns)
	sh(t, `ip netns exec %s nft -f - <<'X'
table inet nat {
	chain out {
		type nat hook postrouting priority 100
		oifname "right" masquerade
	}
}
X`, ns)
	w.apply()
	w.nodes["b"].record()
	whoServer(t, "moire-dp-bolt-db", "10.2.0.3", 7)
	whoServer(t, "moire-dp-bolt-db", "fd10:2::3", 7)
	for to, as := range map[string]string{"10.2.0.3": "10.2.0.101", "fd10:2::3": "fd10:2::f1"} {
		sh(t, "ip netns exec moire-dp-acme-web ping -c 2 -i 0.2 -W 1 %s", to)
		for _, network := range []string{"tcp", "udp"} {
			if who, _ := asked(t, "moire-dp-acme-web", network, to, 7); who.Addr().String() != as {
				t.Errorf("%s %s: came as %s", network, to, who)
			}
		}
	}
	w.nodes["b"].find("the function asks", func(r record.Record) bool {
		return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "fw1" && r.Source.VNI == 101 && r.IngressRule == "default/bolt/net/open"
	})
	if _, err := shell("ip netns exec moire-dp-bolt-db ping -c 1 -W 1 10.1.0.2"); err == nil {
		t.Error("db reaches who is behind the function")
	}
	w.ill(1)
	w.apply()
	if who, _ := askedFor(t, "moire-dp-acme-web", "tcp", "10.2.0.3", 7, 300*time.Millisecond); who.IsValid() {
		t.Error("an answer without a function")
	}
}
