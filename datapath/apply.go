package datapath

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moire.dev/moire/datapath/bpf"
)

// readEvery: at the latest after this long, Grow believes no memory and reads
// the tables again.
const readEvery = 10 * time.Second

// Grow makes the kernel everything that the State wants, and takes nothing
// away: rules and policy sets, then who may use them and the proxies, then where
// things are, then the interfaces. When it returns, what it brought is enforced, for
// sessions that exist too. A second Grow with the same State writes nothing,
// unless somebody else changed the tables: that it repairs.
func (d *Datapath) Grow(s State) error {
	return d.locked(func() error {
		verify := d.same(s) || time.Since(d.lastRead) > readEvery
		if verify {
			if err := d.readTables(); err != nil {
				return err
			}
		}
		before := d.writes.Load()
		w, err := d.compute(s, verify)
		if err != nil {
			return fmt.Errorf("datapath of node %s: %w", d.cfg.Node, err)
		}
		// Even after an error, sessions must see what was written.
		err = d.growTables(w, verify)
		if c := d.tables.control.rows[0]; d.writes.Load() != before || c != d.settings(c.Epoch) {
			if bump := d.bump(); err == nil {
				err = bump
			}
		}
		if err == nil {
			d.state, d.want = s, w
			d.view.Store(newView(d.cfg.Node, s, w.links, d.rules.names, d.services.named()).remember(d.view.Load(), time.Now()))
			err = d.attachAll(w)
		}
		if err == nil { // the programs are there to take what comes
			err = d.holdExternals(w.outside.held)
		}
		if err == nil {
			err = d.applyFirewall(s)
		}
		if err == nil && len(w.missing) > 0 {
			err = fmt.Errorf("no interface %s; plug it again", strings.Join(w.missing, ", "))
		}
		if err != nil {
			return fmt.Errorf("datapath of node %s: %w", d.cfg.Node, err)
		}
		return nil
	})
}

func (d *Datapath) growTables(w *want, verify bool) error {
	t := d.tables
	return inOrder(
		func() error { return t.nodes.grow(w.nodes) },
		func() error { return t.vteps.grow(w.vteps) },
		func() error { return t.networks.grow(w.networks) },
		func() error { return t.routes.grow(w.routes) },
		func() error { return t.rates.grow(w.rates) },
		func() error { return d.services.grow(w.of, len(w.mesh.proxies) > 0) },
		func() error { return t.guises.grow(w.guises) },
		func() error { return t.functions.grow(w.functions) },
		func() error { return t.chains.grow(w.chains) },
		// A proxy is in place before anything needs it. An interface that is not ours
		// yet is down.
		func() error { return d.growMesh(w, verify) },
		func() error { return t.ifaces.grow(w.ifaces) },
		func() error { return t.endpoints.grow(w.endpoints) },
		func() error { return d.growOutside(w.outside) },
		func() error { return d.applyWatches(w.watches) },
	)
}

// Shrink takes away what the State no longer wants, in the opposite order.
func (d *Datapath) Shrink(s State) error {
	return d.locked(func() error {
		w := d.want
		if w == nil || !d.same(s) {
			var err error
			if w, err = d.compute(s, false); err != nil {
				return fmt.Errorf("datapath of node %s: %w", d.cfg.Node, err)
			}
		}
		if err := d.shrink(w); err != nil {
			return fmt.Errorf("datapath of node %s: %w", d.cfg.Node, err)
		}
		return nil
	})
}

func (d *Datapath) shrink(w *want) error {
	t := d.tables
	if err := d.detachOthers(w); err != nil {
		return err
	}
	before := d.writes.Load()
	err := inOrder(
		func() error { return t.ifaces.shrink(w.ifaces) },
		func() error { return d.shrinkMesh(w) },
		func() error { return d.shrinkOutside(w.outside) },
		func() error { return t.rates.shrink(w.rates) },
		func() error { return d.services.shrink(w.of) },
		func() error { return t.endpoints.shrink(w.endpoints) },
		func() error { return t.chains.shrink(w.chains) },
		func() error { return t.functions.shrink(w.functions) },
		func() error { return t.guises.shrink(w.guises) },
		func() error { return t.routes.shrink(w.routes) },
		func() error { return t.networks.shrink(w.networks) },
		func() error { return t.vteps.shrink(w.vteps) },
		func() error { return d.shrinkNodes(w) },
	)
	if d.writes.Load() != before {
		if bump := d.bump(); err == nil {
			err = bump
		}
	}
	if err != nil {
		return err
	}
	if d.unused(w) {
		grace()
	}
	return d.sets.prune(w.sets)
}

// unused reports whether there are sets to remove.
func (d *Datapath) unused(w *want) bool {
	for id := range d.sets.keys {
		if !w.sets[id] {
			return true
		}
	}
	return false
}

// shrinkNodes empties the rows of nodes that are gone; an array has no fewer.
func (d *Datapath) shrinkNodes(w *want) error {
	for n, row := range d.tables.nodes.rows {
		if _, ok := w.nodes[n]; !ok && row != (bpf.MoireNode{}) {
			if err := d.tables.nodes.put(n, bpf.MoireNode{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bump makes every session look at the tables again.
func (d *Datapath) bump() error {
	return d.tables.control.put(0, d.settings(d.tables.control.rows[0].Epoch+1))
}

func (d *Datapath) settings(epoch uint32) bpf.MoireSettings {
	return bpf.MoireSettings{
		Epoch: epoch, Self: addrOf(d.cfg.Address), Uplink: uint32(d.uplink.Index), V6: uint32(flag(d.cfg.Address.Is6())),
		Share: max(d.objects.Sessions.MaxEntries()/sharers, 1),
		Watch: uint32(flag(d.watching)), Outside: uint32(flag(d.outside)),
	}
}

// grace waits until no program runs that began before: a global memory barrier
// waits for an RCU grace period.
func grace() {
	const global = 1
	unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

func (d *Datapath) readTables() error {
	if err := inOrder(d.tables.read, d.rules.load, d.services.load, d.sets.load); err != nil {
		return err
	}
	d.lastRead = time.Now()
	return nil
}

// same reports whether the State is the very one that was applied last.
func (d *Datapath) same(s State) bool {
	if d.state.Snapshot == nil || d.state.Snapshot != s.Snapshot || len(d.state.Locals) != len(s.Locals) {
		return false
	}
	for i, l := range s.Locals {
		o := d.state.Locals[i]
		if l.Key != o.Key || l.VNI != o.VNI || l.MAC != o.MAC || l.Host != o.Host || l.Tap != o.Tap || l.DHCP != o.DHCP ||
			l.Netns != o.Netns || l.Proxy != o.Proxy || !slices.Equal(l.Addrs, o.Addrs) {
			return false
		}
	}
	return slices.Equal(d.state.Presence, s.Presence) && slices.Equal(d.state.ControlPorts, s.ControlPorts) && slices.Equal(d.state.Proxies, s.Proxies)
}

// Writes counts the rows written and removed since Open.
func (d *Datapath) Writes() uint64 { return d.writes.Load() }
