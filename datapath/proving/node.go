package proving

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// proxyName is that of the proxy of all Workloads, where one is needed.
const proxyName = "proving"

// asksForProxies: something of the snapshot is not for the kernel alone.
func asksForProxies(s *snapshot.Snapshot) bool {
	if len(s.Frontends) > 0 {
		return true
	}
	for _, e := range s.Endpoints {
		if e.Mode != snapshot.Off {
			return true
		}
	}
	for _, set := range s.Policies {
		if slices.ContainsFunc(set.Rules, func(r policy.Rule) bool { return len(r.Requests) > 0 }) {
			return true
		}
	}
	return false
}

// Node is the data path of a node that does not exist.
type Node struct {
	*datapath.Datapath
	given  *snapshot.Snapshot
	state  datapath.State
	addr   netip.Addr
	asks   chan func()
	closed chan struct{}
	ifaces map[string]bool
}

// New makes the node of a snapshot, with an interface for every Workload that
// the snapshot places there.
func New(s *snapshot.Snapshot) (*Node, error) {
	n := &Node{addr: s.Nodes[s.Node].Address, asks: make(chan func()), closed: make(chan struct{}), ifaces: map[string]bool{}}
	if !n.addr.IsValid() {
		n.addr = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	ready := make(chan error)
	go n.live(ready)
	if err := <-ready; err != nil {
		<-n.closed
		return nil, fmt.Errorf("make a node to prove on: %w", err)
	}
	if err := errors.Join(n.Apply(s), n.ProxyUp(true)); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// live is the thread in the node's namespace; it ends with the node, and the
// namespace with it.
func (n *Node) live(ready chan<- error) {
	defer close(n.closed)
	runtime.LockOSThread() // never unlocked: the thread is of no use elsewhere
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = n.setUp()
	}
	ready <- err
	if err != nil {
		return
	}
	for ask := range n.asks {
		ask()
	}
}

func (n *Node) setUp() error {
	if err := pair("up0", 1500); err != nil {
		return err
	}
	l, err := netlink.LinkByName("up0")
	if err != nil {
		return err
	}
	bits := n.addr.BitLen()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: n.addr.AsSlice(), Mask: net.CIDRMask(bits, bits)}}
	if n.addr.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("give the uplink its address: %w", err)
	}
	n.Datapath, err = datapath.Open(datapath.Config{Node: "proving", Address: n.addr, Uplink: "up0", ConntrackMax: 4096, Ephemeral: true})
	return err
}

func pair(name string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "x" + name[1:]}); err != nil {
		return fmt.Errorf("make interface %s: %w", name, err)
	}
	return nil
}

// in runs f on the node's thread.
func (n *Node) in(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.asks <- func() { result <- f() }:
		return <-result
	case <-n.closed:
		return errors.New("the node to prove on is closed")
	}
}

// Apply makes the node what the snapshot wants. With the snapshot that it has,
// what somebody else changed in its tables is repaired.
func (n *Node) Apply(s *snapshot.Snapshot) error {
	if s != n.given {
		n.given, n.state = s, stateOf(s)
	}
	return n.in(func() error {
		for _, l := range n.state.Locals {
			if !n.ifaces[l.Host] {
				if err := pair(l.Host, 1500); err != nil {
					return err
				}
				n.ifaces[l.Host] = true
			}
		}
		if err := n.Grow(n.state); err != nil {
			return err
		}
		return n.Shrink(n.state)
	})
}

// stateOf renames the node: the data path goes by the name in its configuration.
func stateOf(s *snapshot.Snapshot) datapath.State {
	renamed := *s
	renamed.Node = "proving"
	renamed.Endpoints = make(map[snapshot.Addr]snapshot.Endpoint, len(s.Endpoints))
	for a, e := range s.Endpoints {
		if e.Node == s.Node {
			e.Node = "proving"
		}
		renamed.Endpoints[a] = e
	}
	renamed.Chains = make(map[snapshot.ChainKey]snapshot.Chain, len(s.Chains))
	for k, c := range s.Chains {
		c.Hops = slices.Clone(c.Hops)
		for i := range c.Hops {
			c.Hops[i].Node = renamedNode(s, c.Hops[i].Node)
		}
		renamed.Chains[k] = c
	}
	renamed.Services = make(map[snapshot.ServiceKey]snapshot.Service, len(s.Services))
	for k, v := range s.Services {
		v.Backends, v.Leaving = renamedBackends(s, v.Backends), renamedBackends(s, v.Leaving)
		renamed.Services[k] = v
	}
	return datapath.State{Snapshot: &renamed, Locals: localsOf(&renamed), Proxies: []datapath.Proxy{{Name: proxyName, Workers: 1}}}
}

