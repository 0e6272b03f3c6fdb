// SPDX-License-Identifier: Apache-2.0
// Step 2b, neighbours: ARP and neighbour solicitation are answered here, with
// the endpoint's own MAC, or the router's for a gateway or a Service address.
// Nothing of it ever leaves the interface. Questions that come in a tunnel, from
// a foreign VXLAN device, are answered in place; base is the offset of the inner
// frame.
#pragma once
#include "answer.h"
#include "policy.h"

struct arp {
	u16 hw, proto;
	u8 hw_len, proto_len;
	u16 op;
	u8 sha[6];
	u32 spa;
	u8 tha[6];
	u32 tpa;
} packed;

struct solicit { // and advertisement
	u8 type, code;
	u16 csum;
	u32 flags;
	u32 target[4];
	u8 option, units;
	u8 mac[6];
} packed;

// is_router: the link-local address of router_mac, fe80::4d:4fff:fe49:5245. It
// is the router in advertisements of the agent.
inline_ int is_router(const union addr *a)
{
	return a->w[0] == bpf_htonl(0xfe800000) && a->w[1] == 0 && a->w[2] == bpf_htonl(0x004d4fff) &&
	       a->w[3] == bpf_htonl(0xfe495245);
}

// is_visitor: sessions come from that address over a FloatingIP, although nobody
// here has it.
step int is_visitor(u32 vni, const union addr *a)
{
	struct addr_key k = {.vni = vni};
	k.addr = *a;
	return bpf_map_lookup_elem(&visitors, &k) != 0;
}

// mac_of finds who answers for an address; 0 when nobody does, or when it is
// the asking interface's own.
inline_ int mac_of(struct packet *p, const union addr *a, u8 *mac)
{
	if (is_router(a)) {
		__builtin_memcpy(mac, router_mac, 6);
		return 1;
	}
	struct endpoint *e = endpoint_of(p->vni, a);
	if (e) {
		if (e->ifindex == p->ifindex && e->node == p->node)
			return 0;
		__builtin_memcpy(mac, e->mac, 6);
		return 1;
	}
	if (route_to(p->vni, a) != ROUTE_GATEWAY && !at_address(p->vni, a) && !is_visitor(p->vni, a))
		return 0;
	__builtin_memcpy(mac, router_mac, 6);
	return 1;
}

// for_agent: the agent has seen it already (a packet socket comes before this
// program) and answers it: DHCP, and solicitations of routers.
inline_ int for_agent(const struct packet *p)
{
	if (p->kind == K_ND)
		return p->icmp == 133;
	return p->kind == K_FLOW && p->proto == PROTO_UDP && p->dport == (p->v6 ? bpf_htons(547) : bpf_htons(67)) &&
	       !endpoint_of(p->vni, &p->dst);
}

inline_ int owns(struct packet *p, const union addr *a)
{
	struct endpoint *e = endpoint_of(p->vni, a);
	return e && e->ifindex == p->ifindex && e->node == p->node;
}

step int arp(struct __sk_buff *skb, struct packet *p, u32 base)
{
	struct {
		struct eth eth;
		struct arp arp;
	} packed f;
	u8 mac[6];
	int probe;

	if (bpf_skb_load_bytes(skb, base, &f, sizeof(f)))
		return drop(skb, p, R_BAD_PACKET);
	if (f.arp.hw != bpf_htons(1) || f.arp.proto != ETH_IPV4 || f.arp.hw_len != 6 || f.arp.proto_len != 4)
		return drop(skb, p, R_BAD_PACKET);
	set_ipv4(&p->src, f.arp.spa);
	set_ipv4(&p->dst, f.arp.tpa);
	set_key(p, &p->src, 0, &p->dst, 0, PROTO_ARP);
	probe = f.arp.spa == 0;
	if (!same_mac(f.arp.sha, f.eth.src) || (!probe && !owns(p, &p->src)))
		return drop(skb, p, R_SPOOFED_ARP);
	if (f.arp.op != bpf_htons(1) || owns(p, &p->dst)) // announcing itself
		return drop(skb, p, R_MULTICAST);
	if (!mac_of(p, &p->dst, mac))
		return drop(skb, p, R_NO_NEIGHBOUR);
	__builtin_memcpy(f.eth.dst, f.eth.src, 6);
	__builtin_memcpy(f.eth.src, mac, 6);
	f.arp.op = bpf_htons(2);
	__builtin_memcpy(f.arp.tha, f.arp.sha, 6);
	__builtin_memcpy(f.arp.sha, mac, 6);
	u32 asker = f.arp.spa;
	f.arp.spa = f.arp.tpa;
	f.arp.tpa = asker;
	if (bpf_skb_store_bytes(skb, base, &f, sizeof(f), 0))
		return drop(skb, p, R_FAILED);
	return send_answer(skb, p);
}

