// SPDX-License-Identifier: Apache-2.0
// Interception: how TCP of a workload gets to the proxy that speaks for it, all
// inside the workload's own network namespace.
//
//   out  connect4 and connect6 run when a socket of this machine connects. When a
//        proxy must take it, they mark the socket; a rule of the namespace leads
//        what bears the mark to lo, with its destination as it is; there `steer`
//        gives it to the proxy. Whoever takes the rule away meets mesh.h.
//   in   `steer` gives the proxy what a session that needs it brings (S_PROXY_1); in the
//        namespace of a Gateway what comes to its ports.
//
// Whatever a proxy's own process connects is not led anywhere, but becomes a speaker.
// These programs run beside the others, so they have no memory from scratch.
#pragma once
#include "session.h"

#define MARK 0x4d4f4900 // of sockets that are led to a proxy: and the index of the interface
#define STANDINGS 8
#define DOORS 64
#define SOCKET_LEVEL 1 // SOL_SOCKET
#define SOCKET_MARK 36 // SO_MARK

struct standing { // one interface of a namespace in which a proxy stands
	u32 vni;
	u32 ifindex; // of the node's end
	u32 inside;  // of the end in the namespace
	u32 pad;
	u64 project;	    // of the workload
	union addr self[2]; // of the workload, IPv4 and IPv6; zero: none
};

struct stand { // by the cookie of a namespace
	u64 proxy;
	u32 workers; // of the proxy
	u32 count;   // of interfaces
	u32 port;    // of the listeners, in host order
	u32 lent;    // what the agent switched on there
	u32 gate;    // nobody but the proxy is there, which takes what comes to a door
	u32 doors;
	u16 door[DOORS]; // ports, in host order
	struct standing at[STANDINGS];
};

#define LISTENS_OUT 0
#define LISTENS_IN 1

struct listener_key {
	u64 cookie;
	u32 direction; // LISTENS_
	u32 worker;
};

TABLE(groups, HASH, u64, u64, 16384, BPF_F_NO_PREALLOC); // cgroup of a proxy -> its number
TABLE(stands, HASH, u64, struct stand, 16384, BPF_F_NO_PREALLOC);
TABLE(listeners, SOCKHASH, struct listener_key, u64, 262144, 0);

// here is the namespace of `steer`, which is loaded once for each.
volatile const u64 here;

// whose_identity of a FloatingIP is that of one of its backends: which one takes the session
// is not known yet, and the packet is judged again.
inline_ u32 whose_identity(const struct service *v)
{
	u32 chosen = slot_of(&v->all, 0);
	struct backend *b = chosen ? backend_of(v->id, chosen - 1) : 0;
	struct endpoint *e = b ? endpoint_of(b->vni, &b->addr) : 0;

	return e ? e->identity : 0;
}

#define FIRST_BACKENDS 16

// asks_of_backend: the egress rules of the caller are about requests, for one of the
// backends. One that is not looked at is refused when it is chosen.
step int asks_of_backend(u32 set, u32 service, u16 port)
{
	for (u32 i = 0; i < FIRST_BACKENDS; i++) {
		struct backend *b = backend_of(service, i);
		struct endpoint *e;
		struct verdict *d;

		if (!b)
			continue;
		e = endpoint_of(b->vni, &b->addr);
		d = verdict_of(set, e ? e->identity : 0, &b->addr, PROTO_TCP, b->port ? b->port : port);
		if (d && d->allow == PROXIED)
			return 1;
	}
	return 0;
}

// service_at is the row of the Service that a connection asks for.
inline_ struct service *service_at(u32 vni, const union addr *a, u16 port)
{
	struct service_key k = {.vni = vni, .port = port, .proto = PROTO_TCP};
	struct service *v;

	k.addr = *a;
	v = bpf_map_lookup_elem(&services, &k);
	return v ? v : at_address(vni, a);
}

struct wish { // a connection, before there is one
	union addr src, dst; // src zero: any
	u16 port; // network order
	u16 pad;
};

// takes: a connection by that interface is the proxy's to make.
alone int takes(const struct standing *at, const struct wish *w)
{
	struct endpoint *me, *it;
	struct service *v;
	struct verdict *d;
	u32 identity = 0;

	if (!at || !w)
		return 0;
	u32 v6 = !mapped(&w->dst);
	me = endpoint_of(at->vni, is_zero(&w->src) ? &at->self[v6] : &w->src);
	if (!me || me->ifindex != at->ifindex)
		return 0;
	it = endpoint_of(at->vni, &w->dst);
	if (it) {
		if (it->how & HOW_PLATFORM || (it->ifindex == at->ifindex && !it->home.vni))
			return 0;
		if (me->how & it->how & HOW_MESH)
			return 1;
		identity = it->identity;
	} else if (stays_inside(&w->dst)) {
		return 0;
	} else {
		if (is_fronted(at->project, at->vni, &w->dst, w->port))
			return 1;
		v = service_at(at->vni, &w->dst, w->port);
		if (v && me->how & HOW_MESH && v->flags & SERVICE_MESHED)
			return 1;
		if (v && !(v->flags & SERVICE_FLOATING))
			return asks_of_backend(me->egress, v->id, w->port);
		if (v)
			identity = whose_identity(v);
	}
	d = verdict_of(me->egress, identity, &w->dst, PROTO_TCP, w->port);
	return d && d->allow == PROXIED;
}

// chosen_standing is 1 + the index of the interface by which the proxy takes a
// connection; 0: it does not.
inline_ u32 chosen_standing(const struct stand *st, const struct wish *w)
{
	for (u32 i = 0; i < STANDINGS; i++) {
		if (i >= st->count)
			break;
		if (takes(&st->at[i], w))
			return i + 1;
	}
	return 0;
}

