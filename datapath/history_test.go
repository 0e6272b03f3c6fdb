package datapath

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestHistory: after some hundred random operations (Grow, Shrink, agents that die
// between any two of them or half-way) the kernel holds what a node holds that
// was only ever told the last State.
func TestHistory(t *testing.T) {
	w := newWorld(t)
	w.underlay("192.168.77.", "fd77::")
	n := w.node("a", "moire-dp-a", "192.168.77.1")
	w.network(100, "acme", "10.1.0.0/24", "fd10:1::/64")
	w.network(200, "rival", "10.1.0.0/24")
	for i := range 4 {
		vni, project := snapshot.VNI(100+100*(i%2)), []string{"acme", "rival"}[i%2]
		w.workload("a", project, fmt.Sprint("w", i), vni, policy.Identity(11+i), fmt.Sprint("10.1.0.", 2+i))
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("seed", seed)
		}
	})
	var s State
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for step := 1; step <= often(1000, 200); step++ {
		if s.Snapshot == nil || r.IntN(4) > 0 {
			s = w.randomState(r, n)
		}
		must(n.Grow(s))
		switch r.IntN(40) {
		case 0: // it dies after Grow
			must(n.Close())
			n.open()
		case 1: // it dies while it makes what the next State wants
			next := w.randomState(r, n)
			must(n.dieHalfway(next, r.IntN(4)))
			n.open()
		default:
			if r.IntN(3) > 0 {
				must(n.Shrink(s))
			}
		}
		if step%50 == 0 {
			must(errors.Join(n.Grow(s), n.Shrink(s)))
			w.compareWithFresh(n, s, step)
			if t.Failed() {
				return
			}
		}
	}
}

// dieHalfway writes some of what a State wants, and lets go.
func (n *testNode) dieHalfway(s State, tables int) error {
	err := n.locked(func() error {
		want, err := n.compute(s, false)
		if err != nil {
			return err
		}
		t := n.tables
		for i, grow := range []func() error{
			func() error { return t.nodes.grow(want.nodes) }, func() error { return t.vteps.grow(want.vteps) },
			func() error { return t.routes.grow(want.routes) }, func() error { return n.services.grow(want.of, false) },
		} {
			if i < tables {
				err = errors.Join(err, grow())
			}
		}
		return err
	})
	return errors.Join(err, n.Close())
}

// randomState has some of the interfaces, other nodes, endpoints and policies.
func (w *world) randomState(r *rand.Rand, n *testNode) State {
	some := func() bool { return r.IntN(3) > 0 }
	s := w.snapshot("a")
	if r.IntN(8) == 0 {
		delete(s.Networks, 200)
	}
	for i := range 6 {
		if some() {
			name := fmt.Sprint("n", i)
			s.Nodes[name] = snapshot.Node{Name: name, Address: netip.AddrFrom4([4]byte{192, 168, 77, byte(10 + (i+r.IntN(2))%6)})}
		}
	}
	for i := range 30 {
		vni := snapshot.VNI(100 + 100*(i%2))
		a := snapshot.Addr{VNI: vni, IP: netip.AddrFrom4([4]byte{10, 1, 0, byte(50 + i)})}
		if some() {
			s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "p", Workload: fmt.Sprint("far", i), MAC: snapshot.MAC{2, 9, 0, 0, 0, byte(i)},
				Identity: policy.Identity(50 + r.IntN(4)), Node: fmt.Sprint("n", r.IntN(6))}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Endpoints), snapshot.Addr.Compare) {
		if r.IntN(8) == 0 {
			delete(s.Endpoints, a)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Policies), snapshot.PolicyKey.Compare) {
		switch r.IntN(4) {
		case 0:
			delete(s.Policies, k)
		case 1, 2:
			s.Policies[k] = someSet(r)
		}
	}
	var locals []Local
	for _, l := range n.locals {
		if some() {
			locals = append(locals, l)
		}
	}
	s.Services = someServices(r)
	return State{Snapshot: s, Locals: locals}
}

