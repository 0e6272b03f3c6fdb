package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"time"

	"moire.dev/moire/datapath"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/lab"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// world is one node of Moiré's data path, without a control plane, with a client
// and a server on it.
type world struct {
	*datapath.Datapath
	client, server, node string
	runDir               string
	state                datapath.State
	stop                 func()
	done                 chan error
}

const benchVNI = 100

// newWorld has n Services, or n rules of Policies for the client, or n Networks.
func newWorld(ctx context.Context, kind string, n int) (*world, error) {
	tag := fmt.Sprintf("%s-m%c%d", prefix, kind[0]+'a'-'A', n)
	w := &world{client: tag + "c", server: tag + "s", node: tag, runDir: "/run/" + tag}
	err := sh(fmt.Sprintf(`for n in %s %s %s; do ip netns add $n; ip -n $n link set lo up; done
ip -n %s link add up0 type veth peer name up1; ip -n %s addr add 198.18.80.1/24 dev up0; ip -n %s link set up0 up; ip -n %s link set up1 up`,
		w.node, w.client, w.server, w.node, w.node, w.node, w.node))
	if err != nil {
		return nil, err
	}
	err = lab.InNetns("/run/netns/"+w.node, func() (err error) {
		if err := datapath.Cleanup(w.runDir, "bench"); err != nil {
			return err
		}
		w.Datapath, err = datapath.Open(datapath.Config{Node: "bench", RunDir: w.runDir, Address: netip.MustParseAddr("198.18.80.1")})
		return err
	})
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	w.stop, w.done = stop, make(chan error, 1)
	go func() { w.done <- w.Run(running, func(record.Record) {}, func(snapshot.Captured) {}) }()
	s := w.snapshot()
	switch kind {
	case "Services":
		for i := range n {
			v := serviceOf(i, serverOne, serverTwo)
			s.Services[v.ServiceKey] = v
		}
	case "Policies":
		for i := range n { // each selects a Workload of its own; the last one the client
			s.Policies[snapshot.PolicyKey{VNI: benchVNI, Identity: policy.Identity(1000 + i), Direction: policy.Egress}] = setOf(i)
		}
		s.Policies[snapshot.PolicyKey{VNI: benchVNI, Identity: 11, Direction: policy.Egress}] = setOf(n)
	case "Networks":
		for i := range n {
			vni := snapshot.VNI(1000 + i)
			s.Networks[vni] = snapshot.Network{VNI: vni, Project: "bench", Name: fmt.Sprint("n", i), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
			a := snapshot.Addr{VNI: vni, IP: netip.MustParseAddr(serverOne)}
			s.Endpoints[a] = snapshot.Endpoint{Addr: a, Project: "bench", Workload: "there", MAC: snapshot.MAC{2, 2}, Identity: 13, Node: "other"}
		}
	}
	for _, p := range []struct {
		ns, name string
		id       policy.Identity
		addrs    []string
	}{{w.client, "client", 11, []string{"10.1.0.2"}}, {w.server, "server", 12, []string{serverOne, serverTwo}}} {
		if err := w.plug(s, p.ns, p.name, p.id, p.addrs); err != nil {
			return w, err
		}
	}
	w.state.Snapshot = s
	return w, errors.Join(w.Grow(w.state), w.Shrink(w.state))
}

func (w *world) snapshot() *snapshot.Snapshot {
	return &snapshot.Snapshot{
		Node:       "bench",
		Nodes:      map[string]snapshot.Node{"other": {Name: "other", Address: netip.MustParseAddr("198.18.80.2")}},
		Networks:   map[snapshot.VNI]snapshot.Network{benchVNI: {VNI: benchVNI, Project: "bench", Name: "net", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}},
		Identities: map[policy.Identity]snapshot.Identity{}, Endpoints: map[snapshot.Addr]snapshot.Endpoint{},
		Policies: map[snapshot.PolicyKey]policy.Set{}, Services: map[snapshot.ServiceKey]snapshot.Service{},
	}
}

// plug makes a workload with its address and an open policy, and a route to the
// Service addresses.
func (w *world) plug(s *snapshot.Snapshot, ns, name string, id policy.Identity, addrs []string) error {
	l := datapath.Local{Key: snapshot.AttachmentKey{Project: "bench", Workload: name, Network: "net"}, VNI: benchVNI, MAC: snapshot.MAC{2, 0, 0, 0, 0, byte(id)}}
	l.Host = datapath.HostName("bench", l.Key)
	for _, a := range addrs {
		at := snapshot.Addr{VNI: benchVNI, IP: netip.MustParseAddr(a)}
		l.Addrs = append(l.Addrs, at.IP)
		s.Endpoints[at] = snapshot.Endpoint{Addr: at, Project: "bench", Workload: name, MAC: l.MAC, Identity: id, Node: "bench"}
	}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		k := snapshot.PolicyKey{VNI: benchVNI, Identity: id, Direction: d}
		if _, ok := s.Policies[k]; !ok {
			s.Policies[k] = policy.Set{Default: policy.DefaultRule{ID: "default/bench/net/open", Allow: true}}
		}
	}
	w.state.Locals = append(w.state.Locals, l)
	return lab.InNetns("/run/netns/"+w.node, func() error {
		return datapath.Plug(datapath.PlugConfig{
			Node: "bench", Key: l.Key, Host: l.Host, Netns: "/run/netns/" + ns, IfName: "e0", MAC: l.MAC, Addrs: l.Addrs,
			Prefixes: s.Networks[benchVNI].Prefixes, MTU: 1450,
		})
	})
}

