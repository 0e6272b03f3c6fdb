// SPDX-License-Identifier: Apache-2.0
// Step 5, policy: the flattened table of snapshot/policy/flatten.go, and in
// the same order: class of the peer's address, then the longest match for the
// peer's identity, then for everybody. Nothing found is closed. What only a proxy
// can decide is allowed here, see mesh.h.
#pragma once
#include "conntrack.h"

#define RULE_CLOSED 1 // closed/no-policy

inline_ u32 class_of(u32 set, const union addr *peer)
{
	struct route_key k;
	prefix_key(&k, set, peer);
	u32 *class = bpf_map_lookup_elem(&classes, &k);
	return class ? *class : 0;
}

// verdict_of is what the set says about a peer.
inline_ struct verdict *verdict_of(u32 set, u32 identity, const union addr *peer, u8 proto, u16 port)
{
	struct policy_key k = {.bits = 120, .set = set, .identity = identity};
	struct verdict *v;

	if (!set)
		return 0;
	if (set & SET_CLASSES)
		k.class = class_of(set, peer);
	if (proto == PROTO_ICMPV6)
		proto = PROTO_ICMP;
	k.proto = proto;
	if (proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP)
		__builtin_memcpy(k.port, &port, 2);
	v = bpf_map_lookup_elem(&policy, &k);
	if (!v && k.identity) {
		k.identity = 0;
		v = bpf_map_lookup_elem(&policy, &k);
	}
	return v;
}

// decide asks set i (0 egress, 1 ingress) of s about the other end.
step int decide(struct session *s, u32 i, const union addr *peer, u8 proto, u16 port)
{
	struct verdict *v;

	i &= 1;
	s->rule[i] = RULE_CLOSED;
	s->shadow[i] = 0;
	s->tier[i] = 3;
	v = verdict_of(s->set[i], s->identity[1 - i], peer, proto, port);
	if (!v)
		return 0;
	if (unlikely(v->allow == PROXIED))
		s->judged |= i ? J_PROXY_1 : J_PROXY_0;
	s->rule[i] = v->rule;
	s->shadow[i] = v->shadow;
	s->tier[i] = v->tier;
	s->shadow_allow[i] = v->shadow_allow;
	return v->allow;
}

// served is the verdict about what the node itself serves or asks.
inline_ int served(struct session *s)
{
	u32 i = s->judged & J_SERVED_0 ? 0 : 1;

	s->rule[0] = s->rule[1] = s->set[i];
	s->shadow[0] = s->shadow_allow[0] = s->shadow_allow[1] = 0;
	s->tier[0] = s->tier[1] = 3;
	return 1;
}

// judge decides about the session in s, whose ends are filled in: egress of the
// originator and ingress of the responder, as far as they are here.
alone int judge(struct session *s, const struct session_key *key)
{
	if (!s || !key)
		return 0;
	const union addr *orig = s->a_first ? &key->a : &key->b;
	const union addr *resp = s->a_first ? &key->b : &key->a;
	u16 port = s->a_first ? key->bport : key->aport;

	s->reason = 0;
	s->rule[1] = s->shadow[1] = s->tier[1] = 0;
	if (unlikely(s->judged & (J_SERVED_0 | J_SERVED_1)))
		return served(s);
	if (s->judged & J_EGRESS) {
		if (!decide(s, 0, resp, key->proto, port)) {
			s->reason = R_POLICY;
			return 0;
		}
	}
	if (s->guise[1].kind && !(s->guise[1].flags & G_AWAY)) { // as the responder sees it
		if (s->guise[1].kind != G_FLOATING) // whose callers are judged as the pool knows them
			orig = &s->guise[1].addr[0];
		port = s->guise[1].port[1];
	}
	if (s->judged & J_INGRESS) {
		if (!decide(s, 1, orig, key->proto, port)) {
			s->reason = R_POLICY;
			return 0;
		}
	}
	return 1;
}

// decisive is the rule that a denied session fell to.
inline_ u32 decisive(const struct session *s) { return s->rule[1] ? s->rule[1] : s->rule[0]; }
