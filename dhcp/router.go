package dhcp

import (
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"

	"moire.dev/moire/snapshot"
)

var allNodes = netip.MustParseAddr("ff02::1")

// solicited answers a router solicitation (RFC 4861 section 6.1.1).
func solicited(i *Interface, p *packet) []byte {
	if p.hops != 255 || len(p.payload) < 8 || p.payload[0] != routerSolicitation || p.payload[1] != 0 {
		return nil
	}
	switch {
	case p.src.IsUnspecified():
		return Advertisement(i, allNodes)
	case p.src.IsLinkLocalUnicast():
		return Advertisement(i, p.src)
	}
	return nil
}

// Advertisement is what the router tells; nil when the interface has no IPv6
// address. Addresses are given by DHCPv6 only: with those that machines make
// for themselves nobody could say who they are.
func Advertisement(i *Interface, dst netip.Addr) []byte {
	if _, has := i.address(false); !has {
		return nil
	}
	ra := &ndp.RouterAdvertisement{
		CurrentHopLimit: 64, ManagedConfiguration: true, OtherConfiguration: true,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: net.HardwareAddr(snapshot.RouterMAC[:])}},
	}
	if i.Router {
		ra.RouterLifetime = routerLifetime
	}
	if i.MTU >= 1280 {
		ra.Options = append(ra.Options, ndp.NewMTU(uint32(i.MTU)))
	}
	told := 0
	for _, p := range i.Prefixes {
		if p.Addr().Is6() && told < maxRoutes {
			told++
			ra.Options = append(ra.Options, &ndp.PrefixInformation{
				PrefixLength: uint8(p.Bits()), OnLink: true, Prefix: p.Masked().Addr(), ValidLifetime: Lease, PreferredLifetime: Lease,
			})
		}
	}
	if i.Names {
		if !i.Router {
			ra.Options = append(ra.Options, &ndp.RouteInformation{PrefixLength: 128, Prefix: snapshot.NameServer6, RouteLifetime: Lease})
		}
		ra.Options = append(ra.Options, &ndp.RecursiveDNSServer{Lifetime: Lease, Servers: []netip.Addr{snapshot.NameServer6}})
		if s := i.search(); len(s) > 0 {
			ra.Options = append(ra.Options, &ndp.DNSSearchList{Lifetime: Lease, DomainNames: s})
		}
	}
	body, err := ndp.MarshalMessageChecksum(ra, router, dst)
	if err != nil {
		return nil // a name that is none
	}
	return to{mac: i.MAC, src: router, dst: dst}.ip(protoICMPv6, 255, body)
}
