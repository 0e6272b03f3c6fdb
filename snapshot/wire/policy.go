package wire

import (
	"cmp"

	"moire.dev/moire/snapshot"
	"moire.dev/moire/snapshot/policy"
)

func policyRow(k snapshot.PolicyKey, v *policy.Set) (*Row, snapshot.PolicyKey) {
	out := &PolicySet{Vni: uint32(k.VNI), Identity: uint32(k.Identity), Egress: k.Direction == policy.Egress}
	if v != nil {
		out.Isolated, out.AuditIsolated = string(v.Isolated), string(v.AuditIsolated)
		out.DefaultId, out.DefaultAllow = string(v.Default.ID), v.Default.Allow
		for _, r := range v.Rules {
			out.Rules = append(out.Rules, fromRule(r))
		}
	}
	// A set does not hold its key, but a direction of its own invention would
	// come back as another one.
	own := k
	if k.Direction != policy.Ingress {
		own.Direction = policy.Egress
	}
	return &Row{Row: &Row_Policy{out}}, own
}

func fromRule(r policy.Rule) *Rule {
	out := &Rule{Id: string(r.ID), Tier: uint32(r.Tier), Action: uint32(r.Action), Audit: r.Audit}
	for _, p := range r.Peers {
		peer := &Peer{Anyone: p.Anyone, Cidr: fromPrefix(p.CIDR), Except: fromPrefixes(p.Except), Name: p.Name}
		for _, i := range p.Identities {
			peer.Identities = append(peer.Identities, uint32(i))
		}
		out.Peers = append(out.Peers, peer)
	}
	for _, p := range r.Ports {
		out.Ports = append(out.Ports, fromPorts(p))
	}
	for i := range r.Requests {
		out.Requests = append(out.Requests, fromRequest(&r.Requests[i]))
	}
	return out
}

func fromPorts(p policy.PortRange) *PortRange {
	return &PortRange{Protocol: uint32(p.Protocol), First: uint32(p.First), Last: uint32(p.Last)}
}

func (c *check) policyKey(in *PolicySet) snapshot.PolicyKey {
	k := snapshot.PolicyKey{VNI: c.vni("vni", in.GetVni()), Identity: policy.Identity(in.GetIdentity())}
	if in.GetEgress() {
		k.Direction = policy.Egress
	}
	return k
}

func (c *check) set(in *PolicySet) policy.Set {
	out := policy.Set{
		Isolated:      c.ruleID("isolated", in.GetIsolated()),
		AuditIsolated: c.ruleID("audit_isolated", in.GetAuditIsolated()),
		Default:       policy.DefaultRule{ID: c.ruleID("default_id", in.GetDefaultId()), Allow: in.GetDefaultAllow()},
	}
	if out.Default.Allow && out.Default.ID == "" {
		c.failf("default_id", "empty; a default that allows must have an id")
	}
	if !c.count("rules", len(in.GetRules()), maxItems) {
		return policy.Set{}
	}
	for _, r := range in.GetRules() {
		out.Rules = append(out.Rules, c.rule(r))
	}
	// The walk takes the tiers in order; a rule of an earlier tier behind one of
	// a later tier would never be asked.
	for i := 1; i < len(out.Rules); i++ {
		if out.Rules[i].Tier < out.Rules[i-1].Tier {
			c.failf("rules", "rule %d (%s) is of an earlier tier than the one before it", i, out.Rules[i].ID)
			break
		}
	}
	return out
}

func (c *check) ruleID(field, s string) policy.RuleID {
	return policy.RuleID(c.text(field, s, maxRuleID))
}

func (c *check) rule(in *Rule) policy.Rule {
	out := policy.Rule{ID: c.ruleID("rules.id", in.GetId()), Tier: policy.Tier(in.GetTier()), Action: policy.Action(in.GetAction()), Audit: in.GetAudit()}
	switch {
	case out.ID == "":
		c.failf("rules.id", "empty")
	case in.GetTier() >= uint32(policy.Default):
		c.failf("rules.tier", "rule %s is of tier %d; rules have 0 to %d", out.ID, in.GetTier(), policy.Default-1)
	case in.GetAction() > uint32(policy.Pass):
		c.failf("rules.action", "rule %s has action %d; there are 0 to %d", out.ID, in.GetAction(), policy.Pass)
	case out.Action == policy.Pass && out.Tier != policy.Admin:
		c.failf("rules.action", "rule %s passes, which only the admin tier can", out.ID)
	}
	if !c.count("rules.peers", len(in.GetPeers()), maxItems) || !c.count("rules.ports", len(in.GetPorts()), maxItems) || !c.count("rules.requests", len(in.GetRequests()), maxItems) {
		return policy.Rule{}
	}
	for _, p := range in.GetPeers() {
		out.Peers = append(out.Peers, c.peer(p))
	}
	for _, p := range in.GetPorts() {
		out.Ports = append(out.Ports, c.ports(p))
	}
	for _, m := range in.GetRequests() {
		out.Requests = append(out.Requests, c.requestMatch(m, out.Action))
	}
	return out
}

func (c *check) peer(in *Peer) policy.Peer {
	out := policy.Peer{Anyone: in.GetAnyone(), Name: c.text("rules.peers.name", in.GetName(), maxName)}
	if out.Name != "" && (out.Anyone || len(in.GetIdentities()) > 0 || in.GetCidr() != nil) {
		c.failf("rules.peers.name", "set, but so is something else that the peer must match")
	}
	if !c.count("rules.peers.identities", len(in.GetIdentities()), MaxRows) {
		return policy.Peer{}
	}
	for _, i := range in.GetIdentities() {
		out.Identities = append(out.Identities, policy.Identity(i))
	}
	ascending(c, "rules.peers.identities", out.Identities, cmp.Compare[policy.Identity])
	if len(out.Identities) > 0 && out.Identities[0] == 0 {
		c.failf("rules.peers.identities", "0 is nobody, whom a rule cannot name")
	}
	out.Except = c.prefixes("rules.peers.except", in.GetExcept(), false)
	if in.GetCidr() == nil {
		if len(out.Except) > 0 {
			c.failf("rules.peers.except", "exceptions without a cidr")
		}
		return out
	}
	out.CIDR = c.prefix("rules.peers.cidr", in.GetCidr(), false)
	for _, e := range out.Except {
		if e.Addr().BitLen() != out.CIDR.Addr().BitLen() {
			c.failf("rules.peers.except", "%s is of another address family than %s", e, out.CIDR)
		}
	}
	return out
}

func (c *check) ports(in *PortRange) policy.PortRange {
	out := policy.PortRange{
		Protocol: c.number8("rules.ports.protocol", in.GetProtocol()),
		First:    c.uint16("rules.ports.first", in.GetFirst()),
		Last:     c.uint16("rules.ports.last", in.GetLast()),
	}
	if out.First > out.Last {
		c.failf("rules.ports", "%d to %d is no range", out.First, out.Last)
	}
	return out
}
