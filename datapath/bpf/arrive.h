// SPDX-License-Identifier: Apache-2.0
// Step 0 for what is not VXLAN: does it come from outside to us? What is for the
// node's own address is the host's, unless its port is one of those that only we
// take, and a session of ours says exactly so.
#pragma once
#include "session.h"
#include "underlay.h"

inline_ u32 reaches_out(void)
{
	struct settings *c = the_control();
	return c ? c->outside : 0;
}

// front_at finds the front that the packet is for.
inline_ struct front *front_at(struct __sk_buff *skb, union addr *dst)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct eth *eth = data;

	if (data + ETH_LEN + sizeof(struct ipv4) > end)
		return 0;
	if (eth->proto == ETH_IPV4) {
		struct ipv4 *ip = data + ETH_LEN;
		set_ipv4(dst, ip->dst);
	} else if (eth->proto == ETH_IPV6 && data + ETH_LEN + sizeof(struct ipv6) <= end) {
		struct ipv6 *ip = data + ETH_LEN;
		__builtin_memcpy(dst, ip->dst, 16);
	} else {
		return 0;
	}
	return front_of(dst);
}

// may_be_ours: what comes to the node's own address could belong to a session
// of ours. Looks at the port alone, and so leaves the host's traffic alone.
inline_ int may_be_ours(const struct packet *p)
{
	struct outlook *o = the_outlook();
	u16 port = bpf_ntohs(p->dport);

	if (!o || (p->kind != K_FLOW && p->kind != K_REPLY))
		return o && p->kind == K_ERROR;
	return port >= o->first && port <= o->last;
}

// known_outside: a session of ours is what an ICMP error, or any other packet,
// from outside is about.
inline_ int known_outside(struct packet *p)
{
	u64 now = bpf_ktime_get_coarse_ns();
	struct alias *a = alias_of(&p->key);
	struct session *s = a ? session_of(&a->session) : 0;

	if (!s || s->expires < now || !matches(p, s, a->end))
		return 0;
	return p->kind == K_ERROR || (same(&s->guise[a->end & 1].addr[a->end & 1], &p->src) && !is_opening(p, s, a->end & 1));
}

// is_answer_to_host: the host itself asked an external address that it holds, and
// speaks to it under that very address; this is what comes back.
inline_ int is_answer_to_host(const struct packet *p)
{
	struct session *s;

	if (!same(&p->src, &p->dst))
		return 0;
	s = session_of(&p->key);
	return s && side_of(p, s);
}

// from_outside handles what is for a front of ours.
step int from_outside(struct __sk_buff *skb, struct packet *p)
{
	u32 vni = OUTSIDE, *mtu = bpf_map_lookup_elem(&networks, &vni);
	union addr dst;
	struct front *f;
	int r;

	f = front_at(skb, &dst);
	if (likely(!f) || f->node)
		return ACT_NEXT;
	u32 own = f->kind == FRONT_OWN;
	p->vni = OUTSIDE;
	p->outside = 1;
	p->mtu = mtu ? *mtu : 0;
	r = parse(skb, p);
	if (p->kind == K_ND || p->kind == K_ARP) // between the host and its neighbours
		return ACT_NEXT;
	if (own && (r || !may_be_ours(p) || !known_outside(p)))
		return ACT_NEXT;
	if (r)
		return drop(skb, p, r);
	return is_answer_to_host(p) ? ACT_NEXT : 0;
}
