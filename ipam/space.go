package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"moire.dev/moire/snapshot"
)

// BlockSize is the largest number of addresses in a block; a block is never
// more than 1/16 of its prefix and never less than one address.
const BlockSize = 64

// Space is what a Network declared about its addresses.
type Space struct {
	// Prefixes of the Network; they do not overlap.
	Prefixes []netip.Prefix
	// Allocation limits dynamic addresses, of both families; empty: everything
	// in Prefixes.
	Allocation []snapshot.Range
	// Reserved addresses are never given out.
	Reserved []snapshot.Range
	// Static addresses are given only to who names them.
	Static []snapshot.Range
}

func rangeOf(p netip.Prefix) snapshot.Range {
	r := netipx.RangeOfPrefix(p)
	return snapshot.Range{First: r.From(), Last: r.To()}
}

// gateway is the first host address of a prefix. It answers for the router of
// the Network and is never given out.
func gateway(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	if p.Bits() >= a.BitLen()-1 {
		return a
	}
	return a.Next()
}

// blockBits is the prefix length of the blocks of p.
func blockBits(p netip.Prefix) int {
	return min(p.Addr().BitLen(), max(p.Bits()+4, p.Addr().BitLen()-6))
}

// dynamic is the set of addresses that may be given out dynamically.
func (s Space) dynamic() (*netipx.IPSet, error) {
	var all netipx.IPSetBuilder
	for _, p := range s.Prefixes {
		all.AddPrefix(p.Masked())
	}
	if len(s.Allocation) > 0 {
		var limit netipx.IPSetBuilder
		for _, r := range s.Allocation {
			limit.AddRange(netipx.IPRangeFrom(r.First, r.Last))
		}
		set, err := limit.IPSet()
		if err != nil {
			return nil, err
		}
		all.Intersect(set)
	}
	for _, r := range slices.Concat(s.Reserved, s.Static) {
		all.RemoveRange(netipx.IPRangeFrom(r.First, r.Last))
	}
	for _, p := range s.Prefixes {
		p = p.Masked()
		all.Remove(gateway(p))
		if p.Bits() < p.Addr().BitLen()-1 {
			all.Remove(p.Addr()) // the network; in IPv6 the anycast address of the routers
			if p.Addr().Is4() {
				all.Remove(netipx.PrefixLastIP(p)) // broadcast
			}
		}
	}
	return all.IPSet()
}

// Carve returns the next block of a family: it lies in one prefix, overlaps
// nothing in taken and holds at least one address that may be given out. The
// result depends on the arguments alone. Errors wrap ErrExhausted when no such
// block is left.
func Carve(s Space, taken []netip.Prefix, ipv6 bool) (netip.Prefix, error) {
	dynamic, err := s.dynamic()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("cannot carve a block: %w", err)
	}
	var b netipx.IPSetBuilder
	b.AddSet(dynamic)
	for _, t := range taken {
		b.RemovePrefix(t.Masked())
	}
	free, err := b.IPSet()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("cannot carve a block: %w", err)
	}
	for _, p := range s.Prefixes {
		if p.Addr().Is4() == ipv6 {
			continue
		}
		for _, r := range free.Ranges() {
			if block, ok := firstBlock(p.Masked(), r, taken); ok {
				return block, nil
			}
		}
	}
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	return netip.Prefix{}, fmt.Errorf("%w: no free %s block in %v (%d blocks are taken); add a prefix to the Network or remove Workloads", ErrExhausted, family, s.Prefixes, len(taken))
}

// firstBlock finds the first block of p that meets the free range r and
// overlaps nothing taken. Each turn skips one taken prefix, so it ends.
func firstBlock(p netip.Prefix, r netipx.IPRange, taken []netip.Prefix) (netip.Prefix, bool) {
	at := r.From()
	for at.IsValid() && !r.To().Less(at) && p.Contains(at) {
		block := netip.PrefixFrom(at, blockBits(p)).Masked()
		end := netipx.PrefixLastIP(block)
		clash := false
		for _, t := range taken {
			if t.Overlaps(block) {
				clash = true
				if last := netipx.PrefixLastIP(t.Masked()); end.Less(last) {
					end = last
				}
			}
		}
		if !clash {
			return block, true
		}
		at = end.Next()
	}
	return netip.Prefix{}, false
}

// Excluded lists the ranges of block that are never given out dynamically:
// reserved, static, outside the allocation ranges, the gateway, the network
// and the broadcast address. Sorted and merged. If the Space makes no sense,
// that is all of block.
func Excluded(block netip.Prefix, s Space) []snapshot.Range {
	var b netipx.IPSetBuilder
	b.AddPrefix(block.Masked())
	if dynamic, err := s.dynamic(); err == nil {
		b.RemoveSet(dynamic)
	}
	set, err := b.IPSet()
	if err != nil {
		return []snapshot.Range{rangeOf(block.Masked())}
	}
	var out []snapshot.Range
	for _, r := range set.Ranges() {
		out = append(out, snapshot.Range{First: r.From(), Last: r.To()})
	}
	return out
}

// ErrTaken: somebody else holds it.
var ErrTaken = errors.New("already taken")