// advertise turns the solicitation at base into the answer.
inline_ int advertise(struct __sk_buff *skb, struct packet *p, u32 base, const u8 *mac)
{
	struct {
		struct eth eth;
		struct ipv6 ip;
		struct solicit na;
	} packed f = {};
	int probe = is_zero(&p->src);

	if (bpf_skb_load_bytes(skb, base + ETH_LEN + sizeof(f.ip), &f.na, 24))
		return -1;
	__builtin_memcpy(f.eth.dst, p->eth_src, 6);
	__builtin_memcpy(f.eth.src, mac, 6);
	f.eth.proto = ETH_IPV6;
	f.ip.flow = bpf_htonl(6 << 28);
	f.ip.len = bpf_htons(sizeof(f.na));
	f.ip.next = PROTO_ICMPV6;
	f.ip.hops = 255;
	__builtin_memcpy(f.ip.src, f.na.target, 16);
	if (probe) { // the asker has no address yet: all nodes
		f.ip.dst[0] = bpf_htonl(0xff020000);
		f.ip.dst[3] = bpf_htonl(1);
	} else {
		__builtin_memcpy(f.ip.dst, p->src.w, 16);
	}
	f.na.type = 136;
	f.na.code = 0;
	f.na.csum = 0;
	f.na.flags = bpf_htonl(probe ? 0x20000000 : 0x60000000); // override, solicited
	f.na.option = 2;
	f.na.units = 1;
	__builtin_memcpy(f.na.mac, mac, 6);
	s64 sum = bpf_csum_diff(0, 0, (u32 *)f.ip.src, 32 + sizeof(f.na), 0);
	f.na.csum = fold((u64)(u32)sum + f.ip.len + bpf_htons(PROTO_ICMPV6));
	return bpf_skb_store_bytes(skb, base, &f, sizeof(f), 0);
}

// discovery handles what routers and neighbours say. Only solicitations for
// others get an answer.
step int discovery(struct __sk_buff *skb, struct packet *p, u32 base)
{
	struct solicit ns = {};
	union addr target;
	u8 mac[6];
	u32 at = base + p->l4, whole = at + sizeof(ns);

	if (p->icmp == 134 || p->icmp == 137)
		return drop(skb, p, R_SPOOFED_ND);
	if (p->icmp != 135 && p->icmp != 136) // router and multicast listener messages
		return drop(skb, p, R_MULTICAST);
	if (bpf_skb_load_bytes(skb, at, &ns, 24) || p->l4 != ETH_LEN + sizeof(struct ipv6))
		return drop(skb, p, R_BAD_PACKET);
	if (skb->len >= whole && bpf_skb_load_bytes(skb, at, &ns, sizeof(ns)))
		return drop(skb, p, R_BAD_PACKET);
	__builtin_memcpy(&target, ns.target, 16);
	if (!is_zero(&p->src) && !is_link_local(&p->src) && !owns(p, &p->src))
		return drop(skb, p, R_SPOOFED_ND);
	if (skb->len >= whole && (ns.option == 1 || ns.option == 2) && !same_mac(ns.mac, p->eth_src))
		return drop(skb, p, R_SPOOFED_ND);
	if (p->icmp == 136)
		return drop(skb, p, owns(p, &target) || is_link_local(&target) ? R_MULTICAST : R_SPOOFED_ND);
	if (owns(p, &target) || (is_link_local(&target) && !is_router(&target)))
		return drop(skb, p, R_MULTICAST);
	if (!mac_of(p, &target, mac))
		return drop(skb, p, R_NO_NEIGHBOUR);
	// In a tunnel the length cannot change: plain probes get no answer there.
	if (skb->len != whole && (base || bpf_skb_change_tail(skb, whole, 0)))
		return drop(skb, p, R_NO_NEIGHBOUR);
	if (advertise(skb, p, base, mac))
		return drop(skb, p, R_FAILED);
	return send_answer(skb, p);
}
