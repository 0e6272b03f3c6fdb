// SPDX-License-Identifier: Apache-2.0
// Step 1, parse: Ethernet, IPv4 with options, IPv6 with extension headers,
// TCP, UDP, SCTP, ICMP and ICMPv6, fragments. Nothing after this step reads
// addresses or ports from the packet again.
#pragma once
#include "packet.h"
#include "reasons.h"

struct inner_l4 {
	u16 sport, dport;
	u32 rest;
} packed;

inline_ void set_ipv4(union addr *a, u32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

inline_ int mapped(const union addr *a) { return a->d[0] == 0 && a->w[2] == bpf_htonl(0xffff); }

inline_ int same(const union addr *a, const union addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

inline_ int is_zero(const union addr *a) { return !a->d[0] && !a->d[1]; }

inline_ int is_link_local(const union addr *a) { return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000); }

inline_ int same_mac(const u8 *a, const u8 *b)
{
	return *(u16 *)a == *(u16 *)b && *(u16 *)(a + 2) == *(u16 *)(b + 2) &&
	       *(u16 *)(a + 4) == *(u16 *)(b + 4);
}

// order_key orders the ends so that both directions make one key; 1: src is a.
inline_ int order_key(struct session_key *k, u32 vni, const union addr *src, u16 sport, const union addr *dst,
		      u16 dport, u8 proto)
{
	int first = src->d[0] < dst->d[0] ||
		    (src->d[0] == dst->d[0] &&
		     (src->d[1] < dst->d[1] || (src->d[1] == dst->d[1] && sport < dport)));
	k->a = first ? *src : *dst;
	k->b = first ? *dst : *src;
	k->aport = first ? sport : dport;
	k->bport = first ? dport : sport;
	k->vni = vni;
	k->proto = proto;
	return first;
}

inline_ u64 stirred(u64 h) { return (h ^ h >> 32) * 0xd6e8feb86659fd93ULL; }

// hash_of two addresses and something else is as good as random.
inline_ u64 hash_of(const union addr *a, const union addr *b, u64 more)
{
	u64 h = stirred(a->d[0] ^ b->d[0] * 0x9e3779b97f4a7c15ULL);

	h = stirred(h ^ a->d[1]);
	h = stirred(h ^ b->d[1]);
	return stirred(h ^ more);
}

inline_ void set_key(struct packet *p, const union addr *src, u16 sport, const union addr *dst,
		     u16 dport, u8 proto)
{
	p->src_is_a = order_key(&p->key, p->vni, src, sport, dst, dport, proto);
}

// ports_of_icmp: the asking side has the id as its port and the answering side
// none, so that asking in one direction does not open the other.
inline_ void ports_of_icmp(struct packet *p, int ask, int answer, u16 id)
{
	if (answer) {
		p->kind = K_REPLY;
		p->sport = 0;
		p->dport = id;
	} else {
		p->sport = ask ? id : p->icmp;
		p->dport = 0;
	}
}

inline_ int is_icmp_error(u8 v6, u8 type)
{
	return v6 ? type < 128 : type == 3 || type == 11 || type == 12;
}

inline_ int is_ping(const struct packet *p) { return p->icmp == (p->v6 ? 128 : 8); }

// parse_inner reads the packet that an ICMP error is about, at off.
step int parse_inner(struct __sk_buff *skb, struct packet *p, u32 off)
{
	union addr src, dst;
	struct inner_l4 l4;
	u8 proto;

	if (p->v6) {
		struct ipv6 ip;
		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
			return R_BAD_PACKET;
		__builtin_memcpy(&src, ip.src, 16);
		__builtin_memcpy(&dst, ip.dst, 16);
		proto = ip.next;
		off += sizeof(ip);
	} else {
		struct ipv4 ip;
		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return R_BAD_PACKET;
		if (ip.frag & bpf_htons(0x1fff))
			return R_CT_UNRELATED;
		set_ipv4(&src, ip.src);
		set_ipv4(&dst, ip.dst);
		proto = ip.proto;
		off += ip.ihl * 4;
	}
	if (bpf_skb_load_bytes(skb, off, &l4, sizeof(l4)))
		return R_BAD_PACKET;
	if (proto == PROTO_ICMP || proto == PROTO_ICMPV6) {
		u8 type = bpf_ntohs(l4.sport) >> 8;
		u16 id = l4.rest; // low half: identifier
		int answer = type == (p->v6 ? 129 : 0);
		l4.sport = answer ? 0 : id;
		l4.dport = answer ? id : 0;
	} else if (proto != PROTO_TCP && proto != PROTO_UDP && proto != PROTO_SCTP) {
		l4.sport = l4.dport = 0;
	}
	p->inner_src = src;
	set_key(p, &src, l4.sport, &dst, l4.dport, proto);
	return 0;
}

inline_ int parse_icmp(struct __sk_buff *skb, struct packet *p, const struct inner_l4 *h)
{
	u8 type = bpf_ntohs(h->sport) >> 8;
	u16 id = h->rest;

	p->icmp = type;
	p->headers += 8;
	if (!p->v6 && (type == 4 || type == 5)) // quench, redirect: not for workloads to say
		return R_UNSUPPORTED;
	if (is_icmp_error(p->v6, type)) {
		p->kind = K_ERROR;
		return 0;
	}
	if (p->v6) {
		if ((type >= 130 && type <= 137) || type == 143)
			p->kind = K_ND;
		ports_of_icmp(p, type == 128, type == 129, id);
	} else {
		ports_of_icmp(p, type == 8 || type == 13, type == 0 || type == 14, id);
	}
	return 0;
}

// read_l4 copies n bytes of what is at offset l4: from `at`, where that is, unless
// it is 0 or not readable.
inline_ int read_l4(struct __sk_buff *skb, u32 l4, const void *at, void *to, u32 n)
{
	const void *end = (void *)(long)skb->data_end;

	if (unlikely(!at || at + n > end))
		return bpf_skb_load_bytes(skb, l4, to, n);
	__builtin_memcpy(to, at, n);
	return 0;
}

// parse_l4 reads the ports at p->l4, which is where `at` points, if it is not 0.
inline_ int parse_l4(struct __sk_buff *skb, struct packet *p, const void *at)
{
	struct inner_l4 h;

	if (p->proto == PROTO_TCP) {
		u8 t[14];
		if (read_l4(skb, p->l4, at, t, sizeof(t)))
			return R_BAD_PACKET;
		p->sport = *(u16 *)t;
		p->dport = *(u16 *)(t + 2);
		p->tcp = t[13];
		p->headers += (t[12] >> 4) * 4;
		return 0;
	}
	if (p->proto != PROTO_UDP && p->proto != PROTO_SCTP && p->proto != PROTO_ICMP &&
	    p->proto != PROTO_ICMPV6)
		return 0;
	if (read_l4(skb, p->l4, at, &h, sizeof(h)))
		return R_BAD_PACKET;
	if (p->proto == (p->v6 ? PROTO_ICMPV6 : PROTO_ICMP))
		return parse_icmp(skb, p, &h);
	if (p->proto == PROTO_ICMP || p->proto == PROTO_ICMPV6)
		return R_BAD_PACKET; // ICMP of the other family
	p->sport = h.sport;
	p->dport = h.dport;
	p->headers += 8;
	return 0;
}

// parse_fragment: the first fragment leaves its ports for the later ones.
step int parse_fragment(struct packet *p, u32 id, u32 later)
{
	struct fragment_key k = {.vni = p->vni, .id = id, .ifindex = p->ifindex, .node = p->node, .proto = p->proto};
	struct ports ports = {.sport = p->sport, .dport = p->dport};

	k.src = p->src;
	k.dst = p->dst;
	if (!later) {
		bpf_map_update_elem(&fragments, &k, &ports, BPF_ANY);
		return 0;
	}
	p->later = 1;
	struct ports *known = bpf_map_lookup_elem(&fragments, &k);
	if (!known)
		return R_CT_FRAGMENT;
	p->sport = known->sport;
	p->dport = known->dport;
	if (!p->sport && (p->proto == PROTO_ICMP || p->proto == PROTO_ICMPV6))
		p->kind = K_REPLY; // of an echo reply: opens nothing either
	return 0;
}

// parse_extensions walks IPv6 extension headers; more is 1 + the offset of the
// fragment header, if any.
step int parse_extensions(struct __sk_buff *skb, struct packet *p, u32 *fragment)
{
	u32 off = p->l4;
	u8 h[4];

	for (int i = 0; i < 8; i++) {
		u8 next = p->proto;
		if (next != 0 && next != 60 && next != 44 && next != 43 && next != 135 && next != 139) {
			p->l4 = off;
			return next == 59 ? R_UNSUPPORTED : 0;
		}
		if (next == 43)
			return R_UNSUPPORTED;
		if (off > 1024 || bpf_skb_load_bytes(skb, off, h, sizeof(h)))
			return R_BAD_PACKET;
		p->proto = h[0];
		if (next == 44) {
			*fragment = off;
			off += 8;
			if ((h[2] << 8 | h[3]) & 0xfff8) { // what follows is payload
				p->l4 = off;
				return 0;
			}
		} else {
			off += (h[1] + 1) * 8;
		}
	}
	return R_BAD_PACKET;
}

step int parse_ipv6_odd(struct __sk_buff *skb, struct packet *p)
{
	u32 fragment = 0;
	struct {
		u8 next, zero;
		u16 offset;
		u32 id;
	} h;
	int r = parse_extensions(skb, p, &fragment);
	if (r)
		return r;
	p->headers = p->l4 - ETH_LEN;
	if (!fragment)
		return parse_l4(skb, p, 0);
	if (bpf_skb_load_bytes(skb, fragment, &h, sizeof(h)))
		return R_BAD_PACKET;
	u32 later = h.offset & bpf_htons(0xfff8);
	if (!later) {
		r = parse_l4(skb, p, 0);
		if (r)
			return r;
	}
	return parse_fragment(p, h.id, later);
}

inline_ int parse_ipv6(struct __sk_buff *skb, struct packet *p, const struct ipv6 *ip)
{
	__builtin_memcpy(&p->src, ip->src, 16);
	__builtin_memcpy(&p->dst, ip->dst, 16);
	if ((bpf_ntohl(ip->flow) >> 28) != 6 || mapped(&p->src) || mapped(&p->dst))
		return R_BAD_PACKET;
	p->v6 = 1;
	p->proto = ip->next;
	p->l4 = ETH_LEN + sizeof(*ip);
	p->headers = sizeof(*ip);
	if (likely(p->proto == PROTO_TCP || p->proto == PROTO_UDP || p->proto == PROTO_ICMPV6))
		return parse_l4(skb, p, ip + 1);
	return parse_ipv6_odd(skb, p);
}

inline_ int parse_ipv4(struct __sk_buff *skb, struct packet *p, const struct ipv4 *ip)
{
	u16 frag = ip->frag & bpf_htons(0x3fff), id = ip->id;

	set_ipv4(&p->src, ip->src);
	set_ipv4(&p->dst, ip->dst);
	p->proto = ip->proto;
	p->l4 = ETH_LEN + ip->ihl * 4;
	p->headers = ip->ihl * 4;
	if (ip->version != 4 || ip->ihl < 5 || bpf_ntohs(ip->len) + ETH_LEN > skb->len)
		return R_BAD_PACKET;
	if (likely(!frag))
		return parse_l4(skb, p, ip->ihl == 5 ? ip + 1 : 0);
	u32 later = frag & bpf_htons(0x1fff);
	if (!later) {
		int r = parse_l4(skb, p, 0);
		if (r)
			return r;
	}
	return parse_fragment(p, id, later);
}

// linear makes the first bytes directly readable. No more than is needed: to
// pull payload in costs a copy of the head. The transport header is read where it
// is, too, when it happens to be readable (read_l4).
inline_ int linear(struct __sk_buff *skb, u32 want)
{
	if (want > skb->len)
		want = skb->len;
	return skb->data_end - skb->data < want && bpf_skb_pull_data(skb, want);
}

// parse fills p, whose vni is set, from the frame. It returns 0, or the reason
// to drop; key and addresses hold what was found so far.
inline_ int parse(struct __sk_buff *skb, struct packet *p)
{
	int r = R_BAD_PACKET;

	if (unlikely(linear(skb, IP_HEADERS)))
		return R_BAD_PACKET;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct eth *eth = data;
	if (data + sizeof(*eth) > end)
		return R_BAD_PACKET;
	__builtin_memcpy(p->eth_dst, eth->dst, 12);
	if (skb->vlan_present)
		return R_UNSUPPORTED;
	if (likely(eth->proto == ETH_IPV4)) {
		if (data + ETH_LEN + sizeof(struct ipv4) <= end)
			r = parse_ipv4(skb, p, data + ETH_LEN);
	} else if (eth->proto == ETH_IPV6) {
		if (data + ETH_LEN + sizeof(struct ipv6) <= end)
			r = parse_ipv6(skb, p, data + ETH_LEN);
	} else if (eth->proto == ETH_ARP) {
		p->kind = K_ARP;
		p->proto = PROTO_ARP;
		return 0;
	} else {
		return R_UNSUPPORTED;
	}
	set_key(p, &p->src, p->sport, &p->dst, p->dport, p->proto);
	if (unlikely(p->kind == K_ERROR) && !r)
		r = parse_inner(skb, p, p->l4 + 8);
	return r;
}
