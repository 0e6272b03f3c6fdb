package node

import (
	"context"
	"io"
	"log/slog"

	"moire.dev/moire/datapath"
	"moire.dev/moire/flow/record"
)

// kernel is the first applier and the wiring: the room datapath in the words
// of this one.
type kernel struct {
	cfg Config
	dp  *datapath.Datapath
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

func (k *kernel) Grow(s State) error   { return k.dp.Grow(inKernel(s)) }
func (k *kernel) Shrink(s State) error { return k.dp.Shrink(inKernel(s)) }

func (k *kernel) Dump(w io.Writer) error { return k.dp.Dump(w) }

func inKernel(s State) datapath.State {
	out := datapath.State{Snapshot: s.Snapshot}
	for _, l := range s.Locals {
		out.Locals = append(out.Locals, datapath.Local{Key: l.Key, VNI: l.VNI, Addrs: l.Addrs, MAC: l.MAC, Host: l.Host, Tap: l.Tap, DHCP: l.DHCP})
	}
	return out
}

func (k *kernel) Plug(p plug) error {
	return datapath.Plug(datapath.PlugConfig{
		Node: k.cfg.Name, Key: p.Key, Host: p.Host, Netns: p.Netns, IfName: p.IfName,
		MAC: p.MAC, Addrs: p.Addrs, Prefixes: p.Prefixes, MTU: k.dp.MTU(p.MTU),
		Default: p.Default, DHCP: p.DHCP, Tap: p.Tap, Owner: p.Owner, Group: p.Group,
	})
}

func (k *kernel) MTU(want int) int { return k.dp.MTU(want) }

func (k *kernel) Unplug(host string) error { return datapath.Unplug(host) }

func (k *kernel) Plugged() ([]string, error) { return datapath.Plugged(k.cfg.Name) }

func (k *kernel) run(ctx context.Context, sink func(record.Record)) error {
	return k.dp.Run(ctx, sink, nil)
}

func (k *kernel) lost() uint64 { return k.dp.Lost() }

// close leaves everything in the kernel as it is.
func (k *kernel) close() { k.dp.Close() }
