// SPDX-License-Identifier: Apache-2.0
// The slow path, for packets whose session is new, stale or not a session:
// anti-spoofing, route, policy, mesh, session, forward, in this order.
#pragma once
#include "ground.h"
#include "neighbour.h"
#include "odd.h"
#include "serve.h"

// What slow leaves to its caller, whose stack has more room.
#define SEND_ON -2  // it may pass, as scratch_session and p->side say
#define NOWHERE -3 // nobody has the destination

inline_ int is_multicast(const struct packet *p)
{
	if (p->v6)
		return (p->dst.w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	u32 v4 = bpf_ntohl(p->dst.w[3]);
	return (v4 >> 28) == 14 || v4 == 0xffffffff;
}

// refused drops p: s says why, and by which rule. Whom the mesh refuses is told so,
// as its end sees it.
step int refused(struct __sk_buff *skb, struct packet *p, struct session *s, u32 side)
{
	struct work *w = work_of(p);
	u32 reason = s->reason;

	denied(p, reason, decisive(s), s);
	if (unlikely(p->watched))
		seen(skb, p, AT_DROP, reason, s);
	judgement(skb, reason, s);
	if (likely(reason == R_POLICY))
		return ACT_DROP;
	w->refused.reason = reason;
	w->refused.rule[0] = s->rule[0];
	w->refused.rule[1] = s->rule[1];
	w->refused.shadow = skb->cb[4];
	seen_by(&w->from, p, s, side, side);
	p->src = w->from.src;
	p->dst = w->from.dst;
	p->vni = w->from.vni;
	return REJECT;
}

// about finds the session that an ICMP error is about, and the end that the error
// is from: where the packet that it complains about went to. p->key becomes what
// the session is told as.
inline_ struct session *about(struct packet *p, u32 *from)
{
	struct session *s = session_of(&p->key);
	struct alias *a = 0;

	if (s) {
		*from = 1 - (side_of(p, s) & 1);
		return wears(s, *from) ? 0 : s;
	}
	a = alias_of(&p->key);
	if (!a)
		return 0;
	*from = a->end & 1;
	s = session_of(&a->session);
	if (!s || !matches(p, s, *from) || !same(&s->guise[*from].addr[1 - *from], &p->inner_src))
		return 0;
	p->key = a->session;
	return s;
}

// related lets an ICMP error pass to the one whose packet it is about, when it
// comes from where that packet went to and the session is allowed now. The row
// is left as it is, for the next packet of the session.
inline_ int related(struct __sk_buff *skb, struct packet *p, u32 epoch)
{
	u32 from = 0;
	struct session *s = about(p, &from), *t = scratch_session();

	if (!s || !t || s->reason || s->expires < bpf_ktime_get_coarse_ns() || !same(&p->inner_src, &p->dst))
		return drop(skb, p, R_CT_UNRELATED);
	p->side = from;
	__builtin_memcpy(t, s, sizeof(*t));
	if (s->epoch != epoch && (ground(0) || (!unchanged(s, t) && !judge(t, &p->key))))
		return drop(skb, p, R_CT_UNRELATED);
	if (!is_from(p, &t->hop[from & 1]))
		return drop(skb, p, R_CT_UNRELATED);
	judgement(skb, 0, s);
	return SEND_ON;
}

// has_room: one interface cannot push the sessions of all others out. What it
// opens beyond its share goes into the crowd, where only such sessions are. The
// agent counts every few seconds; without it the share comes anew after a while.
inline_ int has_room(const struct packet *p, u64 now)
{
	struct settings *c = the_control();
	struct share first = {.since = now, .count = 1}, *s;
	u32 k = p->outside && c ? c->uplink : p->ifindex;

	if (!k || !c)
		return 1; // from another node, which has counted
	s = bpf_map_lookup_elem(&shares, &k);
	if (!s) {
		bpf_map_update_elem(&shares, &k, &first, BPF_ANY);
		return 1;
	}
	if (now > s->since + SHARE_AGAIN) {
		s->since = now;
		s->count = 0;
	}
	return __sync_fetch_and_add(&s->count, 1) < c->share;
}

inline_ void count_opened(void)
{
	u32 zero = 0;
	u64 *n = bpf_map_lookup_elem(&opened, &zero);
	if (n)
		*n += 1;
}

// write_session makes the row, or replaces it where it is.
step int write_session(struct packet *p, struct session *s, u64 now)
{
	if (!p->unknown && bpf_map_lookup_elem(&sessions, &p->key))
		return bpf_map_update_elem(&sessions, &p->key, s, BPF_ANY) != 0;
	if (!p->unknown && bpf_map_lookup_elem(&crowd, &p->key))
		return bpf_map_update_elem(&crowd, &p->key, s, BPF_ANY) != 0;
	count_opened();
	if (has_room(p, now))
		return bpf_map_update_elem(&sessions, &p->key, s, BPF_ANY) != 0;
	return bpf_map_update_elem(&crowd, &p->key, s, BPF_ANY) != 0;
}

// open_session makes the row for s and tells about it.
inline_ int open_session(struct __sk_buff *skb, struct packet *p, struct session *s, u64 now)
{
	s->created = now;
	if (is_odd(s))
		s->flags |= S_ODD;
	s->packets[0] = s->packets[1] = s->bytes[0] = s->bytes[1] = 0;
	s->timeout = timeout_of(p->proto, s->flags);
	account(skb, p, s, 0, now);
	if (write_session(p, s, now))
		return -1;
	if (s->flags & S_ODD)
		put_aliases(p, s);
	tell(EVENT_STARTED, 0, 0, &p->key, s);
	return 0;
}

// known handles a packet whose session exists: judged again when something
// that the verdict stands on has changed.
step int known(struct __sk_buff *skb, struct packet *p, struct session *s, struct session *t, u32 side)
{
	u64 now = bpf_ktime_get_coarse_ns();
	u32 epoch = t->epoch;

	side &= 1;
	if (s->epoch != epoch || s->reason) {
		int same_ground = unchanged(s, t);
		if (!same_ground && judge(t, &p->key))
			t->reason = may_stay(p, s, t);
		if (!same_ground && t->reason && !s->reason)
			tell(EVENT_ENDED, t->reason, 0, &p->key, s);
		if (!same_ground && !t->reason && s->reason) { // allowed again: another session
			s->created = now;
			s->packets[0] = s->packets[1] = s->bytes[0] = s->bytes[1] = 0;
			tell(EVENT_STARTED, 0, 0, &p->key, t);
		}
		renew(s, t, epoch, !same_ground);
	}
	if (s->reason) {
		s->expires = now + s->timeout * SECOND;
		return refused(skb, p, s, side);
	}
	if (unlikely(is_mute(skb, p, s, side)))
		return drop(skb, p, R_NEEDS_PROXY);
	judgement(skb, 0, s);
	account(skb, p, s, side, now);
	return SEND_ON;
}

// from_target: p comes in the name of a FloatingIP from the node that its session
// goes to, or is an error from there about it.
inline_ int from_target(const struct packet *p)
{
	struct session *s = session_of(&p->key);
	u32 back = p->kind != K_ERROR;

	return s && s->guise[1].kind == G_FLOATING && side_of(p, s) == back && is_from(p, &s->hop[1]) &&
	       same(&p->src, s->a_first ? &p->key.b : &p->key.a);
}

// may_send: the sender has that address. 0, or the reason to drop; src is its row.
inline_ int may_send(struct packet *p, struct endpoint **src)
{
	*src = endpoint_of(p->vni, &p->src);
	if (!*src && (speaks_for(p) || (p->node && from_target(p))))
		return 0;
	if (*src && unlikely((*src)->chain) && sender(p, (*src)->chain))
		return 0;
	if (!*src || (*src)->chain || (*src)->ifindex != p->ifindex || (*src)->node != p->node)
		return p->node ? R_FOREIGN_SOURCE : R_SPOOFED_IP;
	return 0;
}

// is_undecided: nobody answered yet to what went to a FloatingIP, which may have
// moved: where it leads is asked again.
inline_ int is_undecided(const struct session *s, u32 side)
{
	return s->guise[1].kind == G_FLOATING && !side && !(s->flags & S_REPLY);
}

// can_deliver: the other end is here, or on a node that we send to. 0, or the
// reason to drop.
inline_ int can_deliver(const struct packet *p, const struct session *t, u32 side)
{
	const struct hop *to = &t->hop[(1 - side) & 1];
	u32 stays = t->judged & (J_SERVED_0 | J_SERVED_1) && !((t->hop[0].how | t->hop[1].how) & HOW_FOOT);

	if (to->how & HOW_OUTSIDE)
		return 0;
	if (to->ifindex)
		return stays && p->node ? R_NO_ROUTE : 0;
	if (p->node || stays) // never from node to node
		return R_NO_ROUTE;
	return to->node ? 0 : R_NOT_ATTACHED;
}

// slow is the whole path. p->ifindex or p->node says where the packet is from.
alone int slow(struct __sk_buff *skb)
{
	struct work *w = the_work();
	struct settings *c = the_control();
	struct session *s, *t = scratch_session();
	struct endpoint *src;
	u64 now = bpf_ktime_get_coarse_ns();
	u32 side = 0;
	int r;

	if (!c || !t || !w)
		return ACT_DROP;
	struct packet *p = &w->packet;
	u32 epoch = c->epoch; // before the tables: what changes later is seen later
	barrier();
	if (is_multicast(p))
		return drop(skb, p, R_MULTICAST);
	r = may_send(p, &src);
	if (r)
		return drop(skb, p, r);
	if (unlikely(p->meshed) && p->proto == PROTO_TCP)
		p->spoken = is_spoken(skb, p);
	if (p->kind == K_ERROR)
		return related(skb, p, epoch);
	s = find(p, &side, now);
	if (unlikely(s && lost_backend(s, &p->key))) {
		r = depart(skb, p, s, side);
		if (r)
			return r;
		s = 0;
	}
	if (!s && p->kind == K_REPLY)
		return drop(skb, p, R_CT_UNRELATED);
	u32 anew = !s || is_undecided(s, side);
	__builtin_memset(t, 0, sizeof(*t));
	if (!anew) {
		t->guise[0] = s->guise[0];
		t->guise[1] = s->guise[1];
		t->hop[0] = s->hop[0];
		t->hop[1] = s->hop[1];
		t->a_first = s->a_first;
		src = 0;
	} else {
		src = s ? 0 : src;
		side = 0;
		t->a_first = p->src_is_a;
	}
	t->epoch = epoch;
	t->created = now;
	p->side = side;
	r = ground(src);
	if (r == R_NO_ROUTE && anew) {
		r = serve(now);
		if (r == R_NO_ROUTE)
			return NOWHERE;
		if (r == R_NO_BACKEND)
			return REFUSE;
		if (!r)
			r = ground(src);
	}
	if (!r)
		r = can_deliver(p, t, side);
	if (r)
		return drop(skb, p, r);
	if (s && !same_guise(&s->guise[1], &t->guise[1])) {
		tell(EVENT_ENDED, 0, 0, &p->key, s);
		s = 0;
	}
	if (s)
		return known(skb, p, s, t, side);
	if (judge(t, &p->key))
		t->reason = enter(skb, p, t);
	if (t->reason)
		return refused(skb, p, t, side);
	if (t->guise[1].flags & G_NEW) {
		r = masquerade_port(skb);
		if (r)
			return drop(skb, p, r);
	}
	if (open_session(skb, p, t, now))
		return drop(skb, p, R_FAILED);
	judgement(skb, 0, t);
	return SEND_ON;
}

// fast finds the session row that needs no other look-up: of this epoch, alive,
// allowed, and with the packet's source where the packet came from.
inline_ struct session *fast(struct packet *p, u64 now)
{
	struct settings *c = the_control();
	struct session *s;

	if (unlikely(p->kind != K_FLOW && p->kind != K_REPLY))
		return 0;
	s = session_of(&p->key);
	p->unknown = !s;
	if (!s || !c || s->epoch != c->epoch || s->reason || s->expires < now || is_opening(p, s, side_of(p, s)))
		return 0;
	if (!is_from(p, side_of(p, s) ? &s->hop[1] : &s->hop[0]))
		return 0;
	return s;
}

// fast_odd is the same for sessions that one end or both see in another way.
inline_ struct session *fast_odd(struct packet *p, u64 now, u32 *side)
{
	struct settings *c = the_control();
	struct alias *a = 0;
	struct session *s;

	if (unlikely(p->kind != K_FLOW && p->kind != K_REPLY))
		return 0;
	s = by_alias(p, &a);
	if (!s)
		return 0;
	*side = a->end & 1;
	if (!c || s->epoch != c->epoch || s->reason || s->expires < now || is_opening(p, s, *side) ||
	    !is_from(p, &s->hop[*side]))
		return 0;
	as_told(p, s, &a->session, *side);
	return s;
}

// odd is the fast path of those: the session, with p->side set, or 0, when the
// slow one is to be taken.
step struct session *odd(struct __sk_buff *skb, struct packet *p, struct session *s, u32 side)
{
	u64 now = bpf_ktime_get_coarse_ns();

	if (!s)
		s = fast_odd(p, now, &side);
	else if (wears(s, side))
		s = 0;
	if (!s)
		return 0;
	p->side = side & 1;
	if (unlikely(is_mute(skb, p, s, side))) {
		p->mute = 1;
		return 0;
	}
	account(skb, p, s, side, now);
	return s;
}

inline_ int through(struct __sk_buff *skb, struct packet *p)
{
	u64 now = bpf_ktime_get_coarse_ns();
	struct session *s = fast(p, now);

	if (unlikely(!s || s->flags & (S_ODD | S_PROXY_0 | S_PROXY_1))) {
		s = odd(skb, p, s, s ? side_of(p, s) : 0);
		if (!s) {
			int r = p->mute ? drop(skb, p, R_NEEDS_PROXY) : slow(skb);
			if (r == NOWHERE)
				return no_endpoint(skb, p);
			if (r == REFUSE)
				return refuse(skb, R_NO_BACKEND);
			if (r == REJECT)
				return reject(skb);
			if (r != SEND_ON)
				return r;
			s = scratch_session();
		}
		return s ? send_on(skb, p, s, p->side) : ACT_DROP;
	}
	u32 side = side_of(p, s);
	account(skb, p, s, side, now);
	return forward(skb, p, side ? &s->hop[0] : &s->hop[1]);
}
