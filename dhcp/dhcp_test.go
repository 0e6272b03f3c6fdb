package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"

	"moire.dev/moire/snapshot"
)

var vm = &Interface{
	Host: "mo0", MAC: snapshot.MAC{2, 0, 3, 0, 0, 1}, MTU: 1450, Router: true, Names: true, Search: []string{"shop.moire.internal", "moire.internal"},
	Addrs:    []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")},
	Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.7.0.0/16"), netip.MustParsePrefix("fd00::/64")},
}

// from is a frame as the machine sends it: the same code the other way round.
func from(mac snapshot.MAC, src, dst string, sport, dport uint16, payload []byte) []byte {
	t := to{mac: snapshot.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), sport: sport, dport: dport}
	f := t.udp(payload)
	copy(f[6:12], mac[:])
	return f
}

func ask4(t *testing.T, i *Interface, kind dhcpv4.MessageType, edit func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(bytes.Clone(vm.MAC[:])), dhcpv4.WithMessageType(kind))
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(m)
	}
	frame := Answer(i, from(vm.MAC, "0.0.0.0", "255.255.255.255", 68, 67, m.ToBytes()))
	if frame == nil {
		return nil
	}
	p, err := parse(frame)
	if err != nil || p.srcMAC != snapshot.RouterMAC || p.dstMAC != vm.MAC || p.sport != 67 || p.dport != 68 {
		t.Fatalf("%+v %v", p, err)
	}
	// Whoever looks finds the checksums right.
	if checksum(0, frame[14:34]) != 0 || checksum(pseudo(p.src, p.dst, protoUDP, len(frame)-34), frame[34:]) != 0 {
		t.Error("a checksum is wrong")
	}
	r, err := dhcpv4.FromBytes(p.payload)
	if err != nil || r.TransactionID != m.TransactionID {
		t.Fatal(err)
	}
	return r
}

func TestFour(t *testing.T) {
	offer := ask4(t, vm, dhcpv4.MessageTypeDiscover, nil)
	if offer.MessageType() != dhcpv4.MessageTypeOffer || offer.YourIPAddr.String() != "10.0.0.9" || offer.Router()[0].String() != "10.0.0.1" ||
		offer.IPAddressLeaseTime(0) != Lease || offer.ServerIdentifier().String() != "10.0.0.1" || offer.DNS()[0].String() != "169.254.169.253" ||
		len(offer.ClasslessStaticRoute()) != 4 || !slices.Equal(offer.DomainSearch().Labels, vm.Search) {
		t.Error(offer.Summary())
	}
	ip := func(s string) net.IP { return net.ParseIP(s).To4() }
	want := func(s string) func(*dhcpv4.DHCPv4) {
		return func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptRequestedIPAddress(ip(s))) }
	}
	both := func(fs ...func(*dhcpv4.DHCPv4)) func(*dhcpv4.DHCPv4) {
		return func(m *dhcpv4.DHCPv4) {
			for _, f := range fs {
				f(m)
			}
		}
	}
	server := func(s string) func(*dhcpv4.DHCPv4) {
		return func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptServerIdentifier(ip(s))) }
	}
	has := func(s string) func(*dhcpv4.DHCPv4) { return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = ip(s) } }
	for name, c := range map[string]struct {
		kind dhcpv4.MessageType
		edit func(*dhcpv4.DHCPv4)
		want dhcpv4.MessageType
	}{
		"selecting":         {dhcpv4.MessageTypeRequest, both(want("10.0.0.9"), server("10.0.0.1")), dhcpv4.MessageTypeAck},
		"of another server": {dhcpv4.MessageTypeRequest, both(want("10.0.0.9"), server("10.0.0.2")), 0},
		"reboot":            {dhcpv4.MessageTypeRequest, want("10.0.0.9"), dhcpv4.MessageTypeAck},
		"moved":             {dhcpv4.MessageTypeRequest, want("10.0.0.8"), dhcpv4.MessageTypeNak},
		"renew":             {dhcpv4.MessageTypeRequest, has("10.0.0.9"), dhcpv4.MessageTypeAck},
		"renew another":     {dhcpv4.MessageTypeRequest, has("10.0.0.8"), dhcpv4.MessageTypeNak},
		"inform":            {dhcpv4.MessageTypeInform, has("10.0.0.9"), dhcpv4.MessageTypeAck},
		"inform another":    {dhcpv4.MessageTypeInform, has("10.0.0.8"), 0},
		"release":           {dhcpv4.MessageTypeRelease, has("10.0.0.9"), 0},
		"decline":           {dhcpv4.MessageTypeDecline, want("10.0.0.9"), 0},
		"relayed":           {dhcpv4.MessageTypeDiscover, func(m *dhcpv4.DHCPv4) { m.GatewayIPAddr = ip("10.0.0.1") }, 0},
		"of another":        {dhcpv4.MessageTypeDiscover, func(m *dhcpv4.DHCPv4) { m.ClientHWAddr[5]++ }, 0},
	} {
		r := ask4(t, vm, c.kind, c.edit)
		if r == nil && c.want != 0 || r != nil && r.MessageType() != c.want {
			t.Errorf("%s: %v", name, r)
		}
		if r != nil && name == "inform" && (!r.YourIPAddr.IsUnspecified() || r.IPAddressLeaseTime(0) != 0) {
			t.Errorf("%s: %s", name, r.Summary())
		}
	}
	second := *vm
	second.Router, second.Names = false, false
	if r := ask4(t, &second, dhcpv4.MessageTypeDiscover, nil); len(r.Router()) != 0 || len(r.DNS()) != 0 || len(r.ClasslessStaticRoute()) != 1 {
		t.Error(r.Summary())
	}
}

