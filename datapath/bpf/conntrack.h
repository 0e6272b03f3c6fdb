// SPDX-License-Identifier: Apache-2.0
// Step 3, sessions: one row per (network, 5-tuple) for both directions, with
// both ends resolved and judged. A row of the current epoch is the fast path.
#pragma once
#include "events.h"

#define T_TCP (24 * 3600)
#define T_TCP_OPENING 30
#define T_TCP_CLOSED 10
#define T_UDP 180
#define T_UDP_OPENING 30
#define T_SCTP 3600
#define T_ICMP 30
#define T_OTHER 120

#define SHARE_AGAIN (15 * SECOND)

inline_ u32 timeout_of(u8 proto, u8 flags)
{
	switch (proto) {
	case PROTO_TCP:
		if (flags & S_CLOSED)
			return T_TCP_CLOSED;
		return flags & S_REPLY ? T_TCP : T_TCP_OPENING;
	case PROTO_UDP:
		return flags & S_REPLY ? T_UDP : T_UDP_OPENING;
	case PROTO_SCTP:
		return flags & S_REPLY ? T_SCTP : T_UDP_OPENING;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return T_ICMP;
	}
	return T_OTHER;
}

// side is 0 when the packet goes from originator to responder.
inline_ u32 side_of(const struct packet *p, const struct session *s)
{
	return p->src_is_a != s->a_first;
}

// tcp_step follows FIN and RST; returns 1 when the session has ended now.
inline_ int tcp_step(struct session *s, u32 side, u8 tcp)
{
	u8 flags = s->flags;
	if (flags & S_CLOSED) { // the last acknowledgement, or what came late
		s->flags = flags | S_ENDED;
		return !(flags & S_ENDED);
	}
	if (tcp & TCP_FIN)
		flags |= side ? S_FIN_REPLY : S_FIN_FORWARD;
	if (tcp & TCP_RST)
		flags |= S_CLOSED | S_ENDED;
	if ((flags & S_FIN_FORWARD) && (flags & S_FIN_REPLY))
		flags |= S_CLOSED;
	s->flags = flags;
	s->timeout = timeout_of(PROTO_TCP, flags);
	return tcp & TCP_RST;
}

// account counts the packet and keeps the session alive.
inline_ void account(struct __sk_buff *skb, const struct packet *p, struct session *s, u32 side, u64 now)
{
	u32 n = skb->gso_segs;

	side &= 1;
	__sync_fetch_and_add(&s->packets[side], n ? n : 1);
	__sync_fetch_and_add(&s->bytes[side], skb->len - ETH_LEN);
	if (side && !(s->flags & S_REPLY)) {
		s->flags |= S_REPLY;
		s->timeout = timeout_of(p->key.proto, s->flags);
	}
	if (p->proto == PROTO_TCP &&
	    unlikely((p->tcp & (TCP_FIN | TCP_RST)) || (s->flags & (S_CLOSED | S_ENDED)) == S_CLOSED))
		if (tcp_step(s, side, p->tcp))
			tell(EVENT_ENDED, 0, 0, &p->key, s);
	s->expires = now + s->timeout * SECOND;
}

// is_opening: the packet starts a session anew although there is a row for it:
// a SYN after the end, or from the side that did not open it. It is then judged
// in its own direction, never as a reply.
inline_ int is_opening(const struct packet *p, const struct session *s, u32 side)
{
	if (p->proto != PROTO_TCP || (p->tcp & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return 0;
	return (s->flags & S_CLOSED) || s->reason || side;
}

inline_ void set_hop(struct hop *h, const struct endpoint *e)
{
	h->ifindex = e->ifindex;
	h->node = e->node;
	h->how = e->how;
	__builtin_memcpy(h->mac, e->mac, 6);
}

// is_from: the packet comes from where that hop is.
inline_ int is_from(const struct packet *p, const struct hop *h)
{
	return h->ifindex == p->ifindex && h->node == p->node;
}

// unchanged: everything that the verdict of old stands on is as in new.
inline_ int unchanged(const struct session *old, const struct session *new)
{
	return old->set[0] == new->set[0] && old->set[1] == new->set[1] &&
	       old->identity[0] == new->identity[0] && old->identity[1] == new->identity[1] &&
	       !((old->judged ^ new->judged) & J_GROUND);
}

// renew takes over into the row what was resolved, and, when it was judged
// anew, the verdict. The epoch comes last: until then nobody takes the fast path.
inline_ void renew(struct session *old, const struct session *new, u32 epoch, int judged)
{
	old->hop[0] = new->hop[0];
	old->hop[1] = new->hop[1];
	if (judged) {
		for (int i = 0; i < 2; i++) {
			old->identity[i] = new->identity[i];
			old->set[i] = new->set[i];
			old->rule[i] = new->rule[i];
			old->shadow[i] = new->shadow[i];
			old->tier[i] = new->tier[i];
			old->shadow_allow[i] = new->shadow_allow[i];
		}
		old->judged = new->judged;
		old->reason = new->reason;
	}
	barrier();
	old->epoch = epoch;
}
