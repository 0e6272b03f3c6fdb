package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
)

const (
	// meshMark is the mark of sockets that are led to a proxy, as in connect.h, with
	// the index of the interface; AppMark that of a proxy's sockets to the Workload.
	meshMark = 0x4d4f4900
	AppMark  = meshMark | 0xff

	// meshProtocol says whose rules and routes these are, meshPriority where they
	// stand: behind the namespace's own addresses, in front of all else.
	meshProtocol = 0x4d
	meshPriority = 77

	listensOut, listensIn = 0, 1

	backlog = 4096
)

// stand is where a proxy stands: the network namespace of a Workload.
type stand struct {
	ns     *namespace
	cookie uint64
	ready  bool
	// failure says why it could not be made ready when that was tried last.
	failure string
	row     bpf.MoireStand // as it was put last
	// insides are indices of interfaces there, by those of the node's ends.
	insides map[int]int
	link    link.Link
	// listeners by direction, one for each worker.
	listeners [2][]int
	// tidy: no other rules and routes are there than for these.
	tidy [mostStandings]bpf.MoireStanding
	// leaving since then; zero: it is not.
	leaving time.Time
}

// cookie is what the kernel calls the namespace, until the next boot.
func (n *namespace) cookie() (cookie uint64, err error) {
	err = n.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the cookie of a network namespace: %w", err)
	}
	return cookie, nil
}

// close lets go of the namespace, which stays as it is.
func (s *stand) close() error {
	for _, all := range s.listeners {
		for _, fd := range all {
			unix.Close(fd)
		}
	}
	if s.link != nil {
		s.link.Close()
	}
	return s.ns.close()
}

// inside is the index of the other end of a pair.
func (s *stand) inside(ifindex int) (int, error) {
	if i, known := s.insides[ifindex]; known {
		return i, nil
	}
	i, err := peerOf(ifindex)
	if err == nil {
		s.insides[ifindex] = i
	}
	return i, err
}

// lentSettings make what answers a packet bear its mark: sockets, and resets where
// there is none. Bit i of Lent is about the one with index i.
var lentSettings = [...]string{"/proc/sys/net/ipv4/tcp_fwmark_accept", "/proc/sys/net/ipv4/fwmark_reflect", "/proc/sys/net/ipv6/fwmark_reflect"}

