package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Table is a Set as the kernel looks it up:
//
//	class   = longest match of the peer's address in Classes, else 0
//	verdict = longest match of (class, identity, protocol, port) in Entries;
//	          when the identity has no entry at all, the same with identity 0
//
// Looking up equals Decide for every packet.
type Table struct {
	Classes []Class
	Entries []Entry
}

// Class numbers a region of peer addresses that all CIDRs of a Set treat alike.
type Class struct {
	Prefix netip.Prefix
	Number uint32
}

// Entry is one row. Bits counts how much of protocol (8) and port (16) must
// match: 0, 8, or 9 to 24.
type Entry struct {
	Class    uint32
	Identity Identity // 0: every identity without entries of its own
	Protocol uint8
	Port     uint16
	Bits     uint8
	Verdict  Verdict
}

// otherProtocol stands for every protocol that no rule can name.
const otherProtocol = 0

// Flatten computes the Table of a Set. The result depends on the Set alone
// and is in a fixed order. The work grows with the rules and with the Table,
// not with their product: each region and identity asks only the rules that an
// index finds for them.
func (s *Set) Flatten() Table {
	var t Table
	regions := s.regions()
	identities := s.identities()
	x := s.index()
	sub := &Set{Isolated: s.Isolated, AuditIsolated: s.AuditIsolated, Default: s.Default}
	var everybody []int
	for i, region := range regions {
		class := uint32(i)
		if i > 0 {
			t.Classes = append(t.Classes, Class{Prefix: region, Number: class})
		}
		for _, id := range identities {
			found := x.rules(region, id)
			if id == 0 {
				everybody = found
			} else if slices.Equal(found, everybody) {
				continue // as everybody else
			}
			sub.Rules = sub.Rules[:0]
			for _, n := range found {
				r := s.Rules[n]
				r.Peers = nil // they match
				sub.Rules = append(sub.Rules, r)
			}
			t.Entries = sub.flattenPeer(t.Entries, class, region, id)
		}
	}
	return t
}

// regions lists the prefixes at which the treatment of an address can change;
// the first, invalid one stands for addresses outside all of them.
func (s *Set) regions() []netip.Prefix {
	out := []netip.Prefix{}
	for _, r := range s.Rules {
		for _, p := range r.Peers {
			if p.CIDR.IsValid() {
				out = append(out, p.CIDR.Masked())
				for _, e := range p.Except {
					out = append(out, e.Masked())
				}
			}
		}
	}
	slices.SortFunc(out, comparePrefix)
	return append([]netip.Prefix{{}}, slices.Compact(out)...)
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

// identities lists who the rules name, after 0 for everybody else.
func (s *Set) identities() []Identity {
	out := []Identity{0}
	for _, r := range s.Rules {
		for _, p := range r.Peers {
			if !p.Anyone {
				out = append(out, p.Identities...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Set) flattenPeer(out []Entry, class uint32, region netip.Prefix, id Identity) []Entry {
	at := func(proto uint8, port uint16) Verdict {
		v, _ := s.decide(region, Packet{Peer: id, Protocol: proto, Port: port}, nil)
		return v
	}
	other := at(otherProtocol, 0)
	out = append(out, Entry{Class: class, Identity: id, Verdict: other})
	for _, proto := range []uint8{ICMP, TCP, UDP, SCTP} {
		cuts := s.cuts(proto)
		first := at(proto, 0)
		// The verdict of port 0 covers the protocol; differing ranges override.
		if first != other {
			out = append(out, Entry{Class: class, Identity: id, Protocol: proto, Bits: 8, Verdict: first})
		}
		for i := 1; i < len(cuts); i++ {
			last := uint32(0xffff)
			if i+1 < len(cuts) {
				last = cuts[i+1] - 1
			}
			v := at(proto, uint16(cuts[i]))
			if v == first {
				continue
			}
			for port, fixed := range PortBlocks(uint16(cuts[i]), uint16(last)) {
				out = append(out, Entry{Class: class, Identity: id, Protocol: proto, Port: port, Bits: uint8(8 + fixed), Verdict: v})
			}
		}
	}
	return out
}

// cuts lists the ports at which a rule for the protocol begins or has ended.
func (s *Set) cuts(proto uint8) []uint32 {
	out := []uint32{0}
	for _, r := range s.Rules {
		for _, p := range r.Ports {
			if p.Protocol == proto {
				out = append(out, uint32(p.First))
				if p.Last < 0xffff {
					out = append(out, uint32(p.Last)+1)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Lookup is what the kernel does with a Table; tests compare it with Decide.
func (t *Table) Lookup(p Packet) (Verdict, bool) {
	if p.Protocol == 58 {
		p.Protocol = ICMP
	}
	class, best := uint32(0), -1
	for _, c := range t.Classes {
		if c.Prefix.Contains(p.PeerAddr.Unmap()) && c.Prefix.Bits() > best {
			class, best = c.Number, c.Prefix.Bits()
		}
	}
	for _, id := range []Identity{p.Peer, 0} {
		var hit *Entry
		for i := range t.Entries {
			e := &t.Entries[i]
			if e.Class == class && e.Identity == id && e.covers(p) && (hit == nil || e.Bits > hit.Bits) {
				hit = e
			}
		}
		if hit != nil {
			return hit.Verdict, true
		}
	}
	return Verdict{Rule: NoPolicy, Tier: Default}, false
}

func (e *Entry) covers(p Packet) bool {
	want := uint32(e.Protocol)<<16 | uint32(e.Port)
	have := uint32(p.Protocol)<<16 | uint32(p.Port)
	shift := 24 - e.Bits
	return want>>shift == have>>shift
}
