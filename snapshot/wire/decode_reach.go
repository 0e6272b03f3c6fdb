package wire

import (
	"fmt"
	"net/netip"
	"time"

	"moire.dev/moire/snapshot"
)

func (c *check) address(field string, in *Addr) snapshot.Addr {
	return snapshot.Addr{VNI: c.vni(field+".vni", in.GetVni()), IP: c.addr(field+".address", in.GetAddress())}
}

// home: none is the zero address.
func (c *check) home(field string, in *Addr) snapshot.Addr {
	if in == nil {
		return snapshot.Addr{}
	}
	return c.address(field, in)
}

func (c *check) chainOf(field string, in *ChainKey) snapshot.ChainKey {
	if in == nil {
		return snapshot.ChainKey{}
	}
	return snapshot.ChainKey{VNI: c.vni(field+".vni", in.GetVni()), Link: c.text(field+".link", in.GetLink(), 2*maxName), Reverse: in.GetReverse()}
}

func (c *check) limit(in *Limit) snapshot.Limit {
	return snapshot.Limit{Egress: in.GetEgress(), Ingress: in.GetIngress()}
}

// span is a length of time, not negative.
func (c *check) span(field string, n int64) time.Duration {
	if n < 0 {
		c.failf(field, "%s is negative", time.Duration(n))
	}
	return time.Duration(n)
}

func (c *check) number8(field string, n uint32) uint8 {
	if n > 255 {
		c.failf(field, "%d is larger than 255", n)
	}
	return uint8(n)
}

func (c *check) chainKey(in *Chain) snapshot.ChainKey {
	if in.GetKey() == nil {
		c.failf("key", "missing")
	}
	return c.chainOf("key", in.GetKey())
}

func (c *check) chain(in *Chain) snapshot.Chain {
	out := snapshot.Chain{ChainKey: c.chainKey(in), Function: c.text("function", in.GetFunction(), maxName), Transparent: in.GetTransparent()}
	if !c.count("hops", len(in.GetHops()), maxItems) {
		return out
	}
	for _, h := range in.GetHops() {
		out.Hops = append(out.Hops, snapshot.Hop{
			Project: c.name("hops.project", h.GetProject()), Workload: c.name("hops.workload", h.GetWorkload()),
			Addr: c.address("hops.addr", h.GetAddr()), MAC: c.mac("hops.mac", h.GetMac()), Node: c.text("hops.node", h.GetNode(), maxName),
		})
	}
	return out
}

func (c *check) serviceKey(in *Service) snapshot.ServiceKey {
	return snapshot.ServiceKey{Addr: c.address("addr", in.GetAddr()), Protocol: c.number8("protocol", in.GetProtocol()), Port: c.uint16("port", in.GetPort())}
}

func (c *check) service(in *Service) snapshot.Service {
	return snapshot.Service{
		ServiceKey: c.serviceKey(in), Project: c.name("project", in.GetProject()), Name: c.name("name", in.GetName()),
		Floating: in.GetFloating(), PortName: c.text("port_name", in.GetPortName(), maxName), Names: c.texts("names", in.GetNames()),
		Backends: c.backends("backends", in.GetBackends()), Leaving: c.backends("leaving", in.GetLeaving()),
		Affinity: c.span("affinity", in.GetAffinity()), App: c.protocol("app", in.GetApp()),
	}
}

func (c *check) backends(field string, in []*Backend) []snapshot.Backend {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []snapshot.Backend
	for _, b := range in {
		out = append(out, snapshot.Backend{
			Addr: c.address(field+".addr", b.GetAddr()), Port: c.uint16(field+".port", b.GetPort()),
			Weight: b.GetWeight(), Node: c.text(field+".node", b.GetNode(), maxName),
		})
	}
	return out
}

func (c *check) texts(field string, in []string) []string {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	for _, s := range in {
		c.name(field, s)
	}
	return in
}

func (c *check) exitKey(in *Exit) snapshot.VNI { return c.vni("vni", in.GetVni()) }

func (c *check) exit(in *Exit) snapshot.Exit {
	return snapshot.Exit{VNI: c.exitKey(in), Gateway: c.text("gateway", in.GetGateway(), maxName),
		Addresses: c.addrs("addresses", in.GetAddresses()), Hosts: c.hostPorts("hosts", in.GetHosts())}
}

func (c *check) hostPorts(field string, in []*PortRange) []snapshot.HostPort {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []snapshot.HostPort
	for _, p := range in {
		out = append(out, snapshot.HostPort(c.ports(p)))
	}
	return out
}

func (c *check) masqueradeKey(in *Masquerade) snapshot.Addr { return c.address("addr", in.GetAddr()) }

func (c *check) masquerade(in *Masquerade) snapshot.Masquerade {
	return snapshot.Masquerade{Addr: c.masqueradeKey(in), As: c.addr("as", in.GetAs()), Node: c.text("node", in.GetNode(), maxName)}
}

func (c *check) externalKey(in *External) netip.Addr { return c.addr("address", in.GetAddress()) }

func (c *check) external(in *External) snapshot.External {
	return snapshot.External{Address: c.externalKey(in), Node: c.text("node", in.GetNode(), maxName), Owner: c.text("owner", in.GetOwner(), 3*maxName)}
}

func (c *check) namesKey(in *Names) snapshot.VNI { return c.vni("vni", in.GetVni()) }