func (s *stand) setting(path string) (value string, err error) {
	err = s.ns.do(func() error {
		b, err := os.ReadFile(path)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

func (s *stand) set(path, value string) error {
	return s.ns.do(func() error { return os.WriteFile(path, []byte(value), 0) })
}

// way is one rule of a namespace and the route that it leads to.
type way struct {
	mark uint32
	v6   bool
	src  netip.Addr // that the kernel chooses; invalid: none
}

// waysOf a stand: of what is led to the proxy, and of answers to it.
func waysOf(row *bpf.MoireStand) map[way]bool {
	out := map[way]bool{}
	for i, at := range row.At[:row.Count] {
		for v6, a := range at.Self {
			if a == (bpf.MoireAddr{}) {
				continue
			}
			out[way{uint32(meshMark + i), v6 == 1, ipOf(a)}] = true
			out[way{AppMark, v6 == 1, netip.Addr{}}] = true
		}
	}
	return out
}

func (w way) family() int {
	if w.v6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// table of the route: the number is the mark.
func (w way) rule() *netlink.Rule {
	r, all := netlink.NewRule(), ^uint32(0)
	r.Family, r.Mark, r.Mask, r.Table, r.Priority, r.Protocol, r.IifName = w.family(), w.mark, &all, int(w.mark), meshPriority, meshProtocol, "lo"
	return r
}

func (w way) route() *netlink.Route {
	everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if w.v6 {
		everywhere = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	r := &netlink.Route{
		LinkIndex: loopback, Dst: everywhere, Table: int(w.mark), Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: meshProtocol, Family: w.family(),
	}
	if w.src.IsValid() {
		r.Src = w.src.AsSlice()
	}
	return r
}

// netlink talks to the namespace.
func (s *stand) netlink() (*netlink.Handle, error) {
	nl, err := netlink.NewHandleAt(netns.NsHandle(s.ns.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("talk to the namespace: %w", err)
	}
	return nl, nil
}

// ways lists those that are there and ours, whole ones only.
func ways(nl *netlink.Handle) (rules map[way][]netlink.Rule, routes map[way]netlink.Route, err error) {
	rules, routes = map[way][]netlink.Rule{}, map[way]netlink.Route{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		v6 := family == netlink.FAMILY_V6
		rs, err := whole(func() ([]netlink.Rule, error) { return nl.RuleList(family) })
		if err != nil {
			return nil, nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rs {
			if r.Protocol == meshProtocol && r.Priority == meshPriority {
				rules[way{mark: r.Mark, v6: v6}] = append(rules[way{mark: r.Mark, v6: v6}], r)
			}
		}
		all, err := whole(func() ([]netlink.Route, error) {
			return nl.RouteListFiltered(family, &netlink.Route{Protocol: meshProtocol, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range all {
			if r.Table&^0xff != meshMark || r.Type != unix.RTN_LOCAL {
				continue
			}
			w := way{mark: uint32(r.Table), v6: v6}
			if src, ok := netip.AddrFromSlice(r.Src); ok {
				w.src = src.Unmap()
			}
			routes[w] = r
		}
	}
	return rules, routes, nil
}

// lead makes the rules and routes that are missing. One whose address the
// Workload does not have, yet, is left for later: until then nothing gets out that way.
func (s *stand) lead(row *bpf.MoireStand, t *tally) error {
	nl, err := s.netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	lo, err := nl.LinkByIndex(loopback)
	if err == nil && lo.Attrs().Flags&net.FlagUp == 0 {
		err = nl.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	rules, routes, err := ways(nl)
	if err != nil {
		return err
	}
	for w := range waysOf(row) {
		if _, there := routes[w]; !there {
			s.missed(t, "route", w)
			if err := nl.RouteReplace(w.route()); err != nil {
				if errors.Is(err, unix.EINVAL) && w.src.IsValid() {
					continue
				}
				return fmt.Errorf("make the route of mark %x: %w", w.mark, err)
			}
		}
		w.src = netip.Addr{}
		if len(rules[w]) == 0 {
			s.missed(t, "rule", w)
			if err := nl.RuleAdd(w.rule()); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("make the rule of mark %x: %w", w.mark, err)
			}
			rules[w] = append(rules[w], *w.rule())
		}
	}
	return nil
}

// missed notes what somebody took away.
func (s *stand) missed(t *tally, what string, w way) {
	t.Add(1)
	if s.ready && waysOf(&s.row)[w] {
		t.found("mesh", "there was no "+what, w)
	}
}

// forgo removes the rules and routes that the stand needs no longer.
func (s *stand) forgo() error {
	if s.tidy == s.row.At {
		return nil
	}
	nl, err := s.netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	if err := removeWays(nl, waysOf(&s.row)); err != nil {
		return err
	}
	s.tidy = s.row.At
	return nil
}

// removeWays removes all but these.
func removeWays(nl *netlink.Handle, but map[way]bool) error {
	rules, routes, err := ways(nl)
	if err != nil {
		return err
	}
	marks := map[way]bool{}
	for w := range but {
		marks[way{mark: w.mark, v6: w.v6}] = true
	}
	var errs []error
	for w, rs := range rules {
		for i, r := range rs {
			if i == 0 && marks[w] {
				continue
			}
			r.Family = w.family()
			if err := nl.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove the rule of mark %x: %w", w.mark, err))
			}
		}
	}
	for w, r := range routes {
		if !but[w] {
			if err := nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("remove the route of mark %x: %w", w.mark, err))
			}
		}
	}
	return errors.Join(errs...)
}

// restore makes the namespace as it was before a proxy stood there.
func (s *stand) restore(lent uint32) error {
	nl, err := s.netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	if err := removeWays(nl, nil); err != nil {
		return err
	}
	var errs []error
	for i, path := range lentSettings {
		if lent&(1<<i) != 0 {
			errs = append(errs, s.set(path, "0"))
		}
	}
	return errors.Join(errs...)
}
