package datapath

import (
	"net/netip"

	"github.com/cilium/ebpf"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// Pair is two addresses of one Network, as its Workloads see them, the smaller
// one first.
type Pair struct {
	VNI  snapshot.VNI
	A, B netip.Addr
}

// PairOf orders the addresses.
func PairOf(vni snapshot.VNI, a, b netip.Addr) Pair {
	if b.Less(a) {
		a, b = b, a
	}
	return Pair{vni, a, b}
}

// Alive lists who has a session with one of the peers now: not ended, not
// denied, not quiet for longer than its timeout.
func (d *Datapath) Alive(peers map[snapshot.Addr]bool) (map[Pair]bool, error) {
	out := map[Pair]bool{}
	now := bootTime()
	err := d.eachSession(func(_ *ebpf.Map, k bpf.MoireSessionKey, s bpf.MoireSession) {
		if s.Expires < now || s.Flags&flagEnded != 0 || s.Reason != 0 {
			return
		}
		vni, a, b := snapshot.VNI(k.Vni), ipOf(k.A), ipOf(k.B)
		if peers[snapshot.Addr{VNI: vni, IP: a}] || peers[snapshot.Addr{VNI: vni, IP: b}] {
			out[PairOf(vni, a, b)] = true
		}
	})
	return out, err
}
