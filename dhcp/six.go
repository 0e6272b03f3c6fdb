package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"moire.dev/moire/snapshot"
)

// serverID is the same on every node: a machine that moves does not notice.
var serverID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: snapshot.RouterMAC[:]}

// maxAssociations of one message are answered.
const maxAssociations = 8

// answer6 answers a DHCPv6 message (RFC 8415 section 18.3).
func answer6(i *Interface, p *packet) []byte {
	if p.sport != clientPort6 || !p.src.IsLinkLocalUnicast() {
		return nil
	}
	m, err := dhcpv6.MessageFromBytes(p.payload)
	if err != nil {
		return nil
	}
	own, has := i.address(false)
	reply := reply6(m, own.Addr(), has)
	if reply == nil {
		return nil
	}
	if !answerAssociations(i, m, reply, own.Addr(), has) {
		return nil
	}
	if i.Names {
		reply.AddOption(dhcpv6.OptDNS(snapshot.NameServer6.AsSlice()))
		if s := i.search(); len(s) > 0 {
			reply.AddOption(dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: s}))
		}
	}
	t := to{mac: i.MAC, src: router, dst: p.src, sport: serverPort6, dport: clientPort6}
	return t.udp(reply.ToBytes())
}

// reply6 is the reply without what is in it; nil: none.
func reply6(m *dhcpv6.Message, own netip.Addr, has bool) *dhcpv6.Message {
	client, server := m.Options.ClientID(), m.Options.ServerID()
	reply := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: m.TransactionID}
	ours := server != nil && server.Equal(serverID)
	switch m.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if client == nil || server != nil || !has {
			return nil
		}
		reply.MessageType = dhcpv6.MessageTypeAdvertise
		if m.GetOneOption(dhcpv6.OptionRapidCommit) != nil {
			reply.MessageType = dhcpv6.MessageTypeReply
			reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if client == nil || !ours {
			return nil
		}
	case dhcpv6.MessageTypeRebind, dhcpv6.MessageTypeConfirm:
		if client == nil || server != nil || !has {
			return nil
		}
	case dhcpv6.MessageTypeInformationRequest:
		if server != nil && !ours {
			return nil
		}
	default:
		return nil
	}
	reply.AddOption(dhcpv6.OptServerID(serverID))
	if client != nil {
		reply.AddOption(dhcpv6.OptClientID(client))
	}
	return reply
}

// answerAssociations puts into the reply what the machine may use; false: it
// gets no reply at all.
func answerAssociations(i *Interface, m, reply *dhcpv6.Message, own netip.Addr, has bool) bool {
	status := func(code iana.StatusCode, why string) dhcpv6.Option {
		return &dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: why}
	}
	switch m.MessageType {
	case dhcpv6.MessageTypeInformationRequest:
		return len(m.Options.IANA()) == 0 && len(m.Options.IATA()) == 0 && len(m.Options.IAPD()) == 0
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		reply.AddOption(status(iana.StatusSuccess, ""))
		return true
	case dhcpv6.MessageTypeConfirm:
		return confirm(i, m, reply)
	}
	given := !has
	for n, a := range m.Options.IANA() {
		if n == maxAssociations {
			break
		}
		out := &dhcpv6.OptIANA{IaId: a.IaId}
		if given {
			out.Options.Add(status(iana.StatusNoAddrsAvail, "the interface has one address"))
		} else {
			given = true
			out.T1, out.T2 = Lease/2, Lease/5*4
			out.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: own.AsSlice(), PreferredLifetime: Lease, ValidLifetime: Lease})
			withdraw(out, a, own)
		}
		reply.AddOption(out)
	}
	for n, a := range m.Options.IAPD() {
		if n == maxAssociations {
			break
		}
		out := &dhcpv6.OptIAPD{IaId: a.IaId}
		out.Options.Add(status(iana.StatusNoPrefixAvail, "prefixes are given by a Network"))
		reply.AddOption(out)
	}
	return true
}

// withdraw tells of addresses that the machine had before and has no longer.
func withdraw(out, asked *dhcpv6.OptIANA, own netip.Addr) {
	for n, a := range asked.Options.Addresses() {
		if ip, ok := netip.AddrFromSlice(a.IPv6Addr); ok && ip != own && n < maxAssociations {
			out.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.IPv6Addr})
		}
	}
}

// confirm says whether the addresses fit to the Network (section 18.3.3).
func confirm(i *Interface, m, reply *dhcpv6.Message) bool {
	asked := false
	code, why := iana.StatusSuccess, ""
	for _, a := range m.Options.IANA() {
		for _, had := range a.Options.Addresses() {
			asked = true
			if !i.holds(had.IPv6Addr) {
				code, why = iana.StatusNotOnLink, "the address is in no prefix of the Network"
			}
		}
	}
	reply.AddOption(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: why})
	return asked
}

func (i *Interface) holds(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	for _, p := range i.Prefixes {
		if ok && p.Contains(a) {
			return true
		}
	}
	return false
}
