package lab

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/datapath"
	"moire.dev/moire/lab/scenario"
	"moire.dev/moire/snapshot"
)

// TestScenariosKernel is stage 2: every scenario against the real eBPF
// programs under BPF_PROG_RUN, on three nodes that live through all of them.
func TestScenariosKernel(t *testing.T) {
	needRoot(t)
	all, err := scenario.Read(os.DirFS("scenario"), ".")
	if err != nil {
		t.Fatal(err)
	}
	k := newKernel(t)
	for _, s := range all {
		if why := s.Not[2]; why != "" {
			t.Logf("%s is not for this stage: %s", s.Name, why)
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			k.objects, k.World = map[string]runtime.Object{}, scenario.NewWorld()
			if err := scenario.Run(s, k); err != nil {
				t.Error(err)
			}
		})
	}
}

// kernel is the Runner of stage 2.
type kernel struct {
	scenario.World
	nodes    map[string]*kernelNode
	objects  map[string]runtime.Object
	snaps    map[string]*snapshot.Snapshot
	problems []v1alpha1.Problem
	port     uint16
}

type kernelNode struct {
	*datapath.Datapath
	name, netns, sink string
	addr              netip.Addr
	plugged           map[string]bool
}

func newKernel(t *testing.T) *kernel {
	k := &kernel{nodes: map[string]*kernelNode{}, port: 20000}
	run := t.TempDir()
	for i, name := range []string{"n1", "n2", "n3"} {
		node := testNode(t, "k-"+name, fmt.Sprintf("198.18.61.%d", i+1))
		sink := testNode(t, "k-sink-"+name, "198.18.61.9")
		n := &kernelNode{name: name, netns: node.Netns, sink: sink.Netns, addr: node.Address, plugged: map[string]bool{}}
		// The uplink is one end of a pair whose other end nobody reads.
		err := InNetns(n.netns, func() error {
			return sh("ip link add up0 type veth peer name away; ip link set away up; ip link set lo up; ip addr add " + n.addr.String() + "/24 dev up0; ip link set up0 up")
		})
		if err != nil {
			t.Fatal(err)
		}
		err = InNetns(n.netns, func() (err error) {
			n.Datapath, err = datapath.Open(datapath.Config{Node: name, RunDir: run, Address: n.addr, ConntrackMax: 4096, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			n.Close()
			if err := InNetns(n.netns, func() error { return datapath.Cleanup(run, name) }); err != nil {
				t.Error(err)
			}
		})
		k.nodes[name] = n
	}
	t.Cleanup(func() {
		if err := unmountUnder(run); err != nil {
			t.Error(err)
		}
	})
	return k
}

// Apply compiles the objects and makes every node's kernel match.
func (k *kernel) Apply(put, del []runtime.Object) error {
	for _, o := range del {
		delete(k.objects, scenario.ID(o))
	}
	for _, o := range put {
		k.objects[scenario.ID(o)] = o
	}
	return k.compile()
}

func (k *kernel) compile() error {
	var objects []runtime.Object
	for _, o := range k.objects {
		objects = append(objects, o)
	}
	in := compile.Offline(objects...)
	k.Set(in)
	for name, n := range k.nodes {
		if old := in.Nodes[name]; old != nil {
			moved := old.DeepCopy()
			moved.Spec.Address = n.addr.String()
			in.Nodes[name] = moved
		}
	}
	k.snaps, k.problems = compile.Compile(in)
	for name, n := range k.nodes {
		snap := k.snaps[name]
		if snap == nil {
			snap = &snapshot.Snapshot{Node: name}
		}
		if err := n.match(snap); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	return nil
}

// Move is a change of intent like any other here.
func (k *kernel) Move(w *v1alpha1.Workload) error { return k.Apply([]runtime.Object{w}, nil) }

// Health is a fact that the next compile gets.
func (k *kernel) Health(workload string, well bool) error {
	k.Ill(workload, !well)
	return k.compile()
}

// Away is a fact that the next compile gets.
func (k *kernel) Away(node string, away bool) error {
	k.Gone(node, away)
	return k.compile()
}

// Answer is a fact that the next compile gets.
func (k *kernel) Answer(name string, addrs []netip.Addr) error {
	k.Resolves(name, addrs)
	return k.compile()
}

// match plugs every endpoint of the node into its sink and applies.
func (n *kernelNode) match(snap *snapshot.Snapshot) error {
	at := map[snapshot.AttachmentKey]*datapath.Local{}
	for a, e := range snap.Endpoints {
		if e.Node != n.name || e.Home.IP.IsValid() {
			continue
		}
		key := snapshot.AttachmentKey{Project: e.Project, Workload: e.Workload, Network: snap.Networks[a.VNI].Name}
		l := at[key]
		if l == nil {
			l = &datapath.Local{Key: key, VNI: a.VNI, MAC: e.MAC, Host: datapath.HostName(n.name, key)}
			at[key] = l
		}
		l.Addrs = append(l.Addrs, a.IP)
	}
	state := datapath.State{Snapshot: snap}
	for key, l := range at {
		state.Locals = append(state.Locals, *l)
		c := datapath.PlugConfig{Node: n.name, Key: key, Host: l.Host, Netns: n.sink, IfName: "w" + l.Host[2:],
			MAC: l.MAC, Addrs: l.Addrs, Prefixes: snap.Networks[l.VNI].Prefixes}
		if err := InNetns(n.netns, func() error { return datapath.Plug(c) }); err != nil {
			return err
		}
		n.plugged[l.Host] = true
	}
	err := InNetns(n.netns, func() error { return errors.Join(n.Grow(state), n.Shrink(state)) })
	if err != nil {
		return err
	}
	return n.unplugOthers(state)
}

func (n *kernelNode) unplugOthers(state datapath.State) error {
	wanted := map[string]bool{}
	for _, l := range state.Locals {
		wanted[l.Host] = true
	}
	for host := range n.plugged {
		if wanted[host] {
			continue
		}
		if err := InNetns(n.netns, func() error { return datapath.Unplug(host) }); err != nil {
			return err
		}
		delete(n.plugged, host)
	}
	return n.Forget()
}

var protocols = map[string]uint8{"icmp": protoICMP, "tcp": protoTCP, "udp": protoUDP, "sctp": protoSCTP}

// judge asks from inside the node's namespace, where its interfaces are.
func (n *kernelNode) judge(from string, packet []byte) (j datapath.Judgement, err error) {
	err = InNetns(n.netns, func() error {
		j, err = n.Judge(from, packet)
		return err
	})
	return j, err
}
