package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// DefaultZone is the zone of the names of Networks that say nothing else.
const DefaultZone = "moire.internal"

// namesOf is the name service of a Network.
func namesOf(key Key, vni snapshot.VNI, spec *v1alpha1.NetworkSpec) snapshot.DNS {
	dns := spec.DNS
	if dns == nil {
		dns = &v1alpha1.DNS{}
	}
	zone := zoneOf(spec)
	own := key.Project + "." + zone
	out := snapshot.DNS{VNI: vni, Zone: zone, TTL: time.Duration(cmp.Or(dns.TTLSeconds, 5)) * time.Second, Order: cmp.Or(dns.Order, "random"),
		Search: append([]string{own, zone}, dns.Search...), NoForward: dns.NoForward, Metadata: spec.Metadata}
	for _, r := range dns.Records {
		row := snapshot.DNSRecord{Name: strings.ToLower(r.Name), Type: r.Type, Data: r.Data, TTL: out.TTL}
		if !strings.HasSuffix(row.Name, ".") {
			row.Name += "." + own + "."
		}
		if r.TTLSeconds > 0 {
			row.TTL = time.Duration(r.TTLSeconds) * time.Second
		}
		out.Records = append(out.Records, row)
	}
	for _, d := range dns.Delegations {
		out.Delegations = append(out.Delegations, snapshot.Delegation{Zone: strings.ToLower(strings.TrimSuffix(d.Zone, ".")), Servers: servers(d.Servers)})
	}
	out.Forward = servers(dns.Forward)
	return out
}

// zoneOf is the zone of the names, in lower case without a full stop at the end.
func zoneOf(spec *v1alpha1.NetworkSpec) string {
	zone := DefaultZone
	if spec.DNS != nil {
		zone = cmp.Or(spec.DNS.Zone, DefaultZone)
	}
	return strings.ToLower(strings.TrimSuffix(zone, "."))
}

// servers reads addresses with or without a port; 53 otherwise. What cannot be
// read is left out, and what is another host on every node.
func servers(texts []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts {
		p, err := netip.ParseAddrPort(text)
		if a, e := netip.ParseAddr(text); e == nil {
			p, err = netip.AddrPortFrom(a, 53), nil
		}
		if err == nil && !snapshot.StaysInside(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// nameProblems says which servers of the Network's name service are none.
func (d *draft) nameProblems() {
	dns := d.f.network.Spec.DNS
	if dns == nil {
		return
	}
	bad := func(field string, texts []string) {
		for i, text := range texts {
			if len(servers([]string{text})) == 0 {
				d.problem(about(v1alpha1.CodeAddress, networkName(d.f.key), fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%q is neither an address nor address:port, or it is loopback, link-local or multicast", text), "write 192.0.2.53 or [2001:db8::53]:5353"))
			}
		}
	}
	bad("spec.dns.forward", dns.Forward)
	for i, z := range dns.Delegations {
		bad(fmt.Sprintf("spec.dns.delegations[%d].servers", i), z.Servers)
	}
}
