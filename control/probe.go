package control

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"slices"

	"moire.dev/moire/snapshot"
)

// traced fills in whose packets are followed: from, a Workload of the project,
// to an address or a Workload. With probe the node of the first sends one.
func traced(c *snapshot.Capture, q url.Values, f *facts, project string, probe bool) error {
	port := c.Port // of the destination
	c.Port = 0
	from, to := q.Get("from"), q.Get("to")
	if from == "" || to == "" {
		return fmt.Errorf("a trace needs from=WORKLOAD and to=ADDRESS or WORKLOAD")
	}
	if c.Protocol == 0 {
		c.Protocol = protocols["tcp"]
	}
	destination, err := netip.ParseAddr(to)
	is6 := err == nil && destination.Is6()
	source, node, err := interfaceOf(f, project, from, q.Get("network"), is6)
	if err != nil {
		return err
	}
	if !destination.IsValid() {
		if destination, err = seenFrom(f.snaps[node], source, project, to); err != nil {
			return err
		}
	}
	destination = destination.Unmap()
	if destination.Is6() && c.Protocol == protocols["icmp"] {
		c.Protocol = protocols["icmpv6"]
	}
	ports := c.Protocol != protocols["icmp"] && c.Protocol != protocols["icmpv6"]
	if ports && port == 0 {
		return fmt.Errorf("a trace needs port=1 to 65535")
	}
	if !probe {
		c.A, c.B, c.Port = source.IP, destination, port
		return nil
	}
	c.Probe = snapshot.Probe{Source: source, Destination: snapshot.Addr{VNI: source.VNI, IP: destination}, Protocol: c.Protocol, Port: port}
	if !ports {
		c.A, c.Probe.Port = source.IP, 0
		return nil
	}
	// Addresses change on the way, where a Service or a Link is; its own port
	// finds the probe everywhere.
	c.Probe.SourcePort = uint16(49152 + rand.N(16384))
	c.Port = c.Probe.SourcePort
	return nil
}

// interfaceOf finds an address of a Workload, and the node that has it.
func interfaceOf(f *facts, project, workload, network string, ipv6 bool) (snapshot.Addr, string, error) {
	k := keyIn(project, workload)
	if project != "" && k.Project != project {
		return snapshot.Addr{}, "", fmt.Errorf("from=%q is of another project; a probe is sent in the name of a Workload of %s", workload, project)
	}
	for _, node := range slices.Sorted(maps.Keys(f.in.Reports)) {
		for _, a := range f.in.Reports[node].Attachments {
			if a.Project != k.Project || a.Workload != k.Name || network != "" && a.Network != network && k.Project+"/"+a.Network != network {
				continue
			}
			for _, ip := range a.Addresses {
				if ip.Is6() == ipv6 && a.VNI != 0 {
					return snapshot.Addr{VNI: a.VNI, IP: ip}, node, nil
				}
			}
		}
	}
	return snapshot.Addr{}, "", fmt.Errorf("the Workload %s is not attached with such an address; `moire get workloads` tells", k)
}

// seenFrom finds the address by which a Workload is reached from a Network.
func seenFrom(s *snapshot.Snapshot, source snapshot.Addr, project, to string) (netip.Addr, error) {
	k := keyIn(project, to)
	var found []netip.Addr
	if s != nil {
		for a, e := range s.Endpoints {
			if a.VNI == source.VNI && e.Project == k.Project && e.Workload == k.Name && a.IP.Is6() == source.IP.Is6() {
				found = append(found, a.IP)
			}
		}
	}
	if len(found) == 0 {
		return netip.Addr{}, fmt.Errorf("to=%q is neither an address nor a Workload that can be reached from there", to)
	}
	return slices.MinFunc(found, func(a, b netip.Addr) int { return cmp.Compare(a.String(), b.String()) }), nil
}
