package datapath

import (
	"cmp"
	"fmt"
	"slices"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot"
)

// Reasons why packets are dropped, as in reasons.h. The names are public.
const (
	reasonPolicy  = 1
	reasonSpoofIP = 3
	reasonLimit   = 19
	// The mesh refuses what a rule allows.
	reasonNeedsProxy = 27
	reasonNotInMesh  = 29
)

// isJudged: a rule was asked about what was dropped for that reason.
func isJudged(reason uint32) bool {
	return reason == reasonPolicy || reason >= reasonNeedsProxy && reason <= reasonNotInMesh
}

var reasons = [...]string{
	"", "policy", "spoofed-mac", "spoofed-ip", "spoofed-arp", "spoofed-nd", "no-neighbour", "no-route", "not-attached",
	"no-network", "unknown-vtep", "foreign-source", "bad-packet", "unsupported", "too-big", "ct-unrelated", "ct-fragment",
	"multicast", "failed", "limit", "no-service", "no-backend", "chain-down", "no-exit", "host-closed", "no-port", "ttl",
	"needs-proxy", "no-proxy", "not-in-mesh",
}

func reasonName(n uint32) string {
	if int(n) < len(reasons) {
		return reasons[n]
	}
	return fmt.Sprintf("reason-%d", n)
}

// DropCount says how many packets were dropped for a reason and, when it is
// policy, by a rule. Network is where; 0 when that was not known.
type DropCount struct {
	Reason  string
	Rule    string
	Network snapshot.VNI
	Packets uint64
}

// Drops lists the counters since the tables were made, in a fixed order.
func (d *Datapath) Drops() []DropCount {
	var out []DropCount
	names := d.view.Load().rules
	var k bpf.MoireDropKey
	var perCPU []uint64
	it := d.objects.Drops.Iterate()
	for it.Next(&k, &perCPU) {
		c := DropCount{Reason: reasonName(k.Reason), Rule: string(names[k.Rule]), Network: snapshot.VNI(k.Vni)}
		for _, n := range perCPU {
			c.Packets += n
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b DropCount) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Network, b.Network))
	})
	return out
}
