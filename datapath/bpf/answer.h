// SPDX-License-Identifier: Apache-2.0
// What the network itself answers: echo requests to a gateway, and packets
// that are too big for the overlay. (ARP and neighbour discovery: neighbour.h.)
#pragma once
#include "service.h"

static const u8 router_mac[6] = {0x02, 0x4d, 0x4f, 0x49, 0x52, 0x45}; // snapshot.RouterMAC

// send_answer sends the frame, whose receiver is its sender by now, to the
// interface that it came from.
inline_ int send_answer(struct __sk_buff *skb, struct packet *p)
{
	u32 here = skb->ifindex;

	judgement(skb, 0, 0);
	skb->cb[3] = 1;
	if (unlikely(p->watched))
		seen(skb, p, AT_TO_WORKLOAD, 0, 0);
	barrier_var(here);
	return bpf_redirect(p->ifindex ? p->ifindex : here, 0);
}

// back turns the frame round.
inline_ int back(struct __sk_buff *skb, struct packet *p)
{
	u8 mac[12];
	__builtin_memcpy(mac, p->eth_src, 6);
	__builtin_memcpy(mac + 6, p->outside ? p->eth_dst : router_mac, 6);
	if (bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), 0))
		return drop(skb, p, R_FAILED);
	return send_answer(skb, p);
}

// echo answers a ping to a gateway: addresses swapped, type changed.
step int echo(struct __sk_buff *skb, struct packet *p)
{
	u32 len = p->v6 ? 16 : 4, at = ETH_LEN + (p->v6 ? 8 : 12);
	u8 from = p->v6 ? 128 : 8, to = p->v6 ? 129 : 0;
	u32 word = p->v6 ? 0 : 3;

	if (bpf_skb_store_bytes(skb, at, &p->dst.w[word], len, 0) ||
	    bpf_skb_store_bytes(skb, at + len, &p->src.w[word], len, 0) ||
	    bpf_l4_csum_replace(skb, p->l4 + 2, from, to, 2) ||
	    bpf_skb_store_bytes(skb, p->l4, &to, 1, 0))
		return drop(skb, p, R_FAILED);
	return back(skb, p);
}

// no_endpoint: nobody has the destination. Gateways and Service addresses answer
// pings.
step int no_endpoint(struct __sk_buff *skb, struct packet *p)
{
	struct service *v = at_address(p->vni, &p->dst);
	if ((v || route_to(p->vni, &p->dst) == ROUTE_GATEWAY) && !p->node &&
	    p->proto == (p->v6 ? PROTO_ICMPV6 : PROTO_ICMP) && is_ping(p))
		return echo(skb, p);
	return drop(skb, p, v ? R_NO_SERVICE : R_NO_ROUTE);
}

// head4 makes the header of an answer to p of len bytes, in the name of whom p was
// for.
inline_ void head4(struct ipv4 *ip, const struct packet *p, u8 proto, u16 frag, u32 len)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->len = bpf_htons(len);
	ip->frag = frag;
	ip->ttl = 64;
	ip->proto = proto;
	ip->src = p->dst.w[3];
	ip->dst = p->src.w[3];
	ip->csum = fold((u32)bpf_csum_diff(0, 0, (u32 *)ip, sizeof(*ip), 0));
}

// head6 is the same for IPv6; len bytes are behind the header, and it returns their
// checksum with the pseudo header.
inline_ u16 head6(struct ipv6 *ip, const struct packet *p, u8 proto, u32 len)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->flow = bpf_htonl(6 << 28);
	ip->len = bpf_htons(len);
	ip->next = proto;
	ip->hops = 64;
	__builtin_memcpy(ip->src, p->dst.w, 16);
	__builtin_memcpy(ip->dst, p->src.w, 16);
	s64 sum = bpf_csum_diff(0, 0, (u32 *)ip->src, 32 + len, 0);
	return fold((u64)(u32)sum + ip->len + bpf_htons(proto));
}

// big6 writes an error in front of the quoted packet.
inline_ int big6(struct __sk_buff *skb, struct packet *p, struct big6 *m, u32 what, u32 rest)
{
	__builtin_memset(&m->icmp, 0, sizeof(m->icmp));
	if (bpf_skb_load_bytes(skb, ETH_LEN + sizeof(m->ip) + sizeof(m->icmp), m->quote, QUOTE))
		return -1;
	m->icmp.type = what >> 8;
	m->icmp.code = what;
	m->icmp.rest = bpf_htonl(rest);
	m->icmp.csum = head6(&m->ip, p, PROTO_ICMPV6, sizeof(m->icmp) + QUOTE);
	return bpf_skb_store_bytes(skb, ETH_LEN, m, sizeof(m->ip) + sizeof(m->icmp), 0);
}

// big4 writes an error in front of the quoted packet.
inline_ int big4(struct __sk_buff *skb, struct packet *p, struct big4 *m, u32 what, u32 rest)
{
	__builtin_memset(&m->icmp, 0, sizeof(m->icmp));
	if (bpf_skb_load_bytes(skb, ETH_LEN + sizeof(m->ip) + sizeof(m->icmp), m->quote, QUOTE))
		return -1;
	head4(&m->ip, p, PROTO_ICMP, 0, sizeof(*m));
	m->icmp.type = what >> 8;
	m->icmp.code = what;
	m->icmp.rest = bpf_htonl(rest);
	m->icmp.csum = fold((u32)bpf_csum_diff(0, 0, (u32 *)&m->icmp, sizeof(m->icmp) + QUOTE, 0));
	return bpf_skb_store_bytes(skb, ETH_LEN, m, sizeof(m->ip) + sizeof(m->icmp), 0);
}

// complain answers with an ICMP error, `what` is its type and code, in the name of
// the destination, as a router between them would.
step int complain(struct __sk_buff *skb, struct packet *p, u32 reason, u32 what, u32 rest)
{
	u32 grow = (p->v6 ? sizeof(struct ipv6) : sizeof(struct ipv4)) + sizeof(struct icmp);
	struct work *w = the_work();
	int r;

	if (!w || bpf_skb_change_tail(skb, ETH_LEN + QUOTE, 0) ||
	    bpf_skb_adjust_room(skb, grow, BPF_ADJ_ROOM_MAC, 0))
		return ACT_DROP;
	r = p->v6 ? big6(skb, p, &w->big6, what, rest) : big4(skb, p, &w->big4, what, rest);
	if (r)
		return ACT_DROP;
	r = back(skb, p);
	judgement(skb, reason, 0);
	return r;
}

#define TOO_BIG4 0x0304 // type and code
#define TOO_BIG6 0x0200

// too_big tells the sender the size that fits.
inline_ int too_big(struct __sk_buff *skb, struct packet *p)
{
	drop(skb, p, R_TOO_BIG);
	return complain(skb, p, R_TOO_BIG, p->v6 ? TOO_BIG6 : TOO_BIG4, p->mtu);
}
