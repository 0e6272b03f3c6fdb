package node

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"

	"moire.dev/moire/datapath"
	"moire.dev/moire/flow/record"
	"moire.dev/moire/node/mesh"
	"moire.dev/moire/snapshot"
)

// kernel is the first applier and the wiring: the room datapath in the words
// of this one.
type kernel struct {
	cfg Config
	dp  *datapath.Datapath
	// What the node is and knows beside the snapshot; set before the first Grow.
	presence *presence
	learned  *learned
	proxying *proxying
	// grown is what Grow brought last, for Shrink: what is learned between the
	// two must not take away what is in use.
	grown datapath.State
	// ports of the control planes known last, sorted.
	ports []uint16
}

func openKernel(cfg Config, log *slog.Logger) (*kernel, error) {
	dp, err := datapath.Open(datapath.Config{
		Node: cfg.Name, RunDir: cfg.RunDir, Uplink: cfg.Uplink, Address: cfg.Address,
		ConntrackMax: cfg.ConntrackMax, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return &kernel{cfg: cfg, dp: dp}, nil
}

func (k *kernel) Name() string { return "datapath" }

func (k *kernel) Grow(s State) error {
	k.grown = k.inKernel(s)
	if err := k.dp.Grow(k.grown); err != nil {
		return err
	}
	k.learned.confirm(s.change)
	return nil
}

// Shrink follows a Grow of the same State.
func (k *kernel) Shrink(State) error { return k.dp.Shrink(k.grown) }

func (k *kernel) Dump(w io.Writer) error { return k.dp.Dump(w) }

// inKernel is the State as the kernel can have it.
func (k *kernel) inKernel(s State) (out datapath.State) {
	out.Snapshot = k.proxying.ejected.without(s.InForce)
	out.Presence = k.presence.present()
	for _, g := range k.proxying.proxies.Groups() {
		out.Proxies = append(out.Proxies, datapath.Proxy{Name: g.Name, Cgroup: g.Cgroup, Workers: g.Workers})
	}
	out.ControlPorts = k.controlPorts()
	for i := range s.Locals {
		l := &s.Locals[i]
		out.Locals = append(out.Locals, datapath.Local{Key: l.Key, VNI: l.VNI, Addrs: l.Addrs, MAC: l.MAC, Host: l.Host, Tap: l.Tap, DHCP: l.DHCP,
			Netns: l.Netns, Proxy: k.proxying.proxyOf(l), Gateway: l.Gateway, Ports: mesh.Ports(s.InForce, l.asMesh())})
	}
	return out
}

// controlPorts of the servers that this node joins by. What was known is kept
// while nobody says otherwise: the file goes away with the control plane.
func (k *kernel) controlPorts() []uint16 {
	servers := k.cfg.Servers
	if len(servers) == 0 {
		j, err := readJoinFile(k.cfg.joinPath())
		if err != nil {
			return k.ports
		}
		servers = j.Servers
	}
	var ports []uint16
	for _, s := range servers {
		_, port, err := net.SplitHostPort(s)
		if err != nil {
			continue // joining says what is wrong with it
		}
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			ports = append(ports, uint16(n))
		}
	}
	slices.Sort(ports)
	k.ports = slices.Compact(ports)
	return k.ports
}

func (k *kernel) Plug(p plug) error {
	return datapath.Plug(datapath.PlugConfig{
		Node: k.cfg.Name, Key: p.Key, Host: p.Host, Netns: p.Netns, IfName: p.IfName,
		MAC: p.MAC, Addrs: p.Addrs, Prefixes: p.Prefixes, Linked: p.Linked, MTU: k.dp.MTU(p.MTU),
		Default: p.Default, DHCP: p.DHCP, Tap: p.Tap, Owner: p.Owner, Group: p.Group,
	})
}

func (k *kernel) MakeNetns(path string) error { return datapath.MakeNetns(path) }

func (k *kernel) RemoveNetns(path string) error { return datapath.RemoveNetns(path) }

func (k *kernel) MTU(want int) int { return k.dp.MTU(want) }

func (k *kernel) Repairs() (uint64, string) { return k.dp.Repairs() }

func (k *kernel) Unplug(host string) error { return datapath.Unplug(host) }

func (k *kernel) Plugged() ([]string, error) { return datapath.Plugged(k.cfg.Name) }

func (k *kernel) run(ctx context.Context, sink func(record.Record), captured func(snapshot.Captured)) error {
	return k.dp.Run(ctx, sink, captured)
}

func (k *kernel) lost() uint64 { return k.dp.Lost() }

// close leaves everything in the kernel as it is.
func (k *kernel) close() { k.dp.Close() }