func renamedNode(s *snapshot.Snapshot, node string) string {
	if node == s.Node {
		return "proving"
	}
	return node
}

func renamedBackends(s *snapshot.Snapshot, backends []snapshot.Backend) []snapshot.Backend {
	out := slices.Clone(backends)
	for i := range out {
		out[i].Node = renamedNode(s, out[i].Node)
	}
	return out
}

// localsOf gives every Workload of the node one interface per Network.
func localsOf(s *snapshot.Snapshot) []datapath.Local {
	proxy := ""
	if asksForProxies(s) {
		proxy = proxyName
	}
	byKey := map[snapshot.AttachmentKey]*datapath.Local{}
	for _, e := range s.Endpoints {
		if e.Node != s.Node || e.Home.IP.IsValid() {
			continue
		}
		k := snapshot.AttachmentKey{Project: e.Project, Workload: e.Workload, Network: s.Networks[e.Addr.VNI].Name}
		l, ok := byKey[k]
		if !ok {
			l = &datapath.Local{Key: k, VNI: e.Addr.VNI, MAC: e.MAC, Host: datapath.HostName(s.Node, k), Proxy: proxy}
			byKey[k] = l
		}
		l.Addrs = append(l.Addrs, e.Addr.IP)
	}
	out := make([]datapath.Local, 0, len(byKey))
	for _, l := range byKey {
		slices.SortFunc(l.Addrs, netip.Addr.Compare)
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b datapath.Local) int { return a.Key.Compare(b.Key) })
	return out
}

// Host is the name of the interface that has the address, "" when it is not here.
func (n *Node) Host(a snapshot.Addr) string {
	for _, l := range n.state.Locals {
		if l.VNI == a.VNI && slices.Contains(l.Addrs, a.IP) {
			return l.Host
		}
	}
	return ""
}

// Ask judges a packet inside a Network, as its source would send it: from its
// interface when it is here, in VXLAN from its node when it is not. MACs that
// are not set are the right ones.
func (n *Node) Ask(vni snapshot.VNI, p Packet) (datapath.Judgement, error) {
	src, ok := n.state.Snapshot.Endpoints[snapshot.Addr{VNI: vni, IP: p.Src}]
	if !ok {
		return datapath.Judgement{}, fmt.Errorf("%s is no endpoint of network %d", p.Src, vni)
	}
	if p.SrcMAC == (snapshot.MAC{}) {
		p.SrcMAC = src.MAC
	}
	if p.DstMAC == (snapshot.MAC{}) {
		p.DstMAC = snapshot.RouterMAC
		if dst, ok := n.state.Snapshot.Endpoints[snapshot.Addr{VNI: vni, IP: p.Dst}]; ok {
			p.DstMAC = dst.MAC
		}
	}
	if host := n.Host(src.Addr); host != "" {
		if p.Spoken {
			return n.judge(n.JudgeSpoken, host, p.Frame())
		}
		return n.Frame(host, p.Frame())
	}
	from := n.state.Snapshot.Nodes[src.Node].Address
	if !from.IsValid() {
		return datapath.Judgement{}, fmt.Errorf("node %s of %s has no address", src.Node, p.Src)
	}
	return n.Frame(datapath.Uplink, Encapsulate(from, n.addr, vni, p.Frame()))
}

// Frame judges a frame from an interface, by host side name, or from
// datapath.Uplink.
func (n *Node) Frame(from string, frame []byte) (datapath.Judgement, error) {
	return n.judge(n.Judge, from, frame)
}

func (n *Node) judge(ask func(string, []byte) (datapath.Judgement, error), from string, frame []byte) (j datapath.Judgement, err error) {
	err = n.in(func() error {
		j, err = ask(from, frame)
		return err
	})
	return j, err
}

// ProxyUp says whether the proxy of all Workloads takes connections; it does at first.
func (n *Node) ProxyUp(up bool) error {
	return n.in(func() error { return n.Datapath.ProxyUp(proxyName, up) })
}

// Close removes the node.
func (n *Node) Close() error {
	var err error
	if n.Datapath != nil {
		err = n.Datapath.Close()
	}
	close(n.asks)
	<-n.closed
	return err
}