func (c *check) names(in *Names) snapshot.DNS {
	out := snapshot.DNS{
		VNI: c.namesKey(in), Zone: c.text("zone", in.GetZone(), maxName), Search: c.texts("search", in.GetSearch()),
		TTL: c.span("ttl", in.GetTtl()), Order: c.text("order", in.GetOrder(), maxName),
		Forward: c.servers("forward", in.GetForward()), NoForward: in.GetNoForward(), Metadata: c.text("metadata", in.GetMetadata(), maxRuleID),
	}
	if !c.count("records", len(in.GetRecords()), maxItems) || !c.count("delegations", len(in.GetDelegations()), maxItems) {
		return out
	}
	for _, r := range in.GetRecords() {
		out.Records = append(out.Records, snapshot.DNSRecord{
			Name: c.name("records.name", r.GetName()), Type: c.name("records.type", r.GetType()),
			Data: c.lines("records.data", r.GetData()), TTL: c.span("records.ttl", r.GetTtl()),
		})
	}
	for _, d := range in.GetDelegations() {
		out.Delegations = append(out.Delegations, snapshot.Delegation{Zone: c.name("delegations.zone", d.GetZone()), Servers: c.servers("delegations.servers", d.GetServers())})
	}
	return out
}

func (c *check) servers(field string, in []*Server) []netip.AddrPort {
	if !c.count(field, len(in), maxItems) {
		return nil
	}
	var out []netip.AddrPort
	for _, s := range in {
		out = append(out, netip.AddrPortFrom(c.addr(field, s.GetAddress()), c.uint16(field, s.GetPort())))
	}
	return out
}

func (c *check) checkOf(in *CheckKey) snapshot.CheckKey {
	return snapshot.CheckKey{Addr: c.address("addr", in.GetAddr()), Kind: c.name("kind", in.GetKind()),
		Port: c.uint16("port", in.GetPort()), TLS: in.GetTls(), Path: c.text("path", in.GetPath(), maxRuleID),
		Host: c.text("host", in.GetHost(), maxName), Statuses: c.text("statuses", in.GetStatuses(), maxName), Service: c.text("service", in.GetService(), maxName)}
}

func (c *check) checkKey(in *Check) snapshot.CheckKey { return c.checkOf(in.GetKey()) }

func (c *check) check(in *Check) snapshot.Check {
	return snapshot.Check{
		CheckKey: c.checkKey(in), Interval: c.span("interval", in.GetInterval()), Timeout: c.span("timeout", in.GetTimeout()),
		Failures: int(c.uint16("failures", in.GetFailures())), Successes: int(c.uint16("successes", in.GetSuccesses())),
	}
}

func (c *check) captureKey(in *Capture) string { return c.name("id", in.GetId()) }

func (c *check) capture(in *Capture) snapshot.Capture {
	out := snapshot.Capture{
		ID: in.GetId(), Trace: in.GetTrace(), Workload: c.text("workload", in.GetWorkload(), 2*maxName),
		A: c.anyAddr("a", in.GetA()), B: c.anyAddr("b", in.GetB()),
		Protocol: c.number8("protocol", in.GetProtocol()), Port: c.uint16("port", in.GetPort()),
		Verdict: c.text("verdict", in.GetVerdict(), maxName), Rule: c.text("rule", in.GetRule(), maxRuleID),
		Until: c.moment("until", in.GetUntil()), Packets: int(in.GetPackets()), Length: int(c.uint16("length", in.GetLength())),
	}
	if !c.count("vnis", len(in.GetVnis()), maxItems) {
		return out
	}
	for _, n := range in.GetVnis() {
		out.VNIs = append(out.VNIs, c.vni("vnis", n))
	}
	if p := in.GetProbe(); p != nil {
		out.Probe = snapshot.Probe{
			Source: c.address("probe.source", p.GetSource()), Destination: c.address("probe.destination", p.GetDestination()),
			Protocol: c.number8("probe.protocol", p.GetProtocol()), SourcePort: c.uint16("probe.source_port", p.GetSourcePort()), Port: c.uint16("probe.port", p.GetPort()),
		}
	}
	return out
}

// anyAddr: none is the zero address.
func (c *check) anyAddr(field string, b []byte) netip.Addr {
	if len(b) == 0 {
		return netip.Addr{}
	}
	return c.addr(field, b)
}

// own takes what is there once.
func (c *check) own(out *snapshot.Snapshot, in *Own) {
	if out.Firewall != nil || out.AcceptMassDelete {
		c.err = fmt.Errorf("%s (own): there is a row with the same key before it", c.row)
		return
	}
	out.AcceptMassDelete = in.GetAcceptMassDelete()
	f := in.GetFirewall()
	if f == nil || !c.count("firewall.allow", len(f.GetAllow()), maxItems) {
		return
	}
	out.Firewall = &snapshot.Firewall{Audit: f.GetAudit(), AcceptLockOut: f.GetAcceptLockOut()}
	for _, r := range f.GetAllow() {
		out.Firewall.Allow = append(out.Firewall.Allow, snapshot.FirewallRule{
			Name: c.text("firewall.allow.name", r.GetName(), maxName),
			From: c.prefixes("firewall.allow.from", r.GetFrom(), false), Ports: c.hostPorts("firewall.allow.ports", r.GetPorts()),
		})
	}
}

func (c *check) health(in *Health) snapshot.Health {
	return snapshot.Health{
		CheckKey: c.checkOf(in.GetKey()), Healthy: in.GetHealthy(), Since: c.moment("since", in.GetSince()), Error: c.lines("error", in.GetError()),
	}
}
