// SPDX-License-Identifier: Apache-2.0
// Watching: captures and traces. When nobody watches, one test of a flag is all
// that a packet pays. Who watches sees the tenant's own frames, never the outer
// header, of the networks that the capture may see and of no others, whatever a
// packet is translated to on its way.
#pragma once
#include "rows.h"

#define WATCHES 16
#define WATCH_MOST 2048 // bytes kept of one frame, at most

#define W_ON 1
#define W_WORKLOAD 2 // one end, or the interface, is in watch_ends
#define W_A 4
#define W_B 8
#define W_RULE 16 // rule or reason decides

// Where a frame was seen; the names are in watch.go.
enum where {
	AT_FROM_WORKLOAD = 1,
	AT_TO_WORKLOAD,
	AT_TO_NODE,
	AT_FROM_NODE,
	AT_TO_OUTSIDE,
	AT_FROM_OUTSIDE,
	AT_DROP,
};

struct watch { // what one capture wants; zero values match everything
	u64 id;
	u64 until; // ns since boot
	union addr a, b;
	u32 flags;
	u32 rule, reason;
	u32 length;
	u16 port; // network order
	u8 proto;
	u8 verdict; // 1 allow, 2 deny
	u32 pad;
};

struct sighting {
	u64 time;
	u32 watches; // a bit for each watch that it is for
	u32 where;
	u32 vni;
	u32 ifindex;
	u32 rule;
	u32 reason;
	u32 allow; // 1 allow, 2 deny, 0: not decided yet
	u32 length; // of the whole frame
	u32 have; // bytes in data
	u32 pad;
	u8 data[WATCH_MOST];
};

TABLE(watches, ARRAY, u32, struct watch, WATCHES, 0);
TABLE(watch_left, ARRAY, u32, s64, WATCHES, 0);			      // packets that may still be told
TABLE(watch_vnis, HASH, u32, u32, 16384, BPF_F_NO_PREALLOC);	      // network -> watches that may see it
TABLE(watch_ends, HASH, struct addr_key, u32, 4096, BPF_F_NO_PREALLOC); // or vni 0 and pad = ifindex
TABLE(watch_lost, PERCPU_ARRAY, u32, u64, 1, 0);
TABLE(watch_scratch, PERCPU_ARRAY, u32, struct sighting, 1, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} sightings SEC(".maps");

inline_ u32 watches_of_end(u32 vni, const union addr *a, u32 ifindex)
{
	struct addr_key k = {.vni = vni, .pad = ifindex};
	if (a)
		k.addr = *a;
	u32 *set = bpf_map_lookup_elem(&watch_ends, &k);
	return set ? *set : 0;
}

// wants_packet: what can be said of a packet before it is decided about.
inline_ int wants_packet(const struct watch *w, const struct packet *p, u32 bit, u32 ends, u64 now)
{
	u32 flags = w->flags;

	if (!(flags & W_ON) || w->until < now || ((flags & W_WORKLOAD) && !(ends & bit)))
		return 0;
	if (w->proto && w->proto != p->key.proto && !(w->proto == PROTO_ICMP && p->key.proto == PROTO_ICMPV6))
		return 0;
	if (w->port && w->port != p->key.aport && w->port != p->key.bport)
		return 0;
	if ((flags & W_A) && !same(&w->a, &p->src) && !same(&w->a, &p->dst))
		return 0;
	if ((flags & W_B) && !same(&w->b, &p->src) && !same(&w->b, &p->dst))
		return 0;
	return 1;
}

// wants_verdict: the rest, where something was decided.
inline_ int wants_verdict(const struct watch *w, const struct sighting *t, u32 other)
{
	if (w->verdict && w->verdict != t->allow)
		return 0;
	if (!(w->flags & W_RULE))
		return 1;
	return (w->rule && (w->rule == t->rule || w->rule == other)) || (w->reason && w->reason == t->reason);
}