func serviceOf(i int, backends ...string) snapshot.Service {
	at := snapshot.Addr{VNI: benchVNI, IP: netip.MustParseAddr(serviceAddress(i))}
	v := snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: at, Protocol: policy.TCP, Port: servicePort}, Project: "bench", Name: fmt.Sprint("s", i)}
	for _, b := range backends {
		v.Backends = append(v.Backends, snapshot.Backend{Addr: snapshot.Addr{VNI: benchVNI, IP: netip.MustParseAddr(b)}, Port: servicePort, Weight: 1, Node: "bench"})
	}
	return v
}

// setOf is what the i-th Policy makes: some rules, and one that allows the server.
func setOf(i int) policy.Set {
	s := policy.Set{Isolated: "isolated/bench/p/egress", Default: policy.DefaultRule{ID: "default/bench/net/open", Allow: true}}
	for j := range 4 {
		s.Rules = append(s.Rules, policy.Rule{
			ID: policy.RuleID(fmt.Sprintf("policy/bench/p%d/egress/%d", i, j)), Tier: policy.Project, Action: policy.Deny,
			Peers: []policy.Peer{{Identities: []policy.Identity{policy.Identity(100 + j)}}}, Ports: []policy.PortRange{{Protocol: policy.TCP, First: servicePort, Last: servicePort}},
		})
	}
	s.Rules = append(s.Rules, policy.Rule{ID: "policy/bench/server/egress/0", Tier: policy.Project, Action: policy.Allow, Peers: []policy.Peer{{Identities: []policy.Identity{12}}}})
	return s
}

// change gives one Service other backends, as the agent does when a snapshot
// comes, and says how long it took until they are asked; rows is how many were
// written. What is left over is removed after that.
func (w *world) change(i, round int, rows *uint64) (time.Duration, error) {
	backends := [][]string{{serverOne, serverTwo}, {serverOne}}[round%2]
	v := serviceOf(i, backends...)
	next := *w.state.Snapshot // never changes, like every one
	next.Services = maps.Clone(next.Services)
	next.Services[v.ServiceKey] = v
	return w.apply(&next, rows)
}

// again applies a snapshot in which nothing changed.
func (w *world) again() (time.Duration, error) {
	next := *w.state.Snapshot
	return w.apply(&next, new(uint64))
}

func (w *world) apply(s *snapshot.Snapshot, rows *uint64) (time.Duration, error) {
	w.state.Snapshot = s
	before, began := w.Writes(), time.Now()
	err := w.Grow(w.state)
	took := time.Since(began)
	*rows = w.Writes() - before
	return took, errors.Join(err, w.Shrink(w.state))
}

func (w *world) close() error {
	w.stop()
	return errors.Join(<-w.done, w.Close(), lab.InNetns("/run/netns/"+w.node, func() error { return datapath.Cleanup(w.runDir, "bench") }),
		os.RemoveAll(w.runDir))
}
