package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/snapshot"
)

// DefaultRoute says what an interface is for what is in no Network of the
// workload.
type DefaultRoute int

// Kinds of default route.
const (
	// FirstRoute unless something else in the namespace has a default route.
	FirstRoute DefaultRoute = iota
	// SecondRoute: for what is bound to the interface or has its address as
	// source, and for the rest when there is no other.
	SecondRoute
	// NoRoute: only for what has its address as source, and for names and
	// metadata.
	NoRoute
)

// secondMetric and more is the metric of a second default route, and the
// number of the table for what has the interface's address as source.
const secondMetric = 1 << 16

// ruleAt is the priority of those rules: before the main table, behind what
// people write.
const ruleAt = 32000

// nodeServices are reached by the gateway, whatever else is.
var nodeServices = []netip.Addr{snapshot.NameServer4, snapshot.NameServer6, snapshot.Metadata4}

// gateway leads what is in no Network through gw.
func gateway(c *PlugConfig, own netip.Prefix, gw, src netip.Addr, peer netlink.Link, nl *netlink.Handle) error {
	whole := everything(gw.Is4())
	if c.Default == FirstRoute {
		return route(path{to: whole, gw: gw}, peer, nl)
	}
	number := secondMetric + peer.Attrs().Index
	if c.Default == SecondRoute {
		if err := route(path{to: whole, gw: gw, metric: number}, peer, nl); err != nil {
			return err
		}
	}
	for _, a := range nodeServices {
		if c.Default == NoRoute && a.Is4() == gw.Is4() {
			if err := route(path{to: netip.PrefixFrom(a, a.BitLen()), gw: gw, metric: number}, peer, nl); err != nil {
				return err
			}
		}
	}
	for _, p := range []path{{to: own, table: number}, {to: whole, gw: gw, table: number}} {
		if err := route(p, peer, nl); err != nil {
			return err
		}
	}
	return sourceRule(src, number, nl)
}

// linkProtocol marks the routes to linked prefixes, so that those that are no
// longer linked can go (rtnetlink(7): 77 is nobody's).
const linkProtocol = 77

// linkMetric and the number of the interface is their metric: behind those of
// interfaces that are in the prefix themselves, and behind what people write.
const linkMetric = 1 << 14

// links makes the routes to the linked prefixes of a family those that are
// wanted. Where somebody else has a route to the very prefix, that is used.
func links(c *PlugConfig, v4 bool, gw netip.Addr, peer netlink.Link, nl *netlink.Handle) error {
	want, metric := map[string]bool{}, linkMetric+peer.Attrs().Index
	for _, p := range c.Linked {
		if p.Addr().Is4() != v4 {
			continue
		}
		want[p.Masked().String()] = true
		if err := route(path{to: p, gw: gw, metric: metric, protocol: linkProtocol}, peer, nl); err != nil {
			return err
		}
	}
	filter := &netlink.Route{LinkIndex: peer.Attrs().Index, Protocol: linkProtocol}
	have, err := whole(func() ([]netlink.Route, error) {
		return nl.RouteListFiltered(familyOf(v4), filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range have {
		if r.Dst == nil || want[r.Dst.String()] && r.Priority == metric {
			continue
		}
		if err := nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s: %w", r.Dst, err)
		}
	}
	return nil
}

// sourceRule makes what has the address as source follow the table: replies
// leave by where the question came in.
func sourceRule(src netip.Addr, table int, nl *netlink.Handle) error {
	family := familyOf(src.Is4())
	from := netip.PrefixFrom(src, src.BitLen())
	have, err := whole(func() ([]netlink.Rule, error) { return nl.RuleList(family) })
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	for _, r := range have {
		if r.Priority != ruleAt || r.Src == nil || r.Src.String() != from.String() {
			continue
		}
		if r.Table == table {
			return nil
		}
		if err := nl.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the rule of an earlier interface: %w", err)
		}
	}
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Src = family, ruleAt, table, ipNet(from)
	if err := nl.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add a rule for %s: %w", src, err)
	}
	return nil
}

// familyOf is how netlink calls a family.
func familyOf(v4 bool) int {
	if v4 {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// everything is the prefix of a default route.
func everything(v4 bool) netip.Prefix {
	if v4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// path is one route of an interface.
type path struct {
	to       netip.Prefix
	gw       netip.Addr // not valid: neighbours
	metric   int        // 0: the first choice
	table    int        // 0: main
	protocol int        // 0: nothing particular
}

func route(p path, peer netlink.Link, nl *netlink.Handle) error {
	r := &netlink.Route{
		LinkIndex: peer.Attrs().Index, Dst: ipNet(p.to.Masked()), Priority: p.metric, Table: p.table,
		Protocol: netlink.RouteProtocol(p.protocol),
	}
	if p.gw.IsValid() {
		r.Gw, r.Flags = p.gw.AsSlice(), int(netlink.FLAG_ONLINK)
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	filter, mask := &netlink.Route{Dst: r.Dst}, uint64(netlink.RT_FILTER_DST)
	if p.table != 0 {
		filter.Table, mask = p.table, mask|netlink.RT_FILTER_TABLE
	}
	have, err := whole(func() ([]netlink.Route, error) {
		return nl.RouteListFiltered(familyOf(p.to.Addr().Is4()), filter, mask)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, h := range have {
		if h.LinkIndex == r.LinkIndex && h.Gw.Equal(r.Gw) && (p.metric == 0) == (h.Priority < secondMetric) {
			return nil
		}
		if p.to.Bits() == 0 && p.metric == 0 && p.table == 0 && h.Priority < secondMetric {
			return nil // somebody's default route is somebody's
		}
	}
	if err := nl.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route %s via %s: %w", p.to, p.gw, err)
	}
	return nil
}
