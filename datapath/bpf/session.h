// SPDX-License-Identifier: Apache-2.0
// The slow path, for packets whose session is new, stale or not a session:
// anti-spoofing, route, policy, session, forward, in this order.
#pragma once
#include "forward.h"
#include "neighbour.h"

inline_ int is_multicast(const struct packet *p)
{
	if (p->v6)
		return (p->dst.w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	u32 v4 = bpf_ntohl(p->dst.w[3]);
	return (v4 >> 28) == 14 || v4 == 0xffffffff;
}

// refused drops by policy: s says which rule.
step int refused(struct __sk_buff *skb, struct packet *p, const struct session *s)
{
	denied(p, R_POLICY, decisive(s), s);
	if (unlikely(p->watched))
		seen(skb, p, AT_DROP, R_POLICY, s);
	judgement(skb, R_POLICY, s);
	return ACT_DROP;
}

// related lets an ICMP error pass to the one whose packet it is about, when it
// comes from where that packet went to and the session is allowed now. The row
// is left as it is, for the next packet of the session.
step int related(struct __sk_buff *skb, struct packet *p, struct endpoint *dst, u32 epoch)
{
	const union addr *addressee = p->src_is_a ? &p->key.b : &p->key.a;
	struct session *s = session_of(&p->key), *t = scratch_session();
	struct endpoint *e = endpoint_of(p->vni, addressee);
	struct hop to = {};
	int sound;

	if (!s || !t || s->reason || s->expires < bpf_ktime_get_coarse_ns() || !same(&p->inner_src, &p->dst))
		return drop(skb, p, R_CT_UNRELATED);
	if (!e || e->ifindex != p->ifindex || e->node != p->node)
		return drop(skb, p, R_CT_UNRELATED);
	if (s->epoch != epoch) {
		__builtin_memset(t, 0, sizeof(*t));
		t->a_first = s->a_first;
		if (side_of(p, s))
			sound = resolve(t, p->vni, e, addressee, dst, &p->dst);
		else
			sound = resolve(t, p->vni, dst, &p->dst, e, addressee);
		if (!sound || (!unchanged(s, t) && !judge(t, &p->key)))
			return drop(skb, p, R_CT_UNRELATED);
	}
	judgement(skb, 0, s);
	set_hop(&to, dst);
	return forward(skb, p, &to);
}

// has_room: one interface cannot push the sessions of all others out. What it
// opens beyond its share goes into the crowd, where only such sessions are. The
// agent counts every few seconds; without it the share comes anew after a while.
inline_ int has_room(const struct packet *p, u64 now)
{
	struct settings *c = the_control();
	struct share first = {.since = now, .count = 1}, *s;
	u32 k = p->ifindex;

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
	if (bpf_map_lookup_elem(&sessions, &p->key))
		return bpf_map_update_elem(&sessions, &p->key, s, BPF_ANY) != 0;
	if (bpf_map_lookup_elem(&crowd, &p->key))
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
	s->flags = 0;
	s->packets[0] = s->packets[1] = s->bytes[0] = s->bytes[1] = 0;
	s->timeout = timeout_of(p->proto, s->flags);
	account(skb, p, s, 0, now);
	if (write_session(p, s, now))
		return -1;
	tell(EVENT_STARTED, 0, 0, &p->key, s);
	return 0;
}

// fill resolves both ends of the packet into t, in the orientation of t.
inline_ int fill(struct packet *p, struct session *t, const struct endpoint *src, const struct endpoint *dst)
{
	if (side_of(p, t))
		return resolve(t, p->vni, dst, &p->dst, src, &p->src);
	return resolve(t, p->vni, src, &p->src, dst, &p->dst);
}

// known handles a packet whose session exists: judged again when something
// that the verdict stands on has changed.
step int known(struct __sk_buff *skb, struct packet *p, struct session *s, struct session *t, u32 epoch)
{
	u64 now = bpf_ktime_get_coarse_ns();
	u32 side = side_of(p, s) & 1;

	if (s->epoch != epoch || s->reason) {
		int same_ground = unchanged(s, t);
		if (!same_ground)
			judge(t, &p->key);
		if (!same_ground && t->reason && !s->reason)
			tell(EVENT_ENDED, R_POLICY, 0, &p->key, s);
		if (!same_ground && !t->reason && s->reason) { // allowed again: another session
			s->created = now;
			s->packets[0] = s->packets[1] = s->bytes[0] = s->bytes[1] = 0;
			tell(EVENT_STARTED, 0, 0, &p->key, t);
		}
		renew(s, t, epoch, !same_ground);
	}
	if (s->reason) {
		s->expires = now + s->timeout * SECOND;
		return refused(skb, p, s);
	}
	judgement(skb, 0, s);
	account(skb, p, s, side, now);
	return forward(skb, p, &s->hop[1 - side]);
}

// slow is the whole path. p->ifindex or p->node says where the packet is from.
step int slow(struct __sk_buff *skb, struct packet *p)
{
	struct settings *c = the_control();
	struct session *s = 0, *t = scratch_session();
	struct endpoint *src, *dst;
	u64 now = bpf_ktime_get_coarse_ns();

	if (!c || !t)
		return ACT_DROP;
	u32 epoch = c->epoch; // before the tables: what changes later is seen later
	barrier();
	if (is_multicast(p))
		return drop(skb, p, R_MULTICAST);
	src = endpoint_of(p->vni, &p->src);
	if (!src || src->ifindex != p->ifindex || src->node != p->node)
		return drop(skb, p, p->node ? R_FOREIGN_SOURCE : R_SPOOFED_IP);
	dst = endpoint_of(p->vni, &p->dst);
	if (!dst)
		return no_endpoint(skb, p);
	if (!dst->ifindex && (p->node || !dst->node))
		return drop(skb, p, dst->node ? R_NO_ROUTE : R_NOT_ATTACHED);
	if (p->kind == K_ERROR)
		return related(skb, p, dst, epoch);

	s = session_of(&p->key);
	if (s && (s->expires < now || is_opening(p, s)))
		s = 0;
	if (!s && p->kind == K_REPLY)
		return drop(skb, p, R_CT_UNRELATED);
	__builtin_memset(t, 0, sizeof(*t));
	t->a_first = s ? s->a_first : p->src_is_a;
	t->epoch = epoch;
	t->created = now;
	if (!fill(p, t, src, dst)) {
		src = endpoint_of(p->vni, &p->src);
		dst = endpoint_of(p->vni, &p->dst);
		if (!src || !dst || !fill(p, t, src, dst))
			return drop(skb, p, R_FAILED);
	}
	if (s)
		return known(skb, p, s, t, epoch);
	if (!judge(t, &p->key))
		return refused(skb, p, t);
	if (open_session(skb, p, t, now))
		return drop(skb, p, R_FAILED);
	judgement(skb, 0, t);
	return forward(skb, p, &t->hop[1]);
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
	if (!s || !c || s->epoch != c->epoch || s->reason || s->expires < now || is_opening(p, s))
		return 0;
	struct hop *from = side_of(p, s) ? &s->hop[1] : &s->hop[0];
	if (from->ifindex != p->ifindex || from->node != p->node)
		return 0;
	return s;
}

inline_ int through(struct __sk_buff *skb, struct packet *p)
{
	u64 now = bpf_ktime_get_coarse_ns();
	struct session *s = fast(p, now);

	if (likely(s != 0)) {
		u32 side = side_of(p, s);
		account(skb, p, s, side, now);
		return forward(skb, p, side ? &s->hop[0] : &s->hop[1]);
	}
	return slow(skb, p);
}
