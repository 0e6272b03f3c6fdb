//go:build ignore

// SPDX-License-Identifier: Apache-2.0
// The two programs of packets. Read the headers in packet order:
//   0 underlay.h   VXLAN for us? arrive.h: from outside? (uplink only)
//   1 parse.h      what is it
//   2 session.h    anti-spoofing; neighbour.h: ARP and ND; answer.h: gateway
//   3 conntrack.h  sessions, the fast path
//   4 session.h    route: where is the destination
//   4b serve.h     is the destination a Service: which backend (service.h)
//   4c float.h, chain.h, outside.h  a FloatingIP, a function in front, beyond
//   5 policy.h     verdict with rule id; mesh.h: only by a proxy
//   6 forward.h    to the interface, or to the node; rate.h: within limits;
//                  outside.h, leave.h: to what is no network
// tables.h holds the maps, rows.h asks them, reasons.h and events.h have what is
// told about it, and watch.h what captures and traces see. connect.h has the
// programs that lead connections of workloads to their proxy.
#include "kernel.h"
#include "tables.h"
#include "reasons.h"
#include "parse.h"
#include "events.h"
#include "service.h"
#include "answer.h"
#include "conntrack.h"
#include "policy.h"
#include "forward.h"
#include "neighbour.h"
#include "session.h"
#include "underlay.h"
#include "arrive.h"
#include "connect.h"

inline_ struct packet *fresh_packet(void)
{
	struct work *w = the_work();
	if (!w)
		return 0;
	__builtin_memset(&w->packet, 0, sizeof(w->packet));
	return &w->packet;
}

// from_workload sees what the interface of a workload sends.
SEC("tcx/ingress")
int from_workload(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex;
	struct iface *in = bpf_map_lookup_elem(&ifaces, &ifindex);
	struct packet *p = fresh_packet();
	int r;

	if (!p)
		return ACT_DROP;
	p->ifindex = ifindex;
	if (!in)
		return drop(skb, p, R_NO_NETWORK);
	if (unlikely(in->as))
		p->ifindex = in->as;
	p->vni = in->vni;
	p->mtu = in->mtu;
	p->meshed = in->meshed;
	r = parse(skb, p);
	if (unlikely(in->throttle) && p->proto == PROTO_TCP && !r)
		return bpf_redirect(in->throttle, 0);
	if (unlikely(watching()))
		look(skb, p, AT_FROM_WORKLOAD);
	if (unlikely(r))
		return drop(skb, p, r);
	if (unlikely(in->closed))
		return drop(skb, p, R_NO_NETWORK);
	if (unlikely(!same_mac(p->eth_src, in->mac)) && !bridged(p))
		return drop(skb, p, R_SPOOFED_MAC);
	if (unlikely(in->dhcp) && for_agent(p))
		return ACT_DROP;
	if (unlikely(p->kind == K_ARP))
		return arp(skb, p, 0);
	if (unlikely(p->kind == K_ND))
		return discovery(skb, p, 0);
	if (unlikely(in->limits) && over(skb, p, p->ifindex, RATE_EGRESS))
		return drop(skb, p, R_LIMIT);
	return through(skb, p);
}

// from_underlay sees what arrives at the uplink, and at the loopback.
SEC("tcx/ingress")
int from_underlay(struct __sk_buff *skb)
{
	struct work *w = the_work();
	struct packet *p;
	struct tunnel *t;
	u32 *node;
	int r;

	if (!w)
		return ACT_NEXT;
	t = &w->tunnel;
	r = ours(skb, t);
	if (!r && !reaches_out())
		return ACT_NEXT;
	p = fresh_packet();
	if (!p)
		return ACT_DROP;
	if (!r) {
		r = from_outside(skb, p);
		if (r)
			return r;
		goto on;
	}
	p->vni = t->vni;
	node = bpf_map_lookup_elem(&vteps, &t->src);
	if (unlikely(!node)) {
		set_key(p, &t->src, 0, &p->dst, 0, PROTO_UDP);
		return drop(skb, p, R_UNKNOWN_VTEP);
	}
	p->node = *node;
	if (unlikely(is_question(skb, t))) {
		__builtin_memcpy(p->eth_dst, t->eth, 12);
		if (t->proto != ETH_ARP && t->proto != ETH_IPV6)
			return drop(skb, p, R_UNSUPPORTED);
		r = question(skb, p, t);
		if (r)
			return r;
	}
	if (unlikely(cut_up(skb, t)))
		return skb->ifindex == LOOPBACK ? drop(skb, p, R_UNSUPPORTED) : bpf_redirect(LOOPBACK, 0);
	if (strip(skb, t))
		return drop(skb, p, R_FAILED);
	r = parse(skb, p);
	if (unlikely(watching()))
		look(skb, p, AT_FROM_NODE);
	if (unlikely(r))
		return drop(skb, p, r);
	if (unlikely(p->kind == K_ND || p->kind == K_ARP))
		return drop(skb, p, R_UNSUPPORTED);
on:
	return through(skb, p);
}

char _license[] SEC("license") = "Dual BSD/GPL";
