package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// linger keeps what sessions over a FloatingIP stand on after it has moved: they
// finish where they are, although the node has nothing to do with its pool, or
// with the old target, any more. What stays is where the two ends are, and lets
// nobody open a session.
func (d *Datapath) linger(w *want, s *snapshot.Snapshot) error {
	if !d.lingers && d.state.Snapshot != nil && !floatsMoved(d.state.Snapshot, s) {
		return nil
	}
	d.lingers = false
	now := bootTime()
	err := d.eachSession(func(_ *ebpf.Map, k bpf.MoireSessionKey, row bpf.MoireSession) {
		g := &row.Guise[1]
		if g.Kind != guiseFloating || row.Expires < now || row.Reason != 0 || row.Flags&flagClosed != 0 {
			return
		}
		caller := bpf.MoireAddrKey{Addr: k.A, Vni: k.Vni}
		if row.A_first == 0 {
			caller.Addr = k.B
		}
		for _, end := range []bpf.MoireAddrKey{caller, {Addr: g.Addr[1], Vni: g.Vni}} {
			if d.lingerEnd(w, end) {
				d.lingers = true
			}
		}
	})
	if err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	return nil
}

// lingerEnd keeps one end, its Network and its node.
func (d *Datapath) lingerEnd(w *want, end bpf.MoireAddrKey) bool {
	stays := false
	if mtu, had := d.tables.networks.rows[end.Vni]; had {
		if _, wanted := w.networks[end.Vni]; !wanted {
			w.networks[end.Vni], stays = mtu, true
		}
	}
	row, had := d.tables.endpoints.rows[end]
	if _, wanted := w.endpoints[end]; wanted || !had || row.Ifindex != 0 {
		return stays
	}
	w.endpoints[end] = row
	if node, had := d.tables.nodes.rows[row.Node]; had && node != (bpf.MoireNode{}) {
		if _, wanted := w.nodes[row.Node]; !wanted {
			w.nodes[row.Node], w.vteps[node.Addr] = node, row.Node
		}
	}
	return true
}

// floatsMoved reports that a FloatingIP leads elsewhere, or is gone.
func floatsMoved(before, after *snapshot.Snapshot) bool {
	for k, old := range before.Services {
		if !old.Floating {
			continue
		}
		if v, ok := after.Services[k]; !ok || !sameBackends(old.Backends, v.Backends) {
			return true
		}
	}
	return false
}
