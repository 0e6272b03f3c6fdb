package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

// presenceMark is the beginning of the alias of the node's ends of Presence.
const presenceMark = "moire-presence:"

// Present is the node itself in one Network: an interface as a Workload has
// one, with the addresses of the node's services, which are the same in every
// Network.
type Present struct {
	VNI snapshot.VNI
	// Host is the name of the node's end: PresenceHost(node, VNI).
	Host string
	MAC  snapshot.MAC
}

// PresentIn is the presence of a node in a Network.
func PresentIn(node string, vni snapshot.VNI) Present {
	return Present{
		VNI: vni, Host: hostPrefix + shortHash("presence", node, fmt.Sprint(uint32(vni))),
		MAC: snapshot.MAC{0x02, 0x4d, 0x4e, byte(vni >> 16), byte(vni >> 8), byte(vni)},
	}
}

// PresenceDevice is the name of the other end, inside the namespace.
func PresenceDevice(vni snapshot.VNI) string { return fmt.Sprintf("n%d", uint32(vni)) }

// Presence is the namespace in which the services of the node live: one
// interface for each Network, all with the same addresses. Sockets there must
// be bound to the interface of their Network (SO_BINDTODEVICE): then they hear
// and reach only it, whatever addresses other Networks have.
type Presence struct {
	node, file string

	mu     sync.Mutex
	home   *namespace // of the node
	there  *namespace // nil: not made yet
	number uint16     // of the node
}

// NewPresence is the presence of the node whose namespace this is; it makes
// and opens nothing but that. Safe for concurrent use.
func NewPresence(runDir, node string) (*Presence, error) {
	if !nodeName.MatchString(node) {
		return nil, fmt.Errorf("presence: %q is not a node name", node)
	}
	home, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	return &Presence{node: node, file: presenceFile(runDir, node), home: home}, nil
}

func presenceFile(runDir, node string) string {
	return filepath.Join(runDir, "presence", "moire-"+node)
}

// Close lets go of the namespace, which stays.
func (p *Presence) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if p.there != nil {
		err = p.there.close()
		p.there = nil
	}
	return errors.Join(err, p.home.close())
}

// Do runs f on a thread inside the namespace; sockets that f makes stay there.
func (p *Presence) Do(f func() error) error {
	p.mu.Lock()
	there := p.there
	p.mu.Unlock()
	if there == nil {
		return errors.New("the node is present in no Network yet")
	}
	return there.do(f)
}

// Grow makes what is missing or wrong, and takes nothing away. An interface is
// usable after the Grow that follows Datapath.Grow, which sets the node's end
// up: before, its own end stays down, for one that waits for its carrier loses
// the first packets. mtu has the
// Networks, with the MTU of each in bytes; number is the node's. What is right
// stays untouched. It returns the index of each interface inside: sockets must
// be made anew when that is another than before.
func (p *Presence) Grow(mtu map[snapshot.VNI]int, number uint16) (map[snapshot.VNI]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number = number
	if len(mtu) == 0 {
		return nil, nil
	}
	var out map[snapshot.VNI]int
	err := p.home.do(func() error {
		if err := p.namespace(); err != nil {
			return err
		}
		nl, err := netlink.NewHandleAt(netns.NsHandle(p.there.file.Fd()), unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("talk to the namespace: %w", err)
		}
		defer nl.Close()
		out, err = p.grow(nl, mtu)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("presence of node %s: %w", p.node, err)
	}
	return out, nil
}

func (p *Presence) grow(nl *netlink.Handle, mtu map[snapshot.VNI]int) (map[snapshot.VNI]int, error) {
	hosts, err := byName(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	inside, err := byName(nl.LinkList)
	if err != nil {
		return nil, err
	}
	changed := false
	for vni, size := range mtu {
		d := PresentIn(p.node, vni)
		host, peer := hosts[d.Host], inside[PresenceDevice(vni)]
		if p.pairIsRight(d, host, peer) {
			err = setMTU(size, host, peer, nl)
		} else {
			changed, err = true, p.makePair(d, size, host, peer, nl)
		}
		if err != nil {
			return nil, fmt.Errorf("in network %d: %w", vni, err)
		}
	}
	if changed {
		if inside, err = byName(nl.LinkList); err != nil {
			return nil, err
		}
	}
	w, err := p.wardrobe(nl)
	if err != nil {
		return nil, err
	}
	out := make(map[snapshot.VNI]int, len(mtu))
	for vni := range mtu {
		l := inside[PresenceDevice(vni)]
		if l == nil {
			return nil, fmt.Errorf("in network %d: the interface went away at once", vni)
		}
		host := hosts[PresentIn(p.node, vni).Host]
		if err := w.dress(vni, l, host != nil && host.Attrs().Flags&net.FlagUp != 0); err != nil {
			return nil, fmt.Errorf("in network %d: %w", vni, err)
		}
		out[vni] = l.Attrs().Index
	}
	return out, nil
}

func byName(list func() ([]netlink.Link, error)) (map[string]netlink.Link, error) {
	all, err := whole(list)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := make(map[string]netlink.Link, len(all))
	for _, l := range all {
		out[l.Attrs().Name] = l
	}
	return out, nil
}

func (p *Presence) alias(vni snapshot.VNI) string {
	return fmt.Sprintf("%s%s:%d", presenceMark, p.node, uint32(vni))
}

func (p *Presence) pairIsRight(d Present, host, inside netlink.Link) bool {
	return host != nil && inside != nil && isPair(host, inside) && host.Attrs().Alias == p.alias(d.VNI) &&
		string(inside.Attrs().HardwareAddr) == string(d.MAC[:])
}

// makePair makes the pair anew.
func (p *Presence) makePair(d Present, mtu int, host, inside netlink.Link, nl *netlink.Handle) error {
	if host != nil {
		if a := host.Attrs().Alias; a != "" && !strings.HasPrefix(a, presenceMark+p.node+":") {
			return fmt.Errorf("interface %s belongs to %q; remove it", d.Host, a)
		}
		if err := netlink.LinkDel(host); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove a pair that is not right: %w", err)
		}
	}
	if inside != nil { // gone with its peer, or a stranger in our namespace
		if err := nl.LinkDel(inside); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s: %w", inside.Attrs().Name, err)
		}
	}
	return addPair(d.Host, PresenceDevice(d.VNI), d.MAC, mtu, p.alias(d.VNI), p.there)
}

