package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// underlay is the bridge that joins the nodes, and the host's foot on it.
type underlay struct {
	bridge string
	host   netip.Prefix
}

// up makes the bridge with the host's address on it.
func (u underlay) up() error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: u.bridge}}
	if err := netlink.LinkAdd(br); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make bridge %s: %w", u.bridge, err)
	}
	link, err := netlink.LinkByName(u.bridge)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipnet(u.host)}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", u.bridge, u.host, err)
	}
	return netlink.LinkSetUp(link)
}

// plug gives the namespace an interface with the given name on the underlay.
func (u underlay) plug(port, netns, name string, addr netip.Prefix) error {
	ns, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if old, err := netlink.LinkByName(port); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return err
		}
	}
	br, err := netlink.LinkByName(u.bridge)
	if err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: br.Attrs().Index}, PeerName: name, PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("join %s to %s: %w", netns, u.bridge, err)
	}
	link, err := netlink.LinkByName(port)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return InNetns(netns, func() error { return configure(name, addr) })
}

// join makes the pair of interfaces "up0" between two nodes.
func join(a, b *Node) error {
	other, err := os.Open(b.Netns)
	if err != nil {
		return err
	}
	defer other.Close()
	err = InNetns(a.Netns, func() error {
		if _, err := netlink.LinkByName("up0"); err == nil {
			return nil
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "up0", PeerNamespace: netlink.NsFd(other.Fd())}
		return netlink.LinkAdd(veth)
	})
	if err != nil {
		return fmt.Errorf("join %s and %s: %w", a.Name, b.Name, err)
	}
	for _, n := range []*Node{a, b} {
		if err := InNetns(n.Netns, func() error { return configure("up0", netip.PrefixFrom(n.Address, 24)) }); err != nil {
			return err
		}
	}
	return nil
}

func configure(name string, addr netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipnet(addr), Flags: noDAD(addr)}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, addr, err)
	}
	return netlink.LinkSetUp(link)
}

// down removes the bridge and its ports: the kernel takes its time to remove a
// namespace and the other ends of what was in it.
func (u underlay) down(ports ...string) error {
	var errs []error
	for _, name := range append(ports, u.bridge) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue // gone already
		}
		// The kernel may be quicker after all.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func noDAD(p netip.Prefix) int {
	if p.Addr().Is6() {
		return 0x02 // IFA_F_NODAD: the lab gives every address once
	}
	return 0
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
