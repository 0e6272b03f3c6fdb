// SPDX-License-Identifier: Apache-2.0
// Step 0 of the uplink: is the packet VXLAN for us, from a node we know? Then
// its header is stripped. Everything else is none of our business.
#pragma once
#include "session.h"

// ours reads the outer headers. 0: pass the packet on, untouched.
inline_ int ours(struct __sk_buff *skb, struct tunnel *t)
{
	struct settings *c = the_control();
	const void *at;
	union addr dst;
	u8 proto;

	if (!c || linear(skb, IP_HEADERS))
		return 0;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct eth *eth = data;
	if (data + ETH_LEN + sizeof(struct ipv4) > end)
		return 0;
	if (!c->v6 && eth->proto == ETH_IPV4) {
		struct ipv4 *ip = data + ETH_LEN;
		if (ip->ihl != 5 || (ip->frag & bpf_htons(0x3fff)) || ip->dst != c->self.w[3])
			return 0;
		proto = ip->proto;
		at = ip + 1;
		set_ipv4(&t->src, ip->src);
		t->base = sizeof(struct outer4) - ETH_LEN;
	} else if (c->v6 && eth->proto == ETH_IPV6) {
		struct ipv6 *ip = data + ETH_LEN;
		if (data + ETH_LEN + sizeof(*ip) > end)
			return 0;
		__builtin_memcpy(&dst, ip->dst, 16);
		if (!same(&dst, &c->self))
			return 0;
		proto = ip->next;
		at = ip + 1;
		__builtin_memcpy(&t->src, ip->src, 16);
		t->base = sizeof(struct outer6) - ETH_LEN;
	} else {
		return 0;
	}
	struct {
		struct udp udp;
		struct vxlan vxlan;
		struct eth eth;
	} packed h;
	if (proto != PROTO_UDP || read_l4(skb, t->base - 16, at, &h, sizeof(h)))
		return 0;
	if (h.udp.dst != VXLAN_PORT || !(h.vxlan.flags & bpf_htonl(0x08000000)))
		return 0;
	t->vni = bpf_ntohl(h.vxlan.vni) >> 8;
	__builtin_memcpy(t->eth, h.eth.dst, 12);
	t->proto = h.eth.proto;
	return bpf_map_lookup_elem(&networks, &t->vni) != 0;
}

// turn_round swaps the outer addresses, so that an answer written in place
// goes back to the node that asked.
step int turn_round(struct __sk_buff *skb, u32 base)
{
	u8 mac[12], addr[32];
	u32 half = base == sizeof(struct outer4) - ETH_LEN ? 4 : 16;
	u32 at = half == 4 ? 26 : 22;

	if (bpf_skb_load_bytes(skb, 6, mac, 6) || bpf_skb_load_bytes(skb, 0, mac + 6, 6) ||
	    bpf_skb_store_bytes(skb, 0, mac, 12, 0))
		return -1;
	if (half == 4) {
		if (bpf_skb_load_bytes(skb, at + 4, addr, 4) || bpf_skb_load_bytes(skb, at, addr + 4, 4))
			return -1;
		return bpf_skb_store_bytes(skb, at, addr, 8, 0);
	}
	if (bpf_skb_load_bytes(skb, at + 16, addr, 16) || bpf_skb_load_bytes(skb, at, addr + 16, 16))
		return -1;
	return bpf_skb_store_bytes(skb, at, addr, 32, 0);
}

// is_question: it may be ARP or a solicitation. Not so what is TCP or UDP.
inline_ int is_question(struct __sk_buff *skb, const struct tunnel *t)
{
	u32 at = t->base + ETH_LEN + __builtin_offsetof(struct ipv6, next);
	u8 next = 0;

	if (likely(t->proto == ETH_IPV4))
		return 0;
	if (t->proto != ETH_IPV6)
		return 1;
	bpf_skb_load_bytes(skb, at, &next, 1);
	return next != PROTO_TCP && next != PROTO_UDP;
}

// question handles ARP and solicitations of a foreign VXLAN device. 0: it is
// something else.
step int question(struct __sk_buff *skb, struct packet *p, const struct tunnel *t)
{
	struct {
		struct ipv6 ip;
		u8 type;
	} packed h;
	int r;

	if (t->proto == ETH_ARP) {
		r = arp(skb, p, t->base);
	} else {
		if (bpf_skb_load_bytes(skb, t->base + ETH_LEN, &h, sizeof(h)) ||
		    h.ip.next != PROTO_ICMPV6 || h.type < 133 || h.type > 137)
			return 0;
		p->v6 = 1;
		p->icmp = h.type;
		p->proto = PROTO_ICMPV6;
		p->l4 = ETH_LEN + sizeof(h.ip);
		__builtin_memcpy(&p->src, h.ip.src, 16);
		__builtin_memcpy(&p->dst, h.ip.dst, 16);
		set_key(p, &p->src, 0, &p->dst, 0, PROTO_ICMPV6);
		r = discovery(skb, p, t->base);
	}
	if (r != ACT_DROP && turn_round(skb, t->base))
		return ACT_DROP;
	return r;
}

// cut_up: a tunnelled datagram of many segments, as it arrives over a veth pair
// that leaves the cutting to somebody else. Without its tunnel the kernel could
// not cut it any more (the helper leaves the marks of the tunnel on it), so it
// takes a turn over the loopback, which cuts. There we see the segments.
inline_ int cut_up(struct __sk_buff *skb, const struct tunnel *t)
{
	u8 proto = 0;

	if (likely(!skb->gso_size))
		return 0;
	bpf_skb_load_bytes(skb, t->base + ETH_LEN + (t->proto == ETH_IPV6 ? 6 : 9), &proto, 1);
	return proto == PROTO_UDP;
}

// strip removes the outer headers; the frame then looks as the sender's
// interface sent it.
step int strip(struct __sk_buff *skb, const struct tunnel *t)
{
	u8 eth[ETH_LEN];
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | (t->proto == ETH_IPV6 ? DECAP_IPV6 : DECAP_IPV4);

	__builtin_memcpy(eth, t->eth, 12);
	__builtin_memcpy(eth + 12, &t->proto, 2);
	if (bpf_skb_adjust_room(skb, -(s32)t->base, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	return bpf_skb_store_bytes(skb, 0, eth, sizeof(eth), 0);
}
