package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A tap is the interface of a VM: what the machine sends comes in at the device
// itself, where from_workload sits as on the node's end of a pair, and what is
// for the machine leaves by it. So nothing reaches the node's stack either way.

const (
	tapType   = "tuntap"
	tunDevice = "/dev/net/tun"
)

// howOf says how packets get to an interface.
func howOf(l *Local) uint16 {
	switch {
	case l.Tap:
		return howTap
	case l.Gateway:
		return howGate
	}
	return 0
}

// plugTap makes the tap, or repairs it; when all is well it changes nothing,
// and a machine that has it open does not notice.
func plugTap(c *PlugConfig) error {
	l, err := netlink.LinkByName(c.Host)
	switch {
	case isNotFound(err):
		return makeTap(c)
	case err != nil:
		return fmt.Errorf("look for it: %w", err)
	case l.Attrs().Alias != c.alias() && !unmarked(l):
		return fmt.Errorf("interface %s belongs to %q; remove it", c.Host, l.Attrs().Alias)
	case l.Type() != tapType:
		if err := netlink.LinkDel(l); err != nil {
			return fmt.Errorf("remove the pair that it was: %w", err)
		}
		return makeTap(c)
	}
	return markTap(c, l)
}

// makeTap makes the device, which stays when we are gone.
func makeTap(c *PlugConfig) error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; load the module with: modprobe tun", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	req, err := unix.NewIfreq(c.Host)
	if err != nil {
		return err
	}
	// A machine that opens it says by itself whether frames have a header of
	// their offloads (IFF_VNET_HDR).
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	fd := int(f.Fd())
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("make the device: %w", err)
	}
	for _, set := range []struct {
		request uint
		value   uint32
	}{{unix.TUNSETOWNER, c.Owner}, {unix.TUNSETGROUP, c.Group}} {
		if set.value == 0 {
			continue
		}
		if err := unix.IoctlSetInt(fd, set.request, int(set.value)); err != nil {
			return fmt.Errorf("give the device to user %d, group %d: %w", c.Owner, c.Group, err)
		}
	}
	l, err := netlink.LinkByName(c.Host)
	if err != nil {
		return fmt.Errorf("look for it: %w", err)
	}
	if err := markTap(c, l); err != nil {
		return err
	}
	// Only now: until here it goes with us.
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make the device stay: %w", err)
	}
	return nil
}

// markTap gives the device its settings and our mark.
func markTap(c *PlugConfig, l netlink.Link) error {
	// Nothing of the node's own stack belongs on it.
	if err := writeSetting("ipv6", c.Host, "disable_ipv6", "1"); err != nil {
		return err
	}
	if l.Attrs().MTU != c.MTU {
		if err := netlink.LinkSetMTU(l, c.MTU); err != nil {
			return fmt.Errorf("set its MTU: %w", err)
		}
	}
	if l.Attrs().Alias != c.alias() {
		if err := netlink.LinkSetAlias(l, c.alias()); err != nil {
			return fmt.Errorf("mark it as ours: %w", err)
		}
	}
	return nil
}

// undressed sets the workload's end up and leaves the rest to the workload.
func undressed(c *PlugConfig, nl *netlink.Handle) error {
	for _, name := range []string{"lo", c.IfName} {
		l, err := nl.LinkByName(name)
		if err == nil {
			err = nl.LinkSetUp(l)
		}
		if err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}
