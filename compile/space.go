package compile

import (
	"math"
	"math/big"
	"net/netip"
	"slices"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// ranges is a sorted list of ranges that neither overlap nor touch.
type ranges []v1alpha1.Range

// union returns the canonical form of any ranges.
func union(in []v1alpha1.Range) ranges {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b v1alpha1.Range) int {
		if c := a.First.Compare(b.First); c != 0 {
			return c
		}
		return a.Last.Compare(b.Last)
	})
	var out ranges
	for _, r := range in {
		if n := len(out); n > 0 && out[n-1].First.BitLen() == r.First.BitLen() {
			if next := out[n-1].Last.Next(); !next.IsValid() || r.First.Compare(next) <= 0 {
				if out[n-1].Last.Less(r.Last) {
					out[n-1].Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// minus returns the addresses of a that are not in b.
func (a ranges) minus(b ranges) ranges {
	var out ranges
	for _, r := range a {
		rest, left := r, true
		for _, cut := range b {
			if !cut.Overlaps(rest) {
				continue
			}
			if rest.First.Less(cut.First) {
				out = append(out, v1alpha1.Range{First: rest.First, Last: cut.First.Prev()})
			}
			if !cut.Last.Less(rest.Last) {
				left = false
				break
			}
			rest.First = cut.Last.Next()
		}
		if left {
			out = append(out, rest)
		}
	}
	return out
}

// and returns the addresses that are in both.
func (a ranges) and(b ranges) ranges {
	var out []v1alpha1.Range
	for _, r := range a {
		for _, o := range b {
			if r.Overlaps(o) {
				both := r
				if both.First.Less(o.First) {
					both.First = o.First
				}
				if o.Last.Less(both.Last) {
					both.Last = o.Last
				}
				out = append(out, both)
			}
		}
	}
	return union(out)
}

func (a ranges) contains(ip netip.Addr) bool {
	i, found := slices.BinarySearchFunc(a, ip, func(r v1alpha1.Range, ip netip.Addr) int { return r.First.Compare(ip) })
	return found || i > 0 && a[i-1].Contains(ip)
}

// size counts the addresses of a family, at most math.MaxInt64.
func (a ranges) size(v6 bool) int64 {
	total := new(big.Int)
	for _, r := range a {
		if r.First.Is6() != v6 {
			continue
		}
		first, last := new(big.Int).SetBytes(r.First.AsSlice()), new(big.Int).SetBytes(r.Last.AsSlice())
		total.Add(total, last.Sub(last, first))
		total.Add(total, big.NewInt(1))
	}
	if !total.IsInt64() {
		return math.MaxInt64
	}
	return total.Int64()
}

// space is what a Network says of its addresses, parsed.
type space struct {
	prefixes []netip.Prefix // sorted
	inside   ranges         // all addresses of the prefixes
	reserved ranges
	special  ranges // gateways, network and broadcast addresses, nobody
	nobody   ranges // those inside that nobody has in any Network
	gateways []netip.Addr
	// services and floating are the ranges set apart for addresses of Services
	// and FloatingIPs; static, for Workloads that name their address.
	services, floating, static ranges
	// dynamic is what blocks may give out when nobody declares an address.
	dynamic ranges
}

func spaceOf(spec *v1alpha1.NetworkSpec) space {
	var s space
	var inside, special []v1alpha1.Range
	for _, text := range spec.Prefixes {
		p, err := v1alpha1.ParsePrefix(text)
		if err != nil {
			continue
		}
		s.prefixes = append(s.prefixes, p)
		inside = append(inside, v1alpha1.RangeOf(p))
		reserved := specials(p)
		if spec.External {
			reserved = reserved[1:] // the gateway of the underlay is somebody else's affair
		} else {
			s.gateways = append(s.gateways, Gateway(p))
		}
		for _, a := range reserved {
			special = append(special, v1alpha1.Range{First: a, Last: a})
		}
	}
	if !spec.External {
		s.nobody = union(inside).and(nobodys())
		special = append(special, s.nobody...)
	}
	slices.SortFunc(s.prefixes, netip.Prefix.Compare)
	allocation, ok1 := parseRanges(spec.Allocation)
	reserved, ok2 := parseRanges(spec.Reserved)
	static, ok3 := parseRanges(spec.Static)
	services, ok4 := parseRanges(spec.Services)
	floating, ok5 := parseRanges(spec.Floating)
	s.inside, s.special, s.reserved, s.static = union(inside), union(special), reserved, static
	s.services, s.floating = services.and(s.inside), floating.and(s.inside)
	if spec.External && len(spec.Floating) == 0 {
		s.floating = s.inside
	}
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return s // who cannot read what is reserved gives out nothing
	}
	s.dynamic = s.inside
	if len(spec.Allocation) > 0 {
		s.dynamic = s.dynamic.and(allocation)
	}
	s.dynamic = s.dynamic.minus(s.special).minus(s.reserved).minus(static).minus(s.services).minus(s.floating)
	return s
}

func parseRanges(texts []string) (out ranges, ok bool) {
	ok = true
	var all []v1alpha1.Range
	for _, text := range texts {
		r, err := v1alpha1.ParseRange(text)
		if err != nil {
			ok = false
			continue
		}
		all = append(all, r)
	}
	return union(all), ok
}

// Gateway is the address that the fabric itself answers for: the first host
// address of the prefix.
func Gateway(p netip.Prefix) netip.Addr {
	p = p.Masked()
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// specials lists the addresses of a prefix that no Workload may have: the
// gateway, the network and broadcast address of IPv4, the subnet-router
// anycast address of IPv6.
func specials(p netip.Prefix) []netip.Addr {
	out := []netip.Addr{Gateway(p)}
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return out
	}
	out = append(out, p.Masked().Addr())
	if p.Addr().Is4() {
		out = append(out, v1alpha1.RangeOf(p).Last)
	}
	return out
}

// nobodys are the addresses that no Workload, Service or FloatingIP may have, in
// no Network: those of the nodes themselves (names, metadata, their feet) and
// those that are none of an interface: this host, loopback, link-local,
// multicast and reserved ones.
func nobodys() ranges {
	var out []v1alpha1.Range
	for _, text := range []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8", "fd00:4d4f:4952:45::/64"} {
		out = append(out, v1alpha1.RangeOf(netip.MustParsePrefix(text)))
	}
	return union(out)
}

// addresses reads what can be read; validation refuses the rest.
func addresses(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// single is the ranges of single addresses.
func single(addrs []netip.Addr) ranges {
	out := make([]v1alpha1.Range, len(addrs))
	for i, a := range addrs {
		out[i] = v1alpha1.Range{First: a, Last: a}
	}
	return union(out)
}

// rangesOf is the ranges of a Block.
func rangesOf(in []snapshot.Range) ranges {
	out := make([]v1alpha1.Range, len(in))
	for i, r := range in {
		out[i] = v1alpha1.Range(r)
	}
	return union(out)
}

// excluded is the part of a block that is not dynamic.
func excluded(block netip.Prefix, dynamic ranges) []snapshot.Range {
	var out []snapshot.Range
	for _, r := range (ranges{v1alpha1.RangeOf(block)}).minus(dynamic) {
		out = append(out, snapshot.Range(r))
	}
	return out
}
