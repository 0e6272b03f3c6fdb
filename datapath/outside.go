package datapath

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// Kinds of front and flags of a host, as in outside.h.
const (
	frontOwn      = 1
	frontExternal = 2

	hostSelf = 1
)

// wantedOutside is what the tables of outside.h must hold.
type wantedOutside struct {
	outlook     map[uint32]bpf.MoireOutlook
	exits       map[uint32]bpf.MoireExit
	masquerades map[bpf.MoireAddrKey]bpf.MoireMasquerade
	fronts      map[bpf.MoireAddr]bpf.MoireFront
	hosts       map[bpf.MoireAddr]uint32
	hostPorts   map[bpf.MoireHostPortKey]uint32
	held        map[netip.Addr]bool // External addresses that this node answers for
}

// wantOutside says how Networks reach what is outside, and what may come in.
// numbers are those of the other nodes.
func (d *Datapath) wantOutside(w *want, s *snapshot.Snapshot, numbers map[string]uint32) (*wantedOutside, error) {
	out := &wantedOutside{
		outlook: map[uint32]bpf.MoireOutlook{}, exits: map[uint32]bpf.MoireExit{}, masquerades: map[bpf.MoireAddrKey]bpf.MoireMasquerade{},
		fronts: map[bpf.MoireAddr]bpf.MoireFront{}, hosts: map[bpf.MoireAddr]uint32{}, hostPorts: map[bpf.MoireHostPortKey]uint32{},
		held: map[netip.Addr]bool{},
	}
	for a, e := range s.Externals {
		n, known := numbers[e.Node]
		switch {
		case e.Node == d.cfg.Node:
			out.held[a.Unmap()] = true
		case !known:
			continue
		}
		out.fronts[addrOf(a)] = bpf.MoireFront{Kind: frontExternal, Node: n}
	}
	for vni, e := range s.Exits {
		row, ok := d.exitRow(&e, numbers)
		if !ok {
			continue // nobody there to leave by: closed
		}
		row.Lot = lotOf(s.Networks[vni].Domain)
		out.exits[uint32(vni)] = row
		for _, p := range e.Hosts {
			for port, fixed := range policy.PortBlocks(p.First, p.Last) {
				k := bpf.MoireHostPortKey{Bits: uint32(40 + fixed), Vni: uint32(vni), Proto: p.Protocol}
				binary.BigEndian.PutUint16(k.Port[:], port)
				out.hostPorts[k] = 1
			}
		}
	}
	for a, m := range s.Masquerades {
		n, known := numbers[m.Node]
		if m.Node != d.cfg.Node && !known {
			n = nobody // must leave under that address or not at all
		}
		out.masquerades[addrKey(a.VNI, a.IP)] = bpf.MoireMasquerade{As: addrOf(m.As), Node: n}
	}
	if len(out.exits)+len(out.fronts)+len(out.masquerades) == 0 {
		return out, nil
	}
	own, err := d.ownAddresses(out.held)
	if err != nil {
		return nil, err
	}
	for _, n := range s.Nodes {
		out.hosts[addrOf(n.Address.Unmap())] = 0
	}
	for _, a := range own.all {
		out.hosts[addrOf(a)] = hostSelf
	}
	out.lookOut(own)
	w.networks[uint32(snapshot.Outside)] = uint32(d.MTU(0))
	return out, nil
}

// nobody is the number of a node that there never is.
const nobody = 1<<32 - 1

// lotOf is the number by which a Domain draws ports of the node's own address;
// never 0.
func lotOf(domain string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(domain))
	return h.Sum32() | 1
}

// exitRow says by which node a Network leaves and under which addresses.
func (d *Datapath) exitRow(e *snapshot.Exit, numbers map[string]uint32) (row bpf.MoireExit, ok bool) {
	if e.Gateway != "" && e.Gateway != d.cfg.Node {
		if row.Node, ok = numbers[e.Gateway]; !ok {
			return row, false
		}
	}
	for _, a := range e.Addresses {
		row.As[family(a)] = addrOf(a)
	}
	row.Given = uint32(flag(len(e.Addresses) > 0))
	return row, true
}

// family is 0 for IPv4, 1 for IPv6.
func family(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 0
	}
	return 1
}

// lookOut says what the node itself is outside.
func (out *wantedOutside) lookOut(own ownAddresses) {
	var row bpf.MoireOutlook
	for i, a := range own.source {
		if a.IsValid() {
			row.Own[i] = addrOf(a)
			if _, external := out.fronts[row.Own[i]]; !external {
				out.fronts[row.Own[i]] = bpf.MoireFront{Kind: frontOwn}
			}
		}
	}
	row.First, row.Last = freePorts(localPorts())
	out.outlook[0] = row
}

