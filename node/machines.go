package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"moire.dev/moire/datapath"
	"moire.dev/moire/dhcp"
	"moire.dev/moire/snapshot"
)

// machines is the applier that answers DHCP and router solicitations of
// Workloads that ask for their addresses: the room dhcp in the words of this one.
type machines struct {
	server *dhcp.Server
	mtu    func(want int) int
	log    *slog.Logger
	failed string // the last time; "": not
}

func newMachines(log *slog.Logger, mtu func(int) int) *machines {
	return &machines{server: dhcp.NewServer(log), mtu: mtu, log: log}
}

func (m *machines) Name() string { return "dhcp" }

// Grow says so when it cannot answer somewhere, and does not hold up the rest:
// the kernel is compared again soon, and so is this.
func (m *machines) Grow(s State) error {
	text := ""
	if err := m.server.Grow(m.interfaces(s)); err != nil {
		text = err.Error()
	}
	if text != "" && text != m.failed {
		m.log.Error("some machines get no answer to DHCP", "error", text)
	}
	m.failed = text
	return nil
}

func (m *machines) Shrink(s State) error {
	m.server.Shrink(m.interfaces(s))
	return nil
}

func (m *machines) interfaces(s State) []dhcp.Interface {
	var out []dhcp.Interface
	for _, l := range s.Locals {
		n, ok := s.Snapshot.Networks[l.VNI]
		if !l.DHCP || !ok {
			continue
		}
		out = append(out, toldTo(&l, n, s.Snapshot.Names, m.mtu(n.MTU)))
	}
	return out
}

// toldTo is what the Workload behind an interface is told.
func toldTo(l *Local, n snapshot.Network, names map[snapshot.VNI]snapshot.DNS, mtu int) dhcp.Interface {
	i := dhcp.Interface{
		Host: l.Host, MAC: l.MAC, Addrs: l.Addrs, Prefixes: n.Prefixes, MTU: mtu, Router: l.Default == datapath.FirstRoute,
	}
	// A second interface has names of its own, but whoever is behind it asks
	// one resolver only: that of the first.
	d, ok := names[l.VNI]
	if i.Names = ok && l.Default != datapath.SecondRoute; i.Names {
		i.Search = search(d)
	}
	return i
}

func (m *machines) Dump(w io.Writer) error {
	all := m.server.Interfaces()
	slices.SortFunc(all, func(a, b dhcp.Interface) int { return strings.Compare(a.Host, b.Host) })
	for _, i := range all {
		fmt.Fprintf(w, "told %s mac=%s addresses=%v mtu=%d router=%t names=%t search=%v\n", i.Host, i.MAC, i.Addrs, i.MTU, i.Router, i.Names, i.Search)
	}
	return nil
}

func (m *machines) run(ctx context.Context) error { return m.server.Run(ctx) }
