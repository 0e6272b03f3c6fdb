package datapath

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// shortHash is 12 hex digits of names.
func shortHash(names ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// dress gives the workload's end its settings, addresses and routes.
func dress(c *PlugConfig, inside *namespace, nl *netlink.Handle) error {
	v6 := false
	err := inside.do(func() error {
		_, err := os.Stat("/proc/sys/net/ipv6/conf/" + c.IfName)
		v6 = err == nil
		return settings(c)
	})
	if err != nil {
		return err
	}
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look for lo: %w", err)
	}
	peer, err := nl.LinkByName(c.IfName)
	if err != nil {
		return fmt.Errorf("look for %s: %w", c.IfName, err)
	}
	for _, l := range []netlink.Link{lo, peer} {
		if l.Attrs().Flags&net.FlagUp == 0 {
			if err := nl.LinkSetUp(l); err != nil {
				return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
			}
		}
	}
	addrs := c.Addrs
	if !v6 {
		if addrs = only4(addrs); len(addrs) == 0 {
			return errors.New("the address is IPv6 and this kernel has IPv6 disabled; enable it (ipv6.disable=0) or give the Network an IPv4 prefix")
		}
	}
	if err := addresses(c, addrs, peer, nl); err != nil {
		return err
	}
	return routes(c, addrs, peer, nl)
}

func only4(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() {
			out = append(out, a)
		}
	}
	return out
}

// settings: no address of anybody else's choice, and usable at once.
func settings(c *PlugConfig) error {
	for _, s := range [][2]string{
		{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"autoconf", "0"}, {"accept_dad", "0"}, {"dad_transmits", "0"},
	} {
		if err := writeSetting("ipv6", c.IfName, s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// addresses makes the interface have these addresses and no others, except
// link-local ones.
func addresses(c *PlugConfig, addrs []netip.Addr, peer netlink.Link, nl *netlink.Handle) error {
	have, err := whole(func() ([]netlink.Addr, error) { return nl.AddrList(peer, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	want := map[netip.Prefix]bool{}
	for _, a := range addrs {
		p, _ := c.prefixOf(a)
		want[netip.PrefixFrom(a.Unmap(), p.Bits())] = true
	}
	for _, h := range have {
		ip, _ := netip.AddrFromSlice(h.IP)
		ones, _ := h.Mask.Size()
		p := netip.PrefixFrom(ip.Unmap(), ones)
		if want[p] {
			delete(want, p)
			continue
		}
		if ip.IsLinkLocalUnicast() {
			continue
		}
		if err := nl.AddrDel(peer, &h); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	for p := range want {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := nl.AddrAdd(peer, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// routes leads to the other prefixes of the Network, and to the rest of the
// world as c.Default says, through the gateway of the first address of each
// family.
func routes(c *PlugConfig, addrs []netip.Addr, peer netlink.Link, nl *netlink.Handle) error {
	for _, v4 := range []bool{true, false} {
		var own netip.Prefix
		var src netip.Addr
		for _, a := range addrs {
			if a.Unmap().Is4() == v4 && !src.IsValid() {
				own, _ = c.prefixOf(a)
				src = a.Unmap()
			}
		}
		gw := netip.Addr{}
		if src.IsValid() {
			gw = gatewayOf(own)
		}
		if !gw.IsValid() || !own.Contains(gw) || gw == src {
			continue // a prefix of one address has no gateway
		}
		for _, p := range c.Prefixes {
			if p.Addr().Is4() != v4 || holdsAny(p, own, addrs) {
				continue
			}
			if err := route(path{to: p, gw: gw}, peer, nl); err != nil {
				return err
			}
		}
		if err := links(c, v4, gw, peer, nl); err != nil {
			return err
		}
		if err := gateway(c, own, gw, src, peer, nl); err != nil {
			return err
		}
	}
	return nil
}

// holdsAny: the kernel already has a route to the prefix, as one of the
// interface's addresses is in it.
func holdsAny(p, own netip.Prefix, addrs []netip.Addr) bool {
	if p == own {
		return true
	}
	for _, a := range addrs {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}
