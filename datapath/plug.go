package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

const (
	hostPrefix = "mo"
	aliasMark  = "moire:"
	defaultMTU = 1430 // fits both underlay families at 1500
)

var hostName = regexp.MustCompile("^" + hostPrefix + "[0-9a-f]{12}$")

// PlugConfig says what an interface of a workload must be.
type PlugConfig struct {
	Node string
	Key  snapshot.AttachmentKey
	// Host is the name of the node's end: HostName(Node, Key).
	Host string
	// Netns is the path of the workload's network namespace.
	Netns string
	// IfName is the name inside.
	IfName string
	MAC    snapshot.MAC
	Addrs  []netip.Addr
	// Prefixes of the Network: they give each address its length, and the
	// gateways.
	Prefixes []netip.Prefix
	// Linked prefixes are reached by the gateway, too, whatever is the default,
	// unless another interface of the namespace is in them.
	Linked []netip.Prefix
	// MTU in bytes, as Datapath.MTU says. 0: 1430.
	MTU int
	// Default says what the Network's gateway is to the workload.
	Default DefaultRoute
	// DHCP: the workload asks for addresses and routes itself.
	DHCP bool
	// Tap makes a tap device instead of a pair; Netns and IfName are unset.
	Tap bool
	// Owner and Group may open the tap; 0: only root.
	Owner, Group uint32
}

// HostName is the name of the node's end of an interface: the same for the
// same attachment, at most 15 bytes.
func HostName(node string, k snapshot.AttachmentKey) string {
	return hostPrefix + shortHash(node, k.Project, k.Workload, k.Network)
}

func (c *PlugConfig) alias() string {
	return aliasMark + c.Node + ":" + c.Key.Project + "/" + c.Key.Workload + "/" + c.Key.Network
}

func (c *PlugConfig) check() error {
	switch {
	case !strings.HasPrefix(c.Host, hostPrefix) || len(c.Host) > 15:
		return fmt.Errorf("host side name %q: must begin with %s and have at most 15 bytes", c.Host, hostPrefix)
	case c.Tap && (c.Netns != "" || c.IfName != ""):
		return errors.New("a tap is on the node, not in a namespace")
	case !c.Tap && (c.IfName == "" || len(c.IfName) > 15 || strings.ContainsAny(c.IfName, "/ \t\n:") || strings.HasPrefix(c.IfName, ".") || c.IfName == "lo"):
		return fmt.Errorf("interface name %q: 1 to 15 bytes, no slash, colon or space, not lo", c.IfName)
	case len(c.alias()) > 255:
		return fmt.Errorf("the names in %s are too long together for an interface alias (255 bytes)", c.alias())
	case c.MAC == snapshot.MAC{} || c.MAC[0]&1 != 0:
		return fmt.Errorf("MAC %s is not a unicast address", c.MAC)
	case len(c.Addrs) == 0:
		return errors.New("an interface needs at least one address")
	}
	for _, a := range c.Addrs {
		if _, ok := c.prefixOf(a); !ok {
			return fmt.Errorf("address %s is in none of the prefixes %v of the network", a, c.Prefixes)
		}
	}
	return nil
}

// prefixOf is the smallest prefix of the Network that holds the address.
func (c *PlugConfig) prefixOf(a netip.Addr) (netip.Prefix, bool) {
	var best netip.Prefix
	for _, p := range c.Prefixes {
		if p.Contains(a.Unmap()) && (!best.IsValid() || p.Bits() > best.Bits()) {
			best = p
		}
	}
	return best, best.IsValid()
}

// Plug makes the interface, or repairs what is wrong with it; when all is well
// it changes nothing. The node's end stays down, and so the workload cut off,
// until Grow has put the program on it.
func Plug(c PlugConfig) error {
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("plug %s: %w", c.Host, err)
	}
	if c.Tap {
		if err := plugTap(&c); err != nil {
			return fmt.Errorf("make the tap %s of %s: %w", c.Host, c.alias(), err)
		}
		return nil
	}
	if err := plug(&c); err != nil {
		return fmt.Errorf("plug %s into %s as %s: %w", c.alias(), c.Netns, c.IfName, err)
	}
	return nil
}

