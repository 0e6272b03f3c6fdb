package dhcp

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"moire.dev/moire/snapshot"
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// answer4 answers a DHCPv4 message. What the interface has was decided before:
// every offer is the same, and a request for anything else is refused at once,
// so that a machine with an old lease asks anew.
func answer4(i *Interface, p *packet) []byte {
	own, ok := i.address(true)
	if !ok || p.sport != clientPort4 {
		return nil
	}
	m, err := dhcpv4.FromBytes(p.payload)
	// No relays: on this link is only the machine.
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || !bytes.Equal(m.ClientHWAddr, i.MAC[:]) || !m.GatewayIPAddr.IsUnspecified() {
		return nil
	}
	server := gateway(own)
	if !server.IsValid() {
		server = snapshot.NameServer4
	}
	kind := verdict4(m, own.Addr(), server)
	if kind == dhcpv4.MessageTypeNone {
		return nil
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())))
	if err != nil {
		return nil
	}
	t := to{mac: i.MAC, src: server, dst: broadcast, sport: serverPort4, dport: clientPort4}
	if kind == dhcpv4.MessageTypeNak {
		return t.udp(reply.ToBytes())
	}
	if m.MessageType() != dhcpv4.MessageTypeInform {
		reply.YourIPAddr = own.Addr().AsSlice()
		lease4(reply)
	}
	settings4(i, own, reply)
	if addr4(m.ClientIPAddr) == own.Addr() || !m.IsBroadcast() && m.MessageType() != dhcpv4.MessageTypeInform {
		t.dst = own.Addr()
	}
	return t.udp(reply.ToBytes())
}

// verdict4 is the kind of the reply, by RFC 2131 section 4.3; none: no reply.
func verdict4(m *dhcpv4.DHCPv4, own, server netip.Addr) dhcpv4.MessageType {
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeInform:
		if addr4(m.ClientIPAddr) == own {
			return dhcpv4.MessageTypeAck
		}
	case dhcpv4.MessageTypeRequest:
		if s := addr4(m.ServerIdentifier()); s.IsValid() && s != server {
			return dhcpv4.MessageTypeNone // it has chosen another
		}
		wants := addr4(m.RequestedIPAddress()) // after an offer, or after a reboot
		if !wants.IsValid() {
			wants = addr4(m.ClientIPAddr) // it renews
		}
		if wants == own {
			return dhcpv4.MessageTypeAck
		}
		return dhcpv4.MessageTypeNak
	}
	// Of what is declined or released nothing is kept.
	return dhcpv4.MessageTypeNone
}

func lease4(reply *dhcpv4.DHCPv4) {
	reply.UpdateOption(dhcpv4.OptIPAddressLeaseTime(Lease))
	reply.UpdateOption(dhcpv4.OptRenewTimeValue(Lease / 2))
	reply.UpdateOption(dhcpv4.OptRebindingTimeValue(Lease / 8 * 7))
}

// settings4 are all but the address.
func settings4(i *Interface, own netip.Prefix, reply *dhcpv4.DHCPv4) {
	reply.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(own.Bits(), 32)))
	if i.MTU >= 68 && i.MTU <= 65535 {
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(i.MTU >> 8), byte(i.MTU)}))
	}
	gw := gateway(own)
	if routes := routes4(i, own, gw); len(routes) > 0 {
		reply.UpdateOption(dhcpv4.OptClasslessStaticRoute(routes...))
	}
	if i.Router && gw.IsValid() {
		reply.UpdateOption(dhcpv4.OptRouter(gw.AsSlice()))
	}
	if !i.Names {
		return
	}
	reply.UpdateOption(dhcpv4.OptDNS(snapshot.NameServer4.AsSlice()))
	if s := i.search(); len(s) > 0 {
		reply.UpdateOption(dhcpv4.OptDomainName(s[0]))
		reply.UpdateOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: s}))
	}
}

// routes4 are the other prefixes of the Network, what the node serves (whose
// addresses some machines take for neighbours), and the rest when it goes by
// here. Who understands the option takes no other routes, so they are all in.
func routes4(i *Interface, own netip.Prefix, gw netip.Addr) []*dhcpv4.Route {
	if !gw.IsValid() {
		return nil
	}
	var out []*dhcpv4.Route
	add := func(p netip.Prefix) {
		out = append(out, &dhcpv4.Route{
			Dest:   &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)},
			Router: gw.AsSlice(),
		})
	}
	if i.Names {
		add(netip.PrefixFrom(snapshot.NameServer4, 32))
		add(netip.PrefixFrom(snapshot.Metadata4, 32))
	}
	if i.Router {
		add(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	for _, p := range i.Prefixes {
		if p.Addr().Is4() && p != own.Masked() && len(out) < maxRoutes {
			add(p)
		}
	}
	return out
}

// addr4 is not valid when there is no address.
func addr4(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