func ask6(t *testing.T, i *Interface, kind dhcpv6.MessageType, options ...dhcpv6.Option) *dhcpv6.Message {
	t.Helper()
	m := &dhcpv6.Message{MessageType: kind, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	for _, o := range options {
		m.AddOption(o)
	}
	frame := Answer(i, from(vm.MAC, "fe80::1", "ff02::1:2", 546, 547, m.ToBytes()))
	if frame == nil {
		return nil
	}
	p, err := parse(frame)
	if err != nil || p.src != router || p.dst != netip.MustParseAddr("fe80::1") || p.dport != 546 || checksum(pseudo(p.src, p.dst, protoUDP, len(frame)-54), frame[54:]) != 0 {
		t.Fatalf("%+v %v", p, err)
	}
	r, err := dhcpv6.MessageFromBytes(p.payload)
	if err != nil || r.TransactionID != m.TransactionID {
		t.Fatal(err)
	}
	return r
}

func TestSix(t *testing.T) {
	me := dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: vm.MAC[:]})
	server := dhcpv6.OptServerID(serverID)
	na := func(addrs ...string) dhcpv6.Option {
		o := &dhcpv6.OptIANA{IaId: [4]byte{1}}
		for _, a := range addrs {
			o.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a), PreferredLifetime: time.Hour, ValidLifetime: time.Hour})
		}
		return o
	}
	sol := ask6(t, vm, dhcpv6.MessageTypeSolicit, me, na())
	if sol.MessageType != dhcpv6.MessageTypeAdvertise || sol.Options.OneIANA().Options.OneAddress().IPv6Addr.String() != "fd00::9" ||
		sol.Options.DNS()[0].String() != "fd00:4d4f:4952:45::53" || !slices.Equal(sol.Options.DomainSearchList().Labels, vm.Search) {
		t.Error(sol.Summary())
	}
	if r := ask6(t, vm, dhcpv6.MessageTypeSolicit, me, na(), &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit}); r.MessageType != dhcpv6.MessageTypeReply {
		t.Error(r.Summary())
	}
	r := ask6(t, vm, dhcpv6.MessageTypeRenew, me, server, na("fd00::9", "fd00::7"), &dhcpv6.OptIANA{IaId: [4]byte{2}}, &dhcpv6.OptIAPD{})
	had := r.Options.OneIANA().Options.Addresses()
	if len(had) != 2 || had[0].ValidLifetime != Lease || had[1].ValidLifetime != 0 || r.Options.IANA()[1].Options.Status().StatusCode != iana.StatusNoAddrsAvail ||
		r.Options.OneIAPD().Options.Status().StatusCode != iana.StatusNoPrefixAvail {
		t.Error(r.Summary())
	}
	for addr, want := range map[string]iana.StatusCode{"fd00::5": iana.StatusSuccess, "fd01::5": iana.StatusNotOnLink} {
		if r := ask6(t, vm, dhcpv6.MessageTypeConfirm, me, na(addr)); r.Options.Status().StatusCode != want {
			t.Error(addr, r.Summary())
		}
	}
	if r := ask6(t, vm, dhcpv6.MessageTypeInformationRequest); r == nil || len(r.Options.DNS()) != 1 || len(r.Options.IANA()) != 0 {
		t.Error(r)
	}
	if r := ask6(t, vm, dhcpv6.MessageTypeRelease, me, server, na("fd00::9")); r == nil || r.Options.Status().StatusCode != iana.StatusSuccess {
		t.Error(r)
	}
	none := *vm
	none.Addrs = vm.Addrs[:1]
	for name, r := range map[string]*dhcpv6.Message{
		"nobody":     ask6(t, vm, dhcpv6.MessageTypeSolicit, na()),
		"other":      ask6(t, vm, dhcpv6.MessageTypeRequest, me, na(), dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: vm.MAC[:]})),
		"to nobody":  ask6(t, vm, dhcpv6.MessageTypeRequest, me, na()),
		"confirm":    ask6(t, vm, dhcpv6.MessageTypeConfirm, me, na()),
		"reply":      ask6(t, vm, dhcpv6.MessageTypeReply, me, server, na()),
		"no address": ask6(t, &none, dhcpv6.MessageTypeSolicit, me, na()),
	} {
		if r != nil {
			t.Errorf("%s: %s", name, r.Summary())
		}
	}
}