// ownAddresses are the addresses of the machine that are not ours to give.
type ownAddresses struct {
	all    []netip.Addr
	source [2]netip.Addr // of each family, on the uplink
}

func (d *Datapath) ownAddresses(held map[netip.Addr]bool) (own ownAddresses, err error) {
	own.source[family(d.cfg.Address)] = d.cfg.Address
	all, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return own, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		ip, _ := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); held[ip] {
			continue
		}
		own.all = append(own.all, ip)
		speaks := a.Flags&(unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 && ip.IsGlobalUnicast()
		if f := family(ip); a.LinkIndex == d.uplink.Index && speaks && !own.source[f].IsValid() {
			own.source[f] = ip
		}
	}
	return own, nil
}

// localPorts is the range from which the host takes ports for its own sessions.
func localPorts() (first, last uint16) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if n, _ := fmt.Sscan(string(b), &first, &last); n == 2 && first <= last {
			return first, last
		}
	}
	return 32768, 60999
}

// freePorts is the widest range of ports of at most 4536 that the host does not
// use for its own sessions, above its range where there is room.
func freePorts(first, last uint16) (uint16, uint16) {
	const most, lowest = 4536, 1024
	above, below := 65535-int(last), int(first)-lowest
	if above >= most || above >= below {
		if above <= 0 {
			return 61000, 65535 // the host wants all: sockets that are there are avoided
		}
		return uint16(65536 - min(above, most)), 65535
	}
	return first - uint16(min(below, most)), first - 1
}

func (d *Datapath) growOutside(out *wantedOutside) error {
	t := d.tables
	if err := d.lendLoopback(out); err != nil {
		return err
	}
	err := inOrder(
		func() error { return t.outlook.grow(out.outlook) },
		func() error { return t.hosts.grow(out.hosts) },
		func() error { return t.hostPorts.grow(out.hostPorts) },
		func() error { return t.fronts.grow(out.fronts) },
		func() error { return t.masquerades.grow(out.masquerades) },
		func() error { return t.exits.grow(out.exits) },
	)
	if err == nil {
		d.outside = len(out.outlook) > 0
	}
	return err
}

const acceptLocal = "/proc/sys/net/ipv4/conf/lo/accept_local"

// lendLoopback: what is for the node itself comes over the loopback from its own
// address. The table remembers whether that was allowed before.
func (d *Datapath) lendLoopback(out *wantedOutside) error {
	row, on := out.outlook[0]
	old := d.tables.outlook.rows[0]
	if !on {
		if old.Lent == 0 {
			return nil
		}
		if err := writeSetting("ipv4", "lo", "accept_local", "0"); err != nil {
			return err
		}
		old.Lent = 0
		return d.tables.outlook.put(0, old)
	}
	if b, err := os.ReadFile(acceptLocal); old.Lent != 0 || err == nil && strings.TrimSpace(string(b)) == "0" {
		row.Lent = 1
		out.outlook[0] = row
	}
	return writeSetting("ipv4", "lo", "accept_local", "1")
}

// returnLoopback makes accept_local what it was before the node, whose tables
// are in dir.
func returnLoopback(dir string) error {
	pins, err := filepath.Glob(filepath.Join(dir, "layout-*", "outlooks"))
	if err != nil {
		return err
	}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(pin, nil)
		if err != nil {
			continue // not ours to read: of an agent of another shape
		}
		var row bpf.MoireOutlook
		err = m.Lookup(uint32(0), &row)
		m.Close()
		if err == nil && row.Lent != 0 {
			if err := writeSetting("ipv4", "lo", "accept_local", "0"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Datapath) shrinkOutside(out *wantedOutside) error {
	t := d.tables
	return inOrder(
		func() error { return d.dropExternals(out.held) },
		func() error { return t.exits.shrink(out.exits) },
		func() error { return t.masquerades.shrink(out.masquerades) },
		func() error { return t.fronts.shrink(out.fronts) },
		func() error { return t.hostPorts.shrink(out.hostPorts) },
		func() error { return t.hosts.shrink(out.hosts) },
	)
}

// sortedAddrs in a fixed order.
func sortedAddrs(set map[netip.Addr]bool) []netip.Addr {
	out := make([]netip.Addr, 0, len(set))
	for a := range set {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
