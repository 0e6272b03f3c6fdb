package dhcp

import (
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/snapshot"
)

// Lease is how long a machine may keep what it was told. It asks again after
// half of it, so it goes on for hours when the agent is away.
const Lease = 12 * time.Hour

// routerLifetime is as long as RFC 8319 allows; advertisements come every
// advertiseEvery.
const (
	routerLifetime = 65535 * time.Second
	advertiseEvery = 10 * time.Minute
)

// router is the link-local address of snapshot.RouterMAC; the kernel side
// answers solicitations for it.
var router = netip.MustParseAddr("fe80::4d:4fff:fe49:5245")

// Interface is what its machine is told.
type Interface struct {
	// Host is the name of the tap, or of the node's end of the pair.
	Host string
	// MAC of the machine: nobody else is answered.
	MAC snapshot.MAC
	// Addrs that it has, at most one of each family.
	Addrs []netip.Addr
	// Prefixes of its Network.
	Prefixes []netip.Prefix
	// MTU in bytes; 0: not told.
	MTU int
	// Router: the gateway takes what is in no Network.
	Router bool
	// Names: the node answers names here. Search are the domains of short ones.
	Names  bool
	Search []string
}

func (i *Interface) equal(o *Interface) bool {
	return i.Host == o.Host && i.MAC == o.MAC && i.MTU == o.MTU && i.Router == o.Router && i.Names == o.Names &&
		slices.Equal(i.Addrs, o.Addrs) && slices.Equal(i.Prefixes, o.Prefixes) && slices.Equal(i.Search, o.Search)
}

// address is the one of the family, with the prefix that it is in.
func (i *Interface) address(v4 bool) (netip.Prefix, bool) {
	for _, a := range i.Addrs {
		if a = a.Unmap(); a.Is4() != v4 {
			continue
		}
		best := netip.Prefix{}
		for _, p := range i.Prefixes {
			if p.Contains(a) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best = p
			}
		}
		if best.IsValid() {
			return netip.PrefixFrom(a, best.Bits()), true
		}
	}
	return netip.Prefix{}, false
}

// gateway of the prefix that the address is in, as the kernel side answers for
// it; not valid when the prefix is too small to have one.
func gateway(own netip.Prefix) netip.Addr {
	gw := own.Masked().Addr().Next()
	if !own.Contains(gw) || gw == own.Addr() {
		return netip.Addr{}
	}
	return gw
}

// Bounds of what is told, so that it fits into one packet everywhere.
const (
	maxRoutes = 16
	maxSearch = 200 // bytes
)

// search is as many domains as fit.
func (i *Interface) search() []string {
	size := 0
	for n, d := range i.Search {
		if size += len(d) + 2; size > maxSearch {
			return i.Search[:n]
		}
	}
	return i.Search
}
