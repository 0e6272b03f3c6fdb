// SPDX-License-Identifier: Apache-2.0
// Sessions that the fast path does not carry alone (S_ODD): their packets are
// rewritten on the way.
#pragma once
#include "forward.h"
#include "quote.h"

inline_ int is_odd(const struct session *s) { return wears(s, 0) || wears(s, 1); }

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
inline_ void keep_alias(struct packet *p, const struct session *s, u32 end)
{
	if (wears(s, end) && !bpf_map_lookup_elem(&aliases, guise_as_key(p, &s->guise[end & 1])))
		put_alias(p, s, end);
}

// send_on delivers the packet, rewritten where it must be.
step int send_on(struct __sk_buff *skb, struct packet *p, struct session *s, u32 side)
{
	int r;

	side &= 1;
	if (unlikely(p->outside && watching()))
		look(skb, p, AT_FROM_OUTSIDE);
	if (likely(!is_odd(s)))
		return forward(skb, p, &s->hop[1 - side]);
	if (p->kind != K_ERROR)
		keep_alias(p, s, 1 - side);
	r = dress(skb, p, s, side);
	return r ? r : forward(skb, p, &s->hop[1 - side]);
}