// someSet is one of some hundred.
func someSet(r *rand.Rand) policy.Set {
	set := policy.Set{Default: policy.DefaultRule{ID: "default/history", Allow: r.IntN(2) == 0}}
	for i := range r.IntN(3) {
		set.Rules = append(set.Rules, policy.Rule{
			ID: policy.RuleID(fmt.Sprint("rule/", i, "/", r.IntN(3))), Tier: policy.Project, Action: policy.Allow,
			Peers: []policy.Peer{{Anyone: true, CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, 0}), 24+r.IntN(4)).Masked()}},
			Ports: []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: uint16(80 + r.IntN(3))}},
		})
	}
	return set
}

// compareWithFresh compares with a node that has no history.
func (w *world) compareWithFresh(n *testNode, s State, step int) {
	t := w.t
	t.Helper()
	var fresh *Datapath
	inNetns(t, n.ns, func() (err error) {
		fresh, err = Open(Config{Node: "a", Address: n.addr, ConntrackMax: 4096, Ephemeral: true})
		return err
	})
	defer fresh.Close()
	err := fresh.locked(func() error {
		want, err := fresh.compute(s, false)
		if err != nil {
			return err
		}
		return fresh.growTables(want, false)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, want := n.canonical(t), fresh.canonical(t)
	if got != want {
		t.Errorf("step %d: with history\n%s\nfresh\n%s", step, got, want)
	}
	pins := []string{loopbackPin, uplinkPin}
	for _, l := range s.Locals {
		pins = append(pins, ifacePin+l.Host)
	}
	entries, err := os.ReadDir(n.linkDir())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(pins)
	if !slices.Equal(names, pins) {
		t.Errorf("step %d: pins %v, want %v", step, names, pins)
	}
}

// canonical is what the tables mean: without the numbers of sets, nodes and
// rules, which depend on history.
func (d *Datapath) canonical(t testing.TB) string {
	t.Helper()
	var out []string
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	err := d.locked(func() error {
		if err := d.readTables(); err != nil {
			return err
		}
		set := func(id uint32) string {
			row, ok := d.sets.sets.rows[id]
			if !ok && id != 0 {
				return "missing"
			}
			return fmt.Sprintf("%x", row.Digest[:6])
		}
		node := func(i uint32) string {
			row := d.tables.nodes.rows[i]
			return fmt.Sprint(ipOf(row.Addr), row.Csum, row.Onlink)
		}
		rule := func(i uint32) policy.RuleID { return d.rules.names[i] }
		for k, v := range d.tables.ifaces.rows {
			line("iface %d %+v", k, v)
		}
		for k, v := range d.tables.networks.rows {
			line("network %d %d", k, v)
		}
		for k, v := range d.tables.routes.rows {
			line("route %d %s %d", k.Vni, prefixOf(k), v)
		}
		for k, v := range d.tables.vteps.rows {
			line("vtep %s %s", ipOf(k), node(v))
		}
		known := 0
		for _, v := range d.tables.nodes.rows {
			if v != (bpf.MoireNode{}) {
				known++
			}
		}
		line("nodes %d", known)
		for k, v := range d.tables.endpoints.rows {
			line("endpoint %d %s if %d node %s identity %d egress %s ingress %s mac %s self %v", k.Vni, ipOf(k.Addr), v.Ifindex, node(v.Node),
				v.Identity, set(v.Egress), set(v.Ingress), net.HardwareAddr(v.Mac[:]), v.Self == k)
		}
		for id := range d.sets.sets.rows {
			line("set %s", set(id))
		}
		for k, v := range d.sets.classes.rows {
			line("class %s %s %d", set(k.Vni), prefixOf(k), v)
		}
		for k, v := range d.sets.entries.rows {
			line("entry %s %d %d %d %v %d allow %d %s shadow %d %s tier %d", set(k.Set), k.Class, k.Identity, k.Proto, k.Port, k.Bits,
				v.Allow, rule(v.Rule), v.ShadowAllow, rule(v.Shadow), v.Tier)
		}
		d.canonicalServices(line)
		c := d.tables.control.rows[0]
		c.Epoch = 0
		line("control %+v", c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
