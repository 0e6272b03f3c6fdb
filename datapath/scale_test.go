package datapath_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"moire.dev/moire/datapath/proving"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// TestScale prints what one change costs when there are 10,000 endpoints, and
// sees that it writes little.
func TestScale(t *testing.T) {
	needRoot(t)
	s := town()
	for vni := snapshot.VNI(100); vni < 200; vni++ {
		project := fmt.Sprint("p", vni)
		s.Networks[vni] = snapshot.Network{VNI: vni, Project: project, Name: "net", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
		for i := range 100 {
			node := "there"
			if i < 2 {
				node = "here"
			}
			put(s, vni, project, node, fmt.Sprint("w", i), policy.Identity(uint32(vni)*1000+uint32(i)), macFar, netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}))
		}
	}
	n, err := proving.New(s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for i := range 5 {
		next := *s
		next.Policies = map[snapshot.PolicyKey]policy.Set{}
		for k, v := range s.Policies {
			next.Policies[k] = v
		}
		k := snapshot.PolicyKey{VNI: 1, Identity: 11, Direction: policy.Egress}
		next.Policies[k] = policy.Set{Default: policy.DefaultRule{ID: policy.RuleID(fmt.Sprint("v", i)), Allow: true}}
		before, start := n.Writes(), time.Now()
		if err := n.Apply(&next); err != nil {
			t.Fatal(err)
		}
		t.Logf("one policy of %d changed: %d writes, %s", len(next.Policies), n.Writes()-before, time.Since(start).Round(time.Microsecond))
		if i > 0 && n.Writes()-before > 20 {
			t.Errorf("%d writes for one change", n.Writes()-before)
		}
	}
}
