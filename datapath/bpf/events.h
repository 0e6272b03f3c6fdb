// SPDX-License-Identifier: Apache-2.0
// Telling: events for records, counters for drops. Never per packet: denials
// of one tuple and reason are told at most every DENIED_EVERY, and those of one
// sender at most DENIED_MOST times a second, so that nobody drowns the others.
#pragma once
#include "parse.h"
#include "reasons.h"
#include "watch.h"

#define SECOND 1000000000ULL
#define DENIED_EVERY (5 * SECOND)
#define DENIED_MOST 200
#define WAKE_AT (256 << 10) // bytes waiting; below, the reader comes on its own
#define WAKE_AGAIN (64 << 10) // and after so many more: to wake costs an interrupt

inline_ struct session *scratch_session(void)
{
	struct work *w = the_work();
	return w ? &w->event.session : 0;
}

inline_ int count_lost(void)
{
	u32 zero = 0;
	u64 *n = bpf_map_lookup_elem(&lost, &zero);
	if (n)
		*n += 1;
	return 0;
}

inline_ void fill_event(struct event *e, u32 kind, u32 reason, u64 count, const struct session_key *key)
{
	e->kind = kind;
	e->reason = reason;
	e->count = count;
	e->time = bpf_ktime_get_coarse_ns();
	__builtin_memcpy(&e->key, key, sizeof(*key));
}

// submit hands an event over. The reader is woken when much waits, once for every
// WAKE_AGAIN bytes.
inline_ void submit(struct event *e)
{
	u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	u32 wake = waiting > WAKE_AT && waiting % WAKE_AGAIN < sizeof(*e);

	bpf_ringbuf_submit(e, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

// tell leaves the guises out when there are none: they are the larger part.
alone int tell(u32 kind, u32 reason, u64 count, const struct session_key *key, const struct session *s)
{
	struct event *e;

	if (!key || !s)
		return 0;
	if (likely(!s->guise[0].kind && !s->guise[1].kind)) {
		e = bpf_ringbuf_reserve(&events, PLAIN_EVENT, 0);
		if (!e)
			return count_lost();
		fill_event(e, kind, reason, count, key);
		__builtin_memcpy(&e->session, s, PLAIN_SESSION);
	} else {
		e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
		if (!e)
			return count_lost();
		fill_event(e, kind, reason, count, key);
		__builtin_memcpy(&e->session, s, sizeof(*s));
	}
	submit(e);
	return 0;
}

step int count_drop(u32 reason, u32 rule, u32 vni)
{
	struct drop_key k = {.reason = reason, .rule = rule, .vni = vni};
	u64 one = 1, *n = bpf_map_lookup_elem(&drops, &k);
	if (n)
		*n += 1;
	else
		bpf_map_update_elem(&drops, &k, &one, BPF_NOEXIST);
	return 0;
}

// allowed_to_tell: the sender of p has not caused too many events lately.
inline_ int allowed_to_tell(struct packet *p, u64 now)
{
	u64 sender = (u64)p->node << 32 | p->ifindex;
	struct allowance first = {.since = now, .told = 1}, *a = bpf_map_lookup_elem(&allowances, &sender);

	if (!a) {
		bpf_map_update_elem(&allowances, &sender, &first, BPF_ANY);
		return 1;
	}
	if (now - a->since >= SECOND) {
		a->since = now;
		a->told = 0;
	}
	return __sync_fetch_and_add(&a->told, 1) < DENIED_MOST;
}

// denied counts a drop and tells about it; s says who and by which rule.
step int denied(struct packet *p, u32 reason, u32 rule, const struct session *s)
{
	struct work *w = the_work();
	struct denial first = {.last = bpf_ktime_get_coarse_ns(), .count = 0};

	count_drop(reason, rule, p->vni);
	if (reason == R_MULTICAST || !w)
		return 0;
	w->denied.reason = reason;
	w->denied.rule = rule;
	__builtin_memcpy(&w->denied.key, &p->key, sizeof(p->key));
	struct denial *d = bpf_map_lookup_elem(&denials, &w->denied);
	if (!d) {
		bpf_map_update_elem(&denials, &w->denied, &first, BPF_ANY);
		return allowed_to_tell(p, first.last) ? tell(EVENT_DENIED, reason, 1, &p->key, s) : count_lost();
	}
	if (first.last - d->last < DENIED_EVERY) {
		__sync_fetch_and_add(&d->count, 1);
		return 0;
	}
	u64 count = d->count + 1;
	d->last = first.last;
	d->count = 0;
	return allowed_to_tell(p, first.last) ? tell(EVENT_DENIED, reason, count, &p->key, s) : count_lost();
}

inline_ void judged(struct __sk_buff *skb, u32 reason, u32 egress, u32 ingress, u32 shadow)
{
	skb->cb[0] = reason | 0x4d6f0000;
	skb->cb[1] = egress;
	skb->cb[2] = ingress;
	skb->cb[4] = shadow;
}

// judgement leaves what was decided where BPF_PROG_RUN can read it; s says by
// which rules, if any.
inline_ void judgement(struct __sk_buff *skb, u32 reason, const struct session *s)
{
	u32 i = s && s->shadow[0] ? 0 : 1;

	if (s)
		judged(skb, reason, s->rule[0], s->rule[1], s->shadow[i] | (u32)s->shadow_allow[i] << 31);
	else
		judged(skb, reason, 0, 0, 0);
}

// drop for another reason than a rule.
alone int drop(struct __sk_buff *skb, struct packet *p, u32 reason)
{
	struct session *s = scratch_session();
	if (!p)
		return ACT_DROP;
	if (s) {
		__builtin_memset(s, 0, sizeof(*s));
		s->created = bpf_ktime_get_coarse_ns();
		s->a_first = p->src_is_a;
		s->hop[0].ifindex = p->ifindex;
		s->hop[0].node = p->node;
		denied(p, reason, 0, s);
		if (unlikely(p->watched))
			seen(skb, p, AT_DROP, reason, s);
	}
	judgement(skb, reason, 0);
	return ACT_DROP;
}
