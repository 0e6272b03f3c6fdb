package datapath

import (
	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// burst is how long a token bucket takes to fill, in nanoseconds: what was not
// used for so long may be sent at once. It must outlast the pause that TCP
// makes when everything was lost (200 ms), or what it could have sent meanwhile
// would be lost to it for good.
const burst = 250e6

// Directions and flags of limits, as in rate.h.
const (
	rateEgress  = 0
	rateIngress = 1

	limitIface   = 1
	limitNetwork = 2
)

// limit puts the limits of an interface and its Network into the want, and
// returns the flags for the row of the interface.
func (w *want) limit(ifindex int, vni snapshot.VNI, iface, network snapshot.Limit) uint8 {
	var flags uint8
	for _, l := range []struct {
		number  uint32
		network bool
		of      snapshot.Limit
		flag    uint8
	}{{uint32(ifindex), false, iface, limitIface}, {uint32(vni), true, network, limitNetwork}} {
		for direction, bits := range map[uint16]uint64{rateEgress: l.of.Egress, rateIngress: l.of.Ingress} {
			if bits == 0 {
				continue
			}
			w.rates[bpf.MoireRateKey{Number: l.number, Network: uint16(flag(l.network)), Direction: direction}] = bpf.MoireRate{Bits: bits, Burst: burst}
			flags |= l.flag << (2 * direction)
		}
	}
	return flags
}
