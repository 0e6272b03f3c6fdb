// SPDX-License-Identifier: Apache-2.0
// Refusals: who asks for a Service that has nobody for it, or for what only a
// proxy may ask, is told so at once, by a TCP reset or by an ICMP port
// unreachable, in the name of whom it asked.
#pragma once
#include "forward.h"
#include "guise.h"

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

// home sends the frame, which answers the packet of p, to where that came from:
// to the interface, or to the node, in the view of which it is.
step int home(struct __sk_buff *skb, struct packet *p)
{
	struct work *w = work_of(p);
	u32 i = p->node;
	struct settings *c = the_control();
	struct node *n;

	if (!i)
		return back(skb, p);
	n = bpf_map_lookup_elem(&nodes, &i);
	if (!n || !c)
		return ACT_DROP;
	__builtin_memset(&w->hop, 0, sizeof(w->hop));
	__builtin_memcpy(w->hop.mac, p->eth_src, 6);
	__builtin_memcpy(p->eth_src, router_mac, 6);
	return c->v6 ? encap6(skb, p, &w->hop, n) : encap4(skb, p, &w->hop, n);
}

// cut makes the frame no longer than that. One that came in a tunnel over a veth pair
// (see grow in forward.h) cannot be cut: what is behind the packet is padding then.
inline_ int cut(struct __sk_buff *skb, u32 length)
{
	int r = bpf_skb_change_tail(skb, length, 0);

	return r == -524 && !skb->gso_size ? 0 : r; // ENOTSUPP
}

// reset answers the TCP packet at work, which is as its sender sent it, with a reset.
alone int reset(struct __sk_buff *skb)
{
	struct work *w = the_work();
	int r;

	if (!w)
		return ACT_DROP;
	struct packet *p = &w->packet;
	if (p->tcp & TCP_RST || reset_of(skb, p, p->v6 ? &w->reset6.tcp : &w->reset4.tcp) ||
	    cut(skb, ETH_LEN + (p->v6 ? sizeof(w->reset6) : sizeof(w->reset4))))
		return ACT_DROP;
	r = p->v6 ? reset6(skb, p, &w->reset6) : reset4(skb, p, &w->reset4);
	return r ? ACT_DROP : home(skb, p);
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
	r = reset(skb);
	judgement(skb, reason, 0);
	return r;
}

// reject tells the sender of the packet at work, which refused() has dropped,
// wherever it is.
inline_ int reject(struct __sk_buff *skb)
{
	struct work *w = the_work();
	int r;

	if (!w || w->packet.later)
		return ACT_DROP;
	r = reset(skb);
	judged(skb, w->refused.reason, w->refused.rule[0], w->refused.rule[1], w->refused.shadow);
	skb->cb[3] = 1;
	return r;
}
