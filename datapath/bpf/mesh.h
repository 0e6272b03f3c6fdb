// SPDX-License-Identifier: Apache-2.0
// Step 5b, the mesh: TCP that only proxies may speak, because both ends are in
// the mesh, a verdict is about requests, or the Service that was asked for is
// behind a proxy. A proxy's sockets are in the network namespace of the workload
// that it speaks for, so its packets come from the same interface as the
// workload's own. What tells them apart is the socket that made them: it is in
// `speakers`, where nothing in a namespace can put it. Who says something without
// being one is not heard. Bytes and the beginning of a session count as saying
// something; bare acknowledgements, FIN and RST come from the kernel, also
// when the socket is no longer there.
//
// Sessions without a proxy pay one bit of their flags. connect.h leads the
// workload's own connections to the proxy.
#pragma once
#include "policy.h"
#include "service.h"

struct proxy { // by number, from its name
	u32 up; // it takes connections
	u32 pad;
};

struct frontend_key {
	struct service_key service;
	u64 project; // of the caller; 0: every other
};

TABLE(proxies, HASH, u64, struct proxy, 16384, BPF_F_NO_PREALLOC);
TABLE(frontends, HASH, struct frontend_key, u32, 262144, BPF_F_NO_PREALLOC);

// Sockets of proxies, by which they speak for workloads. Sockets that a listener
// accepts are as it is.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__type(key, int);
	__type(value, u32);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
} speakers SEC(".maps");

// Of the programs that are only asked (Judge): a packet with this mark counts as a
// proxy's.
volatile const u32 asking;
#define MARK_SPOKEN 1

// meshed_end takes over what the row of an end says about the mesh; the end
// with index 0 comes first.
inline_ void meshed_end(struct session *t, u32 end, const struct endpoint *e)
{
	if (!end)
		t->judged |= e->how & HOW_MESH ? J_MESH : 0;
	else if (!(e->how & HOW_MESH))
		t->judged &= ~J_MESH;
	if (end && e->how & HOW_STRICT)
		t->judged |= J_STRICT;
}

// says_something: bytes, or the beginning of a session.
inline_ int says_something(const struct __sk_buff *skb, const struct packet *p)
{
	return p->later || (p->tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN || skb->len > ETH_LEN + p->headers;
}

// speaker is the socket of a proxy that made the packet, 0: no such made it.
inline_ struct bpf_sock *speaker(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk && bpf_sk_storage_get(&speakers, sk, 0, 0) ? sk : 0;
}

// is_spoken: a socket of a proxy made p, which is as it came, and meant it for where
// it goes: a workload may translate what leaves its namespace.
inline_ int is_spoken(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk;

	if (asking)
		return skb->mark == MARK_SPOKEN;
	sk = speaker(skb);
	if (!sk || sk->dst_port != p->dport || bpf_htons(sk->src_port) != p->sport)
		return 0;
	if (!p->v6)
		return sk->dst_ip4 == p->dst.w[3];
	return sk->dst_ip6[0] == p->dst.w[0] && sk->dst_ip6[1] == p->dst.w[1] && sk->dst_ip6[2] == p->dst.w[2] &&
	       sk->dst_ip6[3] == p->dst.w[3];
}

// is_fronted: callers of the project reach that address and port by their proxy.
inline_ int is_fronted(u64 project, u32 vni, const union addr *a, u16 port)
{
	struct frontend_key k = {.project = project};

	k.service.addr = *a;
	k.service.vni = vni;
	k.service.port = port;
	k.service.proto = PROTO_TCP;
	if (bpf_map_lookup_elem(&frontends, &k))
		return 1;
	k.project = 0;
	return bpf_map_lookup_elem(&frontends, &k) != 0;
}

// asks_frontend: p, as its sender sent it, asks for a Service behind a proxy.
inline_ int asks_frontend(const struct packet *p)
{
	u32 ifindex = p->ifindex;
	struct iface *in = bpf_map_lookup_elem(&ifaces, &ifindex);

	return in && is_fronted(in->project, p->vni, &p->dst, p->dport);
}

inline_ int is_up(u64 number)
{
	struct proxy *x = bpf_map_lookup_elem(&proxies, &number);
	return x && x->up;
}

inline_ int is_meshed(u32 ifindex)
{
	struct iface *in = bpf_map_lookup_elem(&ifaces, &ifindex);
	return in && in->meshed;
}

// has_proxy: a proxy takes what needs one, for the end that the hop leads to.
inline_ int has_proxy(const struct hop *h)
{
	u32 ifindex = h->ifindex;
	struct iface *in = bpf_map_lookup_elem(&ifaces, &ifindex);

	return in && in->meshed && is_up(in->proxy);
}

// needs says at which ends, that are here, a proxy must speak in t: S_PROXY_.
inline_ u8 needs(const struct packet *p, const struct session *t)
{
	u8 at = 0;

	if (t->judged & (J_SERVED_0 | J_SERVED_1))
		return 0;
	if (t->judged & J_EGRESS && (t->judged & (J_MESH | J_PROXY_0) || p->fronted))
		at |= S_PROXY_0;
	if (t->judged & J_INGRESS && (t->judged & (J_MESH | J_PROXY_1) || t->hop[1].how & HOW_GATE))
		at |= S_PROXY_1;
	return at;
}

// is_plain: the responder, who is here, takes no plain bytes, and these are.
inline_ int is_plain(const struct session *t)
{
	return (t->judged & (J_INGRESS | J_STRICT | J_MESH)) == (J_INGRESS | J_STRICT) &&
	       !(t->judged & (J_SERVED_0 | J_SERVED_1));
}

// only_egress: the reason is about the originator's end.
inline_ u32 only_egress(struct session *t, u32 reason)
{
	t->rule[1] = t->shadow[1] = t->tier[1] = 0;
	return reason;
}

// enter says whether t, which is new and allowed by policy, may begin with p: 0, with
// who speaks in it in its flags, or why not.
step u32 enter(struct __sk_buff *skb, struct packet *p, struct session *t)
{
	u8 at;

	if (p->proto != PROTO_TCP)
		return 0;
	if (is_plain(t))
		return R_NOT_IN_MESH;
	at = needs(p, t);
	t->flags = at | (p->spoken ? S_PROXY_0 : 0);
	if (likely(!at))
		return 0;
	if (at & S_PROXY_0 && !has_proxy(&t->hop[0]))
		return only_egress(t, R_NO_PROXY);
	if (at & S_PROXY_0 && !p->spoken && says_something(skb, p))
		return only_egress(t, R_NEEDS_PROXY);
	return at & S_PROXY_1 && !has_proxy(&t->hop[1]) ? R_NO_PROXY : 0;
}

// may_stay is the same for a session s that goes on, judged anew as t.
inline_ u32 may_stay(const struct packet *p, const struct session *s, const struct session *t)
{
	if (p->proto != PROTO_TCP)
		return 0;
	if (is_plain(t))
		return R_NOT_IN_MESH;
	return needs(p, t) & ~s->flags ? R_NEEDS_PROXY : 0;
}

// is_mute: a proxy speaks for the end of s that p comes from, and did not say this.
inline_ int is_mute(struct __sk_buff *skb, const struct packet *p, const struct session *s, u32 side)
{
	side &= 1;
	if (!(s->flags & (side ? S_PROXY_1 : S_PROXY_0)) || !p->ifindex || s->hop[side].how & HOW_FUNCTION)
		return 0;
	if (asking || !says_something(skb, p))
		return 0;
	return !speaker(skb);
}
