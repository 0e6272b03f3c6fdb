// SPDX-License-Identifier: Apache-2.0
// Sessions that the fast path does not carry alone (S_ODD): their packets are
// rewritten on the way.
#pragma once
#include "forward.h"
#include "quote.h"

inline_ int is_odd(const struct session *s)
{
	return wears(s, 0) || wears(s, 1) || (s->hop[0].how | s->hop[1].how) & HOW_TRANSPARENT;
}

// by_bridge sets the MACs of p, from or to a transparent function. Between nodes
// its frames have the function's, so that the other node can tell instances
// apart; on its interface they have those of the ends.
inline_ void by_bridge(struct packet *p, const struct session *s, u32 side, struct hop *to)
{
	if (s->hop[side & 1].how & HOW_TRANSPARENT)
		__builtin_memcpy(p->eth_src, s->hop[side & 1].mac, 6);
	if (to->how & HOW_TRANSPARENT && to->ifindex) {
		u32 dst_is_a = s->a_first ? side : !side;
		struct endpoint *e = endpoint_of(p->vni, dst_is_a ? &p->key.a : &p->key.b);
		if (e)
			__builtin_memcpy(to->mac, e->mac, 6);
	}
}

// fits: the packet is not too big for the network that it is rewritten into.
inline_ int fits(struct __sk_buff *skb, struct packet *p, u32 vni, const struct hop *to)
{
	u32 *mtu = bpf_map_lookup_elem(&networks, &vni);

	if (mtu && *mtu < p->mtu)
		p->mtu = *mtu;
	return !(p->ifindex || (p->outside && !to->ifindex)) || wire_length(skb, p) <= p->mtu;
}

// dress rewrites the packet, which p tells, from how the end that it is from
// sees it to how the end that it is for does. 0, or what the program returns.
inline_ int dress(struct __sk_buff *skb, struct packet *p, const struct session *s, u32 side)
{
	struct work *w = work_of(p);
	int r;

	side &= 1;
	seen_by(&w->from, p, s, side, side);
	seen_by(&w->to, p, s, 1 - side, side);
	if (p->kind == K_ERROR) {
		r = rewrite_error(skb, p, &w->from, &w->to);
	} else if (!fits(skb, p, w->to.vni, &s->hop[1 - side])) {
		p->src = w->from.src; // the answer is in the sender's view
		p->dst = w->from.dst;
		return too_big(skb, p);
	} else {
		r = rewrite(skb, p, &w->from, &w->to);
	}
	p->vni = w->to.vni;
	return r ? drop(skb, p, R_UNSUPPORTED) : 0;
}

// keep_alias: rows of aliases may have been pushed out although the session
// lives: what goes to an end with a guise sees to it that the answer finds home.
// 0: the answer would find another session, which was opened meanwhile.
inline_ int keep_alias(struct packet *p, const struct session *s, u32 end)
{
	struct alias *a;
	struct session *other;

	if (!wears(s, end))
		return 1;
	a = alias_of(guise_as_key(p, &s->guise[end & 1]));
	if (likely(a && same_key(&a->session, &p->key)))
		return 1;
	other = a ? session_of(&a->session) : 0;
	if (other && other->expires >= bpf_ktime_get_coarse_ns())
		return 0;
	put_alias(p, s, end);
	return 1;
}

// give_way ends the session of p, whose answers would go to another one.
step int give_way(struct __sk_buff *skb, struct packet *p)
{
	struct session *s = session_of(&p->key);

	if (s)
		s->expires = 1; // the sweep takes it away
	return drop(skb, p, R_NO_PORT);
}

// prepare does with the packet at work, of an odd session, what must be done before
// it goes to where the hop in struct work says. 0, or what the program returns.
alone int prepare(struct __sk_buff *skb, const struct session *s, u32 side)
{
	struct work *w = the_work();

	if (!w || !s)
		return ACT_DROP;
	struct packet *p = &w->packet;
	struct hop *to = &w->hop;
	side &= 1;
	*to = s->hop[1 - side];
	if ((s->hop[0].how | s->hop[1].how) & HOW_TRANSPARENT)
		by_bridge(p, s, side, to);
	if (!wears(s, 0) && !wears(s, 1))
		return 0;
	if (p->kind != K_ERROR && !keep_alias(p, s, 1 - side))
		return give_way(skb, p);
	return dress(skb, p, s, side);
}

// send_on delivers the packet, rewritten where it must be.
step int send_on(struct __sk_buff *skb, struct packet *p, struct session *s, u32 side)
{
	const struct hop *to = &s->hop[(1 - side) & 1];

	if (unlikely(p->outside && watching()))
		look(skb, p, AT_FROM_OUTSIDE);
	if (is_odd(s)) {
		int r = prepare(skb, s, side);
		if (r)
			return r;
		to = &work_of(p)->hop;
	}
	return forward(skb, p, to);
}
