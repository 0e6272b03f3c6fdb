package compile

import (
	"fmt"
	"net/netip"
	"strings"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/snapshot"
)

// namesOf is the name service of a Network.
func namesOf(key Key, vni snapshot.VNI, spec *v1alpha1.NetworkSpec) snapshot.DNS {
	dns := dnsOf(spec)
	zone := zoneOf(spec)
	own := key.Project + "." + zone
	out := snapshot.DNS{VNI: vni, Zone: zone, TTL: seconds(dns.TTLSeconds), Order: dns.Order,
		Search: append([]string{own, zone}, dns.Search...), NoForward: dns.NoForward, Metadata: spec.Metadata}
	for _, r := range dns.Records {
		row := snapshot.DNSRecord{Name: strings.ToLower(r.Name), Type: r.Type, Data: r.Data, TTL: out.TTL}
		if !strings.HasSuffix(row.Name, ".") {
			row.Name += "." + own + "."
		}
		if r.TTLSeconds > 0 {
			row.TTL = seconds(r.TTLSeconds)
		}
		out.Records = append(out.Records, row)
	}
	for _, d := range dns.Delegations {
		out.Delegations = append(out.Delegations, snapshot.Delegation{Zone: strings.ToLower(strings.TrimSuffix(d.Zone, ".")), Servers: servers(d.Servers)})
	}
	out.Forward = servers(dns.Forward)
	return out
}

// dnsOf is what the Network says of its name service, with defaults.
func dnsOf(spec *v1alpha1.NetworkSpec) (dns v1alpha1.DNS) {
	if spec.DNS != nil {
		dns = *spec.DNS
	}
	v1alpha1.DefaultDNS(&dns)
	return dns
}

// zoneOf is the zone of the names, in lower case without a full stop at the end.
func zoneOf(spec *v1alpha1.NetworkSpec) string {
	return strings.ToLower(strings.TrimSuffix(dnsOf(spec).Zone, "."))
}

// servers reads the addresses of name servers. What cannot be read is left out,
// and what is another host on every node.
func servers(texts []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts {
		if p, err := v1alpha1.ParseServer(text); err == nil && !snapshot.StaysInside(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// nameProblems says which servers of the Network's name service are another
// host on every node; validation says which are none.
func (d *draft) nameProblems() {
	dns := dnsOf(&d.f.network.Spec)
	bad := func(field string, texts []string) {
		for i, text := range texts {
			if p, err := v1alpha1.ParseServer(text); err == nil && snapshot.StaysInside(p.Addr()) {
				d.problem(about(v1alpha1.CodeAddress, networkName(d.f.key), fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%q is loopback, link-local or multicast, or nobody's", text), "write 192.0.2.53 or [2001:db8::53]:5353"))
			}
		}
	}
	bad("spec.dns.forward", dns.Forward)
	for i, z := range dns.Delegations {
		bad(fmt.Sprintf("spec.dns.delegations[%d].servers", i), z.Servers)
	}
}
