// SPDX-License-Identifier: Apache-2.0
// Limits: token buckets per interface and, for all local interfaces together,
// per Network, in both directions. A bucket is one number, the time at which it
// is full again, moved on by compare and swap: no lock, right on all CPUs. Who
// has no limit pays for one flag in a row that is read anyway. TCP of a limited
// interface goes through a queue as well: see shape.go.
#pragma once
#include "events.h"

#define RATE_EGRESS 0 // what Workloads send
#define RATE_INGRESS 1

#define LIMIT_IFACE 1 // in iface.limits, << 2 * direction
#define LIMIT_NETWORK 2

struct rate_key {
	u32 number; // ifindex or VNI
	u16 network;
	u16 direction;
};

struct rate {
	u64 bits;  // per second
	u64 burst; // ns: how long a bucket takes to fill
};

struct bucket {
	u64 full; // ns since boot
};

TABLE(rates, HASH, struct rate_key, struct rate, 65536, BPF_F_NO_PREALLOC);
TABLE(buckets, LRU_HASH, struct rate_key, struct bucket, 65536, 0);

// wire_bytes is the length of the IP packets on the wire, of all of them when
// the kernel will cut this one up later.
inline_ u64 wire_bytes(struct __sk_buff *skb, const struct packet *p)
{
	u64 more = skb->gso_segs;
	return skb->len - ETH_LEN + (more > 1 ? (more - 1) * p->headers : 0);
}

// spend takes the packet's tokens out of a bucket; 0 when it has too few.
step int spend(const struct rate_key *k, u64 bytes)
{
	struct rate *r = bpf_map_lookup_elem(&rates, k);
	struct bucket *b, none = {};
	u64 now = bpf_ktime_get_ns(), old, from, cost;

	if (!r || !r->bits)
		return 1;
	b = bpf_map_lookup_elem(&buckets, k);
	if (!b) {
		bpf_map_update_elem(&buckets, k, &none, BPF_NOEXIST);
		b = bpf_map_lookup_elem(&buckets, k);
		if (!b)
			return 1;
	}
	cost = bytes * 8 * SECOND / r->bits;
	old = b->full;
	for (int i = 0; i < 8; i++) {
		from = old > now ? old : now;
		if (from - now > r->burst)
			return 0;
		u64 seen = __sync_val_compare_and_swap(&b->full, old, from + cost);
		if (seen == old)
			return 1;
		old = seen;
	}
	__sync_fetch_and_add(&b->full, cost); // many at once: none of them is free
	return 1;
}

// over reports that the packet exceeds a limit of an interface here, or of its
// Network.
alone int over(struct __sk_buff *skb, const struct packet *p, u32 ifindex, u32 direction)
{
	struct iface *f = bpf_map_lookup_elem(&ifaces, &ifindex);
	struct rate_key k = {.direction = direction};

	if (!f || !p)
		return 0;
	u64 bytes = wire_bytes(skb, p);
	u32 limits = f->limits >> 2 * (direction & 1);
	if (limits & LIMIT_IFACE) {
		k.number = ifindex;
		if (!spend(&k, bytes))
			return 1;
	}
	if (limits & LIMIT_NETWORK) {
		k.number = f->vni;
		k.network = 1;
		if (!spend(&k, bytes))
			return 1;
	}
	return 0;
}