// Shrink takes away the interfaces in all other Networks.
func (p *Presence) Shrink(keep map[snapshot.VNI]int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.home.do(func() error {
		all, err := whole(netlink.LinkList)
		if err != nil {
			return fmt.Errorf("presence of node %s: list interfaces: %w", p.node, err)
		}
		stays := map[string]bool{}
		for vni := range keep {
			stays[p.alias(vni)] = true
		}
		var errs []error
		for _, l := range all {
			if a := l.Attrs().Alias; strings.HasPrefix(a, presenceMark+p.node+":") && !stays[a] {
				if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
					errs = append(errs, fmt.Errorf("presence of node %s: remove %s: %w", p.node, l.Attrs().Name, err))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// namespace opens the namespace, or makes it; when somebody took its file away
// while it is in use, the file comes back.
func (p *Presence) namespace() error {
	shown, err := openNamespace(p.file)
	if err == nil && (p.there == nil || !p.there.same(shown)) {
		if p.there != nil {
			p.there.close()
		}
		p.there = shown
		return p.settle()
	}
	if err == nil {
		return shown.close()
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(p.file, nil, 0o444); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if p.there == nil {
		if p.there, err = newNamespace(); err != nil {
			return err
		}
		if err := p.settle(); err != nil {
			return err
		}
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", p.there.file.Fd()), p.file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show the namespace at %s: %w", p.file, err)
	}
	return nil
}

// newNamespace makes an empty network namespace. The thread that made it ends
// with its goroutine unless it comes home.
func newNamespace() (n *namespace, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, e := currentNamespace()
		if e != nil {
			runtime.UnlockOSThread()
			err = e
			return
		}
		defer home.close()
		if e := unix.Unshare(unix.CLONE_NEWNET); e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("make a network namespace: %w", e)
			return
		}
		n, err = currentNamespace()
		if unix.Setns(int(home.file.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return n, err
}

// namespaces tries whether one can be made.
func namespaces() error {
	n, err := newNamespace()
	if err != nil {
		return err
	}
	return n.close()
}

// settle makes the namespace accept what comes, from whatever address, and
// take no address or route of anybody else's choice.
func (p *Presence) settle() error {
	return p.there.do(func() error {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return fmt.Errorf("look for lo: %w", err)
		}
		if lo.Flags&net.FlagUp == 0 {
			if err := setUp("lo", true); err != nil {
				return fmt.Errorf("set lo up: %w", err)
			}
		}
		for _, s := range [][3]string{
			{"ipv4", "rp_filter", "0"}, {"ipv4", "forwarding", "0"}, {"ipv4", "accept_redirects", "0"}, {"ipv4", "send_redirects", "0"},
			{"ipv6", "accept_ra", "0"}, {"ipv6", "forwarding", "0"}, {"ipv6", "accept_redirects", "0"},
		} {
			for _, iface := range []string{"all", "default"} {
				if err := writeSetting(s[0], iface, s[1], s[2]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// removePresence takes the presence of a node away, from its namespace.
func removePresence(runDir, node string) error {
	var errs []error
	hosts, err := listed(func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Alias, presenceMark+node+":") })
	if err != nil {
		return err
	}
	for _, h := range hosts {
		errs = append(errs, removeLink(h))
	}
	file := presenceFile(runDir, node)
	if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", file, err))
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	os.Remove(filepath.Dir(file)) // of the last node
	return errors.Join(errs...)
}
