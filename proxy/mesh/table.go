package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"unsafe"

	"moire.dev/moire/snapshot/l7"
	"moire.dev/moire/snapshot/policy"
)

// Table is the mesh of one configuration, ready to be looked up in. It never
// changes, and any number of workers may use it.
type Table struct {
	// Workloads in the order of the configuration.
	Workloads []*Workload

	named      map[interfaceKey]*Workload
	namespaces map[string][]*Workload
	peers      map[place]*Peer
	frontends  map[frontend]int
	asking     map[int][]string // Listener -> l7.Listener.Asking, where there is one
}

// Workload is one interface that the proxy speaks for.
type Workload struct {
	*l7.Workload
	Index int
	// Meshed: not off. Strict: plain callers are refused.
	Meshed, Strict bool
	// Out and In decide: egress, ingress.
	Out, In *policy.Decider

	view  int
	gate  int // view of what comes to it; -1: its application
	ports map[uint16]l7.Protocol
}

// Peer is who is at an address.
type Peer struct {
	*l7.Peer
	// Own is the Workload of ours that is there, in this very Network; nil: none.
	Own *Workload
}

// place is an address of a Network.
type place struct {
	vni     uint32
	address netip.Addr
}

// interfaceKey names an interface.
type interfaceKey struct {
	vni  uint32
	name string
}

// frontend is an address of a Service as the Workloads of a View see it.
type frontend struct {
	view int
	at   netip.AddrPort
}

// Build makes the Table of a configuration that has a Mesh.
func Build(cfg *l7.Config) (*Table, error) {
	m := cfg.Mesh
	t := &Table{named: make(map[interfaceKey]*Workload, len(m.Workloads)), namespaces: map[string][]*Workload{},
		peers: make(map[place]*Peer, len(m.Peers)), frontends: make(map[frontend]int, len(cfg.Listeners)), asking: map[int][]string{}}
	views := map[string]int{}
	view := func(name string) int {
		n, ok := views[name]
		if !ok {
			n = len(views)
			views[name] = n
		}
		return n
	}
	ready := deciders{}
	for i := range m.Workloads {
		c := &m.Workloads[i]
		w := &Workload{Workload: c, Index: i, view: view(c.View), Out: ready.of(&c.Egress), In: ready.of(&c.Ingress), gate: -1, ports: make(map[uint16]l7.Protocol, len(c.Ports))}
		switch c.Mode {
		case "", "off":
		case "permissive":
			w.Meshed = true
		case "strict":
			w.Meshed, w.Strict = true, true
		default:
			return nil, fmt.Errorf("mesh.workloads[%d].mode: %q is none of off, permissive, strict", i, c.Mode)
		}
		if c.Gateway != "" {
			w.gate = view(c.Gateway)
		}
		for _, p := range c.Ports {
			w.ports[p.Port] = p.Protocol
		}
		key := interfaceKey{c.VNI, c.Name}
		if t.named[key] != nil {
			return nil, fmt.Errorf("mesh.workloads[%d]: %s is in network %d twice", i, c.Name, c.VNI)
		}
		t.named[key] = w
		t.namespaces[c.Namespace] = append(t.namespaces[c.Namespace], w)
		t.Workloads = append(t.Workloads, w)
	}
	t.addPeers(m)
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if l.View == "" {
			continue
		}
		at, err := netip.ParseAddrPort(l.Address)
		if err != nil {
			return nil, fmt.Errorf("listeners[%d].address: %q is not an IP address and port", i, l.Address)
		}
		key := frontend{view(l.View), netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}
		if _, ok := t.frontends[key]; !ok { // the first of those that share an address speaks for all
			t.frontends[key] = i
		}
		if len(l.Asking) > 0 {
			t.asking[i] = l.Asking
		}
	}
	return t, nil
}

func (t *Table) addPeers(m *l7.Mesh) {
	own := map[place]*Workload{}
	for _, w := range t.Workloads {
		for _, a := range w.Addresses {
			own[place{w.VNI, a}] = w
		}
	}
	all := make([]Peer, len(m.Peers))
	for i := range m.Peers {
		p := &m.Peers[i]
		at := place{p.VNI, p.Address}
		all[i].Peer = p
		if !p.Home.IsValid() { // what is linked is reached through the network, perhaps by functions
			all[i].Own = own[at]
		}
		t.peers[at] = &all[i]
	}
}

// In is the Workload with this address in a namespace; nil: there is none.
func (t *Table) In(namespace string, address netip.Addr) *Workload {
	for _, w := range t.namespaces[namespace] {
		for _, a := range w.Addresses {
			if a == address {
				return w
			}
		}
	}
	return nil
}

// Peer is who is at an address of a Network; nil: unknown.
func (t *Table) Peer(vni uint32, address netip.Addr) *Peer { return t.peers[place{vni, address}] }

// Frontend is the index of the Listener that takes what w sends there; -1: none.
func (t *Table) Frontend(w *Workload, to netip.AddrPort) int { return t.listener(w.view, to) }

// Gate is the index of the Listener that takes what comes to a Gateway there; -1:
// none.
func (t *Table) Gate(w *Workload, at netip.AddrPort) int { return t.listener(w.gate, at) }

// listener is the index of the first Listener of a View at an address.
func (t *Table) listener(view int, at netip.AddrPort) int {
	if i, ok := t.frontends[frontend{view, at}]; ok {
		return i
	}
	return -1
}

// IsGateway: there is no application.
func (w *Workload) IsGateway() bool { return w.gate >= 0 }

// Bytes says whether w sends bytes to a Listener whose Protocol is that of others.
func (t *Table) Bytes(w *Workload, listener int) bool {
	all, only := t.asking[listener]
	return only && !slices.Contains(all, w.Name)
}

// Same is the Workload of this Table that one of another Table is; nil: it is no
// more.
func (t *Table) Same(w *Workload) *Workload {
	if t == nil {
		return nil
	}
	if n := t.named[interfaceKey{w.VNI, w.Name}]; n != nil && n.Namespace == w.Namespace {
		return n
	}
	return nil
}

// String is network id and name, by which w is told from all others.
func (w *Workload) String() string { return strconv.FormatUint(uint64(w.VNI), 10) + "/" + w.Name }

// Port is what is spoken on a port; empty: nothing was declared.
func (w *Workload) Port(port uint16) l7.Protocol { return w.ports[port] }

// deciders are Sets made ready, those of one content that share their memory
// once.
type deciders map[sameSet]*policy.Decider

type sameSet struct {
	rules    *policy.Rule
	n        int
	isolated policy.RuleID
	audit    policy.RuleID
	last     policy.DefaultRule
}

func (d deciders) of(s *policy.Set) *policy.Decider {
	key := sameSet{unsafe.SliceData(s.Rules), len(s.Rules), s.Isolated, s.AuditIsolated, s.Default}
	if d[key] == nil {
		d[key] = s.Decider()
	}
	return d[key]
}
