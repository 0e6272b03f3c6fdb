// SPDX-License-Identifier: Apache-2.0
// ICMP errors about sessions that one end sees in another way: the packet that
// they quote is rewritten like the packet around it, with all checksums.
#pragma once
#include "guise.h"

struct quoted { // the transport header of a quoted packet, as far as it must be there
	u16 half[4];
};

inline_ u16 adjusted(u16 sum, u32 diff) { return fold((u64)(u16)~sum + diff); }

// quote_ports rewrites the ports, or the id, and the checksum of what is quoted
// at `at`; addr is what the new addresses do to a pseudo header, and sum takes
// what all of it does to the checksum of the error.
inline_ int quote_ports(struct __sk_buff *skb, const struct packet *p, u32 at, const struct tuple *from,
			const struct tuple *to, s64 addr, u32 *sum)
{
	struct quoted old, new;
	u8 proto = p->key.proto;
	u16 was, is;
	u32 diff;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return -1;
	new = old;
	if (proto == PROTO_ICMP || proto == PROTO_ICMPV6) {
		u16 id = from->dport ? to->dport : to->sport; // the answering side has none
		if ((from->dport | from->sport) == old.half[2])
			new.half[2] = id;
		diff = (u16)~fold((u64)(u16)~old.half[2] + new.half[2] + (proto == PROTO_ICMPV6 ? (u32)addr : 0));
		new.half[1] = adjusted(old.half[1], diff);
	} else if (proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP) {
		new.half[0] = to->dport;
		new.half[1] = to->sport;
	}
	if (proto == PROTO_TCP || proto == PROTO_UDP) {
		diff = (u16)~fold((u64)(u16)~old.half[0] + (u16)~old.half[1] + new.half[0] + new.half[1] + (u32)addr);
		if (proto == PROTO_UDP && old.half[3]) {
			new.half[3] = adjusted(old.half[3], diff);
		} else if (proto == PROTO_TCP && !bpf_skb_load_bytes(skb, at + 16, &was, 2)) {
			is = adjusted(was, diff);
			if (bpf_skb_store_bytes(skb, at + 16, &is, 2, 0))
				return -1;
			*sum = (u16)~fold((u64)*sum + (u16)~was + is);
		}
	}
	*sum = (u32)bpf_csum_diff((u32 *)&old, sizeof(old), (u32 *)&new, sizeof(new), *sum);
	return bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

// rewrite_error makes an ICMP error that looks like from look like to. What is
// not from the end itself, but from somebody on the way, keeps its source.
step int rewrite_error(struct __sk_buff *skb, struct packet *p, const struct tuple *from, const struct tuple *to)
{
	u32 quote = p->l4 + sizeof(struct icmp), at = quote + sizeof(struct ipv6), sum = 0;
	union addr *pair = work_of(p)->pair;
	s64 outer, inner;
	u8 first;

	pair[0] = same(&p->src, &from->src) ? to->src : p->src;
	pair[1] = to->dst;
	if (put_addresses(skb, ETH_LEN, p->v6, &p->src, pair, &outer))
		return -1;
	pair[0] = from->dst;
	pair[1] = from->src;
	pair[2] = to->dst;
	pair[3] = to->src;
	if (put_addresses(skb, quote, p->v6, pair, pair + 2, &inner))
		return -1;
	if (p->v6) {
		sum = inner;
		if (outer && l4_sum(skb, p->l4 + 2, 0, outer, BPF_F_PSEUDO_HDR, 1))
			return -1;
	} else {
		if (bpf_skb_load_bytes(skb, quote, &first, 1))
			return -1;
		at = quote + (first & 15) * 4;
	}
	if (quote_ports(skb, p, at, from, to, inner, &sum))
		return -1;
	return bpf_l4_csum_replace(skb, p->l4 + 2, 0, sum, 0);
}
