package v1alpha1

import (
	"fmt"
	"net/netip"
	"strings"
)

// Range is a closed interval of addresses of one family.
//
// +kubebuilder:object:generate=false
type Range struct{ First, Last netip.Addr }

// String is "first-last", or the address when there is only one.
func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// Contains reports whether the address lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.First.BitLen() == a.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Overlaps reports whether the ranges share an address.
func (r Range) Overlaps(o Range) bool {
	return r.First.BitLen() == o.First.BitLen() && r.First.Compare(o.Last) <= 0 && o.First.Compare(r.Last) <= 0
}

// RangeOf is the range of all addresses of a prefix.
func RangeOf(p netip.Prefix) Range {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(last)
	return Range{First: p.Addr(), Last: a}
}

// ParseRange reads a CIDR, an address or "first-last".
func ParseRange(s string) (Range, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := parseAddr(strings.TrimSpace(first))
		if err != nil {
			return Range{}, err
		}
		b, err := parseAddr(strings.TrimSpace(last))
		if err != nil {
			return Range{}, err
		}
		if a.BitLen() != b.BitLen() {
			return Range{}, fmt.Errorf("%q mixes IPv4 and IPv6", s)
		}
		if b.Less(a) {
			return Range{}, fmt.Errorf("%q ends before it begins", s)
		}
		return Range{First: a, Last: b}, nil
	}
	if strings.Contains(s, "/") {
		p, err := ParsePrefix(s)
		if err != nil {
			return Range{}, err
		}
		return RangeOf(p), nil
	}
	a, err := parseAddr(s)
	return Range{First: a, Last: a}, err
}

// ParsePrefix reads a CIDR without host bits, zone or an IPv4 address in IPv6
// form: what the CEL function isCIDR accepts and masked() leaves alone.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address in IPv6 form", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has host bits; the CIDR of that address is %s", s, p.Masked())
	}
	return p, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address, a CIDR or \"first-last\"", s)
	}
	if a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%q is an IPv4 address in IPv6 form", s)
	}
	return a, nil
}
