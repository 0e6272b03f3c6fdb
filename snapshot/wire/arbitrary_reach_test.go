package wire

import (
	"net/netip"
	"time"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/l7"
	"pgregory.net/rapid"
)

func at(t *rapid.T) snapshot.Addr { return snapshot.Addr{VNI: vni(t), IP: addr(t)} }

func list[T any](t *rapid.T, what string, item func(*rapid.T) T) []T {
	var out []T
	for range rapid.IntRange(0, 3).Draw(t, what) {
		out = append(out, item(t))
	}
	return out
}

func chainKey(t *rapid.T) snapshot.ChainKey {
	return snapshot.ChainKey{VNI: vni(t), Link: name(t) + "/" + name(t), Reverse: rapid.Bool().Draw(t, "reverse")}
}

func limit(t *rapid.T) snapshot.Limit {
	return snapshot.Limit{Egress: rapid.Uint64().Draw(t, "egress"), Ingress: rapid.Uint64().Draw(t, "ingress")}
}

func span(t *rapid.T) time.Duration {
	return time.Duration(rapid.IntRange(0, 1e9).Draw(t, "span"))
}

func server(t *rapid.T) netip.AddrPort {
	return netip.AddrPortFrom(addr(t), rapid.Uint16().Draw(t, "port"))
}

func hostPort(t *rapid.T) snapshot.HostPort {
	first := rapid.Uint16().Draw(t, "first")
	return snapshot.HostPort{Protocol: rapid.Byte().Draw(t, "protocol"), First: first, Last: rapid.Uint16Min(first).Draw(t, "last")}
}

func backend(t *rapid.T) snapshot.Backend {
	return snapshot.Backend{Addr: at(t), Port: rapid.Uint16().Draw(t, "port"), Weight: rapid.Uint32().Draw(t, "weight"), Node: name(t)}
}

func checkKeyOf(t *rapid.T) snapshot.CheckKey {
	return snapshot.CheckKey{Addr: at(t), Kind: name(t), Port: rapid.Uint16().Draw(t, "port"), Path: name(t),
		TLS: rapid.Bool().Draw(t, "tls"), Host: name(t), Statuses: "200,204", Service: name(t)}
}

func capture(t *rapid.T) snapshot.Capture {
	c := snapshot.Capture{ID: name(t), Trace: rapid.Bool().Draw(t, "trace"), VNIs: list(t, "vnis", vni), Workload: name(t), B: addr(t),
		Protocol: 6, Port: 80, Verdict: "deny", Rule: name(t), Until: rapid.SampledFrom([]time.Time{{}, time.Unix(7, 8).UTC()}).Draw(t, "until"), Packets: 9, Length: 128}
	if c.Trace {
		c.Probe = snapshot.Probe{Source: at(t), Destination: at(t), Protocol: 17, SourcePort: 5, Port: 53}
	}
	return c
}

// reach fills the tables of how Networks reach each other and the outside.
func reach(t *rapid.T, s *snapshot.Snapshot) {
	s.Chains = fill(t, "chains", func(t *rapid.T) (snapshot.ChainKey, snapshot.Chain) {
		c := snapshot.Chain{ChainKey: chainKey(t), Function: name(t), Transparent: rapid.Bool().Draw(t, "transparent")}
		c.Hops = list(t, "hops", func(t *rapid.T) snapshot.Hop {
			return snapshot.Hop{Project: name(t), Workload: name(t), Addr: at(t), MAC: mac(t), Node: name(t)}
		})
		return c.ChainKey, c
	})
	s.Services = fill(t, "services", func(t *rapid.T) (snapshot.ServiceKey, snapshot.Service) {
		v := snapshot.Service{ServiceKey: snapshot.ServiceKey{Addr: at(t), Protocol: 6, Port: rapid.Uint16().Draw(t, "port")}, Project: name(t), Name: name(t),
			Floating: rapid.Bool().Draw(t, "floating"), PortName: name(t), Names: list(t, "names", name), Affinity: span(t), App: l7.HTTP2}
		v.Backends, v.Leaving = list(t, "backends", backend), list(t, "leaving", backend)
		return v.ServiceKey, v
	})
	s.Exits = fill(t, "exits", func(t *rapid.T) (snapshot.VNI, snapshot.Exit) {
		e := snapshot.Exit{VNI: vni(t), Gateway: name(t), Addresses: some(t, "addresses", addr, netip.Addr.Compare), Hosts: list(t, "hosts", hostPort)}
		return e.VNI, e
	})
	s.Masquerades = fill(t, "masquerades", func(t *rapid.T) (snapshot.Addr, snapshot.Masquerade) {
		m := snapshot.Masquerade{Addr: at(t), As: addr(t), Node: name(t)}
		return m.Addr, m
	})
	s.Externals = fill(t, "externals", func(t *rapid.T) (netip.Addr, snapshot.External) {
		e := snapshot.External{Address: addr(t), Node: name(t), Owner: "Network " + name(t)}
		return e.Address, e
	})
	s.Names = fill(t, "names", func(t *rapid.T) (snapshot.VNI, snapshot.DNS) {
		d := snapshot.DNS{VNI: vni(t), Zone: name(t), Search: list(t, "search", name), TTL: span(t), Order: "random", Forward: list(t, "forward", server), Metadata: "http://x"}
		d.Records = list(t, "records", func(t *rapid.T) snapshot.DNSRecord {
			return snapshot.DNSRecord{Name: name(t), Type: "TXT", Data: "a\tb", TTL: span(t)}
		})
		d.Delegations = list(t, "delegations", func(t *rapid.T) snapshot.Delegation {
			return snapshot.Delegation{Zone: name(t), Servers: list(t, "servers", server)}
		})
		return d.VNI, d
	})
	s.Checks = fill(t, "checks", func(t *rapid.T) (snapshot.CheckKey, snapshot.Check) {
		c := snapshot.Check{CheckKey: checkKeyOf(t), Interval: span(t), Timeout: span(t), Failures: 2, Successes: 1}
		return c.CheckKey, c
	})
	s.Captures = fill(t, "captures", func(t *rapid.T) (string, snapshot.Capture) {
		c := capture(t)
		return c.ID, c
	})
	s.AcceptMassDelete = rapid.Bool().Draw(t, "accept")
	if rapid.Bool().Draw(t, "firewall") {
		s.Firewall = &snapshot.Firewall{Audit: rapid.Bool().Draw(t, "audit"), AcceptLockOut: rapid.Bool().Draw(t, "lock out"), Allow: list(t, "allow", func(t *rapid.T) snapshot.FirewallRule {
			return snapshot.FirewallRule{Name: name(t), From: list(t, "from", prefix), Ports: list(t, "ports", hostPort)}
		})}
	}
}