// seen tells the watches of p that it is at this place. s says what was decided,
// if anything was.
alone int seen(struct __sk_buff *skb, struct packet *p, u32 where, u32 reason, const struct session *s)
{
	u32 zero = 0, other = 0, length;
	struct sighting *t = bpf_map_lookup_elem(&watch_scratch, &zero);

	if (!t || !p)
		return 0;
	u32 *may = bpf_map_lookup_elem(&watch_vnis, &p->vni);
	if (!may || !(*may & p->watched))
		return 0;
	t->watches = t->have = 0; // here and not on the stack: the verifier would follow every combination
	t->rule = 0;
	t->reason = reason;
	t->allow = where == AT_FROM_WORKLOAD || where == AT_FROM_NODE || where == AT_FROM_OUTSIDE ? 0 : where == AT_DROP ? 2 : 1;
	if (s) {
		t->rule = s->rule[0] ? s->rule[0] : s->rule[1];
		other = s->rule[1];
		if (where == AT_DROP && other)
			t->rule = other;
	}
	for (u32 i = 0; i < WATCHES; i++) {
		u32 bit = 1U << i, n = i;
		struct watch *w;
		s64 *left;
		if (!(*may & p->watched & bit))
			continue;
		w = bpf_map_lookup_elem(&watches, &n);
		left = bpf_map_lookup_elem(&watch_left, &n);
		if (!w || !left || *left <= 0 || !wants_verdict(w, t, other))
			continue;
		__sync_fetch_and_add(left, -1);
		t->watches |= bit;
		if (w->length > t->have)
			t->have = w->length;
	}
	if (!t->watches)
		return 0;
	length = t->have;
	if (length > skb->len)
		length = skb->len;
	if (length < ETH_LEN)
		length = ETH_LEN;
	if (length > WATCH_MOST)
		length = WATCH_MOST;
	barrier_var(length);
	length = ((length - 1) & (WATCH_MOST - 1)) + 1; // as the verifier understands it
	t->time = bpf_ktime_get_ns();
	t->where = where;
	t->vni = p->vni;
	t->ifindex = p->ifindex;
	t->length = skb->len;
	t->have = length;
	if (bpf_skb_load_bytes(skb, 0, t->data, length))
		t->have = 0;
	if (!bpf_ringbuf_output(&sightings, t, __builtin_offsetof(struct sighting, data) + length, 0))
		return 0;
	u64 *n = bpf_map_lookup_elem(&watch_lost, &zero);
	if (n)
		*n += 1;
	return 0;
}

// seen_at tells with the verdict of the session that the packet belongs to.
alone int seen_at(struct __sk_buff *skb, struct packet *p, u32 where, u32 ifindex)
{
	u32 from;

	if (!p)
		return 0;
	from = p->ifindex;
	p->ifindex = ifindex;
	seen(skb, p, where, 0, session_of(&p->key));
	p->ifindex = from;
	return 0;
}

inline_ u32 watching(void)
{
	struct settings *c = the_control();
	return c ? c->watch : 0;
}

// look finds out who wants to see p, and tells them that it came in.
alone int look(struct __sk_buff *skb, struct packet *p, u32 where)
{
	u64 now = bpf_ktime_get_coarse_ns();
	u32 ends, *may;

	if (!p)
		return 0;
	may = bpf_map_lookup_elem(&watch_vnis, &p->vni);
	if (!may)
		return 0;
	ends = watches_of_end(p->vni, &p->src, 0) | watches_of_end(p->vni, &p->dst, 0) | watches_of_end(0, 0, p->ifindex);
	for (u32 i = 0; i < WATCHES; i++) {
		u32 n = i;
		struct watch *w = bpf_map_lookup_elem(&watches, &n);
		if (w && (*may & 1U << i) && wants_packet(w, p, 1U << i, ends, now))
			p->watched |= 1U << i;
	}
	return p->watched ? seen(skb, p, where, 0, 0) : 0;
}