func solicitation(src string) []byte {
	t := to{mac: snapshot.MAC{0x33, 0x33, 0, 0, 0, 2}, src: netip.MustParseAddr(src), dst: netip.MustParseAddr("ff02::2")}
	f := t.ip(protoICMPv6, 255, []byte{routerSolicitation, 0, 0, 0, 0, 0, 0, 0})
	copy(f[6:12], vm.MAC[:])
	return f
}

func TestRouter(t *testing.T) {
	for src, dst := range map[string]string{"fe80::1": "fe80::1", "::": "ff02::1"} {
		p, err := parse(Answer(vm, solicitation(src)))
		if err != nil || p.src != router || p.dst != netip.MustParseAddr(dst) || p.hops != 255 || p.dstMAC != vm.MAC {
			t.Fatalf("%+v %v", p, err)
		}
		m, err := ndp.ParseMessage(p.payload)
		if err != nil {
			t.Fatal(err)
		}
		ra := m.(*ndp.RouterAdvertisement)
		if !ra.ManagedConfiguration || !ra.OtherConfiguration || ra.RouterLifetime != routerLifetime || len(ra.Options) != 5 {
			t.Errorf("%+v", ra)
		}
		if pi := ra.Options[2].(*ndp.PrefixInformation); pi.AutonomousAddressConfiguration || !pi.OnLink || pi.Prefix != netip.MustParseAddr("fd00::") {
			t.Errorf("%+v", pi)
		}
	}
	near := solicitation("fe80::1")
	near[21] = 64 // it came through a router
	if Answer(vm, near) != nil || Answer(vm, solicitation("fd00::9")) != nil {
		t.Error("answered")
	}
}

// TestOthers: nobody but the machine is answered.
func TestOthers(t *testing.T) {
	m, err := dhcpv4.NewDiscovery(vm.MAC[:])
	if err != nil {
		t.Fatal(err)
	}
	good := from(vm.MAC, "0.0.0.0", "255.255.255.255", 68, 67, m.ToBytes())
	if Answer(vm, good) == nil {
		t.Fatal("not answered")
	}
	foreign, elsewhere := bytes.Clone(good), bytes.Clone(good)
	foreign[6]++
	copy(elsewhere, []byte{2, 2, 2, 2, 2, 2})
	for name, f := range map[string][]byte{"foreign": foreign, "elsewhere": elsewhere, "short": good[:40], "none": nil} {
		if Answer(vm, f) != nil {
			t.Errorf("%s is answered", name)
		}
	}
}

// TestFilter: the kernel lets through what Answer looks at, and little else.
func TestFilter(t *testing.T) {
	v, err := bpf.NewVM(interesting)
	if err != nil {
		t.Fatal(err)
	}
	web := from(vm.MAC, "10.0.0.9", "10.0.0.8", 68, 80, make([]byte, 100))
	later := from(vm.MAC, "10.0.0.9", "10.0.0.8", 68, 67, make([]byte, 100))
	later[21] = 7
	for name, c := range map[string]struct {
		frame []byte
		in    bool
	}{
		"dhcp":     {from(vm.MAC, "0.0.0.0", "255.255.255.255", 68, 67, make([]byte, 300)), true},
		"dhcpv6":   {from(vm.MAC, "fe80::1", "ff02::1:2", 546, 547, make([]byte, 60)), true},
		"rs":       {solicitation("::"), true},
		"web":      {web, false},
		"web6":     {from(vm.MAC, "fd00::9", "fd00::8", 546, 80, make([]byte, 60)), false},
		"fragment": {later, false},
		"echo":     {append(solicitation("::")[:54], 128, 0, 0, 0, 0, 0, 0, 0), false},
		"arp":      {append(make([]byte, 12), 8, 6, 0, 1, 8, 0, 6, 4), false},
		"short":    {[]byte{1, 2, 3}, false},
	} {
		n, err := v.Run(c.frame)
		if err != nil || (n > 0) != c.in {
			t.Errorf("%s: %d %v", name, n, err)
		}
	}
}

// FuzzAnswer: whatever a machine sends, an answer is a whole frame to it.
func FuzzAnswer(f *testing.F) {
	m, err := dhcpv4.NewDiscovery(vm.MAC[:])
	if err != nil {
		f.Fatal(err)
	}
	s, err := dhcpv6.NewSolicit(vm.MAC[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(from(vm.MAC, "0.0.0.0", "255.255.255.255", 68, 67, m.ToBytes()))
	f.Add(from(vm.MAC, "fe80::1", "ff02::1:2", 546, 547, s.ToBytes()))
	f.Add(solicitation("fe80::1"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		answer := Answer(vm, frame)
		if answer == nil {
			return
		}
		p, err := parse(answer)
		if err != nil || p.dstMAC != vm.MAC || p.srcMAC != snapshot.RouterMAC || len(answer) > 1514 {
			t.Errorf("%d bytes: %v", len(answer), err)
		}
	})
}
