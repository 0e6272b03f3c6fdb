package datapath

import (
	"fmt"
	"testing"

	"moire.dev/moire/flow/record"
	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

// twoTenants: two tenants with the same addresses, web and db on node a, far on
// node b.
func twoTenants(t *testing.T, v6 bool) *world {
	w := twoNodes(t, map[bool]string{false: "192.168.77.", true: "fd77::"}[v6])
	for i, project := range []string{"acme", "bolt"} {
		vni := snapshot.VNI(100 + i)
		id := policy.Identity(10 * (i + 1))
		w.network(vni, project, "10.1.0.0/24", "10.2.0.0/24", "fd10:1::/64", "fd10:2::/64")
		w.workload("a", project, "web", vni, id+1, "10.1.0.2", "fd10:1::2")
		w.workload("a", project, "db", vni, id+2, "10.2.0.3", "fd10:2::3")
		w.workload("b", project, "far", vni, id+3, "10.1.0.4", "fd10:1::4")
	}
	w.apply()
	t.Cleanup(w.dump)
	return w
}

func TestTraffic(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay-v6=%v", v6), func(t *testing.T) { testTraffic(t, v6) })
	}
}

func testTraffic(t *testing.T, v6 bool) {
	w := twoTenants(t, v6)
	for _, n := range w.nodes {
		n.record()
	}
	for _, project := range []string{"acme", "bolt"} {
		for _, dst := range []string{"10.2.0.3", "10.1.0.4", "10.1.0.1", "fd10:2::3", "fd10:1::4", "fd10:1::1"} {
			t.Run(project+"/ping/"+dst, func(t *testing.T) {
				sh(t, "ip netns exec moire-dp-%s-web ping -c 2 -i 0.2 -W 1 %s", project, dst)
				if dst != "10.1.0.1" && dst != "fd10:1::1" {
					sh(t, "ip netns exec moire-dp-%s-web ping -c 2 -i 0.2 -W 1 -s 8000 %s", project, dst)
				}
			})
		}
	}
	for _, dst := range []string{"10.2.0.3 db", "10.1.0.4 far", "fd10:2::3 db", "fd10:1::4 far"} {
		var addr, name string
		fmt.Sscan(dst, &addr, &name)
		t.Run("bulk/"+addr, func(t *testing.T) {
			bulk(t, "moire-dp-acme-web", "moire-dp-acme-"+name, addr)
			datagrams(t, "moire-dp-acme-web", "moire-dp-acme-"+name, addr, 8000)
		})
	}
	r := w.nodes["a"].find("started web -> far", func(r record.Record) bool {
		return r.Kind == record.Started && r.Protocol == "tcp" && r.Source.Workload == "web" && r.Destination.Workload == "far"
	})
	if r.Rule != "default/acme/net/open" || r.Observer != record.AtSource || r.Destination.Node != "b" {
		t.Errorf("wrong record %+v", r)
	}
	w.nodes["b"].find("ended web -> far", func(r record.Record) bool {
		return r.Kind == record.Ended && r.Protocol == "tcp" && r.Source.Workload == "web" && r.Observer == record.AtDestination && r.ForwardBytes > 1e6
	})
}
