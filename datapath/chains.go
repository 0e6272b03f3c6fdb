package datapath

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// chainNumber names a chain among those of its Network: the same at every node
// and in every run. Never 0.
func chainNumber(k snapshot.ChainKey) uint32 {
	if k == (snapshot.ChainKey{}) {
		return 0
	}
	h := fnv.New32a()
	fmt.Fprint(h, k.Link, " ", k.Reverse)
	return max(h.Sum32(), 1)
}

// instanceID names a function instance, the same in all its Networks. Never 0.
func instanceID(project, workload string) uint32 {
	h := fnv.New32a()
	fmt.Fprint(h, project, "/", workload)
	return max(h.Sum32(), 1)
}

// wantChains says which functions stand in front of linked addresses, and where
// their instances are.
func (d *Datapath) wantChains(w *want, s *snapshot.Snapshot, here map[snapshot.Addr]place, numbers map[string]uint32) error {
	names := map[bpf.MoireChainKey]snapshot.ChainKey{}
	for k, c := range s.Chains {
		key := bpf.MoireChainKey{Vni: uint32(k.VNI), Number: chainNumber(k)}
		if other, taken := names[key]; taken {
			return fmt.Errorf("links %s and %s of network %d get the same number; rename one of them", k.Link, other.Link, k.VNI)
		}
		names[key] = k
		var ids []uint32
		for _, h := range c.Hops {
			hop, ok := d.instance(w, &c, &h, here, numbers)
			if !ok {
				continue
			}
			id := instanceID(h.Project, h.Workload)
			ids = append(ids, id)
			base := bpf.MoireFunctionKey{Vni: key.Vni, Chain: key.Number}
			byID, byMAC, there := base, base, base
			byID.Id = id
			byMAC.Mac = h.MAC
			w.functions[byID], w.functions[byMAC] = hop, hop
			there.Ifindex, there.Node = hop.Ifindex, hop.Node
			if hop.Ifindex == 0 {
				there.Mac = h.MAC
			}
			w.functions[there] = hop
		}
		w.chains[key] = slotsOf(ids)
	}
	return nil
}

// instance is the hop to one instance; not ok: it is not there yet.
func (d *Datapath) instance(w *want, c *snapshot.Chain, h *snapshot.Hop, here map[snapshot.Addr]place, numbers map[string]uint32) (bpf.MoireHop, bool) {
	hop := bpf.MoireHop{Mac: h.MAC, How: howFunction}
	if c.Transparent {
		hop.How |= howTransparent
	}
	if h.Node != d.cfg.Node {
		hop.Node = numbers[h.Node]
		return hop, hop.Node != 0
	}
	at, ok := here[h.Addr]
	if !ok {
		return hop, false
	}
	hop.Ifindex, hop.Mac = uint32(at.ifindex), at.local.MAC
	hop.How |= w.howTo(at)
	return hop, true
}

// howTo says how packets get to an interface here.
func (w *want) howTo(at place) uint16 {
	how := howOf(at.local)
	if w.ifaces[uint32(at.ifindex)].Limits>>(2*rateIngress) != 0 {
		how |= howLimited
	}
	return how
}

// slotsOf spreads the slots of a chain over instances: each slot takes the one
// that it likes best. When one goes, only its slots move.
func slotsOf(ids []uint32) (c bpf.MoireChain) {
	for slot := range c.Slots {
		var best uint64
		for _, id := range ids {
			if score := liking(uint32(slot), id); c.Slots[slot] == 0 || score > best {
				c.Slots[slot], best = id, score
			}
		}
	}
	return c
}

func liking(slot, id uint32) uint64 {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, id), slot))
	x := h.Sum64()
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// instanceAt names the function instance with that MAC in a Network.
type instanceAt struct {
	vni snapshot.VNI
	mac snapshot.MAC
}

// instancesOf lists the functions of a snapshot.
func instancesOf(s *snapshot.Snapshot) map[instanceAt]string {
	out := map[instanceAt]string{}
	for _, c := range s.Chains {
		for _, h := range c.Hops {
			out[instanceAt{h.Addr.VNI, h.MAC}] = h.Project + "/" + h.Workload
		}
	}
	return out
}

// via is the instance that the session went to, or came from.
func (v *view) via(e *bpf.MoireEvent) string {
	for _, i := range []int{1, 0} {
		if h := e.Session.Hop[i]; h.How&howFunction != 0 {
			if name := v.instances[instanceAt{snapshot.VNI(e.Key.Vni), h.Mac}]; name != "" {
				return name
			}
		}
	}
	return ""
}
