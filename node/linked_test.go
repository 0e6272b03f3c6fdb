package node

import (
	"fmt"
	"net/netip"
	"testing"

	"moire.dev/moire/snapshot"
)

// TestRoutesOfFunctions: in a chain of two, each interface leads to the end
// that is on its side, also while an instance is ill.
func TestRoutesOfFunctions(t *testing.T) {
	const left, middle, right snapshot.VNI = 1, 2, 3
	key := func(vni snapshot.VNI, reverse bool) snapshot.ChainKey {
		return snapshot.ChainKey{VNI: vni, Link: "shop/l", Reverse: reverse}
	}
	at := func(vni snapshot.VNI, ip string) snapshot.Addr {
		return snapshot.Addr{VNI: vni, IP: netip.MustParseAddr(ip)}
	}
	first := [2]snapshot.Addr{at(left, "10.0.0.9"), at(middle, "10.2.0.9")}
	second := [2]snapshot.Addr{at(middle, "10.2.0.8"), at(right, "10.1.0.8")}
	// build is the snapshot with the rows and the Chains.
	build := func(ill bool) *snapshot.Snapshot {
		s := &snapshot.Snapshot{Networks: map[snapshot.VNI]snapshot.Network{}, Endpoints: map[snapshot.Addr]snapshot.Endpoint{}, Chains: map[snapshot.ChainKey]snapshot.Chain{}}
		for vni, p := range map[snapshot.VNI]string{left: "10.0.0.0/24", middle: "10.2.0.0/24", right: "10.1.0.0/24"} {
			s.Networks[vni] = snapshot.Network{VNI: vni, Prefixes: []netip.Prefix{netip.MustParsePrefix(p)}}
		}
		row := func(vni snapshot.VNI, home snapshot.Addr, c snapshot.ChainKey) {
			s.Endpoints[snapshot.Addr{VNI: vni, IP: home.IP}] = snapshot.Endpoint{Addr: snapshot.Addr{VNI: vni, IP: home.IP}, Home: home, Chain: c}
		}
		web, db := at(left, "10.0.0.10"), at(right, "10.1.0.20")
		for k, h := range map[snapshot.ChainKey]snapshot.Addr{key(left, false): first[0], key(middle, true): first[1], key(middle, false): second[0], key(right, true): second[1]} {
			c := snapshot.Chain{ChainKey: k, Hops: []snapshot.Hop{{Addr: h}}}
			if ill && (h == first[0] || h == first[1]) {
				c.Hops[0].Addr.IP = netip.MustParseAddr("10.9.9.9") // another instance
			}
			s.Chains[k] = c
			if k.Reverse {
				row(k.VNI, web, k)
			} else {
				row(k.VNI, db, k)
			}
		}
		return s
	}
	well, ill := build(false), build(true)
	none := &snapshot.Snapshot{}
	var l linked
	for _, c := range []struct {
		addr               snapshot.Addr
		well, ill, restart string // restart: it was never seen well
	}{
		{at(left, "10.0.0.10"), "[10.1.0.0/24]", "[10.1.0.0/24]", "[10.1.0.0/24]"}, // web
		{at(right, "10.1.0.20"), "[10.0.0.0/24]", "[10.0.0.0/24]", "[10.0.0.0/24]"},
		{first[0], "[]", "[]", "[10.1.0.0/24]"},
		{first[1], "[10.1.0.0/24]", "[10.1.0.0/24]", "[10.0.0.0/24 10.1.0.0/24]"},
		{second[0], "[10.0.0.0/24]", "[10.0.0.0/24]", "[10.0.0.0/24]"},
		{second[1], "[]", "[]", "[]"},
	} {
		a := &attachment{VNI: c.addr.VNI, Addrs: []netip.Addr{c.addr.IP}}
		for what, step := range []struct {
			s    *snapshot.Snapshot
			want string
		}{{well, c.well}, {ill, c.ill}, {none, "[]"}, {ill, c.restart}} {
			a.Linked, a.HopOf = l.of(step.s, a)
			if got := fmt.Sprint(a.Linked); got != step.want {
				t.Errorf("%v, step %d: %s, not %s", c.addr, what, got, step.want)
			}
		}
	}
}

// withLinks links back with others, with front, and through a function whose
// interface in back has the address hop.
func withLinks(s *snapshot.Snapshot, hop netip.Addr) {
	withBack(s)
	chain := snapshot.ChainKey{VNI: 101, Link: "shop/l", Reverse: true}
	s.Chains = map[snapshot.ChainKey]snapshot.Chain{chain: {ChainKey: chain, Hops: []snapshot.Hop{{Project: "shop", Workload: "router", Node: "n1",
		Addr: snapshot.Addr{VNI: 101, IP: hop}}}}}
	row := func(vni snapshot.VNI, ip string, home snapshot.VNI, at string, c snapshot.ChainKey) {
		a := snapshot.Addr{VNI: vni, IP: netip.MustParseAddr(ip)}
		s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "bank", Workload: "core", Identity: 9, Node: "n9", Home: snapshot.Addr{VNI: home, IP: netip.MustParseAddr(at)}, Chain: c}
	}
	row(101, "10.2.0.7", 102, "10.2.0.7", snapshot.ChainKey{})
	row(101, "10.66.0.7", 102, "10.2.0.7", snapshot.ChainKey{})
	row(101, "10.77.0.7", 102, "10.2.0.7", chain)
	for _, n := range s.Networks {
		for _, p := range n.Prefixes {
			far := p.Addr().Next().Next().Next().Next()
			if n.VNI == 101 {
				row(100, far.String(), 101, far.String(), snapshot.ChainKey{})
			} else if n.Name == "front" {
				row(101, far.String(), n.VNI, far.String(), snapshot.ChainKey{})
			}
		}
	}
}
