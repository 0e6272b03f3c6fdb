// SPDX-License-Identifier: Apache-2.0
// Step 6, to the outside: a packet that is already in the outside's view goes
// the way that the host's own packets would go. What is for the node itself, an
// open port of it or an external address that it holds, takes a turn over the
// loopback.
#pragma once
#include "outside.h"

// hop_down takes one off the time to live; 0 when nothing is left.
inline_ int hop_down(struct __sk_buff *skb, const struct packet *p)
{
	u8 ttl[2];

	if (bpf_skb_load_bytes(skb, ETH_LEN + (p->v6 ? 7 : 8), ttl, p->v6 ? 1 : 2))
		return 0;
	if (ttl[0] <= 1)
		return 0;
	if (p->v6) {
		ttl[0]--;
		return !bpf_skb_store_bytes(skb, ETH_LEN + 7, ttl, 1, 0);
	}
	u16 old = *(u16 *)ttl;
	ttl[0]--;
	return !bpf_l3_csum_replace(skb, ETH_LEN + 10, old, *(u16 *)ttl, 2) &&
	       !bpf_skb_store_bytes(skb, ETH_LEN + 8, ttl, 1, 0);
}

// to_self: the stack of the node takes it from the loopback.
inline_ int to_self(struct __sk_buff *skb, struct packet *p)
{
	u8 mac[12] = {};

	if (bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), 0))
		return drop(skb, p, R_FAILED);
	return bpf_redirect(LOOPBACK, BPF_F_INGRESS);
}

// leave sends the packet of the_work, whose destination is p->dst, to the outside.
alone int leave(struct __sk_buff *skb)
{
	struct settings *c = the_control();
	struct work *w = the_work();
	struct bpf_redir_neigh nh = {};
	int r;

	if (!c || !w)
		return ACT_DROP;
	struct packet *p = &w->packet;
	struct bpf_fib_lookup *fib = &w->fib;
	u32 vni = p->vni;
	if (!hop_down(skb, p))
		return drop(skb, p, R_TTL);
	if (unlikely(p->watched)) { // as the tenant's: the outside is in nobody's network
		p->vni = p->key.vni;
		seen_at(skb, p, AT_TO_OUTSIDE, 0);
		p->vni = vni;
	}
	struct front *f = front_of(&p->dst);
	u32 *host = bpf_map_lookup_elem(&hosts, &p->dst);
	if ((f && !f->node) || (host && *host & HOST_SELF))
		return to_self(skb, p);
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = c->uplink;
	if (p->v6) {
		fib->family = FAMILY_IPV6;
		r = bpf_skb_load_bytes(skb, ETH_LEN + 8, fib->ipv6_src, 16) ||
		    bpf_skb_load_bytes(skb, ETH_LEN + 24, fib->ipv6_dst, 16);
	} else {
		fib->family = FAMILY_IPV4;
		r = bpf_skb_load_bytes(skb, ETH_LEN + 12, &fib->ipv4_src, 4) ||
		    bpf_skb_load_bytes(skb, ETH_LEN + 16, &fib->ipv4_dst, 4);
	}
	if (r)
		return drop(skb, p, R_FAILED);
	r = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (r == BPF_FIB_LKUP_RET_FWD_DISABLED) // the host routes only for itself: from the uplink
		return bpf_redirect_neigh(c->uplink, 0, 0, 0);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH)
		return drop(skb, p, r == BPF_FIB_LKUP_RET_FRAG_NEEDED ? R_TOO_BIG : R_NO_ROUTE);
	nh.nh_family = fib->family;
	__builtin_memcpy(nh.ipv6_nh, fib->ipv6_dst, 16);
	return bpf_redirect_neigh(fib->ifindex, &nh, sizeof(nh), 0);
}
