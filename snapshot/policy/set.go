package policy

import "net/netip"

// Identity is the 32-bit identity number. 0 is nobody known.
type Identity uint32

// RuleID names a rule or a default for ever, for people and machines:
//
//	policy/<project>/<policy>/<ingress|egress>/<rule name or index>
//	isolated/<project>/<policy>/<ingress|egress>  this Policy (the first by name) selects
//	                                              the Workload, and no rule of the tier matched
//	default/<project>/<network>/<open|deny>       nothing else decided
//	gateway/<project>/<network>                   the gateway of the Network answers a ping
//	platform/<names|metadata|health>              what the node itself serves or checks
//	closed/<reason>                               something needed is missing
type RuleID string

// Direction as the protected Workload sees it.
type Direction uint8

// The two directions.
const (
	Ingress Direction = 0
	Egress  Direction = 1
)

// String is ingress or egress.
func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Action of a rule.
type Action uint8

// Actions. The zero value denies.
const (
	Deny Action = iota
	Allow
	Pass // the next tier decides
)

// String is deny, allow or pass.
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Pass:
		return "pass"
	}
	return "deny"
}

// Tier numbers, in the order in which they are asked.
type Tier uint8

// The order of the tiers. This is the one table that says it.
const (
	Admin    Tier = iota // accept, deny, pass
	Project              // deny before allow; once selected, the rest is denied
	Baseline             // allow, deny
	Default              // of the Network
)

// Tiers lists every tier in the order in which it is asked.
var Tiers = [...]Tier{Admin, Project, Baseline, Default}

// String is admin, project, baseline or default.
func (t Tier) String() string {
	return [...]string{"admin", "project", "baseline", "default"}[t]
}

// Protocols by IP protocol number. ICMP stands for ICMPv6 (58) too.
const (
	ICMP = 1
	TCP  = 6
	UDP  = 17
	SCTP = 132
)

// Set is everything that decides about one Workload in one direction.
// The zero Set denies with closed/no-policy.
type Set struct {
	// Rules of all tiers in the order in which they are asked: by tier, within
	// admin and baseline by priority, within project deny before allow.
	Rules []Rule
	// Isolated, when set, ends the project tier: no rule matched, denied.
	Isolated RuleID
	// AuditIsolated is the same for Policies in mode audit.
	AuditIsolated RuleID
	// Default decides when no tier did.
	Default DefaultRule
}

// DefaultRule is the last word.
type DefaultRule struct {
	ID    RuleID
	Allow bool
}

// Rule is one resolved rule.
type Rule struct {
	ID     RuleID
	Tier   Tier
	Action Action
	// Audit: the rule counts only for the shadow verdict.
	Audit bool
	// Peers: any of them; none means everybody.
	Peers []Peer
	// Ports: any of them; none means every protocol and port.
	Ports []PortRange
	// Requests, when there are any, makes it a rule about requests: it matches TCP
	// only, and only what one of them matches. A packet that meets such a rule
	// before any other decides needs the proxy.
	Requests []RequestMatch
}

// Peer matches the other side; all that is set must match.
type Peer struct {
	// Anyone: every identity matches; otherwise only Identities (sorted).
	Anyone     bool
	Identities []Identity
	// CIDR, when valid, must contain the peer's address, and none of Except.
	CIDR   netip.Prefix
	Except []netip.Prefix
	// Name, when set, is all there is: a DNS name or *.name, lower case without
	// a full stop at the end. Packet.Name must match it. A kernel table knows no
	// names: the node first puts Peers with the addresses that it has told the
	// Workload in its place, see Resolve.
	Name string
}

// PortRange is a protocol and a closed range of destination ports; 0 to 65535
// is every port, and what ICMP has.
type PortRange struct {
	Protocol    uint8
	First, Last uint16
}

// Packet is what is decided about.
type Packet struct {
	Peer     Identity
	PeerAddr netip.Addr
	// Protocol is the IP protocol number; 58 counts as ICMP.
	Protocol uint8
	// Port is the destination port, 0 where the protocol has none.
	Port uint16
	// Name by which the peer was asked for, "" when unknown; only for explain.
	Name string
}

// Verdict is the decision.
type Verdict struct {
	Allow bool
	// Proxy, of a packet: a proxy, and nobody else, takes it, and decides about each
	// request; Rule is the first one that asks for it. Allow is false then, so that
	// who knows no proxy denies.
	Proxy bool
	Rule  RuleID
	Tier  Tier
	// Shadow is what would be decided if every Policy in mode audit were
	// enforced; its ID is empty when that is no different.
	Shadow DefaultRule
}