// listens: somebody has the listeners; with neither agent nor proxy nobody has.
inline_ int listens(u64 cookie)
{
	struct listener_key k = {.cookie = cookie};
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &k);

	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

inline_ int connecting(struct bpf_sock_addr *ctx, struct wish *w)
{
	u64 group = bpf_get_current_cgroup_id(), cookie;
	struct bpf_sock *sk = ctx->sk;
	struct stand *st;
	u32 chosen, mark;

	if (!sk)
		return 1;
	if (bpf_map_lookup_elem(&groups, &group)) {
		bpf_sk_storage_get(&speakers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		return 1;
	}
	cookie = bpf_get_netns_cookie(ctx);
	st = bpf_map_lookup_elem(&stands, &cookie);
	if (!st)
		return 1;
	w->port = ctx->user_port;
	chosen = is_up(st->proxy) ? chosen_standing(st, w) : 0;
	if (chosen && listens(cookie)) { // else the packet is refused, and told

		mark = MARK + chosen - 1;
	} else {
		if ((sk->mark & ~0xff) != MARK)
			return 1;
		mark = 0; // it was connected to something else before
	}
	bpf_setsockopt(ctx, SOCKET_LEVEL, SOCKET_MARK, &mark, sizeof(mark));
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct wish w = {};

	if (ctx->protocol != PROTO_TCP)
		return 1;
	set_ipv4(&w.dst, ctx->user_ip4);
	if (ctx->sk && ctx->sk->src_ip4)
		set_ipv4(&w.src, ctx->sk->src_ip4);
	return connecting(ctx, &w);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct wish w = {};

	if (ctx->protocol != PROTO_TCP)
		return 1;
	w.dst.w[0] = ctx->user_ip6[0];
	w.dst.w[1] = ctx->user_ip6[1];
	w.dst.w[2] = ctx->user_ip6[2];
	w.dst.w[3] = ctx->user_ip6[3];
	if (ctx->sk) {
		w.src.w[0] = ctx->sk->src_ip6[0];
		w.src.w[1] = ctx->sk->src_ip6[1];
		w.src.w[2] = ctx->sk->src_ip6[2];
		w.src.w[3] = ctx->sk->src_ip6[3];
	}
	return connecting(ctx, &w);
}

// comes_for_proxy: what arrives at an interface is of a session in which a proxy
// speaks for this end.
inline_ int comes_for_proxy(const struct stand *st, const struct wish *w, u32 inside, u16 sport)
{
	struct session_key k = {};
	struct session *s;
	struct alias *a;
	u32 vni = 0, first, end = 1;

	for (u32 i = 0; i < STANDINGS; i++) {
		if (i < st->count && st->at[i].inside == inside)
			vni = st->at[i].vni;
	}
	if (!vni)
		return 0;
	first = order_key(&k, vni, &w->src, sport, &w->dst, w->port, PROTO_TCP);
	s = session_of(&k);
	if (s)
		return first == s->a_first && s->flags & S_PROXY_1;
	a = alias_of(&k);
	if (!a)
		return 0;
	end = a->end;
	s = session_of(&a->session);
	return s && end == 1 && s->flags & S_PROXY_1;
}

inline_ int is_door(const struct stand *st, u32 port)
{
	for (u32 i = 0; i < DOORS; i++) {
		if (i >= st->doors)
			break;
		if (st->door[i] == port)
			return 1;
	}
	return 0;
}

inline_ void ends_of(const struct bpf_sk_lookup *ctx, struct wish *w)
{
	if (ctx->family == FAMILY_IPV4) {
		set_ipv4(&w->src, ctx->remote_ip4);
		set_ipv4(&w->dst, ctx->local_ip4);
	} else {
		w->src.w[0] = ctx->remote_ip6[0];
		w->src.w[1] = ctx->remote_ip6[1];
		w->src.w[2] = ctx->remote_ip6[2];
		w->src.w[3] = ctx->remote_ip6[3];
		w->dst.w[0] = ctx->local_ip6[0];
		w->dst.w[1] = ctx->local_ip6[1];
		w->dst.w[2] = ctx->local_ip6[2];
		w->dst.w[3] = ctx->local_ip6[3];
	}
	w->port = bpf_htons(ctx->local_port);
}

// steer runs in the namespace `here`, when a packet comes for which no connection is
// known yet. Nobody else gets to the listeners of the proxy.
SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	struct listener_key k = {.cookie = here};
	struct bpf_sock *sk;
	struct wish w = {};
	struct stand *st;
	u64 cookie = here;
	long r;

	if (ctx->protocol != PROTO_TCP)
		return SK_PASS;
	st = bpf_map_lookup_elem(&stands, &cookie);
	if (!st)
		return SK_PASS;
	ends_of(ctx, &w);
	if (ctx->ingress_ifindex == LOOPBACK && chosen_standing(st, &w))
		k.direction = LISTENS_OUT;
	else if (ctx->ingress_ifindex != LOOPBACK && (st->gate ? is_door(st, ctx->local_port) :
							 comes_for_proxy(st, &w, ctx->ingress_ifindex, ctx->remote_port)))
		k.direction = LISTENS_IN;
	else
		return ctx->local_port == st->port ? SK_DROP : SK_PASS;
	if (st->workers)
		k.worker = (u32)hash_of(&w.src, &w.dst, (u64)ctx->remote_port << 16 | w.port) % st->workers;
	sk = bpf_map_lookup_elem(&listeners, &k);
	if (!sk)
		return SK_DROP;
	r = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
	bpf_sk_release(sk);
	return r ? SK_DROP : SK_PASS;
}
