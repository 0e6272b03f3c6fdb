package wire

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
	"pgregory.net/rapid"
)

// Generators of valid words. Empty lists are nil, as decoding gives them.

func name(t *rapid.T) string { return rapid.StringMatching(`[a-z][a-z0-9-]{0,8}`).Draw(t, "name") }

func vni(t *rapid.T) snapshot.VNI {
	return snapshot.VNI(rapid.Uint32Range(1, maxVNI).Draw(t, "vni"))
}

func addr(t *rapid.T) netip.Addr {
	n := rapid.Byte().Draw(t, "address")
	if rapid.Bool().Draw(t, "ipv6") {
		return netip.AddrFrom16([16]byte{0xfd, 1, 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, n % 4, n})
}

func prefix(t *rapid.T) netip.Prefix {
	a := addr(t)
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked()
}

func mac(t *rapid.T) (m snapshot.MAC) {
	if rapid.Bool().Draw(t, "mac") {
		m = snapshot.MAC{2, 0, 1, 5: rapid.Byte().Draw(t, "mac byte")}
	}
	return m
}

// some draws up to five items, sorted, each once; nil when none.
func some[T any](t *rapid.T, what string, item func(*rapid.T) T, order func(a, b T) int) []T {
	var out []T
	for range rapid.IntRange(0, 5).Draw(t, what) {
		out = append(out, item(t))
	}
	slices.SortFunc(out, order)
	return slices.CompactFunc(out, func(a, b T) bool { return order(a, b) == 0 })
}

func labels(t *rapid.T) []snapshot.Label {
	return some(t, "labels", func(t *rapid.T) snapshot.Label { return snapshot.Label{Key: name(t), Value: name(t)} },
		func(a, b snapshot.Label) int { return cmp.Compare(a.Key, b.Key) })
}

func attachmentKey(t *rapid.T) snapshot.AttachmentKey {
	return snapshot.AttachmentKey{Project: name(t), Workload: name(t), Network: name(t)}
}

func block(t *rapid.T) snapshot.Block {
	b := snapshot.Block{BlockKey: snapshot.BlockKey{VNI: vni(t), CIDR: prefix(t)}}
	b.Excluded = some(t, "excluded", func(*rapid.T) snapshot.Range {
		return snapshot.Range{First: b.CIDR.Addr(), Last: b.CIDR.Addr()}
	}, func(a, b snapshot.Range) int { return a.First.Compare(b.First) })
	return b
}

func rule(t *rapid.T, tier policy.Tier) policy.Rule {
	last := policy.Allow
	if tier == policy.Admin {
		last = policy.Pass
	}
	r := policy.Rule{
		ID: policy.RuleID("policy/" + name(t)), Tier: tier, Audit: rapid.Bool().Draw(t, "audit"),
		Action: policy.Action(rapid.IntRange(0, int(last)).Draw(t, "action")),
	}
	if rapid.Bool().Draw(t, "named") {
		r.Peers = append(r.Peers, policy.Peer{Name: "*.example.com"})
	}
	for range rapid.IntRange(0, 3).Draw(t, "peers") {
		p := policy.Peer{Anyone: rapid.Bool().Draw(t, "anyone")}
		p.Identities = some(t, "identities", func(t *rapid.T) policy.Identity {
			return policy.Identity(rapid.Uint32Range(1, 1<<32-1).Draw(t, "identity"))
		}, cmp.Compare[policy.Identity])
		if rapid.Bool().Draw(t, "cidr") {
			p.CIDR = prefix(t)
			if p.CIDR.Addr().Is4() {
				p.Except = []netip.Prefix{netip.MustParsePrefix("10.0.0.9/30")} // kept as it is
			}
		}
		r.Peers = append(r.Peers, p)
	}
	for range rapid.IntRange(0, 3).Draw(t, "ports") {
		first := rapid.Uint16().Draw(t, "first")
		r.Ports = append(r.Ports, policy.PortRange{Protocol: rapid.Byte().Draw(t, "protocol"), First: first, Last: rapid.Uint16Min(first).Draw(t, "last")})
	}
	if rapid.Bool().Draw(t, "about requests") {
		r.Requests = append(r.Requests, requestMatch(t, r.Action))
	}
	return r
}

func set(t *rapid.T) policy.Set {
	s := policy.Set{Default: policy.DefaultRule{ID: "default/x", Allow: rapid.Bool().Draw(t, "allow")}}
	if rapid.Bool().Draw(t, "isolated") {
		s.Isolated, s.AuditIsolated = "isolated/p/ingress", "isolated/p/audit"
	}
	for tier := policy.Admin; tier < policy.Default; tier++ {
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			s.Rules = append(s.Rules, rule(t, tier))
		}
	}
	return s
}

// fill draws up to n rows for one table; nil when none.
func fill[K comparable, V any](t *rapid.T, table string, row func(*rapid.T) (K, V)) map[K]V {
	var out map[K]V
	for range rapid.IntRange(0, 4).Draw(t, table) {
		if out == nil {
			out = map[K]V{}
		}
		k, v := row(t)
		out[k] = v
	}
	return out
}

