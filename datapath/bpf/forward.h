// SPDX-License-Identifier: Apache-2.0
// Step 6, forward: to an interface here with redirect_peer, or to another node
// with a VXLAN header that we write ourselves.
#pragma once
#include "answer.h"
#include "chain.h"
#include "leave.h"
#include "policy.h"
#include "rate.h"

#define GROW4 (sizeof(struct outer4) - ETH_LEN)
#define GROW6 (sizeof(struct outer6) - ETH_LEN)
#define ENCAP                                                                                      \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(14) |    \
	 BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

// wire_length is the length of the IP packet as it will be on the wire: of one
// segment when the kernel will cut it up later.
inline_ u32 wire_length(struct __sk_buff *skb, const struct packet *p)
{
	u32 gso = skb->gso_size;
	return gso ? gso + p->headers : skb->len - ETH_LEN;
}

// port_of is the outer source port: one per flow, so that the underlay can
// spread flows over paths and queues.
inline_ u16 port_of(struct __sk_buff *skb, const struct packet *p)
{
	u32 hash = skb->hash; // of a sender's TCP: it changes when a path seems to be broken

	if (!hash)
		hash = chain_hash(&p->key);
	return bpf_htons(49152 | ((hash ^ hash >> 16) & 0x3fff));
}

inline_ void inner_eth(struct eth *e, const struct packet *p, const struct hop *to)
{
	__builtin_memcpy(e->dst, to->mac, 6);
	__builtin_memcpy(e->src, p->eth_src, 6);
	e->proto = p->v6 ? ETH_IPV6 : ETH_IPV4;
}

// grow makes room for the outer headers. A packet that came in a tunnel over a
// veth pair, and that a function sends on, still has the marks of that tunnel
// (see cut_up in underlay.h), and gets no others. They say where the inner headers
// are, and that stays right; only the family must be told, which the kernel takes
// from who makes room smaller.
inline_ int grow(struct __sk_buff *skb, u32 by, u64 encap, u64 decap)
{
	int r = bpf_skb_adjust_room(skb, by, BPF_ADJ_ROOM_MAC, ENCAP | encap);

	if (likely(r != -114)) // EALREADY
		return r;
	return bpf_skb_adjust_room(skb, by + 4, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	       bpf_skb_adjust_room(skb, -4, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | decap);
}

alone int encap4(struct __sk_buff *skb, struct packet *p, const struct hop *to, const struct node *n)
{
	struct settings *c = the_control();
	struct work *w = the_work();

	if (!p || !to || !n)
		return ACT_DROP;
	u16 port = port_of(skb, p);
	if (!c || !w || grow(skb, GROW4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, DECAP_IPV4))
		return drop(skb, p, R_FAILED);
	struct outer4 *o = &w->outer4;
	__builtin_memset(o, 0, sizeof(*o));
	u32 len = skb->len - ETH_LEN;
	o->eth.proto = ETH_IPV4;
	o->ip.version = 4;
	o->ip.ihl = 5;
	o->ip.len = bpf_htons(len);
	o->ip.frag = bpf_htons(0x4000);
	o->ip.ttl = 64;
	o->ip.proto = PROTO_UDP;
	o->ip.src = c->self.w[3];
	o->ip.dst = n->addr.w[3];
	o->ip.csum = fold((u64)n->csum + o->ip.len);
	o->udp.src = port;
	o->udp.dst = VXLAN_PORT;
	o->udp.len = bpf_htons(len - sizeof(o->ip));
	o->vxlan.flags = bpf_htonl(0x08000000);
	o->vxlan.vni = bpf_htonl(p->vni << 8);
	inner_eth(&o->inner, p, to);
	if (bpf_skb_store_bytes(skb, 0, o, sizeof(*o), 0))
		return drop(skb, p, R_FAILED);
	if (n->onlink) {
		struct bpf_redir_neigh nh = {.nh_family = FAMILY_IPV4, .ipv4_nh = o->ip.dst};
		return bpf_redirect_neigh(c->uplink, &nh, sizeof(nh), 0);
	}
	return bpf_redirect_neigh(c->uplink, 0, 0, 0);
}

alone int encap6(struct __sk_buff *skb, struct packet *p, const struct hop *to, const struct node *n)
{
	struct settings *c = the_control();
	struct work *w = the_work();

	if (!p || !to || !n)
		return ACT_DROP;
	u16 port = port_of(skb, p);
	if (!c || !w || grow(skb, GROW6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, DECAP_IPV6))
		return drop(skb, p, R_FAILED);
	struct outer6 *o = &w->outer6;
	__builtin_memset(o, 0, sizeof(*o));
	u32 len = skb->len - ETH_LEN - sizeof(o->ip);
	o->eth.proto = ETH_IPV6;
	o->ip.flow = bpf_htonl(6 << 28);
	o->ip.len = bpf_htons(len);
	o->ip.next = PROTO_UDP;
	o->ip.hops = 64;
	__builtin_memcpy(o->ip.src, c->self.w, 16);
	__builtin_memcpy(o->ip.dst, n->addr.w, 16);
	o->udp.src = port;
	o->udp.dst = VXLAN_PORT;
	o->udp.len = bpf_htons(len);
	o->vxlan.flags = bpf_htonl(0x08000000);
	o->vxlan.vni = bpf_htonl(p->vni << 8);
	inner_eth(&o->inner, p, to);
	if (bpf_skb_store_bytes(skb, 0, o, sizeof(*o), 0))
		return drop(skb, p, R_FAILED);
	if (n->onlink) {
		struct bpf_redir_neigh nh = {.nh_family = FAMILY_IPV6};
		__builtin_memcpy(nh.ipv6_nh, o->ip.dst, 16);
		return bpf_redirect_neigh(c->uplink, &nh, sizeof(nh), 0);
	}
	return bpf_redirect_neigh(c->uplink, 0, 0, 0);
}

inline_ int to_node(struct __sk_buff *skb, struct packet *p, const struct hop *to)
{
	u32 i = to->node;
	struct node *n = bpf_map_lookup_elem(&nodes, &i);
	struct settings *c = the_control();

	if (!n || !c || !i || p->node) // never from node to node
		return drop(skb, p, R_NO_ROUTE);
	if (unlikely(wire_length(skb, p) > p->mtu))
		return too_big(skb, p);
	if (unlikely(p->watched))
		seen_at(skb, p, AT_TO_NODE, 0);
	return c->v6 ? encap6(skb, p, to, n) : encap4(skb, p, to, n);
}

// forward delivers to an end of the session, or sends it to its node.
inline_ int forward(struct __sk_buff *skb, struct packet *p, const struct hop *to)
{
	if (to->ifindex) {
		u32 by_device = to->how & HOW_TAP;
		if (unlikely(to->how & HOW_LIMITED)) {
			if (over(skb, p, to->ifindex, RATE_INGRESS))
				return drop(skb, p, R_LIMIT);
			by_device |= p->proto == PROTO_TCP; // and its queue
		}
		if (!same_mac(p->eth_dst, to->mac) && bpf_skb_store_bytes(skb, 0, to->mac, 6, 0))
			return drop(skb, p, R_FAILED);
		if (unlikely(p->watched))
			seen_at(skb, p, AT_TO_WORKLOAD, to->ifindex);
		return by_device ? bpf_redirect(to->ifindex, 0) : bpf_redirect_peer(to->ifindex, 0);
	}
	if (unlikely(to->how & HOW_OUTSIDE))
		return leave(skb);
	return to_node(skb, p, to);
}
