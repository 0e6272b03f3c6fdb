package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTableEqualsDecide: looking up the flattened table is deciding.
func TestTableEqualsDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		table := s.Flatten()
		for range 20 {
			p := drawPacket(t)
			want := s.Decide(p)
			got, ok := table.Lookup(p)
			if !ok || got != want {
				t.Fatalf("packet %+v\nset %+v\ntable says %+v (found %v)\nrules say %+v", p, s, got, ok, want)
			}
		}
	})
}

func TestZeroSetDenies(t *testing.T) {
	var s Set
	v := s.Decide(Packet{PeerAddr: netip.MustParseAddr("10.0.0.1"), Protocol: TCP, Port: 80})
	if v.Allow || v.Rule != NoPolicy {
		t.Fatalf("got %+v, want a denial by %s", v, NoPolicy)
	}
}

var (
	prefixes = []string{"10.0.0.0/8", "10.0.0.0/24", "10.0.0.4/30", "10.0.0.5/32", "fd00::/8", "fd00::/64", "fd00::5/128"}
	addrs    = []string{"10.0.0.1", "10.0.0.5", "10.0.0.6", "10.1.0.1", "192.0.2.1", "fd00::1", "fd00::5", "fe00::1"}
	ports    = []uint16{0, 1, 79, 80, 81, 443, 1024, 8080, 65534, 65535}
	protos   = []uint8{ICMP, TCP, UDP, SCTP}
)

func drawSet(t *rapid.T) *Set {
	s := &Set{Default: DefaultRule{ID: "default", Allow: rapid.Bool().Draw(t, "open")}}
	if rapid.Bool().Draw(t, "isolated") {
		s.Isolated = "isolated"
	}
	if rapid.Bool().Draw(t, "audit-isolated") {
		s.AuditIsolated = "audit-isolated"
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "rules") {
		r := Rule{ID: RuleID(rune('a' + i)), Tier: Tier(rapid.IntRange(0, 2).Draw(t, "tier")), Audit: rapid.IntRange(0, 3).Draw(t, "audit") == 0}
		top := 1
		if r.Tier == Admin {
			top = 2
		}
		r.Action = Action(rapid.IntRange(0, top).Draw(t, "action"))
		for range rapid.IntRange(0, 2).Draw(t, "peers") {
			r.Peers = append(r.Peers, drawPeer(t))
		}
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			p := PortRange{Protocol: rapid.SampledFrom(protos).Draw(t, "proto"), Last: 65535}
			if p.Protocol != ICMP && rapid.Bool().Draw(t, "range") {
				a, b := rapid.SampledFrom(ports).Draw(t, "first"), rapid.SampledFrom(ports).Draw(t, "last")
				p.First, p.Last = min(a, b), max(a, b)
			}
			r.Ports = append(r.Ports, p)
		}
		if rapid.IntRange(0, 2).Draw(t, "about requests") == 0 {
			for range rapid.IntRange(1, 2).Draw(t, "requests") {
				r.Requests = append(r.Requests, drawRequestMatch(t))
			}
		}
		s.Rules = append(s.Rules, r)
	}
	slices.SortStableFunc(s.Rules, func(a, b Rule) int { return int(a.Tier) - int(b.Tier) })
	return s
}

func drawPeer(t *rapid.T) Peer {
	p := Peer{Anyone: rapid.Bool().Draw(t, "anyone")}
	if !p.Anyone {
		for id := Identity(1); id <= 4; id++ {
			if rapid.Bool().Draw(t, "id") {
				p.Identities = append(p.Identities, id)
			}
		}
	}
	if rapid.Bool().Draw(t, "cidr") {
		p.CIDR = netip.MustParsePrefix(rapid.SampledFrom(prefixes).Draw(t, "prefix"))
		if rapid.Bool().Draw(t, "except") {
			p.Except = []netip.Prefix{netip.MustParsePrefix(rapid.SampledFrom(prefixes).Draw(t, "except"))}
		}
	}
	return p
}

func drawPacket(t *rapid.T) Packet {
	return Packet{
		Peer:     Identity(rapid.IntRange(0, 6).Draw(t, "peer")),
		PeerAddr: netip.MustParseAddr(rapid.SampledFrom(addrs).Draw(t, "addr")),
		Protocol: rapid.SampledFrom(append(protos, 58, 47)).Draw(t, "protocol"),
		Port:     rapid.SampledFrom(ports).Draw(t, "port"),
	}
}

// TestPortBlocks: the blocks hold the ports, in order, each once, and no others.
func TestPortBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first, last := rapid.Uint16().Draw(t, "first"), rapid.Uint16().Draw(t, "last")
		next, blocks := uint32(first), 0
		for port, fixed := range PortBlocks(first, last) {
			size := uint32(1) << (16 - fixed)
			if uint32(port) != next || next%size != 0 {
				t.Fatalf("block %d/%d after port %d", port, fixed, next)
			}
			next += size
			blocks++
		}
		if first > last && blocks > 0 || first <= last && next != uint32(last)+1 || blocks > 30 {
			t.Fatalf("%d to %d: %d blocks up to %d", first, last, blocks, next)
		}
	})
}

// TestManyIdentities: a Set of ten thousand rules, each about somebody else, is
// a Table at once, and the right one.
func TestManyIdentities(t *testing.T) {
	const rules = 10000
	s := &Set{Isolated: "isolated/x"}
	for i := range rules {
		s.Rules = append(s.Rules, Rule{
			ID: RuleID(fmt.Sprint("policy/x/", i)), Tier: Project, Action: Allow, Peers: []Peer{{Identities: []Identity{Identity(i + 1)}}},
			Ports: []PortRange{{Protocol: TCP, First: uint16(i), Last: uint16(i)}},
		})
	}
	began := time.Now()
	table := s.Flatten()
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
	if len(table.Entries) > 3*rules {
		t.Errorf("%d entries for %d rules", len(table.Entries), rules)
	}
	for _, i := range []int{0, 1, 4711, rules - 1} {
		for _, p := range []Packet{{Peer: Identity(i + 1), Protocol: TCP, Port: uint16(i)}, {Peer: Identity(i + 1), Protocol: TCP, Port: uint16(i + 1)}, {Peer: rules + 5, Protocol: TCP, Port: uint16(i)}} {
			p.PeerAddr = netip.MustParseAddr("10.0.0.1")
			if got, ok := table.Lookup(p); !ok || got != s.Decide(p) {
				t.Errorf("%+v: the table says %+v, the rules %+v", p, got, s.Decide(p))
			}
		}
	}
}

// TestManyAddresses: the same with ten thousand blocks of addresses.
func TestManyAddresses(t *testing.T) {
	const rules = 10000
	s := &Set{Isolated: "isolated/x"}
	for i := range rules {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		s.Rules = append(s.Rules, Rule{
			ID: RuleID(fmt.Sprint("policy/x/", i)), Tier: Project, Action: Allow, Peers: []Peer{{Anyone: true, CIDR: block}},
			Ports: []PortRange{{Protocol: TCP, First: 443, Last: 443}},
		})
	}
	began := time.Now()
	table := s.Flatten()
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
	if len(table.Classes) != rules || len(table.Entries) > 3*rules {
		t.Errorf("%d classes, %d entries for %d rules", len(table.Classes), len(table.Entries), rules)
	}
}