func arbitrary(t *rapid.T) *snapshot.Snapshot {
	s := &snapshot.Snapshot{Node: "n1"}
	s.Nodes = fill(t, "nodes", func(t *rapid.T) (string, snapshot.Node) {
		n := snapshot.Node{Name: name(t), Address: addr(t), Number: rapid.Uint16().Draw(t, "number"), External: rapid.Bool().Draw(t, "external"), Zone: name(t)}
		return n.Name, n
	})
	s.Networks = fill(t, "networks", func(t *rapid.T) (snapshot.VNI, snapshot.Network) {
		n := snapshot.Network{VNI: vni(t), Project: name(t), Name: name(t), Domain: name(t), Limit: limit(t), MTU: rapid.IntRange(0, 9000).Draw(t, "mtu"), Deny: rapid.Bool().Draw(t, "deny")}
		n.Prefixes = some(t, "prefixes", prefix, comparePrefix)
		return n.VNI, n
	})
	s.Identities = fill(t, "identities", func(t *rapid.T) (policy.Identity, snapshot.Identity) {
		i := snapshot.Identity{Number: policy.Identity(rapid.Uint32Min(1).Draw(t, "number")), Domain: name(t), Project: name(t), Account: name(t), Labels: labels(t)}
		i.SPIFFE = fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", i.Domain, i.Project, i.Account)
		return i.Number, i
	})
	s.Endpoints = fill(t, "endpoints", func(t *rapid.T) (snapshot.Addr, snapshot.Endpoint) {
		e := snapshot.Endpoint{Addr: snapshot.Addr{VNI: vni(t), IP: addr(t)}, Project: name(t), Workload: name(t), MAC: mac(t), Identity: 7, Node: name(t),
			Mode: snapshot.Mode(rapid.IntRange(0, 2).Draw(t, "mode"))}
		if rapid.Bool().Draw(t, "linked") {
			e.Home, e.Chain = at(t), chainKey(t)
		}
		return e.Addr, e
	})
	s.Blocks = fill(t, "blocks", func(t *rapid.T) (snapshot.BlockKey, snapshot.Block) {
		b := block(t)
		return b.BlockKey, b
	})
	s.Grants = fill(t, "grants", func(t *rapid.T) (snapshot.AttachmentKey, snapshot.Grant) {
		g := snapshot.Grant{AttachmentKey: attachmentKey(t)}
		if rapid.Bool().Draw(t, "refused") {
			g.Error = "no such Network;\ncreate it"
		} else {
			g.VNI, g.Identity, g.MAC, g.Limit = vni(t), 9, mac(t), limit(t)
			g.Addresses = some(t, "addresses", addr, netip.Addr.Compare)
		}
		return g.AttachmentKey, g
	})
	s.Policies = fill(t, "policies", func(t *rapid.T) (snapshot.PolicyKey, policy.Set) {
		return snapshot.PolicyKey{VNI: vni(t), Identity: 7, Direction: policy.Direction(rapid.IntRange(0, 1).Draw(t, "direction"))}, set(t)
	})
	reach(t, s)
	mesh(t, s)
	return s
}

func report(t *rapid.T) snapshot.Report {
	r := snapshot.Report{Node: "n1", Address: netip.MustParseAddr("192.0.2.1"), Agent: "v1", Kernel: "6.1", RecordsLost: rapid.Uint64().Draw(t, "lost")}
	r.Attachments = some(t, "attachments", func(t *rapid.T) snapshot.Attachment {
		a := snapshot.Attachment{AttachmentKey: attachmentKey(t), Account: name(t), Labels: labels(t), MAC: mac(t), Tap: rapid.Bool().Draw(t, "tap")}
		if rapid.Bool().Draw(t, "granted") {
			a.VNI, a.Addresses, a.Since = vni(t), []netip.Addr{addr(t)}, time.Unix(5, 6).UTC()
		}
		return a
	}, func(a, b snapshot.Attachment) int { return a.AttachmentKey.Compare(b.AttachmentKey) })
	for range rapid.IntRange(0, 3).Draw(t, "blocks") {
		r.Blocks = append(r.Blocks, block(t))
	}
	r.Health = list(t, "health", func(t *rapid.T) snapshot.Health {
		return snapshot.Health{CheckKey: checkKeyOf(t), Healthy: rapid.Bool().Draw(t, "healthy"), Since: time.Unix(1, 2).UTC(), Error: "refused"}
	})
	r.Trusts = some(t, "trusts", func(t *rapid.T) snapshot.TrustMark { return snapshot.TrustMark{Name: name(t), Mark: "00ff"} },
		func(a, b snapshot.TrustMark) int { return cmp.Compare(a.Name, b.Name) })
	r.Repairs, r.LastRepair, r.Held, r.Proxies = rapid.Uint64().Draw(t, "repairs"), "endpoints: 1 row", "it removes 40 %", "proxy n1: it is not there"
	return r
}