func plug(c *PlugConfig) error {
	inside, err := openNamespace(c.Netns)
	if err != nil {
		return err
	}
	defer inside.close()
	here, err := currentNamespace()
	if err != nil {
		return err
	}
	defer here.close()
	if inside.same(here) {
		return errors.New("the workload must have a network namespace of its own, this is the node's")
	}
	nl, err := netlink.NewHandleAt(netns.NsHandle(inside.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("talk to the namespace: %w", err)
	}
	defer nl.Close()
	if err := makePair(c, inside, nl); err != nil {
		return err
	}
	if c.DHCP {
		return undressed(c, nl)
	}
	return dress(c, inside, nl)
}

// makePair makes the veth pair unless the right one is there.
func makePair(c *PlugConfig, inside *namespace, nl *netlink.Handle) error {
	host, err := netlink.LinkByName(c.Host)
	if err == nil {
		if foreign := host.Attrs().Alias; foreign != "" && !strings.HasPrefix(foreign, aliasMark+c.Node+":") {
			return fmt.Errorf("interface %s belongs to %q; remove it", c.Host, foreign)
		}
		peer, err := nl.LinkByName(c.IfName)
		if err == nil && isPair(host, peer) && host.Attrs().Alias == c.alias() {
			return repairPair(c, host, peer, nl)
		}
		if err := netlink.LinkDel(host); err != nil {
			return fmt.Errorf("remove a pair that leads elsewhere: %w", err)
		}
	} else if !isNotFound(err) {
		return fmt.Errorf("look for %s: %w", c.Host, err)
	}
	if _, err := nl.LinkByName(c.IfName); err == nil {
		return fmt.Errorf("the namespace already has an interface %s; choose another name (--ifname)", c.IfName)
	}
	return addPair(c.Host, c.IfName, c.MAC, c.MTU, c.alias(), inside)
}

// isPair: they are the two ends of one.
func isPair(host, peer netlink.Link) bool {
	return peer.Attrs().ParentIndex == host.Attrs().Index && host.Attrs().ParentIndex == peer.Attrs().Index
}

// addPair makes a pair whose other end is in a namespace, with the MAC.
func addPair(host, peer string, mac snapshot.MAC, mtu int, alias string, inside *namespace) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = host, mtu
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: peer, PeerHardwareAddr: mac[:], PeerMTU: uint32(mtu),
		PeerNamespace: netlink.NsFd(int(inside.file.Fd())),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the pair: %w", err)
	}
	return makeOurs(host, alias)
}

// makeOurs marks an interface that we have made on the node; nothing of the node's
// own stack belongs on it.
func makeOurs(name, alias string) error {
	if err := writeSetting("ipv6", name, "disable_ipv6", "1"); err != nil {
		return err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(l, alias); err != nil {
		return fmt.Errorf("mark %s as ours: %w", name, err)
	}
	return nil
}

// setMTU of both ends of a pair; nl talks to the namespace of the peer.
func setMTU(mtu int, host, peer netlink.Link, nl *netlink.Handle) error {
	if host.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(host, mtu); err != nil {
			return fmt.Errorf("set the MTU of %s: %w", host.Attrs().Name, err)
		}
	}
	if peer.Attrs().MTU != mtu {
		if err := nl.LinkSetMTU(peer, mtu); err != nil {
			return fmt.Errorf("set the MTU of %s: %w", peer.Attrs().Name, err)
		}
	}
	return nil
}

func repairPair(c *PlugConfig, host, peer netlink.Link, nl *netlink.Handle) error {
	if err := setMTU(c.MTU, host, peer, nl); err != nil {
		return err
	}
	if !bytes.Equal(peer.Attrs().HardwareAddr, c.MAC[:]) {
		if err := nl.LinkSetHardwareAddr(peer, net.HardwareAddr(c.MAC[:])); err != nil {
			return fmt.Errorf("set the MAC of %s: %w", c.IfName, err)
		}
	}
	return nil
}

func isNotFound(err error) bool {
	var gone netlink.LinkNotFoundError
	return errors.As(err, &gone) || errors.Is(err, unix.ENODEV)
}

// writeSetting writes net/<family>/conf/<iface>/<name> of this thread's
// namespace when it is another. A kernel without IPv6 has none: no error.
func writeSetting(family, iface, name, value string) error {
	path := "/proc/sys/net/" + family + "/conf/" + iface + "/" + name
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", path, value, err)
	}
	return nil
}

// Unplug removes the interface; what is gone is no error.
func Unplug(host string) error {
	l, err := netlink.LinkByName(host)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unplug %s: %w", host, err)
	}
	if !strings.HasPrefix(l.Attrs().Alias, aliasMark) && !unmarked(l) {
		return fmt.Errorf("unplug %s: it does not bear our mark (alias %q), so it is not ours to remove", host, l.Attrs().Alias)
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("unplug %s: %w", host, err)
	}
	return nil
}

// removeLink removes an interface; what is gone is no error.
func removeLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// unmarked: a pair of ours whose maker died before it could mark it. Nothing
// else is a pair with such a name, and it was never up.
func unmarked(l netlink.Link) bool {
	return (l.Type() == "veth" || l.Type() == tapType) && l.Attrs().Alias == "" && l.Attrs().Flags&net.FlagUp == 0 && hostName.MatchString(l.Attrs().Name)
}

// whole repeats a listing that others changed while it was made; the kernel
// says so, and a part of the truth must not be taken for all of it.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 20 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// Plugged lists the interfaces of the node that are there, by host side name.
func Plugged(node string) ([]string, error) {
	return listed(func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Alias, aliasMark+node+":") })
}

func listed(which func(netlink.Link) bool) ([]string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []string
	for _, l := range links {
		if which(l) {
			out = append(out, l.Attrs().Name)
		}
	}
	return out, nil
}
