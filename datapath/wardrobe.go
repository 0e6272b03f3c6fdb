package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

// presenceGateways lead everywhere from inside; they are never on the wire, as
// their MAC is known.
var presenceGateways = []netip.Addr{netip.MustParseAddr("169.254.169.1"), netip.MustParseAddr("fe80::1")}

// presenceAddrs are those of the node's services.
var presenceAddrs = []netip.Addr{snapshot.NameServer4, snapshot.Metadata4, snapshot.NameServer6}

// wardrobe is what the interfaces of a Presence have, read once for all.
type wardrobe struct {
	p      *Presence
	nl     *netlink.Handle
	v6     bool
	addrs  map[int]map[netip.Addr]bool
	routes map[int]map[netip.Addr]bool // ifindex -> gateway -> there is a default route by it
	neighs map[int]map[netip.Addr]bool
}

func (p *Presence) wardrobe(nl *netlink.Handle) (*wardrobe, error) {
	w := &wardrobe{p: p, nl: nl, addrs: map[int]map[netip.Addr]bool{}, routes: map[int]map[netip.Addr]bool{}, neighs: map[int]map[netip.Addr]bool{}}
	err := p.there.do(func() error {
		_, err := os.Stat("/proc/sys/net/ipv6/conf/lo")
		w.v6 = err == nil
		return nil
	})
	if err != nil {
		return nil, err
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		note(w.addrs, a.LinkIndex, ip.Unmap())
	}
	for _, gw := range presenceGateways {
		family := familyOf(gw.Is4())
		routes, err := whole(func() ([]netlink.Route, error) { return nl.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if maskOf(r.Dst) == 0 && r.Gw.Equal(gw.AsSlice()) {
				note(w.routes, r.LinkIndex, gw)
			}
		}
		neighs, err := whole(func() ([]netlink.Neigh, error) { return nl.NeighList(0, family) })
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range neighs {
			ip, _ := netip.AddrFromSlice(n.IP)
			if n.State&netlink.NUD_PERMANENT != 0 && string(n.HardwareAddr) == string(snapshot.RouterMAC[:]) {
				note(w.neighs, n.LinkIndex, ip.Unmap())
			}
		}
	}
	return w, nil
}

func note(m map[int]map[netip.Addr]bool, i int, a netip.Addr) {
	if m[i] == nil {
		m[i] = map[netip.Addr]bool{}
	}
	m[i][a] = true
}

func maskOf(n *net.IPNet) int {
	if n == nil {
		return 0
	}
	ones, _ := n.Mask.Size()
	return ones
}

// dress gives the interface inside what it lacks. It is set up when the node's
// end is.
func (w *wardrobe) dress(vni snapshot.VNI, l netlink.Link, hostUp bool) error {
	i := l.Attrs().Index
	if l.Attrs().Flags&net.FlagUp == 0 {
		if !hostUp {
			return nil
		}
		// No address of its own making: nothing would answer for it.
		err := w.p.there.do(func() error {
			return errors.Join(writeSetting("ipv6", l.Attrs().Name, "addr_gen_mode", "1"), writeSetting("ipv6", l.Attrs().Name, "accept_dad", "0"),
				writeSetting("ipv4", l.Attrs().Name, "rp_filter", "0"))
		})
		if err != nil {
			return err
		}
		if err := w.nl.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
		// What went down lost its routes and neighbours.
		delete(w.routes, i)
		delete(w.neighs, i)
	}
	v4, v6 := FeetOf(w.p.number)
	for _, a := range append([]netip.Addr{v4, v6}, presenceAddrs...) {
		if !a.IsValid() || w.addrs[i][a] || a.Is6() && !w.v6 {
			continue
		}
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen())), Scope: unix.RT_SCOPE_UNIVERSE}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := w.nl.AddrAdd(l, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	for _, gw := range presenceGateways {
		if gw.Is6() && !w.v6 {
			continue
		}
		if err := w.way(vni, l, gw); err != nil {
			return err
		}
	}
	return nil
}

// way leads to everything by the gateway. The routes of all interfaces are
// beside each other, told apart by metric; a socket that is bound to its
// interface finds the one of that.
func (w *wardrobe) way(vni snapshot.VNI, l netlink.Link, gw netip.Addr) error {
	i := l.Attrs().Index
	if !w.neighs[i][gw] {
		n := &netlink.Neigh{LinkIndex: i, Family: familyOf(gw.Is4()), State: netlink.NUD_PERMANENT, IP: gw.AsSlice(), HardwareAddr: snapshot.RouterMAC[:]}
		if err := w.nl.NeighSet(n); err != nil {
			return fmt.Errorf("set the MAC of the gateway: %w", err)
		}
	}
	if !w.routes[i][gw] {
		r := &netlink.Route{LinkIndex: i, Dst: ipNet(everything(gw.Is4())), Gw: gw.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Priority: int(vni) + 1}
		if err := w.nl.RouteReplace(r); err != nil {
			return fmt.Errorf("add the route by %s: %w", gw, err)
		}
	}
	return nil
}
