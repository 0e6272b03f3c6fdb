package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath"
	"moire.dev/moire/snapshot"
)

// presence is the applier that puts the node itself into its Networks, before
// the kernel side gives those interfaces their programs. What it cannot do does
// not hold up the rest: the names say so afterwards.
type presence struct {
	node  string
	there *datapath.Presence
	mtu   func(want int) int
	log   *slog.Logger
	// dialling has room for maxInside.
	dialling chan struct{}

	mu      sync.Mutex
	wanted  map[snapshot.VNI]int // -> MTU
	number  uint16               // of the node
	devices map[snapshot.VNI]int // -> index of the interface inside
	err     error                // of the last Grow
}

func openPresence(cfg Config, mtu func(int) int, log *slog.Logger) (*presence, error) {
	there, err := datapath.NewPresence(cfg.RunDir, cfg.Name)
	if err != nil {
		return nil, err
	}
	return &presence{node: cfg.Name, there: there, mtu: mtu, log: log, dialling: make(chan struct{}, maxInside)}, nil
}

func (p *presence) Name() string { return "presence" }

// hostedIn lists the Networks in which the node has Workloads.
func hostedIn(s State) []snapshot.VNI {
	seen := map[snapshot.VNI]bool{}
	for _, l := range s.Locals {
		if _, ok := s.Snapshot.Networks[l.VNI]; ok {
			seen[l.VNI] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (p *presence) Grow(s State) error {
	want := map[snapshot.VNI]int{}
	for _, vni := range hostedIn(s) {
		want[vni] = p.mtu(s.Snapshot.Networks[vni].MTU)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted, p.number = want, s.Snapshot.Nodes[p.node].Number
	p.grow()
	return nil
}

// grow makes what is wanted; the caller has the lock.
func (p *presence) grow() (changed bool) {
	devices, err := p.there.Grow(p.wanted, p.number)
	if err != nil && (p.err == nil || p.err.Error() != err.Error()) {
		p.log.Error("the node cannot be present in its Networks; names and metadata are not answered there", "error", err)
	}
	p.err = err
	if err != nil {
		return false
	}
	changed = !maps.Equal(p.devices, devices)
	p.devices = devices
	return changed
}

// repair makes again what somebody broke, and says whether interfaces are
// other ones now.
func (p *presence) repair() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grow()
}

// state is where the node is present now, by interface index, and why not
// where it should be.
func (p *presence) state() (map[snapshot.VNI]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.devices, p.err
}

// present is the same for the kernel side.
func (p *presence) present() []datapath.Present {
	devices, _ := p.state()
	var out []datapath.Present
	for _, vni := range slices.Sorted(maps.Keys(devices)) {
		out = append(out, datapath.PresentIn(p.node, vni))
	}
	return out
}

func (p *presence) Shrink(s State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.there.Shrink(p.wanted)
}

func (p *presence) Dump(w io.Writer) error {
	devices, err := p.state()
	for _, vni := range slices.Sorted(maps.Keys(devices)) {
		d := datapath.PresentIn(p.node, vni)
		fmt.Fprintf(w, "present in %d: %s %s mac=%s\n", vni, d.Host, datapath.PresenceDevice(vni), d.MAC)
	}
	return err
}

// close leaves everything as it is.
func (p *presence) close() { p.there.Close() }

// bound makes sockets hear and reach one Network only.
func bound(vni snapshot.VNI) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), datapath.PresenceDevice(vni)) }); e != nil {
			return e
		}
		return err
	}
}

// maxInside is how many connections are being made from inside at once.
const maxInside = 64

// dial connects from inside a Network, to a Workload of any node.
func (p *presence) dial(ctx context.Context, vni snapshot.VNI, network string, to netip.AddrPort) (net.Conn, error) {
	p.mu.Lock()
	v4, from := datapath.FeetOf(p.number)
	p.mu.Unlock()
	own := snapshot.NameServer6
	if to.Addr().Unmap().Is4() {
		from, own = v4, snapshot.NameServer4
	}
	if !from.IsValid() {
		from = own // reaches what is on this node
	}
	d := net.Dialer{Control: bound(vni)}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	select { // a connection that is being made holds a thread
	case p.dialling <- struct{}{}:
		defer func() { <-p.dialling }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%d connections are being made from inside Networks already: %w", maxInside, ctx.Err())
	}
	var c net.Conn
	err := p.there.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return c, err
}
