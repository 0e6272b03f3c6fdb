package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

const (
	// addressMark is the protocol (IFA_PROTO) of addresses that are ours: only
	// those are ever removed.
	addressMark = 0x4d
	ifaProto    = 11
	// announceTimes is how often a new address is told to the neighbours.
	announceTimes = 3
)

// heldAddress is an address of ours on an interface.
type heldAddress struct {
	ip      netip.Addr
	ifindex int
}

// heldAddresses lists the addresses that bear our mark.
func heldAddresses() ([]heldAddress, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	messages, err := whole(func() ([][]byte, error) { return request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []heldAddress
	for _, m := range messages {
		head := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[head.Len():])
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		var ip netip.Addr
		ours := false
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFA_ADDRESS:
				if ip, _ = netip.AddrFromSlice(a.Value); head.Family == unix.AF_INET && !ip.Is4() {
					ip = netip.Addr{}
				}
			case ifaProto:
				ours = len(a.Value) == 1 && a.Value[0] == addressMark
			}
		}
		if ours && ip.IsValid() {
			out = append(out, heldAddress{ip, int(head.Index)})
		}
	}
	return out, nil
}

// changeAddress adds (RTM_NEWADDR) or removes (RTM_DELADDR) an address of ours.
// It is deprecated from the start: the host never speaks under it on its own.
func changeAddress(command int, a heldAddress) error {
	flags := unix.NLM_F_ACK
	if command == unix.RTM_NEWADDR {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	request := nl.NewNetlinkRequest(command, flags)
	head := nl.NewIfAddrmsg(unix.AF_INET)
	if a.ip.Is6() {
		head.Family = unix.AF_INET6
	}
	head.Index, head.Prefixlen = uint32(a.ifindex), uint8(a.ip.BitLen())
	request.AddData(head)
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.ip.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.ip.AsSlice()))
	if command == unix.RTM_NEWADDR {
		more := uint32(unix.IFA_F_NOPREFIXROUTE)
		if a.ip.Is6() {
			more |= unix.IFA_F_NODAD
		}
		request.AddData(nl.NewRtAttr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, more)))
		request.AddData(nl.NewRtAttr(ifaProto, []byte{addressMark}))
		life := make([]byte, 16) // preferred, valid, created, updated
		binary.NativeEndian.PutUint32(life[4:], math.MaxUint32)
		request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, life))
	}
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// takeOff removes an address of ours; what is gone is no error.
func takeOff(a heldAddress) error {
	err := changeAddress(unix.RTM_DELADDR, a)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("take external address %s off: %w", a.ip, err)
	}
	return nil
}

// holdExternals puts addresses on the uplink, and tells the neighbours of those
// that are new.
func (d *Datapath) holdExternals(want map[netip.Addr]bool) error {
	if len(want) == 0 {
		return nil
	}
	have, err := heldAddresses()
	if err != nil {
		return err
	}
	here := map[netip.Addr]bool{}
	for _, h := range have {
		here[h.ip] = here[h.ip] || h.ifindex == d.uplink.Index
	}
	for _, a := range sortedAddrs(want) {
		if here[a] {
			continue
		}
		err := changeAddress(unix.RTM_NEWADDR, heldAddress{a, d.uplink.Index})
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("external address %s: the host has it already, without our mark; take it off (ip addr del) or give the FloatingIP or Network another one", a)
		}
		if err != nil {
			return fmt.Errorf("put external address %s on %s: %w", a, d.uplink.Name, err)
		}
		d.writes.Add(1)
		if d.announce == nil {
			d.announce = map[netip.Addr]int{}
		}
		d.announce[a] = announceTimes
	}
	return d.announceExternals()
}

// dropExternals takes off the addresses of ours that are not wanted.
func (d *Datapath) dropExternals(want map[netip.Addr]bool) error {
	have, err := heldAddresses()
	if err != nil {
		return err
	}
	for _, h := range have {
		if want[h.ip] && h.ifindex == d.uplink.Index {
			continue
		}
		if err := takeOff(h); err != nil {
			return err
		}
		d.writes.Add(1)
		delete(d.announce, h.ip)
	}
	return nil
}

// announceExternals tells the neighbours whose addresses are ours now: a
// gratuitous ARP request, or an unsolicited neighbour advertisement.
func (d *Datapath) announceExternals() error {
	if len(d.announce) == 0 {
		return nil
	}
	l, err := netlink.LinkByIndex(d.uplink.Index)
	if err != nil {
		return fmt.Errorf("look for the uplink: %w", err)
	}
	if len(l.Attrs().HardwareAddr) != 6 {
		d.announce = nil
		return nil // no neighbours to tell
	}
	mac := snapshot.MAC(l.Attrs().HardwareAddr)
	for a, n := range d.announce {
		if err := sendFrame(d.uplink.Index, announcement(mac, a)); err != nil {
			d.cfg.Log.Warn("tell the neighbours of an external address", "address", a, "error", err)
		}
		if d.announce[a] = n - 1; n <= 1 {
			delete(d.announce, a)
		}
	}
	return nil
}

func announcement(mac snapshot.MAC, a netip.Addr) []byte {
	if a.Is4() {
		f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac[:]...)
		f = append(f, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
		f = append(append(f, mac[:]...), a.AsSlice()...)
		return append(append(f, 0, 0, 0, 0, 0, 0), a.AsSlice()...)
	}
	body := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, a.AsSlice()...) // override
	body = append(append(body, 2, 1), mac[:]...)
	all := netip.MustParseAddr("ff02::1").AsSlice()
	head := append(append(a.AsSlice(), all...), 0, 58, 0, byte(len(body)))
	binary.BigEndian.PutUint16(body[2:], ^sum16(uint32(sum16(0, head)), body))
	f := append(append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac[:]...), 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	return append(append(append(f, a.AsSlice()...), all...), body...)
}

// removeExternals takes off every address of ours, in the namespace of the thread.
func removeExternals() error {
	have, err := heldAddresses()
	for _, h := range have {
		err = errors.Join(err, takeOff(h))
	}
	return err
}
