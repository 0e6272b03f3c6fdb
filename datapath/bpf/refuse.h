// SPDX-License-Identifier: Apache-2.0
// Refusals: who asks for a Service that has nobody for it is told so at once, by
// a TCP reset or by an ICMP port unreachable, in the name of whom it asked.
#pragma once
#include "answer.h"

#define PORT_UNREACHABLE4 0x0303 // type and code
#define PORT_UNREACHABLE6 0x0104

// reset_of fills the reset that answers the TCP packet of p.
inline_ int reset_of(struct __sk_buff *skb, const struct packet *p, struct tcp *t)
{
	u32 more = skb->len - ETH_LEN - p->headers;
	struct tcp was;

	if (bpf_skb_load_bytes(skb, p->l4, &was, sizeof(was)))
		return -1;
	__builtin_memset(t, 0, sizeof(*t));
	t->src = was.dst;
	t->dst = was.src;
	t->off = sizeof(*t) << 2; // in words, upper half
	t->flags = TCP_RST;
	if (was.flags & TCP_ACK) {
		t->seq = was.ack;
		return 0;
	}
	if (was.flags & TCP_SYN)
		more++;
	if (was.flags & TCP_FIN)
		more++;
	t->flags |= TCP_ACK;
	t->ack = bpf_htonl(bpf_ntohl(was.seq) + more);
	return 0;
}

inline_ int reset4(struct __sk_buff *skb, const struct packet *p, struct reset4 *m)
{
	head4(&m->ip, p, PROTO_TCP, bpf_htons(0x4000), sizeof(*m));
	s64 sum = bpf_csum_diff(0, 0, (u32 *)((u8 *)m + 12), 8 + sizeof(m->tcp), 0);
	m->tcp.csum = fold((u64)(u32)sum + bpf_htons(sizeof(m->tcp)) + bpf_htons(PROTO_TCP));
	return bpf_skb_store_bytes(skb, ETH_LEN, m, sizeof(*m), 0);
}

inline_ int reset6(struct __sk_buff *skb, const struct packet *p, struct reset6 *m)
{
	m->tcp.csum = head6(&m->ip, p, PROTO_TCP, sizeof(m->tcp));
	return bpf_skb_store_bytes(skb, ETH_LEN, m, sizeof(*m), 0);
}

// refuse drops the packet, which is as its sender sent it, and tells the sender
// when it is here.
alone int refuse(struct __sk_buff *skb, u32 reason)
{
	struct work *w = the_work();
	struct packet *p = &w->packet;
	int r;

	if (!w)
		return ACT_DROP;
	drop(skb, p, reason);
	if (!(p->ifindex || p->outside) || p->later || p->kind != K_FLOW || p->proto == PROTO_ICMP || p->proto == PROTO_ICMPV6)
		return ACT_DROP;
	if (p->proto != PROTO_TCP)
		return complain(skb, p, reason, p->v6 ? PORT_UNREACHABLE6 : PORT_UNREACHABLE4, 0);
	if (p->tcp & TCP_RST || reset_of(skb, p, p->v6 ? &w->reset6.tcp : &w->reset4.tcp) ||
	    bpf_skb_change_tail(skb, ETH_LEN + (p->v6 ? sizeof(w->reset6) : sizeof(w->reset4)), 0))
		return ACT_DROP;
	r = p->v6 ? reset6(skb, p, &w->reset6) : reset4(skb, p, &w->reset4);
	if (r)
		return ACT_DROP;
	r = back(skb, p);
	judgement(skb, reason, 0);
	return r;
}
